//! The configuration in force, as TOML, with where each value comes from. Secrets are references and stay that;
//! credentials inside addresses are masked.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::Loaded;
use super::tree::{Node, Origin, Step, display};

/// One value in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// `batch.events`, `sources[0].url`.
    pub key: String,
    /// Masked where it may hold credentials.
    pub value: Json,
    /// `default`, `kubetide.toml:3`, `environment KUBETIDE_BATCH__EVENTS`, `flag --http`.
    pub origin: String,
}

/// Every value that is set or has a default, in order of the reference.
pub fn settings(loaded: &Loaded) -> Vec<Setting> {
    // The shape is plain data with text keys, which always serialises.
    let json = serde_json::to_value(&loaded.config).unwrap_or_default();
    let mut found = Vec::new();
    collect(loaded, &json, &mut Vec::new(), &mut found);
    found
}

/// The same as a TOML document that can be used as a configuration file.
pub fn to_toml(loaded: &Loaded, with_origin: bool) -> String {
    let settings = settings(loaded);
    let width = settings.iter().map(|setting| line(setting).len()).filter(|width| *width <= 60).max().unwrap_or(0);
    let mut text = String::new();
    let mut element = String::new();
    // Plain keys first: what follows a `[[sources]]` line belongs to that source.
    let (elements, plain): (Vec<&Setting>, Vec<&Setting>) =
        settings.iter().partition(|setting| setting.key.contains("]."));
    for setting in plain.into_iter().chain(elements) {
        if let Some((head, _)) = setting.key.split_once("].")
            && head != element
        {
            head.clone_into(&mut element);
            let list = head.split('[').next().unwrap_or_default();
            let _ = write!(text, "\n[[{list}]]\n");
        }
        let line = line(setting);
        let _ = match with_origin {
            true => writeln!(text, "{line:width$}  # {}", setting.origin),
            false => writeln!(text, "{line}"),
        };
    }
    text
}

fn line(setting: &Setting) -> String {
    let key = setting.key.split_once("].").map_or(setting.key.as_str(), |(_, key)| key);
    format!("{key} = {}", toml_value(&setting.value))
}

fn collect(loaded: &Loaded, json: &Json, path: &mut Vec<Step>, found: &mut Vec<Setting>) {
    match json {
        Json::Null => {}
        Json::Object(map) if !is_secret(map) && !path.is_empty() && map.is_empty() => {}
        Json::Object(map) if !is_secret(map) => {
            for (key, value) in map {
                path.push(Step::Key(key.clone()));
                collect(loaded, value, path, found);
                path.pop();
            }
        }
        Json::Array(items) if items.iter().any(|item| item.as_object().is_some_and(|map| !is_secret(map))) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                collect(loaded, item, path, found);
                path.pop();
            }
        }
        value => {
            let origin = origin(loaded, path);
            found.push(Setting { key: display(path), value: masked(value), origin });
        }
    }
}

fn is_secret(map: &serde_json::Map<String, Json>) -> bool {
    map.len() == 1 && (map.contains_key("file") || map.contains_key("env"))
}

fn origin(loaded: &Loaded, path: &[Step]) -> String {
    let node = loaded.tree.get(path).or_else(|| property(&loaded.tree, path));
    match node.map_or(&Origin::Default, |node| &node.origin) {
        Origin::Default => "default".to_owned(),
        Origin::Environment(name) => format!("environment {name}"),
        Origin::Flag(name) => format!("flag {name}"),
        Origin::File(span) => {
            let Some(source) = &loaded.source else { return "file".to_owned() };
            let line = source.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
            format!("{}:{line}", source.path.display())
        }
    }
}

/// A librdkafka property's node: its dotted name is one key in the values and may be nested tables in the tree.
fn property<'a>(tree: &'a Node, path: &[Step]) -> Option<&'a Node> {
    let (Step::Key(name), above) = path.split_last()? else { return None };
    let mut node = tree.get(above)?;
    let mut rest = name.as_str();
    while !rest.is_empty() {
        // The longest key first: `sasl.password` from the environment is one key with a dot in it.
        let ends = rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]).collect::<Vec<_>>();
        let (next, end) = ends.into_iter().rev().find_map(|end| {
            let key = Step::Key(rest.get(..end)?.to_owned());
            Some((node.get(std::slice::from_ref(&key))?, end))
        })?;
        node = next;
        rest = rest.get(end..)?.trim_start_matches('.');
    }
    Some(node)
}

fn masked(value: &Json) -> Json {
    match value {
        Json::String(text) => Json::String(mask_address(text)),
        Json::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

/// Hides the user information of an address and the values of options that are named like secrets.
fn mask_address(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("…@{host}"));
    let secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        !name.ends_with("_file")
            && !name.ends_with(".file")
            && !name.ends_with(".env")
            && ["password", "secret", "token", "key", "sig", "code"].iter().any(|word| name.contains(word))
    };
    let mut masked = String::new();
    for (index, part) in tail.split_inclusive(['?', '&', '#']).enumerate() {
        let (body, end) = match part.char_indices().next_back() {
            Some((at, '?' | '&' | '#')) => part.split_at(at),
            _ => (part, ""),
        };
        match body.split_once('=') {
            Some((name, _)) if index > 0 && secret(name) => masked.extend([name, "=…"]),
            _ => masked.push_str(body),
        }
        masked.push_str(end);
    }
    format!("{scheme}://{host}{masked}")
}

/// A value as TOML writes it in line. JSON's escapes are TOML's as well.
pub(super) fn toml_value(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Json::Object(map) if map.is_empty() => "{}".to_owned(),
        Json::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key} = {}", toml_value(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::mask_address;

    #[test]
    fn credentials_in_addresses_are_masked() {
        assert_eq!(mask_address("https://me:pw@host/a?token=x&b=1#sig=2"), "https://…@host/a?token=…&b=1#sig=…");
        assert_eq!(mask_address("kafka://a:1,b:2/t?sasl.password.file=/p"), "kafka://a:1,b:2/t?sasl.password.file=/p");
        assert_eq!(mask_address("/var/log/audit.log"), "/var/log/audit.log");
    }
}
