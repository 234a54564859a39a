//! What the linter wants to know about a query, read from its syntax tree, so that findings point at the author's words.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// A place in the SQL text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    pub length: u32,
}

/// What was found in one query.
#[derive(Debug, Default)]
pub struct Facts {
    /// Columns that are named, and where first.
    pub columns: BTreeMap<String, Place>,
    /// Columns that are compared for equality with something.
    pub equalities: BTreeMap<String, Place>,
    /// Columns inside a negation that nothing makes two-valued, and where.
    pub negated: BTreeMap<String, Place>,
    /// Columns searched by a pattern that begins with a wildcard, and where.
    pub searched: BTreeMap<String, Place>,
    /// Columns that are tested for null.
    null_tests: BTreeSet<String>,
    negations: usize,
    shields: usize,
}

impl Facts {
    /// Reads a query that DataFusion has planned already; text that does not parse has no facts.
    pub fn of(sql: &str) -> Facts {
        let mut facts = Facts::default();
        if let Ok(statements) = Parser::parse_sql(&GenericDialect {}, sql) {
            let _: ControlFlow<()> = statements.visit(&mut facts);
        }
        let Facts { negated, null_tests, .. } = &mut facts;
        negated.retain(|column, _| !null_tests.contains(column));
        facts
    }

    fn note(target: &mut BTreeMap<String, Place>, expr: &Expr) {
        if let Some(ident) = column(expr) {
            target.entry(ident.value.to_lowercase()).or_insert_with(|| place(ident));
        }
    }

    fn like(&mut self, expr: &Expr, pattern: &Expr) {
        if text(pattern).is_some_and(|pattern| pattern.starts_with('%')) {
            Self::note(&mut self.searched, expr);
        }
    }

    fn function(&mut self, expr: &Expr) {
        let Some((name, arguments)) = call(expr) else { return };
        let Some((first, rest)) = arguments.split_first() else { return };
        match name.as_str() {
            "like_any" | "ilike_any" => rest.iter().for_each(|pattern| self.like(first, pattern)),
            "contains" | "strpos" | "position" | "regexp_like" | "ends_with" => Self::note(&mut self.searched, first),
            _ => {}
        }
    }
}

impl Visitor for Facts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                Self::note(&mut self.columns, expr);
                if self.negations > 0 && self.shields == 0 {
                    Self::note(&mut self.negated, expr);
                }
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                self.null_tests.extend(column(inner).map(|ident| ident.value.to_lowercase()));
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                Self::note(&mut self.equalities, left);
                Self::note(&mut self.equalities, right);
            }
            Expr::InList { expr, negated: false, .. } => Self::note(&mut self.equalities, expr),
            Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => self.like(expr, pattern),
            Expr::BinaryOp { left, op: BinaryOperator::PGRegexMatch | BinaryOperator::PGRegexIMatch, .. } => {
                Self::note(&mut self.searched, left);
            }
            Expr::Function(_) => self.function(expr),
            _ => {}
        }
        self.negations += usize::from(negates(expr));
        self.shields += usize::from(shields(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.negations -= usize::from(negates(expr));
        self.shields -= usize::from(shields(expr));
        ControlFlow::Continue(())
    }
}

/// Whether the expression is true where what it reads is not: then null must be thought of.
fn negates(expr: &Expr) -> bool {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => true,
        Expr::BinaryOp { op, left, right } => match op {
            BinaryOperator::NotEq
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGNotILikeMatch => true,
            BinaryOperator::Eq => is_false(left) || is_false(right),
            _ => false,
        },
        Expr::Like { negated, .. }
        | Expr::ILike { negated, .. }
        | Expr::SimilarTo { negated, .. }
        | Expr::InList { negated, .. }
        | Expr::Between { negated, .. } => *negated,
        _ => false,
    }
}

/// Whether the expression is never null, whatever it reads.
fn shields(expr: &Expr) -> bool {
    match expr {
        Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..) => true,
        Expr::Function(_) => {
            call(expr).is_some_and(|(name, _)| matches!(name.as_str(), "coalesce" | "ifnull" | "nvl" | "concat"))
        }
        _ => false,
    }
}

fn column(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(ident) => Some(ident),
        Expr::CompoundIdentifier(idents) => idents.last(),
        Expr::Nested(inner) => column(inner),
        Expr::Cast { expr, .. } => column(expr),
        Expr::Function(_) => {
            let (name, arguments) = call(expr)?;
            match (name.as_str(), arguments.as_slice()) {
                ("lower" | "upper", [only]) => column(only),
                _ => None,
            }
        }
        _ => None,
    }
}

fn call(expr: &Expr) -> Option<(String, Vec<&Expr>)> {
    use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((function.name.to_string().to_lowercase(), arguments.collect()))
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn is_false(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Boolean(false))
}

fn place(ident: &Ident) -> Place {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let start = ident.span.start;
    Place {
        line: narrow(start.line).max(1),
        column: narrow(start.column).max(1),
        length: u32::try_from(ident.value.chars().count()).unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negated(predicate: &str) -> Vec<String> {
        Facts::of(&format!("SELECT * FROM audit WHERE {predicate}")).negated.into_keys().collect()
    }

    #[test]
    fn a_bare_negation_is_found_however_it_is_written() {
        for predicate in [
            "NOT any_in(user_groups, 'x')",
            "user_groups <> 'x'",
            "lower(user_groups) NOT LIKE 'x%'",
            "user_groups NOT IN ('x')",
            "NOT (verb = 'get' AND user_groups = 'x')",
            "user_groups !~ 'x'",
            "user_groups = false",
        ] {
            assert!(negated(predicate).contains(&"user_groups".to_owned()), "{predicate}");
        }
    }

    #[test]
    fn a_negation_that_thinks_of_null_is_quiet() {
        for predicate in [
            "any_in(user_groups, 'x') IS NOT TRUE",
            "NOT coalesce(any_in(user_groups, 'x'), false)",
            "(user_groups IS NULL OR NOT any_in(user_groups, 'x'))",
            "user_groups IS DISTINCT FROM 'x'",
            "any_in(user_groups, 'x') AND NOT (privileged IS NOT TRUE)",
        ] {
            assert_eq!(negated(predicate), Vec::<String>::new(), "{predicate}");
        }
    }

    #[test]
    fn facts_know_their_places() {
        let facts = Facts::of("SELECT *\nFROM audit\nWHERE uri LIKE '%exec%' AND verb = 'get'");
        assert_eq!(facts.searched.get("uri"), Some(&Place { line: 3, column: 7, length: 3 }));
        assert!(facts.equalities.contains_key("verb") && facts.columns.contains_key("verb"));
    }
}
