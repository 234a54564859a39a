//! YAML as a tree in which every key and value knows its place, so that one pass can report everything wrong with it.
//!
//! Parsing stops only where the text is no YAML at all; duplicate keys are kept for the checker to complain about.
//! [`locate`] maps a place inside a scalar (such as an SQL error) to the place in the file.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::Spanned;

use super::diagnostic::{Code, Diagnostic, Span};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

/// What a node holds. Maps keep the order of the file, and duplicates.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Debug, Clone)]
pub struct Key {
    pub span: Span,
    pub text: String,
}

impl Node {
    /// The value of a key, the first where it is given twice.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The elements of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Follows keys and indexes down; where a step does not exist, the last node that does.
    pub fn follow(&self, path: &[Step<'_>]) -> &Node {
        let mut node = self;
        for step in path {
            let next = match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.items().get(*index),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The same value without places. Of duplicate keys the first counts.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(value) => value.clone().into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect::<Vec<_>>().into(),
            Value::Map(entries) => {
                let mut map = serde_json::Map::new();
                for (key, node) in entries {
                    map.entry(key.text.as_str()).or_insert_with(|| node.to_json());
                }
                map.into()
            }
        }
    }
}

/// One step of a path into a tree.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Parses one document. The error names the place.
pub fn parse(file: &Arc<str>, text: &Arc<str>) -> Result<Node, Box<Diagnostic>> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 200, max_nodes: 200_000, max_documents: 1 },
    };
    let parsed: Result<Spanned<Bare>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(root) => Ok(node(root)),
        Err(error) => {
            let span = error.location().map(span_of).unwrap_or(Span::WHOLE);
            let message = strip_location(&error.without_snippet().to_string());
            Err(Box::new(Diagnostic::new(Code::Syntax, file, span, message).source(text)))
        }
    }
}

/// Where `line` and `column` (from 1, of the text that a scalar stands for) are in the file.
///
/// Exact for literal blocks (`|`) and for scalars on one line; anything else is answered by where the scalar begins.
pub fn locate(source: &str, scalar: Span, line: u32, column: u32) -> Span {
    let begin = Span::at(scalar.line, scalar.column);
    let Some(first) = line_of(source, scalar.line) else { return begin };
    let before = scalar.column.saturating_sub(1);
    if let Some((header, style)) = block_header(source, first, scalar) {
        return if style == '|' { Span::at(header + line, before + column) } else { begin };
    }
    let mut rest = first.chars().skip(before as usize).peekable();
    let quote = u32::from(matches!(rest.peek(), Some('"' | '\'')));
    let last = before + (rest.count() as u32).max(1);
    if line == 1 { Span::at(scalar.line, (before + quote + column).min(last)) } else { begin }
}

/// The line and the style (`|` or `>`) of the header that the scalar stands under. The parser places a block scalar at
/// its first line that is not blank, past the indentation.
fn block_header(source: &str, first: &str, scalar: Span) -> Option<(u32, char)> {
    let indent = first.chars().take(scalar.column.saturating_sub(1) as usize).all(|c| c == ' ');
    let mut above = (1..scalar.line).rev().filter_map(|number| Some((number, line_of(source, number)?)));
    let (number, header) = above.find(|(_, text)| !text.trim().is_empty())?;
    let header = header.split(" #").next().unwrap_or(header).trim_end();
    let style = header.trim_end_matches(|c: char| c.is_ascii_digit() || c == '+' || c == '-').chars().next_back()?;
    (indent && matches!(style, '|' | '>')).then_some((number, style))
}

/// Characters of the word that begins at a place, at least 1.
pub fn word_length(source: &str, at: Span) -> u32 {
    let line = line_of(source, at.line).unwrap_or_default();
    let rest = line.chars().skip(at.column.saturating_sub(1) as usize);
    (rest.take_while(|c| c.is_alphanumeric() || *c == '_').count() as u32).max(1)
}

fn line_of(source: &str, number: u32) -> Option<&str> {
    source.lines().nth(number.checked_sub(1)? as usize)
}

fn span_of(location: serde_saphyr::Location) -> Span {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Span { line: narrow(location.line()), column: narrow(location.column()), length: narrow(location.span().len()) }
}

/// The library writes the place into its message, too; the diagnostic has it already.
fn strip_location(message: &str) -> String {
    match message.find(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message.strip_prefix("error: ").unwrap_or(message).to_owned(),
    }
}

/// A value whose own place its parent keeps.
enum Bare {
    Leaf(Value),
    List(Vec<Spanned<Bare>>),
    Map(Vec<(Spanned<String>, Spanned<Bare>)>),
}

fn node(spanned: Spanned<Bare>) -> Node {
    let span = span_of(spanned.referenced);
    let value = match spanned.value {
        Bare::Leaf(value) => value,
        Bare::List(items) => Value::List(items.into_iter().map(node).collect()),
        Bare::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { span: span_of(key.referenced), text: key.value }, node(value)))
                .collect(),
        ),
    };
    Node { span, value }
}

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BareVisitor)
    }
}

struct BareVisitor;

impl<'de> Visitor<'de> for BareVisitor {
    type Value = Bare;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bare, D::Error> {
        Bare::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Number(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Bare, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("numbers must be finite"))?;
        Ok(Bare::Leaf(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Bare, E> {
        Ok(Bare::Leaf(Value::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Bare, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Bare::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Bare, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Bare::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        parse(&"a.yaml".into(), &text.into()).expect("valid YAML")
    }

    fn place(node: &Node) -> (u32, u32) {
        (node.span.line, node.span.column)
    }

    #[test]
    fn every_node_and_key_knows_its_place() {
        let root = tree("id: x\nlist:\n  - a: 1\n    b: [true, null, 2.5]\n");
        let list = root.get("list").expect("list");
        assert_eq!(place(root.get("id").expect("id")), (1, 5));
        assert_eq!(place(list.follow(&[Step::Index(0), Step::Key("b"), Step::Index(1)])), (4, 15));
        assert_eq!(list.items()[0].entries()[1].0.span.line, 4);
        assert_eq!(root.to_json()["list"][0]["b"], serde_json::json!([true, null, 2.5]));
    }

    #[test]
    fn duplicate_keys_are_kept_with_their_places() {
        let root = tree("a: 1\nb: 2\na: 3\n");
        let lines: Vec<u32> = root.entries().iter().map(|(key, _)| key.span.line).collect();
        assert_eq!(lines, [1, 2, 3]);
        assert_eq!(root.to_json(), serde_json::json!({"a": 1, "b": 2}));
    }

    #[test]
    fn words_that_other_parsers_take_for_booleans_stay_text() {
        assert_eq!(
            tree("a: yes\nb: 0755\nc: 2026-01-02\n").to_json(),
            serde_json::json!({"a": "yes", "b": "0755", "c": "2026-01-02"})
        );
    }

    #[test]
    fn text_that_is_no_yaml_names_the_place() {
        let error = parse(&"a.yaml".into(), &"a: [1, 2\nb: 3\n".into()).expect_err("unclosed list");
        assert!(error.span.line >= 1, "{error:?}");
        assert_eq!(error.code, Code::Syntax);
        assert!(parse(&"a.yaml".into(), &"a: 1\n---\nb: 2\n".into()).is_err(), "one document a file");
    }

    #[test]
    fn a_thousand_aliases_of_aliases_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let before = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
        }
        assert!(parse(&"a.yaml".into(), &text.into()).is_err());
    }

    #[test]
    fn a_place_in_a_block_is_mapped_through_its_indentation() {
        let text = "a:\n  sql: |\n    SELECT *\n\n    FROM x\n";
        let root = tree(text);
        let sql = root.follow(&[Step::Key("a"), Step::Key("sql")]);
        assert_eq!(locate(text, sql.span, 1, 8), Span::at(3, 12));
        assert_eq!(locate(text, sql.span, 3, 6), Span::at(5, 10));
        for (text, place) in [
            ("sql: |2- # why\n\n    SELECT x\n", Span::at(3, 10)),
            ("- sql: >-\n    a\n    b\n", Span::at(2, 5)),
            ("sql:\n  a\n  b\n", Span::at(2, 3)),
        ] {
            let root = tree(text);
            let sql = root.get("sql").or_else(|| root.items().first()?.get("sql")).expect("sql");
            assert_eq!(locate(text, sql.span, 2, 8), place, "{text}");
        }
    }

    #[test]
    fn a_place_in_a_scalar_on_one_line_is_mapped_past_its_quote() {
        for (text, column) in [("sql: SELECT x\n", 13), ("sql: 'SELECT x'\n", 14), ("sql: \"SELECT x\"\n", 14)] {
            let root = tree(text);
            assert_eq!(locate(text, root.get("sql").expect("sql").span, 1, 8), Span::at(1, column), "{text}");
        }
    }
}
