//! Fills `{column}` placeholders for people: one line, no control characters, bounded.

use std::sync::Arc;

use serde_json::Value;

/// One value, and the whole line, in characters.
const VALUE_CHARS_MAX: usize = 256;
const LINE_CHARS_MAX: usize = 2000;
/// Elements of a list that are shown.
const ELEMENTS_MAX: usize = 10;

/// A summary split at its placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Arc<str>),
}

impl Template {
    /// Splits a summary. A brace that is never closed is text: the linter of detections complains, not this.
    pub fn new(summary: &str) -> Template {
        let mut parts = Vec::new();
        let mut rest = summary;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else { break };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Field(name.trim().into()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Template(parts)
    }

    /// Names of the placeholders, with repeats.
    pub fn fields(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The line with every placeholder replaced by what `show` gives for its name.
    pub fn fill(&self, mut show: impl FnMut(&str) -> String) -> String {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field(name) => line.push_str(&show(name)),
            }
        }
        cap(&line, LINE_CHARS_MAX).into_owned()
    }
}

/// One value for people: null and the empty list as `-`, lists joined with `, `, control characters escaped.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "''".into(),
        Value::String(text) => line(text),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => {
            let mut shown: Vec<String> = items.iter().take(ELEMENTS_MAX).map(show).collect();
            if let Some(more @ 1..) = items.len().checked_sub(ELEMENTS_MAX) {
                shown.push(format!("… ({more} more)"));
            }
            shown.join(", ")
        }
        other => line(&other.to_string()),
    }
}

fn line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(VALUE_CHARS_MAX));
    for c in cap(text, VALUE_CHARS_MAX).chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// At most `chars_max` characters, an ellipsis where something was cut off.
pub fn cap(text: &str, chars_max: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}

/// Characters that reorder or hide what stands around them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_are_filled_and_broken_ones_stay() {
        let template = Template::new("{user} mounted { paths } in {ns");
        assert_eq!(template.fields().map(|name| &**name).collect::<Vec<_>>(), ["user", "paths"]);
        assert_eq!(template.fill(|name| format!("<{name}>")), "<user> mounted <paths> in {ns");
        assert_eq!(Template::new("").fill(|_| "x".into()), "");
    }

    #[test]
    fn values_are_shown_on_one_line() {
        assert_eq!(show(&Value::Null), "-");
        assert_eq!(show(&json!(["/etc", null, "/var"])), "/etc, -, /var");
        assert_eq!(show(&json!((0..13).collect::<Vec<_>>())), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (3 more)");
        assert_eq!(show(&json!("a\u{1b}[31m\n\u{202e}b")), "a\\u{1b}[31m\\n\\u{202e}b");
        assert_eq!(show(&json!("ü".repeat(300))).chars().count(), 257);
        assert_eq!(show(&json!(true)), "true");
        assert_eq!(show(&json!("")), "''");
    }
}
