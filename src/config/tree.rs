//! The layers merged into one tree in which every value remembers where it came from.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Bytes of the configuration file.
    File(Range<usize>),
    /// Name of the environment variable.
    Environment(String),
    /// The flag as written, such as `--http`.
    Flag(String),
}

/// A value, its origin, and for keys of a file also where the key stands.
#[derive(Debug, Clone)]
pub struct Node {
    pub content: Content,
    pub origin: Origin,
    pub key: Origin,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub enum Content {
    Scalar(Json),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

/// One step of a path into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// `sources[0].url`.
pub fn display(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

impl Node {
    /// An empty table that nobody wrote.
    pub fn root() -> Node {
        Node { content: Content::Table(BTreeMap::new()), origin: Origin::Default, key: Origin::Default }
    }

    /// A value with all its parts from one origin.
    pub fn new(json: Json, origin: &Origin) -> Node {
        let content = match json {
            Json::Array(items) => Content::List(items.into_iter().map(|item| Node::new(item, origin)).collect()),
            Json::Object(map) => {
                Content::Table(map.into_iter().map(|(key, value)| (key, Node::new(value, origin))).collect())
            }
            scalar => Content::Scalar(scalar),
        };
        Node { content, origin: origin.clone(), key: origin.clone() }
    }

    /// The tree of a TOML document.
    pub fn from_toml(table: &Spanned<DeTable<'_>>) -> Node {
        let key = Origin::Default;
        Node { content: table_content(table.get_ref()), origin: Origin::File(table.span()), key }
    }

    /// The tree without its origins.
    pub fn to_json(&self) -> Json {
        match &self.content {
            Content::Scalar(json) => json.clone(),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Table(map) => map.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
        }
    }

    /// The node at a path.
    pub fn get(&self, path: &[Step]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match (&node.content, step) {
            (Content::Table(map), Step::Key(key)) => map.get(key),
            (Content::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    /// The node at a path, or the nearest one above it.
    pub fn nearest(&self, path: &[Step]) -> &Node {
        (0..=path.len()).rev().find_map(|length| self.get(path.get(..length)?)).unwrap_or(self)
    }

    /// Takes a node out; later elements of a list move up.
    pub fn remove(&mut self, path: &[Step]) -> Option<Node> {
        let (last, above) = path.split_last()?;
        let mut node = self;
        for step in above {
            node = match (&mut node.content, step) {
                (Content::Table(map), Step::Key(key)) => map.get_mut(key)?,
                (Content::List(items), Step::Index(index)) => items.get_mut(*index)?,
                _ => return None,
            };
        }
        match (&mut node.content, last) {
            (Content::Table(map), Step::Key(key)) => map.remove(key),
            (Content::List(items), Step::Index(index)) if *index < items.len() => Some(items.remove(*index)),
            _ => None,
        }
    }

    /// Puts a value at a path over what is there: tables on the way are made, an element one past the end is added.
    ///
    /// # Errors
    /// The path up to the value that is in the way, such as a number where a table is needed.
    pub fn set(&mut self, path: &[Step], value: Node) -> Result<(), String> {
        let Some((step, rest)) = path.split_first() else {
            *self = value;
            return Ok(());
        };
        let origin = value.origin.clone();
        let blank = || Node { content: Content::Table(BTreeMap::new()), origin: origin.clone(), key: origin.clone() };
        match (&mut self.content, step) {
            (Content::Table(map), Step::Key(key)) => map.entry(key.clone()).or_insert_with(blank).set(rest, value),
            (Content::List(items), Step::Index(index)) if *index <= items.len() => {
                if *index == items.len() {
                    items.push(blank());
                }
                items.get_mut(*index).map_or(Ok(()), |item| item.set(rest, value))
            }
            (Content::Table(map), Step::Index(0)) if map.is_empty() => {
                self.content = Content::List(vec![blank()]);
                self.set(path, value)
            }
            (Content::List(items), Step::Index(_)) => Err(format!("the list before it has {} elements", items.len())),
            (_, step) => {
                Err(format!("what stands above `{}` is no table or list", display(std::slice::from_ref(step))))
            }
        }
    }
}

fn table_content(table: &DeTable<'_>) -> Content {
    let node = |key: &Spanned<std::borrow::Cow<'_, str>>, value| {
        (key.get_ref().to_string(), Node { key: Origin::File(key.span()), ..value_node(value) })
    };
    Content::Table(table.iter().map(|(key, value)| node(key, value)).collect())
}

fn value_node(value: &Spanned<DeValue<'_>>) -> Node {
    let content = match value.get_ref() {
        DeValue::String(text) => Content::Scalar(Json::String(text.to_string())),
        DeValue::Integer(number) => Content::Scalar(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| Json::String(number.to_string()), |number| Json::Number(number.into())),
        ),
        DeValue::Float(number) => Content::Scalar(
            number.as_str().parse::<f64>().map_or_else(|_| Json::String(number.to_string()), Json::from),
        ),
        DeValue::Boolean(flag) => Content::Scalar(Json::Bool(*flag)),
        DeValue::Datetime(time) => Content::Scalar(Json::String(time.to_string())),
        DeValue::Array(items) => Content::List(items.iter().map(value_node).collect()),
        DeValue::Table(table) => table_content(table),
    };
    Node { content, origin: Origin::File(value.span()), key: Origin::File(value.span()) }
}
