//! Collectors and connectors: one event under a key, as a string or as an object.

use super::decoder::{Around, Decoder};
use super::shape::{Shape, text};
use super::time;
use crate::json::write::{Object, literal};
use crate::json::{Cursor, JsonError};
use crate::model::{Cloud, EventSink, RejectReason};

impl<S: EventSink + ?Sized> Decoder<'_, S> {
    /// An object of a collector that holds the event under one of its keys.
    pub(super) fn wrapper(&mut self, object: &[u8], shape: &Shape<'_>, around: &Around) {
        let Some(value) = shape.wrapped() else {
            let detail = "a collector's record without an event under `log`, `message`, `structured`, `event.original` or `body`";
            return self.reject(RejectReason::UnknownFormat, detail, object);
        };
        let mut inside = around.deeper_at(shape.time_ms());
        if inside.origin.is_none() && (shape.openshift.is_some() || shape.log_source.is_some()) {
            inside.cloud = Some(Cloud::OpenShift);
        }
        self.value(value, &inside);
    }

    /// A Pub/Sub message as a push subscription delivers it.
    pub(super) fn pub_sub(&mut self, push: &[u8], shape: &Shape<'_>, around: &Around) {
        let message = Shape::read(shape.message.unwrap_or_default());
        match text(message.data) {
            Some(data) => {
                let time_ms = message.publish_time.and_then(time::millis);
                self.encoded(data, &around.deeper_at(time_ms));
            }
            None => self.reject(RejectReason::Malformed, "a Pub/Sub message without a whole string in `data`", push),
        }
    }

    /// OTLP in JSON: resources hold scopes, scopes hold records, records hold a body.
    pub(super) fn otlp(&mut self, shape: &Shape<'_>, around: &Around) {
        let inside = around.deeper();
        self.elements(shape.resource_logs.unwrap_or_default(), |decoder, resource| {
            let mut scopes: Option<&[u8]> = None;
            let walked = Cursor::new(resource).object(|cursor, key| {
                if matches!(key.raw(), b"scopeLogs" | b"instrumentationLibraryLogs") {
                    scopes = Some(cursor.rest());
                    scopes = Some(cursor.raw()?.bytes());
                }
                Ok::<_, JsonError>(())
            });
            match scopes {
                Some(scopes) => decoder.elements(scopes, |decoder, scope| decoder.otlp_scope(scope, &inside)),
                None if walked.is_ok() => {}
                None => decoder.reject(RejectReason::Malformed, "`resourceLogs` breaks off before its logs", resource),
            }
        });
    }

    fn otlp_scope(&mut self, scope: &[u8], around: &Around) {
        let mut records: Option<&[u8]> = None;
        let walked = Cursor::new(scope).object(|cursor, key| {
            if key.raw() == b"logRecords" {
                records = Some(cursor.rest());
                records = Some(cursor.raw()?.bytes());
            }
            Ok::<_, JsonError>(())
        });
        match records {
            Some(records) => self.elements(records, |decoder, record| decoder.otlp_record(record, around)),
            None if walked.is_ok() => {}
            None => self.reject(RejectReason::Malformed, "`scopeLogs` breaks off before its logs", scope),
        }
    }

    fn otlp_record(&mut self, record: &[u8], around: &Around) {
        let mut time_ms = None;
        let mut body: Option<&[u8]> = None;
        let walked = Cursor::new(record).object(|cursor, key| {
            match key.raw() {
                b"timeUnixNano" => time_ms = time::millis(cursor.raw()?.bytes()).filter(|millis| *millis > 0),
                b"observedTimeUnixNano" if time_ms.is_none() => time_ms = time::millis(cursor.raw()?.bytes()),
                b"body" => {
                    body = Some(cursor.rest());
                    body = Some(cursor.raw()?.bytes());
                }
                _ => {}
            }
            Ok::<_, JsonError>(())
        });
        match body {
            Some(body) => self.value(body, &around.deeper_at(time_ms)),
            None if walked.is_ok() => {
                self.reject(RejectReason::UnknownFormat, "an OTLP log record without `body`", record);
            }
            None => {
                self.reject(RejectReason::Malformed, "an OTLP log record that breaks off before its `body`", record)
            }
        }
    }

    /// An OTLP value: the event as a string, or as a tree of keys and values.
    pub(super) fn any_value(&mut self, value: &[u8], shape: &Shape<'_>, around: &Around) {
        if let Some(string) = shape.string_value {
            return self.value(string, around);
        }
        let mut object = self.buffer();
        match plain_value(value, &mut object, self.options.limits.depth) {
            Ok(()) => self.value(&object, &around.deeper()),
            Err(Unwritable::TooDeep) => {
                let detail = format!("an OTLP value nested more than {} times", self.options.limits.depth);
                self.reject(RejectReason::TooDeep, detail, value);
            }
            Err(Unwritable::Json(error)) => {
                let detail = format!("an OTLP value that cannot be read: {error}");
                self.reject(RejectReason::Malformed, detail, value);
            }
        }
        self.give_back(object);
    }
}

/// Why an OTLP value could not be rewritten.
enum Unwritable {
    TooDeep,
    Json(JsonError),
}

impl From<JsonError> for Unwritable {
    fn from(error: JsonError) -> Unwritable {
        Unwritable::Json(error)
    }
}

/// Rewrites an OTLP value as plain JSON.
fn plain_value(value: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
    let Some(depth) = depth.checked_sub(1) else { return Err(Unwritable::TooDeep) };
    let start = out.len();
    Cursor::new(value).object(|cursor, key| {
        match key.raw() {
            b"stringValue" | b"bytesValue" => match cursor.text()? {
                Some(text) => literal(out, text),
                None => out.extend_from_slice(b"null"),
            },
            // 64-bit integers are strings in OTLP.
            b"intValue" => {
                let raw = cursor.raw()?;
                let digits = raw.text().map_or(raw.bytes(), |text| text.raw());
                let is_number = !digits.is_empty() && digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
                out.extend_from_slice(if is_number { digits } else { raw.bytes() });
            }
            b"boolValue" | b"doubleValue" => out.extend_from_slice(cursor.raw()?.bytes()),
            b"kvlistValue" => plain_object(cursor.raw()?.bytes(), out, depth)?,
            b"arrayValue" => plain_array(cursor.raw()?.bytes(), out, depth)?,
            _ => {}
        }
        Ok::<_, Unwritable>(())
    })?;
    if out.len() == start {
        out.extend_from_slice(b"null");
    }
    Ok(())
}

fn plain_object(list: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
    let mut object = Object::open(out);
    values(list, |pair| {
        let mut name = None;
        let mut value: Option<&[u8]> = None;
        Cursor::new(pair).object(|cursor, key| {
            match key.raw() {
                b"key" => name = cursor.text()?,
                b"value" => value = Some(cursor.raw()?.bytes()),
                _ => {}
            }
            Ok::<_, JsonError>(())
        })?;
        if let Some(name) = name {
            object.raw_key(name.raw());
            match value {
                Some(value) => plain_value(value, object.out, depth)?,
                None => object.out.extend_from_slice(b"null"),
            }
        }
        Ok(())
    })?;
    object.close();
    Ok(())
}

fn plain_array(list: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Unwritable> {
    out.push(b'[');
    let mut is_first = true;
    values(list, |value| {
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        plain_value(value, out, depth)
    })?;
    out.push(b']');
    Ok(())
}

/// Calls back for each element of `{"values":[…]}`.
fn values<'a>(list: &'a [u8], mut each: impl FnMut(&'a [u8]) -> Result<(), Unwritable>) -> Result<(), Unwritable> {
    Cursor::new(list).object(|cursor, key| {
        if key.raw() == b"values" {
            cursor.array(|cursor| each(cursor.raw()?.bytes()))?;
        }
        Ok::<_, Unwritable>(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlp_trees_become_plain_json() {
        let value = br#"{"kvlistValue":{"values":[{"key":"verb","value":{"stringValue":"g\"et"}},
            {"key":"code","value":{"intValue":"200"}},{"key":"ok","value":{"boolValue":true}},
            {"key":"ips","value":{"arrayValue":{"values":[{"stringValue":"a"},{"doubleValue":1.5}]}}},
            {"key":"none","value":{}},{"key":"empty","value":{"kvlistValue":{}}}]}}"#;
        let mut out = Vec::new();
        assert!(plain_value(value, &mut out, 8).is_ok());
        let plain: serde_json::Value = serde_json::from_slice(&out).expect("valid");
        let expected = serde_json::json!({
            "verb": "g\"et", "code": 200, "ok": true, "ips": ["a", 1.5], "none": null, "empty": {},
        });
        assert_eq!(plain, expected);
    }

    #[test]
    fn depth_is_bounded() {
        let mut value = br#"{"stringValue":"x"}"#.to_vec();
        for _ in 0..10 {
            value = [br#"{"arrayValue":{"values":["#.as_slice(), &value, b"]}}"].concat();
        }
        assert!(plain_value(&value, &mut Vec::new(), 11).is_ok());
        assert!(matches!(plain_value(&value, &mut Vec::new(), 10), Err(Unwritable::TooDeep)));
    }
}
