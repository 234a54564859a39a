//! Writes YAML for people to go on with: block style for what they read, one line for what they only keep.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: usize = 116;

/// A value below a key or a dash, each level two spaces deeper than `indent`.
pub(super) fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let _ = write!(out, "\n{:indent$}{}:", "", scalar(key));
                block(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let _ = write!(out, "\n{:indent$}-", "");
                block(item, indent + 2, out);
            }
        }
        Value::String(text) => {
            let _ = write!(out, " {}", scalar(text));
        }
        other => {
            let _ = write!(out, " {other}");
        }
    }
}

/// A value on one line.
pub(super) fn flow(value: &Value) -> String {
    quotable(&value.to_string())
}

/// A text, plain where no reader of YAML could take it for something else.
pub(super) fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.'))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { quotable(&Value::from(text).to_string()) }
}

/// JSON is YAML but for a few characters that YAML wants escaped.
fn quotable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Words in lines of a readable width, each behind `indent`.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let value = json!({
            "a": {"b": [], "c": {}, "d": [1, -2.5, true, null, "true", "no", "1", "", "a: b", "# x", "é\u{85}\u{2028}\n\t\"\\"]},
            "weird key: {": [{"x": 1, "y": [["z"]]}, "2026-01-01", "~", "=", "0x1f", "'", "a\u{7f}b\u{1}"],
        });
        let mut text = String::from("value:");
        block(&value, 2, &mut text);
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read["value"], value, "{text}");
        let read: Value = serde_saphyr::from_str(&format!("value: {}", flow(&value))).expect("YAML");
        assert_eq!(read["value"], value);
    }

    #[test]
    fn long_texts_are_folded() {
        let text = "word ".repeat(60);
        let lines = wrapped(&text, "  ");
        assert!(
            lines.lines().count() > 1 && lines.lines().all(|line| line.len() <= WIDTH && line.starts_with("  word"))
        );
    }
}
