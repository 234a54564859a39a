//! What keeps one run of a window's query from taking all time and memory.
//!
//! DataFusion gives way to others only where batches are read, and its memory pool does not see rows on their way. So
//! a condition that is always true stands above each scan and each operator that makes rows out of rows; it is asked for
//! every batch, and fails where there were too many or time is up. What a join of everything with everything would do
//! between two batches is estimated before it begins.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;

use super::error::bound_error;
use super::functions::Span;
use super::functions::span::{Run, within_bounds};
use crate::clock::Instant;

/// The longest that one run of a window's query may take: all alerts wait for it.
const TIME: Duration = Duration::from_secs(5);
/// The same of a query over one event.
const EVENT_TIME: Duration = Duration::from_secs(2);
/// Most rows that may come out of scans and joins in one run.
const ROWS: usize = 50_000_000;
/// The same of a query over one event: what it can make of the event's lists.
const EVENT_ROWS: usize = 1_000_000;
/// Most pairs of rows that joins without an equality may look at.
const PAIRS: usize = 100_000_000;
/// Rows that a join is handed at a time: it looks at time only between them.
const JOIN_ROWS: usize = 1024;
/// Rows that other plans are handed at a time.
const SCAN_ROWS: usize = 8192;

/// The bounds of a run that begins now.
pub(super) fn run(span: Span) -> Run {
    Run { span, until: Instant::now().after(TIME), rows: ROWS }
}

/// The bounds of a run over one event that begins now.
pub(super) fn event_run() -> Run {
    Run { span: Span { start_us: 0, end_us: 0 }, until: Instant::now().after(EVENT_TIME), rows: EVENT_ROWS }
}

/// The plan with the condition above its scans and joins.
pub(super) fn guarded(plan: Arc<dyn ExecutionPlan>, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let condition = state.create_physical_expr(within_bounds(), &DFSchema::empty())?;
    plan.transform_up(|node| {
        if !(node.name() == "AuditScan" || makes_rows(node.as_ref())) {
            return Ok(Transformed::no(node));
        }
        let guarded: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(Arc::clone(&condition), node)?);
        Ok(Transformed::yes(guarded))
    })
    .data()
}

fn makes_rows(node: &dyn ExecutionPlan) -> bool {
    node.name().contains("Join") || node.name().contains("Unnest")
}

/// Whether a join or the like is in the plan.
pub(super) fn any_join(plan: &dyn ExecutionPlan) -> bool {
    makes_rows(plan) || plan.children().into_iter().any(|child| any_join(child.as_ref()))
}

/// The batches cut as small as the plan wants them.
pub(super) fn cut(plan: &dyn ExecutionPlan, batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let most = if any_join(plan) { JOIN_ROWS } else { SCAN_ROWS };
    let pieces = |batch: &RecordBatch| -> Vec<RecordBatch> {
        let starts = (0..batch.num_rows()).step_by(most);
        starts.map(|start| batch.slice(start, most.min(batch.num_rows() - start))).collect()
    };
    batches.iter().flat_map(pieces).collect()
}

/// Refuses a plan that would compare too many pairs of rows.
///
/// # Errors
/// Says how many.
pub(super) fn check_pairs(plan: &dyn ExecutionPlan, rows: usize) -> Result<()> {
    let mut pairs = 0;
    estimate(plan, rows, &mut pairs);
    if pairs <= PAIRS {
        return Ok(());
    }
    let message =
        format!("a join without an equality would compare {pairs} pairs of events; at most {PAIRS} are allowed");
    Err(bound_error(&message, Some("join on what the events have in common, such as user_name")))
}

/// The rows that come out at most, about; `pairs` gathers what joins without an equality compare.
fn estimate(plan: &dyn ExecutionPlan, rows: usize, pairs: &mut usize) -> usize {
    let inputs: Vec<usize> = plan.children().into_iter().map(|child| estimate(child.as_ref(), rows, pairs)).collect();
    let product = || inputs.iter().fold(1_usize, |all, input| all.saturating_mul(*input));
    let out = match plan.name() {
        "AuditScan" => rows,
        "NestedLoopJoinExec" | "CrossJoinExec" => {
            *pairs = pairs.saturating_add(product());
            product()
        }
        "UnionExec" | "InterleaveExec" => inputs.iter().fold(0_usize, |all, input| all.saturating_add(*input)),
        _ if plan.downcast_ref::<AggregateExec>().is_some_and(|node| node.group_expr().is_true_no_grouping()) => 1,
        _ => inputs.into_iter().max().unwrap_or(1),
    };
    plan.fetch().map_or(out, |fetch| out.min(fetch))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::super::{Lists, Planner};
    use super::*;
    use crate::model::{Column, plain_schema};

    fn users(count: usize) -> RecordBatch {
        let users: ArrayRef = Arc::new(StringArray::from(vec!["ann"; count]));
        RecordBatch::try_new(plain_schema([Column::UserName].into_iter().collect()), vec![users]).expect("one column")
    }

    #[test]
    fn a_run_that_goes_too_far_is_cut_off() {
        let sql = "SELECT a.user_name, count(*) AS n FROM audit a JOIN audit b ON a.user_name = b.user_name GROUP BY a.user_name";
        let plan = Planner::new(Lists::default()).plan_window(sql).expect("plans");
        let span = Span { start_us: 0, end_us: 1 };
        let over = |run: Run| match plan.over(&[users(50)], run) {
            Ok(answer) => answer.map_or(0, |answer| answer.num_rows()).to_string(),
            Err(error) => error.message,
        };
        // 50 rows out of each scan, 2,500 out of the join.
        assert_eq!(over(Run { rows: 2600, ..run(span) }), "1");
        assert_eq!(over(Run { rows: 2599, ..run(span) }), "the query makes too many rows");
        assert_eq!(over(Run { until: Instant::now(), ..run(span) }), "the query takes too long");
    }

    #[test]
    fn only_joins_without_an_equality_are_counted() {
        let pairs = |sql: &str| {
            let plan =
                Planner::new(Lists::default()).plan_window(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let mut pairs = 0;
            estimate(plan.template(), 1000, &mut pairs);
            pairs
        };
        for (sql, expected) in [
            ("SELECT a.verb FROM audit a JOIN audit b ON a.verb = b.verb", 0),
            ("SELECT a.verb FROM audit a JOIN audit b ON a.event_time < b.event_time", 1_000_000),
        ] {
            assert_eq!(pairs(sql), expected, "{sql}");
        }
    }
}
