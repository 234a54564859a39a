//! Sigma rules for Kubernetes audit logs (`product: kubernetes`, `service: audit`).
//!
//! The parser crate that is kept best, `rsigma-parser`, is not used: its newest release wants a newer compiler than
//! ours, it brings a second YAML library and a parser generator, and what is left of it here, names with modifiers and a
//! small grammar of conditions ([`super::condition`]), is shorter than its conversion would be.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::compare::{Pattern, Piece, Test, Value, compare};
use super::condition;
use super::expr::Expr;
use super::fields::at_path;
use super::{Imported, Problems, Refusal, Rule, documents, texts};
use crate::detection::SourceFile;
use crate::model::Severity;

/// Converts every rule of the files.
pub(super) fn import(files: &[SourceFile]) -> Vec<Imported> {
    files.iter().flat_map(import_file).collect()
}

fn import_file(file: &SourceFile) -> Vec<Imported> {
    let documents = match documents(&file.text) {
        Ok(documents) => documents,
        Err(reason) => return vec![Imported::unreadable(file, &reason)],
    };
    documents.iter().enumerate().filter(|(_, document)| !document.is_null()).map(|one| rule(file, one)).collect()
}

fn rule(file: &SourceFile, (index, document): (usize, &Json)) -> Imported {
    let title = document["title"].as_str().unwrap_or_default().trim();
    let name = if title.is_empty() { format!("document {}", index + 1) } else { title.to_owned() };
    let outcome = match foreign(document) {
        Some(reason) => Err(Refusal::Skipped(reason)),
        None => convert(document, &name),
    };
    Imported { file: Arc::clone(&file.path), name, outcome }
}

/// Why a rule is not about Kubernetes audit logs.
fn foreign(document: &Json) -> Option<String> {
    if document.get("correlation").is_some() || document.get("filter").is_some() || document.get("action").is_some() {
        return None;
    }
    let source = document.get("logsource")?;
    let word = |key: &str| source[key].as_str().unwrap_or("any").to_lowercase();
    let (product, service) = (word("product"), word("service"));
    if product == "kubernetes" && (service == "audit" || service == "any") {
        return None;
    }
    Some(format!("it is about other logs: product {product}, service {service}"))
}

fn convert(document: &Json, name: &str) -> Result<Box<Rule>, Refusal> {
    let mut problems = Problems::default();
    for (key, reason) in [
        ("correlation", "it correlates other rules over a time: write it as a detection with a window or a sequence"),
        ("filter", "a filter changes other rules: write an exception for the converted detections"),
        ("action", "rules made of several documents by 'action' are not put together; convert them to plain ones"),
    ] {
        if document.get(key).is_some() {
            problems.add(key, reason);
        }
    }
    if !problems.is_empty() {
        return Err(Refusal::Problems(problems.list));
    }
    let mut reader = Reader { problems, notes: Vec::new() };
    let condition = reader.detection(&document["detection"]);
    let Reader { mut problems, mut notes } = reader;
    if condition == Expr::Constant(false) && problems.is_empty() {
        problems.add("detection", "it can never hold for an event that is evaluated");
    }
    if !problems.is_empty() {
        return Err(Refusal::Problems(problems.list));
    }
    if let Some(status @ ("deprecated" | "unsupported")) = document["status"].as_str() {
        notes.push(format!("its authors call it {status}"));
    }
    let text = |key: &str| document[key].as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(Box::new(Rule {
        prefix: "sigma",
        title: name.to_owned(),
        uid: text("id"),
        author: text("author"),
        licence: Some(text("license").unwrap_or_else(|| {
            "the file names none; rules of SigmaHQ are under the Detection Rule License, which asks to name the author"
                .to_owned()
        })),
        severity: severity(text("level").as_deref(), &mut notes),
        tags: texts(&document["tags"]),
        description: text("description").unwrap_or_else(|| name.to_owned()),
        false_positives: texts(&document["falsepositives"])
            .into_iter()
            .filter(|text| !matches!(text.to_lowercase().as_str(), "unknown" | "none" | "unlikely"))
            .collect(),
        references: texts(&document["references"]),
        condition,
        summary: None,
        notes,
    }))
}

fn severity(level: Option<&str>, notes: &mut Vec<String>) -> Severity {
    let known = level.and_then(|level| Severity::ALL.into_iter().find(|known| known.as_str() == level));
    known.unwrap_or_else(|| {
        notes.push("it names no level; medium is a guess".to_owned());
        Severity::Medium
    })
}

struct Reader {
    problems: Problems,
    notes: Vec<String>,
}

impl Reader {
    fn detection(&mut self, detection: &Json) -> Expr {
        let Some(map) = detection.as_object() else {
            self.problems.add("detection", "it is missing or no mapping");
            return Expr::Constant(false);
        };
        if map.contains_key("timeframe") {
            self.problems.add("detection.timeframe", "one event cannot decide what happens over a time");
        }
        let names: Vec<&str> =
            map.keys().map(String::as_str).filter(|key| !matches!(*key, "condition" | "timeframe")).collect();
        let conditions = texts(&map.get("condition").cloned().unwrap_or_default());
        if conditions.is_empty() {
            self.problems.add("detection.condition", "it is missing");
        }
        let mut used = Vec::new();
        let mut parts = Vec::new();
        for text in &conditions {
            let mut named = |name: &str| {
                used.push(name.to_owned());
                self.section(&format!("detection.{name}"), &map[name])
            };
            match condition::parse(text, &names, &mut named) {
                Ok(expr) => parts.push(expr),
                Err(reason) => self.problems.add("detection.condition", format!("'{text}': {reason}")),
            }
        }
        for name in names.iter().filter(|name| !used.iter().any(|used| used == *name)) {
            self.notes.push(format!("the condition does not use '{name}'"));
        }
        Expr::any(parts)
    }

    fn section(&mut self, place: &str, section: &Json) -> Expr {
        match section {
            Json::Object(items) => self.items(place, items),
            Json::Array(parts) if !parts.is_empty() && parts.iter().all(Json::is_object) => {
                let parts = parts.iter().filter_map(Json::as_object);
                Expr::any(parts.map(|items| self.items(place, items)).collect::<Vec<_>>())
            }
            _ => {
                let reason = "keywords are looked for in the whole event, and no column holds it";
                self.problems.add(place, reason);
                Expr::Constant(true)
            }
        }
    }

    fn items(&mut self, place: &str, items: &Map<String, Json>) -> Expr {
        if items.is_empty() {
            self.problems.add(place, "it is empty");
        }
        let mut parts = Vec::new();
        for (key, value) in items {
            match self.item(key, value) {
                Ok(expr) => parts.push(expr),
                Err(reason) => self.problems.add(format!("{place}.{key}"), reason),
            }
        }
        Expr::all(parts)
    }

    fn item(&mut self, key: &str, value: &Json) -> Result<Expr, String> {
        let mut parts = key.split('|');
        let name = parts.next().unwrap_or_default().trim();
        if name.is_empty() {
            return Err("keywords are looked for in the whole event, and no column holds it".to_owned());
        }
        let field = at_path(name).ok_or_else(|| format!("'{name}' is no field of a Kubernetes audit event"))?;
        let modifiers = Modifiers::read(parts)?;
        let test = modifiers.values(value)?;
        if let Some(note) = field.note {
            self.note(name, &field.sql, note);
        }
        let fold = !modifiers.cased;
        let one = |values: Vec<Value>| modifiers.compare(&field, values, fold);
        let expr = match test {
            Values::Exists(true) => compare(&field, &Test::Exists, fold)?,
            Values::Exists(false) => Expr::not(compare(&field, &Test::Exists, fold)?),
            Values::Field(other) => modifiers.other_field(&field, &other, fold)?,
            Values::Some(values) if modifiers.all => {
                Expr::all(values.into_iter().map(|value| one(vec![value])).collect::<Result<Vec<_>, _>>()?)
            }
            Values::Some(values) => one(values)?,
        };
        if name == "verb" && value.to_string().contains("\"replace\"") {
            self.notes.push("'replace' is no verb of audit events: a replacement is logged as update".to_owned());
        }
        Ok(if modifiers.negated { Expr::not(expr) } else { expr })
    }

    fn note(&mut self, name: &str, sql: &str, note: &str) {
        let note = format!("{name} is read as {sql}: {note}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// How a field's values are compared.
#[derive(Default)]
struct Modifiers {
    how: How,
    all: bool,
    cased: bool,
    negated: bool,
    exists: bool,
    fieldref: bool,
    dashes: bool,
    base64: Option<Base64>,
    /// Flags of a regular expression.
    flags: String,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum How {
    #[default]
    Is,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    InNetwork,
    Order(&'static str),
    Part(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Base64 {
    Plain,
    Offset,
}

enum Values {
    Some(Vec<Value>),
    Exists(bool),
    Field(String),
}

impl Modifiers {
    fn read<'a>(names: impl Iterator<Item = &'a str>) -> Result<Modifiers, String> {
        let mut modifiers = Modifiers::default();
        for name in names {
            modifiers.add(name)?;
        }
        Ok(modifiers)
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        match name {
            "contains" => self.how = How::Contains,
            "startswith" => self.how = How::StartsWith,
            "endswith" => self.how = How::EndsWith,
            "re" => self.how = How::Matches,
            "cidr" => self.how = How::InNetwork,
            "gt" => self.how = How::Order(">"),
            "gte" => self.how = How::Order(">="),
            "lt" => self.how = How::Order("<"),
            "lte" => self.how = How::Order("<="),
            "neq" => self.negated = true,
            "minute" => self.how = How::Part("minute"),
            "hour" => self.how = How::Part("hour"),
            "day" => self.how = How::Part("day"),
            "week" => self.how = How::Part("week"),
            "month" => self.how = How::Part("month"),
            "year" => self.how = How::Part("year"),
            "all" => self.all = true,
            "cased" => self.cased = true,
            "exists" => self.exists = true,
            "fieldref" => self.fieldref = true,
            "windash" => self.dashes = true,
            "base64" => self.base64 = Some(Base64::Plain),
            "base64offset" => self.base64 = Some(Base64::Offset),
            "i" | "ignorecase" => self.flags.push('i'),
            "m" | "multiline" => self.flags.push('m'),
            "s" | "dotall" => self.flags.push('s'),
            "wide" | "utf16" | "utf16le" | "utf16be" => {
                return Err(format!("modifier '{name}': audit events hold no UTF-16"));
            }
            "expand" => return Err("modifier 'expand': a placeholder stands for values that the rule lacks".to_owned()),
            "not" => return Err("'not' is no modifier of Sigma: negate in the condition".to_owned()),
            other => return Err(format!("unknown modifier '{other}'")),
        }
        Ok(())
    }

    /// The values, with what the modifiers make of them.
    fn values(&self, value: &Json) -> Result<Values, String> {
        if self.exists {
            let wanted = value.as_bool().ok_or("modifier 'exists' wants true or false")?;
            return Ok(Values::Exists(wanted));
        }
        if self.fieldref {
            let other = value.as_str().ok_or("modifier 'fieldref' wants the name of one field")?;
            return Ok(Values::Field(other.to_owned()));
        }
        let list = match value {
            Json::Array(list) if list.is_empty() => return Err("it has no values".to_owned()),
            Json::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut values = Vec::new();
        for item in list {
            values.extend(self.value(item)?);
        }
        Ok(Values::Some(values))
    }

    fn value(&self, item: &Json) -> Result<Vec<Value>, String> {
        let text = match item {
            Json::Null => return Ok(vec![Value::Null]),
            Json::Bool(flag) => return Ok(vec![Value::Flag(*flag)]),
            Json::Number(number) => return Ok(vec![Value::Number(number.to_string())]),
            Json::String(text) => text,
            Json::Array(_) | Json::Object(_) => {
                return Err("a value is a text, a number, true, false or null".to_owned());
            }
        };
        if text.chars().any(char::is_control) {
            return Err("a value holds control characters".to_owned());
        }
        if matches!(self.how, How::Matches | How::InNetwork) {
            return Ok(vec![Value::plain(text)]);
        }
        let texts = if self.dashes { dashes(text) } else { vec![text.clone()] };
        Ok(match self.base64 {
            None => texts.iter().map(|text| Value::Text(pattern(text))).collect(),
            Some(form) => texts.iter().flat_map(|text| encoded(text, form)).map(|text| Value::plain(&text)).collect(),
        })
    }

    fn compare(&self, field: &super::fields::Field, values: Vec<Value>, fold: bool) -> Result<Expr, String> {
        let words = |values: &[Value]| values.iter().map(|value| value.word().unwrap_or_default()).collect::<Vec<_>>();
        let test = match self.how {
            How::Is => Test::Is(values),
            How::Contains => Test::Contains(values),
            How::StartsWith => Test::StartsWith(values),
            How::EndsWith => Test::EndsWith(values),
            How::Matches => Test::Matches(self.expressions(&words(&values))?),
            How::InNetwork => Test::InNetwork(words(&values)),
            How::Part(part) => Test::Part(part, values),
            How::Order(operator) => {
                let [number] = words(&values).try_into().map_err(|_| "an order wants one number")?;
                if number.parse::<f64>().is_err() {
                    return Err(format!("'{number}' is no number"));
                }
                Test::Order(operator, number)
            }
        };
        // Where base64 is compared, letters of other case are other bytes.
        compare(field, &test, fold && self.base64.is_none())
    }

    fn expressions(&self, patterns: &[String]) -> Result<Vec<String>, String> {
        let flags = if self.flags.is_empty() { String::new() } else { format!("(?{})", self.flags) };
        let checked = patterns.iter().map(|pattern| match regex::Regex::new(pattern) {
            Ok(_) => Ok(format!("{flags}{pattern}")),
            Err(_) => Err(format!(
                "'{pattern}' is no regular expression of the sort that is run here, which has no look-around and no \
                 back references"
            )),
        });
        checked.collect()
    }

    fn other_field(&self, field: &super::fields::Field, other: &str, fold: bool) -> Result<Expr, String> {
        let second = at_path(other).ok_or_else(|| format!("'{other}' is no field of a Kubernetes audit event"))?;
        let is_text = |field: &super::fields::Field| matches!(field.kind, super::fields::Kind::Text(_));
        if !is_text(field) || !is_text(&second) {
            return Err("modifier 'fieldref' can only compare texts".to_owned());
        }
        let side = |sql: &str| if fold { format!("lower({sql})") } else { sql.to_owned() };
        let (left, right) = (side(&field.sql), side(&second.sql));
        Ok(Expr::atom(match self.how {
            How::Is => format!("{left} = {right}"),
            How::Contains => format!("contains({left}, {right})"),
            How::StartsWith => format!("starts_with({left}, {right})"),
            How::EndsWith => format!("ends_with({left}, {right})"),
            _ => return Err("modifier 'fieldref' goes with contains, startswith and endswith alone".to_owned()),
        }))
    }
}

/// A text with Sigma's wildcards: `*`, `?`, and a backslash before them where they are meant themselves.
fn pattern(text: &str) -> Pattern {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let piece = match c {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => {
                let next = chars.next_if(|next| matches!(next, '*' | '?' | '\\'));
                plain.push(next.unwrap_or('\\'));
                continue;
            }
            other => {
                plain.push(other);
                continue;
            }
        };
        if !plain.is_empty() {
            pieces.push(Piece::Plain(std::mem::take(&mut plain)));
        }
        pieces.push(piece);
    }
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
    Pattern(pieces)
}

/// Every dash that a Windows program takes for `-`, as the rule wants it.
fn dashes(text: &str) -> Vec<String> {
    ["-", "/", "\u{2013}", "\u{2014}", "\u{2015}"].iter().map(|dash| text.replace('-', dash)).collect()
}

/// A text in base64: by itself, or at any place of a longer one.
fn encoded(text: &str, form: Base64) -> Vec<String> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let offsets = if form == Base64::Offset { 0..3 } else { 0..1 };
    let at = |offset: usize| {
        let mut bytes = vec![b' '; offset];
        bytes.extend_from_slice(text.as_bytes());
        let whole = engine.encode(&bytes);
        if form == Base64::Plain {
            return whole;
        }
        // Characters that also hold bits of what stands before and behind are left out.
        let (from, to) = ([0, 2, 3][offset], [0, 3, 2][bytes.len() % 3]);
        let end = whole.len().saturating_sub(to);
        whole.get(from..end).unwrap_or_default().to_owned()
    };
    offsets.map(at).collect()
}
