//! Checks a tree against a JSON Schema and reports everything that is wrong, each thing at its place.
//!
//! The schema is generated from the Rust type that the file becomes, so the keys, types and choices that an author
//! may use are written down once. Only the keywords that such schemas use are understood; a test holds them to that.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value as Json};

use super::diagnostic::{Code, Diagnostic, suggest};
use super::yaml::{Key, Node, Value};

/// Checks `node` against `schema` and appends what is wrong.
pub fn check(schema: &Json, node: &Node, file: &Arc<str>, text: &Arc<str>, found: &mut Vec<Diagnostic>) {
    Checker { root: schema, file, text, found }.value(schema, node, "the file");
}

struct Checker<'a> {
    root: &'a Json,
    file: &'a Arc<str>,
    text: &'a Arc<str>,
    found: &'a mut Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic.source(self.text));
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        while let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
        {
            match self.root.get("$defs").and_then(|defs| defs.get(name)) {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }

    fn value(&mut self, schema: &'a Json, node: &Node, name: &str) {
        let schema = self.resolve(schema);
        let Some(rules) = schema.as_object() else { return };
        if let Some(condition) = rules.get("if") {
            let branch = if holds(condition, node) { "then" } else { "else" };
            if let Some(branch) = rules.get(branch) {
                self.value(branch, node, name);
            }
            return;
        }
        let choices = self.choices(schema);
        if !choices.is_empty() {
            return self.choice(&choices, node, name);
        }
        if !self.has_type(rules, node, name) {
            return;
        }
        match &node.value {
            Value::Map(entries) => self.map(rules, entries, node, name),
            Value::List(items) => self.list(rules, items, node, name),
            Value::Text(text) => self.text(rules, text, node, name),
            Value::Number(number) => self.number(rules, number.as_f64().unwrap_or_default(), node, name),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The words of an enumeration, however the schema spells it; none for anything else.
    fn choices(&self, schema: &'a Json) -> Vec<&'a str> {
        let schema = self.resolve(schema);
        if let Some(word) = schema.get("const").and_then(Json::as_str) {
            return vec![word];
        }
        if let Some(words) = schema.get("enum").and_then(Json::as_array) {
            return words.iter().filter_map(Json::as_str).collect();
        }
        match schema.get("oneOf").and_then(Json::as_array) {
            Some(parts) => parts.iter().flat_map(|part| self.choices(part)).collect(),
            None => Vec::new(),
        }
    }

    fn choice(&mut self, choices: &[&str], node: &Node, name: &str) {
        match &node.value {
            Value::Text(word) if choices.contains(&word.as_str()) => {}
            Value::Text(word) => {
                let help = suggest(word, choices.iter().copied())
                    .unwrap_or_else(|| format!("use one of {}", choices.join(", ")));
                self.report(
                    Diagnostic::new(Code::BadValue, self.file, node.span, format!("{name} cannot be '{word}'"))
                        .help(help),
                );
            }
            other => {
                let message = format!("{name} is {}, it must be one of {}", kind(other), choices.join(", "));
                self.report(Diagnostic::new(Code::WrongType, self.file, node.span, message));
            }
        }
    }

    fn has_type(&mut self, rules: &Map<String, Json>, node: &Node, name: &str) -> bool {
        let allowed: Vec<&str> = match rules.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
            _ => return true,
        };
        let fits = |wanted: &&str| match (&node.value, *wanted) {
            (Value::Null, "null")
            | (Value::Bool(_), "boolean")
            | (Value::Number(_), "number")
            | (Value::Text(_), "string")
            | (Value::List(_), "array")
            | (Value::Map(_), "object") => true,
            (Value::Number(number), "integer") => number.is_i64() || number.is_u64(),
            _ => false,
        };
        if allowed.iter().any(fits) {
            return true;
        }
        let wanted: Vec<&str> = allowed.iter().map(|kind| plain_name(kind)).collect();
        let message = format!("{name} is {}, it must be {}", kind(&node.value), wanted.join(" or "));
        let help = match (&node.value, allowed.as_slice()) {
            (Value::Text(_), ["array"]) => Some("write it as a list: '- …' on its own line, or […]".to_owned()),
            (Value::Number(_) | Value::Bool(_), ["string"]) => Some("put it in quotes".to_owned()),
            (Value::Null, _) => Some("give it a value or leave the key out".to_owned()),
            _ => None,
        };
        self.report(Diagnostic::new(Code::WrongType, self.file, node.span, message).maybe_help(help));
        false
    }

    fn map(&mut self, rules: &'a Map<String, Json>, entries: &[(Key, Node)], node: &Node, name: &str) {
        let known = rules.get("properties").and_then(Json::as_object);
        let closed = rules.get("additionalProperties") == Some(&Json::Bool(false));
        let mut seen = HashSet::new();
        for (key, value) in entries {
            if !seen.insert(key.text.as_str()) {
                let message = format!("key '{}' is given twice", key.text);
                self.report(
                    Diagnostic::new(Code::DuplicateKey, self.file, key.span, message).help("remove one of them"),
                );
                continue;
            }
            match known.and_then(|known| known.get(&key.text)) {
                Some(schema) => self.value(schema, value, &format!("'{}'", key.text)),
                None if closed => self.unknown_key(key, known),
                None => {
                    let free = rules.get("additionalProperties").unwrap_or(&Json::Null);
                    self.value(free, value, &format!("'{}'", key.text));
                    self.nested_duplicates(value);
                }
            }
        }
        let required = rules.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for key in required.filter(|key| !seen.contains(key)) {
            let about = known.and_then(|known| known.get(key)).and_then(|schema| self.description(schema));
            self.report(
                Diagnostic::new(Code::MissingKey, self.file, node.span, format!("key '{key}' is missing in {name}"))
                    .maybe_help(about.map(|about| format!("{key}: {about}"))),
            );
        }
    }

    fn unknown_key(&mut self, key: &Key, known: Option<&Map<String, Json>>) {
        let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let help =
            suggest(&key.text, names.iter().copied()).unwrap_or_else(|| format!("known keys are {}", names.join(", ")));
        let message = format!("unknown key '{}'", key.text);
        self.report(Diagnostic::new(Code::UnknownKey, self.file, key.span, message).help(help));
    }

    /// In free-form parts nothing is prescribed but that a key is given once.
    fn nested_duplicates(&mut self, node: &Node) {
        let mut seen = HashSet::new();
        for (key, value) in node.entries() {
            if !seen.insert(key.text.as_str()) {
                let message = format!("key '{}' is given twice", key.text);
                self.report(
                    Diagnostic::new(Code::DuplicateKey, self.file, key.span, message).help("remove one of them"),
                );
            }
            self.nested_duplicates(value);
        }
        node.items().iter().for_each(|item| self.nested_duplicates(item));
    }

    fn description(&self, schema: &'a Json) -> Option<&'a str> {
        let own = schema.get("description").or_else(|| self.resolve(schema).get("description"));
        own.and_then(Json::as_str).and_then(|text| text.lines().next())
    }

    fn list(&mut self, rules: &'a Map<String, Json>, items: &[Node], node: &Node, name: &str) {
        let least = rules.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            let message = format!("{name} needs at least {least} element{}", if least == 1 { "" } else { "s" });
            self.report(Diagnostic::new(Code::BadValue, self.file, node.span, message));
        }
        let most = rules.get("maxItems").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if (items.len() as u64) > most {
            let message = format!("{name} can have at most {most} element{}", if most == 1 { "" } else { "s" });
            self.report(Diagnostic::new(Code::BadValue, self.file, node.span, message));
        }
        if let Some(schema) = rules.get("items") {
            for item in items {
                self.value(schema, item, &format!("an element of {name}"));
            }
        }
    }

    fn text(&mut self, rules: &Map<String, Json>, text: &str, node: &Node, name: &str) {
        if text.trim().is_empty() && rules.get("minLength").and_then(Json::as_u64).unwrap_or(0) > 0 {
            self.report(Diagnostic::new(Code::BadValue, self.file, node.span, format!("{name} is empty")));
            return;
        }
        if let Some(pattern) = rules.get("pattern").and_then(Json::as_str)
            && !matches(pattern, text)
        {
            let help = rules.get("description").and_then(Json::as_str).map(str::to_owned);
            self.report(
                Diagnostic::new(Code::BadValue, self.file, node.span, format!("{name} cannot be '{text}'"))
                    .maybe_help(help.or_else(|| Some(format!("it must match {pattern}")))),
            );
        }
    }

    fn number(&mut self, rules: &Map<String, Json>, number: f64, node: &Node, name: &str) {
        let low = rules.get("minimum").and_then(Json::as_f64).is_some_and(|least| number < least);
        let high = rules.get("maximum").and_then(Json::as_f64).is_some_and(|most| number > most);
        if low || high {
            self.report(Diagnostic::new(Code::BadValue, self.file, node.span, format!("{name} cannot be {number}")));
        }
    }
}

/// Conditions are "has these keys", nothing else.
fn holds(condition: &Json, node: &Node) -> bool {
    let required = condition.get("required").and_then(Json::as_array);
    required.into_iter().flatten().filter_map(Json::as_str).all(|key| node.get(key).is_some())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
    }
}

fn plain_name(kind: &str) -> &str {
    match kind {
        "string" => "text",
        "array" => "a list",
        "object" => "a mapping",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        other => other,
    }
}

/// Whether a text is as a pattern of a schema asks. Each is compiled once: files are many, the schemas' patterns few.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let pattern = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}
