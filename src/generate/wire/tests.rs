use super::*;
use crate::model::{EventContext, EventFields, EventSink, Lane, Position, RawRecord, RejectReason, SkipReason};
use crate::stage::format::{FormatOptions, Formats};

const CREATE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"id-1","stage":"ResponseComplete","requestURI":"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?dryRun=All","verb":"create","user":{"username":"jane@example.org","groups":["dev"]},"sourceIPs":["203.0.113.9","10.0.0.1"],"userAgent":"kubectl/v1.33.1","objectRef":{"resource":"clusterrolebindings","apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},"requestObject":{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"generateName":"x-"}},"responseObject":{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":"x-7"}},"requestReceivedTimestamp":"2026-03-04T10:15:30.123456Z","stageTimestamp":"2026-03-04T10:15:30.150001Z","annotations":{"authorization.k8s.io/decision":"allow","note":"a \"quoted\"\nline"}}"#;
const EXEC: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-2","stage":"ResponseStarted","requestURI":"/api/v1/namespaces/shop/pods/cart-0/exec?command=sh\u0026command=-c\u0026command=cat+%2Fetc%2Fpasswd\u0026stdin=true","verb":"get","user":{"username":"jane@example.org"},"impersonatedUser":{"username":"admin"},"sourceIPs":["203.0.113.9"],"objectRef":{"resource":"pods","namespace":"shop","name":"cart-0","apiVersion":"v1","subresource":"exec"},"responseStatus":{"metadata":{},"code":101},"requestReceivedTimestamp":"2026-03-04T10:15:31.000001Z","stageTimestamp":"2026-03-04T10:15:31.5Z","annotations":{"authorization.k8s.io/decision":"allow"}}"#;
const PROBE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"id-3","stage":"ResponseComplete","requestURI":"/login.php?a=b","verb":"get","user":{"username":"system:anonymous"},"sourceIPs":["198.51.100.3"],"responseStatus":{"metadata":{},"status":"Failure","message":"no","reason":"Forbidden","code":403},"requestReceivedTimestamp":"2026-03-04T10:15:32.000001Z","stageTimestamp":"2026-03-04T10:15:32.1Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#;

/// Key fields of what is decoded, by event: id, stage, verb, URI, user, addresses, object, code, cluster.
#[derive(Default)]
struct Found {
    events: Vec<serde_json::Value>,
    origins: Vec<(String, Option<String>)>,
}

impl EventSink for Found {
    fn event(&mut self, fields: &EventFields<'_>, context: &EventContext) {
        assert!(!fields.cut);
        self.events.push(serde_json::from_slice(fields.text).expect("an event is JSON"));
        self.origins.push((context.origin.cluster.to_string(), context.origin.account.as_deref().map(str::to_owned)));
    }

    fn skip(&mut self, reason: SkipReason) {
        panic!("skipped: {reason:?}");
    }

    fn reject(&mut self, _: RejectReason, detail: String, _: u32, _: &[u8]) {
        panic!("rejected: {detail}");
    }
}

fn decoded(wire: WireFormat) -> Found {
    let mut found = Found::default();
    let lane = Lane { name: "test".into(), fallback_cluster: "lane".into(), cluster: None };
    for value in wrap(wire, &[CREATE.as_bytes(), EXEC.as_bytes(), PROBE.as_bytes()], "prod") {
        let position = Position { lane: 0, offset: 0 };
        let record = RawRecord { position, range: 0..value.len(), time_ms: None, cluster: None };
        Formats::new(FormatOptions::default()).decode(&value, &record, &lane, &mut found);
    }
    found
}

fn originals() -> Vec<serde_json::Value> {
    [CREATE, EXEC, PROBE].map(|event| serde_json::from_str(event).expect("JSON")).into()
}

#[test]
fn envelopes_of_text_carry_the_event_unchanged() {
    for (wire, cluster, account) in [
        (WireFormat::Native, "lane", None),
        (WireFormat::Eks, "prod", Some(ACCOUNT)),
        (WireFormat::EksGzip, "prod", Some(ACCOUNT)),
        (WireFormat::Aks, "prod", Some(SUBSCRIPTION)),
    ] {
        let found = decoded(wire);
        assert_eq!(found.events, originals(), "{wire:?}");
        for origin in &found.origins {
            assert_eq!((origin.0.as_str(), origin.1.as_deref()), (cluster, account), "{wire:?}");
        }
    }
}

#[test]
fn items_of_a_list_have_no_kind() {
    let expected: Vec<serde_json::Value> = originals()
        .into_iter()
        .map(|mut event| {
            let members = event.as_object_mut().expect("an object");
            members.remove("kind");
            members.remove("apiVersion");
            event
        })
        .collect();
    assert_eq!(decoded(WireFormat::EventList).events, expected);
}

#[test]
fn an_entry_keeps_what_google_keeps() {
    let found = decoded(WireFormat::Gke);
    assert_eq!(found.origins[0], ("prod".to_owned(), Some("shop-prod".to_owned())));
    let [create, exec, probe] = found.events.as_slice() else { panic!("three events") };
    let expected = [
        (create, "id-1", "ResponseComplete", "create", 201),
        (exec, "id-2", "ResponseStarted", "get", 101),
        (probe, "id-3", "ResponseComplete", "get", 403),
    ];
    for (event, id, stage, verb, code) in expected {
        assert_eq!(event["auditID"], id);
        assert_eq!(event["stage"], stage);
        assert_eq!(event["verb"], verb);
        assert_eq!(event["responseStatus"]["code"], code);
    }
    assert_eq!(create["objectRef"]["name"], "x-7");
    assert_eq!(create["requestURI"], "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?dryRun=All");
    assert_eq!(create["sourceIPs"], serde_json::json!(["10.0.0.1"]));
    assert_eq!(create["user"], serde_json::json!({"username": "jane@example.org"}));
    assert_eq!(create["requestObject"]["@type"], "rbac.authorization.k8s.io/v1.ClusterRoleBinding");
    assert_eq!(create["annotations"]["note"], "a \"quoted\"\nline");
    assert_eq!(
        exec["requestURI"],
        "/api/v1/namespaces/shop/pods/cart-0/exec?command=sh&command=-c&command=cat%20%2Fetc%2Fpasswd"
    );
    assert_eq!(exec["impersonatedUser"]["username"], "admin");
    assert_eq!(exec["requestReceivedTimestamp"], "2026-03-04T10:15:31.000001Z");
    assert_eq!(probe["requestURI"], "/login.php");
    assert_eq!(probe["annotations"]["authorization.k8s.io/decision"], "forbid");
}

#[test]
fn a_received_request_has_no_entry() {
    let received = CREATE.replace("ResponseComplete", "RequestReceived");
    assert!(wrap(WireFormat::Gke, &[received.as_bytes()], "prod").is_empty());
    assert!(wrap(WireFormat::Aks, &[], "prod").is_empty());
}

#[test]
fn equal_input_gives_equal_bytes() {
    let events = [CREATE.as_bytes(), EXEC.as_bytes()];
    for wire in [WireFormat::Eks, WireFormat::EksGzip, WireFormat::Aks, WireFormat::Gke, WireFormat::EventList] {
        assert_eq!(wrap(wire, &events, "prod"), wrap(wire, &events, "prod"));
    }
}
