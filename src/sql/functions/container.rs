//! Fields of containers: `any_container`, so that lists of struct need no lambda.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::{DataType, Fields, Int32Type, Int64Type};
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

use super::Kernel;
use super::arguments::{Arguments, Param, list_texts, scalar_text, type_name};
use crate::sql::error::{HELP, closest};

/// `any_container(containers, field)` and `any_container(containers, field, value)`.
#[derive(Debug)]
pub(super) struct AnyContainer;

impl Kernel for AnyContainer {
    fn params(&self) -> &[Param] {
        &[Param::Structs, Param::Text, Param::OptionalValue]
    }

    fn check(&self, types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        let Some(name) = constants.get(1).copied().flatten().and_then(scalar_text) else {
            return Err("argument 2 must be the name of a field in single quotes".into());
        };
        let Some(fields) = types.first().and_then(|kind| struct_fields(kind)) else { return Ok(()) };
        let Some((_, field)) = fields.find(name) else {
            let names = || fields.iter().map(|field| field.name().as_str());
            let hint = match closest(name, names()) {
                Some(name) => format!("did you mean '{name}'?"),
                None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
            };
            return Err(format!("a container has no field '{name}'{HELP}{hint}"));
        };
        let fits = match (field.data_type(), types.get(2).copied()) {
            (DataType::Boolean, None | Some(DataType::Boolean)) | (_, Some(DataType::Null)) => true,
            (DataType::Utf8, Some(DataType::Utf8)) => true,
            (kind, Some(DataType::Int64)) if kind.is_integer() => true,
            (DataType::List(item), Some(DataType::Utf8)) => *item.data_type() == DataType::Utf8,
            (DataType::List(item), Some(DataType::Int64)) => item.data_type().is_integer(),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let kind = type_name(field.data_type());
        Err(format!("field '{name}' is {kind}: give the value to look for as argument 3, of that type"))
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let array = arguments.array(0)?;
        if arguments.has(2) && *arguments.array(2)?.data_type() == DataType::Null {
            return Ok(Arc::new(BooleanArray::new_null(arguments.rows())));
        }
        let Some(lists) = array.as_list_opt::<i32>() else {
            return datafusion::common::internal_err!("containers are {}", array.data_type());
        };
        let field = arguments.constant_text(1).unwrap_or_default();
        let values = if arguments.has(2) { Some(arguments.array(2)?) } else { None };
        let answer = |row: usize| {
            let wanted = match &values {
                Some(values) => Wanted::of(values, row)?,
                None => Wanted::Boolean(true),
            };
            any_container(lists, row, field, &wanted)
        };
        let answers: BooleanArray = (0..arguments.rows()).map(answer).collect();
        Ok(Arc::new(answers))
    }
}

fn struct_fields(kind: &DataType) -> Option<&Fields> {
    match kind {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// What a field of a container is to be; a field that is a list is to hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sql) enum Wanted {
    Boolean(bool),
    Text(String),
    Integer(i64),
}

impl Wanted {
    /// The value of a row, `None` for NULL.
    fn of(values: &ArrayRef, row: usize) -> Option<Wanted> {
        if values.is_null(row) {
            return None;
        }
        if let Some(booleans) = values.as_boolean_opt() {
            return Some(Wanted::Boolean(booleans.value(row)));
        }
        match values.as_string_opt::<i32>() {
            Some(texts) => Some(Wanted::Text(texts.value(row).to_owned())),
            None => Some(Wanted::Integer(integer(values, row)?)),
        }
    }

    /// Whether the field of one container is this, or holds it. NULL is nothing.
    fn is(&self, field: &ArrayRef, index: usize) -> bool {
        if field.is_null(index) {
            return false;
        }
        if let Some(lists) = field.as_list_opt::<i32>() {
            return match self {
                Wanted::Text(wanted) => list_texts(lists, index).is_some_and(|mut texts| texts.any(|t| t == wanted)),
                Wanted::Integer(wanted) => {
                    let items = lists.value(index);
                    (0..items.len()).any(|item| integer(&items, item) == Some(*wanted))
                }
                Wanted::Boolean(_) => false,
            };
        }
        match self {
            Wanted::Boolean(wanted) => field.as_boolean_opt().is_some_and(|field| field.value(index) == *wanted),
            Wanted::Text(wanted) => field.as_string_opt::<i32>().is_some_and(|field| field.value(index) == wanted),
            Wanted::Integer(wanted) => integer(field, index) == Some(*wanted),
        }
    }
}

/// Whether any container of the row passes; `None` where the row is NULL.
pub(in crate::sql) fn any_container(lists: &ListArray, row: usize, field: &str, wanted: &Wanted) -> Option<bool> {
    if lists.is_null(row) {
        return None;
    }
    let containers = lists.values().as_struct_opt()?;
    let field = containers.column_by_name(field)?;
    let offset = |index: usize| lists.value_offsets().get(index).and_then(|offset| usize::try_from(*offset).ok());
    let mut own = offset(row)?..offset(row + 1)?;
    Some(own.any(|index| containers.is_valid(index) && wanted.is(field, index)))
}

/// A whole number of whatever width.
fn integer(array: &ArrayRef, row: usize) -> Option<i64> {
    if array.is_null(row) {
        return None;
    }
    match array.as_primitive_opt::<Int64Type>() {
        Some(integers) => Some(integers.value(row)),
        None => Some(i64::from(array.as_primitive_opt::<Int32Type>()?.value(row))),
    }
}
