//! Queries over the events of a sliding window.
//!
//! Such a query is planned once and run for many windows. What it says about itself decides what is kept for it and
//! when it need not run: which columns and events can matter at all, which events a row of its answer stands for, and
//! whether its groups are independent of each other and need a number of events.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;

use super::check;
use super::error::{SqlError, from_datafusion};
use super::functions::Span;
use super::functions::span::is_window_function;
use super::general::{GeneralPlan, Scans, flattened};
use super::lineage::{Groups, groups_of, sides};
use super::plan::{Conjunct, Planner, check_depth, never_true};
use super::session::{block_on, check_size, on_large_stack, window_state};
use crate::model::{Column, ColumnSet};

/// A query over the events of a window, planned.
pub struct WindowPlan {
    /// All that the query reads.
    pub columns: ColumnSet,
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
    /// Whether the answer depends on where the window lies, beside on what is in it.
    pub moves: bool,
    plan: GeneralPlan,
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
    pub fn run(&self, batches: Vec<RecordBatch>, span: Span) -> Result<Option<RecordBatch>, SqlError> {
        match catch_unwind(AssertUnwindSafe(|| self.plan.over(batches, span))) {
            Ok(answer) => answer.map_err(|error| SqlError::new(error.strip_backtrace())),
            Err(_) => Err(SqlError::new("the evaluation panicked")),
        }
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
        let plan = flattened(plan).map_err(tell)?;
        let scans = Scans::of(&plan).map_err(tell)?;
        if scans.none() {
            return Err(never_true());
        }
        check_depth(&plan)?;
        let candidates = scans.candidates().map_err(tell)?;
        let candidates = candidates.map(|parts| parts.into_iter().map(|part| self.conjunct(part)).collect());
        let planned = WindowPlan {
            columns: scans.columns,
            output: plan.schema().fields().iter().map(|field| field.name().clone()).collect(),
            candidates: candidates.transpose()?,
            sides: sides(&plan).map_err(tell)?,
            groups: if scans.count() == 1 { groups_of(&plan) } else { None },
            moves: reads_span(&plan).map_err(tell)?,
            plan: GeneralPlan::new(state, &plan).map_err(tell)?,
        };
        // Also what makes `candidates` right: an event that no scan keeps is as good as no event.
        if planned.run(Vec::new(), Span { start_us: 0, end_us: 1 })?.is_some() {
            return Err(SqlError::new("the query gives a row even without any event, so it would always be true")
                .help("an aggregate without GROUP BY always gives a row: add GROUP BY or HAVING"));
        }
        Ok(planned)
    }
}

/// Whether the plan asks where its window lies.
fn reads_span(plan: &LogicalPlan) -> datafusion::error::Result<bool> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|part| {
                Ok(matches!(part, Expr::ScalarFunction(call) if is_window_function(call.func.name())))
            })?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}
