//! One event in, one row out: each test names the event and the columns that must come of it.

use serde_json::{Value, json};

use super::*;
use crate::json::Cursor;
use crate::model::{COLUMNS, Lane, Origin};

/// The row of an event as JSON by column, nulls left out.
fn row(event: &Value) -> Value {
    row_with(event, &[])
}

fn row_with(event: &Value, trusted: &[&str]) -> Value {
    let text = event.to_string();
    let chunk = Chunk {
        bytes: Bytes::from(text.into_bytes()),
        records: Vec::new(),
        lanes: Arc::from([lane()]),
        ended: Vec::new(),
    };
    let trusted: Arc<[IpNet]> = trusted.iter().map(|net| net.parse().expect("a network")).collect();
    let mut builder = BatchBuilder::new(Arc::new(Need::everything()), trusted, &chunk, chunk.records.len());
    let origin =
        Origin { cloud: Cloud::Other, account: None, region: None, resource_group: None, cluster: Arc::from("prod") };
    let context = EventContext { origin: Arc::new(origin), index: 0, envelope_time_ms: None, no_groups: false };
    let fields = fields(&chunk.bytes);
    builder.event(&fields, &context);
    builder.event(&fields, &context);
    let batch = builder.finish();
    assert_eq!(batch.text(0), chunk.bytes, "the event's own bytes are the evidence");
    let plain = batch.plain().expect("columns fit the table");
    assert_eq!(plain.num_rows(), 2);
    let mut out = serde_json::Map::new();
    for info in COLUMNS {
        let array = plain.column(info.column as usize);
        let value = cell(array, 1);
        assert_eq!(cell(array, 0), value, "{}: equal events make equal rows", info.name);
        if !value.is_null() {
            out.insert(info.name.to_owned(), value);
        }
    }
    Value::Object(out)
}

fn lane() -> Lane {
    Lane { name: "test".into(), fallback_cluster: "test".into(), cluster: None }
}

/// The spans of a canonical event, as format would hand them over.
fn fields(text: &[u8]) -> EventFields<'_> {
    let mut fields = EventFields { text, ..EventFields::default() };
    let walked: Result<bool, crate::json::JsonError> = Cursor::new(text).object(|cursor, key| {
        match key.raw() {
            b"auditID" => fields.audit_id = cursor.text()?,
            b"stage" => fields.stage = cursor.text()?,
            b"verb" => fields.verb = cursor.text()?,
            b"requestURI" => fields.uri = cursor.text()?,
            b"user" => fields.user = Some(cursor.raw()?),
            b"impersonatedUser" => fields.impersonated_user = Some(cursor.raw()?),
            b"sourceIPs" => fields.source_ips = Some(cursor.raw()?),
            b"objectRef" => fields.object_ref = Some(cursor.raw()?),
            b"responseStatus" => fields.response_status = Some(cursor.raw()?),
            b"requestObject" => fields.request_object = Some(cursor.raw()?),
            b"responseObject" => fields.response_object = Some(cursor.raw()?),
            b"requestReceivedTimestamp" => fields.request_time = cursor.text()?,
            b"stageTimestamp" => fields.stage_time = cursor.text()?,
            b"annotations" => fields.annotations = Some(cursor.raw()?),
            _ => {}
        }
        Ok(())
    });
    assert_eq!(walked, Ok(true));
    fields
}

fn cell(array: &arrow::array::ArrayRef, row: usize) -> Value {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(..) => json!(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| cell(&items, item)).collect()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter();
            let members = fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), cell(column, row)));
            Value::Object(members.filter(|(_, value)| !value.is_null()).collect())
        }
        other => panic!("no column is {other}"),
    }
}

/// Asserts that the row has these values; `null` asserts that the column is null.
fn check(event: &Value, expected: Value) {
    let row = row(event);
    for (column, value) in expected.as_object().expect("columns") {
        assert!(Column::by_name(column).is_some(), "no column {column}");
        assert_eq!(row.get(column).unwrap_or(&Value::Null), value, "{column} of {event}");
    }
}

use crate::model::Column;

fn write(verb: &str, resource: &str, group: &str, body: Value) -> Value {
    json!({
        "verb": verb, "stage": "ResponseComplete",
        "objectRef": {"resource": resource, "apiGroup": group, "namespace": "shop", "name": "web"},
        "responseStatus": {"code": 200}, "requestObject": body
    })
}

#[test]
fn actor_origin_and_outcome() {
    let event = json!({
        "auditID": "a1", "stage": "ResponseComplete", "verb": "list", "requestURI": "/api/v1/secrets?limit=5",
        "user": {"username": "system:serviceaccount:shop:web", "uid": "u", "groups": ["a", "b"],
                 "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"]}},
        "impersonatedUser": {"username": "admin", "groups": ["system:masters"]},
        "sourceIPs": ["203.0.113.4", "10.0.0.1"],
        "objectRef": {"resource": "secrets", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 403, "reason": "Forbidden"},
        "requestReceivedTimestamp": "2026-03-04T10:15:30.123456Z", "stageTimestamp": "2026-03-04T10:15:31Z",
        "annotations": {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
    });
    check(
        &event,
        json!({
            "user_name": "system:serviceaccount:shop:web", "service_account": "shop/web", "user_groups": ["a", "b"],
            "credential_id": "JTI=1", "impersonated_user": "admin", "impersonated_groups": ["system:masters"],
            "effective_user": "admin", "source_ip": "10.0.0.1", "source_ips": ["203.0.113.4", "10.0.0.1"],
            "api_group": "", "namespace": null, "name": null, "response_code": 403, "response_reason": "Forbidden",
            "decision": "forbid", "decision_reason": "", "dry_run": false, "truncated": false, "cluster": "prod",
            "cluster_id": "prod", "region": null, "event_time": 1772619331000000i64,
            "request_time": 1772619330123456i64, "time_source": "event"
        }),
    );
    assert_eq!(row_with(&event, &["10.0.0.0/8"])["source_ip"], "203.0.113.4", "the proxy is trusted");
}

#[test]
fn what_is_absent_is_null_and_an_absent_group_is_found_elsewhere() {
    let bare = json!({"verb": "get", "requestURI": "/healthz", "user": {}});
    check(
        &bare,
        json!({"user_name": null, "user_groups": [], "resource": null, "api_group": null, "response_code": null}),
    );
    let by_uri =
        json!({"verb": "get", "requestURI": "/apis/apps/v1/deployments", "objectRef": {"resource": "deployments"}});
    check(&by_uri, json!({"api_group": "apps"}));
    let by_body =
        json!({"verb": "create", "objectRef": {"resource": "daemonsets"}, "requestObject": {"apiVersion": "apps/v1"}});
    check(&by_body, json!({"api_group": "apps"}));
    check(&json!({"verb": "get", "objectRef": {"resource": "pods", "apiGroup": "core"}}), json!({"api_group": ""}));
    let joined = json!({"verb": "create", "objectRef": {"resource": "jobs", "apiVersion": "batch/v1"}});
    check(&joined, json!({"api_group": "batch", "api_version": "v1"}));
    let both =
        json!({"verb": "create", "objectRef": {"resource": "jobs", "apiGroup": "x.io", "apiVersion": "batch/v1"}});
    check(&both, json!({"api_group": "x.io", "api_version": "v1"}));
}

#[test]
fn an_answer_that_names_no_kind_is_of_the_resources_kind() {
    let host = json!({"volumes": [{"name": "v", "hostPath": {"path": "/etc"}}]});
    let mut event = write("create", "pods", "", json!(null));
    event["responseObject"] = json!({"spec": host, "status": {"phase": "Pending"}});
    check(&event, json!({"host_paths": ["/etc"], "privileged": false, "object_kind": "Pod"}));
    // What is no object leaves the request to tell.
    for answer in [json!({}), json!({"status": "Failure", "code": 422}), json!({"items": []})] {
        let mut event = write("create", "pods", "", json!({"kind": "Pod", "spec": host}));
        event["responseObject"] = answer;
        check(&event, json!({"host_paths": ["/etc"], "object_kind": "Pod"}));
    }
}

#[test]
fn request_and_event_ids_are_of_content() {
    let event = |stage: &str, code: i64, user: &str| {
        row(&json!({"auditID": "same", "verb": "get", "stage": stage, "user": {"username": user},
                    "requestReceivedTimestamp": "2026-03-04T10:15:30Z", "responseStatus": {"code": code}}))
    };
    let (started, complete) = (event("ResponseStarted", 200, "jane"), event("ResponseComplete", 200, "jane"));
    assert_eq!(started["request_id"], complete["request_id"], "stages of one request");
    assert_ne!(started["event_id"], complete["event_id"]);
    let other = event("ResponseComplete", 200, "mallory");
    assert_ne!(other["request_id"], complete["request_id"], "an auditID chosen by the client hides nothing");
    assert_eq!(complete["request_id"].as_str().map(str::len), Some(32));
}

#[test]
fn every_pod_template_kind_is_read() {
    let pod = json!({
        "hostPID": true, "serviceAccountName": "builder",
        "volumes": [{"name": "h", "hostPath": {"path": "//etc/../etc/", "type": ""}}, {"name": "s", "secret": {"secretName": "tls"}}],
        "initContainers": [{"name": "i", "image": "Docker.io/Evil/Miner:1", "securityContext": {"privileged": true, "capabilities": {"add": ["cap_sys_admin"]}}}],
        "containers": [{"name": "c", "image": "nginx", "command": ["sh", "-c"], "args": ["id"], "ports": [{"hostPort": 22}],
                        "livenessProbe": {"exec": {"command": ["cat", "/x"]}}}]
    });
    let expected = json!({
        "host_pid": true, "host_network": false, "host_paths": ["/etc"], "privileged": true, "capabilities_added": ["SYS_ADMIN"],
        "images": ["nginx", "Docker.io/Evil/Miner:1"], "commands": ["sh -c id", "cat /x"], "host_ports": [22],
        "service_account_name": "builder", "object_partial": false
    });
    let template = json!({"spec": pod});
    for (kind, resource, group, spec) in [
        ("Pod", "pods", "", pod.clone()),
        ("Deployment", "deployments", "apps", json!({"template": template})),
        ("DaemonSet", "daemonsets", "apps", json!({"template": template})),
        ("StatefulSet", "statefulsets", "apps", json!({"template": template})),
        ("ReplicaSet", "replicasets", "apps", json!({"template": template})),
        ("ReplicationController", "replicationcontrollers", "", json!({"template": template})),
        ("Job", "jobs", "batch", json!({"template": template})),
        ("CronJob", "cronjobs", "batch", json!({"jobTemplate": {"spec": {"template": template}}})),
    ] {
        // Keys may stand in any order; a list first, the kind last.
        let mut expected = expected.clone();
        let order = json!(["Docker.io/Evil/Miner:1", "nginx"]);
        let row = row(&write(
            "create",
            resource,
            group,
            json!({"spec": spec, "kind": kind, "metadata": {"labels": {"a": "b"}}}),
        ));
        if row["images"] == order {
            expected["images"] = order;
        }
        for (column, value) in expected.as_object().expect("columns") {
            assert_eq!(&row[column], value, "{column} of {kind}");
        }
        assert_eq!(row["object_kind"], kind);
        let init = row["containers"].as_array().and_then(|all| all.iter().find(|one| one["kind"] == "init")).cloned();
        let init = init.expect("an init container");
        assert_eq!(
            (&init["registry"], &init["repository"], &init["tag"]),
            (&json!("docker.io"), &json!("evil/miner"), &json!("1"))
        );
    }
}

#[test]
fn a_fragment_tells_what_it_sets_and_nothing_else() {
    let merge = json!({"spec": {"template": {"spec": {"hostNetwork": true}}}});
    check(
        &write("patch", "deployments", "apps", merge),
        json!({"host_network": true, "host_pid": null, "privileged": null, "images": null, "host_paths": null,
               "object_partial": true, "patch_type": "merge", "object_kind": "Deployment"}),
    );
    let patch = json!([{"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"name": "x", "hostPath": {"path": "/run/docker.sock"}}}]);
    check(
        &write("patch", "deployments", "apps", patch.clone()),
        json!({"host_paths": ["/run/docker.sock"], "patch_type": "json", "privileged": null}),
    );
    let mut answered = write("patch", "deployments", "apps", patch);
    answered["responseObject"] =
        json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
    check(&answered, json!({"host_paths": [], "privileged": false, "object_partial": false, "patch_type": "json"}));
    let apply = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {}});
    check(
        &write("patch", "deployments", "apps", apply),
        json!({"patch_type": "apply", "object_partial": true, "host_network": null}),
    );
}

#[test]
fn answers_that_are_no_objects_give_no_typed_columns() {
    for body in [
        json!({"kind": "Status", "status": "Failure"}),
        json!({"kind": "PodList", "items": []}),
        json!("skipped-too-big-size-object"),
        json!(null),
        json!([1, {"a": 2}]),
        json!(7),
    ] {
        let mut event = write("create", "pods", "", json!(null));
        event["responseObject"] = body.clone();
        check(&event, json!({"privileged": null, "images": null, "object": null}));
        assert_eq!(row(&event)["truncated"], json!(body == json!("skipped-too-big-size-object")));
    }
    let truncated = json!({"verb": "create", "annotations": {"audit.k8s.io/truncated": "true"}});
    check(&truncated, json!({"truncated": true, "images": null}));
    for null in ["containers", "volumes", "initContainers"] {
        let body = json!({"kind": "Pod", "spec": {null: null}});
        check(&write("create", "pods", "", body), json!({"privileged": false, "host_paths": []}));
    }
}

#[test]
fn access_control_network_and_the_rest() {
    let binding = json!({"kind": "ClusterRoleBinding", "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "dev"}, {"kind": "Group", "name": "system:authenticated"}]});
    check(
        &write("create", "clusterrolebindings", "rbac.authorization.k8s.io", binding),
        json!({"role_ref_name": "cluster-admin", "subject_names": ["system:serviceaccount:dev:default", "system:authenticated"]}),
    );
    let role = json!({"kind": "ClusterRole", "rules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    check(
        &write("update", "clusterroles", "rbac.authorization.k8s.io", role),
        json!({"rules": [{"verbs": ["*"], "api_groups": [], "resources": [], "resource_names": [], "non_resource_urls": ["*"]}]}),
    );
    let service = json!({"kind": "Service", "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": 8080}, {"port": 443, "targetPort": "https"}],
        "loadBalancerSourceRanges": ["0.0.0.0/0"]}});
    check(
        &write("create", "services", "", service),
        json!({"service_type": "LoadBalancer", "service_ports": [80, 8080, 443], "load_balancer_source_ranges": ["0.0.0.0/0"], "external_ips": []}),
    );
    let ingress = json!({"kind": "Ingress", "spec": {"rules": [{"host": "a.example", "http": {"paths": [{"backend": {"service": {"name": "grafana"}}}]}}], "tls": []}});
    check(
        &write("create", "ingresses", "networking.k8s.io", ingress),
        json!({"ingress_hosts": ["a.example"], "backend_services": ["grafana"], "ingress_tls": false}),
    );
    let webhook = json!({"kind": "MutatingWebhookConfiguration", "webhooks": [
        {"failurePolicy": "Fail", "clientConfig": {"url": "https://evil.example"}},
        {"failurePolicy": "Ignore", "clientConfig": {"service": {"namespace": "ns", "name": "hook"}}}]});
    check(
        &write("create", "mutatingwebhookconfigurations", "admissionregistration.k8s.io", webhook),
        json!({"webhook_urls": ["https://evil.example", "service:ns/hook"], "failure_policy": "Ignore"}),
    );
    let token = json!({"kind": "TokenRequest", "spec": {"audiences": null, "expirationSeconds": 3600.0}});
    check(
        &write("create", "serviceaccounts", "", token),
        json!({"token_expiration_seconds": 3600, "token_audiences": []}),
    );
    let secret = json!({"kind": "Secret", "type": "Opaque", "data": {"a": "x", "b": "y"}});
    check(&write("create", "secrets", "", secret), json!({"secret_type": "Opaque", "data_keys": ["a", "b"]}));
    let volume = json!({"kind": "PersistentVolume", "spec": {"hostPath": {"path": "/"}}});
    check(&write("create", "persistentvolumes", "", volume), json!({"host_paths": ["/"], "images": null}));
}

#[test]
fn commands_of_an_exec_and_dry_runs() {
    let exec = json!({"verb": "get", "requestURI": "/api/v1/namespaces/a/pods/b/exec?command=sh&command=-c&command=cat+%2Fetc%2Fshadow+%26&container=app",
        "objectRef": {"resource": "pods", "subresource": "exec"}});
    check(&exec, json!({"exec_command": "sh -c cat /etc/shadow &", "exec_container": "app", "dry_run": false}));
    let options = json!({"verb": "create", "objectRef": {"resource": "pods", "subresource": "exec"}, "requestObject": {"command": ["id", "-u"], "container": "c"}});
    check(&options, json!({"exec_command": "id -u", "exec_container": "c", "dry_run": null}));
    check(&json!({"verb": "create", "requestURI": "/api/v1/pods?dryRun=All"}), json!({"dry_run": true}));
    check(
        &json!({"verb": "delete", "requestURI": "/api/v1/x", "requestObject": {"kind": "DeleteOptions", "dryRun": ["All"]}}),
        json!({"dry_run": true}),
    );
}

#[test]
fn a_generated_name_comes_from_the_answer() {
    let mut event = write("create", "pods", "", json!({"kind": "Pod", "metadata": {"generateName": "web-"}}));
    event["objectRef"] = json!({"resource": "pods", "namespace": "shop"});
    event["responseObject"] = json!({"kind": "Pod", "metadata": {"name": "web-x7"}});
    check(&event, json!({"name": "web-x7"}));
    event["responseObject"] = json!({"kind": "Status", "metadata": {"name": "no"}});
    check(&event, json!({"name": null}));
}

#[test]
fn bodies_that_nobody_reads_stay_unread() {
    let mut need =
        Need { columns: [Column::Images, Column::Resource, Column::Verb].into_iter().collect(), ..Need::default() };
    need.bodies.add(Some(&["pods".to_owned()].into()), Some(&["create".to_owned()].into()), need.columns);
    let pod = write("create", "pods", "", json!({"kind": "Pod", "spec": {"containers": [{"image": "a"}]}})).to_string();
    let patch =
        write("patch", "pods", "", json!({"kind": "Pod", "spec": {"containers": [{"image": "b"}]}})).to_string();
    let chunk = Chunk::default();
    let mut builder = BatchBuilder::new(Arc::new(need), Arc::from([]), &chunk, chunk.records.len());
    let origin =
        Arc::new(Origin { cloud: Cloud::Eks, account: None, region: None, resource_group: None, cluster: "c".into() });
    let context = EventContext { origin, index: 0, envelope_time_ms: None, no_groups: true };
    builder.event(&fields(pod.as_bytes()), &context);
    builder.event(&fields(patch.as_bytes()), &context);
    let batch = builder.finish();
    assert_eq!(batch.columns.num_columns(), 3);
    let images = batch.column(Column::Images).expect("needed");
    assert_eq!((cell(images, 0), cell(images, 1)), (json!(["a"]), Value::Null));
    assert_eq!(batch.text(1), patch.as_bytes(), "unwrapped texts are kept");
    assert_eq!(batch.counts.events, [0, 2, 0, 0, 0]);
}
