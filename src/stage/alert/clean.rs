//! Every text of an alert that comes from an event passes through here: secrets replaced, length bounded.

use serde_json::{Map, Value};

use super::redact::{self, Redacted};
use super::row::Event;
use super::scrub::{self, REDACTED};
use super::spec::FieldSpec;
use super::summary::cap;
use crate::model::{Column, Kind};

/// Longest text outside the raw event, in characters.
const TEXT_CHARS_MAX: usize = 2048;
/// Elements shown of a list, and of an object.
const ELEMENTS_MAX: usize = 64;

/// Cleans the texts of one event.
pub struct Cleaner<'e> {
    redacted: &'e Redacted,
    /// Values that stay readable though a variable may repeat them.
    names: Vec<&'e str>,
    secret: bool,
}

impl<'e> Cleaner<'e> {
    pub fn new(event: &'e Event, redacted: &'e Redacted) -> Cleaner<'e> {
        let names = [
            &event.namespace,
            &event.name,
            &event.cluster,
            &event.cluster_id,
            &event.account,
            &event.region,
            &event.user_name,
            &event.service_account,
            &event.verb,
            &event.resource,
            &event.api_group,
            &event.source_ip,
        ];
        let names = names.into_iter().filter_map(|name| name.as_deref()).collect();
        Cleaner { redacted, names, secret: event.is_about_secrets() }
    }

    /// A name: only what cannot be anything but a credential is replaced.
    pub fn name(&self, text: &str) -> String {
        cap(&scrub::strict(text), TEXT_CHARS_MAX).into_owned()
    }

    /// Free text: what looks like a secret or was removed from the event is replaced.
    pub fn text(&self, text: &str) -> String {
        let text = scrub::thorough(text);
        cap(&self.redacted.mask(&text, &self.names), TEXT_CHARS_MAX).into_owned()
    }

    /// A field of the entity or the summary; `computed` where the detection's SELECT list made the value.
    pub fn field(&self, field: &FieldSpec, computed: bool, value: &Value) -> Value {
        match field.column.filter(|_| !computed) {
            Some(column) if is_name(column) => self.walk(value, &|text| self.name(text).into()),
            Some(column) if column.info().kind == Kind::Json => self.walk(value, &|text| self.json(text)),
            Some(column) if !column.info().body => self.walk(value, &|text| self.text(text).into()),
            _ => self.computed(value),
        }
    }

    /// A value that comes from anywhere in the event. Where the event could not be read, nobody knows whether it is a
    /// secret, so its texts are not shown.
    pub fn computed(&self, value: &Value) -> Value {
        self.walk(value, &|text| if self.redacted.known { self.text(text).into() } else { REDACTED.into() })
    }

    fn json(&self, text: &str) -> Value {
        match redact::json_text(text, self.secret) {
            Some(value) => cap(&value.to_string(), TEXT_CHARS_MAX).into(),
            None => REDACTED.into(),
        }
    }

    fn walk(&self, value: &Value, clean: &dyn Fn(&str) -> Value) -> Value {
        match value {
            Value::String(text) => clean(text),
            Value::Array(items) => {
                let mut announced = false;
                let items = items.iter().take(ELEMENTS_MAX).map(|item| {
                    let hide = std::mem::replace(&mut announced, item.as_str().is_some_and(scrub::is_secret_flag));
                    if hide && item.is_string() { REDACTED.into() } else { self.walk(item, clean) }
                });
                items.collect()
            }
            Value::Object(map) => {
                let pairs = map.iter().take(ELEMENTS_MAX);
                let pairs = pairs.map(|(key, value)| (self.text(key), self.walk(value, clean)));
                pairs.collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }
}

/// Columns that hold names and ids, in which words such as `secret:` are ordinary.
fn is_name(column: Column) -> bool {
    let info = column.info();
    let free = [Column::Uri, Column::UserAgent, Column::ResponseReason, Column::SourceIps];
    !info.body && matches!(info.kind, Kind::Text | Kind::TextList) && !free.contains(&column) && info.group != "other"
}

/// The raw event in at most `bytes_max` bytes of JSON: what nobody reads goes first, then the larger body, then all but
/// the head.
pub fn fit(mut data: Value, bytes_max: usize) -> Value {
    let Some(bytes) = too_large(&data, bytes_max) else { return data };
    drop_managed_fields(&mut data);
    for path in ["/responseObject", "/protoPayload/response", "/requestObject", "/protoPayload/request"] {
        let Some(_) = too_large(&data, bytes_max) else { return data };
        if let Some(body) = data.pointer_mut(path)
            && !body.is_null()
        {
            *body = format!("[{} bytes not shown]", body.to_string().len()).into();
        }
    }
    if too_large(&data, bytes_max).is_none() {
        return data;
    }
    let text = data.to_string();
    // quotes are escaped once more inside the head: twice as long at worst
    let head = text.get(..text.floor_char_boundary(bytes_max / 2)).unwrap_or_default();
    serde_json::json!({ "kubetide.note": format!("only the head of {bytes} bytes is shown"), "head": head })
}

fn too_large(data: &Value, bytes_max: usize) -> Option<usize> {
    let bytes = data.to_string().len();
    (bytes > bytes_max).then_some(bytes)
}

fn drop_managed_fields(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("managedFields");
            map.values_mut().for_each(drop_managed_fields);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_managed_fields),
        _ => {}
    }
}
