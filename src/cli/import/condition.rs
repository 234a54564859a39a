//! Conditions as Sigma writes them: `selection and not 1 of filter_*`.
//!
//! `not` binds tightest, then `and`, then `or`. The words are not case-sensitive; names are.

use super::expr::Expr;
use super::grammar::Grammar;

/// Reads a condition; `named` gives what a detection of this name stands for.
///
/// # Errors
/// Says what cannot be read, or which name is nobody's.
pub(super) fn parse(text: &str, names: &[&str], named: &mut dyn FnMut(&str) -> Expr) -> Result<Expr, String> {
    if text.contains('|') {
        return Err("what follows '|' counts events over a time, which one event cannot decide".to_owned());
    }
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0, names, named };
    let expr = parser.or(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(word) => Err(format!("'{word}' is not expected there")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    names: &'a [&'a str],
    named: &'a mut dyn FnMut(&str) -> Expr,
}

impl Grammar for Parser<'_> {
    fn word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn primary(&mut self, depth: usize) -> Result<Expr, String> {
        if self.word("(") {
            let inner = self.or(depth + 1)?;
            return if self.word(")") { Ok(inner) } else { Err("a bracket is never closed".to_owned()) };
        }
        let word = self.next().ok_or("it ends too early")?;
        if self.word("of") {
            return self.some_of(word);
        }
        if matches!(word.to_ascii_lowercase().as_str(), "and" | "or" | "not" | "of" | ")") {
            return Err(format!("'{word}' is not expected there"));
        }
        if !self.names.contains(&word) {
            return Err(format!("there is no detection '{word}'"));
        }
        Ok((self.named)(word))
    }
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek();
        self.at += 1;
        word
    }

    fn some_of(&mut self, number: &str) -> Result<Expr, String> {
        let pattern = self.next().ok_or("'of' wants the names of detections")?;
        let all = pattern.eq_ignore_ascii_case("them");
        // Names that begin with an underscore are left out of `them`.
        let wanted = |name: &&&str| if all { !name.starts_with('_') } else { fits(pattern, name) };
        let names: Vec<&str> = self.names.iter().filter(wanted).copied().collect();
        if names.is_empty() {
            return Err(format!("no detection is called like '{pattern}'"));
        }
        let parts: Vec<Expr> = names.into_iter().map(|name| (self.named)(name)).collect();
        match number.to_ascii_lowercase().as_str() {
            "all" => Ok(Expr::all(parts)),
            "any" => Ok(Expr::any(parts)),
            digits => match digits.parse() {
                Ok(number) => Ok(Expr::at_least(number, parts)),
                Err(_) => Err(format!("'{number} of' is no number, 'all' or 'any'")),
            },
        }
    }
}

/// Whether a name fits a pattern with `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut middle: Vec<&str> = parts.collect();
    let Some(last) = middle.pop() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let names = ["selection", "sel_a", "sel_b", "filter", "_hidden"];
        let mut named = |name: &str| Expr::atom(name);
        parse(text, &names, &mut named).map_or_else(|error| format!("error: {error}"), |expr| expr.sql())
    }

    #[test]
    fn not_binds_tighter_than_and_and_than_or() {
        assert_eq!(read("selection or sel_a and not filter"), "selection OR (sel_a AND (filter) IS NOT TRUE)");
        assert_eq!(read("(selection OR sel_a) AND filter"), "(selection OR sel_a) AND filter");
        assert_eq!(read("not not filter"), "filter");
    }

    #[test]
    fn some_of_several_are_found_by_their_names() {
        assert_eq!(read("1 of sel_*"), "sel_a OR sel_b");
        assert_eq!(read("all of sel*"), "selection AND sel_a AND sel_b");
        assert_eq!(read("all of them"), "selection AND sel_a AND sel_b AND filter");
        assert_eq!(read("any of *_b"), "sel_b");
        assert_eq!(read("2 of sel_*"), "sel_a AND sel_b");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (text, reason) in [
            ("selection and", "ends too early"),
            ("selection filter", "'filter' is not expected"),
            ("(selection", "never closed"),
            ("selection)", "')' is not expected"),
            ("selecton", "no detection 'selecton'"),
            ("1 of nothing*", "called like"),
            ("x of them", "no number"),
            ("selection | count() > 5", "counts events"),
            ("", "ends too early"),
        ] {
            assert!(read(text).contains(reason), "{text}: {}", read(text));
        }
        assert!(read(&"not ".repeat(1000)).contains("nested"));
        assert!(read(&"(".repeat(1000)).contains("nested"));
    }
}
