//! Mistakes in the configuration as people read them: where, what, the line, and how to mend it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::tree::Origin;

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub message: String,
    pub help: Option<String>,
    /// `file:line:column`, or the variable or flag.
    pub place: String,
    /// The line with a mark under the mistake, where a file is at fault.
    pub snippet: Option<String>,
}

impl Problem {
    /// A mistake at `origin`; `hide` keeps the text under it out of the snippet, as it may be a secret.
    pub fn new(origin: &Origin, message: String, help: Option<String>, source: Option<&Source>, hide: bool) -> Problem {
        let (place, snippet) = match (origin, source) {
            (Origin::File(span), Some(source)) => {
                let spot = Spot::of(&source.text, span);
                let place = format!("{}:{}:{}", source.path.display(), spot.line, spot.column);
                (place, Some(spot.snippet(hide)))
            }
            (Origin::File(_), None) | (Origin::Default, _) => ("configuration".to_owned(), None),
            (Origin::Environment(name), _) => (format!("environment variable {name}"), None),
            (Origin::Flag(name), _) => (format!("flag {name}"), None),
        };
        Problem { origin: origin.clone(), message, help, place, snippet }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        match &self.snippet {
            Some(snippet) => write!(f, "\n{snippet}"),
            None => Ok(()),
        }
    }
}

/// A place in a text: 1-based line and column, counted in characters.
struct Spot<'a> {
    line: usize,
    column: usize,
    before: &'a str,
    marked: &'a str,
    after: &'a str,
}

impl<'a> Spot<'a> {
    fn of(text: &'a str, span: &Range<usize>) -> Spot<'a> {
        let start = floor(text, span.start);
        let above = text.get(..start).unwrap_or_default();
        let line_start = above.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text.get(start..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| start + at);
        let end = floor(text, span.end).clamp(start, line_end);
        let before = text.get(line_start..start).unwrap_or_default();
        Spot {
            line: above.matches('\n').count() + 1,
            column: before.chars().count() + 1,
            before,
            marked: text.get(start..end).unwrap_or_default(),
            after: text.get(end..line_end).unwrap_or_default().trim(),
        }
    }

    /// The line with a mark under the mistake. Text beside it is left out unless it is plainly no value, as a secret may
    /// stand on the same line.
    fn snippet(&self, hide: bool) -> String {
        let before = if self.before.contains(['"', '\'']) { "… " } else { self.before };
        let marked = if hide { "…" } else { self.marked };
        let after = if self.after.is_empty() || self.after.starts_with('#') { "" } else { " …" };
        let number = self.line.to_string();
        let gap = " ".repeat(number.len());
        let pad: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let mark = "^".repeat(marked.chars().count().max(1));
        format!("{gap} |\n{number} | {before}{marked}{after}\n{gap} | {pad}{mark}")
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}
