//! The same audit events as three clouds would put them into a topic.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

/// Whose wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    Eks,
    Aks,
    Gke,
}

impl Cloud {
    pub const ALL: [Cloud; 3] = [Cloud::Eks, Cloud::Aks, Cloud::Gke];

    /// Record values that carry these events, in order: EKS gzipped subscription batches, AKS `records` arrays, GKE one
    /// entry for each event. GKE has no entry for a request that was merely received.
    pub fn wrap(self, cluster: &str, events: &[Value]) -> Vec<Vec<u8>> {
        const BATCH: usize = 8;
        match self {
            Cloud::Eks => events.chunks(BATCH).map(|events| eks(cluster, events)).collect(),
            Cloud::Aks => events.chunks(BATCH).map(|events| aks(cluster, events)).collect(),
            Cloud::Gke => events.iter().filter_map(|event| gke(cluster, event)).collect(),
        }
    }
}

fn eks(cluster: &str, events: &[Value]) -> Vec<u8> {
    let events: Vec<Value> = events
        .iter()
        .enumerate()
        .map(|(n, event)| json!({"id": format!("{n:056}"), "timestamp": 1_772_619_330_150_u64, "message": event.to_string()}))
        .collect();
    let envelope = json!({
        "messageType": "DATA_MESSAGE",
        "owner": "111122223333",
        "logGroup": format!("/aws/eks/{cluster}/cluster"),
        "logStream": "kube-apiserver-audit-0f3a9c1e5b7d2468ace013579bdf2468",
        "subscriptionFilters": ["audit"],
        "logEvents": events,
    });
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(envelope.to_string().as_bytes()).expect("into memory");
    gzip.finish().expect("into memory")
}

fn aks(cluster: &str, events: &[Value]) -> Vec<u8> {
    let resource = format!(
        "/SUBSCRIPTIONS/00000000-1111-2222-3333-444444444444/RESOURCEGROUPS/SHOP-RG/PROVIDERS/\
         MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/{}",
        cluster.to_uppercase()
    );
    let records: Vec<Value> = events
        .iter()
        .map(|event| {
            json!({
                "time": event["stageTimestamp"],
                "category": "kube-audit",
                "operationName": "Microsoft.ContainerService/managedClusters/diagnosticLogs/Read",
                "resourceId": resource,
                "properties": {"log": format!("{event}\n"), "stream": "stdout", "pod": "kube-apiserver-6b9f7c8d5-x2k4p"},
            })
        })
        .collect();
    json!({"records": records}).to_string().into_bytes()
}

fn gke(cluster: &str, event: &Value) -> Option<Vec<u8>> {
    if event["stage"] == "RequestReceived" {
        return None;
    }
    let verb = event["verb"].as_str().unwrap_or_default();
    let (method, resource) = match event.get("objectRef") {
        Some(object) => names(object, verb),
        None => {
            let path = event["requestURI"].as_str().unwrap_or_default();
            let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
            (format!("io.k8s.{verb}"), path.to_owned())
        }
    };
    let code = event["responseStatus"]["code"].as_u64().unwrap_or(200);
    let mut payload = Map::new();
    payload.insert("@type".into(), json!("type.googleapis.com/google.cloud.audit.AuditLog"));
    payload.insert("serviceName".into(), json!("k8s.io"));
    payload.insert("methodName".into(), json!(method));
    payload.insert("resourceName".into(), json!(resource));
    payload.insert("authenticationInfo".into(), json!({"principalEmail": event["user"]["username"]}));
    let granted = event["annotations"]["authorization.k8s.io/decision"] != "forbid";
    payload
        .insert("authorizationInfo".into(), json!([{"granted": granted, "permission": method, "resource": resource}]));
    payload.insert(
        "requestMetadata".into(),
        json!({"callerIp": event["sourceIPs"][0], "callerSuppliedUserAgent": event["userAgent"]}),
    );
    for (ours, theirs) in [("request", "requestObject"), ("response", "responseObject")] {
        if let Some(body) = event.get(theirs) {
            payload.insert(ours.into(), body.clone());
        }
    }
    payload.insert("status".into(), if code < 400 { json!({}) } else { json!({"code": rpc_code(code)}) });
    let log = if matches!(verb, "get" | "list" | "watch") { "data_access" } else { "activity" };
    let entry = json!({
        "insertId": event["auditID"],
        "logName": format!("projects/shop-prod/logs/cloudaudit.googleapis.com%2F{log}"),
        "timestamp": event["stageTimestamp"],
        "receiveTimestamp": event["stageTimestamp"],
        "resource": {
            "type": "k8s_cluster",
            "labels": {"cluster_name": cluster, "location": "europe-west1", "project_id": "shop-prod"},
        },
        "labels": event.get("annotations").cloned().unwrap_or(json!({})),
        "operation": {"id": event["auditID"], "producer": "k8s.io", "first": true, "last": true},
        "protoPayload": payload,
    });
    Some(entry.to_string().into_bytes())
}

/// `methodName` and `resourceName` of a request for an object.
fn names(object: &Value, verb: &str) -> (String, String) {
    let text = |key: &str| object[key].as_str().filter(|text| !text.is_empty());
    let (version, resource) = (text("apiVersion").unwrap_or("v1"), text("resource").unwrap_or_default());
    let reversed = match text("apiGroup") {
        None => "io.k8s.core".to_owned(),
        Some(group) if group.contains('.') => group.rsplit('.').collect::<Vec<_>>().join("."),
        Some(group) => format!("io.k8s.{group}"),
    };
    let method = [Some(reversed.as_str()), Some(version), Some(resource), text("subresource"), Some(verb)];
    let namespaced = resource != "namespaces";
    let place = [
        Some(text("apiGroup").unwrap_or("core")),
        Some(version),
        text("namespace").filter(|_| namespaced).map(|_| "namespaces"),
        text("namespace").filter(|_| namespaced),
        Some(resource),
        text("name"),
        text("subresource"),
    ];
    let join = |parts: &[Option<&str>], with: &str| parts.iter().flatten().copied().collect::<Vec<_>>().join(with);
    (join(&method, "."), join(&place, "/"))
}

fn rpc_code(http: u64) -> u8 {
    match http {
        400 | 422 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 10,
        429 => 8,
        _ => 13,
    }
}
