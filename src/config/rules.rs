//! What the JSON Schema of [`Config`](super::Config) says about a place in the tree: which keys it has, which words and
//! numbers it takes, whether it holds a secret. Everything generic is read off the schema, so a new key in `shape.rs`
//! needs nothing here.

use serde_json::{Map, Value as Json};

use super::tree::{Content, Node, Step};
use super::values::SECRET_MARK;

/// The schema with its definitions, for following references.
pub struct Rules {
    root: Json,
}

/// What is allowed at one place.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    rules: &'a Json,
    schema: &'a Json,
}

/// A mistake that the schema shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    pub path: Vec<Step>,
    pub message: String,
    pub help: Option<String>,
    /// Whether it is about the key and not about its value.
    pub about_key: bool,
}

impl Rules {
    /// Of the whole configuration.
    pub fn new() -> Rules {
        Rules { root: super::schema() }
    }

    /// The rule of the whole document.
    pub fn root(&self) -> Rule<'_> {
        Rule { rules: &self.root, schema: &self.root }.resolved()
    }

    /// Every unknown key, unknown word and number out of range below `node`, in order.
    pub fn violations(&self, node: &Node) -> Vec<Violation> {
        let mut found = Vec::new();
        self.walk(self.root(), node, &mut Vec::new(), &mut found);
        found
    }

    fn walk(&self, rule: Rule<'_>, node: &Node, path: &mut Vec<Step>, found: &mut Vec<Violation>) {
        match &node.content {
            Content::Table(map) => {
                let Some(known) = rule.keys() else { return };
                for (key, child) in map {
                    path.push(Step::Key(key.clone()));
                    match known.iter().find(|(name, _)| name == key) {
                        Some((_, below)) => self.walk(*below, child, path, found),
                        None => found.push(self.unknown_key(path, key, &known)),
                    }
                    path.pop();
                }
            }
            Content::List(items) => {
                let Some(below) = rule.items() else { return };
                for (index, item) in items.iter().enumerate() {
                    path.push(Step::Index(index));
                    self.walk(below, item, path, found);
                    path.pop();
                }
            }
            Content::Scalar(value) => found.extend(rule.refuse(value, path)),
        }
    }

    fn unknown_key(&self, path: &[Step], key: &str, known: &[(&str, Rule<'_>)]) -> Violation {
        let above = path.split_last().map_or(&[][..], |(_, above)| above);
        let section = super::tree::display(above);
        let place = if section.is_empty() { "at the top level".to_owned() } else { format!("in `{section}`") };
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let help = match nearest(key, &names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => match self.elsewhere(key) {
                Some(full) => format!("did you mean `{full}`?"),
                None => format!("known here are {}", names.join(", ")),
            },
        };
        let message = format!("unknown key `{key}` {place}");
        Violation { path: path.to_vec(), message, help: Some(help), about_key: true }
    }

    /// The full name of a key of some section that is spelled like this.
    fn elsewhere(&self, key: &str) -> Option<String> {
        let sections = self.root().keys()?;
        sections.iter().find_map(|(section, rule)| {
            let found = rule.keys()?.iter().any(|(name, _)| *name == key);
            found.then(|| format!("{section}.{key}"))
        })
    }
}

impl<'a> Rule<'a> {
    /// Follows references and leaves the null of optional values aside.
    fn resolved(self) -> Rule<'a> {
        let mut schema = self.schema;
        // A reference never leads to itself: types are finite. The bound only guards against a broken schema.
        for _ in 0..8 {
            if let Some(target) = schema.get("$ref").and_then(Json::as_str) {
                let Some(found) = target.strip_prefix('#').and_then(|pointer| self.rules.pointer(pointer)) else {
                    break;
                };
                schema = found;
            } else if let Some(branch) = schema.get("anyOf").and_then(Json::as_array).and_then(|any| only_value(any)) {
                schema = branch;
            } else {
                break;
            }
        }
        Rule { rules: self.rules, schema }
    }

    /// The keys of a table with their rules; `None` where any key will do.
    pub fn keys(self) -> Option<Vec<(&'a str, Rule<'a>)>> {
        let properties = |schema: &'a Json| schema.get("properties").and_then(Json::as_object);
        let of = |map: &'a Map<String, Json>| {
            map.iter().map(|(name, schema)| (name.as_str(), Rule { rules: self.rules, schema }.resolved())).collect()
        };
        if let Some(map) = properties(self.schema) {
            return Some(of(map));
        }
        let branches = self.schema.get("anyOf").and_then(Json::as_array)?;
        branches.iter().find_map(|schema| Rule { rules: self.rules, schema }.resolved().keys())
    }

    /// The rule of a list's elements.
    pub fn items(self) -> Option<Rule<'a>> {
        self.schema.get("items").map(|schema| Rule { rules: self.rules, schema }.resolved())
    }

    /// The rule of one step down, where the schema has one.
    pub fn step(self, step: &Step) -> Option<Rule<'a>> {
        match step {
            Step::Key(key) => self.keys()?.into_iter().find(|(name, _)| name == key).map(|(_, rule)| rule),
            Step::Index(_) => self.items(),
        }
    }

    /// Whether any key and value will do below: a pass-through table.
    pub fn is_open_table(self) -> bool {
        self.has_type("object") && self.keys().is_none()
    }

    /// Whether a JSON type is allowed.
    pub fn has_type(self, name: &str) -> bool {
        let allows = |schema: &Json| match schema.get("type") {
            Some(Json::String(one)) => one == name,
            Some(Json::Array(many)) => many.iter().any(|one| one == name),
            _ => false,
        };
        allows(self.schema)
            || self.schema.get("anyOf").and_then(Json::as_array).is_some_and(|branches| {
                branches.iter().any(|schema| allows(Rule { rules: self.rules, schema }.resolved().schema))
            })
    }

    /// Whether it holds a secret and nothing else.
    pub fn is_secret(self) -> bool {
        self.schema.get(SECRET_MARK).is_some()
    }

    /// The words allowed, where they are numbered.
    pub fn words(self) -> Option<Vec<&'a str>> {
        if let Some(words) = self.schema.get("enum").and_then(Json::as_array) {
            return Some(words.iter().filter_map(Json::as_str).collect());
        }
        let branches = self.schema.get("oneOf").and_then(Json::as_array)?;
        let mut words = Vec::new();
        for branch in branches {
            match (branch.get("const").and_then(Json::as_str), branch.get("enum").and_then(Json::as_array)) {
                (Some(word), _) => words.push(word),
                (None, Some(some)) => words.extend(some.iter().filter_map(Json::as_str)),
                (None, None) => return None,
            }
        }
        Some(words)
    }

    /// Smallest and largest number allowed.
    pub fn bounds(self) -> (Option<u64>, Option<u64>) {
        let bound = |name| self.schema.get(name).and_then(Json::as_u64);
        (bound("minimum"), bound("maximum"))
    }

    fn refuse(self, value: &Json, path: &[Step]) -> Option<Violation> {
        let violation = |message: String, help: Option<String>| {
            Some(Violation { path: path.to_vec(), message, help, about_key: false })
        };
        let key = super::tree::display(path);
        if let (Json::String(word), Some(words)) = (value, self.words()) {
            if words.contains(&word.as_str()) {
                return None;
            }
            let help = match nearest(word, &words) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", words.join(", ")),
            };
            return violation(format!("`{key}` does not know `{word}`"), Some(help));
        }
        let number = value.as_i64()?;
        let (least, most) = self.bounds();
        let low = least.is_some_and(|least| i128::from(number) < i128::from(least));
        let high = most.is_some_and(|most| i128::from(number) > i128::from(most));
        if !low && !high {
            return None;
        }
        let help = match (least, most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, _) => format!("at most {}", most.unwrap_or_default()),
        };
        violation(format!("`{key}` cannot be {number}"), Some(help))
    }
}

/// The branch of an optional value that is not null.
fn only_value(branches: &[Json]) -> Option<&Json> {
    let mut values = branches.iter().filter(|branch| branch.get("type").and_then(Json::as_str) != Some("null"));
    let first = values.next()?;
    (values.next().is_none() && branches.len() > 1).then_some(first)
}

/// The word that was probably meant.
pub fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&given, name), *name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
