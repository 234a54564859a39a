//! Fields of containers: `any_container`, so that lists of struct need no lambda.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::{DataType, Fields, Int64Type};
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

use super::Kernel;
use super::arguments::{Arguments, Param, Texts, list_texts, scalar_text, type_name};
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
            (DataType::Boolean, None | Some(DataType::Boolean)) => true,
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
        let field = arguments.constant_text(1);
        let column = array
            .as_list_opt::<i32>()
            .and_then(|lists| Some((lists, lists.values().as_struct_opt()?.column_by_name(field?)?)));
        let Some((lists, column)) = column else {
            return datafusion::common::internal_err!("containers are {}", array.data_type());
        };
        let test = FieldTest::new(arguments, column)?;
        let answers: BooleanArray = (0..arguments.rows()).map(|row| test.any(lists, row)).collect();
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

/// One field of all containers of a batch, and what it is compared with.
enum FieldTest<'a> {
    Boolean(&'a BooleanArray, Option<ArrayRef>),
    Text(&'a ArrayRef, Texts),
    Integer(ArrayRef, ArrayRef),
    TextList(&'a ListArray, Texts),
    IntegerList(ArrayRef, ArrayRef),
}

impl<'a> FieldTest<'a> {
    fn new(arguments: &Arguments<'_>, column: &'a ArrayRef) -> Result<Self> {
        let cast = |to: DataType| arrow::compute::cast(column, &to);
        let int64_list = || DataType::new_list(DataType::Int64, true);
        Ok(match column.data_type() {
            DataType::Boolean if arguments.has(2) => FieldTest::Boolean(column.as_boolean(), Some(arguments.array(2)?)),
            DataType::Boolean => FieldTest::Boolean(column.as_boolean(), None),
            DataType::Utf8 => FieldTest::Text(column, arguments.text(2)?),
            kind if kind.is_integer() => FieldTest::Integer(cast(DataType::Int64)?, arguments.array(2)?),
            DataType::List(item) if *item.data_type() == DataType::Utf8 => {
                FieldTest::TextList(column.as_list(), arguments.text(2)?)
            }
            _ => FieldTest::IntegerList(cast(int64_list())?, arguments.array(2)?),
        })
    }

    /// Whether any container of the row passes. Fields that are NULL do not.
    fn any(&self, lists: &ListArray, row: usize) -> Option<bool> {
        if lists.is_null(row) {
            return None;
        }
        let offset = |index: usize| lists.value_offsets().get(index).and_then(|offset| usize::try_from(*offset).ok());
        let mut containers = offset(row)?..offset(row + 1)?;
        let alive = lists.values();
        let mut any = |test: &dyn Fn(usize) -> bool| containers.any(|index| alive.is_valid(index) && test(index));
        match self {
            FieldTest::Boolean(column, value) => {
                let wanted = match value {
                    Some(value) => value.is_valid(row).then(|| value.as_boolean().value(row))?,
                    None => true,
                };
                Some(any(&|index| column.is_valid(index) && column.value(index) == wanted))
            }
            FieldTest::Text(column, value) => {
                let wanted = value.value(row)?;
                let texts = column.as_string::<i32>();
                Some(any(&|index| texts.is_valid(index) && texts.value(index) == wanted))
            }
            FieldTest::TextList(column, value) => {
                let wanted = value.value(row)?;
                Some(any(&|index| list_texts(column, index).is_some_and(|mut texts| texts.any(|text| text == wanted))))
            }
            FieldTest::Integer(column, value) => {
                let wanted = integer(value, row)?;
                Some(any(&|index| integer(column, index) == Some(wanted)))
            }
            FieldTest::IntegerList(column, value) => {
                let wanted = integer(value, row)?;
                let holds = |index: usize| {
                    let items = column.as_list::<i32>().value(index);
                    (0..items.len()).any(|item| integer(&items, item) == Some(wanted))
                };
                Some(any(&|index| column.is_valid(index) && holds(index)))
            }
        }
    }
}

fn integer(array: &ArrayRef, row: usize) -> Option<i64> {
    let integers = array.as_primitive_opt::<Int64Type>()?;
    integers.is_valid(row).then(|| integers.value(row))
}
