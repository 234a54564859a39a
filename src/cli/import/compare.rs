//! One comparison of another rule language as a condition over the `audit` table.
//!
//! What a column cannot say exactly is refused with the reason: a detection that is nearly the rule would be trusted as
//! if it were the rule.

use super::expr::{Expr, literal, literals};
use super::fields::{Case, ContainerKind, Field, Form, Kind, Raw};
use crate::model::{clean_capability, clean_path};

/// A value that a field is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Pattern),
    /// As written.
    Number(String),
    Flag(bool),
    /// The field is not there, or has nothing in it.
    Null,
}

/// A text with wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pattern(pub Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Plain(String),
    /// Any number of characters.
    Any,
    /// Any one character.
    One,
}

impl Value {
    pub(super) fn plain(text: &str) -> Value {
        Value::Text(Pattern(vec![Piece::Plain(text.to_owned())]))
    }

    /// The one text that it stands for; none with wildcards.
    pub(super) fn word(&self) -> Option<String> {
        match self {
            Value::Text(pattern) => pattern.word(),
            Value::Number(number) => Some(number.clone()),
            Value::Flag(flag) => Some(flag.to_string()),
            Value::Null => None,
        }
    }

    fn pattern(&self) -> Option<Pattern> {
        match self {
            Value::Text(pattern) => Some(pattern.clone()),
            Value::Null => None,
            other => other.word().map(|word| Pattern(vec![Piece::Plain(word)])),
        }
    }

    fn number(&self) -> Option<i64> {
        self.word()?.parse().ok()
    }
}

impl Pattern {
    fn word(&self) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => out.push_str(text),
                Piece::Any | Piece::One => return None,
            }
        }
        Some(out)
    }

    fn is_anything(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|piece| *piece == Piece::Any)
    }

    /// With anything before and behind it, where that is asked for.
    fn around(mut self, before: bool, behind: bool) -> Pattern {
        if before && self.0.first() != Some(&Piece::Any) {
            self.0.insert(0, Piece::Any);
        }
        if behind && self.0.last() != Some(&Piece::Any) {
            self.0.push(Piece::Any);
        }
        self
    }

    /// As a pattern of SQL's LIKE.
    fn like(&self) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Plain(text) => {
                    for c in text.chars() {
                        if matches!(c, '%' | '_' | '\\') {
                            out.push('\\');
                        }
                        out.push(c);
                    }
                }
                Piece::Any => out.push('%'),
                Piece::One => out.push('_'),
            }
        }
        out
    }

    /// As a regular expression over a JSON string.
    fn in_json(&self) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Plain(text) => {
                let quoted = serde_json::Value::from(text.as_str()).to_string();
                regex::escape(quoted.trim_matches('"'))
            }
            Piece::Any => "[^\"]*".to_owned(),
            Piece::One => "[^\"]".to_owned(),
        };
        self.0.iter().map(piece).collect()
    }
}

/// What is asked of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// It is one of these; a list has one of these.
    Is(Vec<Value>),
    /// All of a list are among these, and there are any.
    AllAmong(Vec<Value>),
    Contains(Vec<Value>),
    StartsWith(Vec<Value>),
    EndsWith(Vec<Value>),
    /// A regular expression is found in it.
    Matches(Vec<String>),
    /// It is an address in one of these networks.
    InNetwork(Vec<String>),
    /// It is one of these paths or lies below one.
    Below(Vec<String>),
    /// It is there.
    Exists,
    /// `<`, `<=`, `>` or `>=` a number.
    Order(&'static str, String),
    /// A part of the time, such as `hour`, is one of these.
    Part(&'static str, Vec<Value>),
}

/// The condition. `fold`: upper and lower case are the same.
///
/// # Errors
/// Says why there is none.
pub(super) fn compare(field: &Field, test: &Test, fold: bool) -> Result<Expr, String> {
    match &field.kind {
        Kind::Text(case) => text(field, *case, test, fold),
        Kind::Texts(form) => texts(field, *form, test, fold),
        Kind::Number => number(field, test),
        Kind::Numbers => numbers(field, test),
        Kind::Flag => flag(field, test, fold),
        Kind::Container(name, kind) => container(field, name, *kind, test, fold),
        Kind::Inside(key) => match &field.raw {
            Some(raw) => inside(raw, key, test, fold),
            None => Err(format!("{} holds no list", field.sql)),
        },
        Kind::Rules(key) => rules(field, key, test, fold),
        Kind::Time => time(field, test),
    }
}

fn text(field: &Field, case: Case, test: &Test, fold: bool) -> Result<Expr, String> {
    let sql = &field.sql;
    match test {
        Test::Is(values) | Test::AllAmong(values) => text_is(field, case, values, fold),
        Test::Contains(values) => like(sql, case, values, (true, true), fold),
        Test::StartsWith(values) => like(sql, case, values, (false, true), fold),
        Test::EndsWith(values) => like(sql, case, values, (true, false), fold),
        Test::Matches(patterns) => {
            Ok(Expr::any(patterns.iter().map(|pattern| Expr::atom(format!("{sql} ~ {}", literal(pattern))))))
        }
        Test::InNetwork(networks) => Ok(Expr::atom(format!("ip_in({sql}, {})", literals(networks)))),
        Test::Below(paths) => Ok(Expr::atom(format!("any_path_within(make_array({sql}), {})", literals(paths)))),
        // Some columns say '' where the event says nothing.
        Test::Exists if sql == "api_group" => Ok(Expr::atom("api_group <> ''")),
        Test::Exists => Ok(Expr::atom(field.raw.as_ref().map_or_else(|| format!("{sql} IS NOT NULL"), Raw::exists))),
        Test::Order(operator, number) => match &field.raw {
            Some(raw) if *sql == raw.text() => Ok(Expr::atom(format!("TRY_CAST({sql} AS DOUBLE) {operator} {number}"))),
            _ => Err(format!("{sql} is text, and text has no order here")),
        },
        Test::Part(..) => Err(format!("{sql} is no time")),
    }
}

fn text_is(field: &Field, case: Case, values: &[Value], fold: bool) -> Result<Expr, String> {
    let sql = &field.sql;
    let mut words = Vec::new();
    let mut parts = Vec::new();
    let mut wild = Vec::new();
    for value in values {
        match value {
            Value::Null => parts.push(Expr::not(text(field, case, &Test::Exists, fold)?)),
            Value::Text(pattern) if pattern.is_anything() => parts.push(text(field, case, &Test::Exists, fold)?),
            // Requests that were only received are not evaluated: the same request comes again with its answer.
            other => match other.word() {
                Some(word) if sql == "stage" && word.eq_ignore_ascii_case("RequestReceived") => {}
                Some(word) => words.push(spelled(&word, case, fold)),
                None => wild.push(other.clone()),
            },
        }
    }
    words.dedup();
    let column = if fold && case == Case::Free { format!("lower({sql})") } else { sql.clone() };
    match words.as_slice() {
        [] => {}
        [word] => parts.push(Expr::atom(format!("{column} = {}", literal(word)))),
        words => parts.push(Expr::atom(format!("{column} IN ({})", literals(words)))),
    }
    if !wild.is_empty() {
        parts.push(like(sql, case, &wild, (false, false), fold)?);
    }
    Ok(Expr::any(parts))
}

/// A word as the column spells it.
fn spelled(word: &str, case: Case, fold: bool) -> String {
    match case {
        _ if !fold => word.to_owned(),
        Case::Words(known) => {
            known.iter().find(|known| known.eq_ignore_ascii_case(word)).map_or(word, |known| known).to_owned()
        }
        Case::Lower | Case::Free => word.to_lowercase(),
    }
}

fn like(sql: &str, case: Case, values: &[Value], around: (bool, bool), fold: bool) -> Result<Expr, String> {
    let mut patterns = Vec::new();
    for value in values {
        let pattern = value.pattern().ok_or("nothing has no beginning, middle or end")?;
        let pattern = pattern.around(around.0, around.1).like();
        patterns.push(if fold && case == Case::Lower { pattern.to_lowercase() } else { pattern });
    }
    let insensitive = fold && case != Case::Lower;
    Ok(Expr::atom(match (patterns.as_slice(), insensitive) {
        ([only], false) => format!("{sql} LIKE {}", literal(only)),
        ([only], true) => format!("{sql} ILIKE {}", literal(only)),
        (many, false) => format!("like_any({sql}, {})", literals(many)),
        (many, true) => format!("ilike_any({sql}, {})", literals(many)),
    }))
}

fn texts(field: &Field, form: Form, test: &Test, fold: bool) -> Result<Expr, String> {
    let sql = &field.sql;
    // What is normalised has no case that differs, or, for images, is compared as the runtime reads it.
    let fold = fold && form != Form::Capability;
    match test {
        Test::Is(values) => texts_have(field, form, values, fold),
        Test::AllAmong(values) => all_among(sql, form, values),
        Test::Contains(values) => any_like(sql, values, (true, true), fold),
        Test::StartsWith(values) => any_like(sql, values, (false, true), fold),
        Test::EndsWith(values) => any_like(sql, values, (true, false), fold),
        // One element a line, so that a pattern's ^ and $ are those of an element.
        Test::Matches(patterns) => Ok(Expr::any(patterns.iter().map(|pattern| {
            Expr::atom(format!("array_to_string({sql}, chr(10)) ~ {}", literal(&format!("(?m){pattern}"))))
        }))),
        Test::InNetwork(networks) if sql == "source_ips" => {
            Ok(Expr::atom(format!("ip_in(source_ip, {})", literals(networks))))
        }
        Test::InNetwork(_) => Err(format!("{sql} is a list of texts, not of addresses")),
        Test::Below(paths) => Ok(Expr::atom(format!("any_path_within({sql}, {})", literals(paths)))),
        Test::Exists => Ok(Expr::atom(format!("cardinality({sql}) > 0"))),
        Test::Order(..) => Err(format!("{sql} is a list, and a list has no order")),
        Test::Part(..) => Err(format!("{sql} is no time")),
    }
}

fn texts_have(field: &Field, form: Form, values: &[Value], fold: bool) -> Result<Expr, String> {
    let sql = &field.sql;
    let mut words = Vec::new();
    let mut wild = Vec::new();
    let mut parts = Vec::new();
    for value in values {
        match (value, value.word()) {
            (Value::Null, _) => parts.push(Expr::not(texts(field, form, &Test::Exists, fold)?)),
            (Value::Text(pattern), _) if pattern.is_anything() => parts.push(texts(field, form, &Test::Exists, fold)?),
            (_, Some(word)) if fold || form == Form::Repository => wild.extend(same(&word, form)),
            (_, Some(word)) => words.push(normal(&word, form)),
            (other, None) => wild.push(other.clone()),
        }
    }
    if !words.is_empty() {
        parts.push(Expr::atom(format!("any_in({sql}, {})", literals(&words))));
    }
    if !wild.is_empty() {
        parts.push(any_like(sql, &wild, (false, false), fold)?);
    }
    Ok(Expr::any(parts))
}

/// The values that an element may have to be the same as this one.
fn same(word: &str, form: Form) -> Vec<Value> {
    let with = |more: &[Piece]| {
        let plain = [Piece::Plain(normal(word, form))];
        Value::Text(Pattern(plain.iter().chain(more).cloned().collect()))
    };
    match form {
        Form::Repository => {
            let before = |mark: &str| [Piece::Plain(mark.to_owned()), Piece::Any];
            vec![with(&[]), with(&before(":")), with(&before("@"))]
        }
        _ => vec![with(&[])],
    }
}

fn normal(word: &str, form: Form) -> String {
    match form {
        Form::AsWritten | Form::Repository => word.to_owned(),
        Form::Path => clean_path(word),
        Form::Capability => clean_capability(word),
    }
}

fn all_among(sql: &str, form: Form, values: &[Value]) -> Result<Expr, String> {
    let words: Option<Vec<String>> = values.iter().map(|value| value.word().map(|word| normal(&word, form))).collect();
    let words = words.ok_or("a list can only be held to whole texts")?;
    if words.is_empty() {
        return Ok(Expr::Constant(false));
    }
    if form == Form::Repository {
        // Image names hold no space, so that all of them are one text whose words can be looked at together.
        let names: Vec<String> = words.iter().map(|word| regex::escape(word)).collect();
        let pattern = format!("^(?:(?:{})(?:[:@][^ ]*)?(?: |$))+$", names.join("|"));
        return Ok(Expr::atom(format!("array_to_string({sql}, ' ') ~ {}", literal(&pattern))));
    }
    let among = Expr::atom(format!("all_in({sql}, {})", literals(&words)));
    Ok(Expr::all([Expr::atom(format!("cardinality({sql}) > 0")), among]))
}

fn any_like(sql: &str, values: &[Value], around: (bool, bool), fold: bool) -> Result<Expr, String> {
    let mut patterns = Vec::new();
    for value in values {
        let pattern = value.pattern().ok_or("nothing has no beginning, middle or end")?;
        patterns.push(pattern.around(around.0, around.1).like());
    }
    let function = if fold { "any_ilike" } else { "any_like" };
    Ok(Expr::atom(format!("{function}({sql}, {})", literals(&patterns))))
}

fn number(field: &Field, test: &Test) -> Result<Expr, String> {
    let sql = &field.sql;
    match test {
        Test::Is(values) | Test::AllAmong(values) => {
            let mut numbers = Vec::new();
            let mut parts = Vec::new();
            for value in values {
                match value {
                    Value::Null => parts.push(Expr::atom(format!("{sql} IS NULL"))),
                    Value::Text(pattern) if pattern.is_anything() => {
                        parts.push(Expr::atom(format!("{sql} IS NOT NULL")));
                    }
                    Value::Text(pattern) if pattern.word().is_none() => {
                        parts.push(Expr::atom(format!("CAST({sql} AS VARCHAR) LIKE {}", literal(&pattern.like()))));
                    }
                    other => {
                        let word = other.word().unwrap_or_default();
                        let number = other
                            .number()
                            .ok_or_else(|| format!("{sql} is a number, so that '{word}' can never be its value"))?;
                        numbers.push(number.to_string());
                    }
                }
            }
            match numbers.as_slice() {
                [] => {}
                [only] => parts.push(Expr::atom(format!("{sql} = {only}"))),
                many => parts.push(Expr::atom(format!("{sql} IN ({})", many.join(", ")))),
            }
            Ok(Expr::any(parts))
        }
        Test::StartsWith(values) => {
            values.iter().map(|value| digits(sql, value)).collect::<Result<Vec<_>, _>>().map(Expr::any)
        }
        Test::Contains(values) => like(&format!("CAST({sql} AS VARCHAR)"), Case::Lower, values, (true, true), false),
        Test::EndsWith(values) => like(&format!("CAST({sql} AS VARCHAR)"), Case::Lower, values, (true, false), false),
        Test::Matches(patterns) => Ok(Expr::any(
            patterns.iter().map(|pattern| Expr::atom(format!("CAST({sql} AS VARCHAR) ~ {}", literal(pattern)))),
        )),
        Test::Order(operator, number) => Ok(Expr::atom(format!("{sql} {operator} {number}"))),
        Test::Exists => Ok(Expr::atom(format!("{sql} IS NOT NULL"))),
        Test::InNetwork(_) | Test::Below(_) | Test::Part(..) => Err(format!("{sql} is a number")),
    }
}

/// First digits of a status code.
fn digits(sql: &str, value: &Value) -> Result<Expr, String> {
    let word = value.word().ok_or("nothing has no beginning")?;
    let first: i64 = word.parse().map_err(|_| format!("{sql} is a number, it never starts with '{word}'"))?;
    Ok(Expr::atom(match word.len() {
        1 => format!("{sql} BETWEEN {first}00 AND {first}99"),
        2 => format!("{sql} BETWEEN {first}0 AND {first}9"),
        3 => format!("{sql} = {first}"),
        _ => return Err(format!("no status code starts with {word}")),
    }))
}

fn numbers(field: &Field, test: &Test) -> Result<Expr, String> {
    let sql = &field.sql;
    let list = |values: &[Value]| {
        let numbers: Option<Vec<String>> = values.iter().map(|value| Some(value.number()?.to_string())).collect();
        numbers.map(|numbers| numbers.join(", ")).ok_or_else(|| format!("{sql} is a list of numbers"))
    };
    match test {
        Test::Is(values) if values.iter().any(|value| matches!(value, Value::Text(text) if text.is_anything())) => {
            Ok(Expr::atom(format!("cardinality({sql}) > 0")))
        }
        Test::Is(values) => Ok(Expr::atom(format!("any_in({sql}, {})", list(values)?))),
        Test::AllAmong(values) => Ok(Expr::all([
            Expr::atom(format!("cardinality({sql}) > 0")),
            Expr::atom(format!("all_in({sql}, {})", list(values)?)),
        ])),
        Test::Exists => Ok(Expr::atom(format!("cardinality({sql}) > 0"))),
        _ => Err(format!("{sql} is a list of numbers, which can only be compared for equality")),
    }
}

fn flag(field: &Field, test: &Test, fold: bool) -> Result<Expr, String> {
    let (Test::Is(values) | Test::AllAmong(values)) = test else { return raw(field, test, fold) };
    let parts = values.iter().map(|value| match value.word().as_deref() {
        Some("true") | Some("True") => Ok(Expr::atom(field.sql.clone())),
        // Absent and false are the same in the column, not to the source.
        _ => raw(field, &Test::Is(vec![value.clone()]), fold),
    });
    Ok(Expr::any(parts.collect::<Result<Vec<_>, _>>()?))
}

/// Asks the JSON where the source looks.
fn raw(field: &Field, test: &Test, fold: bool) -> Result<Expr, String> {
    let Some(raw) = &field.raw else {
        return Err(format!("{} can only be compared with true", field.sql));
    };
    match raw.inside_list() {
        Some((_, key)) => inside(raw, &key, test, fold),
        None => {
            let json = Field { kind: Kind::Text(Case::Free), sql: raw.text(), raw: Some(raw.clone()), note: None };
            text(&json, Case::Free, test, fold && !matches!(test, Test::Is(_)))
        }
    }
}

fn container(field: &Field, name: &str, kind: ContainerKind, test: &Test, fold: bool) -> Result<Expr, String> {
    let Test::Is(values) = test else { return raw(field, test, fold) };
    let parts = values.iter().map(|value| {
        let word = value.word();
        let argument = match (kind, &word) {
            (ContainerKind::Flag, Some(word)) if word.eq_ignore_ascii_case("true") => String::new(),
            (ContainerKind::Text, Some(word)) => format!(", {}", literal(word)),
            (ContainerKind::List, Some(word)) => format!(", {}", literal(&clean_capability(word))),
            (ContainerKind::Number, Some(word)) if word.parse::<i64>().is_ok() => format!(", {word}"),
            _ => return raw(field, &Test::Is(vec![value.clone()]), fold),
        };
        Ok(Expr::atom(format!("any_container(containers, '{name}'{argument})")))
    });
    Ok(Expr::any(parts.collect::<Result<Vec<_>, _>>()?))
}

/// A key somewhere inside a list of objects: the list's JSON is searched for the key with the value.
fn inside(raw: &Raw, key: &str, test: &Test, fold: bool) -> Result<Expr, String> {
    let Some((list, _)) = raw.inside_list() else { return Err(format!("no list holds '{key}'")) };
    let name = format!("\"{}\"\\s*:\\s*", regex::escape(key));
    let found = |pattern: String| Expr::atom(format!("{} ~ {}", list.text(), literal(&pattern)));
    let (values, around) = match test {
        Test::Exists => return Ok(found(name)),
        Test::Is(values) => (values, (false, false)),
        Test::Contains(values) => (values, (true, true)),
        Test::StartsWith(values) => (values, (false, true)),
        Test::EndsWith(values) => (values, (true, false)),
        _ => return Err(format!("'{key}' stands inside a list, where only texts and whole values can be compared")),
    };
    let case = if fold { "(?i:" } else { "(?:" };
    let parts = values.iter().map(|value| match value {
        Value::Null => Ok(Expr::not(found(name.clone()))),
        Value::Text(pattern) if pattern.is_anything() => Ok(found(name.clone())),
        Value::Text(pattern)
            if around == (false, false) && matches!(value.word().as_deref(), Some("true" | "false")) =>
        {
            Ok(found(format!("{name}\"?{}\"?", pattern.in_json())))
        }
        Value::Text(pattern) => {
            let text = pattern.clone().around(around.0, around.1).in_json();
            let number = value.word().filter(|word| word.parse::<i64>().is_ok());
            let or_number = number.map_or_else(String::new, |number| format!("|{name}{number}\\b"));
            // Either the text itself, or one of a list of texts.
            Ok(found(format!("{name}(?:\\[[^\\]]*)?\"{case}{text})\"{or_number}")))
        }
        Value::Number(number) => Ok(found(format!("{name}{}\\b", regex::escape(number)))),
        Value::Flag(flag) => Ok(found(format!("{name}{flag}\\b"))),
    });
    Ok(Expr::any(parts.collect::<Result<Vec<_>, String>>()?))
}

fn rules(field: &Field, key: &str, test: &Test, fold: bool) -> Result<Expr, String> {
    let Some(raw) = &field.raw else { return Err("rules are part of a body".to_owned()) };
    let Test::Is(values) = test else {
        return match test {
            Test::AllAmong(_) => Err(format!("whether *all* {key} of all rules are among some cannot be asked")),
            other => inside(raw, key, other, fold),
        };
    };
    let column = match key {
        "apiGroups" => Some("api_groups"),
        "nonResourceURLs" => Some("non_resource_urls"),
        "verbs" | "resources" => Some(key),
        _ => None,
    };
    let parts = values.iter().map(|value| match (value.word().as_deref(), column) {
        (Some("*"), Some(column)) => Ok(Expr::atom(format!("rbac_has_wildcard(rules, '{column}')"))),
        (Some(verb), Some("verbs")) => {
            Ok(Expr::atom(format!("rbac_has_verb(rules, {})", literal(&spelled(verb, Case::Lower, fold)))))
        }
        _ => inside(raw, key, &Test::Is(vec![value.clone()]), fold),
    });
    Ok(Expr::any(parts.collect::<Result<Vec<_>, _>>()?))
}

fn time(field: &Field, test: &Test) -> Result<Expr, String> {
    let sql = &field.sql;
    match test {
        Test::Exists => Ok(Expr::atom(format!("{sql} IS NOT NULL"))),
        Test::Part(part, values) => {
            let numbers: Option<Vec<String>> = values.iter().map(|value| Some(value.number()?.to_string())).collect();
            let numbers = numbers.ok_or_else(|| format!("the {part} of a time is a number"))?;
            Ok(Expr::atom(format!("date_part('{part}', {sql}) IN ({})", numbers.join(", "))))
        }
        _ => Err(format!("{sql} is a time, of which only parts can be compared")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::fields::at_path;

    fn sql(path: &str, test: Test, fold: bool) -> String {
        let field = at_path(path).expect("a field");
        compare(&field, &test, fold).map_or_else(|error| format!("error: {error}"), |expr| expr.sql())
    }

    fn is(words: &[&str]) -> Test {
        Test::Is(words.iter().map(|word| Value::plain(word)).collect())
    }

    #[test]
    fn texts_are_spelled_as_their_column_does() {
        assert_eq!(sql("verb", is(&["CREATE"]), true), "verb = 'create'");
        assert_eq!(sql("stage", is(&["responsecomplete"]), true), "stage = 'ResponseComplete'");
        assert_eq!(sql("user.username", is(&["Bob", "o'Hara"]), true), "lower(user_name) IN ('bob', 'o''hara')");
        assert_eq!(sql("user.username", is(&["Bob"]), false), "user_name = 'Bob'");
        assert_eq!(sql("stage", is(&["RequestReceived"]), false), "FALSE");
        let percent = Test::Contains(vec![Value::plain("50%_\\")]);
        assert_eq!(sql("userAgent", percent, true), "user_agent ILIKE '%50\\%\\_\\\\%'");
    }

    #[test]
    fn what_a_column_normalises_the_value_is_put_into_the_same_form() {
        let caps = "requestObject.spec.containers.securityContext.capabilities.add";
        assert_eq!(sql(caps, is(&["cap_sys_admin"]), true), "any_in(capabilities_added, 'SYS_ADMIN')");
        let paths = "requestObject.spec.volumes.hostPath.path";
        assert_eq!(sql(paths, is(&["//etc/"]), false), "any_in(host_paths, '/etc')");
    }

    #[test]
    fn explicit_false_is_asked_of_the_json() {
        let root = "requestObject.spec.containers.securityContext.runAsNonRoot";
        let no = Test::Is(vec![Value::Flag(false)]);
        assert_eq!(
            sql(root, no.clone(), true),
            "json_as_text(request_object, 'spec', 'containers') ~ '\"runAsNonRoot\"\\s*:\\s*false\\b'"
        );
        assert_eq!(
            sql("requestObject.spec.hostNetwork", no, true),
            "json_as_text(request_object, 'spec', 'hostNetwork') = 'false'"
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        assert!(sql("responseStatus.code", is(&["ALLOW"]), true).contains("is a number, so that 'ALLOW' can never"));
        assert!(sql("verb", Test::Order("<", "3".to_owned()), true).contains("no order"));
        assert!(sql("verb", Test::Part("hour", vec![Value::Number("3".to_owned())]), true).contains("no time"));
    }
}
