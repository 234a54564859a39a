//! Falco rules over Kubernetes audit events (`source: k8s_audit`): rules, macros and lists of all files together, in the
//! order in which Falco reads them, with what later ones append to or override in earlier ones.
//!
//! No crate reads Falco's rules; its conditions are [`super::falco_condition`]'s.

use std::sync::Arc;

use serde_json::Value as Json;

use super::expr::Expr;
use super::falco_condition::{Scope, exception};
use super::{Imported, Problems, Refusal, Rule, documents, texts};
use crate::detection::SourceFile;
use crate::model::Severity;

/// Converts every rule of the files.
pub(super) fn import(files: &[SourceFile]) -> Vec<Imported> {
    let mut loader = Loader::default();
    for file in files {
        match documents(&file.text) {
            Ok(parts) => parts.iter().for_each(|part| loader.document(file, part)),
            Err(reason) => loader.imported.push(Imported::unreadable(file, &reason)),
        }
    }
    loader.finish()
}

/// A rule with what was appended to it.
struct Source {
    file: Arc<str>,
    licence: Option<String>,
    /// Its keys.
    keys: serde_json::Map<String, Json>,
}

#[derive(Default)]
struct Loader {
    scope: Scope,
    /// In the order of their first definition.
    rules: Vec<(String, Source)>,
    imported: Vec<Imported>,
}

impl Loader {
    fn document(&mut self, file: &SourceFile, document: &Json) {
        match document {
            Json::Array(items) => items.iter().for_each(|item| self.item(file, item)),
            Json::Null => {}
            _ => {
                let reason = "a file of Falco's is a list of rules, macros and lists";
                self.imported.push(Imported::unreadable(file, reason));
            }
        }
    }

    fn item(&mut self, file: &SourceFile, item: &Json) {
        let name = |key: &str| item[key].as_str().map(|name| name.trim().to_owned());
        let appends = |key: &str| item["append"] == true || item["override"][key] == "append";
        if let Some(name) = name("list") {
            let items = texts(&item["items"]);
            let known = self.scope.lists.entry(name).or_default();
            if !appends("items") {
                known.clear();
            }
            known.extend(items);
        } else if let Some(name) = name("macro") {
            let condition = item["condition"].as_str().unwrap_or_default();
            let known = self.scope.macros.entry(name).or_default();
            join(known, condition, appends("condition"));
        } else if let Some(name) = name("rule") {
            self.rule(file, name, item);
        }
    }

    fn rule(&mut self, file: &SourceFile, name: String, item: &Json) {
        let Some(keys) = item.as_object() else { return };
        let position = self.rules.iter().position(|(known, _)| *known == name);
        let overrides = item["override"].as_object();
        let changes = item["append"] == true || overrides.is_some() || !keys.contains_key("condition");
        let Some(known) = position.and_then(|at| self.rules.get_mut(at)).map(|(_, known)| known) else {
            if changes && !keys.contains_key("condition") || item["append"] == true || overrides.is_some() {
                let mut problems = Problems::default();
                problems.add("rule", "it changes a rule that none of the files defines before it");
                let outcome = Err(Refusal::Problems(problems.list));
                self.imported.push(Imported { file: Arc::clone(&file.path), name, outcome });
                return;
            }
            let source = Source { file: Arc::clone(&file.path), licence: licence(&file.text), keys: keys.clone() };
            self.rules.push((name, source));
            return;
        };
        if !changes {
            known.keys.clone_from(keys);
            known.file = Arc::clone(&file.path);
            return;
        }
        for (key, value) in keys.iter().filter(|(key, _)| !matches!(key.as_str(), "rule" | "append" | "override")) {
            let append = item["append"] == true || item["override"][key.as_str()] == "append";
            change(&mut known.keys, key, value, append);
        }
    }

    fn finish(self) -> Vec<Imported> {
        let Loader { scope, rules, mut imported } = self;
        for (name, source) in rules {
            let kind = source.keys.get("source").and_then(Json::as_str).unwrap_or("syscall");
            let outcome = if kind == "k8s_audit" {
                convert(&scope, &name, &source)
            } else {
                Err(Refusal::Skipped(format!("it is about another source: {kind}")))
            };
            imported.push(Imported { file: source.file, name, outcome });
        }
        imported
    }
}

/// Puts a condition behind another, as Falco does: as text.
fn join(known: &mut String, text: &str, append: bool) {
    if append && !known.is_empty() {
        known.push(' ');
        known.push_str(text.trim());
    } else {
        *known = text.trim().to_owned();
    }
}

fn change(keys: &mut serde_json::Map<String, Json>, key: &str, value: &Json, append: bool) {
    let known = keys.entry(key.to_owned()).or_insert(Json::Null);
    match (known, value) {
        (Json::String(known), Json::String(more)) if append => join(known, more, true),
        (Json::Array(known), Json::Array(more)) if append && key == "exceptions" => append_exceptions(known, more),
        (Json::Array(known), Json::Array(more)) if append => known.extend(more.iter().cloned()),
        (known, value) => *known = value.clone(),
    }
}

/// Values of an exception that is known by its name; others are new.
fn append_exceptions(known: &mut Vec<Json>, more: &[Json]) {
    for one in more {
        let same = known.iter_mut().find(|known| known["name"].is_string() && known["name"] == one["name"]);
        match same.map(|same| &mut same["values"]) {
            Some(Json::Array(values)) => values.extend(one["values"].as_array().into_iter().flatten().cloned()),
            Some(values) => *values = one["values"].clone(),
            None => known.push(one.clone()),
        }
    }
}

/// What a file's first lines say about its licence.
fn licence(text: &str) -> Option<String> {
    let line = text.lines().take_while(|line| line.starts_with('#') || line.trim().is_empty());
    line.filter_map(|line| line.split_once("SPDX-License-Identifier:")).map(|(_, id)| id.trim().to_owned()).next()
}

fn convert(scope: &Scope, name: &str, source: &Source) -> Result<Box<Rule>, Refusal> {
    let text = |key: &str| source.keys.get(key).and_then(Json::as_str).map(str::trim).unwrap_or_default();
    let mut problems = Problems::default();
    let mut notes = Vec::new();
    let condition = scope.condition(text("condition"), &mut problems, &mut notes);
    let exceptions: Vec<Expr> = source
        .keys
        .get("exceptions")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .map(|entry| exception(scope, entry, &mut problems, &mut notes))
        .collect();
    let condition = Expr::all(std::iter::once(condition).chain(exceptions.into_iter().map(Expr::not)));
    if condition == Expr::Constant(false) && problems.is_empty() {
        return Err(Refusal::Skipped("it is switched off: by its macros it can never hold".to_owned()));
    }
    if !problems.is_empty() {
        return Err(Refusal::Problems(problems.list));
    }
    if source.keys.get("enabled") == Some(&Json::Bool(false)) {
        notes.push("it is switched off in its file".to_owned());
    }
    Ok(Box::new(Rule {
        prefix: "falco",
        title: name.to_owned(),
        uid: None,
        author: None,
        licence: Some(
            source
                .licence
                .clone()
                .unwrap_or_else(|| "the file names none; Falco's own rules are under Apache-2.0".to_owned()),
        ),
        severity: severity(text("priority"), &mut notes),
        tags: source.keys.get("tags").map(texts).unwrap_or_default(),
        description: Some(text("desc")).filter(|text| !text.is_empty()).unwrap_or(name).to_owned(),
        false_positives: Vec::new(),
        references: Vec::new(),
        condition,
        summary: Some(summary(text("output"))).filter(|text| !text.is_empty()),
        notes,
    }))
}

fn severity(priority: &str, notes: &mut Vec<String>) -> Severity {
    match priority.to_ascii_uppercase().as_str() {
        "EMERGENCY" | "ALERT" | "CRITICAL" => Severity::Critical,
        "ERROR" => Severity::High,
        "WARNING" => Severity::Medium,
        "NOTICE" => Severity::Low,
        "INFO" | "INFORMATIONAL" | "DEBUG" => Severity::Informational,
        _ => {
            notes.push(format!("'{priority}' is no priority; medium is a guess"));
            Severity::Medium
        }
    }
}

/// Falco's output with our columns; what no column holds is left out, with the words that announce it.
fn summary(output: &str) -> String {
    let plain = output.split_whitespace().collect::<Vec<_>>().join(" ").replace('{', "{{").replace('}', "}}");
    let fields = regex::Regex::new(r"(?:[\w.]+[=:] ?)?%([a-z][\w.]*[\w])(\[[^\]]*\])?").expect("a constant pattern");
    let replaced = fields.replace_all(&plain, |found: &regex::Captures<'_>| {
        let (name, argument) = (&found[1], found.get(2).map(|part| part.as_str().trim_matches(['[', ']'])));
        let before = found[0].split('%').next().unwrap_or_default();
        super::falco_condition::column(name, argument)
            .map_or_else(String::new, |column| format!("{before}{{{column}}}"))
    });
    let tidy = replaced.split_whitespace().collect::<Vec<_>>().join(" ");
    tidy.replace(" )", ")").replace("()", "").replace(" ,", ",").trim().to_owned()
}
