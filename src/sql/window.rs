//! Queries over the events of a sliding window.
//!
//! Such a query is planned once and run for many windows. What it says about itself decides what is kept for it and
//! when it need not run: which columns and events can matter at all, which events a row of its answer stands for, and
//! whether its groups are independent of each other and need a number of events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::parser::Statement;

use super::check;
use super::error::{SqlError, from_datafusion, from_run};
use super::functions::Span;
use super::functions::span::{Run, is_window_function};
use super::general::GeneralPlan;
use super::guard;
use super::lineage::{Groups, groups_of, sides};
use super::panes::{Panes, split};
use super::plan::{Conjunct, Planner};
use super::session::{block_on, check_size, on_large_stack, window_state};
use crate::model::{ALERTS_SCHEMA, AUDIT_SCHEMA, Column, ColumnSet};

/// A query over the events of a window, planned.
pub struct WindowPlan {
    /// All that the query reads.
    pub columns: ColumnSet,
    /// Whether it reads `alerts` instead of `audit`.
    pub alerts: bool,
    /// The candidates over the rows of `alerts`.
    alert_filter: Vec<Arc<dyn PhysicalExpr>>,
    /// Names of its outputs, in order.
    pub output: Vec<String>,
    /// Only events that pass all of these can matter to it; `None`: any event can.
    pub candidates: Option<Vec<Conjunct>>,
    /// Which events a row of the answer stands for. Each side is a list of outputs, by place, that are plain columns
    /// of the table; an event is meant when its columns equal these outputs, for any of the sides. No side: all events
    /// of the window are meant.
    pub sides: Vec<Vec<(usize, Column)>>,
    /// Where each row of the answer comes from a group of events of its own.
    pub groups: Option<Groups>,
    /// Whether the answer has a row depends on where the window lies, beside on what is in it.
    pub moves: bool,
    /// Outputs whose value differs from hop to hop, by place.
    moving: Vec<usize>,
    plan: GeneralPlan,
    panes: Option<Panes>,
}

impl fmt::Debug for WindowPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowPlan")
            .field("columns", &self.columns)
            .field("output", &self.output)
            .field("candidates", &self.candidates)
            .field("sides", &self.sides)
            .field("groups", &self.groups)
            .field("moves", &self.moves)
            .finish_non_exhaustive()
    }
}

impl WindowPlan {
    /// Whether an alert, as one row of all columns of `alerts`, can matter to it. Where that cannot be said, it can.
    pub fn concerns(&self, alert: &RecordBatch) -> bool {
        self.alert_filter.iter().all(|part| {
            let array = part.evaluate(alert).and_then(|value| value.into_array(alert.num_rows()));
            array.map_or(true, |array| {
                array.as_boolean_opt().is_none_or(|answers| answers.iter().any(|one| one == Some(true)))
            })
        })
    }

    /// The outputs that are plain columns of the table, by name.
    pub fn key(&self) -> Vec<(&str, Column)> {
        let mut places: Vec<(usize, Column)> = self.sides.iter().flatten().copied().collect();
        places.sort_unstable();
        places.dedup_by_key(|(output, _)| *output);
        places.into_iter().filter_map(|(output, column)| Some((self.output.get(output)?.as_str(), column))).collect()
    }

    /// The place of an output by its name, else of one that is this column of the table under another name.
    pub fn place(&self, name: &str) -> Option<usize> {
        let named = self.output.iter().position(|output| output == name);
        named.or_else(|| {
            let column = Column::by_name(name)?;
            self.sides.iter().flatten().find(|(_, found)| *found == column).map(|(output, _)| *output)
        })
    }

    /// The answer over the rows of these batches, in this order, `None` where it has no row. Each batch holds at least
    /// [`WindowPlan::columns`].
    ///
    /// # Errors
    /// Where evaluation fails: a cast that does not fit, too much memory, a panic.
    pub fn run(&self, batches: &[RecordBatch], span: Span) -> Result<Option<RecordBatch>, SqlError> {
        self.execute(&self.plan, batches, span)
    }

    /// Whether the value of an output, by place, differs from hop to hop though the events be the same.
    pub fn is_moving(&self, output: usize) -> bool {
        self.moving.contains(&output)
    }

    /// Whether it can be answered pane by pane: [`WindowPlan::state`] for each, then [`WindowPlan::finish`].
    pub fn merges(&self) -> bool {
        self.panes.is_some()
    }

    /// What the rows of one pane come to: one row for each group, its columns being [`Groups::by`] and then what only
    /// [`WindowPlan::finish`] understands. `None` where no row passes, or the query cannot be answered so.
    ///
    /// # Errors
    /// As [`WindowPlan::run`].
    pub fn state(&self, batches: &[RecordBatch], span: Span) -> Result<Option<RecordBatch>, SqlError> {
        self.panes.as_ref().map_or(Ok(None), |panes| self.execute(&panes.partial, batches, span))
    }

    /// The answer out of what panes came to; groups may have been left out.
    ///
    /// # Errors
    /// As [`WindowPlan::run`].
    pub fn finish(&self, states: &[RecordBatch], span: Span) -> Result<Option<RecordBatch>, SqlError> {
        self.panes.as_ref().map_or(Ok(None), |panes| self.execute(&panes.finish, states, span))
    }

    /// Whether a row for a group, once there, stays as events are added to the group.
    ///
    /// # Errors
    /// Says what could turn it away.
    pub fn only_rises(&self) -> Result<(), String> {
        match &self.groups {
            None => Err("the query is more than conditions on counts of events grouped by plain columns".to_owned()),
            _ if self.moves => Err("the query depends on where the window lies".to_owned()),
            Some(groups) => groups.falls.clone().map_or(Ok(()), Err),
        }
    }

    fn execute(
        &self,
        plan: &GeneralPlan,
        batches: &[RecordBatch],
        span: Span,
    ) -> Result<Option<RecordBatch>, SqlError> {
        bounded(plan, batches, guard::run(span))
    }

    /// The answer with other bounds.
    #[cfg(test)]
    pub(super) fn over(&self, batches: &[RecordBatch], run: Run) -> Result<Option<RecordBatch>, SqlError> {
        bounded(&self.plan, batches, run)
    }

    #[cfg(test)]
    pub(super) fn template(&self) -> &dyn datafusion::physical_plan::ExecutionPlan {
        self.plan.template().as_ref()
    }
}

fn bounded(plan: &GeneralPlan, batches: &[RecordBatch], run: Run) -> Result<Option<RecordBatch>, SqlError> {
    let work = || {
        let template = plan.template().as_ref();
        guard::check_pairs(template, batches.iter().map(RecordBatch::num_rows).sum())?;
        plan.over(guard::cut(template, batches), run)
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(answer) => answer.map_err(|error| from_run(&error)),
        Err(_) => Err(SqlError::new("the evaluation panicked").harmful()),
    }
}

impl Planner {
    /// Plans the query of a detection with a window: one SELECT over `audit`, which holds the window's events.
    ///
    /// # Errors
    /// What is wrong with the text, where, and how to mend it.
    pub fn plan_window(&self, sql: &str) -> Result<WindowPlan, SqlError> {
        check_size(sql)?;
        on_large_stack(|| {
            let state = window_state(&self.state).map_err(|error| SqlError::new(error.strip_backtrace()))?;
            let statement = self.parse(sql)?;
            let explain = |error: DataFusionError| self.explain(&error, statement.as_ref(), sql);
            let planned = block_on(state.statement_to_plan(Statement::Statement(statement.clone())));
            let plan = planned.map_err(explain)?;
            check::allowed_in_window(&plan)?;
            let plan = state.optimize(&plan).map_err(explain)?;
            self.window(&state, plan)
        })
    }

    fn window(&self, state: &SessionState, plan: LogicalPlan) -> Result<WindowPlan, SqlError> {
        let tell = |error: DataFusionError| from_datafusion(&error, &self.function_names());
        let (plan, scans) = self.scanned(plan)?;
        let table: &arrow::datatypes::Schema = if scans.alerts { &ALERTS_SCHEMA } else { &AUDIT_SCHEMA };
        let candidates = self.candidates(&scans, table)?;
        let alert_filter = match &candidates {
            Some(parts) if scans.alerts => parts.iter().map(|part| self.physical(&part.expr, table)).collect(),
            _ => Ok(Vec::new()),
        };
        let groups = if scans.count() == 1 { groups_of(&plan) } else { None };
        let whole = GeneralPlan::new(state, &plan).map_err(tell)?;
        let whole = guard::guarded(Arc::clone(whole.template()), state).map_err(tell)?;
        let moves = reads_span(inner(&plan)).map_err(tell)?;
        // A part of the window must not be asked where the whole lies.
        let merges = groups.as_ref().is_some_and(|groups| groups.merges) && !moves;
        let planned = WindowPlan {
            columns: scans.columns,
            alerts: scans.alerts,
            output: plan.schema().fields().iter().map(|field| field.name().clone()).collect(),
            candidates,
            alert_filter: alert_filter?,
            sides: sides(&plan).map_err(tell)?,
            groups,
            moves,
            moving: moving(&plan),
            panes: if merges { split(&whole, state).map_err(tell)? } else { None },
            plan: GeneralPlan::of(whole, state),
        };
        // Also what makes `candidates` right: an event that no scan keeps is as good as no event.
        if planned.run(&[], Span { start_us: 0, end_us: 1 })?.is_some() {
            return Err(SqlError::new("the query gives a row even without any event, so it would always be true")
                .help("an aggregate without GROUP BY always gives a row: add GROUP BY or HAVING"));
        }
        Ok(planned)
    }
}

/// The plan without the SELECT list at its top, which decides about no row.
fn inner(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(projection) => &projection.input,
        plan => plan,
    }
}

/// Outputs of the SELECT list at the top that ask where the window lies.
fn moving(plan: &LogicalPlan) -> Vec<usize> {
    let LogicalPlan::Projection(projection) = plan else { return Vec::new() };
    let outputs = projection.expr.iter().enumerate();
    outputs.filter(|(_, expr)| asks_span(expr).unwrap_or(true)).map(|(output, _)| output).collect()
}

/// Whether the plan asks where its window lies.
fn reads_span(plan: &LogicalPlan) -> datafusion::error::Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= asks_span(expr)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn asks_span(expr: &Expr) -> datafusion::error::Result<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::ScalarFunction(call) if is_window_function(call.func.name()))))
}
