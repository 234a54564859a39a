//! Conditions as programs of our own, decided row by row.
//!
//! DataFusion evaluates an expression over whole arrays: it copies the rows that are asked about, walks every branch for
//! all of them, and prepares constants anew for each batch. Where a few rows of many batches are left, that costs a
//! hundred times the decision itself. A [`Program`] is the same condition with its patterns compiled; it reads the
//! columns where they lie (dictionaries included), copies nothing, and stops at the first part that decides.
//!
//! It knows what detections are made of, not all of SQL: [`Program::of`] gives nothing for the rest, which DataFusion
//! then evaluates. Both mean the same, three-valued logic included; a test holds every shipped condition to that.

mod build;
mod json;
mod nodes;
mod slots;

use arrow::array::ArrayRef;
use datafusion::logical_expr::Expr;

use self::build::Builder;
pub use self::build::comparison;
use self::nodes::Truth;
use self::slots::{Row, Values};
use crate::model::Column;

/// A condition, compiled.
#[derive(Debug)]
pub struct Program {
    /// By slot: the column that it stands for.
    columns: Vec<Column>,
    root: Truth,
}

impl Program {
    /// Compiles a condition over columns of `audit`; none where it holds something that is not known here.
    pub fn of(condition: &Expr) -> Option<Program> {
        let mut builder = Builder::default();
        let root = builder.truth(condition)?;
        Some(Program { columns: builder.columns, root })
    }

    /// Over these columns, each laid out as in a batch or plain, all of one length.
    ///
    /// # Errors
    /// Where a column is missing, or is laid out in another way.
    pub fn over<'a>(
        &'a self,
        mut column: impl FnMut(Column) -> Result<&'a ArrayRef, String>,
    ) -> Result<Bound<'a>, String> {
        let values = self.columns.iter().map(|name| {
            let array = column(*name)?;
            Values::of(array).ok_or_else(|| format!("column {name} is laid out as {}", array.data_type()))
        });
        Ok(Bound { values: values.collect::<Result<_, _>>()?, root: &self.root })
    }
}

/// A program over the rows of some columns.
#[derive(Debug)]
pub struct Bound<'a> {
    values: Vec<Values<'a>>,
    root: &'a Truth,
}

impl Bound<'_> {
    /// Whether the condition is true of a row, neither false nor unknown.
    pub fn holds(&self, row: usize) -> bool {
        self.root.of(&Row { values: &self.values, row }) == Some(true)
    }
}

#[cfg(test)]
mod tests;
