//! Writes JSON at the end of a buffer: for forms that carry an event in other words, and for events that are made up.

use super::Text;

/// One JSON object at the end of a buffer.
#[derive(Debug)]
pub struct Object<'b> {
    /// Where it is written.
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

    /// Starts a member, whose name needs no escapes; its value must follow in `out`.
    pub fn key(&mut self, name: &str) {
        self.raw_key(name.as_bytes());
    }

    /// Starts a member whose name is the inside of a string literal; its value must follow in `out`.
    pub fn raw_key(&mut self, name: &[u8]) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\":");
    }

    /// A member whose value is JSON already, if there is one.
    pub fn raw<'v>(&mut self, name: &str, value: impl Into<Option<&'v [u8]>>) {
        if let Some(value) = value.into() {
            self.key(name);
            self.out.extend_from_slice(value);
        }
    }

    /// A member whose value is a string literal of the input, if there is one.
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

    /// A member whose value is an object.
    pub fn object(&mut self, name: &str) -> Object<'_> {
        self.key(name);
        Object::open(self.out)
    }
}

/// Copies a string literal as it stood.
pub fn literal(out: &mut Vec<u8>, text: Text<'_>) {
    out.push(b'"');
    out.extend_from_slice(text.raw());
    out.push(b'"');
}

/// Appends a text as a string literal.
pub fn string(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.push(b'"');
    escape(out, text.as_ref());
    out.push(b'"');
}

/// Appends the inside of a string literal.
pub fn escape(out: &mut Vec<u8>, text: &[u8]) {
    escape_where(out, text, |byte| matches!(byte, b'"' | b'\\' | 0..0x20));
}

/// The same with a choice of what is escaped; quotes, backslashes and control characters have to be among it.
pub fn escape_where(out: &mut Vec<u8>, text: &[u8], is_special: impl Fn(&u8) -> bool) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(&is_special) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => {
                let digit = |number: u8| b"0123456789abcdef"[usize::from(number & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(*byte)]);
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_back() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.str("a", "q\"b\\c\n\u{1}\u{1f}é");
        object.text("b", Some(Text::plain("x\\u0041")));
        object.raw("c", b"[1,2]".as_slice());
        object.raw("absent", None);
        object.text("absent", None);
        object.integer("d", -3);
        object.object("e").close();
        object.close();
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let expected = serde_json::json!({"a": "q\"b\\c\n\u{1}\u{1f}é", "b": "xA", "c": [1, 2], "d": -3, "e": {}});
        assert_eq!(value, expected);
    }
}
