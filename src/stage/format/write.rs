//! Writes canonical JSON text out of spans, for the forms that carry an event in other words.

use crate::json::Text;

/// Writes one JSON object; keys are ours, values are spans of the input or plain text.
#[derive(Debug)]
pub(super) struct Object<'b> {
    pub out: &'b mut Vec<u8>,
    empty: bool,
}

impl<'b> Object<'b> {
    /// Opens an object at the end of the buffer.
    pub fn open(out: &'b mut Vec<u8>) -> Object<'b> {
        out.push(b'{');
        Object { out, empty: true }
    }

    /// Closes it.
    pub fn close(self) {
        self.out.push(b'}');
    }

    /// Starts a member; its value must follow in `out`.
    pub fn key(&mut self, name: &str) {
        self.raw_key(name.as_bytes());
    }

    /// Starts a member whose name is the inside of a string literal.
    pub fn raw_key(&mut self, name: &[u8]) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\":");
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, name: &str, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.key(name);
            self.out.extend_from_slice(value);
        }
    }

    /// A member whose value is a string literal of the input.
    pub fn text(&mut self, name: &str, value: Option<Text<'_>>) {
        if let Some(value) = value {
            self.key(name);
            literal(self.out, value);
        }
    }

    /// A member whose value is plain text.
    pub fn str(&mut self, name: &str, value: &str) {
        self.key(name);
        string(self.out, value);
    }

    /// A member whose value is a whole number.
    pub fn integer(&mut self, name: &str, value: i64) {
        self.key(name);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }
}

/// Copies a string literal as it stood.
pub(super) fn literal(out: &mut Vec<u8>, text: Text<'_>) {
    out.push(b'"');
    out.extend_from_slice(text.raw());
    out.push(b'"');
}

/// Writes plain text as a string literal.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Percent-encodes text as a value of a query string.
pub(super) fn query_value(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_a_parser_reads_back() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.str("a", "q\"b\\c\n\u{1}é");
        object.text("b", Some(Text::plain("x\\u0041")));
        object.raw("c", Some(b"[1,2]"));
        object.raw("absent", None);
        object.integer("d", -3);
        object.close();
        let value: serde_json::Value = serde_json::from_slice(&out).expect("valid");
        assert_eq!(value, serde_json::json!({"a": "q\"b\\c\n\u{1}é", "b": "xA", "c": [1, 2], "d": -3}));
    }

    #[test]
    fn query_values_are_encoded() {
        let mut query = String::new();
        query_value(&mut query, "a b&c=é");
        assert_eq!(query, "a%20b%26c%3D%C3%A9");
    }
}
