//! Takes secrets out of an event before anybody downstream can see it.
//!
//! The text is parsed and walked, so that what is replaced is a value and never a key: data of Secrets, tokens that the
//! API server issues or reviews, `last-applied-configuration`, values of environment variables, and everything that
//! looks like a credential ([`super::scrub`]). What was removed is remembered ([`Redacted::mask`]), so that the same
//! text is also found in whatever a detection computed from the event.
//!
//! A text that was cut is closed where its last whole value ends and treated the same; a text that is no JSON at all
//! keeps only what stands before the bodies.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::scrub::{self, REDACTED};

/// Larger texts are not parsed: what they hold is not shown at all.
const PARSE_BYTES_MAX: usize = 8 << 20;
/// JSON inside a string inside JSON: how often that is followed.
const NESTED_MAX: u8 = 3;
/// How many removed texts are remembered, and how long they may be.
const REMEMBERED_MAX: usize = 512;
const REMEMBERED_BYTES_MAX: usize = 16 << 10;
/// Shorter texts are too common in other places to be replaced there.
const CERTAIN_BYTES_MIN: usize = 4;
const LIKELY_BYTES_MIN: usize = 8;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Keys whose text is a secret wherever they stand; compared in lower case without `-`, `_` and `.`.
const SECRET_KEYS: [&str; 22] = [
    "token",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "bearertoken",
    "sessiontoken",
    "authtoken",
    "password",
    "passwd",
    "passphrase",
    "clientsecret",
    "clientkeydata",
    "tlskey",
    "privatekey",
    "sshprivatekey",
    "secretkey",
    "secretaccesskey",
    "awssecretaccesskey",
    "apikey",
    "authorization",
    "dockerconfigjson",
    "tokensecret",
];

/// An event without its secrets.
#[derive(Debug)]
pub struct Redacted {
    /// The event as far as it may be shown.
    pub data: Value,
    /// False where the text could not be read, so that nobody knows which secrets it held.
    pub known: bool,
    removed: Removed,
}

/// Texts that were removed, the longest first.
#[derive(Debug, Default)]
struct Removed {
    /// Secret data and tokens.
    certain: Vec<String>,
    /// Values of environment variables: most are no secrets, so only long ones are replaced elsewhere.
    likely: Vec<String>,
}

/// Redacts one event. `secret` says that the request was about Secrets: bodies without a `kind` are then Secret data.
pub fn event(text: &[u8], secret: bool) -> Redacted {
    let mut removed = Removed::default();
    let parsed = if text.len() > PARSE_BYTES_MAX { None } else { parse(text) };
    let known = parsed.is_some();
    let data = match parsed {
        Some((mut data, cut)) => {
            Walker { removed: &mut removed, nested: 0 }.value("", &mut data, secret);
            if let (true, Value::Object(map)) = (cut, &mut data) {
                map.insert(
                    "kubetide.note".into(),
                    json!("the event was cut; what follows its last whole value is missing"),
                );
            }
            data
        }
        None => unreadable(text),
    };
    removed.certain.sort_by_key(|text| std::cmp::Reverse(text.len()));
    removed.likely.sort_by_key(|text| std::cmp::Reverse(text.len()));
    Redacted { data, known, removed }
}

/// Redacts a column that holds JSON text; `None` where the text is no JSON.
pub fn json_text(text: &str, secret: bool) -> Option<Value> {
    if text.len() > PARSE_BYTES_MAX {
        return None;
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    Walker { removed: &mut Removed::default(), nested: 0 }.value("", &mut value, secret);
    Some(value)
}

impl Redacted {
    /// Replaces in `text` what was removed from the event. `names` are values that must stay readable, such as the
    /// namespace: an environment variable often repeats them.
    pub fn mask<'t>(&self, text: &'t str, names: &[&str]) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        let certain = self.removed.certain.iter().map(|secret| (secret, CERTAIN_BYTES_MIN));
        let likely = self.removed.likely.iter().map(|secret| (secret, LIKELY_BYTES_MIN));
        for (secret, bytes_min) in certain.chain(likely) {
            let whole = bytes_min == CERTAIN_BYTES_MIN && *text == **secret;
            if (whole || secret.len() >= bytes_min)
                && !names.contains(&secret.as_str())
                && text.contains(secret.as_str())
            {
                text = Cow::Owned(text.replace(secret.as_str(), REDACTED));
            }
        }
        text
    }
}

/// The value, and whether the text had to be closed first.
fn parse(text: &[u8]) -> Option<(Value, bool)> {
    let text = String::from_utf8_lossy(text);
    if let Ok(value) = serde_json::from_str(&text) {
        return Some((value, false));
    }
    // a lone surrogate is legal in JSON text but not in a string: it must not be a way to hide evidence
    let mended = mend_surrogates(&text);
    if let Ok(value) = serde_json::from_str(&mended) {
        return Some((value, false));
    }
    let value = serde_json::from_str(&close(&mended)?).ok()?;
    Some((value, true))
}

/// Replaces escaped surrogates that have no partner by the escape of the replacement character.
fn mend_surrogates(text: &str) -> String {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        let taken = match surrogate(escape) {
            Some(0xD800..=0xDBFF) if matches!(escape.get(6..).and_then(surrogate), Some(0xDC00..=0xDFFF)) => 12,
            Some(_) => {
                mended.push_str("\\ufffd");
                rest = escape.get(6..).unwrap_or_default();
                continue;
            }
            // an escaped backslash must not be read as the start of the next escape
            None => 1 + escape.chars().nth(1).map_or(0, char::len_utf8),
        };
        let (escape, after) = escape.split_at(taken);
        mended.push_str(escape);
        rest = after;
    }
    mended.push_str(rest);
    mended
}

/// The code of the escaped surrogate that a text starts with.
fn surrogate(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok().filter(|code| (0xD800..=0xDFFF).contains(code))
}

/// Ends a cut text behind its last whole value and closes what is open there.
fn close(text: &str) -> Option<String> {
    let text = text.trim_end().trim_end_matches("[Truncated...]");
    let mut open: Vec<u8> = Vec::new();
    let mut safe: Option<(usize, Vec<u8>)> = None;
    let (mut inside, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        if inside {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => inside = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => inside = true,
            b'{' | b'[' => {
                open.push(if byte == b'{' { b'}' } else { b']' });
                safe = Some((at + 1, open.clone()));
            }
            b'}' | b']' => {
                if open.pop() != Some(byte) {
                    break;
                }
                safe = Some((at + 1, open.clone()));
            }
            b',' => safe = Some((at, open.clone())),
            _ => {}
        }
        if open.len() > 128 {
            break;
        }
    }
    let (end, open) = safe?;
    let mut closed = text.get(..end)?.to_owned();
    closed.extend(open.iter().rev().map(|byte| char::from(*byte)));
    Some(closed)
}

/// What may be shown of a text that nobody can read: its head up to where bodies start.
fn unreadable(text: &[u8]) -> Value {
    const HEAD_BYTES_MAX: usize = 4096;
    const BODIES: [&str; 9] = [
        "requestObject",
        "responseObject",
        "RequestObject",
        "ResponseObject",
        "\"request\"",
        "\"response\"",
        "data\"",
        "Data\"",
        "\"env\"",
    ];
    let head = text.get(..text.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    let end = BODIES.iter().filter_map(|body| head.find(body)).min().unwrap_or(head.len());
    json!({
        "kubetide.note": "the event is no readable JSON, or too large; its bodies are not shown",
        "bytes": text.len(),
        "head": scrub::thorough(head.get(..end).unwrap_or_default()),
    })
}

/// Walks one value and replaces what is secret.
struct Walker<'r> {
    removed: &'r mut Removed,
    nested: u8,
}

impl Walker<'_> {
    fn value(&mut self, key: &str, value: &mut Value, secret: bool) {
        match value {
            Value::String(text) if key == LAST_APPLIED => {
                self.remember_last_applied(text);
                *text = REDACTED.into();
            }
            Value::String(text) if !text.is_empty() && is_secret_key(key) => self.hide_text(text, true),
            Value::String(text) => self.text(text, secret),
            Value::Array(items) => self.array(key, items, secret),
            Value::Object(map) => self.object(map, secret),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&mut self, map: &mut Map<String, Value>, secret: bool) {
        let secret = secret || matches!(map.get("kind").and_then(Value::as_str), Some("Secret" | "SecretList"));
        if let Some(path) = map.get("path").and_then(Value::as_str).map(str::to_owned)
            && map.contains_key("op")
            && let Some(value) = map.get_mut("value")
        {
            self.patched(&path, value, secret);
        }
        for (key, value) in map.iter_mut() {
            match key.as_str() {
                "data" | "binaryData" if secret => self.hide(value, true),
                "stringData" => self.hide(value, true),
                "env" => self.env(value, secret),
                _ => self.value(key, value, secret),
            }
        }
    }

    fn array(&mut self, key: &str, items: &mut [Value], secret: bool) {
        let mut announced = false;
        for item in items {
            let announces = item.as_str().is_some_and(scrub::is_secret_flag);
            match item {
                Value::String(text) if announced => self.hide_text(text, true),
                other => self.value(key, other, secret),
            }
            announced = announces;
        }
    }

    /// The value of one operation of a JSON patch; `path` is what would be the keys above it.
    fn patched(&mut self, path: &str, value: &mut Value, secret: bool) {
        let mut keys = path.split('/').skip(1);
        let first = keys.next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        if first == "stringData" || (secret && matches!(first, "data" | "binaryData")) {
            self.hide(value, true);
        } else if path.split('/').any(|key| key == "env") {
            match value {
                Value::String(text) if last != "name" => self.hide_text(text, false),
                Value::Object(map) => self.variable(map, secret),
                other => self.env(other, secret),
            }
        } else if is_secret_key(last) || path.ends_with("kubectl.kubernetes.io~1last-applied-configuration") {
            self.hide(value, true);
        }
    }

    /// `env` of a container: a list of names and values, or a map in some custom resources. A label may be called
    /// `env` too; its text stays.
    fn env(&mut self, value: &mut Value, secret: bool) {
        match value {
            Value::Array(items) => {
                for item in items {
                    match item {
                        Value::Object(map) => self.variable(map, secret),
                        other => self.hide(other, false),
                    }
                }
            }
            Value::Object(map) if map.contains_key("name") => self.variable(map, secret),
            Value::Object(map) => map.values_mut().for_each(|value| match value {
                Value::Object(_) => self.value("", value, secret),
                other => self.hide(other, false),
            }),
            other => self.value("env", other, secret),
        }
    }

    fn variable(&mut self, map: &mut Map<String, Value>, secret: bool) {
        for (key, value) in map.iter_mut() {
            match key.as_str() {
                "value" => self.hide(value, false),
                _ => self.value(key, value, secret),
            }
        }
    }

    /// Replaces every value below; keys stay.
    fn hide(&mut self, value: &mut Value, certain: bool) {
        match value {
            Value::Null => {}
            Value::String(text) => self.hide_text(text, certain),
            Value::Bool(_) | Value::Number(_) => *value = REDACTED.into(),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(item, certain)),
            Value::Object(map) => map.values_mut().for_each(|value| self.hide(value, certain)),
        }
    }

    fn hide_text(&mut self, text: &mut String, certain: bool) {
        if text.is_empty() {
            return;
        }
        let text = std::mem::replace(text, REDACTED.into());
        if certain && let Some(decoded) = decode(&text) {
            self.remember(decoded, true);
        }
        self.remember(text, certain);
    }

    fn remember(&mut self, text: String, certain: bool) {
        let list = if certain { &mut self.removed.certain } else { &mut self.removed.likely };
        if list.len() < REMEMBERED_MAX && text.len() <= REMEMBERED_BYTES_MAX && text.trim() != "" && text != REDACTED {
            list.push(text);
        }
    }

    /// The annotation repeats the object as it was applied: its secrets are the same kind of secrets.
    fn remember_last_applied(&mut self, text: &str) {
        if let Ok(mut applied) = serde_json::from_str::<Value>(text) {
            self.value("", &mut applied, false);
        }
    }

    /// Free text: JSON in a string is walked, anything else searched for credentials.
    fn text(&mut self, text: &mut String, secret: bool) {
        let trimmed = text.trim();
        let nests = (trimmed.starts_with('{') && trimmed.ends_with('}'))
            || (trimmed.starts_with('[') && trimmed.ends_with(']'));
        if nests
            && self.nested < NESTED_MAX
            && let Ok(mut inner) = serde_json::from_str::<Value>(trimmed)
        {
            self.nested += 1;
            self.value("", &mut inner, secret);
            self.nested -= 1;
            *text = inner.to_string();
        }
        let mut found = Vec::new();
        if let Cow::Owned(clean) = scrub::thorough_found(text, &mut |secret| found.push(secret.to_owned())) {
            *text = clean;
        }
        found.into_iter().for_each(|secret| self.remember(secret, true));
    }
}

fn is_secret_key(key: &str) -> bool {
    if key.len() > 40 {
        return false;
    }
    let plain: String = key.chars().filter(|c| !matches!(c, '-' | '_' | '.')).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_KEYS.contains(&plain.as_str())
}

fn decode(text: &str) -> Option<String> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{only_alert, request, spec_of};
    use super::*;

    fn redacted(value: &Value, secret: bool) -> Value {
        event(value.to_string().as_bytes(), secret).data
    }

    #[test]
    fn data_of_secrets_goes_in_every_form_of_request() {
        for (body, secret) in [
            (
                json!({"requestObject": {"kind": "Secret", "data": {"k": "cGxhbnRlZA=="}, "stringData": {"k": "planted"}}}),
                false,
            ),
            (json!({"responseObject": {"kind": "SecretList", "items": [{"data": {"k": "cGxhbnRlZA=="}}]}}), false),
            (
                json!({"responseObject": {"kind": "List", "items": [{"kind": "Secret", "data": {"k": "cGxhbnRlZA=="}}]}}),
                false,
            ),
            (json!({"requestObject": {"data": {"k": "cGxhbnRlZA=="}}}), true),
            (json!({"requestObject": {"stringData": {"k": "planted"}}}), false),
            (json!({"requestObject": [{"op": "replace", "path": "/data/k", "value": "cGxhbnRlZA=="}]}), true),
            (json!({"requestObject": [{"op": "add", "path": "/stringData", "value": {"k": "planted"}}]}), false),
            (json!({"protoPayload": {"request": {"kind": "Secret", "data": {"k": "cGxhbnRlZA=="}}}}), false),
            (
                json!({"properties": {"log": "{\"requestObject\":{\"kind\":\"Secret\",\"data\":{\"k\":\"cGxhbnRlZA==\"}}}"}}),
                false,
            ),
        ] {
            let shown = redacted(&body, secret).to_string();
            assert!(!shown.contains("planted") && !shown.contains("cGxhbnRlZA"), "{shown}");
            assert!(shown.contains(REDACTED), "{shown}");
        }
    }

    #[test]
    fn variables_tokens_and_applied_configurations_go_and_names_stay() {
        let body = json!({
            "spec": {"template": {"spec": {"containers": [{
                "env": [{"name": "PIN", "value": "planted-1"}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "keep-1", "key": "keep-2"}}}],
                "args": ["--password", "planted-2", "--keep-3", "--token=planted-3"]}]}}},
            "status": {"token": "planted-4"},
            "metadata": {"labels": {"env": "keep-4"}, "annotations": {LAST_APPLIED: "{\"planted\":\"5\"}"}},
            "patch": [{"op": "add", "path": "/spec/containers/0/env/-", "value": {"name": "KEEP_5", "value": "planted-6"}},
                      {"op": "replace", "path": "/spec/containers/0/env/0/value", "value": "planted-7"}],
            "csr": {"spec": {"request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K"}},
            "custom": {"env": {"A": "planted-8", "B": 9}},
        });
        let shown = redacted(&body, false).to_string();
        assert!(!shown.contains("planted"), "{shown}");
        for kept in ["keep-1", "keep-2", "keep-3", "keep-4", "KEEP_5", "PIN", "LS0tLS1CRUdJTiBDRVJU"] {
            assert!(shown.contains(kept), "{kept} is gone: {shown}");
        }
    }

    #[test]
    fn cut_texts_are_closed_and_treated_the_same() {
        let whole = json!({"auditID": "keep", "requestObject": {"kind": "Secret", "data": {"a": "planted", "b": "planted"}}, "z": [1, {"y": "x"}]});
        let whole = whole.to_string();
        for end in 0..whole.len() {
            for text in [whole[..end].to_owned(), format!("{}[Truncated...]", &whole[..end])] {
                let redacted = event(text.as_bytes(), true);
                assert!(!redacted.data.to_string().contains("planted"), "{end}: {}", redacted.data);
            }
        }
        let late = event(&whole.as_bytes()[..whole.len() - 3], false);
        assert!(late.known && late.data["auditID"] == "keep" && late.data["kubetide.note"].is_string());
        let lone = event(
            br#"{"a":"\ud800 x\\\udc00","b":"\ud83e\udd80","requestObject":{"stringData":{"k":"planted"}}}"#,
            false,
        );
        assert!(lone.known && lone.data["b"] == "🦀" && !lone.data.to_string().contains("planted"));
    }

    #[test]
    fn texts_that_nobody_can_read_keep_their_head_only() {
        let deep = format!("{{\"auditID\":\"keep\",\"requestObject\":{}\"planted\"", "[".repeat(500));
        let redacted = event(deep.as_bytes(), false);
        assert!(!redacted.known && !redacted.data.to_string().contains("planted"));
        assert!(redacted.data["head"].as_str().is_some_and(|head| head.contains("keep")));
    }

    #[test]
    fn no_planted_secret_is_anywhere_in_an_alert() {
        let object = json!({
            "kind": "Secret", "metadata": {"name": "web", "annotations": {LAST_APPLIED: "{\"stringData\":{\"k\":\"planted-applied\"}}"}},
            "data": {"k": "cGxhbnRlZC1kYXRh", "ns": "c2hvcA=="}, "stringData": {"k": "planted-string"},
            "spec": {"containers": [{"env": [{"name": "A", "value": "planted-env"}, {"name": "NS", "value": "shop"}],
                "command": ["sh", "-c", "curl -H 'Authorization: Bearer planted-bearer'"], "args": ["--password", "planted-flag"]}]},
        });
        let whole = json!({"requestObject": object, "requestURI": "/x?token=planted-uri", "userAgent": "password=planted-agent"});
        let columns = json!({
            "resource": "secrets", "request_object": object.to_string(), "object": object.to_string(),
            "object_annotations": object["metadata"]["annotations"].to_string(), "uri": "/x?token=planted-uri",
            "user_agent": "password=planted-agent", "commands": ["sh -c curl -H 'Authorization: Bearer planted-bearer' --password planted-flag"],
            "exec_command": ["mysql", "--password", "planted-flag"], "response_reason": "token=planted-uri",
        });
        let fields = [
            "namespace",
            "object",
            "request_object",
            "object_annotations",
            "uri",
            "user_agent",
            "commands",
            "exec_command",
            "password",
            "decoded",
            "both",
        ];
        let summary: String = fields.iter().map(|name| format!("{{{name}}} ")).collect();
        let row = request(1, columns)
            .text(&whole)
            .computed("password", json!("cGxhbnRlZC1kYXRh"))
            .computed("decoded", json!({"x": ["planted-data", "planted-string", "planted-flag"]}))
            .computed("both", json!("shop/planted-env,planted-bearer"));
        let (alert, _) = only_alert(spec_of(&fields, &summary, 0), row);
        let everything = format!("{alert:?} {}", String::from_utf8_lossy(&alert.ocsf));
        assert!(!everything.contains("planted") && !everything.contains("cGxhbnRlZ"), "{everything}");
        assert!(alert.summary.starts_with("shop ") && alert.summary.contains("shop/[redacted]"), "{}", alert.summary);
    }
}
