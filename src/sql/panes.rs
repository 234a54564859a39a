//! An aggregate in two parts: what each pane of a window comes to, once, and the answer out of the panes.
//!
//! The first part is the aggregate's partial form, run over the rows of one pane; its output, the states, has one row
//! for each group. The second merges the states of all panes of a window and does what the query does above the
//! aggregate. So a row is aggregated once, not once for each of the windows that it is in. Only for aggregates whose
//! merged states say exactly what one pass over all rows says: counts, distinct values, extremes, sums of whole
//! numbers; not for sums of fractions, whose last digit depends on the order, nor for lists of values.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::general::GeneralPlan;
use super::table::state_scan;

/// The two parts.
#[derive(Debug)]
pub(super) struct Panes {
    /// Rows to states.
    pub(super) partial: GeneralPlan,
    /// States to the answer.
    pub(super) finish: GeneralPlan,
}

/// Splits a plan at its one aggregate; `None` where it has another form than one aggregate in a chain of operators.
pub(super) fn split(plan: &Arc<dyn ExecutionPlan>, state: &SessionState) -> Result<Option<Panes>> {
    let Some((partial, finish)) = parts(plan)? else { return Ok(None) };
    let (partial, finish) = (GeneralPlan::of(partial, state), GeneralPlan::of(finish, state));
    Ok(Some(Panes { partial, finish }))
}

type Parts = (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>);

fn parts(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Parts>> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let whole = matches!(aggregate.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned);
        if !whole || any_aggregate(aggregate.input().as_ref()) {
            return Ok(None);
        }
        let partial: Arc<dyn ExecutionPlan> = Arc::new(AggregateExec::try_new(
            AggregateMode::Partial,
            aggregate.group_expr().clone(),
            aggregate.aggr_expr().to_vec(),
            aggregate.filter_expr().to_vec(),
            Arc::clone(aggregate.input()),
            aggregate.input_schema(),
        )?);
        let finish: Arc<dyn ExecutionPlan> = Arc::new(AggregateExec::try_new(
            AggregateMode::Final,
            aggregate.group_expr().as_final(),
            aggregate.aggr_expr().to_vec(),
            vec![None; aggregate.aggr_expr().len()],
            state_scan(partial.schema()),
            aggregate.input_schema(),
        )?);
        // What stands above was made for the aggregate in one part.
        return Ok((finish.schema() == plan.schema()).then_some((partial, finish)));
    }
    let children = plan.children();
    let [child] = children.as_slice() else { return Ok(None) };
    let Some((partial, finish)) = parts(child)? else { return Ok(None) };
    let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Ok(Some((partial, Arc::clone(plan).replace_children(vec![finish], recompute)?)))
}

fn any_aggregate(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<AggregateExec>().is_some()
        || plan.children().into_iter().any(|child| any_aggregate(child.as_ref()))
}

/// Whether merged states of the aggregate function are exactly what one pass gives.
pub(super) fn merges_exactly(expr: &Expr, input: &DFSchema) -> bool {
    let call = match expr {
        Expr::Alias(alias) => return merges_exactly(&alias.expr, input),
        Expr::AggregateFunction(call) => call,
        _ => return false,
    };
    let params = &call.params;
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return false;
    }
    let whole = || params.args.iter().all(|arg| arg.get_type(input).is_ok_and(|kind| kind.is_integer()));
    match call.func.name() {
        "count" => true,
        "min" | "max" | "bool_and" | "bool_or" | "approx_distinct" => !params.distinct,
        "sum" => whole(),
        _ => false,
    }
}
