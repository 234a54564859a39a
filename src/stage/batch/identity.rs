//! What makes an event the same event: a hash of its content.
//!
//! `auditID` alone would let a client hide behind an earlier request, as it may choose it (`Audit-ID` header).

use crate::json::{JsonError, Raw, Text};
use crate::model::EventFields;

/// `event_id` and `request_id`, 32 hexadecimal digits each.
///
/// Both cover cluster, auditID, request time, verb, URI, user, impersonated user and addresses; the event's also stage,
/// stage time and code. Values are hashed decoded and framed by their length, so neither another way to escape a
/// character nor shifting text between fields changes or fakes an id.
pub(super) struct Ids {
    pub event: String,
    pub request: String,
}

pub(super) fn ids(
    cluster_id: &str,
    fields: &EventFields<'_>,
    request_time: Option<i64>,
    stage_time: Option<i64>,
    code: Option<i64>,
) -> Ids {
    let mut hasher = blake3::Hasher::new();
    let mut text = |value: Option<&str>| match value {
        Some(value) => {
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(value.as_bytes());
        }
        None => {
            hasher.update(&u64::MAX.to_le_bytes());
        }
    };
    let decode = |value: Option<Text<'_>>| value.map(|value| value.decode().into_owned());
    text(Some("kubetide event 1"));
    text(Some(cluster_id));
    text(decode(fields.audit_id).as_deref());
    text(decode(fields.verb).as_deref());
    text(decode(fields.uri).as_deref());
    text(user_name(fields.user).as_deref());
    text(user_name(fields.impersonated_user).as_deref());
    let addresses = list(fields.source_ips);
    text(Some(&addresses.len().to_string()));
    addresses.iter().for_each(|address| text(Some(address)));
    text(request_time.map(|time| time.to_string()).as_deref());
    let request = hex(&hasher);
    let mut event = hasher;
    for part in [decode(fields.stage), stage_time.map(|time| time.to_string()), code.map(|code| code.to_string())] {
        let part = part.unwrap_or_default();
        event.update(&(part.len() as u64).to_le_bytes());
        event.update(part.as_bytes());
    }
    Ids { event: hex(&event), request }
}

fn hex(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..32].to_owned()
}

fn user_name(user: Option<Raw<'_>>) -> Option<String> {
    let mut name = None;
    let _shape: Result<bool, JsonError> = user?.cursor().object(|cursor, key| {
        if key.is("username") {
            name = cursor.text()?.map(|text| text.decode().into_owned());
        }
        Ok(())
    });
    name
}

fn list(value: Option<Raw<'_>>) -> Vec<String> {
    let mut items = Vec::new();
    if let Some(value) = value {
        let _shape: Result<bool, JsonError> = value.cursor().array(|cursor| {
            items.extend(cursor.text()?.map(|text| text.decode().into_owned()));
            Ok(())
        });
    }
    items
}
