//! Some rows of a batch as conditions see them: small columns, taken when they are first asked for.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

use crate::model::{COLUMNS, Column, EventBatch};

/// Rows of a batch, numbered anew from 0.
#[derive(Debug)]
pub(super) struct Table<'b> {
    batch: &'b EventBatch,
    /// Row of the batch by row of the table.
    rows: UInt32Array,
    /// By column; taken out of the batch when somebody asks.
    columns: Vec<OnceCell<Option<ArrayRef>>>,
}

impl<'b> Table<'b> {
    /// The given rows of a batch.
    pub fn of(batch: &'b EventBatch, rows: Vec<u32>) -> Table<'b> {
        Table { batch, rows: UInt32Array::from(rows), columns: vec![OnceCell::new(); COLUMNS.len()] }
    }

    /// The same with these columns, which the batch does not hold; each has an entry for each row.
    pub fn with(mut self, columns: Vec<(Column, ArrayRef)>) -> Table<'b> {
        for (column, array) in columns {
            self.columns[column as usize] = OnceCell::from(Some(array));
        }
        self
    }

    /// One row as a table of its own.
    pub fn row(&self, row: usize) -> Table<'b> {
        let here = UInt32Array::from(vec![row as u32]);
        let columns = self.columns.iter().map(|column| match column.get() {
            Some(Some(array)) => OnceCell::from(picked(array, &here).ok()),
            _ => OnceCell::new(),
        });
        Table { batch: self.batch, rows: self.rows.slice(row, 1), columns: columns.collect() }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// A column as it is laid out; the dictionary of one holds no more than its values.
    pub fn column(&self, column: Column) -> Result<&ArrayRef, String> {
        let array = self.columns[column as usize].get_or_init(|| {
            let array = self.batch.column(column)?;
            // The rows are rows of the batch, so that taking them cannot fail.
            picked(array, &self.rows).ok()
        });
        array.as_ref().ok_or_else(|| format!("column {column} was not decoded"))
    }
}

/// Some rows of an array; a dictionary keeps only the values that they have.
fn picked(array: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef, ArrowError> {
    let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() else { return take(array, rows, None) };
    let keys = dictionary.keys();
    let mut place = vec![-1i32; dictionary.values().len()];
    let mut used: Vec<u32> = Vec::new();
    let taken: Int32Array = rows
        .values()
        .iter()
        .map(|&row| {
            let row = row as usize;
            keys.is_valid(row).then(|| {
                let key = keys.value(row);
                let place = &mut place[key as usize];
                if *place < 0 {
                    *place = used.len() as i32;
                    used.push(key as u32);
                }
                *place
            })
        })
        .collect();
    let values = take(dictionary.values(), &UInt32Array::from(used), None)?;
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(taken, values)?))
}
