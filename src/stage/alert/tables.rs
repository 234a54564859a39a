//! What the tables have in common that the stage is saved as.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, PrimitiveArray, RecordBatch,
};
use arrow::datatypes::ArrowPrimitiveType;

const ID_BYTES: i32 = 16;

/// Ids as a column.
pub fn ids(values: impl ExactSizeIterator<Item = [u8; 16]>) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(values.len(), ID_BYTES);
    values.for_each(|value| builder.append_value(value).expect("an id has 16 bytes"));
    Arc::new(builder.finish())
}

/// Of a column of which [`Columns::ids`] has checked the width.
pub fn id(column: &FixedSizeBinaryArray, row: usize) -> [u8; 16] {
    column.value(row).try_into().unwrap_or_default()
}

/// A table by name, its columns checked when they are asked for.
#[derive(Debug)]
pub struct Columns<'a> {
    name: &'static str,
    table: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    /// The table of a name.
    pub fn of(tables: &'a [(String, RecordBatch)], name: &'static str) -> Result<Columns<'a>, String> {
        let table = tables.iter().find(|(found, _)| found == name);
        let (_, table) = table.ok_or_else(|| format!("the table {name} is missing"))?;
        Ok(Columns { name, table })
    }

    /// A column without nulls.
    pub fn column(&self, column: &str) -> Result<&'a ArrayRef, String> {
        let found = self.table.column_by_name(column).filter(|found| found.null_count() == 0);
        found.ok_or_else(|| format!("{}.{column} is missing or has nulls", self.name))
    }

    /// A column of numbers.
    pub fn numbers<T: ArrowPrimitiveType>(&self, column: &str) -> Result<&'a PrimitiveArray<T>, String> {
        let found = self.column(column)?.as_primitive_opt::<T>();
        found.ok_or_else(|| format!("{}.{column} is not of type {}", self.name, T::DATA_TYPE))
    }

    /// A column of ids.
    pub fn ids(&self, column: &str) -> Result<&'a FixedSizeBinaryArray, String> {
        let found = self.column(column)?.as_fixed_size_binary_opt().filter(|found| found.value_length() == ID_BYTES);
        found.ok_or_else(|| format!("{}.{column} holds no ids of {ID_BYTES} bytes", self.name))
    }
}
