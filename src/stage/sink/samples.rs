//! Alerts and dead letters for the tests of this module.

use bytes::Bytes;

use crate::model::{Activity, Alert, DeadLetter, Severity};

/// An alert about finding `uid`, first emission.
pub(super) fn alert(uid: &str) -> Alert {
    let ocsf = serde_json::json!({
        "class_uid": 2004,
        "finding_info": {"uid": uid},
        "evidences": [{"actor": {"user": {"name": "alice"}}, "src_endpoint": {"ip": "203.0.113.7"}, "data": {"a": [1]}}],
    });
    Alert {
        uid: uid.into(),
        emission_uid: format!("{uid}-1").into(),
        activity: Activity::Create,
        detection: "sensitive-host-path".into(),
        severity: Severity::High,
        title: "Workload mounts a sensitive host path".into(),
        summary: "alice mounted /var/run/docker.sock in shop/web".into(),
        entity: vec![
            ("cluster".into(), "prod".into()),
            ("namespace".into(), "shop".into()),
            ("name".into(), "web".into()),
        ],
        attack: vec!["TA0004/T1611".into()],
        count: 1,
        at_us: 0,
        subject: None,
        event_time_us: 1_795_558_293_000_000,
        arrival_ms: None,
        ocsf: ocsf.to_string().into(),
    }
}

/// Alerts `prefix0`, `prefix1`, …
pub(super) fn alerts(prefix: &str, count: usize) -> Vec<Alert> {
    (0..count).map(|index| alert(&format!("{prefix}{index}"))).collect()
}

/// A dead letter of these bytes.
pub(super) fn letter(bytes: impl Into<Bytes>) -> DeadLetter {
    DeadLetter {
        lane: "audit/3".into(),
        offset: 42,
        index: 1,
        reason: "malformed",
        detail: "expected `,` at byte 17".into(),
        bytes: bytes.into(),
    }
}
