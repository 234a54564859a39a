//! Appends JSON to a buffer.

/// One JSON object at the end of a buffer.
#[derive(Debug)]
pub(super) struct Object<'b> {
    pub out: &'b mut Vec<u8>,
    empty: bool,
}

impl<'b> Object<'b> {
    pub fn open(out: &'b mut Vec<u8>) -> Object<'b> {
        out.push(b'{');
        Object { out, empty: true }
    }

    pub fn close(self) {
        self.out.push(b'}');
    }

    /// Starts a member, whose name needs no escapes; its value must follow in `out`.
    pub fn key(&mut self, name: &[u8]) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b"\":");
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, name: &str, value: &[u8]) {
        self.key(name.as_bytes());
        self.out.extend_from_slice(value);
    }

    /// A member whose value is a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.key(name.as_bytes());
        string(self.out, value.as_bytes());
    }

    /// A member whose value is an object.
    pub fn object(&mut self, name: &str) -> Object<'_> {
        self.key(name.as_bytes());
        Object::open(self.out)
    }
}

/// Appends a text as a string literal.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Appends the inside of a string literal.
pub(super) fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
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
        object.text("a", "q\"b\\c\n\u{1}\u{1f}é");
        object.raw("b", b"[1]");
        object.object("c").close();
        object.close();
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value, serde_json::json!({"a": "q\"b\\c\n\u{1}\u{1f}é", "b": [1], "c": {}}));
    }
}
