//! One condition, prepared to be evaluated over batches, and its answers within one batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow::datatypes::{Int32Type, SchemaRef};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;

use super::bits::Bits;
use crate::model::{Column, ColumnSet, EventBatch, Layout, plain_rows, plain_schema};
use crate::sql::{self, Planner, SqlError};

/// A condition of one or more detections, evaluated at most once for a row.
#[derive(Debug)]
pub(super) struct Condition {
    pub text: String,
    pub columns: ColumnSet,
    /// Guess of nanoseconds a row, to order conditions and to decide what is worth evaluating for all rows.
    pub cost: u32,
    how: How,
}

#[derive(Debug)]
enum How {
    /// The value of one dictionary column is one of these: a look-up in the dictionary.
    OneOf { column: Column, values: Vec<String> },
    /// Over one dictionary column: evaluated on the dictionary's values, and on null.
    Dictionary { column: Column, expr: Arc<dyn PhysicalExpr>, schema: SchemaRef },
    /// Over the columns' plain values.
    Rows { columns: Vec<Column>, expr: Arc<dyn PhysicalExpr>, schema: SchemaRef },
}

impl Condition {
    /// Prepares a conjunct of a plan.
    pub fn new(planner: &Planner, conjunct: &sql::Conjunct) -> Result<Condition, SqlError> {
        let cost = cost(&conjunct.text);
        let columns: Vec<Column> = conjunct.columns.iter().collect();
        let how = match columns[..] {
            [column] if column.info().layout == Layout::Dictionary => match literals(&conjunct.expr, column) {
                Some(values) => How::OneOf { column, values },
                None => {
                    let schema = plain_schema(conjunct.columns);
                    How::Dictionary { column, expr: planner.physical(&conjunct.expr, &schema)?, schema }
                }
            },
            _ => {
                let schema = plain_schema(conjunct.columns);
                How::Rows { columns, expr: planner.physical(&conjunct.expr, &schema)?, schema }
            }
        };
        let cost = match &how {
            How::OneOf { .. } => 1,
            How::Dictionary { .. } => 1 + cost / 8,
            How::Rows { .. } => cost,
        };
        Ok(Condition { text: conjunct.text.clone(), columns: conjunct.columns, cost, how })
    }

    /// How it is evaluated, for people.
    pub fn describe(&self) -> &'static str {
        match self.how {
            How::OneOf { .. } => "dictionary look-up",
            How::Dictionary { .. } => "on the dictionary's values",
            How::Rows { .. } => "on the rows still alive",
        }
    }
}

/// The texts that `expr` compares `column` with, where that is all it does.
pub(super) fn literals(expr: &Expr, column: Column) -> Option<Vec<String>> {
    let text = |expr: &Expr| match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    let is_column = |expr: &Expr| matches!(expr, Expr::Column(named) if named.name == column.name());
    match expr {
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq && is_column(&binary.left) => {
            Some(vec![text(&binary.right)?])
        }
        Expr::InList(list) if !list.negated && is_column(&list.expr) => list.list.iter().map(text).collect(),
        _ => None,
    }
}

fn cost(text: &str) -> u32 {
    let text = text.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    if has("any_container") || has("rbac_") || has("json_") || has("->") {
        60
    } else if has(" ~ ") || has("~*") || has("regexp") {
        40
    } else if has("any_") || has("all_in") || has("array_") || has("ip_in") || has("cidr") {
        20
    } else if has("like") || has("strpos") || has("contains") {
        10
    } else {
        1
    }
}

/// From this cost on a condition is evaluated only on the rows that some detection still asks about.
const DEAR: u32 = 10;

/// Which values of a dictionary satisfy a condition.
#[derive(Debug)]
enum Lookup {
    /// No value and not null: no row.
    Nothing,
    /// By key; the last entry is for null.
    Table(Vec<bool>),
}

/// The answers of all conditions within one batch, worked out when they are asked for.
#[derive(Debug)]
pub(super) struct Answers<'b> {
    batch: &'b EventBatch,
    rows: usize,
    lookups: Vec<Option<Lookup>>,
    full: Vec<Option<Bits>>,
    /// By condition, for dear ones: the rows that were evaluated, and those of them that hold.
    parts: Vec<Option<(Bits, Bits)>>,
    /// By column: position of each value in its dictionary.
    dictionaries: HashMap<Column, HashMap<String, i32>>,
}

impl<'b> Answers<'b> {
    pub fn new(batch: &'b EventBatch, conditions: usize) -> Answers<'b> {
        Answers {
            batch,
            rows: batch.rows.len(),
            lookups: (0..conditions).map(|_| None).collect(),
            full: (0..conditions).map(|_| None).collect(),
            parts: (0..conditions).map(|_| None).collect(),
            dictionaries: HashMap::new(),
        }
    }

    /// Whether it is known already that no row satisfies the condition. Costs nothing.
    pub fn known_empty(&self, index: usize) -> bool {
        matches!(self.lookups[index], Some(Lookup::Nothing)) || self.full[index].as_ref().is_some_and(Bits::is_empty)
    }

    /// Keeps the rows of `alive` that satisfy the condition.
    pub fn narrow(&mut self, index: usize, condition: &Condition, alive: &mut Bits) -> Result<(), String> {
        if let Some(full) = &self.full[index] {
            alive.and(full);
            return Ok(());
        }
        match &condition.how {
            How::Rows { columns, expr, schema } if condition.cost < DEAR => {
                // All rows at once: that is cheaper than to pick some.
                let mut full = Bits::all(self.rows);
                if self.rows_of(columns, expr, schema, &mut full).is_err() {
                    // Rows that are none of this detection's business may be what fails.
                    return self.rows_of(columns, expr, schema, alive);
                }
                alive.and(&full);
                self.full[index] = Some(full);
            }
            How::Rows { columns, expr, schema } => {
                let rows = self.rows;
                let (known, truth) = self.parts[index].take().unwrap_or_else(|| (Bits::none(rows), Bits::none(rows)));
                let mut asked = alive.clone();
                asked.and_not(&known);
                let mut held = asked.clone();
                let evaluated = if asked.is_empty() { Ok(()) } else { self.rows_of(columns, expr, schema, &mut held) };
                // After a failure what is known stays, and the rows that were asked for are not.
                let (mut known, mut truth) = (known, truth);
                if evaluated.is_ok() {
                    known.or(&asked);
                    truth.or(&held);
                    alive.and(&truth);
                }
                self.parts[index] = Some((known, truth));
                return evaluated;
            }
            How::OneOf { column, .. } | How::Dictionary { column, .. } => {
                self.look_up(index, condition)?;
                let Some(keys) = self.keys(*column) else { return Err(missing(*column)) };
                match &self.lookups[index] {
                    Some(Lookup::Table(table)) if alive.count() * 16 < self.rows => {
                        alive.retain(|row| holds(table, &keys, row));
                    }
                    Some(Lookup::Table(table)) => {
                        let full = Bits::collect(self.rows, |row| holds(table, &keys, row));
                        alive.and(&full);
                        self.full[index] = Some(full);
                    }
                    _ => *alive = Bits::none(self.rows),
                }
            }
        }
        Ok(())
    }

    fn keys(&self, column: Column) -> Option<arrow::array::Int32Array> {
        let array = self.batch.column(column)?;
        Some(array.as_dictionary_opt::<Int32Type>()?.keys().clone())
    }

    fn values(&self, column: Column) -> Option<ArrayRef> {
        let array = self.batch.column(column)?;
        Some(Arc::clone(array.as_dictionary_opt::<Int32Type>()?.values()))
    }

    fn look_up(&mut self, index: usize, condition: &Condition) -> Result<(), String> {
        if self.lookups[index].is_some() {
            return Ok(());
        }
        let lookup = match &condition.how {
            How::OneOf { column, values } => {
                let array = self.values(*column).ok_or_else(|| missing(*column))?;
                let known = self.dictionaries.entry(*column).or_insert_with(|| positions(&array));
                let mut table = Vec::new();
                for key in values.iter().filter_map(|value| known.get(value)) {
                    table.resize(array.len() + 1, false);
                    table[*key as usize] = true;
                }
                table
            }
            How::Dictionary { column, expr, schema } => {
                let array = self.values(*column).ok_or_else(|| missing(*column))?;
                let mut table = evaluate(expr, schema, vec![Arc::clone(&array)], array.len())?;
                let null = arrow::array::new_null_array(array.data_type(), 1);
                table.extend(evaluate(expr, schema, vec![null], 1)?);
                table
            }
            How::Rows { .. } => return Ok(()),
        };
        let nothing = !lookup.contains(&true);
        self.lookups[index] = Some(if nothing { Lookup::Nothing } else { Lookup::Table(lookup) });
        Ok(())
    }

    /// Evaluates over the plain values of the rows in `alive`, and keeps those that hold.
    fn rows_of(
        &self,
        columns: &[Column],
        expr: &Arc<dyn PhysicalExpr>,
        schema: &SchemaRef,
        alive: &mut Bits,
    ) -> Result<(), String> {
        let every = alive.count() == self.rows;
        let rows = UInt32Array::from_iter_values(alive.iter().map(|row| row as u32));
        let arrays: Result<Vec<ArrayRef>, String> = columns
            .iter()
            .map(|column| {
                let array = self.batch.column(*column).ok_or_else(|| missing(*column))?;
                let values = if every { crate::model::plain(array) } else { plain_rows(array, &rows) };
                values.map_err(|error| error.to_string())
            })
            .collect();
        let answers = evaluate(expr, schema, arrays?, rows.len())?;
        let mut next = answers.into_iter();
        alive.retain(|_| next.next().unwrap_or(false));
        Ok(())
    }
}

fn holds(table: &[bool], keys: &arrow::array::Int32Array, row: usize) -> bool {
    let index = if keys.is_null(row) { table.len() - 1 } else { keys.value(row) as usize };
    table[index]
}

fn positions(values: &ArrayRef) -> HashMap<String, i32> {
    let Some(values) = values.as_any().downcast_ref::<StringArray>() else { return HashMap::new() };
    values.iter().enumerate().filter_map(|(key, value)| Some((value?.to_owned(), key as i32))).collect()
}

fn evaluate(
    expr: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<Vec<bool>, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch =
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())?;
    let answers = expr.evaluate(&batch).and_then(|value| value.into_array(rows)).map_err(|error| error.to_string())?;
    let Some(answers) = answers.as_any().downcast_ref::<BooleanArray>() else {
        return Err("the condition is not true or false".to_owned());
    };
    Ok((0..rows).map(|row| answers.is_valid(row) && answers.value(row)).collect())
}

fn missing(column: Column) -> String {
    format!("column {column} was not decoded")
}
