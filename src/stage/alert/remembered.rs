//! Findings of detections with memory. Their events come cut to the columns that were kept: the raw text is gone, so
//! what an alert shows of each is put together again from its columns.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::row::Rows;
use crate::model::{Column, Finding, Match, MatchedRows};

/// The evidence as matched rows, oldest first, every row with what the detection computed.
pub fn matched(finding: &Finding) -> MatchedRows {
    let rows = Rows::new(&finding.evidence.rows);
    let matches = (0..rows.len()).map(|row| Match {
        detection: finding.detection,
        step: 0,
        row,
        computed: finding.computed.clone(),
    });
    MatchedRows {
        texts: (0..rows.len()).map(|row| text(&rows, row)).collect(),
        positions: Vec::new(),
        arrival_ms: finding.evidence.arrival_ms.clone(),
        matches: matches.collect(),
        rows: finding.evidence.rows.clone(),
    }
}

/// An event of the audit API with what the columns know of it.
fn text(rows: &Rows<'_>, row: usize) -> Bytes {
    let mut event = Map::new();
    event.insert("kind".into(), "Event".into());
    event.insert("apiVersion".into(), "audit.k8s.io/v1".into());
    let top = [
        ("level", Column::Level),
        ("auditID", Column::AuditId),
        ("stage", Column::Stage),
        ("requestURI", Column::Uri),
        ("verb", Column::Verb),
        ("sourceIPs", Column::SourceIps),
        ("userAgent", Column::UserAgent),
        ("requestReceivedTimestamp", Column::RequestTime),
        ("stageTimestamp", Column::EventTime),
    ];
    let user = [("username", Column::UserName), ("uid", Column::UserUid), ("groups", Column::UserGroups)];
    let object = [
        ("resource", Column::Resource),
        ("namespace", Column::Namespace),
        ("name", Column::Name),
        ("uid", Column::ObjectUid),
        ("apiGroup", Column::ApiGroup),
        ("apiVersion", Column::ApiVersion),
        ("subresource", Column::Subresource),
    ];
    put(&mut event, rows, row, &top);
    let mut part = |name: &str, columns: &[(&str, Column)]| {
        let mut map = Map::new();
        put(&mut map, rows, row, columns);
        if !map.is_empty() {
            event.insert(name.into(), map.into());
        }
    };
    part("user", &user);
    part("impersonatedUser", &[("username", Column::ImpersonatedUser), ("groups", Column::ImpersonatedGroups)]);
    part("objectRef", &object);
    part("responseStatus", &[("code", Column::ResponseCode), ("reason", Column::ResponseReason)]);
    Bytes::from(Value::Object(event).to_string())
}

fn put(target: &mut Map<String, Value>, rows: &Rows<'_>, row: usize, columns: &[(&str, Column)]) {
    for (name, column) in columns {
        let value = rows.value(*column, row);
        if !value.is_null() && value != json!("") {
            target.insert((*name).into(), value);
        }
    }
}
