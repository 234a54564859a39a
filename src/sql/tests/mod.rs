//! Tests of the whole SQL layer, and what they share.

mod data;
mod errors;
mod events;
mod scratch;
mod shapes;
mod windows;

pub(crate) use self::scratch::Scratch;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, new_null_array};
use arrow::compute::cast;
use arrow::record_batch::RecordBatch;
use datafusion::logical_expr::Expr;

use super::{EventPlan, Lists, Planner, Shape, SqlError};
use crate::model::{AUDIT_SCHEMA, COLUMNS};

fn planner() -> Planner {
    let lists = [
        ("admin-groups", vec!["system:masters", "cluster-admins"]),
        ("sensitive-paths", vec!["/etc", "/var/run/docker.sock"]),
        ("office", vec!["203.0.113.0/24", "2001:db8::/32"]),
        ("broken-networks", vec!["10.0.0.0/8", "ten"]),
        ("empty", vec![]),
    ];
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    Planner::new(Lists::new(lists.into_iter().map(|(name, texts)| (name.to_owned(), owned(texts))).collect()))
}

/// A row of `audit`: the given columns as SQL expressions, NULL elsewhere.
fn row(planner: &Planner, columns: &[(&str, &str)]) -> RecordBatch {
    let given: BTreeMap<&str, &str> = columns.iter().copied().collect();
    let arrays = COLUMNS.iter().map(|info| {
        let to = info.kind.data_type();
        match given.get(info.name) {
            Some(sql) => cast(&evaluate(planner, sql).expect("the test's own expression is right"), &to)
                .expect("the test's own value has the column's type"),
            None => new_null_array(&to, 1),
        }
    });
    RecordBatch::try_new(Arc::clone(&AUDIT_SCHEMA), arrays.collect()).expect("one value for each column")
}

/// The value of an expression, over an event of which nothing is known.
fn evaluate(planner: &Planner, sql: &str) -> Result<ArrayRef, SqlError> {
    let (expr, _) = planner.expression(sql)?;
    value_of(planner, &expr, &nothing())
}

fn nothing() -> RecordBatch {
    let arrays = COLUMNS.iter().map(|info| new_null_array(&info.kind.data_type(), 1));
    RecordBatch::try_new(Arc::clone(&AUDIT_SCHEMA), arrays.collect()).expect("one value for each column")
}

fn value_of(planner: &Planner, expr: &Expr, rows: &RecordBatch) -> Result<ArrayRef, SqlError> {
    let physical = planner.physical(expr, &AUDIT_SCHEMA)?;
    let value = physical.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
    value.map_err(|error| super::error::from_datafusion(&error, &planner.function_names()))
}

/// Whether an event matches a plan, by the definition of [`Shape`].
fn matches(planner: &Planner, plan: &EventPlan, event: &RecordBatch) -> bool {
    let all = |conjuncts: &[super::Conjunct]| {
        conjuncts.iter().all(|conjunct| {
            let array = value_of(planner, &conjunct.expr, event).expect("evaluates");
            array.as_boolean().iter().all(|answer| answer == Some(true))
        })
    };
    match &plan.shape {
        Shape::Filter { conjuncts } => all(conjuncts),
        Shape::General { plan, candidates } => {
            let found = plan.matches(event).expect("evaluates").is_some();
            assert!(!found || candidates.as_deref().is_none_or(all), "an event matches that is no candidate");
            found
        }
    }
}
