//! What functions take: which types fit a parameter, and how the values of a batch are read.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};
use datafusion::scalar::ScalarValue;

use crate::model::Kind;

/// One parameter of a function; the last one of a list may repeat ([`Param::Patterns`], [`Param::Values`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Text,
    TextList,
    /// One or more arguments, each a text or a list of text.
    Patterns,
    /// A list of text or of integers.
    List,
    /// One or more arguments, each a text, an integer or a list of either.
    Values,
    /// The column `rules` or something shaped like it.
    Rules,
    /// The column `containers` or any other list of struct.
    Structs,
    /// At most one text, integer or boolean.
    OptionalValue,
}

impl Param {
    /// How an error calls what fits.
    fn wants(self) -> &'static str {
        match self {
            Param::Text => "text",
            Param::TextList => "a list of text",
            Param::Patterns => "text or a list of text",
            Param::List => "a list of text or of integers",
            Param::Values => "text, an integer, or a list of one of these",
            Param::Rules => "a list of rules, such as the column `rules`",
            Param::Structs => "a list of struct, such as the column `containers`",
            Param::OptionalValue => "text, an integer or a boolean",
        }
    }

    fn repeats(self) -> bool {
        matches!(self, Param::Patterns | Param::Values)
    }

    /// The type that an argument is cast to, `None` where it does not fit.
    fn coerce(self, given: &DataType) -> Option<DataType> {
        match self {
            Param::Text => text(given),
            Param::TextList => text_list(given),
            Param::Patterns => text(given).or_else(|| text_list(given)),
            Param::List => text_list(given).or_else(|| integer_list(given)),
            Param::Values => {
                text(given).or_else(|| integer(given)).or_else(|| text_list(given)).or_else(|| integer_list(given))
            }
            Param::Rules => rules(given),
            Param::Structs => structs(given),
            Param::OptionalValue if *given == DataType::Null => Some(DataType::Null),
            Param::OptionalValue => {
                text(given).or_else(|| integer(given)).or((*given == DataType::Boolean).then_some(DataType::Boolean))
            }
        }
    }
}

/// Fits the arguments of a call to its parameters.
///
/// # Errors
/// Says which argument is wrong, missing or too many, and what it must be.
pub(super) fn coerce(params: &[Param], given: &[DataType]) -> Result<Vec<DataType>, String> {
    let required = params.iter().filter(|param| **param != Param::OptionalValue).count();
    let last = params.last().copied();
    if given.len() < required {
        let missing = params.get(given.len()).map_or("an argument", |param| param.wants());
        return Err(format!("argument {} is missing: {missing}", given.len() + 1));
    }
    let mut coerced = Vec::with_capacity(given.len());
    for (index, given_type) in given.iter().enumerate() {
        let param = params.get(index).copied().or(last.filter(|param| param.repeats()));
        let Some(param) = param else {
            return Err(format!("got {} arguments, takes {}", given.len(), params.len()));
        };
        match param.coerce(given_type) {
            Some(to) => coerced.push(to),
            None => {
                let got = type_name(given_type);
                return Err(format!("argument {} must be {}, got {got}", index + 1, param.wants()));
            }
        }
    }
    Ok(coerced)
}

/// What an author calls a type.
pub(in crate::sql) fn type_name(kind: &DataType) -> String {
    match kind {
        kind if text(kind).is_some() && *kind != DataType::Null => "text".into(),
        kind if kind.is_integer() => "an integer".into(),
        kind if kind.is_floating() => "a number".into(),
        DataType::Null => "NULL".into(),
        DataType::Boolean => "a boolean".into(),
        DataType::Timestamp(..) => "a timestamp".into(),
        DataType::Struct(_) => "a struct".into(),
        DataType::Union(..) => "JSON (use ->> or json_get_str to get text)".into(),
        kind => match element(kind) {
            Some(DataType::Struct(_)) => "a list of struct".into(),
            Some(element) => {
                format!("a list of {}", type_name(element).trim_start_matches("an ").trim_start_matches("a "))
            }
            None => kind.to_string(),
        },
    }
}

fn text(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Some(DataType::Utf8),
        DataType::Dictionary(_, values) if **values != DataType::Null => text(values),
        _ => None,
    }
}

fn integer(given: &DataType) -> Option<DataType> {
    given.is_integer().then_some(DataType::Int64)
}

fn element(given: &DataType) -> Option<&DataType> {
    match given {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => Some(field.data_type()),
        _ => None,
    }
}

fn text_list(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Null => Some(Kind::TextList.data_type()),
        // Whatever its item is called, it can be read as it is.
        DataType::List(field) if *field.data_type() == DataType::Utf8 => Some(given.clone()),
        _ => text(element(given)?).map(|_| Kind::TextList.data_type()),
    }
}

fn integer_list(given: &DataType) -> Option<DataType> {
    let to = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    element(given)?.is_integer().then_some(to)
}

fn structs(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Null => Some(Kind::Containers.data_type()),
        DataType::List(field) if matches!(field.data_type(), DataType::Struct(_)) => Some(given.clone()),
        _ => None,
    }
}

fn rules(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Null => Some(Kind::Rules.data_type()),
        DataType::List(field) => match field.data_type() {
            DataType::Struct(fields) => {
                let known =
                    fields.find("verbs").is_some() && fields.iter().all(|field| text_list(field.data_type()).is_some());
                known.then(|| given.clone())
            }
            _ => None,
        },
        _ => None,
    }
}

/// The arguments of one call over one batch.
pub(super) struct Arguments<'a> {
    values: &'a [ColumnarValue],
    /// Rows to evaluate; 1 where all arguments are constant.
    rows: usize,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(call: &'a ScalarFunctionArgs) -> Self {
        let constant = call.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        Arguments { values: &call.args, rows: if constant { 1 } else { call.number_rows } }
    }

    /// Rows to evaluate.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// One value for each row.
    pub(super) fn array(&self, index: usize) -> Result<ArrayRef> {
        match self.values.get(index) {
            Some(value) => value.to_array(self.rows),
            None => datafusion::common::internal_err!("argument {} is missing", index + 1),
        }
    }

    /// Whether there is such an argument.
    pub(super) fn has(&self, index: usize) -> bool {
        index < self.values.len()
    }

    /// A constant text.
    pub(super) fn constant_text(&self, index: usize) -> Option<&'a str> {
        match self.values.get(index) {
            Some(ColumnarValue::Scalar(value)) => scalar_text(value),
            _ => None,
        }
    }

    /// A text for each row; a constant is kept once.
    pub(super) fn text(&self, index: usize) -> Result<Texts> {
        match self.values.get(index) {
            Some(ColumnarValue::Scalar(value)) => Ok(Texts { array: value.to_array()?, constant: true }),
            _ => Ok(Texts { array: self.array(index)?, constant: false }),
        }
    }

    /// The arguments from `index` on, as patterns.
    pub(super) fn patterns(&self, index: usize) -> Result<Patterns> {
        let values = self.values.get(index..).unwrap_or_default();
        let texts = values.iter().map(|value| match value {
            ColumnarValue::Scalar(value) => Ok(Texts { array: value.to_array()?, constant: true }),
            ColumnarValue::Array(array) => Ok(Texts { array: Arc::clone(array), constant: false }),
        });
        Ok(Patterns(texts.collect::<Result<_>>()?))
    }
}

/// The text of a constant.
pub(super) fn scalar_text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

/// Texts or lists of text, one for each row or one for all.
pub(super) struct Texts {
    array: ArrayRef,
    constant: bool,
}

impl Texts {
    /// Whether there is one text for all rows.
    pub(super) fn is_constant(&self) -> bool {
        self.constant
    }

    fn row(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    /// The text of a row, `None` for NULL.
    pub(super) fn value(&self, row: usize) -> Option<&str> {
        let row = self.row(row);
        let texts = self.array.as_string_opt::<i32>()?;
        (row < texts.len() && texts.is_valid(row)).then(|| texts.value(row))
    }

    /// Adds the texts of a row. False where the argument itself is NULL, so what it would hold is unknown.
    fn collect<'a>(&'a self, row: usize, into: &mut Vec<&'a str>) -> bool {
        let row = self.row(row);
        if self.array.is_null(row) {
            return false;
        }
        if let Some(texts) = self.array.as_string_opt::<i32>() {
            into.push(texts.value(row));
        } else if let Some(items) = self.array.as_list_opt::<i32>().and_then(|lists| list_texts(lists, row)) {
            into.extend(items);
        }
        true
    }
}

/// The texts of one row's list, without its NULLs; `None` where the list is NULL.
pub(in crate::sql) fn list_texts(lists: &ListArray, row: usize) -> Option<impl Iterator<Item = &str>> {
    let (texts, range) = list_range(lists, row)?;
    Some(range.filter(|index| texts.is_valid(*index)).map(|index| texts.value(index)))
}

fn list_range(lists: &ListArray, row: usize) -> Option<(&StringArray, std::ops::Range<usize>)> {
    if row >= lists.len() || lists.is_null(row) {
        return None;
    }
    let texts = lists.values().as_string_opt::<i32>()?;
    let offset = |index: usize| lists.value_offsets().get(index).and_then(|offset| usize::try_from(*offset).ok());
    Some((texts, offset(row)?..offset(row + 1)?))
}

/// The pattern arguments of a call.
pub(super) struct Patterns(Vec<Texts>);

/// The patterns that hold for one row.
pub(super) struct Row<'a> {
    /// Without NULLs.
    pub(super) texts: Vec<&'a str>,
    /// Some argument was NULL: where nothing else matches, the answer is unknown.
    pub(super) unknown: bool,
}

impl Patterns {
    /// The patterns, if they are the same for all rows.
    pub(super) fn constant(&self) -> Option<Row<'_>> {
        self.0.iter().all(|texts| texts.constant).then(|| self.row(0))
    }

    /// The patterns of one row.
    pub(super) fn row(&self, row: usize) -> Row<'_> {
        let mut texts = Vec::new();
        let mut unknown = false;
        for argument in &self.0 {
            unknown |= !argument.collect(row, &mut texts);
        }
        Row { texts, unknown }
    }
}
