//! Columns where they lie, and a row of them.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListArray, StringArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};

/// Place of a column in [`Row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(pub usize);

/// One column.
#[derive(Debug)]
pub(super) enum Values<'a> {
    Texts(Keys<'a>, &'a StringArray),
    Lists(Keys<'a>, &'a ListArray),
    Booleans(&'a BooleanArray),
    Integers(&'a Int64Array),
    /// Of which only null is asked.
    Others(&'a ArrayRef),
}

/// The keys of a dictionary; none where each row has its value.
type Keys<'a> = Option<&'a Int32Array>;

impl<'a> Values<'a> {
    pub fn of(array: &'a ArrayRef) -> Option<Values<'a>> {
        let (keys, values) = match array.as_dictionary_opt::<Int32Type>() {
            Some(dictionary) => (Some(dictionary.keys()), dictionary.values()),
            None => (None, array),
        };
        Some(match (values.data_type(), keys) {
            (DataType::Utf8, _) => Values::Texts(keys, values.as_string()),
            (DataType::List(_), _) => Values::Lists(keys, values.as_list()),
            (DataType::Boolean, None) => Values::Booleans(values.as_boolean()),
            (DataType::Int64, None) => Values::Integers(values.as_primitive::<Int64Type>()),
            (_, None) => Values::Others(array),
            _ => return None,
        })
    }
}

/// The value of a row; `None` where its key is null.
fn place(keys: Keys<'_>, row: usize) -> Option<usize> {
    match keys {
        None => Some(row),
        Some(keys) => keys.is_valid(row).then(|| keys.value(row) as usize),
    }
}

/// A row of some columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub values: &'a [Values<'a>],
    pub row: usize,
}

impl<'a> Row<'a> {
    pub fn text(&self, slot: Slot) -> Option<&'a str> {
        let Values::Texts(keys, values) = &self.values[slot.0] else { return None };
        let place = place(*keys, self.row)?;
        values.is_valid(place).then(|| values.value(place))
    }

    /// A list by the array that holds it and its place there.
    pub fn list(&self, slot: Slot) -> Option<(&'a ListArray, usize)> {
        let Values::Lists(keys, values) = &self.values[slot.0] else { return None };
        let place = place(*keys, self.row)?;
        values.is_valid(place).then_some((*values, place))
    }

    pub fn boolean(&self, slot: Slot) -> Option<bool> {
        let Values::Booleans(values) = &self.values[slot.0] else { return None };
        values.is_valid(self.row).then(|| values.value(self.row))
    }

    pub fn integer(&self, slot: Slot) -> Option<i64> {
        let Values::Integers(values) = &self.values[slot.0] else { return None };
        values.is_valid(self.row).then(|| values.value(self.row))
    }

    pub fn is_null(&self, slot: Slot) -> bool {
        match &self.values[slot.0] {
            Values::Texts(keys, values) => place(*keys, self.row).is_none_or(|place| values.is_null(place)),
            Values::Lists(keys, values) => place(*keys, self.row).is_none_or(|place| values.is_null(place)),
            Values::Booleans(values) => values.is_null(self.row),
            Values::Integers(values) => values.is_null(self.row),
            Values::Others(values) => values.is_null(self.row),
        }
    }
}
