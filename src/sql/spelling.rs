//! One text for all spellings of a query, by which state is found again after an edit.
//!
//! Case of words and names, blanks, comments, parentheses that change nothing, the order and repetition of conditions
//! joined by AND or OR and of values in an IN list, and the alias of the only table are spelling. Everything else is
//! meaning: names of results, order of columns, numbers, texts. Where two texts differ, the queries may still mean the
//! same: then state begins anew, which is told, and never the other way round.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator as Op, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    OrderByKind, Query, Select, SelectItem, Statement, TableFactor, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::SqlError;
use super::session::{check_size, on_large_stack};

/// The canonical text of a query or of a condition.
///
/// # Errors
/// Where it is neither, or larger than SQL may be.
pub fn canonical_text(sql: &str) -> Result<String, SqlError> {
    check_size(sql)?;
    on_large_stack(|| {
        let wrong = |error: String| SqlError::new(format!("this is no SQL: {error}"));
        if let Ok(expr) = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).and_then(|mut parser| whole(&mut parser))
        {
            let mut expr = expr;
            let _: ControlFlow<()> = expr.visit(&mut Speller { only: None });
            return Ok(bare(expr).to_string());
        }
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| wrong(error.to_string()))?;
        let [Statement::Query(mut query)] =
            <[Statement; 1]>::try_from(parsed).map_err(|_| wrong("it is not one statement".to_owned()))?
        else {
            return Err(wrong("it is not a SELECT".to_owned()));
        };
        let mut tables = Tables::default();
        let _: ControlFlow<()> = query.visit(&mut tables);
        let _: ControlFlow<()> = query.visit(&mut Speller { only: tables.only() });
        Ok(query.to_string())
    })
}

/// An expression and nothing behind it.
fn whole(parser: &mut Parser<'_>) -> Result<Expr, datafusion::sql::sqlparser::parser::ParserError> {
    use datafusion::sql::sqlparser::tokenizer::Token;
    let expr = parser.parse_expr()?;
    parser.expect_token(&Token::EOF)?;
    Ok(expr)
}

/// Tables of a query, its subqueries included.
#[derive(Default)]
struct Tables {
    count: usize,
    alias: Option<String>,
}

impl Tables {
    /// The name by which the only table is called, lower case.
    fn only(self) -> Option<String> {
        self.alias.filter(|_| self.count == 1)
    }
}

impl VisitorMut for Tables {
    type Break = ();

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        self.count += 1;
        self.alias = match table {
            TableFactor::Table { name, alias, .. } => match alias {
                Some(alias) if alias.columns.is_empty() => Some(spelled(&alias.name).value),
                Some(_) => None,
                None => name.0.last().and_then(ObjectNamePart::as_ident).map(|name| spelled(name).value),
            },
            _ => None,
        };
        ControlFlow::Continue(())
    }
}

/// Brings a tree into its canonical form, from the leaves up.
struct Speller {
    /// What the only table is called: names that begin with it lose it.
    only: Option<String>,
}

impl VisitorMut for Speller {
    type Break = ();

    fn post_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        spell(relation);
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        match table {
            TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => match alias {
                Some(found) if self.only.as_deref() == Some(&*spelled(&found.name).value) => *alias = None,
                Some(found) => {
                    found.explicit = true;
                    found.name = spelled(&found.name);
                }
                None => {}
            },
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { expr, alias } = item {
                *alias = spelled(alias);
                if let Expr::Identifier(name) = &*expr
                    && name == alias
                {
                    *item = SelectItem::UnnamedExpr(expr.clone());
                }
            }
        }
        let outer = [&mut select.selection, &mut select.having];
        outer.into_iter().flatten().for_each(|expr| *expr = bare(expr.clone()));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(exprs) = &mut order.kind
        {
            // Ascending is what nothing means, too.
            exprs.iter_mut().filter(|expr| expr.options.asc == Some(true)).for_each(|expr| expr.options.asc = None);
        }
        for table in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            table.alias.name = spelled(&table.alias.name);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(name) => *name = spelled(name),
            Expr::CompoundIdentifier(names) => {
                names.iter_mut().for_each(|name| *name = spelled(name));
                if let [table, name] = &names[..]
                    && self.only.as_ref() == Some(&table.value)
                {
                    *expr = Expr::Identifier(name.clone());
                }
            }
            Expr::Function(function) => {
                spell(&mut function.name);
                if let FunctionArguments::List(list) = &mut function.args {
                    list.args.iter_mut().for_each(|argument| {
                        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(inner)) = argument {
                            *inner = bare(inner.clone());
                        }
                    });
                }
            }
            Expr::InList { list, .. } => {
                list.sort_by_cached_key(ToString::to_string);
                list.dedup();
            }
            Expr::BinaryOp { op: op @ (Op::And | Op::Or), .. } => {
                let op = op.clone();
                *expr = chain(expr.clone(), &op);
            }
            // Parentheses around one thing; others decide what binds to what.
            Expr::Nested(inner) if is_single(inner) => *expr = (**inner).clone(),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A name as it would be read: lower case where it is not quoted; without quotes where they change nothing.
fn spelled(name: &Ident) -> Ident {
    let is_plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    match name.quote_style {
        None => Ident::new(name.value.to_lowercase()),
        Some(_) if is_plain(&name.value) => Ident::new(name.value.clone()),
        Some(quote) => Ident::with_quote(quote, name.value.clone()),
    }
}

fn spell(name: &mut ObjectName) {
    for part in &mut name.0 {
        if let ObjectNamePart::Identifier(name) = part {
            *name = spelled(name);
        }
    }
}

/// The expression without parentheses around it.
fn bare(expr: Expr) -> Expr {
    match expr {
        Expr::Nested(inner) => bare(*inner),
        other => other,
    }
}

/// Whether parentheses around it can change nothing.
fn is_single(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Value(_)
            | Expr::Function(_)
            | Expr::Nested(_)
            | Expr::Subquery(_)
            | Expr::Exists { .. }
    )
}

/// Whether an operand of AND or OR means something else without its parentheses.
fn binds_looser(expr: &Expr, op: &Op) -> bool {
    matches!(expr, Expr::BinaryOp { op: Op::Or | Op::Xor, .. }) && *op == Op::And
        || matches!(expr, Expr::BinaryOp { op: Op::Xor, .. })
}

/// The parts of a chain in a fixed order, each once. They were brought into their form before.
fn chain(expr: Expr, op: &Op) -> Expr {
    let (mut parts, mut open) = (Vec::new(), vec![expr]);
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryOp { left, op: found, right } if found == *op => open.extend([*right, *left]),
            Expr::Nested(inner) if !binds_looser(&inner, op) => open.push(*inner),
            part => parts.push(part),
        }
    }
    parts.sort_by_cached_key(ToString::to_string);
    parts.dedup_by_key(|part| part.to_string());
    let join = |left, right| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) };
    parts.into_iter().reduce(join).expect("a chain has parts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(one: &str, other: &str) {
        let text = |sql| canonical_text(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(text(one), text(other));
    }

    #[track_caller]
    fn different(one: &str, other: &str) {
        let text = |sql| canonical_text(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_ne!(text(one), text(other));
    }

    #[test]
    fn spelling_is_no_meaning() {
        let plain = "SELECT user_name, count(*) AS n FROM audit WHERE verb = 'get' AND response_code = 403 GROUP BY user_name HAVING count(*) > 5";
        same(
            plain,
            "select  User_Name, COUNT(*) as N -- why\nfrom AUDIT where VERB='get' and (response_code) = 403 /* x */ group by USER_NAME having COUNT(*) > 5",
        );
        same(plain, &plain.replace("verb = 'get' AND response_code = 403", "response_code = 403 AND verb = 'get'"));
        same(plain, &plain.replace("FROM audit", "FROM audit a").replace("verb =", "a.verb ="));
        same(plain, &plain.replace("FROM audit", "FROM audit AS x").replace("SELECT user_name", "SELECT x.user_name"));
        same(plain, &plain.replace("user_name", "\"user_name\""));
        same(plain, &plain.replace("verb = 'get' AND", "((verb = 'get') AND verb = 'get') AND"));
        same("verb IN ('b', 'a', 'b')", "verb IN ('a','b')");
        same("a = 1 OR (b = 2 OR c = 3)", "(c = 3 OR a = 1) OR b = 2");
        same("a = 1 OR (b = 2 AND c = 3)", "b = 2 AND (c = 3) OR a = 1");
        same("SELECT verb AS verb FROM audit", "SELECT verb FROM audit");
        same("(verb = 'get')", "verb = 'get'");
        same("lower((verb)) = 'x'", "LOWER(verb) = 'x'");
    }

    #[test]
    fn meaning_is_kept() {
        different("a = 1 AND b = 2 OR c = 3", "a = 1 AND (b = 2 OR c = 3)");
        different("NOT (a OR b)", "NOT a OR b");
        different("a - (b - c) > 0", "a - b - c > 0");
        different("verb = 'get'", "verb = 'GET'");
        different("\"Verb\" = 'x'", "verb = 'x'");
        different("SELECT verb AS v FROM audit", "SELECT verb AS w FROM audit");
        different("SELECT a, b FROM audit", "SELECT b, a FROM audit");
        different("verb NOT IN ('a')", "verb IN ('a')");
        different("count(*) > 5", "count(*) > 6");
        different(
            "SELECT a.verb FROM audit a JOIN audit b ON a.user_name = b.user_name",
            "SELECT b.verb FROM audit a JOIN audit b ON a.user_name = b.user_name",
        );
        different("SELECT verb FROM audit ORDER BY verb", "SELECT verb FROM audit ORDER BY verb DESC");
        same("SELECT verb FROM audit ORDER BY verb", "SELECT verb FROM audit ORDER BY verb ASC");
    }

    #[test]
    fn a_canonical_text_is_its_own() {
        for sql in [
            "SELECT A.verb, Count(*) n FROM audit a WHERE (b = 1 OR c IN (3, 2)) AND NOT (d OR e) GROUP BY 1",
            "WITH X AS (SELECT verb FROM audit) SELECT * FROM X WHERE verb LIKE 'a%'",
            "user_name IN (SELECT user_name FROM audit WHERE verb = 'b' AND a = 1)",
        ] {
            let once = canonical_text(sql).expect("SQL");
            same(sql, &once);
        }
    }

    #[test]
    fn long_chains_need_no_deep_stack_and_other_text_is_refused() {
        let chain = |from: usize| {
            let parts: Vec<String> = (0..450).map(|n| format!("a = {}", (n + from) % 450)).collect();
            parts.join(" OR ")
        };
        same(&chain(0), &chain(200));
        for sql in ["DROP TABLE audit", "SELECT 1; SELECT 2", "verb =", "", "SELECT verb FROM (audit"] {
            assert!(canonical_text(sql).is_err(), "{sql}");
        }
    }
}
