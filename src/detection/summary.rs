//! The one line that an alert says: text with `{column}` placeholders. `{{` and `}}` stand for the braces themselves.

use std::sync::Arc;

/// A parsed summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(Placeholder),
}

/// A placeholder and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    pub column: Arc<str>,
    /// Characters before it in the text.
    pub offset: usize,
}

/// A brace without its partner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SummaryError {
    pub message: String,
    /// Characters before it in the text.
    pub offset: usize,
}

impl Summary {
    /// Reads the text; whether its columns exist is the caller's to check.
    pub fn parse(text: &str) -> Result<Summary, SummaryError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut chars = text.chars().enumerate().peekable();
        while let Some((offset, c)) = chars.next() {
            match c {
                '{' | '}' if chars.next_if(|(_, next)| *next == c).is_some() => plain.push(c),
                '{' => {
                    let mut column = String::new();
                    loop {
                        match chars.next() {
                            Some((_, '}')) => break,
                            Some((_, c)) if c != '{' => column.push(c),
                            _ => return Err(SummaryError { message: "'{' is never closed".to_owned(), offset }),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Column(Placeholder { column: column.trim().into(), offset: offset + 1 }));
                }
                '}' => return Err(SummaryError { message: "'}' without '{'".to_owned(), offset }),
                c => plain.push(c),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Summary { parts })
    }

    /// The columns that it names, in order.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(placeholder) => Some(placeholder),
            Part::Text(_) => None,
        })
    }

    /// The line, with each column replaced by what `value` says, `?` where that is nothing.
    pub fn render(&self, mut value: impl FnMut(&str) -> Option<String>) -> String {
        let mut line = String::new();
        // `{namespace}/{name}` of an object without a namespace is just its name.
        let mut dropped = false;
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(if dropped { text.strip_prefix('/').unwrap_or(text) } else { text }),
                Part::Column(placeholder) => {
                    let text = value(&placeholder.column);
                    dropped = &*placeholder.column == "namespace" && text.as_deref().is_none_or(|text| text == "-");
                    match text {
                        _ if dropped => {}
                        Some(text) => line.push_str(&text),
                        None => line.push('?'),
                    }
                    continue;
                }
            }
            dropped = false;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_values_and_doubled_braces_stay() {
        let summary = Summary::parse("{user_name} set {{x}} on { name }").expect("valid");
        let columns: Vec<(&str, usize)> =
            summary.placeholders().map(|placeholder| (&*placeholder.column, placeholder.offset)).collect();
        assert_eq!(columns, [("user_name", 1), ("name", 26)]);
        let line = summary.render(|column| (column == "name").then(|| "web".to_owned()));
        assert_eq!(line, "? set {x} on web");
    }

    #[test]
    fn a_lonely_brace_is_an_error_at_its_place() {
        assert_eq!(Summary::parse("ab {c").expect_err("open").offset, 3);
        assert_eq!(Summary::parse("ab} c").expect_err("close").offset, 2);
    }
}
