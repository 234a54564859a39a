//! Conditions as Falco writes them: `kevt and ka.verb in (create, update) and not trusted`.
//!
//! `not` binds tightest, then `and`, then `or`. A name without an operator is a macro; a name in a list may be a list.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::compare::{Pattern, Piece, Test, Value, compare};
use super::expr::{Expr, literal};
use super::fields::{Field, Form, Kind, at_path};
use super::grammar::{DEPTH_MAX, Grammar};
use super::{Problems, texts};
use crate::detection::suggest;
use crate::model::Column;

/// Comparisons that one rule may grow to by its macros.
const COMPARISONS_MAX: usize = 2_000;

/// What a condition may name.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub lists: BTreeMap<String, Vec<String>>,
    pub macros: BTreeMap<String, String>,
}

impl Scope {
    /// The condition, with its macros and lists put in. What cannot be said is added to the problems.
    pub(super) fn condition(&self, text: &str, problems: &mut Problems, notes: &mut Vec<String>) -> Expr {
        let mut reader = Reader { scope: self, problems, notes, comparisons: 0, macros: 0 };
        reader.read(text, "condition", 0)
    }

    /// Items with those of the lists that they name.
    fn expanded(&self, items: &[String], depth: usize, out: &mut Vec<String>) {
        for item in items {
            match self.lists.get(item) {
                Some(inner) if depth < DEPTH_MAX => self.expanded(inner, depth + 1, out),
                _ if !out.contains(item) => out.push(item.clone()),
                _ => {}
            }
        }
    }
}

/// What an entry of `exceptions` leaves out.
pub(super) fn exception(scope: &Scope, entry: &Json, problems: &mut Problems, notes: &mut Vec<String>) -> Expr {
    let place = format!("exceptions.{}", entry["name"].as_str().unwrap_or("?"));
    let single = entry["fields"].is_string();
    let fields = texts(&entry["fields"]);
    let default = if single { "in" } else { "=" };
    let mut comparisons = texts(&entry["comps"]);
    if comparisons.is_empty() {
        comparisons = vec![default.to_owned(); fields.len()];
    }
    if fields.is_empty() || fields.len() != comparisons.len() {
        problems.add(place, "as many comparisons as fields are needed");
        return Expr::Constant(false);
    }
    let mut reader = Reader { scope, problems, notes, comparisons: 0, macros: 0 };
    let values = entry["values"].as_array().cloned().unwrap_or_default();
    if single {
        let items: Vec<String> = values.iter().flat_map(texts).collect();
        let operator = comparisons.first().map_or("in", String::as_str);
        return if items.is_empty() {
            Expr::Constant(false)
        } else {
            reader.compared(&place, &fields[0], operator, &items)
        };
    }
    let rows = values.iter().map(|row| {
        let row = row.as_array().cloned().unwrap_or_default();
        if row.len() != fields.len() {
            reader.problems.add(place.clone(), "a row of values has to have one for each field");
        }
        let parts: Vec<Expr> = fields
            .iter()
            .zip(&comparisons)
            .zip(&row)
            .map(|((field, operator), value)| reader.compared(&place, field, operator, &texts(value)))
            .collect();
        Expr::all(parts)
    });
    Expr::any(rows.collect::<Vec<_>>())
}

/// The column that a field of Falco's output shows; none where no single one does.
pub(super) fn column(name: &str, argument: Option<&str>) -> Option<&'static str> {
    let column = match (name, argument) {
        ("ka.uri.param", Some("command")) => "exec_command".to_owned(),
        ("ka.uri.param", Some("container")) => "exec_container".to_owned(),
        ("ka.resp.name", _) => "name".to_owned(),
        _ => resolve(name, argument).ok()?.field.sql,
    };
    Column::by_name(&column).map(Column::name).filter(|name| !matches!(*name, "rules" | "containers" | "subjects"))
}

struct Reader<'a> {
    scope: &'a Scope,
    problems: &'a mut Problems,
    notes: &'a mut Vec<String>,
    comparisons: usize,
    /// Macros that were put in.
    macros: usize,
}

impl Reader<'_> {
    fn read(&mut self, text: &str, place: &str, depth: usize) -> Expr {
        let mut parser = Parser { rest: text, place, reader: self };
        match parser.or(depth) {
            Ok(expr) if parser.rest.trim().is_empty() => expr,
            Ok(_) => {
                let rest = parser.rest.trim().to_owned();
                self.problems.add(place, format!("'{}' is not expected there", start(&rest)));
                Expr::Constant(true)
            }
            Err(reason) => {
                self.problems.add(place, reason);
                Expr::Constant(true)
            }
        }
    }

    /// A comparison out of an exception.
    fn compared(&mut self, place: &str, field: &str, operator: &str, items: &[String]) -> Expr {
        let (name, argument) = match field.strip_suffix(']').and_then(|field| field.split_once('[')) {
            Some((name, argument)) => (name, Some(argument)),
            None => (field, None),
        };
        match self.comparison(name, argument, operator, items, false) {
            Ok(expr) => expr,
            Err(reason) => {
                self.problems.add(format!("{place}: {field} {operator}"), reason);
                Expr::Constant(false)
            }
        }
    }

    fn comparison(
        &mut self,
        name: &str,
        argument: Option<&str>,
        operator: &str,
        items: &[String],
        fold: bool,
    ) -> Result<Expr, String> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            return Err(format!("with its macros it has more than {COMPARISONS_MAX} comparisons"));
        }
        if name.starts_with("jevt.raw") || name == "jevt.time" {
            return match (operator, items) {
                ("exists", _) => Ok(Expr::Constant(true)),
                ("=" | "==", [zero]) if zero == "0" => Ok(Expr::Constant(false)),
                _ => Err("the time of the event is only known to exist".to_owned()),
            };
        }
        let mut values = Vec::new();
        self.scope.expanded(items, 0, &mut values);
        if values.iter().any(|value| value.chars().any(char::is_control)) {
            return Err("a value holds control characters".to_owned());
        }
        if name == "ka.uri.param" {
            return uri_param(argument.unwrap_or_default(), operator, &values);
        }
        if name == "ka.req.volume.hostpath" {
            return Ok(Expr::atom(host_path(argument.unwrap_or_default(), operator, &values)?));
        }
        if name == "ka.req.container.privileged" && values != ["true"] {
            return Err("it can only be compared with true".to_owned());
        }
        if name == "ka.req.pod.volumes.volume_type" {
            return volume_type(operator, &values);
        }
        let found = resolve(name, argument)?;
        if let Some(note) = found.field.note {
            let note = format!("{name} is read as {}: {note}", found.field.sql);
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
        found.test(operator, values, fold)
    }
}

/// A field of Falco's.
struct Found {
    field: Field,
    /// Falco takes it for a list, of which `in` means all.
    list: bool,
    /// An image without its tag.
    repository: bool,
}

impl Found {
    fn test(&self, operator: &str, values: Vec<String>, fold: bool) -> Result<Expr, String> {
        let plain = |values: &[String]| -> Vec<Value> {
            if self.repository && !self.list {
                let before =
                    |value: &str, mark: &str| Pattern(vec![Piece::Plain(format!("{value}{mark}")), Piece::Any]);
                let forms = |value: &String| {
                    [Value::plain(value), Value::Text(before(value, ":")), Value::Text(before(value, "@"))]
                };
                return values.iter().flat_map(forms).collect();
            }
            values.iter().map(|value| Value::plain(value)).collect()
        };
        let words = plain(&values);
        let ask = |test: Test, fold: bool| compare(&self.field, &test, fold);
        let per_container = matches!(self.field.kind, Kind::Flag | Kind::Container(..) | Kind::Inside(_));
        match operator {
            "=" | "==" | "intersects" => ask(Test::Is(words), fold),
            "!=" => Ok(Expr::all([ask(Test::Exists, fold)?, Expr::not(ask(Test::Is(words), fold)?)])),
            "in" if values.is_empty() => Ok(Expr::Constant(false)),
            "in" if self.list && per_container => {
                Err("'in' asks whether all containers have one of the values; 'intersects' can be converted".to_owned())
            }
            "in" if self.list => ask(Test::AllAmong(words), fold),
            "in" => ask(Test::Is(words), fold),
            "contains" => ask(Test::Contains(words), fold),
            "icontains" => ask(Test::Contains(words), true),
            "startswith" => ask(Test::StartsWith(words), fold),
            "istartswith" => ask(Test::StartsWith(words), true),
            "endswith" => ask(Test::EndsWith(words), fold),
            "iendswith" => ask(Test::EndsWith(words), true),
            "glob" | "iglob" => {
                let globs = values.iter().map(|value| glob(value)).collect::<Result<Vec<_>, _>>()?;
                ask(Test::Is(globs), fold || operator == "iglob")
            }
            "regex" => {
                if let Some(wrong) = values.iter().find(|value| regex::Regex::new(value).is_err()) {
                    return Err(format!("'{wrong}' is no regular expression of the sort that is run here"));
                }
                // Falco's has to match the whole.
                ask(Test::Matches(values.iter().map(|value| format!("^(?:{value})$")).collect()), fold)
            }
            "pmatch" => ask(Test::Below(values), fold),
            "exists" => ask(Test::Exists, fold),
            "<" | "<=" | ">" | ">=" => {
                let [number] = values.try_into().map_err(|_| "an order wants one number".to_owned())?;
                if number.parse::<f64>().is_err() {
                    return Err(format!("'{number}' is no number"));
                }
                let operator = match operator {
                    "<" => "<",
                    "<=" => "<=",
                    ">" => ">",
                    _ => ">=",
                };
                ask(Test::Order(operator, number), fold)
            }
            other => Err(format!("operator '{other}' compares bytes, or is unknown")),
        }
    }
}

/// Falco's names of paths into the event, and whether it takes them for lists.
const FIELDS: &[(&str, &str, bool)] = &[
    ("ka.auditid", "auditID", false),
    ("ka.stage", "stage", false),
    ("ka.auth.decision", "annotations.authorization.k8s.io/decision", false),
    ("ka.auth.reason", "annotations.authorization.k8s.io/reason", false),
    ("ka.user.name", "user.username", false),
    ("ka.user.groups", "user.groups", true),
    ("ka.impuser.name", "impersonatedUser.username", false),
    ("ka.verb", "verb", false),
    ("ka.uri", "requestURI", false),
    ("ka.target.name", "objectRef.name", false),
    ("ka.target.namespace", "objectRef.namespace", false),
    ("ka.target.resource", "objectRef.resource", false),
    ("ka.target.subresource", "objectRef.subresource", false),
    ("ka.req.binding.role", "requestObject.roleRef.name", false),
    ("ka.req.configmap.name", "objectRef.name", false),
    ("ka.req.configmap.obj", "requestObject.data", false),
    ("ka.req.pod.containers.image", "requestObject.spec.containers.image", true),
    ("ka.req.pod.containers.image.repository", "requestObject.spec.containers.image", true),
    ("ka.req.container.image", "requestObject.spec.containers[0].image", false),
    ("ka.req.container.image.repository", "requestObject.spec.containers[0].image", false),
    ("ka.req.pod.host_ipc", "requestObject.spec.hostIPC", false),
    ("ka.req.pod.host_network", "requestObject.spec.hostNetwork", false),
    ("ka.req.container.host_network", "requestObject.spec.hostNetwork", false),
    ("ka.req.pod.host_pid", "requestObject.spec.hostPID", false),
    ("ka.req.pod.containers.host_port", "requestObject.spec.containers.ports.hostPort", true),
    ("ka.req.pod.containers.privileged", "requestObject.spec.containers.securityContext.privileged", true),
    ("ka.req.container.privileged", "requestObject.spec.containers.securityContext.privileged", true),
    (
        "ka.req.pod.containers.allow_privilege_escalation",
        "requestObject.spec.containers.securityContext.allowPrivilegeEscalation",
        true,
    ),
    (
        "ka.req.pod.containers.read_only_fs",
        "requestObject.spec.containers.securityContext.readOnlyRootFilesystem",
        true,
    ),
    ("ka.req.pod.run_as_user", "requestObject.spec.securityContext.runAsUser", false),
    ("ka.req.pod.containers.run_as_user", "requestObject.spec.containers.securityContext.runAsUser", true),
    ("ka.req.pod.run_as_group", "requestObject.spec.securityContext.runAsGroup", false),
    ("ka.req.pod.containers.run_as_group", "requestObject.spec.containers.securityContext.runAsGroup", true),
    ("ka.req.pod.containers.proc_mount", "requestObject.spec.containers.securityContext.procMount", true),
    ("ka.req.pod.containers.add_capabilities", "requestObject.spec.containers.securityContext.capabilities.add", true),
    ("ka.req.pod.fs_group", "requestObject.spec.securityContext.fsGroup", false),
    ("ka.req.pod.volumes.hostpath", "requestObject.spec.volumes.hostPath.path", true),
    ("ka.req.pod.volumes.flexvolume_driver", "requestObject.spec.volumes.flexVolume.driver", true),
    ("ka.req.role.rules.apiGroups", "requestObject.rules.apiGroups", true),
    ("ka.req.role.rules.nonResourceURLs", "requestObject.rules.nonResourceURLs", true),
    ("ka.req.role.rules.verbs", "requestObject.rules.verbs", true),
    ("ka.req.role.rules.resources", "requestObject.rules.resources", true),
    ("ka.req.service.type", "requestObject.spec.type", false),
    ("ka.resp.name", "responseObject.metadata.name", false),
    ("ka.response.code", "responseStatus.code", false),
    ("ka.response.reason", "responseStatus.reason", false),
    ("ka.useragent", "userAgent", false),
];

/// Fields that no column and no place of the JSON stands for, and why.
const WITHOUT: &[(&str, &str)] = &[
    (
        "ka.req.binding.subjects",
        "whole subjects are compared as JSON; compare names: jevt.value cannot, subject_names can",
    ),
    ("ka.req.binding.subject.has_name", "Falco itself no longer fills it"),
    ("ka.req.pod.containers.eff_run_as_user", "it is put together from the pod's and each container's settings"),
    ("ka.req.pod.containers.eff_run_as_group", "it is put together from the pod's and each container's settings"),
    ("ka.req.pod.supplemental_groups", "no column holds the list"),
    ("ka.req.role.rules", "whole rules are compared as JSON"),
    ("ka.req.service.ports", "whole ports are compared as JSON"),
];

fn resolve(name: &str, argument: Option<&str>) -> Result<Found, String> {
    if name == "jevt.value" {
        let pointer = argument.unwrap_or_default().trim_matches(['"', '\'']);
        let parts: Vec<String> =
            pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        let path = parts.join(".");
        let field = at_path(&path).ok_or_else(|| format!("'{pointer}' is no place in a Kubernetes audit event"))?;
        return Ok(Found { field, list: false, repository: false });
    }
    if let Some((_, reason)) = WITHOUT.iter().find(|(known, _)| *known == name) {
        return Err((*reason).to_owned());
    }
    // Newer versions of Falco's plugin tell the kinds of containers apart; the columns hold all of them.
    let kind = ["initContainers", "ephemeralContainers"].into_iter().find(|kind| name.contains(&format!(".{kind}.")));
    let plain = kind.map_or_else(|| name.to_owned(), |kind| name.replace(kind, "containers"));
    let Some((_, path, list)) = FIELDS.iter().find(|(known, ..)| *known == plain) else {
        if !name.starts_with("ka.") {
            return Err(format!("'{name}' is no field of Kubernetes audit events"));
        }
        let hint = suggest(name, FIELDS.iter().map(|(known, ..)| *known)).unwrap_or_default();
        return Err(format!("unknown field '{name}'; {hint}").trim_end_matches("; ").to_owned());
    };
    let repository = name.ends_with(".repository");
    let path = match argument.filter(|argument| argument.parse::<u32>().is_ok()) {
        // One container, volume or rule of the list.
        Some(index) => indexed(path, index).ok_or_else(|| format!("'{name}' is no list"))?,
        None => kind.map_or_else(|| (*path).to_owned(), |kind| path.replace(".containers.", &format!(".{kind}."))),
    };
    let mut field = at_path(&path).ok_or_else(|| format!("'{name}' has no column"))?;
    let list = *list && argument.is_none();
    if repository && list {
        field.kind = Kind::Texts(Form::Repository);
    }
    Ok(Found { field, list, repository })
}

/// A path that goes through one element of its list.
fn indexed(path: &str, index: &str) -> Option<String> {
    let list = ["containers", "volumes", "rules"].into_iter().find(|list| path.contains(&format!(".{list}.")))?;
    Some(path.replacen(&format!(".{list}."), &format!(".{list}[{index}]."), 1))
}

/// `ka.req.volume.hostpath[/etc*]=true`.
fn host_path(argument: &str, operator: &str, values: &[String]) -> Result<String, String> {
    if !matches!(operator, "=" | "==" | "in" | "intersects") || values != ["true"] {
        return Err("it can only be compared with true".to_owned());
    }
    Ok(match argument.strip_suffix('*') {
        Some(prefix) => {
            let pattern = Pattern(vec![Piece::Plain(prefix.to_owned()), Piece::Any]);
            let field = at_path("hostPath").ok_or("hostPath has no column")?;
            compare(&field, &Test::Is(vec![Value::Text(pattern)]), false)?.sql()
        }
        None => format!("any_in(host_paths, {})", literal(&crate::model::clean_path(argument))),
    })
}

/// A volume has its type as a key.
fn volume_type(operator: &str, values: &[String]) -> Result<Expr, String> {
    if !matches!(operator, "=" | "==" | "intersects") {
        return Err("whether *all* volumes are of some types cannot be asked; 'intersects' can be converted".to_owned());
    }
    let parts = values.iter().map(|value| {
        let field = at_path(&format!("requestObject.spec.volumes.{value}")).ok_or("volumes have no such place")?;
        compare(&field, &Test::Exists, false)
    });
    Ok(Expr::any(parts.collect::<Result<Vec<_>, String>>()?))
}

/// The value of a key of the query string, which may be percent-encoded.
fn uri_param(key: &str, operator: &str, values: &[String]) -> Result<Expr, String> {
    if key.is_empty() {
        return Err("it wants the name of a parameter in brackets".to_owned());
    }
    let (before, behind) = match operator {
        "=" | "==" | "in" | "intersects" => ("", "(?:&|$)"),
        "contains" => ("[^&]*", ""),
        "startswith" => ("", ""),
        "endswith" => ("[^&]*", "(?:&|$)"),
        "exists" => return Ok(Expr::atom(format!("uri ~ {}", literal(&format!("[?&]{}=", regex::escape(key)))))),
        other => return Err(format!("operator '{other}' is not converted for parameters of the URI")),
    };
    let parts = values.iter().map(|value| {
        let pattern = format!("[?&]{}={before}{}{behind}", regex::escape(key), encoded(value));
        Expr::atom(format!("uri ~ {}", literal(&pattern)))
    });
    Ok(Expr::any(parts.collect::<Vec<_>>()))
}

/// A text as a query string may spell it.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b' ' => "(?:\\+|%20)".to_owned(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ if byte.is_ascii() => format!("(?:{}|(?i:%{byte:02x}))", regex::escape(&char::from(byte).to_string())),
        _ => format!("(?i:%{byte:02x})"),
    };
    text.bytes().map(byte).collect()
}

fn glob(text: &str) -> Result<Value, String> {
    if text.contains(['[', ']']) {
        return Err(format!("'{text}': sets of characters have no like in SQL patterns"));
    }
    let mut pieces = Vec::new();
    for c in text.chars() {
        match (c, pieces.last_mut()) {
            ('*', _) => pieces.push(Piece::Any),
            ('?', _) => pieces.push(Piece::One),
            (c, Some(Piece::Plain(plain))) => plain.push(c),
            (c, _) => pieces.push(Piece::Plain(c.to_string())),
        }
    }
    Ok(Value::Text(Pattern(pieces)))
}

/// The first words of a text, for a message.
fn start(text: &str) -> String {
    text.split_whitespace().take(4).collect::<Vec<_>>().join(" ")
}

const WORDS: &[&str] = &[
    "icontains",
    "bcontains",
    "contains",
    "bstartswith",
    "istartswith",
    "startswith",
    "iendswith",
    "endswith",
    "iglob",
    "glob",
    "regex",
    "intersects",
    "in",
    "pmatch",
    "exists",
];

struct Parser<'a, 'b, 'c> {
    rest: &'a str,
    place: &'a str,
    reader: &'b mut Reader<'c>,
}

impl Grammar for Parser<'_, '_, '_> {
    const OR_ELSE: &'static str = ", or a macro names itself";

    fn word(&mut self, word: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(word) {
            Some(rest) if !rest.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-')) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn primary(&mut self, depth: usize) -> Result<Expr, String> {
        if self.sign("(") {
            let inner = self.or(depth + 1)?;
            return if self.sign(")") { Ok(inner) } else { Err("a bracket is never closed".to_owned()) };
        }
        let name = self.name().ok_or_else(|| match start(self.rest).as_str() {
            "" => "it ends too early".to_owned(),
            rest => format!("'{rest}' is not expected there"),
        })?;
        if matches!(name, "tolower" | "toupper" | "b64" | "basename" | "len" | "val") && self.rest.starts_with('(') {
            return self.transformed(name);
        }
        let argument = self.argument()?;
        match self.operator() {
            Some(operator) => self.comparison(name, argument, operator, false),
            None if argument.is_none() && !name.contains('.') => Ok(self.named(name, depth)),
            None => Err(format!("'{name}' is compared with nothing")),
        }
    }
}

impl<'a> Parser<'a, '_, '_> {
    /// `tolower(field) = value`; other functions are refused, but read to their end.
    fn transformed(&mut self, function: &str) -> Result<Expr, String> {
        self.sign("(");
        let name = self.name().ok_or_else(|| format!("{function}() wants a field"))?;
        let argument = self.argument()?;
        if !self.sign(")") {
            return Err(format!("{function}() is never closed"));
        }
        let operator = self.operator().ok_or_else(|| format!("{function}() is compared with nothing"))?;
        if function == "tolower" {
            return self.comparison(name, argument, operator, true);
        }
        self.values(operator)?;
        self.reader.problems.add(format!("{}: {function}({name})", self.place), "the function is not converted");
        Ok(Expr::Constant(true))
    }

    fn comparison(&mut self, name: &str, argument: Option<&str>, operator: &str, fold: bool) -> Result<Expr, String> {
        let items = self.values(operator)?;
        match self.reader.comparison(name, argument, operator, &items, fold) {
            Ok(expr) => Ok(expr),
            // The rest is read on, so that every comparison that cannot be converted is told.
            Err(reason) => {
                let shown = argument.map_or_else(|| name.to_owned(), |argument| format!("{name}[{argument}]"));
                self.reader.problems.add(format!("{}: {shown} {operator}", self.place), reason);
                Ok(Expr::Constant(true))
            }
        }
    }

    fn named(&mut self, name: &str, depth: usize) -> Expr {
        match self.reader.scope.macros.get(name) {
            Some(_) if depth >= DEPTH_MAX || self.reader.macros >= COMPARISONS_MAX => {
                self.reader.problems.add(format!("macro {name}"), "macros name each other too deeply or too often");
                Expr::Constant(true)
            }
            Some(text) => {
                self.reader.macros += 1;
                self.reader.read(text, &format!("macro {name}"), depth + 1)
            }
            None => {
                let hint = suggest(name, self.reader.scope.macros.keys().map(String::as_str)).unwrap_or_default();
                let reason = format!("no macro '{name}' is defined in the files; {hint}");
                self.reader.problems.add(self.place, reason.trim_end_matches("; "));
                Expr::Constant(true)
            }
        }
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        self.skip();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.' | '-'));
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if name.is_empty() || matches!(name, "and" | "or" | "not") {
            return None;
        }
        self.rest = rest;
        Some(name)
    }

    fn argument(&mut self) -> Result<Option<&'a str>, String> {
        let Some(rest) = self.rest.strip_prefix('[') else { return Ok(None) };
        let (argument, rest) = rest.split_once(']').ok_or("a '[' is never closed")?;
        self.rest = rest;
        Ok(Some(argument))
    }

    fn operator(&mut self) -> Option<&'static str> {
        const SIGNS: &[&str] = &["==", "!=", "<=", ">=", "=", "<", ">"];
        if let Some(sign) = SIGNS.iter().find(|sign| self.sign(sign)) {
            return Some(sign);
        }
        WORDS.iter().find(|word| self.word(word)).copied()
    }

    fn values(&mut self, operator: &str) -> Result<Vec<String>, String> {
        if operator == "exists" {
            return Ok(Vec::new());
        }
        if !matches!(operator, "in" | "intersects" | "pmatch") || !self.sign("(") {
            return Ok(vec![self.value()?]);
        }
        let mut values = Vec::new();
        while !self.sign(")") {
            if !values.is_empty() && !self.sign(",") {
                return Err("values of a list stand between commas".to_owned());
            }
            if self.sign(")") {
                break;
            }
            values.push(self.value()?);
        }
        Ok(values)
    }

    fn value(&mut self) -> Result<String, String> {
        self.skip();
        let mut chars = self.rest.char_indices();
        match chars.next() {
            Some((_, quote @ ('"' | '\''))) => {
                let mut text = String::new();
                while let Some((at, c)) = chars.next() {
                    match c {
                        c if c == quote => {
                            self.rest = &self.rest[at + 1..];
                            return Ok(text);
                        }
                        '\\' => match chars.next() {
                            Some((_, c)) if c == quote || c == '\\' => text.push(c),
                            Some((_, c)) => text.extend(['\\', c]),
                            None => break,
                        },
                        c => text.push(c),
                    }
                }
                Err("a quote is never closed".to_owned())
            }
            Some(_) => {
                let end = self.rest.find(|c: char| c.is_whitespace() || matches!(c, ')' | '(' | ','));
                let (value, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                if value.is_empty() {
                    return Err(format!("'{}' is not expected there", start(self.rest)));
                }
                self.rest = rest;
                Ok(value.to_owned())
            }
            None => Err("it ends too early".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut scope = Scope::default();
        scope.lists.insert("names".to_owned(), vec!["a".to_owned(), "more".to_owned()]);
        scope.lists.insert("more".to_owned(), vec!["b".to_owned()]);
        scope.macros.insert("never".to_owned(), "(jevt.rawtime=0)".to_owned());
        scope.macros.insert("made".to_owned(), "ka.verb=create or ka.verb=update".to_owned());
        scope.macros.insert("endless".to_owned(), "endless and made".to_owned());
        let (mut problems, mut notes) = (Problems::default(), Vec::new());
        let expr = scope.condition(text, &mut problems, &mut notes);
        let told: Vec<String> = problems.list.iter().map(|one| format!("{}: {}", one.place, one.reason)).collect();
        if told.is_empty() { expr.sql() } else { told.join(" | ") }
    }

    #[test]
    fn macros_and_lists_are_put_in() {
        assert_eq!(read("made and not never"), "verb = 'create' OR verb = 'update'");
        assert_eq!(read("ka.user.name in (names, 'c d')"), "user_name IN ('a', 'b', 'c d')");
        assert_eq!(
            read("not (made) and ka.verb!=get"),
            "(verb = 'create' OR verb = 'update') IS NOT TRUE AND verb IS NOT NULL AND (verb = 'get') IS NOT TRUE"
        );
    }

    #[test]
    fn a_list_in_others_has_to_have_all_elements_among_them() {
        assert_eq!(read("ka.user.groups in (x, y)"), "cardinality(user_groups) > 0 AND all_in(user_groups, 'x', 'y')");
        assert_eq!(read("ka.user.groups intersects (x)"), "any_in(user_groups, 'x')");
        assert_eq!(
            read("ka.req.pod.containers.image.repository in (a/b)"),
            "array_to_string(images, ' ') ~ '^(?:(?:a/b)(?:[:@][^ ]*)?(?: |$))+$'"
        );
        assert_eq!(read("ka.user.groups in ()"), "FALSE");
    }

    #[test]
    fn every_comparison_that_cannot_be_converted_is_told() {
        let told = read("ka.req.service.ports intersects (x) and proc.name=sh and ka.vrb=get and nobody");
        for part in ["ka.req.service.ports intersects", "proc.name =", "did you mean 'ka.verb'", "no macro 'nobody'"] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        for (text, part) in [
            ("endless", "macros name each other too deeply or too often"),
            ("ka.verb", "compared with nothing"),
            ("(made", "never closed"),
            ("made made", "not expected"),
            ("ka.verb='x", "quote is never closed"),
            ("ka.verb in (a b)", "between commas"),
            ("toupper(ka.verb) = X", "not converted"),
            ("ka.verb bcontains 00", "compares bytes"),
            ("ka.req.pod.containers.privileged in (true)", "all containers"),
            ("", "ends too early"),
        ] {
            assert!(read(text).contains(part), "{text}: {}", read(text));
        }
        assert!(read(&"not ".repeat(500)).contains("nested"));
    }
}
