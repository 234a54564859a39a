//! One form for expressions that mean the same, so that detections share them, and no deep ones.
//!
//! Columns lose their table, long chains of AND and OR become balanced trees (a chain of thousands would overflow the
//! stack of whoever walks it), and alternatives of one column become one IN list in a fixed order.

use std::collections::BTreeMap;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// Whether the expression holds a subquery or refers to an outer query.
pub(super) fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
                | Expr::OuterReferenceColumn(..)
        ))
    })
    .unwrap_or(true)
}

/// Levels of the tree.
pub(super) fn depth(expr: &Expr) -> usize {
    let mut deepest = 0;
    let mut level = vec![(expr, 1)];
    while let Some((expr, at)) = level.pop() {
        deepest = deepest.max(at);
        // The visitor only hands out the children; the walk itself needs no stack.
        let walked = expr.apply_children(|child| {
            level.push((child, at + 1));
            Ok(TreeNodeRecursion::Continue)
        });
        if walked.is_err() {
            return usize::MAX;
        }
    }
    deepest
}

/// The expression without table names.
pub(super) fn unqualified(expr: Expr) -> Result<Expr> {
    let stripped = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    })?;
    Ok(stripped.data)
}

/// The canonical form. Same type, same meaning, NULLs included.
pub(super) fn canonical(expr: Expr) -> Result<Expr> {
    let rewritten = expr.transform_down(|expr| {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
                let mut parts = Vec::new();
                flatten(expr, op, &mut parts);
                if op == Operator::Or {
                    parts = merge_alternatives(parts);
                }
                Transformed::yes(balanced(parts, op))
            }
            Expr::InList(mut list) => {
                order(&mut list.list);
                Transformed::yes(Expr::InList(list))
            }
            other => Transformed::no(other),
        })
    })?;
    Ok(rewritten.data)
}

/// The parts of a chain, left to right, each once.
fn flatten(expr: Expr, op: Operator, parts: &mut Vec<Expr>) {
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: found, right }) if found == op => {
                open.push(*right);
                open.push(*left);
            }
            part => {
                if seen.insert(part.clone()) {
                    parts.push(part);
                }
            }
        }
    }
}

/// `a = 1 OR b OR a IN (2, 3)` as `a IN (1, 2, 3) OR b`.
fn merge_alternatives(parts: Vec<Expr>) -> Vec<Expr> {
    let mut merged: Vec<Expr> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new(); // by table and name
    for part in parts {
        let (column, values) = match alternatives(part) {
            Ok(found) => found,
            Err(part) => {
                merged.push(part);
                continue;
            }
        };
        let place = *places.entry(column.flat_name()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(Expr::InList(list)) => list.list.extend(values),
            _ => merged.push(Expr::InList(InList::new(Box::new(Expr::Column(column)), values, false))),
        }
    }
    merged.into_iter().map(single).collect()
}

/// Column and literals of an equality or an IN list, the expression itself if it is neither.
fn alternatives(expr: Expr) -> Result<(Column, Vec<Expr>), Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (*left, *right) {
            (Expr::Column(column), value @ Expr::Literal(..)) => Ok((column, vec![value])),
            (left, right) => Err(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::Eq, Box::new(right)))),
        },
        Expr::InList(InList { expr, list, negated: false })
            if list.iter().all(|item| matches!(item, Expr::Literal(..))) =>
        {
            match *expr {
                Expr::Column(column) => Ok((column, list)),
                other => Err(Expr::InList(InList::new(Box::new(other), list, false))),
            }
        }
        other => Err(other),
    }
}

/// An IN list of one value as an equality.
fn single(expr: Expr) -> Expr {
    match expr {
        Expr::InList(mut list) if !list.negated => {
            order(&mut list.list);
            match (list.list.len(), list.list.pop()) {
                (1, Some(value)) => (*list.expr).eq(value),
                (_, last) => {
                    list.list.extend(last);
                    Expr::InList(list)
                }
            }
        }
        other => other,
    }
}

/// Literals in a fixed order, each once; other lists are left alone.
fn order(items: &mut Vec<Expr>) {
    if items.iter().all(|item| matches!(item, Expr::Literal(..))) {
        items.sort_by_cached_key(|item| item.to_string());
        items.dedup();
    }
}

/// A tree over the parts whose depth is the logarithm of their number.
pub(super) fn balanced(mut parts: Vec<Expr>, op: Operator) -> Expr {
    let half = parts.len() / 2;
    if half == 0 {
        // Nothing at all is the neutral element: true for AND, false for OR.
        return parts.pop().unwrap_or_else(|| datafusion::logical_expr::lit(op == Operator::And));
    }
    let right = parts.split_off(half);
    Expr::BinaryExpr(BinaryExpr::new(Box::new(balanced(parts, op)), op, Box::new(balanced(right, op))))
}

/// The parts of a conjunction, left to right, each once.
pub(super) fn conjuncts(expr: Expr) -> Vec<Expr> {
    let mut parts = Vec::new();
    flatten(expr, Operator::And, &mut parts);
    parts
}
