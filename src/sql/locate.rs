//! Finds where in a SQL text an error comes from when DataFusion does not say.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{Expr as Ast, ExprWithAlias, Query, SetExpr, Spanned, Visit, Visitor};

use super::error::{Place, SqlError, from_datafusion};
use super::table::AUDIT;
use crate::model::AUDIT_SCHEMA;

/// Expressions tried at most: each is planned by itself.
const TRIES_MAX: usize = 2000;

/// The innermost expression that, planned by itself, fails with the same message.
pub(super) fn culprit(
    state: &SessionState,
    parsed: &impl Visit,
    error: &SqlError,
    functions: &[String],
) -> Option<Place> {
    let schema = DFSchema::try_from_qualified_schema(AUDIT, &AUDIT_SCHEMA).ok()?;
    let mut search = Search { state, schema: Arc::new(schema), error, functions, tries: TRIES_MAX };
    match parsed.visit(&mut search) {
        ControlFlow::Break(place) => place,
        ControlFlow::Continue(()) => None,
    }
}

struct Search<'a> {
    state: &'a SessionState,
    schema: Arc<DFSchema>,
    error: &'a SqlError,
    functions: &'a [String],
    tries: usize,
}

impl Search<'_> {
    fn plan(&self, expr: &Ast) -> Result<()> {
        let parsed = ExprWithAlias { expr: expr.clone(), alias: None };
        let expr = self.state.create_logical_expr_from_sql_expr(parsed, &self.schema)?;
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&self.schema))
            .with_config_options(Arc::clone(self.state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        simplifier.simplify(simplifier.coerce(expr, &self.schema)?)?;
        Ok(())
    }
}

impl Visitor for Search<'_> {
    type Break = Option<Place>;

    fn post_visit_expr(&mut self, expr: &Ast) -> ControlFlow<Self::Break> {
        if self.tries == 0 {
            return ControlFlow::Break(None);
        }
        self.tries -= 1;
        match self.plan(expr) {
            Err(error) if from_datafusion(&error, self.functions).message == self.error.message => {
                ControlFlow::Break(start(expr))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// A condition that is not boolean is fine as an expression; its place is where the condition starts.
    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let SetExpr::Select(select) = query.body.as_ref() else { return ControlFlow::Continue(()) };
        match &select.selection {
            Some(condition) if self.error.message.starts_with("the condition must be") => {
                ControlFlow::Break(start(condition))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn start(expr: &Ast) -> Option<Place> {
    let start = expr.span().start;
    Place::new(start.line, start.column)
}

/// An unknown column in double quotes was probably meant as text.
pub(super) fn quoted_text(error: SqlError, sql: &str) -> SqlError {
    let Some(name) = error.message.strip_prefix("unknown column `").and_then(|rest| rest.strip_suffix('`')) else {
        return error;
    };
    if !sql.contains(&format!("\"{name}\"")) {
        return error;
    }
    let help = format!("text is written in single quotes: '{name}'");
    error.help(help)
}
