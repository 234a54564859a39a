//! Reads matched rows: typed access to the columns that alerts name, any column as JSON, and one event by value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::identity::{self, RequestId};
use super::spec::AlertSpec;
use crate::model::{COLUMNS, Column, Match, MatchedRows, cell};

/// A text column longer than this is cut where a detection shows it.
const FIELD_BYTES_MAX: usize = 64 << 10;

/// The columns of one batch of matched rows, found by name once.
#[derive(Debug)]
pub struct Rows<'a> {
    columns: Vec<Option<&'a ArrayRef>>,
    len: usize,
}

impl<'a> Rows<'a> {
    pub fn new(batch: &'a RecordBatch) -> Rows<'a> {
        let columns = COLUMNS.iter().map(|info| batch.column_by_name(info.name)).collect();
        Rows { columns, len: batch.num_rows() }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    fn array(&self, column: Column, row: usize) -> Option<&'a ArrayRef> {
        let array = self.columns.get(column as usize).copied().flatten()?;
        (row < array.len() && array.is_valid(row)).then_some(array)
    }

    /// Value of a text column, `None` where it is null.
    pub fn text(&self, column: Column, row: usize) -> Option<&'a str> {
        Some(self.array(column, row)?.as_string_opt::<i32>()?.value(row))
    }

    /// Value of a time column in microseconds since the epoch.
    pub fn time_us(&self, column: Column, row: usize) -> Option<i64> {
        Some(self.array(column, row)?.as_primitive_opt::<TimestampMicrosecondType>()?.value(row))
    }

    fn int(&self, column: Column, row: usize) -> Option<i64> {
        Some(self.array(column, row)?.as_primitive_opt::<Int64Type>()?.value(row))
    }

    fn texts(&self, column: Column, row: usize) -> Option<Vec<String>> {
        let items = self.array(column, row)?.as_list_opt::<i32>()?.value(row);
        let items = items.as_string_opt::<i32>()?;
        Some(items.iter().flatten().map(str::to_owned).collect())
    }

    /// Value of any column as JSON; times as RFC 3339, text cut at 64 KiB.
    pub fn value(&self, column: Column, row: usize) -> Value {
        self.array(column, row).map_or(Value::Null, |array| json(array, row))
    }

    /// What makes the stages and the repeated deliveries of one request one. Falls back to weaker content where the
    /// decoder gave no id.
    pub fn request_id(&self, row: usize) -> &'a str {
        [Column::RequestId, Column::EventId, Column::AuditId]
            .into_iter()
            .find_map(|column| self.text(column, row))
            .unwrap_or_default()
    }
}

/// One element of an array; long text is cut.
fn json(array: &dyn Array, index: usize) -> Value {
    fn shortened(value: Value) -> Value {
        match value {
            Value::String(text) if text.len() > FIELD_BYTES_MAX => head(&text).into(),
            Value::Array(items) => items.into_iter().map(shortened).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (key, shortened(value))).collect::<Map<_, _>>().into()
            }
            other => other,
        }
    }
    shortened(cell(array, index))
}

fn head(text: &str) -> &str {
    if text.len() <= FIELD_BYTES_MAX {
        text
    } else {
        text.get(..text.floor_char_boundary(FIELD_BYTES_MAX)).unwrap_or("")
    }
}

/// An event that an emission shows: what it needs of the row, by value, as nothing may pin a whole batch.
#[derive(Debug, Clone)]
pub struct Event {
    pub request: RequestId,
    pub event_us: i64,
    pub arrival_ms: Option<i64>,
    /// The raw text, not yet redacted.
    pub text: Bytes,
    pub event_id: Option<String>,
    pub audit_id: String,
    pub truncated: bool,
    pub cloud: Option<String>,
    pub account: Option<String>,
    pub region: Option<String>,
    pub cluster: Option<String>,
    pub cluster_id: Option<String>,
    pub verb: Option<String>,
    pub uri: Option<String>,
    pub api_group: Option<String>,
    pub api_version: Option<String>,
    pub resource: Option<String>,
    pub subresource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub object_uid: Option<String>,
    pub object_kind: Option<String>,
    pub user_agent: Option<String>,
    pub source_ip: Option<String>,
    pub source_ips: Option<Vec<String>>,
    pub user_name: Option<String>,
    pub user_uid: Option<String>,
    pub user_groups: Option<Vec<String>>,
    pub credential_id: Option<String>,
    pub service_account: Option<String>,
    pub impersonated_user: Option<String>,
    pub impersonated_groups: Option<Vec<String>>,
    pub response_code: Option<i64>,
    pub response_reason: Option<String>,
    pub decision: Option<String>,
    pub decision_reason: Option<String>,
    /// Values of [`AlertSpec::fields`], in that order.
    pub fields: Vec<Value>,
    pub computed: Vec<(Arc<str>, Value)>,
}

impl Event {
    /// Takes the event of a match out of its batch.
    pub fn of(spec: &AlertSpec, rows: &Rows<'_>, matched: &MatchedRows, found: &Match) -> Event {
        let row = found.row;
        let text = |column| rows.text(column, row).map(str::to_owned);
        let raw = matched.texts.get(row).map(Bytes::as_ref).unwrap_or_default();
        Event {
            request: identity::request(rows.request_id(row)),
            event_us: event_us(rows, matched, row),
            arrival_ms: matched.arrival_ms.get(row).copied().flatten(),
            text: Bytes::copy_from_slice(raw),
            event_id: text(Column::EventId),
            audit_id: audit_id(rows, row).to_owned(),
            truncated: rows.value(Column::Truncated, row) == Value::Bool(true),
            cloud: text(Column::Cloud),
            account: text(Column::Account),
            region: text(Column::Region),
            cluster: text(Column::Cluster),
            cluster_id: text(Column::ClusterId),
            verb: text(Column::Verb),
            uri: text(Column::Uri),
            api_group: text(Column::ApiGroup),
            api_version: text(Column::ApiVersion),
            resource: text(Column::Resource),
            subresource: text(Column::Subresource),
            namespace: text(Column::Namespace),
            name: text(Column::Name),
            object_uid: text(Column::ObjectUid),
            object_kind: text(Column::ObjectKind),
            user_agent: text(Column::UserAgent),
            source_ip: text(Column::SourceIp),
            source_ips: rows.texts(Column::SourceIps, row),
            user_name: text(Column::UserName),
            user_uid: text(Column::UserUid),
            user_groups: rows.texts(Column::UserGroups, row),
            credential_id: text(Column::CredentialId),
            service_account: text(Column::ServiceAccount),
            impersonated_user: text(Column::ImpersonatedUser),
            impersonated_groups: rows.texts(Column::ImpersonatedGroups, row),
            response_code: rows.int(Column::ResponseCode, row),
            response_reason: text(Column::ResponseReason),
            decision: text(Column::Decision),
            decision_reason: text(Column::DecisionReason),
            fields: spec.fields.iter().map(|field| field.value(rows, found)).collect(),
            computed: found.computed.clone(),
        }
    }

    /// Whether bodies of this event are Secret data even where they do not say so.
    pub fn is_about_secrets(&self) -> bool {
        self.resource.as_deref() == Some("secrets") || self.object_kind.as_deref() == Some("Secret")
    }

    /// What it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        1024 + self.text.len()
            + self.fields.iter().chain(self.computed.iter().map(|(_, value)| value)).map(size).sum::<usize>()
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 32,
        Value::Object(map) => map.values().map(size).sum::<usize>() + 64,
        _ => 16,
    }
}

/// `auditID` of a row; the request's id where there is none.
pub fn audit_id<'a>(rows: &Rows<'a>, row: usize) -> &'a str {
    const AUDIT_ID_CHARS_MAX: usize = 256;
    let id = rows.text(Column::AuditId, row).filter(|id| !id.is_empty()).unwrap_or_else(|| rows.request_id(row));
    id.char_indices().nth(AUDIT_ID_CHARS_MAX).map_or(id, |(end, _)| id.get(..end).unwrap_or(id))
}

/// Time of a row: of the event, else of the request, else of its arrival.
pub fn event_us(rows: &Rows<'_>, matched: &MatchedRows, row: usize) -> i64 {
    let arrival_us = || matched.arrival_ms.get(row).copied().flatten().map(|ms| ms.saturating_mul(1000));
    rows.time_us(Column::EventTime, row)
        .or_else(|| rows.time_us(Column::RequestTime, row))
        .or_else(arrival_us)
        .unwrap_or_default()
}
