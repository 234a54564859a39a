//! Memories as tables and back: columns by name, checked when they return.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatchOptions, StringArray};
use arrow::datatypes::{Field as ArrowField, Float64Type, Int64Type, Schema};
use arrow::record_batch::RecordBatch;

/// Builds one table, column by column; all must be of the same length.
#[derive(Debug, Default)]
pub struct Writer {
    fields: Vec<ArrowField>,
    columns: Vec<ArrayRef>,
}

impl Writer {
    pub fn texts<T: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Writer {
        self.column(name, Arc::new(StringArray::from_iter_values(values)))
    }

    pub fn ints(self, name: &str, values: impl IntoIterator<Item = i64>) -> Writer {
        self.column(name, Arc::new(Int64Array::from_iter_values(values)))
    }

    pub fn floats(self, name: &str, values: impl IntoIterator<Item = f64>) -> Writer {
        self.column(name, Arc::new(Float64Array::from_iter_values(values)))
    }

    fn column(mut self, name: &str, column: ArrayRef) -> Writer {
        self.fields.push(ArrowField::new(name, column.data_type().clone(), false));
        self.columns.push(column);
        self
    }

    pub fn table(self) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(self.columns.first().map_or(0, Array::len)));
        let schema = Arc::new(Schema::new(self.fields));
        RecordBatch::try_new_with_options(schema, self.columns, &options).expect("columns of one length")
    }
}

/// Reads one table.
#[derive(Debug)]
pub struct Reader<'a> {
    name: &'a str,
    table: &'a RecordBatch,
}

impl<'a> Reader<'a> {
    /// The table of this name.
    ///
    /// # Errors
    /// Says that it is missing.
    pub fn open(tables: &'a [(String, RecordBatch)], name: &'a str) -> Result<Reader<'a>, String> {
        let table = tables.iter().find(|(found, _)| found == name).map(|(_, table)| table);
        table.map(|table| Reader { name, table }).ok_or_else(|| format!("table '{name}' is missing"))
    }

    pub fn rows(&self) -> usize {
        self.table.num_rows()
    }

    /// A column of texts, without nulls.
    ///
    /// # Errors
    /// Says which column is missing or of another type.
    pub fn texts(&self, column: &str) -> Result<Vec<&'a str>, String> {
        let array = self.array(column)?.as_string_opt::<i32>().ok_or_else(|| self.wrong(column))?;
        Ok((0..array.len()).map(|row| array.value(row)).collect())
    }

    /// A column of integers, without nulls.
    ///
    /// # Errors
    /// Says which column is missing or of another type.
    pub fn ints(&self, column: &str) -> Result<Vec<i64>, String> {
        let array = self.array(column)?.as_primitive_opt::<Int64Type>().ok_or_else(|| self.wrong(column))?;
        Ok(array.values().to_vec())
    }

    /// A column of numbers, without nulls.
    ///
    /// # Errors
    /// Says which column is missing or of another type.
    pub fn floats(&self, column: &str) -> Result<Vec<f64>, String> {
        let array = self.array(column)?.as_primitive_opt::<Float64Type>().ok_or_else(|| self.wrong(column))?;
        Ok(array.values().to_vec())
    }

    fn array(&self, column: &str) -> Result<&'a ArrayRef, String> {
        let array = self.table.column_by_name(column).filter(|array| array.null_count() == 0);
        array.ok_or_else(|| self.wrong(column))
    }

    fn wrong(&self, column: &str) -> String {
        format!("table '{}': column '{column}' is not as it was written", self.name)
    }
}
