//! What a detection's query may not do, found by walking its logical plan.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use super::canonical::has_subquery;
use super::error::SqlError;
use super::functions::span::is_window_function;
use super::table::{ALERTS, AUDIT};

/// Most uses of the table in one query: each multiplies the work with the others.
const SCANS_MAX: usize = 8;

/// Refuses a plan that does anything but compute rows from `audit`.
///
/// # Errors
/// Says what is refused and why.
pub(super) fn allowed(plan: &LogicalPlan) -> Result<(), SqlError> {
    allowed_in(plan, Place::Event)
}

/// Like [`allowed`], for a query over the events of a window.
///
/// # Errors
/// Says what is refused and why.
pub(super) fn allowed_in_window(plan: &LogicalPlan) -> Result<(), SqlError> {
    allowed_in(plan, Place::Window)
}

/// What a query is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Event,
    Window,
}

fn allowed_in(plan: &LogicalPlan, place: Place) -> Result<(), SqlError> {
    let (mut scans, mut of_alerts) = (0, 0);
    let mut refusal = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans += 1;
            of_alerts += usize::from(scan.table_name.table() == ALERTS);
        }
        refusal = node_refusal(node, place);
        if refusal.is_none() {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    refusal = refusal.take().or_else(|| expr_refusal(expr, place));
                    Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
                })
            })?;
        }
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    walked.map_err(|error| SqlError::new(error.strip_backtrace()))?;
    if of_alerts > 0 && of_alerts < scans {
        return Err(SqlError::new("a query reads either `audit` or `alerts`, not both"));
    }
    match scans {
        0 => Err(SqlError::new("the query does not read the table `audit`").help("write SELECT * FROM audit WHERE …")),
        1..=SCANS_MAX => Ok(()),
        _ => Err(SqlError::new(format!("the query reads `audit` {scans} times; at most {SCANS_MAX} are allowed"))),
    }
}

/// Refuses an expression that is more than a condition over one event.
///
/// # Errors
/// Says what is refused and why.
pub(super) fn allowed_expr(expr: &Expr) -> Result<(), SqlError> {
    if has_subquery(expr) {
        return Err(SqlError::new("a condition cannot hold a subquery"));
    }
    let mut refusal = None;
    let walked = expr.apply(|expr| {
        refusal = refusal.take().or_else(|| expr_refusal(expr, Place::Event));
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match refusal {
        Some(refusal) => Err(refusal),
        None => walked.map(|_| ()).map_err(|error| SqlError::new(error.strip_backtrace())),
    }
}

fn node_refusal(node: &LogicalPlan, place: Place) -> Option<SqlError> {
    let refused = match node {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == AUDIT => return None,
        LogicalPlan::TableScan(scan) if scan.table_name.table() == ALERTS => match place {
            Place::Window => return None,
            Place::Event => {
                return Some(
                    SqlError::new("the table `alerts` is for detections with a window")
                        .help("add window: {size: 1h}, and say with GROUP BY and HAVING what has to come together"),
                );
            }
        },
        LogicalPlan::TableScan(scan) => format!("the table `{}` is not available", scan.table_name),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Join(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::Unnest(_) => return None,
        LogicalPlan::RecursiveQuery(_) => "a recursive query is not available".to_owned(),
        _ => "only a SELECT is allowed".to_owned(),
    };
    Some(SqlError::new(refused).help("an event detection is one SELECT over `audit`"))
}

fn expr_refusal(expr: &Expr, place: Place) -> Option<SqlError> {
    let (name, volatility) = match expr {
        Expr::ScalarFunction(call) => (call.func.name().to_owned(), call.func.signature().volatility),
        Expr::AggregateFunction(call) => (call.func.name().to_owned(), call.func.signature().volatility),
        Expr::WindowFunction(call) => (call.fun.name().to_owned(), call.fun.signature().volatility),
        Expr::Placeholder(placeholder) => {
            let message = format!("the parameter `{}` has no value", placeholder.id);
            return Some(SqlError::new(message).help("write the value itself"));
        }
        Expr::ScalarVariable(_, names) => {
            return Some(SqlError::new(format!("the variable `{}` is not available", names.join("."))));
        }
        _ => return None,
    };
    if is_window_function(&name) {
        let help = "give the detection a `window`, or compare times of the event with each other";
        let message = format!("function `{name}` is only for the query of a window");
        return (place == Place::Event).then(|| SqlError::new(message).help(help));
    }
    (volatility != Volatility::Immutable).then(|| {
        SqlError::new(format!("function `{name}` is not available"))
            .help("a detection must give the same answer whenever it runs")
    })
}
