//! Recognises plans that are no more than a filter and a SELECT list over one scan of `audit`.

use std::collections::HashMap;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, ident};

use super::canonical::{canonical, has_subquery};
use super::error::SqlError;

/// A filter with its outputs, all over columns of `audit` without a table name.
#[derive(Debug)]
pub(super) struct Filter {
    /// `None` where every event passes.
    pub(super) predicate: Option<Expr>,
    /// Names and values of the SELECT list.
    pub(super) outputs: Vec<(String, Expr)>,
}

/// Reads an optimised plan; `None` where it is more than a filter.
pub(super) fn filter_of(plan: &LogicalPlan) -> Result<Option<Filter>, SqlError> {
    peel(plan).map_err(|error| SqlError::new(error.strip_backtrace()))
}

fn peel(plan: &LogicalPlan) -> Result<Option<Filter>, DataFusionError> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => peel(&alias.input),
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
            let names = scan.projected_schema.fields().iter().map(|field| field.name().clone());
            Ok(Some(Filter { predicate: None, outputs: names.map(|name| (name.clone(), ident(name))).collect() }))
        }
        LogicalPlan::Filter(filter) => {
            let Some(inner) = peel(&filter.input)? else { return Ok(None) };
            let predicate = canonical(filter.predicate.clone())?;
            if has_subquery(&predicate) {
                return Ok(None);
            }
            let predicate = resolved(predicate, &inner.outputs)?;
            let predicate = match inner.predicate {
                Some(before) => canonical(before.and(predicate))?,
                None => predicate,
            };
            Ok(Some(Filter { predicate: Some(predicate), outputs: inner.outputs }))
        }
        LogicalPlan::Projection(projection) => {
            let Some(inner) = peel(&projection.input)? else { return Ok(None) };
            let mut outputs = Vec::with_capacity(projection.expr.len());
            for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
                if has_subquery(expr) {
                    return Ok(None);
                }
                let expr = canonical(expr.clone().unalias_nested().data)?;
                outputs.push((field.name().clone(), resolved(expr, &inner.outputs)?));
            }
            Ok(Some(Filter { predicate: inner.predicate, outputs }))
        }
        _ => Ok(None),
    }
}

/// The expression with every column replaced by what computes it.
fn resolved(expr: Expr, outputs: &[(String, Expr)]) -> Result<Expr, DataFusionError> {
    let values: HashMap<&str, &Expr> = outputs.iter().map(|(name, expr)| (name.as_str(), expr)).collect();
    let replaced = expr.transform_up(|expr| match expr {
        Expr::Column(column) => match values.get(column.name.as_str()) {
            Some(value) => Ok(Transformed::yes((*value).clone())),
            None => datafusion::common::internal_err!("column {column} is not in the input"),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}
