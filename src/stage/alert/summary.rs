//! How the values in a summary look to people: one line, no control characters, bounded.

use serde_json::Value;

use crate::detection::Summary;

/// One value, and the whole line, in characters.
const VALUE_CHARS_MAX: usize = 256;
const LINE_CHARS_MAX: usize = 2000;
/// Elements of a list that are shown.
const ELEMENTS_MAX: usize = 10;

/// The summary's line; `shown` gives the text of a placeholder.
pub fn fill(summary: &Summary, shown: impl FnMut(&str) -> Option<String>) -> String {
    cap(&summary.render(shown), LINE_CHARS_MAX).into_owned()
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
