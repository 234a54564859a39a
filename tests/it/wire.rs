//! Wire formats: what every form of record becomes.
//!
//! The cases are data (`tests/fixtures/wire/README.md`); `check` alone touches the API. Besides them: recordings of
//! others against a plain parser, random events in random stacks of wrappers, and the fuzzers' corpora.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kubetide::json::{Raw, Text};
use kubetide::model::{EventContext, EventFields, EventSink, Lane, Position, RawRecord, RejectReason, SkipReason};
use kubetide::stage::format::{Format, FormatOptions, Formats, Limits};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// One call of the sink.
#[derive(Clone, PartialEq)]
enum Call {
    Event(Value),
    Skip(SkipReason),
    Reject { reason: RejectReason, detail: String, bytes: Vec<u8> },
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Call::Event(event) => write!(f, "event {event}"),
            Call::Skip(reason) => write!(f, "skip {}", reason.as_str()),
            Call::Reject { reason, detail, bytes } => {
                write!(f, "reject {} ({detail}) of {} bytes", reason.as_str(), bytes.len())
            }
        }
    }
}

/// Keeps all calls and holds the decoder to its contract.
#[derive(Default)]
struct Calls {
    calls: Vec<Call>,
}

impl EventSink for Calls {
    fn event(&mut self, fields: &EventFields<'_>, context: &EventContext) {
        assert_eq!(context.index as usize, self.calls.len(), "elements are numbered as they are told");
        self.calls.push(Call::Event(owned(fields, context)));
    }

    fn skip(&mut self, reason: SkipReason) {
        self.calls.push(Call::Skip(reason));
    }

    fn reject(&mut self, reason: RejectReason, detail: String, index: u32, bytes: &[u8]) {
        // A record with very many rejects does not tell each.
        assert!(index as usize >= self.calls.len(), "elements are numbered as they are told");
        assert!(!detail.is_empty());
        self.calls.push(Call::Reject { reason, detail, bytes: bytes.to_vec() });
    }
}

/// An event with all that is around it as one JSON value, absent parts null.
fn owned(fields: &EventFields<'_>, context: &EventContext) -> Value {
    let text = |text: Option<Text<'_>>| text.map_or(Value::Null, |text| Value::from(text.decode()));
    // A body may hold what serde_json refuses (numbers beyond a double); then its text stands for it.
    let raw = |raw: Option<Raw<'_>>| {
        raw.map_or(Value::Null, |raw| {
            serde_json::from_slice(raw.bytes()).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(raw.bytes())))
        })
    };
    let origin = &context.origin;
    json!({
        "cloud": origin.cloud.as_str(), "account": origin.account.as_deref(), "region": origin.region.as_deref(),
        "cluster": &*origin.cluster, "cluster_id": origin.cluster_id(), "index": context.index,
        "time_ms": context.envelope_time_ms, "no_groups": context.no_groups, "cut": fields.cut,
        "audit_id": text(fields.audit_id), "level": text(fields.level), "stage": text(fields.stage),
        "verb": text(fields.verb), "uri": text(fields.uri), "user": raw(fields.user),
        "impersonated_user": raw(fields.impersonated_user), "source_ips": raw(fields.source_ips),
        "user_agent": text(fields.user_agent), "object_ref": raw(fields.object_ref),
        "response_status": raw(fields.response_status), "request_object": raw(fields.request_object),
        "response_object": raw(fields.response_object), "request_time": text(fields.request_time),
        "stage_time": text(fields.stage_time), "annotations": raw(fields.annotations),
        "text": String::from_utf8_lossy(fields.text),
    })
}

fn decode_with(formats: &mut Formats, payload: &[u8], lane: &Lane) -> Vec<Call> {
    let record =
        RawRecord { position: Position { lane: 0, offset: 7 }, range: 0..payload.len(), time_ms: None, cluster: None };
    let mut calls = Calls::default();
    formats.decode(payload, &record, lane, &mut calls);
    assert!(!calls.calls.is_empty(), "every record causes a call");
    calls.calls
}

fn lane() -> Lane {
    Lane { name: "lane".into(), fallback_cluster: "lane-fallback".into(), cluster: None }
}

fn decode(payload: &[u8]) -> Vec<Call> {
    decode_with(&mut Formats::new(FormatOptions::default()), payload, &lane())
}

fn events(calls: &[Call]) -> Vec<&Value> {
    calls.iter().filter_map(|call| if let Call::Event(event) = call { Some(event) } else { None }).collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire")
}

fn lines(name: &str) -> Vec<String> {
    let path = fixtures().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    encode: Vec<String>,
    payload: Box<RawValue>,
    expect: Vec<Value>,
}

impl Case {
    fn payload(&self) -> Vec<u8> {
        let text = self.payload.get();
        let plain = if text.starts_with('"') { serde_json::from_str(text).expect("a string") } else { text.to_owned() };
        self.encode.iter().fold(plain.into_bytes(), |bytes, step| match step.as_str() {
            "gzip" => gzip(&bytes),
            "gzip_twice" => [gzip(&bytes), gzip(&bytes)].concat(),
            "gzip_cut" => {
                let mut whole = gzip(&bytes);
                whole.truncate(whole.len() - 12);
                whole
            }
            "gzip_magic" => vec![0x1f, 0x8b],
            "base64" => STANDARD.encode(bytes).into_bytes(),
            "base64_lines" => {
                let text = STANDARD.encode(bytes).into_bytes();
                text.chunks(76).map(|line| [line, b"\r\n"].concat()).collect::<Vec<_>>().concat()
            }
            other => panic!("{}: unknown encoding {other}", self.name),
        })
    }
}

/// The differences between what was expected and what came; none if all is well.
fn differences(expect: &[Value], calls: &[Call]) -> Vec<String> {
    let mut found = Vec::new();
    let mut at = 0;
    for (number, expected) in expect.iter().enumerate() {
        if expected == "some" {
            at = calls.len().saturating_sub(expect.len() - number - 1).max(at);
            continue;
        }
        let Some(call) = calls.get(at) else {
            found.push(format!("call {at} is missing: {expected}"));
            break;
        };
        at += 1;
        match call {
            Call::Event(event) => match expected["event"].as_object() {
                Some(fields) => found.extend(fields.iter().filter(|(key, value)| event[key.as_str()] != **value).map(
                    |(key, value)| format!("call {}: {key} is {} instead of {value}", at - 1, event[key.as_str()]),
                )),
                None => found.push(format!("call {} is an event instead of {expected}", at - 1)),
            },
            Call::Skip(reason) if expected["skip"] == reason.as_str() => {}
            Call::Reject { reason, detail, bytes } if expected["reject"] == reason.as_str() => {
                let part = expected["detail"].as_str().unwrap_or_default();
                if !detail.contains(part) {
                    found.push(format!("detail lacks {part:?}: {detail}"));
                }
                if let Some(wanted) = expected["bytes"].as_str()
                    && wanted.as_bytes() != bytes
                {
                    found.push(format!("bytes are {:?}", String::from_utf8_lossy(bytes)));
                }
            }
            other => found.push(format!("call {} is {other:?} instead of {expected}", at - 1)),
        }
    }
    if let Some(more) = calls.get(at) {
        found.push(format!("{} calls too many, first {more:?}", calls.len() - at));
    }
    found
}

fn check(file: &str) {
    let mut failures = Vec::new();
    for line in lines(file) {
        let case: Case = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{file}: {error}: {line}"));
        let found = differences(&case.expect, &decode(&case.payload()));
        failures.extend(found.into_iter().map(|difference| format!("{file}: {}: {difference}", case.name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn native_forms() {
    check("native.ndjson");
}

#[test]
fn eks_forms() {
    check("eks.ndjson");
}

#[test]
fn aks_forms() {
    check("aks.ndjson");
}

#[test]
fn gke_forms() {
    check("gke.ndjson");
}

#[test]
fn collectors_forms() {
    check("collectors.ndjson");
}

#[test]
fn distributions_forms() {
    check("distributions.ndjson");
}

#[test]
fn hostile_forms() {
    check("hostile.ndjson");
}

/// The keys of a canonical event by the names that `owned` gives them.
const KEYS: [(&str, &str); 16] = [
    ("audit_id", "auditID"),
    ("level", "level"),
    ("stage", "stage"),
    ("verb", "verb"),
    ("uri", "requestURI"),
    ("user", "user"),
    ("impersonated_user", "impersonatedUser"),
    ("source_ips", "sourceIPs"),
    ("user_agent", "userAgent"),
    ("object_ref", "objectRef"),
    ("response_status", "responseStatus"),
    ("request_object", "requestObject"),
    ("response_object", "responseObject"),
    ("request_time", "requestReceivedTimestamp"),
    ("stage_time", "stageTimestamp"),
    ("annotations", "annotations"),
];

/// Whether a decoded event says what the canonical one says.
fn same(decoded: &Value, canonical: &Value) -> bool {
    KEYS.iter().all(|(name, key)| decoded[name] == *canonical.get(key).unwrap_or(&Value::Null))
}

fn assert_same(decoded: &Value, canonical: &Value, what: &str) {
    for (name, key) in KEYS {
        assert_eq!(decoded[name], *canonical.get(key).unwrap_or(&Value::Null), "{what}: {key}");
    }
    assert_eq!(decoded["cut"], false, "{what}");
}

/// Panther's records, each as the cloud would send it.
#[test]
fn panther_records_decode_in_their_clouds_envelopes() {
    let mut count = Map::new();
    for line in lines("corpus/panther/records.ndjson") {
        let case: Value = serde_json::from_str(&line).expect("valid");
        let (cloud, record) = (case["cloud"].as_str().expect("text"), &case["record"]);
        let what = case["test_name"].as_str().expect("text");
        let wrapped = match cloud {
            "aks" => json!({"records": [record]}),
            "eks" => json!({
                "messageType": "DATA_MESSAGE", "owner": "111122223333", "logGroup": "/aws/eks/prod/cluster",
                "logStream": "kube-apiserver-audit-0f", "logEvents": [{"id": "1", "timestamp": 1, "message": record.to_string()}],
            }),
            _ => record.clone(),
        };
        let calls = decode(wrapped.to_string().as_bytes());
        let expected_cloud = match cloud {
            "azure-activity" => {
                assert_eq!(calls, [Call::Skip(SkipReason::Foreign)], "{what}");
                continue;
            }
            other => other,
        };
        let [Call::Event(event)] = calls.as_slice() else { panic!("{what}: {calls:?}") };
        assert_eq!(event["cloud"], expected_cloud, "{what}");
        match cloud {
            "eks" => assert_same(event, record, what),
            "aks" => {
                let log = record["properties"]["log"].as_str().expect("text");
                assert_same(event, &serde_json::from_str(log).expect("valid"), what);
            }
            _ => {
                let payload = &record["protoPayload"];
                let method = payload["methodName"].as_str().expect("text");
                assert_eq!(event["verb"].as_str(), method.rsplit('.').next(), "{what}");
                let who = &payload["authenticationInfo"];
                let caller = who.get("principalEmail").unwrap_or(&who["authoritySelector"]);
                assert_eq!(event["user"]["username"], *caller, "{what}");
                assert_eq!(event["request_object"], payload["request"], "{what}");
                assert_eq!(event["object_ref"]["resource"].as_str().map(|name| method.contains(name)), Some(true));
            }
        }
        let bare = decode(record.to_string().as_bytes());
        assert_eq!(events(&bare).len(), 1, "{what}, bare: {bare:?}");
        let sum = count.get(cloud).and_then(Value::as_u64).unwrap_or(0) + 1;
        count.insert(cloud.to_owned(), sum.into());
    }
    assert_eq!(Value::from(count), json!({"eks": 80, "aks": 17, "gke": 24}));
}

#[test]
fn falco_recordings_decode_and_the_number_is_refused() {
    let (mut decoded, mut refused) = (0, 0);
    for line in lines("corpus/falco/events.ndjson") {
        let case: Value = serde_json::from_str(&line).expect("valid");
        let event = &case["event"];
        match decode(event.to_string().as_bytes()).as_slice() {
            [Call::Event(found)] => {
                assert_same(found, event, &case["source"].to_string());
                decoded += 1;
            }
            [Call::Reject { reason: RejectReason::UnknownFormat, .. }] => {
                assert_eq!(*event, json!({"kind": 0}));
                refused += 1;
            }
            other => panic!("{}: {other:?}", case["source"]),
        }
    }
    assert!(decoded > 15 && refused == 1, "{decoded} {refused}");
}

#[test]
fn khi_entries_tell_kubernetes_calls_from_the_management_api() {
    let mut decoded = 0;
    for line in lines("corpus/khi/entries.ndjson") {
        let case: Value = serde_json::from_str(&line).expect("valid");
        let calls = decode(case["event"].to_string().as_bytes());
        if case["service"] == "k8s.io" {
            let [Call::Event(event)] = calls.as_slice() else { panic!("{calls:?}") };
            assert_eq!(event["object_ref"]["subresource"], "status");
            assert_eq!(event["verb"], "patch");
            assert_eq!(event["response_status"]["code"], 200);
            assert_eq!(event["cluster_id"], "sample-project/us-central1-a/sample-cluster");
            decoded += 1;
        } else {
            assert_eq!(calls, [Call::Skip(SkipReason::Foreign)]);
        }
    }
    assert_eq!(decoded, 2);
}

#[test]
fn webhook_bodies_of_a_real_server_decode_item_by_item() {
    for name in ["webhook-eventlist.json", "webhook-eventlist-2.json"] {
        let body = std::fs::read(fixtures().join("corpus/cluster").join(name)).expect("readable");
        let list: Value = serde_json::from_slice(&body).expect("valid");
        let items = list["items"].as_array().expect("a list");
        let calls = decode(&body);
        assert_eq!(calls.len(), items.len());
        for (call, item) in calls.iter().zip(items) {
            match call {
                Call::Event(event) => assert_same(event, item, name),
                call => {
                    assert_eq!(*call, Call::Skip(SkipReason::Stage));
                    assert_eq!(item["stage"], "RequestReceived");
                }
            }
        }
    }
}

#[test]
fn a_fixed_format_refuses_other_clouds_and_places_bare_events() {
    let event =
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "stage": "Panic", "verb": "get"});
    let azure = json!({"category": "kube-audit", "properties": {"log": event.to_string()}});
    let options = FormatOptions {
        format: Format::Eks,
        account: Some("111122223333".into()),
        region: Some("eu-west-1".into()),
        ..FormatOptions::default()
    };
    let mut formats = Formats::new(options);
    let lane = Lane { cluster: Some(Arc::from("named")), ..lane() };
    let calls = decode_with(&mut formats, event.to_string().as_bytes(), &lane);
    assert_eq!(events(&calls)[0]["cloud"], "eks");
    assert_eq!(events(&calls)[0]["cluster_id"], "111122223333/eu-west-1/named");
    let calls = decode_with(&mut formats, azure.to_string().as_bytes(), &lane);
    let [Call::Reject { reason: RejectReason::UnknownFormat, detail, .. }] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    assert!(detail.contains("`auto` or `aks`"), "{detail}");
    let record = RawRecord {
        position: Position { lane: 0, offset: 0 },
        range: 0..0,
        time_ms: None,
        cluster: Some(Arc::from("from-a-header")),
    };
    let mut calls = Calls::default();
    formats.decode(event.to_string().as_bytes(), &record, &lane, &mut calls);
    assert_eq!(events(&calls.calls)[0]["cluster"], "from-a-header");
}

#[test]
fn limits_are_kept_and_named() {
    let limits = Limits { event_bytes: 2_000, decompressed_bytes: 10_000, ..Limits::default() };
    let mut formats = Formats::new(FormatOptions { limits, ..FormatOptions::default() });
    let event = |padding: usize| {
        let body = "x".repeat(padding);
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "verb": "get", "stage": "Panic", "requestObject": body})
    };
    let too_large = |calls: &[Call], setting: &str| {
        let [.., Call::Reject { reason: RejectReason::TooLarge, detail, .. }] = calls else { panic!("{calls:?}") };
        assert!(detail.contains(setting), "{detail}");
    };
    let calls = decode_with(&mut formats, format!("[{},{}]", event(10), event(3_000)).as_bytes(), &lane());
    assert_eq!(events(&calls).len(), 1);
    too_large(&calls, "event_bytes");
    let bomb = gzip(&vec![b' '; 1 << 20]);
    too_large(&decode_with(&mut formats, &bomb, &lane()), "decompressed_bytes");
    too_large(&decode_with(&mut formats, &gzip(&bomb), &lane()), "decompressed_bytes");
    // Many small bombs in one record share the limit.
    let part = STANDARD.encode(gzip(&vec![b' '; 6_000]));
    let parts = json!({"records": [{"data": part}, {"data": part}]});
    too_large(&decode_with(&mut formats, parts.to_string().as_bytes(), &lane()), "decompressed_bytes");
}

#[test]
fn an_event_of_ten_megabytes_is_the_limit_by_default() {
    let event = |bytes: usize| {
        let head = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","requestObject":""#;
        format!("{head}{}\"}}", "x".repeat(bytes - head.len() - 2))
    };
    assert_eq!(events(&decode(event(10 << 20).as_bytes())).len(), 1);
    let calls = decode(event((10 << 20) + 1).as_bytes());
    assert!(matches!(calls.as_slice(), [Call::Reject { reason: RejectReason::TooLarge, .. }]));
}

#[test]
fn a_million_broken_elements_are_not_a_million_dead_letters() {
    let payload = format!("[{}]", "1,".repeat(1_000_000));
    let calls = decode(payload.as_bytes());
    let [.., Call::Reject { bytes, .. }] = calls.as_slice() else { panic!("{} calls", calls.len()) };
    assert!(calls.len() == 1_001 && *bytes == payload.as_bytes(), "{} calls", calls.len());
}

#[test]
fn a_record_that_cannot_be_read_is_kept_as_it_came() {
    for record in ["  plain text \r\n", "\u{feff}{\"hello\": 1}\n", "\n\t{\"kind\": \"Event\", ...\0\0"] {
        let calls = decode(record.as_bytes());
        let kept = calls.iter().any(|call| matches!(call, Call::Reject { bytes, .. } if bytes == record.as_bytes()));
        assert!(kept, "{record:?} gave {calls:#?}");
    }
}

#[test]
fn invalid_utf8_does_not_hide_an_event() {
    let mut payload =
        br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","userAgent":""#.to_vec();
    payload.extend_from_slice(b"\xff\xfe\"}");
    let calls = decode(&payload);
    assert_eq!(events(&calls)[0]["user_agent"], "\u{fffd}\u{fffd}");
}

/// Every cut of every envelope is survived, and never yields an event that the whole does not hold.
#[test]
fn any_prefix_of_a_record_is_survived() {
    for file in ["native", "eks", "aks", "gke", "collectors", "distributions"] {
        for line in lines(&format!("{file}.ndjson")).iter().step_by(3) {
            let case: Case = serde_json::from_str(line).expect("valid");
            let payload = case.payload();
            let whole = decode(&payload);
            let ids: Vec<&Value> = events(&whole).iter().map(|event| &event["audit_id"]).collect();
            for end in (0..payload.len()).step_by(17) {
                for event in events(&decode(&payload[..end])) {
                    let known = event["audit_id"].is_null() || ids.contains(&&event["audit_id"]);
                    assert!(known, "{}: cut at {end}: {event}", case.name);
                }
            }
        }
    }
}

/// A way to wrap events; each consumes one payload and yields another with the same events.
#[derive(Debug, Clone, Copy)]
enum Wrapper {
    Gzip,
    GzipBase64,
    Lambda,
    Firehose,
    CloudWatch,
    AzureRecords,
    AzureObject,
    FluentBit,
    Logstash,
    Connect,
    ConnectObject,
    PubSub,
    Cri,
    Timed,
    Otlp,
    Text,
    Array,
}

impl Wrapper {
    const ALL: [Wrapper; 17] = [
        Wrapper::Gzip,
        Wrapper::GzipBase64,
        Wrapper::Lambda,
        Wrapper::Firehose,
        Wrapper::CloudWatch,
        Wrapper::AzureRecords,
        Wrapper::AzureObject,
        Wrapper::FluentBit,
        Wrapper::Logstash,
        Wrapper::Connect,
        Wrapper::ConnectObject,
        Wrapper::PubSub,
        Wrapper::Cri,
        Wrapper::Timed,
        Wrapper::Otlp,
        Wrapper::Text,
        Wrapper::Array,
    ];

    /// Envelopes that it counts for.
    fn depth(self) -> usize {
        match self {
            Wrapper::GzipBase64 | Wrapper::PubSub | Wrapper::AzureRecords | Wrapper::AzureObject | Wrapper::Otlp => 2,
            Wrapper::Lambda | Wrapper::Firehose => 3,
            _ => 1,
        }
    }

    /// Wraps a payload; one that is no text, or not one JSON value, only where that is possible.
    fn wrap(self, payload: &[u8]) -> Option<Vec<u8>> {
        let base64 = || STANDARD.encode(payload);
        let text = || std::str::from_utf8(payload).ok();
        let object = || serde_json::from_slice::<Value>(payload).ok().filter(Value::is_object);
        let line = || text().filter(|text| !text.contains('\n') && text.starts_with('{'));
        let record = |log: Value| json!({"category": "kube-audit", "operationName": "x", "properties": {"log": log}});
        let wrapped = match self {
            Wrapper::Gzip => return Some(gzip(payload)),
            Wrapper::GzipBase64 => return Some(STANDARD.encode(gzip(payload)).into_bytes()),
            Wrapper::Lambda => json!({"awslogs": {"data": STANDARD.encode(gzip(payload))}}),
            Wrapper::Firehose => json!({"records": [{"data": STANDARD.encode(gzip(payload))}]}),
            Wrapper::CloudWatch => json!({
                "messageType": "DATA_MESSAGE", "logGroup": "/aws/eks/c/cluster", "logStream": "kube-apiserver-audit-0",
                "logEvents": [{"id": "1", "timestamp": 5, "message": text()?}],
            }),
            Wrapper::AzureRecords => json!({"records": [record(text()?.into())]}),
            Wrapper::AzureObject => json!({"records": [record(object()?)]}),
            Wrapper::FluentBit => json!({"@timestamp": 1.5, "log": text()?}),
            Wrapper::Logstash => json!({"event": {"original": text()?}, "message": text()?}),
            Wrapper::Connect => json!({"schema": {"type": "string"}, "payload": text()?}),
            Wrapper::ConnectObject => json!({"schema": {}, "payload": object()?}),
            Wrapper::PubSub => json!({"message": {"data": base64()}, "subscription": "s"}),
            Wrapper::Cri => return Some(format!("2026-03-04T10:15:30.1Z stdout F {}\n", line()?).into_bytes()),
            Wrapper::Timed => return Some(format!("2026-03-04T10:15:30.1Z {}\n", line()?).into_bytes()),
            Wrapper::Otlp => json!({
                "resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": text()?}}]}]}],
            }),
            Wrapper::Text => return Some(Value::from(text()?).to_string().into_bytes()),
            Wrapper::Array => Value::Array(vec![object()?]),
        };
        Some(wrapped.to_string().into_bytes())
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(Value::from("}]\"\\{[")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_event() -> impl Strategy<Value = Value> {
    let bodies = (any_json(), any_json(), any_json());
    let texts = (any::<String>(), any::<String>(), any::<String>(), any::<String>());
    (bodies, texts, any::<bool>()).prop_map(|((user, request, annotations), (id, uri, agent, name), is_bare)| {
        let mut event = json!({
            "level": "Request", "auditID": format!("id-{id}"), "stage": "ResponseComplete", "verb": "create",
            "requestURI": uri, "userAgent": agent, "user": {"username": name, "extra": user}, "sourceIPs": ["::1"],
            "requestObject": request, "annotations": annotations, "stageTimestamp": "2026-03-04T10:15:30Z",
        });
        if !is_bare {
            event["kind"] = "Event".into();
            event["apiVersion"] = "audit.k8s.io/v1".into();
        }
        event
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wrapping_does_not_change_events(
        canonical in any_event(),
        stack in prop::collection::vec(prop::sample::select(Wrapper::ALL.to_vec()), 0..6),
    ) {
        let mut payload = canonical.to_string().into_bytes();
        let mut depth = 0;
        let mut used = Vec::new();
        for wrapper in stack {
            if depth + wrapper.depth() > Limits::default().unwrap {
                continue;
            }
            if let Some(wrapped) = wrapper.wrap(&payload) {
                payload = wrapped;
                depth += wrapper.depth();
                used.push(wrapper);
            }
        }
        let calls = decode(&payload);
        let [Call::Event(event)] = calls.as_slice() else {
            return Err(TestCaseError::fail(format!("{used:?}: {calls:?}")));
        };
        prop_assert!(same(event, &canonical), "{used:?}: {event} is not {canonical}");
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes);
    }

    #[test]
    fn any_json_is_survived(value in any_json()) {
        decode(value.to_string().as_bytes());
    }
}

/// What the fuzzers found interesting stays readable without a fuzzer.
#[test]
fn fuzz_corpora_are_survived() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut count = 0;
    for target in ["scanner", "decoders"] {
        for entry in std::fs::read_dir(root.join(target)).expect("the corpus is checked in") {
            let bytes = std::fs::read(entry.expect("readable").path()).expect("readable");
            decode(&bytes);
            walk_with_cursor(&bytes);
            count += 1;
        }
    }
    assert!(count > 20, "{count} inputs");
}

/// The `scanner` target: every value's end as the cursor finds it is the end that a plain parser finds.
fn walk_with_cursor(bytes: &[u8]) {
    let mut cursor = kubetide::json::Cursor::new(bytes);
    let skipped = cursor.skip().map(|()| cursor.position());
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<serde::de::IgnoredAny>();
    let starts_value = bytes.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'[' | b'"'));
    if starts_value && let Some(Ok(_)) = values.next() {
        assert_eq!(skipped, Ok(values.byte_offset()), "{}", bytes.escape_ascii());
    }
}
