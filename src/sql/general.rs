//! Queries that are more than a filter: run as a whole, over a table that holds one event.

use std::fmt;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryLimit};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect};

use super::canonical::{balanced, canonical, conjuncts, unqualified};
use super::error::{SqlError, from_run};
use super::functions::span::{Run, Within};
use super::guard;
use super::session::block_on;
use super::table::{ALERTS, Rows};
use crate::model::{AUDIT_SCHEMA, Column, ColumnSet};

/// A prepared plan. An event matches when the query over a table that holds that one event gives any row.
///
/// The plan itself is never run, only copies with fresh state; events travel in the context of each run. So one plan
/// serves any number of threads.
pub struct GeneralPlan {
    template: Arc<dyn ExecutionPlan>,
    context: TaskContext,
}

impl fmt::Debug for GeneralPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = datafusion::physical_plan::displayable(self.template.as_ref()).indent(false).to_string();
        f.debug_tuple("GeneralPlan").field(&plan).finish()
    }
}

impl GeneralPlan {
    /// Prepares an optimised logical plan.
    pub(super) fn new(state: &SessionState, plan: &LogicalPlan) -> Result<Self> {
        let template = block_on(state.query_planner().create_physical_plan(plan, state))?;
        Ok(GeneralPlan::of(template, state))
    }

    /// The same for a query over one event, which is one row unless something makes rows out of its lists.
    pub(super) fn of_event(state: &SessionState, plan: &LogicalPlan) -> Result<Self> {
        let plain = GeneralPlan::new(state, plan)?;
        match guard::any_join(plain.template.as_ref()) {
            true => Ok(GeneralPlan::of(guard::guarded(plain.template, state)?, state)),
            false => Ok(plain),
        }
    }

    /// A plan that was never run.
    pub(super) fn of(template: Arc<dyn ExecutionPlan>, state: &SessionState) -> Self {
        GeneralPlan { template, context: TaskContext::from(state) }
    }

    pub(super) fn template(&self) -> &Arc<dyn ExecutionPlan> {
        &self.template
    }

    /// The query's rows over a table that holds just these rows of all columns of `audit`, `None` if there are none.
    /// For an event detection that is one row.
    ///
    /// # Errors
    /// Where evaluation fails: a cast that does not fit, too much memory, too many rows or too much time.
    pub fn matches(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>, SqlError> {
        self.run(vec![rows.clone()], guard::event_run()).map_err(|error| from_run(&error))
    }

    /// The query's rows over a table that holds the rows of these batches, in this order; of each batch at least the
    /// columns that the plan reads.
    ///
    /// # Errors
    /// Where evaluation fails: a cast that does not fit, too much memory, a bound of the run.
    pub(super) fn over(&self, batches: Vec<RecordBatch>, run: Run) -> Result<Option<RecordBatch>> {
        self.run(batches, run)
    }

    fn run(&self, batches: Vec<RecordBatch>, run: Run) -> Result<Option<RecordBatch>> {
        let plan = reset_plan_states(Arc::clone(&self.template))?;
        let schema = plan.schema();
        let context = &self.context;
        let config = context.session_config().clone().with_extension(Arc::new(Rows(batches)));
        let context = TaskContext::new(
            None,
            context.session_id(),
            config,
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            own_memory(&context.runtime_env()),
        );
        let batches = block_on(async {
            // Whatever thread this runs on: the plan's functions are called on it.
            let _within = Within::new(run);
            collect(plan, Arc::new(context)).await
        })?;
        let found = concat_batches(&schema, &batches)?;
        Ok((found.num_rows() > 0).then_some(found))
    }

    /// Whether the query gives a row though there is no event at all, so would match everything.
    pub(super) fn matches_without_event(&self) -> Result<bool, SqlError> {
        Ok(self.matches(&RecordBatch::new_empty(Arc::clone(&AUDIT_SCHEMA)))?.is_some())
    }
}

/// The same surroundings with a pool of memory for one run: what one detection takes, no other lacks.
fn own_memory(shared: &RuntimeEnv) -> Arc<RuntimeEnv> {
    let mut own = shared.clone();
    if let MemoryLimit::Finite(bytes) = shared.memory_pool.memory_limit() {
        own.memory_pool = Arc::new(GreedyMemoryPool::new(bytes));
    }
    Arc::new(own)
}

/// Rewrites the filters of a plan so that none is deep.
pub(super) fn flattened(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(mut filter) => {
            filter.predicate = canonical(filter.predicate)?;
            Ok(Transformed::yes(LogicalPlan::Filter(filter)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// What the scans of a plan read and filter.
#[derive(Debug, Default)]
pub(super) struct Scans {
    pub(super) columns: ColumnSet,
    /// Whether the scans are of `alerts`.
    pub(super) alerts: bool,
    /// By scan: the conjuncts that its rows must pass.
    filters: Vec<Vec<Expr>>,
}

impl Scans {
    pub(super) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut scans = Scans::default();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let names = scan.projected_schema.fields().iter().filter_map(|field| Column::by_name(field.name()));
                scans.columns = scans.columns.union(names.collect());
                scans.alerts |= scan.table_name.table() == ALERTS;
                let mut parts = Vec::new();
                for filter in &scan.filters {
                    parts.extend(conjuncts(unqualified(canonical(filter.clone())?)?));
                }
                scans.filters.push(parts);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(scans)
    }

    /// How often the plan reads the table.
    pub(super) fn count(&self) -> usize {
        self.filters.len()
    }

    /// Whether the plan reads nothing any more.
    pub(super) fn none(&self) -> bool {
        self.filters.is_empty()
    }

    /// Conjuncts that hold for every event that some scan keeps; `None` where a scan keeps all.
    ///
    /// What all scans ask for stays a conjunct of its own, the rest becomes one alternative.
    pub(super) fn candidates(&self) -> Result<Option<Vec<Expr>>> {
        let Some((first, others)) = self.filters.split_first() else { return Ok(None) };
        if self.filters.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        let common: Vec<Expr> =
            first.iter().filter(|part| others.iter().all(|other| other.contains(part))).cloned().collect();
        let rest =
            |parts: &Vec<Expr>| -> Vec<Expr> { parts.iter().filter(|part| !common.contains(part)).cloned().collect() };
        let alternatives: Vec<Vec<Expr>> = self.filters.iter().map(rest).collect();
        let mut found = common.clone();
        if !alternatives.iter().any(Vec::is_empty) {
            let alternatives = alternatives.into_iter().map(|parts| balanced(parts, Operator::And)).collect();
            found.push(canonical(balanced(alternatives, Operator::Or))?);
        }
        Ok(Some(found))
    }
}
