//! A condition on its way to SQL: conditions of two values, in which what is not there is simply not so.
//!
//! Sigma and Falco know no null: a comparison with an absent field is false, and its negation true. In SQL it is null
//! both times. AND and OR make no difference where a row has to be *true* to count, so only NOT needs care: it is
//! written `(…) IS NOT TRUE`.

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    /// Always or never.
    Constant(bool),
    /// A comparison as SQL that needs no brackets beside AND.
    Atom(String),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

impl Expr {
    pub(super) fn atom(sql: impl Into<String>) -> Expr {
        Expr::Atom(sql.into())
    }

    pub(super) fn all(parts: impl IntoIterator<Item = Expr>) -> Expr {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Expr::Constant(true) => {}
                Expr::Constant(false) => return Expr::Constant(false),
                Expr::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        dedup(&mut flat);
        match flat.len() {
            0 => Expr::Constant(true),
            1 => flat.remove(0),
            _ => Expr::All(flat),
        }
    }

    pub(super) fn any(parts: impl IntoIterator<Item = Expr>) -> Expr {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Expr::Constant(false) => {}
                Expr::Constant(true) => return Expr::Constant(true),
                Expr::Any(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        dedup(&mut flat);
        match flat.len() {
            0 => Expr::Constant(false),
            1 => flat.remove(0),
            _ => Expr::Any(flat),
        }
    }

    pub(super) fn not(inner: Expr) -> Expr {
        match inner {
            Expr::Constant(value) => Expr::Constant(!value),
            // Both count as true for the same rows, which is all that a row is asked.
            Expr::Not(inner) => *inner,
            other => Expr::Not(Box::new(other)),
        }
    }

    /// At least so many of them.
    pub(super) fn at_least(number: u64, parts: Vec<Expr>) -> Expr {
        if number <= 1 {
            return if number == 0 { Expr::Constant(true) } else { Expr::any(parts) };
        }
        if number > parts.len() as u64 {
            return Expr::Constant(false);
        }
        if number == parts.len() as u64 {
            return Expr::all(parts);
        }
        let counted: Vec<String> =
            parts.iter().map(|part| format!("CASE WHEN {} THEN 1 ELSE 0 END", part.sql())).collect();
        Expr::Atom(format!("({}) >= {number}", counted.join(" + ")))
    }

    /// As SQL on one line.
    pub(super) fn sql(&self) -> String {
        match self {
            Expr::Constant(true) => "TRUE".to_owned(),
            Expr::Constant(false) => "FALSE".to_owned(),
            Expr::Atom(sql) => sql.clone(),
            Expr::Not(inner) => format!("({}) IS NOT TRUE", inner.sql()),
            Expr::All(parts) => parts.iter().map(Expr::bracketed).collect::<Vec<_>>().join(" AND "),
            Expr::Any(parts) => parts.iter().map(Expr::bracketed).collect::<Vec<_>>().join(" OR "),
        }
    }

    fn bracketed(&self) -> String {
        match self {
            Expr::All(_) | Expr::Any(_) => format!("({})", self.sql()),
            _ => self.sql(),
        }
    }

    /// The whole query, a line for each condition that must hold.
    pub(super) fn query(&self) -> String {
        let lines: Vec<String> = match self {
            Expr::Constant(true) => return "SELECT * FROM audit".to_owned(),
            Expr::All(parts) => parts.iter().map(Expr::bracketed).collect(),
            other => vec![other.sql()],
        };
        format!("SELECT * FROM audit\nWHERE {}", lines.join("\n  AND "))
    }
}

fn dedup(parts: &mut Vec<Expr>) {
    let mut kept: Vec<Expr> = Vec::with_capacity(parts.len());
    for part in parts.drain(..) {
        if !kept.contains(&part) {
            kept.push(part);
        }
    }
    *parts = kept;
}

/// A text as SQL writes it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Several texts, between commas.
pub(super) fn literals<T: AsRef<str>>(texts: &[T]) -> String {
    texts.iter().map(|text| literal(text.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negations_hold_for_what_is_not_there() {
        let a = || Expr::atom("a = 1");
        let b = || Expr::atom("b = 2");
        let nested = Expr::all([a(), Expr::not(Expr::any([a(), b()])), Expr::any([a(), Expr::all([a(), b()])])]);
        assert_eq!(nested.sql(), "a = 1 AND (a = 1 OR b = 2) IS NOT TRUE AND (a = 1 OR (a = 1 AND b = 2))");
        assert_eq!(Expr::not(Expr::not(a())), a());
    }

    #[test]
    fn what_is_always_or_never_so_is_left_out() {
        let a = || Expr::atom("a");
        assert_eq!(Expr::all([a(), Expr::Constant(true), a()]), a());
        assert_eq!(Expr::all([a(), Expr::not(Expr::Constant(true))]), Expr::Constant(false));
        assert_eq!(Expr::any([a(), Expr::Constant(false)]), a());
        assert_eq!(Expr::any([a(), Expr::Constant(true)]).query(), "SELECT * FROM audit");
        assert_eq!(Expr::any([]), Expr::Constant(false));
    }

    #[test]
    fn some_of_several_are_counted() {
        let parts = || vec![Expr::atom("a"), Expr::atom("b"), Expr::atom("c")];
        assert_eq!(Expr::at_least(1, parts()).sql(), "a OR b OR c");
        assert_eq!(Expr::at_least(3, parts()).sql(), "a AND b AND c");
        assert_eq!(Expr::at_least(4, parts()), Expr::Constant(false));
        let two = Expr::at_least(2, parts()).sql();
        assert!(two.ends_with(">= 2") && two.matches("CASE WHEN").count() == 3, "{two}");
    }
}
