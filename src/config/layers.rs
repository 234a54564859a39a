//! File, environment and flags, laid over each other: a flag wins over the environment, the environment over the file,
//! the file over the default. Tables are merged key by key, lists are replaced as a whole.
//!
//! A variable is named after its key: `KUBETIDE_BATCH__AGE_MS` is `batch.age_ms`, `KUBETIDE_SOURCES__0__CLUSTER` is
//! `sources[0].cluster`, `KUBETIDE_KAFKA__PROPERTIES__SASL_USERNAME` is librdkafka's `sasl.username`. Elements of a list
//! are separated by blanks; tables and lists may be written as TOML. A variable for a secret holds the secret itself.
//!
//! Kubernetes gives every pod variables such as `KUBETIDE_SERVICE_HOST` when a Service is called `kubetide`. They have
//! no double underscore, so a variable without one counts only if it names a key of the top level.

use serde_json::{Value as Json, json};

use super::rules::{Rule, Rules, nearest};
use super::tree::{Node, Origin, Step, display};
use super::values::is_secret_property;

const PREFIX: &str = "KUBETIDE_";

/// One value from the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// As people write it, for messages: `--http`.
    pub name: String,
    /// The key that it sets: `http.listen`.
    pub key: String,
    pub value: Json,
}

impl Flag {
    /// A flag that sets a key.
    pub fn new(name: impl Into<String>, key: impl Into<String>, value: impl Into<Json>) -> Flag {
        Flag { name: name.into(), key: key.into(), value: value.into() }
    }
}

/// A mistake in a variable or flag.
pub struct Misnamed {
    pub origin: Origin,
    pub message: String,
    pub help: Option<String>,
}

/// Lays the variables over the tree and returns those that name nothing.
pub fn environment(root: &mut Node, rules: &Rules, variables: &[(String, String)]) -> Vec<Misnamed> {
    let mut wrong = Vec::new();
    let mut variables: Vec<_> =
        variables.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))).collect();
    // In order of names, so that a list comes before its elements.
    variables.sort();
    for (short, text) in variables {
        let name = format!("{PREFIX}{short}");
        let segments: Vec<String> = short.split("__").map(str::to_ascii_lowercase).collect();
        let known_top = segments.first().is_some_and(|top| rules.root().step(&Step::Key(top.clone())).is_some());
        if segments.len() == 1 && !known_top {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let value = |path: &[Step], rule: Option<Rule<'_>>| variable_value(&name, path, rule, text);
        wrong.extend(lay(root, rules, origin, &segments, value).err());
    }
    wrong
}

/// Lays the flags over the tree.
pub fn flags(root: &mut Node, rules: &Rules, flags: &[Flag]) -> Vec<Misnamed> {
    let mut wrong = Vec::new();
    for flag in flags {
        let origin = Origin::Flag(flag.name.clone());
        let segments: Vec<String> = flag.key.split('.').map(str::to_owned).collect();
        let value = |_: &[Step], rule: Option<Rule<'_>>| match &flag.value {
            Json::String(text) => text_value(rule, text),
            other => other.clone(),
        };
        wrong.extend(lay(root, rules, origin, &segments, value).err());
    }
    wrong
}

/// Sets the place that the segments name to what `value` makes of its path and rule.
fn lay(
    root: &mut Node,
    rules: &Rules,
    origin: Origin,
    segments: &[String],
    value: impl FnOnce(&[Step], Option<Rule<'_>>) -> Json,
) -> Result<(), Misnamed> {
    let (path, rule) = match locate(rules, segments) {
        Ok(found) => found,
        Err((message, help)) => return Err(Misnamed { origin, message, help }),
    };
    let node = Node::new(value(&path, rule), &origin);
    root.set(&path, node).map_err(|message| {
        let message = format!("cannot set `{}`: {message}", display(&path));
        Misnamed { origin, message, help: None }
    })
}

type Unknown = (String, Option<String>);

/// The path that the segments name, and its rule; `None` below a pass-through table.
fn locate<'a>(rules: &'a Rules, segments: &[String]) -> Result<(Vec<Step>, Option<Rule<'a>>), Unknown> {
    let mut path = Vec::new();
    let mut rule = rules.root();
    let mut rest = segments.iter();
    while let Some(segment) = rest.next() {
        let step = segment.parse().map_or_else(|_| Step::Key(segment.clone()), Step::Index);
        let Some(below) = rule.step(&step) else {
            let names: Vec<&str> = rule.keys().unwrap_or_default().iter().map(|(name, _)| *name).collect();
            let help = nearest(segment, &names).map(|name| format!("did you mean `{name}`?"));
            let place = if path.is_empty() { String::new() } else { format!(" in `{}`", display(&path)) };
            return Err((format!("unknown key `{segment}`{place}"), help));
        };
        path.push(step);
        rule = below;
        if rule.is_open_table() && !rest.as_slice().is_empty() {
            // librdkafka's names have dots where variables have underscores.
            let name = rest.as_slice().join(".").replace('_', ".");
            path.push(Step::Key(name));
            return Ok((path, None));
        }
    }
    Ok((path, Some(rule)))
}

fn variable_value(name: &str, path: &[Step], rule: Option<Rule<'_>>, text: &str) -> Json {
    match (rule, path.last()) {
        (Some(rule), _) if rule.is_secret() && !text.trim_start().starts_with('{') => json!({ "env": name }),
        (None, Some(Step::Key(property))) if is_secret_property(property) => json!({ "env": name }),
        (rule, _) => text_value(rule, text),
    }
}

/// A value written as text, by what its place takes. What does not fit stays text, so that the error names it.
fn text_value(rule: Option<Rule<'_>>, text: &str) -> Json {
    let Some(rule) = rule else { return Json::String(text.to_owned()) };
    let trimmed = text.trim();
    if rule.has_type("array") || (rule.has_type("object") && trimmed.starts_with('{')) {
        if trimmed.starts_with(['[', '{']) {
            return inline_toml(trimmed).unwrap_or_else(|| Json::String(text.to_owned()));
        }
        let words = trimmed.split_whitespace();
        let is_table = rule.items().is_some_and(|items| items.step(&Step::Key("url".to_owned())).is_some());
        return if is_table {
            words.map(|url| json!({ "url": url })).collect()
        } else {
            words.map(Json::from).collect()
        };
    }
    let parsed = match () {
        () if rule.has_type("integer") => trimmed.replace('_', "").parse::<i64>().ok().map(Json::from),
        () if rule.has_type("boolean") => trimmed.parse::<bool>().ok().map(Json::from),
        () => None,
    };
    parsed.unwrap_or_else(|| Json::String(text.to_owned()))
}

fn inline_toml(text: &str) -> Option<Json> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
