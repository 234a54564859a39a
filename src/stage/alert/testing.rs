//! Matched rows made from JSON, and what every alert is checked against.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Builder, Int64Array, ListBuilder, StringArray, StringBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use chrono::NaiveDate;
use serde_json::{Value, json};

use super::*;
use crate::detection::Summary;
use crate::model::{AUDIT_SCHEMA, COLUMNS, ColumnInfo, Kind, Position, Severity};

/// 2026-01-01T00:00:00Z in microseconds.
pub const START_US: i64 = 1_767_225_600_000_000;

/// One matched event: values by column, the raw text, and what the detection computed.
#[derive(Debug, Clone, Default)]
pub struct TestRow {
    pub columns: Value,
    pub text: Vec<u8>,
    pub computed: Vec<(Arc<str>, Value)>,
}

impl TestRow {
    /// The raw text repeats the columns' bodies where the test gives none.
    pub fn new(columns: Value) -> TestRow {
        let text = json!({"kind": "Event", "auditID": columns["audit_id"], "verb": columns["verb"]});
        TestRow { columns, text: text.to_string().into_bytes(), computed: vec![] }
    }

    pub fn text(self, event: &Value) -> TestRow {
        TestRow { text: event.to_string().into_bytes(), ..self }
    }

    pub fn computed(mut self, name: &str, value: Value) -> TestRow {
        self.computed.push((name.into(), value));
        self
    }
}

/// A plain event of one request, with `set` on top.
pub fn request(number: u64, set: Value) -> TestRow {
    let mut columns = json!({
        "event_id": format!("e{number}"),
        "request_id": format!("r{number}"),
        "audit_id": format!("00000000-0000-0000-0000-{number:012}"),
        "stage": "ResponseComplete",
        "event_time": START_US + number as i64 * 1_000_000,
        "request_time": START_US + number as i64 * 1_000_000,
        "cloud": "eks", "account": "123456789012", "cluster": "prod", "cluster_id": "123456789012/prod",
        "verb": "create", "api_group": "", "api_version": "v1", "resource": "pods", "namespace": "shop", "name": "web",
        "user_name": "jane",
    });
    for (key, value) in set.as_object().into_iter().flatten() {
        columns[key] = value.clone();
    }
    TestRow::new(columns)
}

/// Every row matched by every one of the first `detections`.
pub fn matched(rows: &[TestRow], detections: usize) -> MatchedRows {
    let arrays = COLUMNS.iter().map(|info| column(info, rows)).collect();
    let matches = rows.iter().enumerate().flat_map(|(row, given)| {
        (0..detections).map(move |detection| Match { detection, step: 0, row, computed: given.computed.clone() })
    });
    MatchedRows {
        rows: RecordBatch::try_new(Arc::clone(&AUDIT_SCHEMA), arrays).unwrap(),
        texts: rows.iter().map(|row| Bytes::from(row.text.clone())).collect(),
        positions: (0..rows.len()).map(|row| Position { lane: 0, offset: row as u64 }).collect(),
        arrival_ms: vec![None; rows.len()],
        matches: matches.collect(),
    }
}

fn column(info: &ColumnInfo, rows: &[TestRow]) -> ArrayRef {
    let values: Vec<&Value> = rows.iter().map(|row| &row.columns[info.name]).collect();
    match info.kind {
        Kind::Text | Kind::Json => Arc::new(values.iter().map(|value| value.as_str()).collect::<StringArray>()),
        Kind::Bool => Arc::new(values.iter().map(|value| value.as_bool()).collect::<BooleanArray>()),
        Kind::Int => Arc::new(values.iter().map(|value| value.as_i64()).collect::<Int64Array>()),
        Kind::Time => {
            let times: TimestampMicrosecondArray = values.iter().map(|value| value.as_i64()).collect();
            Arc::new(times.with_timezone("UTC"))
        }
        Kind::TextList => {
            let mut list = ListBuilder::new(StringBuilder::new());
            for value in values {
                match value.as_array() {
                    Some(items) => list.append_value(items.iter().map(Value::as_str)),
                    None => list.append_null(),
                }
            }
            Arc::new(list.finish())
        }
        Kind::IntList => {
            let mut list = ListBuilder::new(Int32Builder::new());
            for value in values {
                match value.as_array() {
                    Some(items) => list.append_value(items.iter().map(|item| item.as_i64().map(|item| item as i32))),
                    None => list.append_null(),
                }
            }
            Arc::new(list.finish())
        }
        kind => new_null_array(&kind.data_type(), rows.len()),
    }
}

/// A detection about a pod, by namespace and name, one hour.
pub fn spec() -> AlertSpec {
    spec_of(&["cluster", "namespace", "name"], "{user_name} made {namespace}/{name}", 3600)
}

pub fn spec_of(entity: &[&str], summary: &str, suppress_secs: u64) -> AlertSpec {
    let entity: Vec<Arc<str>> = entity.iter().map(|name| (*name).into()).collect();
    let summary = Summary::parse(summary).unwrap();
    AlertSpec {
        id: "test-detection".into(),
        title: "A test detection".into(),
        description: "Finds what the test plants.".into(),
        severity: Severity::High,
        experimental: false,
        attack: vec![
            AttackSpec {
                tactic: ("TA0004".into(), "Privilege Escalation".into()),
                technique: ("T1611".into(), "Escape to Host".into()),
                sub_technique: None,
            },
            AttackSpec {
                tactic: ("TA0003".into(), "Persistence".into()),
                technique: ("T1098".into(), "Account Manipulation".into()),
                sub_technique: Some(("T1098.006".into(), "Additional Container Cluster Roles".into())),
            },
        ],
        triage: "Look at the pod.".into(),
        false_positives: vec!["node agents".into()],
        references: vec!["https://example.com/escape".into()],
        suppress: Duration::from_secs(suppress_secs),
        habit: None,
        fields: AlertSpec::fields_of(&entity, &summary),
        entity_len: entity.len(),
        summary,
    }
}

pub fn options() -> AlertOptions {
    AlertOptions::new(NaiveDate::from_ymd_opt(2026, 1, 1).unwrap())
}

pub fn stage(specs: Vec<AlertSpec>) -> AlertStage {
    AlertStage::with_specs(specs, vec![], options())
}

/// The one alert about one row, checked.
pub fn only_alert(spec: AlertSpec, row: TestRow) -> (Alert, Value) {
    let alerts = stage(vec![spec]).accept(&matched(&[row], 1));
    assert_eq!(alerts.len(), 1);
    let alert = alerts.into_iter().next().unwrap();
    let finding = check(&alert);
    (alert, finding)
}

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = include_str!("../../../schemas/ocsf/detection_finding.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap()
});

static ENUMS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../schemas/ocsf/enums.json")).unwrap());

/// The alert's OCSF, after everything that holds for any alert has been checked.
pub fn check(alert: &Alert) -> Value {
    assert!(!alert.ocsf.contains(&b'\n'), "more than one line");
    let finding: Value = serde_json::from_slice(&alert.ocsf).unwrap();
    let errors: Vec<String> =
        SCHEMA.iter_errors(&finding).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{finding:#}");
    captions(&finding);
    assert_eq!(finding["finding_info"]["uid"], *alert.uid);
    assert_eq!(finding["metadata"]["uid"], *alert.emission_uid);
    assert_eq!(finding["message"], *alert.summary);
    assert_eq!(finding["count"], alert.count);
    assert!(!alert.summary.chars().any(char::is_control));
    for observable in finding["observables"].as_array().into_iter().flatten() {
        let found = at(&finding, observable["name"].as_str().unwrap());
        assert!(found.contains(&&observable["value"]), "{observable} is not in the alert");
    }
    finding
}

/// Captions of the ids, by the table of the schema.
fn captions(finding: &Value) {
    let objects = [
        ("", "detection_finding"),
        ("finding_info.analytic", "analytic"),
        ("evidences[].actor.user", "user"),
        ("evidences[].user", "user"),
        ("cloud.account", "account"),
        ("resources[]", "resource_details"),
        ("observables[]", "observable"),
    ];
    for (path, class) in objects {
        for object in at(finding, path) {
            for (key, id) in object.as_object().unwrap() {
                let table = &ENUMS["enums"][format!("{class}.{key}")];
                if let Some(sibling) = table["sibling"].as_str() {
                    let caption = &table["values"][id.to_string()];
                    assert!(caption.is_string(), "{path}.{key}: {id} is not known");
                    assert_eq!(object[sibling], *caption, "{path}.{sibling}");
                }
            }
        }
    }
}

/// Everything at a path such as `evidences[].actor.user`.
fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let (name, list) = key.strip_suffix("[]").map_or((key, false), |name| (name, true));
        found = found.into_iter().filter_map(|value| value.get(name)).collect();
        if list {
            found = found.into_iter().filter_map(Value::as_array).flatten().collect();
        }
    }
    found
}
