//! The stage as a whole: what holds for any events, in any order.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{binary, cast, col, lit};
use proptest::prelude::*;
use serde_json::json;

use super::testing::*;
use super::*;
use crate::detection::SourceFile;
use crate::model::{AUDIT_SCHEMA, COLUMNS, Kind};

/// `auditID`s listed by finding, over all emissions.
fn listed(alerts: &[Alert]) -> BTreeMap<String, BTreeSet<String>> {
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for alert in alerts {
        let finding: Value = serde_json::from_slice(&alert.ocsf).unwrap();
        let uids = listed.entry(alert.uid.to_string()).or_default();
        for event in finding["finding_info"]["related_events"].as_array().unwrap() {
            uids.insert(event["uid"].as_str().unwrap().to_owned());
        }
    }
    listed
}

#[test]
fn repeats_about_one_entity_update_one_finding() {
    let mut stage = stage(vec![spec()]);
    let created = stage.accept(&matched(&[request(1, json!({})), request(2, json!({})), request(3, json!({}))], 1));
    let updated = stage.flush();
    assert_eq!((created.len(), updated.len()), (1, 1));
    assert_eq!(created[0].uid, updated[0].uid);
    assert_ne!(created[0].emission_uid, updated[0].emission_uid);
    let finding = check(&updated[0]);
    assert_eq!((&finding["activity_id"], &finding["count"]), (&json!(2), &json!(3)));
    assert_eq!(finding["start_time"], START_US / 1000 + 1000);
    assert_eq!(finding["end_time"], START_US / 1000 + 3000);
    assert_eq!(finding["evidences"].as_array().unwrap().len(), 2);
    assert_eq!(finding["evidences"][0]["uid"], "e3", "the newest comes first");
    assert!(stage.flush().is_empty());
    let counts = stage.counts();
    assert_eq!((counts.created, counts.updated, counts.suppressed, counts.open), (1, 1, 2, 1));
}

#[test]
fn a_restart_goes_on_with_open_findings() {
    let other = || AlertSpec { id: "other".into(), ..spec() };
    let mut first = stage(vec![spec(), other()]);
    let created = first.accept(&matched(&[request(1, json!({})), request(2, json!({}))], 2));
    first.flush();
    let tables = first.save();

    // The same detections, loaded in another order.
    let mut second = stage(vec![other(), spec()]);
    second.restore(&tables).expect("it was saved so");
    assert_eq!(second.counts().open, 2);
    let events = matched(&[request(2, json!({})), request(3, json!({}))], 2);
    assert!(second.accept(&events).is_empty(), "nothing is created again");
    let updated = second.flush();
    let uids = |alerts: &[Alert]| alerts.iter().map(|alert| alert.uid.clone()).collect::<BTreeSet<_>>();
    assert_eq!(uids(&updated), uids(&created));
    for alert in &updated {
        let finding = check(alert);
        assert_eq!((&finding["activity_id"], &finding["count"]), (&json!(2), &json!(3)));
        assert_eq!(finding["start_time"], START_US / 1000 + 1000, "the first event was before the restart");
    }
}

#[test]
fn both_stages_and_second_deliveries_of_a_request_count_once() {
    for suppress_secs in [0, 3600] {
        let mut stage = stage(vec![spec_of(&["namespace"], "", suppress_secs)]);
        let started = request(1, json!({"event_id": "a", "stage": "ResponseStarted"}));
        let complete = request(1, json!({"event_id": "b", "event_time": START_US + 7_200_000_000_i64}));
        let alerts = stage.accept(&matched(&[started.clone(), complete, started], 1));
        assert_eq!((alerts.len(), stage.flush().len()), (1, 0));
        assert_eq!(stage.counts().duplicates, 2);
    }
}

#[test]
fn without_suppression_every_request_is_a_finding() {
    let mut stage = stage(vec![spec_of(&["namespace"], "", 0)]);
    let alerts = stage.accept(&matched(&[request(1, json!({})), request(2, json!({}))], 1));
    assert_eq!(alerts.len(), 2);
    assert_ne!(alerts[0].uid, alerts[1].uid);
}

#[test]
fn entities_clusters_buckets_and_detections_are_told_apart() {
    let other = AlertSpec { id: "other".into(), ..spec() };
    let mut stage = stage(vec![spec(), other]);
    let rows = [
        request(1, json!({})),
        request(2, json!({"name": "api"})),
        request(3, json!({"name": null})),
        request(4, json!({"name": ""})),
        request(5, json!({"cluster_id": "x/prod"})),
        request(6, json!({"request_time": START_US + 3_600_000_000_i64})),
        request(7, json!({"request_time": START_US + 3_599_999_999_i64})),
    ];
    let alerts = stage.accept(&matched(&rows, 2));
    let uids: BTreeSet<_> = alerts.iter().map(|alert| alert.uid.clone()).collect();
    assert_eq!((alerts.len(), uids.len()), (12, 12));
}

#[test]
fn a_flood_is_listed_whole_in_emissions_of_bounded_size() {
    let mut stage = stage(vec![spec()]);
    let rows: Vec<TestRow> = (0..2502).map(|number| request(number, json!({}))).collect();
    let mut alerts = stage.accept(&matched(&rows, 1));
    alerts.extend(stage.flush());
    assert_eq!(alerts.len(), 4);
    assert_eq!(listed(&alerts).values().next().unwrap().len(), 2502);
    assert_eq!(alerts.iter().map(|alert| alert.count).collect::<Vec<_>>(), [1, 1001, 2001, 2502]);
    let emissions: BTreeSet<_> = alerts.iter().map(|alert| &alert.emission_uid).collect();
    assert_eq!(emissions.len(), 4);
    assert_eq!(check(&alerts[3])["evidences"].as_array().unwrap().len(), 5);
}

#[test]
fn bounds_make_updates_early_and_forget_the_oldest_without_losing_events() {
    let limits =
        Limits { open_max: 20, requests_max: 30, pending_bytes_max: 10_000, listed_max: 3, ..Limits::default() };
    let options = AlertOptions { limits, ..options() };
    let mut stage = AlertStage::with_specs(vec![spec()], vec![], options);
    let mut alerts = Vec::new();
    for number in 0..400 {
        let row = request(number, json!({"name": format!("pod-{}", number / 4 % 50)}));
        alerts.extend(stage.accept(&matched(&[row], 1)));
        assert!(stage.counts().open <= 20);
    }
    alerts.extend(stage.flush());
    let listed = listed(&alerts);
    assert_eq!(listed.len(), 50);
    assert_eq!(listed.values().map(BTreeSet::len).sum::<usize>(), 400);
    assert!(stage.counts().evicted > 0);
}

#[test]
fn findings_are_forgotten_when_their_own_cluster_has_moved_on() {
    let mut stage = stage(vec![spec()]);
    let day_us = 86_400_000_000_i64;
    stage.accept(&matched(&[request(1, json!({"cluster_id": "a"})), request(2, json!({"cluster_id": "b"}))], 1));
    let late = json!({"cluster_id": "a", "event_time": START_US + day_us, "request_time": START_US + day_us});
    stage.accept(&matched(&[request(3, late)], 1));
    stage.flush();
    assert_eq!((stage.counts().open, stage.counts().evicted), (2, 1));
    assert!(stage.accept(&matched(&[request(4, json!({"cluster_id": "b"}))], 1)).is_empty(), "b's is still open");
}

fn exception(predicate: Arc<dyn PhysicalExpr>, expires: (i32, u32, u32)) -> ExceptionSpec {
    ExceptionSpec {
        detection: "test-detection".into(),
        predicate,
        reason: "known".into(),
        owner: "platform".into(),
        expires: NaiveDate::from_ymd_opt(expires.0, expires.1, expires.2).unwrap(),
        file: "exceptions/test.yaml".into(),
    }
}

fn equals(column: &str, value: &str) -> Arc<dyn PhysicalExpr> {
    binary(col(column, &AUDIT_SCHEMA).unwrap(), Operator::Eq, lit(value), &AUDIT_SCHEMA).unwrap()
}

#[test]
fn exceptions_hide_what_they_are_true_for_until_the_day_they_expire() {
    let number = cast(col("name", &AUDIT_SCHEMA).unwrap(), &AUDIT_SCHEMA, arrow::datatypes::DataType::Int64).unwrap();
    let failing = binary(number, Operator::Eq, lit(7_i64), &AUDIT_SCHEMA).unwrap();
    let exceptions = vec![
        exception(equals("namespace", "ci"), (2026, 1, 1)),
        exception(equals("namespace", "shop"), (2025, 12, 31)),
        exception(failing, (2030, 1, 1)),
    ];
    let other = AlertSpec { id: "other".into(), ..spec() };
    let mut stage = AlertStage::with_specs(vec![spec(), other], exceptions, options());
    let rows = [
        request(1, json!({"namespace": "ci"})),
        request(2, json!({"namespace": "shop"})),
        request(3, json!({"namespace": null})),
        request(4, json!({"name": "7"})),
    ];
    let alerts = stage.accept(&matched(&rows, 2));
    let of_first: Vec<String> = alerts
        .iter()
        .filter(|alert| &*alert.detection == "test-detection")
        .map(|alert| check(alert)["finding_info"]["related_events"][0]["uid"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(of_first.len(), 2, "{of_first:?}");
    assert!(of_first.iter().all(|uid| uid.ends_with('2') || uid.ends_with('3')));
    assert_eq!(alerts.len() - of_first.len(), 4, "the other detection has no exception");
    let counts = stage.counts();
    assert_eq!(counts.hidden, 2);
    let seen: Vec<_> = counts.exceptions.iter().map(|one| (one.hidden, one.errors, one.expired)).collect();
    assert_eq!(seen, [(1, 0, false), (0, 0, true), (1, 3, false)]);
    assert!(counts.exceptions[2].error.is_some());
}

#[test]
fn a_loaded_set_of_detections_and_exceptions_works_as_written() {
    let files = [
        (
            "detections/privilege-escalation/test-pod.yaml",
            "id: test-pod\ntitle: Pod created\nseverity: medium\nstatus: experimental\nattack: [TA0004/T1611, \
             TA0003/T1098.006]\ndescription: d\ntriage: t\nsql: SELECT * FROM audit WHERE verb = 'create'\n\
             entity: [cluster, namespace]\nsuppress: 15m\nsummary: \"{user_name} in {namespace} {{x}}\"\n",
        ),
        (
            "exceptions/site.yaml",
            "- {detection: test-pod, sql: \"namespace LIKE 'ci-%'\", reason: r, owner: o, expires: 2027-01-01}\n",
        ),
    ];
    let files = files.map(|(path, text)| SourceFile { path: path.into(), text: text.into(), support: false });
    let loaded = crate::detection::load(&files);
    assert_eq!((loaded.set.detections.len(), loaded.set.exceptions.len()), (1, 1), "{:?}", loaded.diagnostics);
    let mut stage = AlertStage::new(Arc::new(loaded.set), options());
    let rows = [request(1, json!({"namespace": "ci-7"})), request(2, json!({}))];
    let alerts = stage.accept(&matched(&rows, 1));
    assert_eq!(alerts.len(), 1);
    let finding = check(&alerts[0]);
    assert_eq!(alerts[0].summary, "jane in shop {x}");
    assert_eq!(alerts[0].attack, ["TA0004/T1611".into(), "TA0003/T1098.006".into()] as [Arc<str>; 2]);
    assert_eq!(finding["finding_info"]["analytic"]["state"], "Experimental");
    assert_eq!(finding["finding_info"]["attacks"][1]["technique"]["uid"], "T1098");
    assert_eq!(finding["unmapped"]["suppress_seconds"], 900);
    assert_eq!(stage.counts().exceptions[0].hidden, 1);
}

#[test]
fn what_a_detection_computes_names_entities_and_fills_summaries() {
    let spec = spec_of(&["role", "name"], "{user_name} got {role}, {api_group}, {nothing}", 3600);
    let row = request(1, json!({"user_name": "a\u{1b}[0m"})).computed("role", json!(["cluster-admin", "edit"]));
    let (alert, finding) = only_alert(spec, row);
    assert_eq!(alert.summary, "a\\u{1b}[0m got cluster-admin, edit, '', -");
    assert_eq!(alert.entity[0], ("role".into(), "cluster-admin, edit".to_owned()));
    assert_eq!(finding["unmapped"]["computed"]["role"][1], "edit");
}

#[test]
fn fields_without_a_place_of_their_own_are_kept() {
    let row = request(
        1,
        json!({
            "cloud": "gke", "source_ip": "gce-internal-ip", "source_ips": ["10.0.0.1", "2001:db8::1", "x", "10.0.0.9"],
            "impersonated_user": "admin", "impersonated_groups": ["system:masters"], "verb": "list", "name": null,
            "uri": "/api/v1/pods?limit=5", "user_agent": "curl", "decision": "allow", "decision_reason": "RBAC",
            "credential_id": "JTI=1", "response_code": 200
        }),
    );
    let (_, finding) = only_alert(spec(), row);
    let evidence = &finding["evidences"][0];
    assert_eq!(finding["cloud"]["provider"], "GCP");
    assert!(evidence.get("src_endpoint").is_none());
    assert_eq!(finding["unmapped"]["source_ip"], "gce-internal-ip");
    assert_eq!(evidence["http_request"]["x_forwarded_for"], json!(["10.0.0.1", "2001:db8::1"]));
    assert_eq!(evidence["http_request"]["url"]["query_string"], "limit=5");
    assert_eq!(evidence["user"]["groups"][0]["name"], "system:masters");
    assert_eq!(evidence["actor"]["session"]["credential_uid"], "JTI=1");
    assert_eq!(finding["resources"][1]["name"], "*");
}

/// A whole alert as consumers parse it; `UPDATE_GOLDEN=1` writes the files anew.
#[test]
fn alerts_are_what_consumers_were_promised() {
    let event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "stage": "ResponseComplete",
        "auditID": "8f3f2c1e-0d7b-4a55-9d0a-6a1f1c9d2b11", "verb": "create",
        "requestURI": "/api/v1/namespaces/shop/pods?fieldManager=kubectl-create",
        "user": {"username": "jane@example.com", "groups": ["developers", "system:authenticated"]},
        "sourceIPs": ["203.0.113.7"], "userAgent": "kubectl/v1.33.1",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": "debug", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestObject": {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "debug"}, "spec": {
            "containers": [{"name": "a", "image": "alpine", "env": [{"name": "PIN", "value": "1234"}]}],
            "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}},
        "requestReceivedTimestamp": "2026-01-01T00:00:01.000000Z", "stageTimestamp": "2026-01-01T00:00:01.250000Z",
    });
    let set = json!({
        "event_time": START_US + 1_250_000, "audit_id": event["auditID"], "uri": event["requestURI"], "name": "debug",
        "user_name": "jane@example.com", "user_groups": ["developers", "system:authenticated"],
        "source_ip": "203.0.113.7", "source_ips": ["203.0.113.7"], "user_agent": "kubectl/v1.33.1",
        "response_code": 201, "host_paths": ["/"], "decision": "allow",
        "decision_reason": "RBAC: allowed by RoleBinding \"dev/shop\" of ClusterRole \"edit\" to Group \"developers\"",
    });
    let spec =
        spec_of(&["cluster", "namespace", "name"], "{user_name} mounted {host_paths} in {namespace}/{name}", 3600);
    let mut stage = stage(vec![spec]);
    let mut alerts = stage.accept(&matched(&[request(1, set.clone()).text(&event)], 1));
    let mut again = set;
    again["audit_id"] = json!("8f3f2c1e-0d7b-4a55-9d0a-6a1f1c9d2b12");
    again["event_time"] = json!(START_US + 9_000_000);
    stage.accept(&matched(&[request(2, again).text(&event)], 1));
    alerts.extend(stage.flush());
    assert_eq!(alerts.len(), 2);
    for (alert, file) in alerts.iter().zip(["alert-create.json", "alert-update.json"]) {
        let mut finding = check(alert);
        finding["metadata"]["product"]["version"] = json!("VERSION");
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("{finding:#}\n")).unwrap();
        }
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(finding, golden, "{file} differs: consumers would see this change\n{finding:#}");
    }
}

/// Strings that have broken somebody's parser before.
fn nasty() -> impl Strategy<Value = String> {
    let known = [
        "",
        "-",
        "\u{0}",
        "\n\r\t\u{1b}[31m",
        "\u{202e}evil",
        "ünïcødé 🦀",
        "::1",
        "2001:db8::ffff",
        "203.0.113.7",
        "fe80::1%eth0",
        "::ffff:192.0.2.1",
        "private",
        "999.1.1.1",
        "gke",
        "aks",
        "eks",
        "openshift",
        "other",
        "secrets",
        "get",
        "create",
        "proxy",
        "deletecollection",
        "{\"a\":[1,",
        "{\"data\":{\"a\":\"b\"}}",
        "[1,2]",
        "null",
        "\\ud800",
        "system:serviceaccount:a:b",
        "system:node:x",
        "{name}",
        "a?b?c",
        "?",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        any::<String>(),
        "[ -~]{0,40}",
        (0_usize..6000).prop_map(|len| "x".repeat(len)),
    ]
}

fn any_row() -> impl Strategy<Value = TestRow> {
    let texts = prop::collection::vec(prop::option::weighted(0.7, nasty()), COLUMNS.len());
    let lists = prop::collection::vec(prop::option::of(prop::collection::vec(nasty(), 0..4)), COLUMNS.len());
    let raw = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        nasty().prop_map(String::into_bytes),
        nasty().prop_map(|text| json!({"auditID": text, "requestObject": {"env": [{"name": "a", "value": text}]}})
            .to_string()
            .into_bytes()),
        nasty().prop_map(|text| format!("{{\"kind\":\"Event\",\"a\":\"{text}").into_bytes()),
    ];
    let computed = prop::collection::vec((nasty(), nasty()), 0..3);
    (texts, lists, any::<i64>(), any::<bool>(), raw, computed).prop_map(
        |(texts, lists, number, flag, text, computed)| {
            let mut columns = json!({});
            for ((info, text), list) in COLUMNS.iter().zip(texts).zip(lists) {
                let Some(text) = text else { continue };
                columns[info.name] = match info.kind {
                    Kind::Text | Kind::Json => json!(text),
                    Kind::Bool => json!(flag),
                    Kind::Int | Kind::Time => json!(number),
                    Kind::TextList => json!(list),
                    Kind::IntList => json!([number]),
                    _ => Value::Null,
                };
            }
            let computed = computed.into_iter().map(|(name, value)| (name.into(), json!(value))).collect();
            TestRow { columns, text, computed }
        },
    )
}

/// Requests about few entities around the edge of a bucket, some with two stages, some delivered twice, shuffled.
fn any_events() -> impl Strategy<Value = Vec<TestRow>> {
    let event = (0_u64..12, 0_u8..3, 0_u8..2);
    prop::collection::vec(event, 1..24).prop_map(|events| {
        let row = |(number, entity, stage): (u64, u8, u8)| {
            let request_time = START_US + 3_599_000_000 + number as i64 * 200_000;
            let id = format!("{number}-{entity}");
            let set = json!({
                "request_id": id, "audit_id": id, "event_id": format!("{id}-{stage}"), "name": format!("pod-{entity}"),
                "request_time": request_time, "event_time": request_time + i64::from(stage) * 5_000_000,
            });
            request(number, set)
        };
        events.into_iter().map(row).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_row_gives_a_valid_alert(rows in prop::collection::vec(any_row(), 1..4)) {
        let summary = "{user_name} {uri} {images} {object} {event_time} {response_code} {rules} {truncated}";
        for suppress_secs in [0, 60] {
            let mut stage = stage(vec![spec_of(&["name", "host_paths", "object"], summary, suppress_secs)]);
            let mut alerts = stage.accept(&matched(&rows, 1));
            alerts.extend(stage.flush());
            prop_assert!(!alerts.is_empty());
            for alert in alerts {
                check(&alert);
                prop_assert!(alert.ocsf.len() < 400_000);
            }
        }
    }

    #[test]
    fn findings_and_their_events_do_not_depend_on_order_or_batches(
        (events, shuffled) in any_events().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        batch in 1_usize..8,
        suppress_secs in prop::sample::select(vec![0_u64, 1, 3600]),
    ) {
        let specs = || vec![spec_of(&["name"], "", suppress_secs), AlertSpec { id: "other".into(), ..spec() }];
        let mut whole = stage(specs());
        let mut expected = whole.accept(&matched(&events, 2));
        expected.extend(whole.flush());
        let mut split = stage(specs());
        let mut given = Vec::new();
        for (index, batch) in shuffled.chunks(batch).enumerate() {
            given.extend(split.accept(&matched(batch, 2)));
            if index % 3 == 0 {
                given.extend(split.flush());
            }
        }
        given.extend(split.flush());
        prop_assert_eq!(listed(&given), listed(&expected));
        prop_assert_eq!(given.iter().filter(|alert| alert.activity == Activity::Create).count(), listed(&expected).len());
    }
}
