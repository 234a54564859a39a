//! Bodies of requests and responses.

use rand::Rng;
use rand::rngs::StdRng;

use super::json::{Hex, Seconds, Uid, put};
use super::world::{Node, Pod, Workload, letters, pick, uid};

const SERVICES: [&str; 8] = ["DB", "CACHE", "QUEUE", "AUTH", "MAIL", "SEARCH", "LEDGER", "OTEL"];
const SIDECARS: [&str; 3] = ["istio-proxy", "log-shipper", "vault-agent"];
const CONDITIONS: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What the API server keeps of who set which field of a pod: the controller's part.
const POD_FIELDS: &str = r#"{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app.kubernetes.io/instance":{},"f:app.kubernetes.io/managed-by":{},"f:app.kubernetes.io/name":{},"f:pod-template-hash":{},"f:team":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"0\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:args":{},"f:env":{".":{},"k:{\"name\":\"DB_URL\"}":{".":{},"f:name":{},"f:value":{}},"k:{\"name\":\"POD_NAME\"}":{".":{},"f:name":{},"f:valueFrom":{".":{},"f:fieldRef":{}}}},"f:image":{},"f:imagePullPolicy":{},"f:livenessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},"f:scheme":{}},"f:periodSeconds":{},"f:successThreshold":{},"f:timeoutSeconds":{}},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}}},"f:resources":{".":{},"f:limits":{".":{},"f:cpu":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:securityContext":{".":{},"f:allowPrivilegeEscalation":{},"f:runAsNonRoot":{}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{},"f:volumeMounts":{".":{},"k:{\"mountPath\":\"/etc/app\"}":{".":{},"f:mountPath":{},"f:name":{}}}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:serviceAccount":{},"f:serviceAccountName":{},"f:terminationGracePeriodSeconds":{},"f:volumes":{".":{},"k:{\"name\":\"config\"}":{".":{},"f:configMap":{".":{},"f:defaultMode":{},"f:name":{}},"f:name":{}}}}}"#;
/// The kubelet's part.
const STATUS_FIELDS: &str = r#"{"f:status":{"f:conditions":{"k:{\"type\":\"ContainersReady\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Initialized\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:hostIP":{},"f:phase":{},"f:podIP":{},"f:podIPs":{".":{},"k:{\"ip\":\"10.244.0.2\"}":{".":{},"f:ip":{}}},"f:startTime":{}}}"#;
const TEMPLATE_FIELDS: &str = r#"{"f:metadata":{"f:annotations":{".":{},"f:deployment.kubernetes.io/revision":{}},"f:labels":{".":{},"f:app.kubernetes.io/instance":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},"f:template":{"f:metadata":{"f:labels":{".":{},"f:app.kubernetes.io/name":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:args":{},"f:env":{},"f:image":{},"f:imagePullPolicy":{},"f:livenessProbe":{},"f:name":{},"f:ports":{},"f:resources":{},"f:securityContext":{},"f:volumeMounts":{}}},"f:restartPolicy":{},"f:serviceAccountName":{},"f:volumes":{}}}}}"#;

/// A dangerous thing in a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Danger {
    HostPath(&'static str),
    Privileged,
    HostPid,
    SysAdmin,
    Image(&'static str),
}

/// A pod's spec as a workload's template has it, without the closing brace.
pub(super) fn template_spec(out: &mut Vec<u8>, app: &str, image: &str, rng: &mut StdRng) {
    let access = letters(5, rng);
    put!(out, r#"{"volumes":[{"name":"config","configMap":{"name":""#, app, r#"-config","defaultMode":420}},"#);
    put!(out, r#"{"name":"kube-api-access-"#, access, r#"","projected":{"sources":[{"serviceAccountToken":{"#);
    put!(out, r#""expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"#);
    put!(out, r#""key":"ca.crt","path":"ca.crt"}]}},{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"#);
    put!(out, r#""apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}],"containers":["#);
    container(out, "app", image, &access, rng);
    let sidecars = if rng.random_bool(0.3) { rng.random_range(1..3) } else { 0 };
    for name in SIDECARS.iter().take(sidecars) {
        out.push(b',');
        container(out, name, &format!("registry.example.com/platform/{name}:2.4.1"), &access, rng);
    }
    put!(out, r#"],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","#);
    put!(out, r#""serviceAccountName":""#, app, r#"","serviceAccount":""#, app, r#"","securityContext":{"#);
    put!(out, r#""seccompProfile":{"type":"RuntimeDefault"}},"schedulerName":"default-scheduler","tolerations":["#);
    put!(
        out,
        r#"{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},"#
    );
    put!(
        out,
        r#"{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}"#
    );
    put!(out, r#"],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority""#);
}

fn container(out: &mut Vec<u8>, name: &str, image: &str, access: &str, rng: &mut StdRng) {
    put!(out, r#"{"name":""#, name, r#"","image":""#, image, r#"","args":["--listen=:8080","--log-level=info"],"#);
    put!(out, r#""ports":[{"name":"http","containerPort":8080,"protocol":"TCP"}],"env":["#);
    for service in SERVICES.iter().take(rng.random_range(1..6)) {
        put!(out, r#"{"name":""#, service, r#"_URL","value":"http://"#, service, "-", Hex(rng.random(), 6));
        put!(out, r#".shop.svc.cluster.local:8080/v1"},"#);
    }
    put!(out, r#"{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}}],"#);
    put!(out, r#""resources":{"limits":{"cpu":"500m","memory":"512Mi"},"requests":{"cpu":"100m","memory":"256Mi"}},"#);
    put!(out, r#""volumeMounts":[{"name":"config","mountPath":"/etc/app"},{"name":"kube-api-access-"#, access);
    put!(out, r#"","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"#);
    for probe in ["liveness", "readiness"] {
        put!(out, "\"", probe, r#"Probe":{"httpGet":{"path":"/"#, probe, r#"","port":8080,"scheme":"HTTP"},"#);
        put!(out, r#""timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"#);
    }
    put!(out, r#""terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","#);
    put!(out, r#""imagePullPolicy":"IfNotPresent","securityContext":{"runAsNonRoot":true,"#);
    put!(out, r#""allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}"#);
}

/// What a complete object of a workload needs beside it.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub now_us: i64,
    pub version: u64,
}

/// A running pod; as an item of a list it has neither kind nor version of its own.
pub(super) fn pod(out: &mut Vec<u8>, workload: &Workload, pod: &Pod, node: &Node, at: At, is_item: bool) {
    out.push(b'{');
    if !is_item {
        put!(out, r#""kind":"Pod","apiVersion":"v1","#);
    }
    put!(out, r#""metadata":{"name":""#, pod.name, r#"","#);
    pod_metadata(out, workload);
    put!(out, r#","uid":""#, pod.uid, r#"","resourceVersion":""#, at.version, r#"","generation":1,"#);
    let created = Seconds(at.now_us - 3_600_000_000);
    put!(out, r#""creationTimestamp":""#, created, r#"","managedFields":["#);
    managed(out, "kube-controller-manager", "v1", created, POD_FIELDS, None);
    out.push(b',');
    managed(out, "kubelet", "v1", Seconds(at.now_us), STATUS_FIELDS, Some("status"));
    put!(out, r#"]},"spec":"#, workload.spec, r#","nodeName":""#, node.name, r#""},"status":{"#);
    pod_status(out, workload, pod, node, at.now_us);
    put!(out, r#","qosClass":"Burstable"}}"#);
}

/// Members of a pod's metadata that its replica set gives it.
pub(super) fn pod_metadata(out: &mut Vec<u8>, workload: &Workload) {
    let Workload { app, hash, namespace, labels, set_uid, .. } = workload;
    put!(out, r#""generateName":""#, app, "-", hash, r#"-","namespace":""#, namespace, r#"","labels":{"#, labels);
    put!(out, r#","pod-template-hash":""#, hash, r#""},"ownerReferences":[{"apiVersion":"apps/v1","kind":"#);
    put!(out, r#""ReplicaSet","name":""#, app, "-", hash, r#"","uid":""#, set_uid, r#"","controller":true,"#);
    put!(out, r#""blockOwnerDeletion":true}]"#);
}

/// Members of a running pod's status.
pub(super) fn pod_status(out: &mut Vec<u8>, workload: &Workload, pod: &Pod, node: &Node, now_us: i64) {
    let now = Seconds(now_us);
    put!(out, r#""phase":"Running","conditions":["#);
    for (index, condition) in CONDITIONS.iter().enumerate() {
        put!(out, if index > 0 { "," } else { "" }, r#"{"type":""#, condition, r#"","status":"True","#);
        put!(out, r#""lastProbeTime":null,"lastTransitionTime":""#, now, r#""}"#);
    }
    put!(out, r#"],"hostIP":""#, node.address, r#"","podIP":""#, pod.address, r#"","podIPs":[{"ip":""#, pod.address);
    put!(out, r#""}],"startTime":""#, now, r#"","containerStatuses":[{"name":"app","state":{"running":{"#);
    put!(out, r#""startedAt":""#, now, r#""}},"lastState":{},"ready":true,"restartCount":0,"image":""#, workload.image);
    put!(out, r#"","imageID":""#, workload.image, "@sha256:", pod.uid, r#"","containerID":"containerd://"#, pod.uid);
    put!(out, r#"","started":true}]"#);
}

fn managed(out: &mut Vec<u8>, manager: &str, version: &str, time: Seconds, fields: &str, subresource: Option<&str>) {
    put!(out, r#"{"manager":""#, manager, r#"","operation":"Update","apiVersion":""#, version, r#"","time":""#, time);
    put!(out, r#"","fieldsType":"FieldsV1","fieldsV1":"#, fields);
    if let Some(subresource) = subresource {
        put!(out, r#","subresource":""#, subresource, "\"");
    }
    out.push(b'}');
}

/// A pod as somebody creates it by hand, with something dangerous in it. Request and response look alike but for the
/// identity, which only the response has.
pub(super) fn bad_pod(out: &mut Vec<u8>, namespace: &str, name: &str, danger: Danger, identity: Option<(Uid, At)>) {
    let image = if let Danger::Image(image) = danger { image } else { "registry.example.com/tools/debug:1.4" };
    put!(out, r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":""#, name, r#"","namespace":""#, namespace, "\"");
    if let Some((uid, at)) = identity {
        put!(out, r#","uid":""#, uid, r#"","resourceVersion":""#, at.version, r#"","creationTimestamp":""#);
        put!(out, Seconds(at.now_us), "\"");
    }
    put!(out, r#","labels":{"run":""#, name, r#""}},"spec":{"#);
    if let Danger::HostPath(path) = danger {
        put!(out, r#""volumes":[{"name":"host","hostPath":{"path":""#, path, r#"","type":""}}],"#);
    }
    if danger == Danger::HostPid {
        put!(out, r#""hostPID":true,"#);
    }
    put!(
        out,
        r#""containers":[{"name":""#,
        name,
        r#"","image":""#,
        image,
        r#"","command":["sleep","86400"],"resources":{},"#
    );
    if let Danger::HostPath(_) = danger {
        put!(out, r#""volumeMounts":[{"name":"host","mountPath":"/host"}],"#);
    }
    let context = match danger {
        Danger::Privileged => r#""securityContext":{"privileged":true},"#,
        Danger::SysAdmin => r#""securityContext":{"capabilities":{"add":["SYS_ADMIN","NET_ADMIN"]}},"#,
        _ => "",
    };
    put!(out, context, r#""terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","#);
    put!(out, r#""imagePullPolicy":"IfNotPresent"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"#);
    put!(out, r#""dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","#);
    put!(out, r#""securityContext":{},"schedulerName":"default-scheduler","enableServiceLinks":true},"#);
    put!(out, r#""status":{"phase":"Pending","qosClass":"BestEffort"}}"#);
}

/// The two controllers' kinds that hold a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Deployment,
    ReplicaSet,
}

/// A Deployment or a ReplicaSet; only the response shows who manages its fields.
pub(super) fn holder(out: &mut Vec<u8>, workload: &Workload, holder: Holder, at: At, is_response: bool, is_item: bool) {
    let Workload { app, hash, namespace, labels, uid, set_uid, .. } = workload;
    let is_set = holder == Holder::ReplicaSet;
    out.push(b'{');
    if !is_item {
        put!(out, r#""kind":""#, if is_set { "ReplicaSet" } else { "Deployment" }, r#"","apiVersion":"apps/v1","#);
    }
    put!(out, r#""metadata":{"name":""#, app);
    if is_set {
        put!(out, "-", hash);
    }
    put!(out, r#"","namespace":""#, namespace, r#"","uid":""#, if is_set { set_uid } else { uid });
    put!(out, r#"","resourceVersion":""#, at.version, r#"","generation":12,"creationTimestamp":""#);
    let created = Seconds(at.now_us - 86_400_000_000);
    put!(out, created, r#"","labels":{"#, labels, r#"},"annotations":{"deployment.kubernetes.io/revision":"12","#);
    put!(out, r#""argocd.argoproj.io/tracking-id":""#, app, ":apps/Deployment:", namespace, "/", app, r#""}"#);
    if is_set {
        put!(out, r#","ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment","name":""#, app, r#"","uid":""#);
        put!(out, uid, r#"","controller":true,"blockOwnerDeletion":true}]"#);
    }
    if is_response {
        put!(out, r#","managedFields":["#);
        managed(out, "argocd-controller", "apps/v1", created, TEMPLATE_FIELDS, None);
        out.push(b']');
    }
    let replicas = workload.pods.len() as u64;
    put!(out, r#"},"spec":{"replicas":"#, replicas, r#","selector":{"matchLabels":{"app.kubernetes.io/name":""#, app);
    put!(out, r#""}},"template":{"metadata":{"labels":{"#, labels, r#"}},"spec":"#, workload.spec, "}}");
    if !is_set {
        put!(out, r#","strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}},"#);
        put!(out, r#""revisionHistoryLimit":10,"progressDeadlineSeconds":600"#);
    }
    put!(out, r#"},"status":{"observedGeneration":12,"replicas":"#, replicas, r#","readyReplicas":"#, replicas);
    put!(out, r#","availableReplicas":"#, replicas, "}}");
}

/// The pods behind a service.
pub(super) fn endpoint_slice(out: &mut Vec<u8>, workload: &Workload, nodes: &[Node], at: At, is_response: bool) {
    let Workload { app, namespace, hash, .. } = workload;
    let now = Seconds(at.now_us);
    put!(out, r#"{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":""#, app, "-");
    put!(out, hash.get(..5).unwrap_or(hash), r#"","generateName":""#, app, r#"-","namespace":""#, namespace);
    put!(out, r#"","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","#);
    put!(out, r#""kubernetes.io/service-name":""#, app, r#""},"annotations":{"#);
    put!(out, r#""endpoints.kubernetes.io/last-change-trigger-time":""#, now, r#""}"#);
    if is_response {
        let fields = r#"{"f:addressType":{},"f:endpoints":{},"f:metadata":{"f:annotations":{".":{},"f:endpoints.kubernetes.io/last-change-trigger-time":{}},"f:generateName":{},"f:labels":{".":{},"f:endpointslice.kubernetes.io/managed-by":{},"f:kubernetes.io/service-name":{}}},"f:ports":{}}"#;
        put!(out, r#","uid":""#, workload.set_uid, r#"","resourceVersion":""#, at.version, r#"","managedFields":["#);
        managed(out, "kube-controller-manager", "discovery.k8s.io/v1", now, fields, None);
        out.push(b']');
    }
    put!(out, r#"},"addressType":"IPv4","endpoints":["#);
    for (index, pod) in workload.pods.iter().enumerate() {
        put!(
            out,
            if index > 0 { "," } else { "" },
            r#"{"addresses":[""#,
            pod.address,
            r#""],"conditions":{"ready":true,"#
        );
        put!(out, r#""serving":true,"terminating":false},"targetRef":{"kind":"Pod","namespace":""#, namespace);
        put!(out, r#"","name":""#, pod.name, r#"","uid":""#, pod.uid, r#""},"nodeName":""#);
        put!(out, nodes.get(pod.node).map_or("", |node| node.name.as_str()), r#"","zone":"eu-west-1a"}"#);
    }
    put!(out, r#"],"ports":[{"name":"http","protocol":"TCP","port":8080}]}"#);
}

/// Members of a node's status that its kubelet reports every few seconds.
pub(super) fn node_conditions(out: &mut Vec<u8>, now_us: i64) {
    put!(out, r#""conditions":["#);
    let conditions = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    for (index, (kind, status, reason, message)) in conditions.into_iter().enumerate() {
        put!(out, if index > 0 { "," } else { "" }, r#"{"type":""#, kind, r#"","status":""#, status, r#"","#);
        put!(out, r#""lastHeartbeatTime":""#, Seconds(now_us), r#"","lastTransitionTime":""#);
        put!(out, Seconds(now_us - 604_800_000_000), r#"","reason":""#, reason, r#"","message":""#, message, r#""}"#);
    }
    out.push(b']');
}

/// A node, which lists the images on its disk.
pub(super) fn node(out: &mut Vec<u8>, node: &Node, workloads: &[Workload], at: At, rng: &mut StdRng) {
    put!(out, r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":""#, node.name, r#"","uid":""#, node.uid);
    put!(
        out,
        r#"","resourceVersion":""#,
        at.version,
        r#"","creationTimestamp":""#,
        Seconds(at.now_us - 604_800_000_000)
    );
    put!(out, r#"","labels":{"kubernetes.io/arch":"amd64","kubernetes.io/os":"linux","kubernetes.io/hostname":""#);
    put!(out, node.name, r#"","node.kubernetes.io/instance-type":"m6i.2xlarge","topology.kubernetes.io/zone":"#);
    put!(out, r#""eu-west-1a"}},"spec":{"providerID":"aws:///eu-west-1a/i-"#, node.uid, r#""},"status":{"capacity":{"#);
    put!(out, r#""cpu":"8","ephemeral-storage":"100Gi","memory":"32Gi","pods":"110"},"#);
    node_conditions(out, at.now_us);
    put!(out, r#","addresses":[{"type":"InternalIP","address":""#, node.address, r#""}],"images":["#);
    let count = rng.random_range(10..50);
    for index in 0..count {
        let image = workloads[rng.random_range(0..workloads.len())].image.as_str();
        let (name, _) = image.split_once(':').unwrap_or((image, ""));
        put!(out, if index > 0 { "," } else { "" }, r#"{"names":[""#, name, "@sha256:", Hex(rng.random(), 16));
        for _ in 0..3 {
            put!(out, Hex(rng.random(), 16));
        }
        put!(out, r#"",""#, image, r#""],"sizeBytes":"#, rng.random_range(4_000_000..900_000_000u64), "}");
    }
    put!(out, r#"],"nodeInfo":{"machineID":""#, node.uid, r#"","kernelVersion":"6.1.0-28-amd64","osImage":"Debian "#);
    put!(out, r#"GNU/Linux 12 (bookworm)","containerRuntimeVersion":"containerd://2.1.4","kubeletVersion":"v1.33.4","#);
    put!(out, r#""operatingSystem":"linux","architecture":"amd64"}}}"#);
}

/// A ConfigMap of about `size` bytes.
pub(super) fn config_map(out: &mut Vec<u8>, workload: &Workload, size: usize, at: At, rng: &mut StdRng) {
    const WORDS: [&str; 16] = [
        "listen", "upstream", "route", "cluster", "match", "prefix", "header", "timeout", "retry", "tls", "bundle",
        "true", "path", "weight", "regex", "value",
    ];
    const ENDS: [&str; 4] = [" ", ": ", r"\n  ", r#"=\"x\" "#];
    put!(
        out,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":""#,
        workload.app,
        r#"-config","namespace":""#
    );
    put!(out, workload.namespace, r#"","uid":""#, workload.set_uid, r#"","resourceVersion":""#, at.version);
    put!(out, r#"","creationTimestamp":""#, Seconds(at.now_us - 86_400_000_000), r#"","managedFields":["#);
    managed(out, "argocd-controller", "v1", Seconds(at.now_us), r#"{"f:data":{".":{},"f:app.yaml":{}}}"#, None);
    put!(out, r#"]},"data":{"app.yaml":""#);
    let end = out.len() + size;
    while out.len() < end {
        put!(out, pick(&WORDS, rng), pick(&ENDS, rng));
    }
    put!(out, r#""}}"#);
}

/// A core Event about a pod.
pub(super) fn event(
    out: &mut Vec<u8>,
    workload: &Workload,
    pod: &Pod,
    node: &Node,
    suffix: u64,
    at: At,
    rng: &mut StdRng,
) {
    const REASONS: [(&str, &str); 4] = [
        ("Pulled", "Container image already present on machine"),
        ("Created", "Created container: app"),
        ("Started", "Started container app"),
        ("Unhealthy", "Readiness probe failed: Get http://10.244.3.4:8080/readiness: context deadline exceeded"),
    ];
    let (reason, message) = pick(&REASONS, rng);
    let now = Seconds(at.now_us);
    put!(out, r#"{"kind":"Event","apiVersion":"v1","metadata":{"name":""#, pod.name, ".", Hex(suffix, 16));
    put!(
        out,
        r#"","namespace":""#,
        workload.namespace,
        r#"","uid":""#,
        uid(rng),
        r#"","resourceVersion":""#,
        at.version
    );
    put!(
        out,
        r#"","creationTimestamp":""#,
        now,
        r#""},"involvedObject":{"kind":"Pod","namespace":""#,
        workload.namespace
    );
    put!(out, r#"","name":""#, pod.name, r#"","uid":""#, pod.uid, r#"","apiVersion":"v1","fieldPath":"#);
    put!(
        out,
        r#""spec.containers{app}"},"reason":""#,
        reason,
        r#"","message":""#,
        message,
        r#"","source":{"component":"#
    );
    put!(out, r#""kubelet","host":""#, node.name, r#""},"firstTimestamp":""#, now, r#"","lastTimestamp":""#, now);
    put!(
        out,
        r#"","count":"#,
        rng.random_range(1..40u64),
        r#","type":"Normal","eventTime":null,"reportingComponent":"#
    );
    put!(out, r#""kubelet","reportingInstance":""#, node.name, r#""}"#);
}
