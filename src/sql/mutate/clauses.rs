//! Conditions of queries of any shape: those of every WHERE and HAVING clause, in whichever SELECT it stands.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator as Op, Expr as Ast, Select, Statement, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{Condition, chain, condition_of, expression, joined};

/// The conditions of each clause, in the order in which [`with_condition`] counts them; `None` where the text is not one
/// statement.
pub fn clauses(sql: &str) -> Option<Vec<Vec<Condition>>> {
    let mut found = Vec::new();
    visit(&mut statement(sql)?, |clause| found.push(chain(clause, &Op::And).into_iter().map(condition_of).collect()));
    Some(found)
}

/// The query with another condition in the place of one, or (`None`) without it.
pub fn with_condition(sql: &str, clause: usize, condition: usize, instead: Option<&str>) -> Option<String> {
    let mut statement = statement(sql)?;
    let instead = match instead {
        Some(text) => Some(expression(text)?),
        None => None,
    };
    let mut number = 0;
    visit(&mut statement, |expr| {
        if number == clause {
            let mut parts: Vec<Ast> = chain(expr, &Op::And).into_iter().cloned().collect();
            match &instead {
                Some(other) => parts[condition] = other.clone(),
                None => drop(parts.remove(condition)),
            }
            // Without any condition left, every row is let through.
            *expr = joined(parts, &Op::And).or_else(|| self::expression("true")).expect("`true` is an expression");
        }
        number += 1;
    });
    Some(statement.to_string())
}

fn statement(sql: &str) -> Option<Statement> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    statements.pop().filter(|_| statements.is_empty())
}

fn visit(statement: &mut Statement, each: impl FnMut(&mut Ast)) {
    // It never breaks off, so there is nothing to look at.
    let _ = statement.visit(&mut Clauses(each));
}

struct Clauses<F>(F);

impl<F: FnMut(&mut Ast)> VisitorMut for Clauses<F> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.selection.iter_mut().chain(&mut select.having).for_each(&mut self.0);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "WITH a AS (SELECT x FROM audit WHERE v = 1 AND w = 2) \
                       SELECT x, count(*) FROM a WHERE x IN (SELECT y FROM audit WHERE z) GROUP BY x HAVING count(*) >= 5";

    #[test]
    fn every_clause_of_every_select_is_found() {
        let found = clauses(SQL).expect("a query");
        let texts: Vec<Vec<&str>> =
            found.iter().map(|clause| clause.iter().map(|condition| condition.sql.as_str()).collect()).collect();
        let expected: [&[&str]; 4] =
            [&["v = 1", "w = 2"], &["x IN (SELECT y FROM audit WHERE z)"], &["count(*) >= 5"], &["z"]];
        assert_eq!(texts, expected);
        assert_eq!(found[2][0].mutants.len(), 3, "dropped, and a bound that moves both ways");
        assert_eq!((clauses("SELECT"), clauses("SELECT 1; SELECT 2")), (None, None));
    }

    #[test]
    fn one_condition_is_replaced_and_the_rest_stays() {
        let changed = |clause, condition, instead| with_condition(SQL, clause, condition, instead).expect("a query");
        assert_eq!(changed(0, 1, None), SQL.replace("v = 1 AND w = 2", "v = 1"));
        assert_eq!(changed(2, 0, Some("count(*) >= 6")), SQL.replace(">= 5", ">= 6"));
        assert_eq!(changed(3, 0, None), SQL.replace("WHERE z", "WHERE true"));
        assert_eq!(changed(0, 0, Some("v = 1 OR u")), SQL.replace("v = 1 AND w = 2", "(v = 1 OR u) AND (w = 2)"));
    }
}
