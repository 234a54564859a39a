//! Walks one JSON text once; see the module's contract in `json`.

use std::borrow::Cow;

use super::scan;

/// Why a text cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text ends inside a value.
    #[error("the JSON text ends too early")]
    Cut,
    /// Something that JSON does not allow stands at this byte.
    #[error("not JSON at byte {at}")]
    Malformed { at: usize },
}

/// What kind of value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

/// The inside of a string literal as it stands in the text, escapes and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// A text without escapes.
    pub fn plain(text: &'a str) -> Text<'a> {
        Text { raw: text.as_bytes(), escaped: text.contains('\\') }
    }

    /// The bytes between the quotes, not unescaped. Equal raw bytes are equal texts; the reverse does not hold.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether the text has no escapes, so that `raw` is what it says.
    pub fn is_plain(&self) -> bool {
        !self.escaped
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The text itself. Lone surrogates and bytes that are not UTF-8 become U+FFFD: a broken name must not hide an event.
    pub fn decode(&self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { text_of(self.raw) }
    }

    /// Whether the text equals `other`.
    pub fn is(&self, other: &str) -> bool {
        if self.escaped { self.decode() == other } else { self.raw == other.as_bytes() }
    }
}

/// Bytes as text; what is not UTF-8 becomes U+FFFD. Checking first and replacing only where that is needed is several
/// times faster than replacing as one goes.
pub fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

#[cold]
fn unescape(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'\\' {
            let run = memchr::memchr(b'\\', &raw[at..]).unwrap_or(raw.len() - at);
            out.extend_from_slice(&raw[at..at + run]);
            at += run;
            continue;
        }
        let escape = raw.get(at + 1).copied();
        at += 2;
        match escape {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'u') => {
                let (unit, used) = code_point(raw, at);
                let mut bytes = [0; 4];
                out.extend_from_slice(unit.encode_utf8(&mut bytes).as_bytes());
                at += used;
            }
            // `\"`, `\\`, `\/`, and whatever a sloppy writer escaped without need.
            Some(other) => out.push(other),
            None => {}
        }
    }
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// The character of a `\u` escape whose digits start at `at`, joined with a following low surrogate, and the bytes used.
fn code_point(raw: &[u8], at: usize) -> (char, usize) {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(raw.get(at..at + 4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(at) else { return (char::REPLACEMENT_CHARACTER, 0) };
    if (0xD800..0xDC00).contains(&first)
        && raw.get(at + 4..at + 6) == Some(b"\\u")
        && let Some(second) = unit(at + 6)
        && (0xDC00..0xE000).contains(&second)
    {
        let joined = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        return (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

/// The span of one whole value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    /// The value's text.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// A cursor over the value.
    pub fn cursor(&self) -> Cursor<'a> {
        Cursor::new(self.0)
    }

    pub fn kind(&self) -> Kind {
        kind_of(self.0.first().copied()).unwrap_or(Kind::Null)
    }

    /// The string that the value is, if it is one.
    pub fn text(&self) -> Option<Text<'a>> {
        self.cursor().text().ok().flatten()
    }
}

fn kind_of(byte: Option<u8>) -> Option<Kind> {
    Some(match byte? {
        b'{' => Kind::Object,
        b'[' => Kind::Array,
        b'"' => Kind::String,
        b't' | b'f' => Kind::Boolean,
        b'n' => Kind::Null,
        b'-' | b'0'..=b'9' => Kind::Number,
        _ => return None,
    })
}

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    buf: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(buf: &'a [u8]) -> Cursor<'a> {
        Cursor { buf, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Text that has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.buf.get(self.at..).unwrap_or_default()
    }

    #[inline]
    fn peek(&mut self) -> Result<u8, JsonError> {
        while let Some(&byte) = self.buf.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(JsonError::Cut)
    }

    /// What comes next.
    #[inline]
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        let byte = self.peek()?;
        kind_of(Some(byte)).ok_or(JsonError::Malformed { at: self.at })
    }

    /// Steps over the next value without reading it.
    #[inline]
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::Object | Kind::Array => {
                self.at = scan::container_end(self.buf, self.at).ok_or(JsonError::Cut)?;
            }
            Kind::String => {
                self.string()?;
            }
            _ => self.literal(),
        }
        Ok(())
    }

    /// The span of the next value.
    #[inline]
    pub fn raw(&mut self) -> Result<Raw<'a>, JsonError> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Ok(Raw(&self.buf[start..self.at]))
    }

    /// The next value if it is a string; consumed either way.
    #[inline]
    pub fn text(&mut self) -> Result<Option<Text<'a>>, JsonError> {
        if self.peek()? == b'"' {
            return self.string().map(Some);
        }
        self.skip()?;
        Ok(None)
    }

    /// The next value if it is a boolean; consumed either way.
    pub fn boolean(&mut self) -> Result<Option<bool>, JsonError> {
        Ok(match self.raw()?.bytes() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        })
    }

    /// The next value if it is a whole number (`80`, `80.0` and `8e1` are); consumed either way.
    pub fn integer(&mut self) -> Result<Option<i64>, JsonError> {
        let raw = self.raw()?;
        let Ok(text) = std::str::from_utf8(raw.bytes()) else { return Ok(None) };
        if raw.kind() != Kind::Number {
            return Ok(None);
        }
        Ok(text.parse::<i64>().ok().or_else(|| {
            let number: f64 = text.parse().ok()?;
            // Whole and within what a double holds exactly.
            (number.fract() == 0.0 && number.abs() < 9.0e15).then_some(number as i64)
        }))
    }

    /// Calls back for each key of the next value if it is an object. The callback reads the key's value with the cursor,
    /// or leaves it and it is skipped. Returns whether the value was an object; any other value is stepped over.
    #[inline]
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Cursor<'a>, Text<'a>) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.peek()? != b'{' {
            self.skip()?;
            return Ok(false);
        }
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(true);
        }
        loop {
            if self.peek()? != b'"' {
                return Err(JsonError::Malformed { at: self.at }.into());
            }
            let key = self.string()?;
            self.expect(b':')?;
            self.peek()?;
            let before = self.at;
            each(self, key)?;
            if self.at == before {
                self.skip()?;
            }
            if self.more(b'}')? {
                return Ok(true);
            }
        }
    }

    /// Calls back for each element of the next value if it is an array; as [`Cursor::object`].
    #[inline]
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut each: impl FnMut(&mut Cursor<'a>) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.peek()? != b'[' {
            self.skip()?;
            return Ok(false);
        }
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(true);
        }
        loop {
            self.peek()?;
            let before = self.at;
            each(self)?;
            if self.at == before {
                self.skip()?;
            }
            if self.more(b']')? {
                return Ok(true);
            }
        }
    }

    /// Whether nothing but white space follows.
    pub fn at_end(&mut self) -> bool {
        self.peek().is_err()
    }

    #[inline]
    fn string(&mut self) -> Result<Text<'a>, JsonError> {
        let start = self.at + 1;
        let (end, escaped) = scan::string_end(self.buf, start).ok_or(JsonError::Cut)?;
        self.at = end + 1;
        Ok(Text { raw: &self.buf[start..end], escaped })
    }

    fn literal(&mut self) {
        let rest = &self.buf[self.at..];
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b':'))
            .unwrap_or(rest.len());
        // At least one byte, so that a walk always moves on.
        self.at += length.max(1);
    }

    #[inline]
    fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.peek()? != wanted {
            return Err(JsonError::Malformed { at: self.at });
        }
        self.at += 1;
        Ok(())
    }

    /// Steps over a comma (false) or the closing bracket (true).
    #[inline]
    fn more(&mut self, close: u8) -> Result<bool, JsonError> {
        let byte = self.peek()?;
        if byte != b',' && byte != close {
            return Err(JsonError::Malformed { at: self.at });
        }
        self.at += 1;
        Ok(byte == close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text with the cursor alone into serde_json's tree.
    fn read(cursor: &mut Cursor<'_>) -> Result<serde_json::Value, JsonError> {
        use serde_json::Value;
        Ok(match cursor.kind()? {
            Kind::Object => {
                let mut map = serde_json::Map::new();
                cursor.object(|cursor, key| {
                    map.insert(key.decode().into_owned(), read(cursor)?);
                    Ok::<_, JsonError>(())
                })?;
                Value::Object(map)
            }
            Kind::Array => {
                let mut items = Vec::new();
                cursor.array(|cursor| {
                    items.push(read(cursor)?);
                    Ok::<_, JsonError>(())
                })?;
                Value::Array(items)
            }
            Kind::String => Value::String(cursor.text()?.expect("it is a string").decode().into_owned()),
            Kind::Number => cursor.integer()?.map_or(Value::Null, Value::from),
            Kind::Boolean => Value::from(cursor.boolean()?),
            Kind::Null => {
                cursor.skip()?;
                Value::Null
            }
        })
    }

    #[test]
    fn reads_what_a_plain_parser_reads() {
        for text in [
            r#"{"a":1,"b":[true,false,null,{"c":"d"}],"e":{}, "f" : [ ] }"#,
            r#"{"k\u00e9y":"a\"b\\c\/d\n\ud83d\ude00","":""}"#,
            "{\"s\":\"}{][\\\\\",\"t\":[[[\"]\"]]]}",
            "\n{\t\"a\" :\r\n-5}\n",
        ] {
            let expected: serde_json::Value = serde_json::from_str(text).expect("valid JSON");
            assert_eq!(read(&mut Cursor::new(text.as_bytes())), Ok(expected), "{text}");
        }
    }

    #[test]
    fn unread_values_are_skipped() {
        let mut names = Vec::new();
        let mut cursor = Cursor::new(br#"{"skip":{"name":"inner","x":["}"]},"name":"outer","n":12,"t":true}"#);
        let seen = cursor.object(|cursor, key| {
            if key.is("name") {
                names.push(cursor.text()?.map(|text| text.decode().into_owned()));
            }
            Ok::<_, JsonError>(())
        });
        assert_eq!(seen, Ok(true));
        assert_eq!(names, vec![Some("outer".to_owned())]);
        assert!(cursor.at_end());
    }

    #[test]
    fn every_cut_is_told_from_every_breakage() {
        let text = r#"{"a":{"b":"c"},"d":[1,"x\"y"]}"#;
        for length in 0..text.len() {
            let result = read(&mut Cursor::new(&text.as_bytes()[..length]));
            assert_eq!(result, Err(JsonError::Cut), "cut at {length}");
        }
        for text in [r#"{a:1}"#, r#"{"a" 1}"#, r#"{"a":1 "b":2}"#, r#"{"a":}"#, r#"[1 2]"#, "{,}"] {
            let result = read(&mut Cursor::new(text.as_bytes()));
            assert!(matches!(result, Err(JsonError::Malformed { .. })), "{text}: {result:?}");
        }
    }

    #[test]
    fn broken_text_is_replaced_not_refused() {
        let lone = Text { raw: br"x\ud800y\uZZZZ", escaped: true };
        assert_eq!(lone.decode(), "x\u{FFFD}y\u{FFFD}ZZZZ");
        let invalid = Text { raw: b"a\xffb", escaped: false };
        assert_eq!(invalid.decode(), "a\u{FFFD}b");
    }

    #[test]
    fn any_shape_is_stepped_over_where_another_is_wanted() {
        let mut cursor = Cursor::new(br#"{"a":[1],"b":"x","c":7.5}"#);
        let mut got = Vec::new();
        let done: Result<bool, JsonError> = cursor.object(|cursor, key| {
            match key.raw() {
                b"a" => got.push(cursor.text()?.is_none()),
                b"b" => got.push(cursor.array(|_| Ok::<_, JsonError>(()))?),
                _ => got.push(cursor.integer()?.is_none()),
            }
            Ok(())
        });
        assert_eq!(done, Ok(true));
        assert_eq!(got, vec![true, false, true]);
    }
}
