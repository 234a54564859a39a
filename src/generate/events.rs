//! What an ordinary cluster's API is asked: one function for each kind of request.

use rand::Rng;
use rand::rngs::StdRng;

use super::draft::{Draft, Level, Target};
use super::json::{Hex, Seconds, put};
use super::objects::{self, At, Holder};
use super::world::{Node, Pod, SYSTEM_WORKLOADS, Workload, World, letters, pick, uid};

/// What a kind of request is made of: chance, the cluster, the moment, and the request to fill in.
pub(super) struct Scene<'g> {
    pub rng: &'g mut StdRng,
    pub world: &'g World,
    pub draft: &'g mut Draft,
    pub at: At,
}

/// A kind of request.
pub(super) type Kind = fn(&mut Scene<'_>);

/// Every kind with how often it comes, in requests of about a thousand.
pub(super) const MIX: [(u32, Kind); 32] = [
    (200, node_lease),
    (80, leader_lease),
    (100, watch),
    (80, read_configuration),
    (20, read_secret),
    (50, pod_status),
    (80, core_event),
    (60, token_review),
    (40, access_review),
    (40, health),
    (25, look_around),
    (11, list_everything),
    (10, deploy),
    (14, deployment_status),
    (12, replica_set_status),
    (14, create_pod),
    (16, bind_pod),
    (8, delete_pod),
    (40, endpoint_slice),
    (20, config_map),
    (14, node_status),
    (25, pod_token),
    (20, certificate_status),
    (12, autoscaler_status),
    (6, job_status),
    (6, self_review),
    (4, pod_logs),
    (3, exec),
    (3, json_patch),
    (3, denied),
    (3, stranger),
    (4, objects_of_a_release),
];

impl<'g> Scene<'g> {
    /// Some workload; a few are much busier than the rest.
    pub fn workload(&mut self) -> &'g Workload {
        let skewed = self.rng.random::<f64>().powi(2);
        let count = self.world.workloads.len();
        &self.world.workloads[((skewed * count as f64) as usize).min(count - 1)]
    }

    /// Some workload's pod and its node.
    pub fn pod(&mut self) -> (&'g Workload, &'g Pod, &'g Node) {
        let workload = self.workload();
        let pod = &workload.pods[self.rng.random_range(0..workload.pods.len())];
        (workload, pod, self.world.node(pod))
    }

    pub fn node(&mut self) -> &'g Node {
        &self.world.nodes[self.rng.random_range(0..self.world.nodes.len())]
    }

    pub fn person(&mut self) -> &'g super::world::Identity {
        &self.world.people[self.rng.random_range(0..self.world.people.len())]
    }
}

const LEASES: &str = "coordination.k8s.io";

fn node_lease(scene: &mut Scene<'_>) {
    let node = scene.node();
    scene.draft.start(&node.kubelet, "update", Level::Metadata);
    scene.draft.target(Target::of(LEASES, "kube-node-lease", "leases", &node.name), "timeout=10s");
}

fn leader_lease(scene: &mut Scene<'_>) {
    let who = [&scene.world.scheduler, &scene.world.manager][scene.rng.random_range(0..2_usize)];
    let name = who.name.strip_prefix("system:").unwrap_or(&who.name);
    let verb = if scene.rng.random_bool(0.5) { "get" } else { "update" };
    scene.draft.start(who, verb, Level::Metadata);
    scene.draft.target(Target::of(LEASES, "kube-system", "leases", name), "timeout=5s");
}

fn watch(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let who = match scene.rng.random_range(0..3) {
        0 => &scene.node().kubelet,
        1 => &workload.account,
        _ => scene.world.controller("generic-garbage-collector"),
    };
    let resource = pick(&["pods", "configmaps", "services", "endpoints", "nodes", "namespaces"], scene.rng);
    let namespace = if matches!(resource, "nodes" | "namespaces") { "" } else { workload.namespace };
    let seconds = scene.rng.random_range(300..600);
    let query = format!(
        "allowWatchBookmarks=true&resourceVersion={}&timeout={}m{}s&timeoutSeconds={seconds}&watch=true",
        scene.at.version,
        seconds / 60,
        seconds % 60
    );
    scene.draft.start(who, "watch", Level::Metadata);
    scene.draft.target(Target::core(namespace, resource, ""), &query);
}

fn read_configuration(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let (resource, name) =
        pick(&[("configmaps", "app-config"), ("services", "api"), ("endpoints", "kubernetes")], scene.rng);
    scene.draft.start(&workload.account, "get", Level::Metadata);
    scene.draft.target(Target::core(workload.namespace, resource, name), "");
    if scene.rng.random_bool(0.03) {
        scene.draft.fail(404, &format!("{resource} \"{name}\" not found"));
    }
}

/// A kubelet fetches what a pod mounts.
fn read_secret(scene: &mut Scene<'_>) {
    let (workload, _, node) = scene.pod();
    let name = format!("{}-credentials", workload.app);
    scene.draft.start(&node.kubelet, "get", Level::Metadata);
    scene.draft.target(Target::core(workload.namespace, "secrets", &name), "");
}

fn pod_status(scene: &mut Scene<'_>) {
    let (workload, pod, node) = scene.pod();
    let draft = &mut *scene.draft;
    draft.start(&node.kubelet, "patch", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "pods", &pod.name).sub("status"), "");
    put!(&mut draft.request, r#"{"metadata":{"uid":""#, pod.uid, r#""},"status":{"$setElementOrder/conditions":["#);
    put!(&mut draft.request, r#"{"type":"PodReadyToStartContainers"},{"type":"Initialized"},{"type":"Ready"},"#);
    put!(&mut draft.request, r#"{"type":"ContainersReady"},{"type":"PodScheduled"}],"#);
    objects::pod_status(&mut draft.request, workload, pod, node, scene.at.now_us);
    put!(&mut draft.request, "}}");
    objects::pod(&mut draft.response, workload, pod, node, scene.at, false);
}

fn core_event(scene: &mut Scene<'_>) {
    let (workload, pod, node) = scene.pod();
    let suffix = scene.rng.random();
    let mut name = Vec::with_capacity(64);
    put!(&mut name, pod.name, ".", Hex(suffix, 16));
    let name = String::from_utf8_lossy(&name);
    let draft = &mut *scene.draft;
    draft.start(&node.kubelet, "create", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "events", &name), "");
    objects::event(&mut draft.request, workload, pod, node, suffix, scene.at, scene.rng);
    draft.echo();
}

fn token_review(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let node = scene.node();
    let draft = &mut *scene.draft;
    draft.start(&node.kubelet, "create", Level::RequestResponse);
    draft.target(Target::of("authentication.k8s.io", "", "tokenreviews", ""), "");
    let head = r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{"audiences":["https://kubernetes.default.svc.cluster.local"]},"status":{"#;
    put!(&mut draft.request, head, r#""user":{}}}"#);
    put!(&mut draft.response, head, r#""authenticated":true,"user":"#, workload.account.user, "}}");
}

fn access_review(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let node = scene.node();
    let (verb, resource) = pick(&[("get", "pods"), ("list", "services"), ("watch", "endpoints")], scene.rng);
    let draft = &mut *scene.draft;
    draft.start(&node.kubelet, "create", Level::RequestResponse);
    draft.target(Target::of("authorization.k8s.io", "", "subjectaccessreviews", ""), "");
    let request = &mut draft.request;
    put!(request, r#"{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{},"spec":{"#);
    put!(
        request,
        r#""resourceAttributes":{"namespace":""#,
        workload.namespace,
        r#"","verb":""#,
        verb,
        r#"","resource":""#
    );
    put!(request, resource, r#""},"user":""#, workload.account.name, r#"","groups":["system:authenticated"]},"#);
    put!(request, r#""status":{"allowed":true}}"#);
    draft.echo();
}

fn health(scene: &mut Scene<'_>) {
    let path = pick(&["/livez", "/readyz", "/healthz", "/version"], scene.rng);
    scene.draft.start(&scene.world.probe, "get", Level::Metadata);
    scene.draft.path(path);
}

/// A person reads lists and objects.
fn look_around(scene: &mut Scene<'_>) {
    let (workload, pod, _) = scene.pod();
    let person = scene.person();
    let draft = &mut *scene.draft;
    match scene.rng.random_range(0..4) {
        0 => {
            draft.start(person, "get", Level::Metadata);
            draft.target(Target::core(workload.namespace, "pods", &pod.name), "");
        }
        1 => {
            draft.start(person, "list", Level::Metadata);
            draft.target(Target::of("apps", workload.namespace, "deployments", ""), "limit=500");
        }
        2 => {
            draft.start(person, "get", Level::Metadata);
            draft.path("/openapi/v3?timeout=32s");
        }
        _ => {
            draft.start(person, "list", Level::Metadata);
            let resource = pick(&["pods", "services", "events"], scene.rng);
            draft.target(Target::core(workload.namespace, resource, ""), "limit=500");
        }
    }
}

/// Lists whose answers are recorded: the largest events of all.
fn list_everything(scene: &mut Scene<'_>) {
    // From twenty thousand to three hundred thousand bytes, most near the lower end.
    let bytes = 20_000.0 * 15f64.powf(scene.rng.random::<f64>().powf(2.5));
    let is_pods = scene.rng.random_bool(0.6);
    let who = if scene.rng.random_bool(0.5) { scene.person() } else { &scene.world.metrics };
    let draft = &mut *scene.draft;
    draft.start(who, "list", Level::RequestResponse);
    let (kind, version) = if is_pods { ("PodList", "v1") } else { ("DeploymentList", "apps/v1") };
    let target = if is_pods { Target::core("", "pods", "") } else { Target::of("apps", "", "deployments", "") };
    draft.target(target, "limit=500");
    let response = &mut draft.response;
    put!(response, r#"{"kind":""#, kind, r#"","apiVersion":""#, version, r#"","metadata":{"resourceVersion":""#);
    put!(response, scene.at.version, r#""},"items":["#);
    let first = scene.rng.random_range(0..scene.world.workloads.len());
    'full: for workload in scene.world.workloads.iter().cycle().skip(first) {
        let count = if is_pods { workload.pods.len() } else { 1 };
        for pod in workload.pods.iter().take(count) {
            let start = response.len();
            if is_pods {
                objects::pod(response, workload, pod, scene.world.node(pod), scene.at, true);
            } else {
                objects::holder(response, workload, Holder::Deployment, scene.at, true, true);
            }
            // One more of this size would be too much.
            if 2 * response.len() - start > bytes as usize {
                break 'full;
            }
            response.push(b',');
        }
    }
    put!(response, "]}");
}

/// The delivery tool, or rarely a person, changes a Deployment.
fn deploy(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let who = match scene.rng.random_range(0..10) {
        0 => scene.person(),
        1 | 2 => &scene.world.pipeline,
        _ => &scene.world.gitops,
    };
    let draft = &mut *scene.draft;
    draft.start(who, "patch", Level::RequestResponse);
    let query = "fieldManager=argocd-controller&fieldValidation=Strict";
    draft.target(Target::of("apps", workload.namespace, "deployments", &workload.app), query);
    let request = &mut draft.request;
    put!(request, r#"{"metadata":{"labels":{"#, workload.labels, r#"}},"spec":{"template":{"spec":{"#);
    put!(request, r#""$setElementOrder/containers":[{"name":"app"}],"containers":[{"name":"app","image":""#);
    put!(request, workload.image, r#""}]}}}}"#);
    objects::holder(&mut draft.response, workload, Holder::Deployment, scene.at, true, false);
}

fn deployment_status(scene: &mut Scene<'_>) {
    holder_status(scene, "deployment-controller", "deployments", Holder::Deployment);
}

fn replica_set_status(scene: &mut Scene<'_>) {
    holder_status(scene, "replicaset-controller", "replicasets", Holder::ReplicaSet);
}

fn holder_status(scene: &mut Scene<'_>, controller: &str, resource: &str, holder: Holder) {
    let workload = scene.workload();
    let set = format!("{}-{}", workload.app, workload.hash);
    let name = if holder == Holder::ReplicaSet { &set } else { &workload.app };
    let draft = &mut *scene.draft;
    draft.start(scene.world.controller(controller), "update", Level::RequestResponse);
    draft.target(Target::of("apps", workload.namespace, resource, name).sub("status"), "");
    objects::holder(&mut draft.request, workload, holder, scene.at, false, false);
    objects::holder(&mut draft.response, workload, holder, scene.at, true, false);
}

fn create_pod(scene: &mut Scene<'_>) {
    let (workload, pod, node) = scene.pod();
    let draft = &mut *scene.draft;
    draft.start(scene.world.controller("replicaset-controller"), "create", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "pods", ""), "");
    put!(&mut draft.request, r#"{"kind":"Pod","apiVersion":"v1","metadata":{"#);
    objects::pod_metadata(&mut draft.request, workload);
    put!(&mut draft.request, r#"},"spec":"#, workload.spec, r#"},"status":{}}"#);
    objects::pod(&mut draft.response, workload, pod, node, scene.at, false);
}

fn bind_pod(scene: &mut Scene<'_>) {
    let (workload, pod, node) = scene.pod();
    let draft = &mut *scene.draft;
    draft.start(&scene.world.scheduler, "create", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "pods", &pod.name).sub("binding"), "");
    put!(
        &mut draft.request,
        r#"{"kind":"Binding","apiVersion":"v1","metadata":{"name":""#,
        pod.name,
        r#"","namespace":""#
    );
    put!(&mut draft.request, workload.namespace, r#"","uid":""#, pod.uid, r#""},"target":{"kind":"Node","name":""#);
    put!(&mut draft.request, node.name, r#""}}"#);
    put!(&mut draft.response, r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#);
}

fn delete_pod(scene: &mut Scene<'_>) {
    let (workload, pod, node) = scene.pod();
    let draft = &mut *scene.draft;
    let controller = pick(&["replicaset-controller", "generic-garbage-collector"], scene.rng);
    draft.start(scene.world.controller(controller), "delete", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "pods", &pod.name), "");
    put!(
        &mut draft.request,
        r#"{"kind":"DeleteOptions","apiVersion":"v1","preconditions":{"uid":""#,
        pod.uid,
        r#""}}"#
    );
    objects::pod(&mut draft.response, workload, pod, node, scene.at, false);
}

fn endpoint_slice(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let name = format!("{}-{}", workload.app, workload.hash.get(..5).unwrap_or(&workload.hash));
    let draft = &mut *scene.draft;
    draft.start(scene.world.controller("endpointslice-controller"), "update", Level::RequestResponse);
    draft.target(Target::of("discovery.k8s.io", workload.namespace, "endpointslices", &name), "");
    objects::endpoint_slice(&mut draft.request, workload, &scene.world.nodes, scene.at, false);
    objects::endpoint_slice(&mut draft.response, workload, &scene.world.nodes, scene.at, true);
}

fn config_map(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let name = format!("{}-config", workload.app);
    // Most are small, a few are files.
    let size = (300.0 / scene.rng.random_range(0.006..1.0f64)) as usize;
    let draft = &mut *scene.draft;
    draft.start(&scene.world.gitops, "update", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "configmaps", &name), "fieldManager=argocd-controller");
    objects::config_map(&mut draft.request, workload, size, scene.at, scene.rng);
    draft.echo();
}

fn node_status(scene: &mut Scene<'_>) {
    let node = scene.node();
    let draft = &mut *scene.draft;
    draft.start(&node.kubelet, "patch", Level::RequestResponse);
    draft.target(Target::core("", "nodes", &node.name).sub("status"), "timeout=10s");
    put!(&mut draft.request, r#"{"status":{"#);
    objects::node_conditions(&mut draft.request, scene.at.now_us);
    put!(&mut draft.request, "}}");
    objects::node(&mut draft.response, node, &scene.world.workloads, scene.at, scene.rng);
}

/// A kubelet asks for the token of a pod that it runs.
fn pod_token(scene: &mut Scene<'_>) {
    let (workload, pod, node) = scene.pod();
    let draft = &mut *scene.draft;
    draft.start(&node.kubelet, "create", Level::RequestResponse);
    draft.target(Target::core(workload.namespace, "serviceaccounts", &workload.app).sub("token"), "");
    let request = &mut draft.request;
    put!(
        request,
        r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{"audiences":"#
    );
    put!(request, r#"["https://kubernetes.default.svc.cluster.local"],"expirationSeconds":3607,"boundObjectRef":{"#);
    put!(request, r#""kind":"Pod","apiVersion":"v1","name":""#, pod.name, r#"","uid":""#, pod.uid, r#""}},"status":{"#);
    put!(request, r#""token":"","expirationTimestamp":null}}"#);
    let response = &mut draft.response;
    put!(
        response,
        r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","metadata":{"name":""#,
        workload.app
    );
    put!(response, r#"","namespace":""#, workload.namespace, r#"","creationTimestamp":""#, Seconds(scene.at.now_us));
    put!(
        response,
        r#""},"spec":{"audiences":["https://kubernetes.default.svc.cluster.local"],"expirationSeconds":3607,"#
    );
    put!(response, r#""boundObjectRef":{"kind":"Pod","apiVersion":"v1","name":""#, pod.name, r#"","uid":""#, pod.uid);
    put!(response, r#""}},"status":{"token":"made-up."#);
    for _ in 0..24 {
        put!(response, Hex(scene.rng.random(), 16));
    }
    put!(response, r#"","expirationTimestamp":""#, Seconds(scene.at.now_us + 3_607_000_000), r#""}}"#);
}

fn certificate_status(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let now = Seconds(scene.at.now_us);
    let draft = &mut *scene.draft;
    draft.start(&scene.world.certificates, "patch", Level::RequestResponse);
    let query = "fieldManager=cert-manager-certificates-readiness&force=true";
    let target = Target::of("cert-manager.io", workload.namespace, "certificates", &workload.app);
    draft.target(target.sub("status"), query);
    let request = &mut draft.request;
    put!(request, r#"{"kind":"Certificate","apiVersion":"cert-manager.io/v1","metadata":{"name":""#, workload.app);
    put!(request, r#"","namespace":""#, workload.namespace, r#""},"spec":{"secretName":""#, workload.app, r#"-tls","#);
    put!(request, r#""dnsNames":[""#, workload.app, ".", workload.namespace, r#".example.com"],"issuerRef":{"name":"#);
    put!(request, r#""internal","kind":"ClusterIssuer"}},"status":{"conditions":[{"type":"Ready","status":"True","#);
    put!(request, r#""reason":"Ready","message":"Certificate is up to date and has not expired","#);
    put!(request, r#""lastTransitionTime":""#, now, r#"","observedGeneration":1}],"notAfter":""#, now);
    put!(request, r#"","renewalTime":""#, now, r#"","revision":3}}"#);
    draft.echo();
}

fn autoscaler_status(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let draft = &mut *scene.draft;
    draft.start(scene.world.controller("horizontal-pod-autoscaler"), "update", Level::RequestResponse);
    let target = Target::of("autoscaling", workload.namespace, "horizontalpodautoscalers", &workload.app);
    draft.target(Target { version: "v2", ..target }.sub("status"), "");
    let (now, load) = (Seconds(scene.at.now_us), scene.rng.random_range(5..95u64));
    let request = &mut draft.request;
    put!(
        request,
        r#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2","metadata":{"name":""#,
        workload.app
    );
    put!(
        request,
        r#"","namespace":""#,
        workload.namespace,
        r#"","uid":""#,
        workload.uid,
        r#"","labels":{"#,
        workload.labels
    );
    put!(request, r#"}},"spec":{"scaleTargetRef":{"kind":"Deployment","name":""#, workload.app, r#"","apiVersion":"#);
    put!(request, r#""apps/v1"},"minReplicas":1,"maxReplicas":12,"metrics":[{"type":"Resource","resource":{"name":"#);
    put!(
        request,
        r#""cpu","target":{"type":"Utilization","averageUtilization":70}}}]},"status":{"lastScaleTime":""#,
        now
    );
    put!(request, r#"","currentReplicas":3,"desiredReplicas":3,"currentMetrics":[{"type":"Resource","resource":{"#);
    put!(
        request,
        r#""name":"cpu","current":{"averageUtilization":"#,
        load,
        r#"}}}],"conditions":[{"type":"AbleToScale","#
    );
    put!(request, r#""status":"True","lastTransitionTime":""#, now, r#"","reason":"ReadyForNewScale","message":"#);
    put!(request, r#""recommended size matches current size"}]}}"#);
    draft.echo();
}

fn job_status(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let name = format!("{}-{}", workload.app, scene.at.version % 100_000_000);
    let now = Seconds(scene.at.now_us);
    let draft = &mut *scene.draft;
    draft.start(scene.world.controller("job-controller"), "update", Level::RequestResponse);
    draft.target(Target::of("batch", workload.namespace, "jobs", &name).sub("status"), "");
    let request = &mut draft.request;
    put!(request, r#"{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":""#, name, r#"","namespace":""#);
    put!(
        request,
        workload.namespace,
        r#"","labels":{"#,
        workload.labels,
        r#"}},"spec":{"parallelism":1,"completions":1,"#
    );
    put!(
        request,
        r#""backoffLimit":6,"template":{"metadata":{"labels":{"#,
        workload.labels,
        r#"}},"spec":"#,
        workload.spec
    );
    put!(request, r#"}}},"status":{"startTime":""#, now, r#"","completionTime":""#, now, r#"","succeeded":1}}"#);
    draft.echo();
}

fn self_review(scene: &mut Scene<'_>) {
    let person = scene.person();
    let workload = scene.workload();
    let draft = &mut *scene.draft;
    draft.start(person, "create", Level::RequestResponse);
    draft.target(Target::of("authorization.k8s.io", "", "selfsubjectaccessreviews", ""), "");
    let request = &mut draft.request;
    put!(request, r#"{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{},"spec":{"#);
    put!(
        request,
        r#""resourceAttributes":{"namespace":""#,
        workload.namespace,
        r#"","verb":"get","resource":"pods"}},"#
    );
    put!(request, r#""status":{"allowed":true}}"#);
    draft.echo();
}

fn pod_logs(scene: &mut Scene<'_>) {
    let (workload, pod, _) = scene.pod();
    let person = scene.person();
    scene.draft.start(person, "get", Level::Metadata);
    let target = Target::core(workload.namespace, "pods", &pod.name).sub("log");
    scene.draft.target(target, "container=app&follow=true&tailLines=100");
    scene.draft.is_long = true;
}

/// A person looks into a pod of his team.
fn exec(scene: &mut Scene<'_>) {
    let own = &scene.world.workloads[SYSTEM_WORKLOADS..];
    let workload = &own[scene.rng.random_range(0..own.len())];
    let pod = &workload.pods[scene.rng.random_range(0..workload.pods.len())];
    let person = scene.person();
    let command = pick(&["command=ls&command=-l&command=%2Ftmp", "command=date", "command=df&command=-h"], scene.rng);
    session(scene.draft, person, Target::core(workload.namespace, "pods", &pod.name), command);
}

/// An exec over WebSocket; `command` is the query's part.
pub(super) fn session(draft: &mut Draft, who: &super::world::Identity, pod: Target<'_>, command: &str) {
    draft.start(who, "get", Level::Metadata);
    draft.target(pod.sub("exec"), &format!("{command}&container=app&stdin=true&stdout=true&tty=true"));
    draft.code = 101;
    draft.is_long = true;
}

/// A patch that is a list of operations, which is an array where other bodies are objects.
fn json_patch(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let person = scene.person();
    let draft = &mut *scene.draft;
    draft.start(person, "patch", Level::RequestResponse);
    let target = Target::of("apps", workload.namespace, "deployments", &workload.app);
    draft.target(target, "fieldManager=kubectl-patch");
    let replicas = scene.rng.random_range(1..9u64);
    put!(&mut draft.request, r#"[{"op":"replace","path":"/spec/replicas","value":"#, replicas, "}]");
    objects::holder(&mut draft.response, workload, Holder::Deployment, scene.at, true, false);
}

/// Somebody tries what he may not do.
fn denied(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let person = scene.person();
    let (verb, resource) = pick(&[("list", "secrets"), ("get", "nodes"), ("list", "configmaps")], scene.rng);
    scene.draft.start(person, verb, Level::Metadata);
    let (namespace, name) = if resource == "nodes" { ("", "ip-10-20-1-20") } else { (workload.namespace, "") };
    scene.draft.target(Target::core(namespace, resource, name), "limit=500");
    let message = format!("{resource} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\"", person.name);
    scene.draft.fail(403, &message);
}

/// Somebody without a name is sent away.
fn stranger(scene: &mut Scene<'_>) {
    let path = pick(&["/", "/api", "/login.php", "/.env", "/apis"], scene.rng);
    scene.draft.start(&scene.world.stranger, "get", Level::Metadata);
    scene.draft.path(path);
    scene.draft.fail(403, &format!("forbidden: User \"system:anonymous\" cannot get path \"{path}\""));
}

/// What a release brings beside its Deployment.
fn objects_of_a_release(scene: &mut Scene<'_>) {
    let workload = scene.workload();
    let uid = uid(scene.rng);
    let suffix = letters(5, scene.rng);
    let draft = &mut *scene.draft;
    let kind = scene.rng.random_range(0..3);
    draft.start(&scene.world.gitops, if kind == 0 { "patch" } else { "create" }, Level::RequestResponse);
    let request = &mut draft.request;
    let (group, version, name, resource) = match kind {
        0 => ("", "v1", "Service", "services"),
        1 => ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1", "Role", "roles"),
        _ => ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    };
    let full = format!("{}-{suffix}", workload.app);
    put!(request, r#"{"kind":""#, name, r#"","apiVersion":""#, version, r#"","metadata":{"name":""#, full);
    put!(
        request,
        r#"","namespace":""#,
        workload.namespace,
        r#"","uid":""#,
        uid,
        r#"","labels":{"#,
        workload.labels,
        "}},"
    );
    match kind {
        0 => {
            put!(
                request,
                r#""spec":{"type":"ClusterIP","ports":[{"name":"http","port":80,"targetPort":8080,"protocol":"#
            );
            put!(request, r#""TCP"}],"selector":{"app.kubernetes.io/name":""#, workload.app, r#""}}}"#);
        }
        1 => {
            put!(request, r#""rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["get","list","watch"]}]}"#);
        }
        _ => {
            put!(request, r#""subjects":[{"kind":"ServiceAccount","name":""#, workload.app, r#"","namespace":""#);
            put!(
                request,
                workload.namespace,
                r#""}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","#
            );
            put!(request, r#""name":""#, workload.app, r#""}}"#);
        }
    }
    draft.echo();
    draft.target(Target::of(group, workload.namespace, resource, &full), "fieldManager=argocd-controller");
}
