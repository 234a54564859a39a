//! Generated descriptions: the JSON Schema for editors and the reference page for people.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::Config;

/// JSON Schema of the configuration file.
pub fn schema() -> Json {
    let mut schema = schemars::schema_for!(Config).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".to_owned(), Json::from("Kubetide configuration"));
    }
    schema
}

/// The text of `schemas/config.md`: every key with its type, default, environment variable and meaning.
pub fn reference() -> String {
    let schema = schema();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut text = String::from(
        "# Configuration\n\nGenerated from the code; `KUBETIDE_BLESS=1 cargo test --lib config` rewrites it.\n\n\
         One TOML file (`--config FILE` or `KUBETIDE_CONFIG`), environment variables and flags: a flag wins over the \
         environment, the environment over the file, the file over the default. Every key can be set by `--set KEY=VALUE` \
         too. In a variable, elements of a list are separated by blanks; tables and lists may be written as TOML. A secret \
         is `{ file = \"PATH\" }` or `{ env = \"NAME\" }`; a variable for a secret holds the secret itself.\n\n\
         `kubetide config show --origin` prints what is in force and where it comes from; `kubetide config check` only \
         says whether it is right.\n",
    );
    let mut sections = Vec::new();
    table(&mut text, &schema, &schema, Place { key: "", defaults: Some(&defaults) }, &mut sections);
    for (key, section) in sections {
        let _ = write!(text, "\n## {key}\n");
        if let Some(described) = description(section) {
            let _ = write!(text, "\n{described}\n");
        }
        let name = key.trim_end_matches("[]");
        table(&mut text, &schema, section, Place { key: &key, defaults: defaults.get(name) }, &mut Vec::new());
    }
    text
}

#[derive(Clone, Copy)]
struct Place<'a> {
    /// The section's key, empty at the top.
    key: &'a str,
    defaults: Option<&'a Json>,
}

/// Writes one table of keys; sections below it are collected for tables of their own.
fn table<'a>(
    text: &mut String,
    root: &'a Json,
    schema: &'a Json,
    place: Place<'_>,
    below: &mut Vec<(String, &'a Json)>,
) {
    let Some(keys) = schema.get("properties").and_then(Json::as_object) else { return };
    text.push_str("\n| key | type | default | environment variable | meaning |\n|---|---|---|---|---|\n");
    for (name, raw) in keys {
        let value = resolve(root, raw);
        let key = if place.key.is_empty() { name.clone() } else { format!("{}.{name}", place.key) };
        let variable = format!("KUBETIDE_{}", key.replace("[]", ".0").to_ascii_uppercase().replace('.', "__"));
        let meaning = description(raw).or_else(|| description(value)).unwrap_or_default();
        let items = value.get("items").map(|items| resolve(root, items));
        let kind = kind(root, value) + &range(raw);
        let default = place.defaults.and_then(|defaults| defaults.get(name)).filter(|value| !value.is_null());
        let default = match (default, raw.get("default").filter(|value| !value.is_null())) {
            (Some(default), _) if place.key.is_empty() && default.is_object() => String::new(),
            (Some(default), _) | (None, Some(default)) => format!("`{}`", super::show::toml_value(default)),
            (None, None) => String::new(),
        };
        let required =
            schema.get("required").and_then(Json::as_array).is_some_and(|all| all.iter().any(|one| one == name));
        let default = if required { "required".to_owned() } else { default };
        let _ = writeln!(text, "| `{key}` | {kind} | {default} | `{variable}` | {meaning} |");
        let holds_keys =
            |schema: &Json| schema.get("properties").is_some() && schema.get(super::values::SECRET_MARK).is_none();
        if holds_keys(value) {
            below.push((key, value));
        } else if let Some(items) = items.filter(|items| holds_keys(items)) {
            below.push((format!("{key}[]"), items));
        }
    }
}

fn description(schema: &Json) -> Option<String> {
    let text = schema.get("description")?.as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
}

fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    let branches = schema.get("anyOf").and_then(Json::as_array);
    let not_null = |branch: &&Json| branch.get("type").and_then(Json::as_str) != Some("null");
    if let Some([only]) = branches.map(|all| all.iter().filter(not_null).collect::<Vec<_>>()).as_deref() {
        return resolve(root, only);
    }
    match schema.get("$ref").and_then(Json::as_str).and_then(|target| root.pointer(target.strip_prefix('#')?)) {
        Some(target) => resolve(root, target),
        None => schema,
    }
}

fn kind(root: &Json, schema: &Json) -> String {
    let schema = resolve(root, schema);
    if schema.get(super::values::SECRET_MARK).is_some() {
        return "secret".to_owned();
    }
    if let Some(words) = words(schema) {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(branches) = schema.get("anyOf").and_then(Json::as_array) {
        return branches.iter().map(|branch| kind(root, branch)).collect::<Vec<_>>().join(" or ");
    }
    let name = match schema.get("type") {
        Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).find(|name| *name != "null").unwrap_or_default(),
        one => one.and_then(Json::as_str).unwrap_or_default(),
    };
    match (name, schema.get("items")) {
        ("array", Some(items)) => format!("list of {}", kind(root, items)),
        ("object", _) => "table".to_owned(),
        ("string", _) => "text".to_owned(),
        (name, _) => name.to_owned(),
    }
}

/// `, 1 to 16` where both bounds are given.
fn range(schema: &Json) -> String {
    let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
    bound("minimum").zip(bound("maximum")).map_or(String::new(), |(least, most)| format!(", {least} to {most}"))
}

fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Json::as_array) {
        return words.iter().map(Json::as_str).collect();
    }
    let branches = schema.get("oneOf").and_then(Json::as_array)?;
    let mut found = Vec::new();
    for branch in branches {
        match (branch.get("const").and_then(Json::as_str), branch.get("enum").and_then(Json::as_array)) {
            (Some(word), _) => found.push(word),
            (None, Some(some)) => found.extend(some.iter().filter_map(Json::as_str)),
            (None, None) => return None,
        }
    }
    Some(found)
}
