//! Changes of a query's condition, one at a time, each of which some test of the detection ought to notice.
//!
//! They are made on the parsed text, so that they read as the author wrote them (`reference('x')` stays what it is) and
//! a BETWEEN is one thing. What is changed: a condition of the WHERE clause, or a part of a nested AND, is dropped; an
//! alternative of an OR, a value of an IN list or of a function's patterns, an alternative of a regular expression is
//! left out; a pattern matches anything; a bound moves by one. Left alone: `reference()` lists, which have reasons of
//! their own, and bounds of `response_code`, whose values come in classes that do not reach their neighbours.

mod clauses;

pub use self::clauses::{clauses, with_condition};

use datafusion::sql::sqlparser::ast::{
    BinaryOperator as Op, Expr as Ast, FunctionArg, FunctionArgExpr, FunctionArguments, SetExpr, Statement,
    UnaryOperator, Value,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::table::AUDIT;

/// Values, patterns or alternatives of one list that are tried.
const VALUES_MAX: usize = 12;
/// Longest piece of SQL that a change quotes, in characters.
const QUOTE_MAX: usize = 90;
/// Columns whose numbers come in classes: the number beside a bound does not occur.
const CLASSES: [&str; 1] = ["response_code"];
/// Functions whose arguments after the first are alternatives.
const ALTERNATIVES: [&str; 9] = [
    "any_like",
    "any_ilike",
    "like_any",
    "ilike_any",
    "any_in",
    "any_path_within",
    "any_path_covers",
    "any_image_repository",
    "ip_in",
];

/// One of the conditions that a WHERE clause joins with AND.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The condition in the parser's spelling.
    pub sql: String,
    /// The first drops the condition as a whole.
    pub mutants: Vec<Mutant>,
}

/// A changed condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// What stands in the condition's place; `None`: nothing.
    pub sql: Option<String>,
    /// What was done, for people.
    pub change: String,
    /// Whether more events match than before; otherwise fewer do.
    pub wider: bool,
    /// The mutant that leaves out the part in which this one changes something. Where no test notices that one, this
    /// one tells nothing new.
    pub within: Option<usize>,
}

/// The conditions of `SELECT … FROM audit WHERE a AND b …`, in order; `None` for any other query.
pub fn conditions(sql: &str) -> Option<Vec<Condition>> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    let (Some(Statement::Query(query)), true) = (statements.pop(), statements.is_empty()) else { return None };
    let SetExpr::Select(select) = *query.body else { return None };
    if query.with.is_some() || !matches!(&select.from[..], [table] if table.to_string() == AUDIT) {
        return None;
    }
    let Some(condition) = select.selection else { return Some(Vec::new()) };
    Some(chain(&condition, &Op::And).into_iter().map(condition_of).collect())
}

/// The parser's spelling of a condition, by which two are compared; `None` where it cannot be parsed.
pub fn spelling(condition: &str) -> Option<String> {
    Some(bare(&expression(condition)?).to_string())
}

fn expression(sql: &str) -> Option<Ast> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(sql).ok()?.parse_expr().ok()
}

fn condition_of(condition: &Ast) -> Condition {
    let dropped = Mutant { sql: None, change: "dropped".to_owned(), wider: true, within: None };
    let mut maker = Maker { mutants: vec![dropped] };
    maker.inside(condition, true, 0, &|changed| changed);
    Condition { sql: condition.to_string(), mutants: maker.mutants }
}

/// The expression without parentheses around it.
fn bare(expr: &Ast) -> &Ast {
    match expr {
        Ast::Nested(inner) => bare(inner),
        other => other,
    }
}

/// The operands of a chain of one operator, left to right.
fn chain<'a>(expr: &'a Ast, op: &Op) -> Vec<&'a Ast> {
    let (mut parts, mut open) = (Vec::new(), vec![expr]);
    while let Some(expr) = open.pop() {
        match bare(expr) {
            Ast::BinaryOp { left, op: found, right } if found == op => open.extend([&**right, &**left]),
            part => parts.push(part),
        }
    }
    parts
}

/// The expression in parentheses, so that it can stand anywhere.
fn group(expr: Ast) -> Box<Ast> {
    Box::new(match expr {
        Ast::Identifier(_) | Ast::Nested(_) | Ast::Function(_) | Ast::Value(_) => expr,
        other => Ast::Nested(Box::new(other)),
    })
}

fn joined(parts: impl IntoIterator<Item = Ast>, op: &Op) -> Option<Ast> {
    parts.into_iter().reduce(|left, right| {
        // A chain of the same operator needs no parentheses on its left, and would nest as deep as it is long.
        let left = match &left {
            Ast::BinaryOp { op: found, .. } if found == op => Box::new(left),
            _ => group(left),
        };
        Ast::BinaryOp { left, op: op.clone(), right: group(right) }
    })
}

fn quoted(expr: &Ast) -> String {
    let text = expr.to_string();
    match text.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// How a changed part is put back into its condition.
type Rebuild<'a> = &'a dyn Fn(Ast) -> Ast;

struct Maker {
    mutants: Vec<Mutant>,
}

impl Maker {
    /// Adds a mutant, tells its index. Changes of equal words are numbered: an explanation names one of them.
    fn add(&mut self, changed: Ast, change: String, wider: bool, within: usize) -> usize {
        let numbered = format!("{change} (");
        let alike = |mutant: &&Mutant| mutant.change == change || mutant.change.starts_with(&numbered);
        let change = match self.mutants.iter().filter(alike).count() {
            0 => change,
            others => format!("{change} ({})", others + 1),
        };
        self.mutants.push(Mutant { sql: Some(changed.to_string()), change, wider, within: Some(within) });
        self.mutants.len() - 1
    }

    /// Every change inside an expression. `positive`: the more events it holds for, the more the detection matches.
    fn inside(&mut self, expr: &Ast, positive: bool, within: usize, rebuild: Rebuild<'_>) {
        match bare(expr) {
            Ast::BinaryOp { op: op @ (Op::And | Op::Or), .. } => {
                self.chained(&chain(expr, op), op, positive, within, rebuild);
            }
            Ast::UnaryOp { op: UnaryOperator::Not, expr } => {
                let negated = |changed| Ast::UnaryOp { op: UnaryOperator::Not, expr: group(changed) };
                self.inside(expr, !positive, within, &|changed| rebuild(negated(changed)));
            }
            Ast::IsTrue(inner) => self.inside(inner, positive, within, &|new| rebuild(Ast::IsTrue(group(new)))),
            Ast::IsNotTrue(inner) => self.inside(inner, !positive, within, &|new| rebuild(Ast::IsNotTrue(group(new)))),
            Ast::IsFalse(inner) => self.inside(inner, !positive, within, &|new| rebuild(Ast::IsFalse(group(new)))),
            Ast::IsNotFalse(inner) => self.inside(inner, positive, within, &|new| rebuild(Ast::IsNotFalse(group(new)))),
            Ast::InList { expr, list, negated } => {
                let list_of = |list| Ast::InList { expr: expr.clone(), list, negated: *negated };
                let place = format!("{expr} {}IN", if *negated { "NOT " } else { "" });
                self.values(list, &place, positive == *negated, within, &|list| rebuild(list_of(list)));
            }
            Ast::Function(function) => self.patterns(function, positive, within, rebuild),
            Ast::Like { negated: false, expr: value, .. } | Ast::ILike { negated: false, expr: value, .. } => {
                self.anything(bare(expr), value, positive, within, rebuild);
            }
            Ast::BinaryOp { left, op: op @ (Op::PGRegexMatch | Op::PGRegexIMatch), right } => {
                self.anything(bare(expr), left, positive, within, rebuild);
                let matches = |pattern| Ast::BinaryOp { left: left.clone(), op: op.clone(), right: Box::new(pattern) };
                self.regex(left, right, positive, within, &|pattern| rebuild(matches(pattern)));
            }
            Ast::Between { expr, negated: false, low, high } => {
                let with = |low: &Ast, high: &Ast| Ast::Between {
                    expr: expr.clone(),
                    negated: false,
                    low: Box::new(low.clone()),
                    high: Box::new(high.clone()),
                };
                self.bound(expr, low, -1, positive, within, &|low| rebuild(with(&low, high)));
                self.bound(expr, high, 1, positive, within, &|high| rebuild(with(low, &high)));
            }
            Ast::BinaryOp { left, op: op @ (Op::Gt | Op::GtEq | Op::Lt | Op::LtEq), right } => {
                let with = |bound| Ast::BinaryOp { left: left.clone(), op: op.clone(), right: Box::new(bound) };
                let outwards = if matches!(op, Op::Gt | Op::GtEq) { -1 } else { 1 };
                self.bound(left, right, outwards, positive, within, &|bound| rebuild(with(bound)));
            }
            _ => {}
        }
    }

    fn chained(&mut self, parts: &[&Ast], op: &Op, positive: bool, within: usize, rebuild: Rebuild<'_>) {
        let dropping_widens = (*op == Op::And) == positive;
        for (index, part) in parts.iter().enumerate() {
            let others = parts.iter().enumerate().filter(|(other, _)| *other != index);
            let Some(rest) = joined(others.map(|(_, part)| (*part).clone()), op) else { continue };
            let dropped = self.add(rebuild(rest), format!("without {}", quoted(part)), dropping_widens, within);
            self.inside(part, positive, dropped, &|changed| {
                let with = parts.iter().enumerate();
                let with = with.map(|(other, part)| if other == index { changed.clone() } else { (*part).clone() });
                rebuild(joined(with, op).expect("a chain has parts"))
            });
        }
    }

    /// Leaves out one value at a time.
    fn values(&mut self, list: &[Ast], place: &str, wider: bool, within: usize, rebuild: &dyn Fn(Vec<Ast>) -> Ast) {
        if list.len() < 2 {
            return;
        }
        for (index, value) in list.iter().enumerate().take(VALUES_MAX) {
            let mut rest = list.to_vec();
            rest.remove(index);
            self.add(rebuild(rest), format!("without {} in `{place}`", quoted(value)), wider, within);
        }
    }

    fn patterns(
        &mut self,
        function: &datafusion::sql::sqlparser::ast::Function,
        positive: bool,
        within: usize,
        rebuild: Rebuild<'_>,
    ) {
        let name = function.name.to_string().to_ascii_lowercase();
        let FunctionArguments::List(arguments) = &function.args else { return };
        let literal = |argument: &FunctionArg| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value @ Ast::Value(_))) => Some(value.clone()),
            _ => None,
        };
        let [value, patterns @ ..] = &arguments.args[..] else { return };
        let Some(patterns) = patterns.iter().map(literal).collect::<Option<Vec<Ast>>>() else { return };
        if !ALTERNATIVES.contains(&name.as_str()) {
            return;
        }
        let with = |patterns: Vec<Ast>| {
            let mut changed = function.clone();
            if let FunctionArguments::List(arguments) = &mut changed.args {
                let patterns = patterns.into_iter().map(|pattern| FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern)));
                arguments.args = std::iter::once(value.clone()).chain(patterns).collect();
            }
            Ast::Function(changed)
        };
        self.values(&patterns, &format!("{name}({value}, …)"), !positive, within, &|patterns| {
            rebuild(with(patterns))
        });
    }

    /// A pattern that everything matches.
    fn anything(&mut self, whole: &Ast, value: &Ast, positive: bool, within: usize, rebuild: Rebuild<'_>) {
        let known = Ast::IsNotNull(group(value.clone()));
        self.add(rebuild(known), format!("any value instead of {}", quoted(whole)), positive, within);
    }

    fn regex(&mut self, value: &Ast, pattern: &Ast, positive: bool, within: usize, rebuild: Rebuild<'_>) {
        let Ast::Value(literal) = pattern else { return };
        let Value::SingleQuotedString(text) = &literal.value else { return };
        let (flags, alternatives) = alternatives(text);
        if alternatives.len() < 2 {
            return;
        }
        for (index, alternative) in alternatives.iter().enumerate().take(VALUES_MAX) {
            let mut rest = alternatives.clone();
            rest.remove(index);
            let text = Value::SingleQuotedString(format!("{flags}{}", rest.join("|")));
            let change = format!("without the alternative `{alternative}` of the pattern of {}", quoted(value));
            self.add(rebuild(Ast::value(text)), change, !positive, within);
        }
    }

    /// Moves a bound by one, outwards and inwards.
    fn bound(&mut self, of: &Ast, bound: &Ast, outwards: i64, positive: bool, within: usize, rebuild: Rebuild<'_>) {
        // The same column of a named table, too.
        if of.to_string().rsplit('.').next().is_some_and(|column| CLASSES.contains(&column)) {
            return;
        }
        let Ok(number) = bound.to_string().parse::<i64>() else { return };
        for (step, widens) in [(outwards, true), (-outwards, false)] {
            let moved = number.checked_add(step).and_then(|moved| expression(&moved.to_string()));
            let Some(moved) = moved else { continue };
            let change = format!("bound {number} of {} moved to {moved}", quoted(of));
            self.add(rebuild(moved), change, widens == positive, within);
        }
    }
}

/// Flags in front of a regular expression, and its alternatives outside of all brackets.
fn alternatives(pattern: &str) -> (&str, Vec<&str>) {
    let flags = pattern
        .strip_prefix("(?")
        .and_then(|rest| rest.find(')').map(|end| &rest[..end]))
        .filter(|flags| flags.chars().all(|flag| flag.is_ascii_alphabetic() || flag == '-'))
        .map_or(0, |flags| flags.len() + 3);
    let (flags, body) = pattern.split_at(flags);
    let (mut parts, mut start, mut depth, mut class, mut escaped) = (Vec::new(), 0, 0_u32, false, false);
    for (at, sign) in body.char_indices() {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' if !class => class = true,
            ']' => class = false,
            _ if class => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                parts.push(&body[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[start..]);
    (flags, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `change => sql` of all mutants but those that drop a whole condition; `+` for wider.
    fn shown(condition: &str) -> Vec<String> {
        let found = conditions(&format!("SELECT * FROM audit WHERE {condition}")).expect("a filter");
        let mutants = found.iter().flat_map(|condition| &condition.mutants);
        let show = |mutant: &Mutant| {
            let sign = if mutant.wider { '+' } else { '-' };
            Some(format!("{sign} {} => {}", mutant.change, mutant.sql.as_ref()?))
        };
        mutants.filter_map(show).collect()
    }

    #[test]
    fn the_conditions_are_those_of_the_author() {
        let sql = "SELECT *, 1 AS x FROM audit WHERE a = 1 AND (b = 2 AND c BETWEEN 1 AND 2) AND (d OR e)";
        let found = conditions(sql).expect("a filter");
        let texts: Vec<&str> = found.iter().map(|condition| condition.sql.as_str()).collect();
        assert_eq!(texts, ["a = 1", "b = 2", "c BETWEEN 1 AND 2", "d OR e"]);
        assert!(found.iter().all(|condition| condition.mutants[0].sql.is_none()));
        assert_eq!(conditions("SELECT * FROM audit"), Some(Vec::new()));
        for other in ["SELECT 1 UNION SELECT 2", "SELECT * FROM (SELECT * FROM audit WHERE a) WHERE b", "SELECT"] {
            assert_eq!(conditions(other), None);
        }
        assert_eq!(spelling("( a   =  1 )").as_deref(), Some("a = 1"));
    }

    #[test]
    fn alternatives_are_left_out_one_at_a_time() {
        assert_eq!(
            shown("(a IS NULL OR a = 'x')"),
            ["- without `a IS NULL` => a = 'x'", "- without `a = 'x'` => a IS NULL"]
        );
        assert_eq!(
            shown("v IN ('a', 'b')"),
            ["- without `'a'` in `v IN` => v IN ('b')", "- without `'b'` in `v IN` => v IN ('a')"]
        );
        assert_eq!(shown("v NOT IN ('a', 'b')")[0], "+ without `'a'` in `v NOT IN` => v NOT IN ('b')");
        assert_eq!(
            shown("any_like(images, 'a%', 'b%')")[1],
            "- without `'b%'` in `any_like(images, …)` => any_like(images, 'a%')"
        );
        assert_eq!(shown("like_any(u, reference('x'))"), Vec::<String>::new());
        assert_eq!(shown("any_container(containers, 'field', 'value')"), Vec::<String>::new());
        assert_eq!(shown(&format!("v IN ({})", vec!["'a'"; 40].join(", "))).len(), VALUES_MAX);
    }

    #[test]
    fn what_an_exclusion_loses_makes_it_wider_and_the_detection_narrower() {
        assert_eq!(
            shown("(a IS NOT NULL AND u LIKE 's:%') IS NOT TRUE"),
            [
                "- without `a IS NOT NULL` => (u LIKE 's:%') IS NOT TRUE",
                "- without `u LIKE 's:%'` => (a IS NOT NULL) IS NOT TRUE",
                "- any value instead of `u LIKE 's:%'` => ((a IS NOT NULL) AND (u IS NOT NULL)) IS NOT TRUE",
            ]
        );
        assert_eq!(shown("NOT (a OR b)")[0], "+ without `a` => NOT b");
    }

    #[test]
    fn changes_of_equal_words_are_numbered() {
        let found = shown("(a AND b) OR (a AND c)");
        let changes: Vec<&str> = found.iter().filter_map(|line| line.split(" => ").next()).collect();
        assert!(changes.contains(&"+ without `a`") && changes.contains(&"+ without `a` (2)"), "{changes:?}");
    }

    #[test]
    fn bounds_move_by_one_but_for_classes() {
        assert_eq!(shown("n BETWEEN 2 AND 3").len(), 4);
        assert_eq!(
            shown("n > 10"),
            ["+ bound 10 of `n` moved to 9 => n > 9", "- bound 10 of `n` moved to 11 => n > 11"]
        );
        assert_eq!(shown("n <= 10")[0], "+ bound 10 of `n` moved to 11 => n <= 11");
        assert_eq!(shown("response_code BETWEEN 200 AND 299"), Vec::<String>::new());
        assert_eq!(shown("a.response_code > 299"), Vec::<String>::new());
    }

    #[test]
    fn regular_expressions_lose_alternatives_outside_of_brackets() {
        assert_eq!(alternatives(r"(?i)\ba(b|c)|[|]d|e\|f"), ("(?i)", vec![r"\ba(b|c)", "[|]d", r"e\|f"]));
        assert_eq!(alternatives("(?:a|b)"), ("", vec!["(?:a|b)"]));
        let found = shown("c ~ '(?i)a|b'");
        assert_eq!(found[0], "+ any value instead of `c ~ '(?i)a|b'` => c IS NOT NULL");
        assert_eq!(found[1], "- without the alternative `a` of the pattern of `c` => c ~ '(?i)b'");
    }

    #[test]
    fn a_change_knows_the_part_that_it_is_in() {
        let found = conditions("SELECT * FROM audit WHERE (a IN (1, 2) AND b) OR c").expect("a filter");
        let mutants = &found[0].mutants;
        let within = |change: &str| {
            let mutant = mutants.iter().find(|mutant| mutant.change.starts_with(change)).expect("made");
            mutant.within.and_then(|index| mutants.get(index)).map(|mutant| mutant.change.clone())
        };
        assert_eq!(within("without `1`").as_deref(), Some("without `a IN (1, 2)`"));
        assert_eq!(within("without `a IN (1, 2)`").as_deref(), Some("without `a IN (1, 2) AND b`"));
        assert_eq!(within("without `c`").as_deref(), Some("dropped"));
        assert_eq!(within("dropped"), None);
    }
}
