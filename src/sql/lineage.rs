//! Where the columns of a plan's output come from.

use std::collections::BTreeMap;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, JoinType, LogicalPlan, Operator};
use datafusion::scalar::ScalarValue;

use super::panes::merges_exactly;
use crate::model::Column;

/// Where a column comes from.
#[derive(Debug, Clone, PartialEq)]
enum Origin<'a> {
    /// It is this column of these scans, as it was read.
    Columns(Vec<(Scan, Column)>),
    /// It is what this aggregate function gives.
    Aggregate(&'a Expr),
    /// It is computed.
    Other,
}

/// A scan of one plan: the address of its node.
type Scan = usize;

/// The plain columns of the table in a query's output, by place: by scan, those that this scan gave, so that a row
/// names events of each scan. Columns that a join holds equal count for both of its sides.
pub(super) fn sides(plan: &LogicalPlan) -> Result<Vec<Vec<(usize, Column)>>> {
    let mut sides: BTreeMap<Scan, Vec<(usize, Column)>> = BTreeMap::new();
    for output in 0..plan.schema().fields().len() {
        if let Origin::Columns(columns) = origin(plan, output) {
            columns.into_iter().for_each(|(scan, column)| sides.entry(scan).or_default().push((output, column)));
        }
    }
    let equal = equal_columns(plan)?;
    loop {
        let mut found = Vec::new();
        for (left, right) in &equal {
            for (from, to) in [(left, right), (right, left)] {
                let outputs = sides.get(&from.0).into_iter().flatten().filter(|(_, column)| *column == from.1);
                found.extend(outputs.map(|(output, _)| (to.0, (*output, to.1))));
            }
        }
        found.retain(|(scan, place)| !sides.get(scan).is_some_and(|places| places.contains(place)));
        if found.is_empty() {
            break;
        }
        for (scan, place) in found {
            let places = sides.entry(scan).or_default();
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let mut sides: Vec<Vec<(usize, Column)>> = sides.into_values().collect();
    sides.iter_mut().for_each(|places| places.sort_unstable());
    sides.sort();
    sides.dedup();
    Ok(sides)
}

/// A column of a scan.
type Place = (Scan, Column);

/// Columns of scans that some join holds equal.
fn equal_columns(plan: &LogicalPlan) -> Result<Vec<(Place, Place)>> {
    let mut equal = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node {
            for (left, right) in &join.on {
                let (left, right) = (origin_of(&join.left, left), origin_of(&join.right, right));
                if let (Origin::Columns(left), Origin::Columns(right)) = (left, right) {
                    equal.extend(left.iter().flat_map(|left| right.iter().map(|right| (*left, *right))));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(equal)
}

fn origin_of<'a>(input: &'a LogicalPlan, expr: &'a Expr) -> Origin<'a> {
    match expr {
        Expr::Alias(alias) => origin_of(input, &alias.expr),
        Expr::Column(column) => match input.schema().index_of_column(column) {
            Ok(index) => origin(input, index),
            Err(_) => Origin::Other,
        },
        _ => Origin::Other,
    }
}

fn origin(plan: &LogicalPlan, index: usize) -> Origin<'_> {
    match plan {
        LogicalPlan::Projection(node) => {
            node.expr.get(index).map_or(Origin::Other, |expr| origin_of(&node.input, expr))
        }
        LogicalPlan::SubqueryAlias(node) => origin(&node.input, index),
        LogicalPlan::Filter(node) => origin(&node.input, index),
        LogicalPlan::Sort(node) => origin(&node.input, index),
        LogicalPlan::Limit(node) => origin(&node.input, index),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, index),
        // What a window function computes stands after the columns of its input.
        LogicalPlan::Window(node) if index < node.input.schema().fields().len() => origin(&node.input, index),
        LogicalPlan::Aggregate(node) => {
            let grouping_set = node.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
            match index.checked_sub(node.group_expr.len()) {
                _ if grouping_set => Origin::Other,
                None => node.group_expr.get(index).map_or(Origin::Other, |expr| origin_of(&node.input, expr)),
                Some(index) => node.aggr_expr.get(index).map_or(Origin::Other, Origin::Aggregate),
            }
        }
        LogicalPlan::Join(node) => {
            let left = node.left.schema().fields().len();
            match node.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => origin(&node.left, index),
                JoinType::RightSemi | JoinType::RightAnti => origin(&node.right, index),
                JoinType::LeftMark if index >= left => Origin::Other,
                JoinType::RightMark if index >= node.right.schema().fields().len() => Origin::Other,
                JoinType::RightMark => origin(&node.right, index),
                _ if index < left => origin(&node.left, index),
                _ => origin(&node.right, index - left),
            }
        }
        LogicalPlan::Union(node) => {
            let mut all = Vec::new();
            for input in &node.inputs {
                let Origin::Columns(columns) = origin(input, index) else { return Origin::Other };
                all.extend(columns);
            }
            Origin::Columns(all)
        }
        LogicalPlan::TableScan(scan) => {
            let name = scan.projected_schema.fields().get(index).map(|field| field.name().as_str());
            match name.and_then(Column::by_name) {
                Some(column) => Origin::Columns(vec![(std::ptr::from_ref(scan) as usize, column)]),
                None => Origin::Other,
            }
        }
        _ => Origin::Other,
    }
}

/// A query whose rows come from groups of events that have nothing to do with each other: an aggregate over one scan,
/// grouped by plain columns, with conditions on what it computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// What the events of a group have in common.
    pub by: Vec<Column>,
    /// A group with fewer events than this gives no row; at least 1.
    pub at_least: u64,
    /// Whether the answer can be put together out of parts, each computed once for a pane.
    pub(super) merges: bool,
    /// Why further events of a group could turn its row away again; `None` where they cannot.
    pub(super) falls: Option<String>,
}

/// Reads an optimised plan; `None` where its groups may depend on each other or are not of plain columns.
pub(super) fn groups_of(plan: &LogicalPlan) -> Option<Groups> {
    let mut at_least = 1;
    let mut falls = None;
    let mut node = plan;
    let aggregate = loop {
        match node {
            LogicalPlan::Projection(projection) => node = &projection.input,
            LogicalPlan::SubqueryAlias(alias) => node = &alias.input,
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => node = &sort.input,
            LogicalPlan::Filter(filter) => {
                at_least = at_least.max(floor(&filter.predicate, &filter.input).unwrap_or(1));
                falls = falls.or_else(|| falling(&filter.predicate, &filter.input));
                node = &filter.input;
            }
            LogicalPlan::Aggregate(aggregate) => break aggregate,
            _ => return None,
        }
    };
    let by = aggregate.group_expr.iter().map(|expr| match origin_of(&aggregate.input, expr) {
        Origin::Columns(columns) => columns.first().map(|(_, column)| *column),
        _ => None,
    });
    let by = by.collect::<Option<Vec<Column>>>()?;
    let mut input = aggregate.input.as_ref();
    loop {
        match input {
            LogicalPlan::Projection(projection) => input = &projection.input,
            LogicalPlan::SubqueryAlias(alias) => input = &alias.input,
            LogicalPlan::Filter(filter) => input = &filter.input,
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => break,
            _ => return None,
        }
    }
    let merges = aggregate.aggr_expr.iter().all(|expr| merges_exactly(expr, aggregate.input.schema()));
    Some(Groups { by, at_least, merges, falls })
}

/// The fewest rows that a group needs for the condition to be true; `None` where it sets no bound.
fn floor(condition: &Expr, input: &LogicalPlan) -> Option<u64> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => floor(left, input).max(floor(right, input)),
            Operator::Or => Some(floor(left, input)?.min(floor(right, input)?)),
            op => {
                let (counted, op, bound) = match (left.as_ref(), right.as_ref()) {
                    (counted, Expr::Literal(bound, _)) => (counted, *op, bound),
                    (Expr::Literal(bound, _), counted) => (counted, op.swap()?, bound),
                    _ => return None,
                };
                let bound = whole(bound)?;
                match op {
                    Operator::GtEq | Operator::Eq if is_count(counted, input) => Some(bound),
                    Operator::Gt if is_count(counted, input) => bound.checked_add(1),
                    _ => None,
                }
            }
        },
        Expr::Between(between) if !between.negated => match between.low.as_ref() {
            Expr::Literal(low, _) if is_count(&between.expr, input) => whole(low),
            _ => None,
        },
        _ => None,
    }
}

/// What of a condition on groups can turn from true to not true as events are added to a group; `None` where nothing can.
fn falling(condition: &Expr, input: &LogicalPlan) -> Option<String> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            falling(left, input).or_else(|| falling(right, input))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (grows, op) = match (left.as_ref(), right.as_ref()) {
                (grows, Expr::Literal(..)) => (grows, Some(*op)),
                (Expr::Literal(..), grows) => (grows, op.swap()),
                _ => return of_group(condition, input),
            };
            let stays = match op {
                Some(Operator::Gt | Operator::GtEq) => only_grows(grows, input),
                Some(Operator::Lt | Operator::LtEq) => {
                    call_of(grows, input).is_some_and(|call| call.func.name() == "min")
                }
                _ => false,
            };
            if stays { None } else { of_group(condition, input) }
        }
        condition => of_group(condition, input),
    }
}

/// `None` where the condition is over what all events of a group have in common, so is always true or never.
fn of_group(condition: &Expr, input: &LogicalPlan) -> Option<String> {
    let common = |column: &datafusion::common::Column| {
        input.schema().index_of_column(column).is_ok_and(|index| matches!(origin(input, index), Origin::Columns(_)))
    };
    let fixed = condition.column_refs().into_iter().all(common) && !condition.is_volatile();
    (!fixed).then(|| format!("`{condition}` can become false again"))
}

/// Whether the expression can only grow as events are added to a group.
fn only_grows(expr: &Expr, input: &LogicalPlan) -> bool {
    let Some(call) = call_of(expr, input) else { return false };
    match call.func.name() {
        "count" | "max" | "bool_or" | "approx_distinct" => true,
        "sum" => call.params.args.iter().all(not_negative),
        _ => false,
    }
}

/// Whether the expression is one of some numbers that are not negative, or null.
fn not_negative(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null() || whole(value).is_some(),
        Expr::Case(case) => {
            let mut results = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            results.all(|result| not_negative(result))
        }
        Expr::Cast(cast) => not_negative(&cast.expr),
        _ => false,
    }
}

fn whole(value: &ScalarValue) -> Option<u64> {
    match value {
        ScalarValue::Int64(Some(number)) => u64::try_from(*number).ok(),
        ScalarValue::UInt64(Some(number)) => Some(*number),
        _ => None,
    }
}

/// Whether the expression counts rows, or some of them, of a group: each adds at most one.
fn is_count(expr: &Expr, input: &LogicalPlan) -> bool {
    call_of(expr, input).is_some_and(|call| call.func.name() == "count")
}

/// The aggregate function that a column comes from.
fn call_of<'a>(expr: &'a Expr, input: &'a LogicalPlan) -> Option<&'a AggregateFunction> {
    let Origin::Aggregate(expr) = origin_of(input, expr) else { return None };
    match expr {
        Expr::Alias(alias) => match alias.expr.as_ref() {
            Expr::AggregateFunction(call) => Some(call),
            _ => None,
        },
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}
