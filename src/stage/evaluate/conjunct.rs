//! One condition, prepared to be evaluated over rows, and its answers within one table of rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use arrow::datatypes::{Int32Type, SchemaRef};
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;

use super::bits::Bits;
use super::possible::{self, Known};
use super::recall::Remembered;
use super::table::Table;
use crate::model::{Column, ColumnSet, Kind, Layout, plain_rows, plain_schema};
use crate::sql::{self, Planner, Program, SqlError};

/// When a condition is evaluated: a row that one condition rules out is not asked about by those that come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// Over what kind of request it is: few signatures, all of them soon known.
    Request,
    /// Over who asks, and whatever else repeats.
    Actor,
    /// Over columns of the header whose values are seldom met twice.
    Event,
    /// Over parts of bodies that are small.
    Body,
    /// Over whole bodies, or lists of what they hold.
    Object,
}

/// Columns that tell kinds of request apart.
pub(super) const REQUEST: [Column; 9] = [
    Column::Verb,
    Column::ApiGroup,
    Column::Resource,
    Column::Subresource,
    Column::ResponseCode,
    Column::DryRun,
    Column::Truncated,
    Column::Level,
    Column::Stage,
];

impl Tier {
    fn of(columns: ColumnSet) -> Tier {
        let request: ColumnSet = REQUEST.into_iter().collect();
        let rest = columns.without(request);
        let large = |column: Column| {
            let kind = column.info().kind;
            matches!(kind, Kind::Json | Kind::Containers | Kind::Volumes | Kind::Subjects | Kind::Rules)
                || column == Column::Commands
        };
        if rest.is_empty() {
            Tier::Request
        } else if rest.any_body() {
            if rest.iter().any(|column| column.info().body && large(column)) { Tier::Object } else { Tier::Body }
        } else if rest.iter().all(|column| column.info().layout == Layout::Dictionary) {
            Tier::Actor
        } else {
            Tier::Event
        }
    }
}

/// A condition of one or more detections, evaluated at most once for a row.
#[derive(Debug)]
pub(super) struct Condition {
    pub text: String,
    pub columns: ColumnSet,
    pub tier: Tier,
    expr: Expr,
    /// Guess of how dear it is, to order conditions.
    pub cost: u32,
    how: How,
}

#[derive(Debug)]
enum How {
    /// The value of one dictionary column is one of these: a look-up in the dictionary.
    OneOf { column: Column, values: Vec<String> },
    /// By a program of ours, row by row.
    Program(Program),
    /// Not known to our programs: by DataFusion, over the columns' plain values.
    Rows { columns: Vec<Column>, expr: Arc<dyn PhysicalExpr>, schema: SchemaRef },
}

impl Condition {
    /// Prepares a conjunct of a plan.
    pub fn new(planner: &Planner, conjunct: &sql::Conjunct) -> Result<Condition, SqlError> {
        let cost = cost(&conjunct.text);
        let columns: Vec<Column> = conjunct.columns.iter().collect();
        let one_of = match columns[..] {
            [column] if column.info().layout == Layout::Dictionary => {
                literals(&conjunct.expr, column).map(|values| How::OneOf { column, values })
            }
            _ => None,
        };
        let how = match one_of.or_else(|| Program::of(&conjunct.expr).map(How::Program)) {
            Some(how) => how,
            None => {
                let schema = plain_schema(conjunct.columns);
                How::Rows { columns, expr: planner.physical(&conjunct.expr, &schema)?, schema }
            }
        };
        let cost = if matches!(how, How::OneOf { .. }) { 1 } else { cost };
        let (columns, expr) = (conjunct.columns, conjunct.expr.clone());
        Ok(Condition { text: conjunct.text.clone(), columns, tier: Tier::of(columns), expr, cost, how })
    }

    /// Whether the condition can be true of a row of which this is known.
    pub fn may_hold(&self, known: &Known) -> bool {
        possible::may_hold(&self.expr, known)
    }

    /// How it is evaluated, for people.
    pub fn describe(&self) -> &'static str {
        match self.how {
            How::OneOf { .. } => "dictionary look-up",
            How::Program(_) => "program, on the rows still alive",
            How::Rows { .. } => "DataFusion, on the rows still alive",
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

/// Which values of a dictionary satisfy a condition.
#[derive(Debug)]
enum Lookup {
    /// No value and not null: no row.
    Nothing,
    /// By key; the last entry is for null.
    Table(Vec<bool>),
}

/// The answers of all conditions within one table, worked out when they are asked for.
#[derive(Debug)]
pub(super) struct Answers<'t, 'b> {
    table: &'t Table<'b>,
    rows: usize,
    lookups: Vec<Option<Lookup>>,
    full: Vec<Option<Bits>>,
    /// By condition: the rows that were evaluated, and those of them that hold.
    parts: Vec<Option<(Bits, Bits)>>,
    /// By column: position of each value in its dictionary.
    dictionaries: HashMap<Column, HashMap<String, i32>>,
    /// Answers of earlier tables, where the columns are of those that repeat.
    remembered: Option<&'t mut Remembered>,
    /// By column: the numbers of its values in what is remembered, by row.
    numbers: HashMap<Column, Option<Arc<[u32]>>>,
}

impl<'t, 'b> Answers<'t, 'b> {
    pub fn new(table: &'t Table<'b>, conditions: usize) -> Answers<'t, 'b> {
        Answers {
            table,
            rows: table.len(),
            lookups: (0..conditions).map(|_| None).collect(),
            full: (0..conditions).map(|_| None).collect(),
            parts: (0..conditions).map(|_| None).collect(),
            dictionaries: HashMap::new(),
            remembered: None,
            numbers: HashMap::new(),
        }
    }

    /// The same with what was answered before.
    pub fn remembering(self, remembered: &'t mut Remembered) -> Answers<'t, 'b> {
        Answers { remembered: Some(remembered), ..self }
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
        if self.remembered.is_some()
            && let Some(numbers) = self.numbers(condition)?
        {
            return self.recall(index, condition, &numbers, alive);
        }
        if let How::OneOf { column, values } = &condition.how {
            self.look_up(index, *column, values)?;
            let keys = self.keys(*column)?;
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
            return Ok(());
        }
        let rows = self.rows;
        let (mut known, mut truth) = self.parts[index].take().unwrap_or_else(|| (Bits::none(rows), Bits::none(rows)));
        let mut asked = alive.clone();
        asked.and_not(&known);
        let mut held = asked.clone();
        let decided = if asked.is_empty() { Ok(()) } else { self.decide(condition, &mut held) };
        // After a failure what is known stays, and the rows that were asked for are not.
        if decided.is_ok() {
            known.or(&asked);
            truth.or(&held);
            alive.and(&truth);
        }
        self.parts[index] = Some((known, truth));
        decided
    }

    /// By column of the condition: the numbers of its values; none where it is not one to be remembered.
    fn numbers(&mut self, condition: &Condition) -> Result<Option<Vec<Arc<[u32]>>>, String> {
        let Some(remembered) = self.remembered.as_mut() else { return Ok(None) };
        if matches!(condition.how, How::OneOf { .. }) {
            return Ok(None);
        }
        let mut all = Vec::new();
        for column in condition.columns.iter() {
            let numbers = match self.numbers.get(&column) {
                Some(known) => known.clone(),
                None => {
                    let numbers = remembered.number(column, self.table.column(column)?).map(Arc::from);
                    self.numbers.insert(column, numbers.clone());
                    numbers
                }
            };
            match numbers {
                Some(numbers) => all.push(numbers),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }

    /// Keeps the rows of `alive` that satisfy the condition; evaluates it for no values twice.
    fn recall(
        &mut self,
        index: usize,
        condition: &Condition,
        numbers: &[Arc<[u32]>],
        alive: &mut Bits,
    ) -> Result<(), String> {
        let Some(remembered) = self.remembered.take() else { return Ok(()) };
        let values = |row: usize, out: &mut Vec<u32>| {
            out.clear();
            out.extend(numbers.iter().map(|numbers| numbers[row]));
        };
        let mut own = Vec::new();
        let mut unknown = Bits::none(self.rows);
        alive.iter().for_each(|row| {
            values(row, &mut own);
            if remembered.answer(index, &own).is_none() {
                unknown.insert(row);
            }
        });
        let mut evaluated = Ok(());
        if !unknown.is_empty() {
            let mut held = unknown.clone();
            evaluated = self.decide(condition, &mut held);
            if evaluated.is_ok() {
                unknown.iter().for_each(|row| {
                    values(row, &mut own);
                    remembered.remember(index, &own, held.contains(row));
                });
            }
        }
        if evaluated.is_ok() {
            alive.retain(|row| {
                values(row, &mut own);
                remembered.answer(index, &own) == Some(true)
            });
        }
        self.remembered = Some(remembered);
        evaluated
    }

    fn keys(&self, column: Column) -> Result<Int32Array, String> {
        let array = self.table.column(column)?.as_dictionary_opt::<Int32Type>();
        Ok(array.ok_or_else(|| no_dictionary(column))?.keys().clone())
    }

    fn values(&self, column: Column) -> Result<ArrayRef, String> {
        let array = self.table.column(column)?.as_dictionary_opt::<Int32Type>();
        Ok(Arc::clone(array.ok_or_else(|| no_dictionary(column))?.values()))
    }

    fn look_up(&mut self, index: usize, column: Column, values: &[String]) -> Result<(), String> {
        if self.lookups[index].is_some() {
            return Ok(());
        }
        let array = self.values(column)?;
        let known = self.dictionaries.entry(column).or_insert_with(|| positions(&array));
        let mut table = Vec::new();
        for key in values.iter().filter_map(|value| known.get(value)) {
            table.resize(array.len() + 1, false);
            table[*key as usize] = true;
        }
        self.lookups[index] = Some(if table.is_empty() { Lookup::Nothing } else { Lookup::Table(table) });
        Ok(())
    }

    /// Keeps the rows of `alive` that satisfy the condition.
    fn decide(&self, condition: &Condition, alive: &mut Bits) -> Result<(), String> {
        match &condition.how {
            How::Program(program) => {
                let bound = program.over(|column| self.table.column(column))?;
                alive.retain(|row| bound.holds(row));
                Ok(())
            }
            How::Rows { columns, expr, schema } => self.rows_of(columns, expr, schema, alive),
            How::OneOf { .. } => Ok(()),
        }
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
                let array = self.table.column(*column)?;
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

fn holds(table: &[bool], keys: &Int32Array, row: usize) -> bool {
    let index = if keys.is_null(row) { table.len() - 1 } else { keys.value(row) as usize };
    table[index]
}

fn positions(values: &ArrayRef) -> HashMap<String, i32> {
    let Some(values) = values.as_any().downcast_ref::<StringArray>() else { return HashMap::new() };
    values.iter().enumerate().filter_map(|(key, value)| Some((value?.to_owned(), key as i32))).collect()
}

/// What DataFusion says of each row.
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

fn no_dictionary(column: Column) -> String {
    format!("column {column} is no dictionary")
}
