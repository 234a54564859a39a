//! A made-up cluster: who calls its API and what runs in it. Drawn once, so that names come back as they do in real logs.

use rand::Rng;
use rand::rngs::StdRng;

use super::json::{Escaped, Hex, Uid, put};
use super::objects;

const TEAMS: [&str; 10] =
    ["shop", "payments", "checkout", "search", "catalog", "logistics", "fraud", "identity", "media", "reporting"];
const SYSTEMS: [&str; 5] = ["kube-system", "monitoring", "ingress-nginx", "argocd", "cert-manager"];
const SUBJECTS: [&str; 12] =
    ["cart", "order", "auth", "query", "mail", "ledger", "feed", "image", "price", "stock", "session", "quote"];
const ROLES: [&str; 5] = ["api", "worker", "web", "proxy", "sync"];
const PEOPLE: [&str; 12] =
    ["amara", "bela", "chidi", "dana", "emre", "farah", "goran", "hiro", "ines", "jonas", "kavya", "lior"];
const CONTROLLERS: [&str; 9] = [
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "job-controller",
    "cronjob-controller",
    "generic-garbage-collector",
    "horizontal-pod-autoscaler",
    "statefulset-controller",
    "daemon-set-controller",
];
const CLIENTS: [&str; 4] = [
    "kubectl/v1.33.1 (darwin/arm64) kubernetes/8adc0f0",
    "kubectl/v1.32.6 (linux/amd64) kubernetes/1f2a9d3",
    "k9s/v0.50.6 (darwin/arm64) kubernetes/$Format",
    "Lens/2025.6.261308",
];
const NODES: usize = 24;
const WORKLOADS_PER_NAMESPACE: usize = 8;
/// The first of a cluster's workloads are of its system namespaces.
pub(super) const SYSTEM_WORKLOADS: usize = SYSTEMS.len() * WORKLOADS_PER_NAMESPACE;

/// One cluster.
#[derive(Debug)]
pub(super) struct World {
    pub nodes: Vec<Node>,
    pub workloads: Vec<Workload>,
    pub people: Vec<Identity>,
    pub controllers: Vec<Identity>,
    pub scheduler: Identity,
    pub manager: Identity,
    pub gitops: Identity,
    pub certificates: Identity,
    pub pipeline: Identity,
    pub probe: Identity,
    pub stranger: Identity,
    pub metrics: Identity,
}

/// Somebody who calls the API, as the parts of an event that tell of him; all but `name` are JSON already.
#[derive(Debug)]
pub(super) struct Identity {
    pub name: String,
    pub user: Vec<u8>,
    pub agent: Vec<u8>,
    pub address: Vec<u8>,
    /// Why he is allowed to.
    pub reason: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub name: String,
    pub uid: String,
    pub address: String,
    pub kubelet: Identity,
}

/// A Deployment with its pods.
#[derive(Debug)]
pub(super) struct Workload {
    pub namespace: &'static str,
    pub app: String,
    /// Names its replica set.
    pub hash: String,
    pub uid: String,
    pub set_uid: String,
    pub image: String,
    /// Members of a labels object.
    pub labels: Vec<u8>,
    /// A pod's spec as a template has it, without the closing brace.
    pub spec: Vec<u8>,
    pub pods: Vec<Pod>,
    pub account: Identity,
}

#[derive(Debug)]
pub(super) struct Pod {
    pub name: String,
    pub uid: String,
    /// Index into the nodes.
    pub node: usize,
    pub address: String,
}

impl World {
    /// Draws a cluster.
    pub fn draw(rng: &mut StdRng) -> World {
        let nodes: Vec<Node> = (0..NODES).map(|index| Node::draw(index, rng)).collect();
        let mut workloads = Vec::new();
        for namespace in SYSTEMS.iter().chain(&TEAMS) {
            for _ in 0..WORKLOADS_PER_NAMESPACE {
                workloads.push(Workload::draw(namespace, &nodes, rng));
            }
        }
        let manager = "kube-controller-manager/v1.33.4 (linux/amd64) kubernetes/74cdb42";
        World {
            people: PEOPLE.iter().map(|name| Identity::person(name, rng)).collect(),
            controllers: CONTROLLERS
                .iter()
                .map(|name| {
                    let agent = format!("{manager}/system:serviceaccount:kube-system:{name}");
                    let role = format!("system:controller:{name}");
                    Identity::account("kube-system", name, &agent, "10.20.0.10", &role, rng)
                })
                .collect(),
            scheduler: Identity::component("kube-scheduler", "kube-scheduler/v1.33.4 (linux/amd64)", rng),
            manager: Identity::component("kube-controller-manager", manager, rng),
            gitops: Identity::account(
                "argocd",
                "argocd-application-controller",
                "argocd-application-controller/v0.0.0 (linux/amd64) kubernetes/$Format",
                "10.244.3.17",
                "argocd-application-controller",
                rng,
            ),
            certificates: Identity::account(
                "cert-manager",
                "cert-manager",
                "cert-manager-certificates-readiness/v1.18.2 (linux/amd64) cert-manager/7e8f9d1",
                "10.244.5.9",
                "cert-manager-controller-certificates",
                rng,
            ),
            pipeline: Identity::account("shop", "deployer", "helm/3.18.4", "10.20.0.40", "edit", rng),
            probe: Identity::anonymous("kube-probe/1.33", "10.20.0.1"),
            stranger: Identity::anonymous("Go-http-client/1.1", "198.51.100.77"),
            metrics: Identity::account(
                "monitoring",
                "kube-state-metrics",
                "kube-state-metrics/v2.16.0 (linux/amd64) kube-state-metrics/b4e9f7c",
                "10.244.7.21",
                "kube-state-metrics",
                rng,
            ),
            nodes,
            workloads,
        }
    }

    /// A controller of the control plane.
    pub fn controller(&self, name: &str) -> &Identity {
        let at = CONTROLLERS.iter().position(|known| *known == name).unwrap_or_default();
        self.controllers.get(at).unwrap_or(&self.manager)
    }

    /// The node that a pod runs on.
    pub fn node(&self, pod: &Pod) -> &Node {
        &self.nodes[pod.node]
    }
}

impl Node {
    fn draw(index: usize, rng: &mut StdRng) -> Node {
        let address = format!("10.20.{}.{}", 1 + index / 12, 20 + index % 12);
        let name = format!("ip-{}.eu-west-1.compute.internal", address.replace('.', "-"));
        let mut user = Vec::new();
        put!(&mut user, r#"{"username":"system:node:"#, name, r#"","groups":["system:nodes","system:authenticated"],"#);
        put!(&mut user, r#""extra":{"authentication.kubernetes.io/credential-id":["X509SHA256="#, fingerprint(rng));
        put!(&mut user, r#""]}}"#);
        let kubelet = Identity {
            name: format!("system:node:{name}"),
            user,
            agent: b"kubelet/v1.33.4 (linux/amd64) kubernetes/74cdb42".to_vec(),
            address: address.clone().into_bytes(),
            reason: Vec::new(),
        };
        Node { uid: text(uid(rng)), name, address, kubelet }
    }
}

impl Workload {
    fn draw(namespace: &'static str, nodes: &[Node], rng: &mut StdRng) -> Workload {
        let app = format!("{}-{}", pick(&SUBJECTS, rng), pick(&ROLES, rng));
        let hash = letters(9, rng);
        let image =
            format!("registry.example.com/{namespace}/{app}:1.{}.{}", rng.random_range(0..40), rng.random_range(0..9));
        let mut labels = Vec::new();
        put!(&mut labels, r#""app.kubernetes.io/name":""#, app, r#"","app.kubernetes.io/instance":""#, app, "-prod\",");
        put!(&mut labels, r#""app.kubernetes.io/managed-by":"Helm","team":""#, namespace, "\"");
        let pods: Vec<Pod> = (0..rng.random_range(1..8))
            .map(|_| Pod {
                name: format!("{app}-{hash}-{}", letters(5, rng)),
                uid: text(uid(rng)),
                node: rng.random_range(0..nodes.len()),
                address: format!("10.244.{}.{}", rng.random_range(0..64), rng.random_range(2..250)),
            })
            .collect();
        let account = Identity::workload(namespace, &app, &pods, nodes, rng);
        let mut spec = Vec::new();
        objects::template_spec(&mut spec, &app, &image, rng);
        let (uid, set_uid) = (text(uid(rng)), text(uid(rng)));
        Workload { namespace, app, hash, uid, set_uid, image, labels, spec, pods, account }
    }
}

impl Identity {
    fn person(name: &str, rng: &mut StdRng) -> Identity {
        let group = if rng.random_bool(0.8) { "oidc:developers" } else { "oidc:platform" };
        let role = if group == "oidc:developers" { "edit" } else { "platform-operator" };
        let mut user = Vec::new();
        put!(
            &mut user,
            r#"{"username":""#,
            name,
            r#"@example.com","groups":[""#,
            group,
            r#"","system:authenticated"],"#
        );
        put!(&mut user, r#""extra":{"authentication.kubernetes.io/credential-id":["JTI="#, uid(rng), r#""]}}"#);
        let mut reason = Vec::new();
        let told =
            format!("RBAC: allowed by ClusterRoleBinding \"{group}\" of ClusterRole \"{role}\" to Group \"{group}\"");
        put!(&mut reason, Escaped(&told));
        let address = format!("203.0.113.{}", rng.random_range(2..250)).into_bytes();
        Identity { name: format!("{name}@example.com"), user, agent: pick(&CLIENTS, rng).into(), address, reason }
    }

    fn component(name: &str, agent: &str, rng: &mut StdRng) -> Identity {
        let mut user = Vec::new();
        put!(&mut user, r#"{"username":"system:"#, name, r#"","groups":["system:authenticated"],"extra":{"#);
        put!(&mut user, r#""authentication.kubernetes.io/credential-id":["X509SHA256="#, fingerprint(rng), r#""]}}"#);
        let role = format!("system:{name}");
        let told =
            format!("RBAC: allowed by ClusterRoleBinding \"{role}\" of ClusterRole \"{role}\" to User \"{role}\"");
        let mut reason = Vec::new();
        put!(&mut reason, Escaped(&told));
        Identity { name: role, user, agent: agent.into(), address: b"10.20.0.10".to_vec(), reason }
    }

    fn account(namespace: &str, name: &str, agent: &str, address: &str, role: &str, rng: &mut StdRng) -> Identity {
        let mut user = Vec::new();
        account_head(&mut user, namespace, name, rng);
        put!(&mut user, r#""authentication.kubernetes.io/credential-id":["JTI="#, uid(rng), r#""]}}"#);
        Identity::of_account(namespace, name, user, agent, address, role)
    }

    /// The account of a workload, as its first pod uses it.
    fn workload(namespace: &str, name: &str, pods: &[Pod], nodes: &[Node], rng: &mut StdRng) -> Identity {
        let mut user = Vec::new();
        account_head(&mut user, namespace, name, rng);
        put!(&mut user, r#""authentication.kubernetes.io/credential-id":["JTI="#, uid(rng), r#""]"#);
        let mut address = "10.244.0.2";
        if let Some(pod) = pods.first() {
            address = &pod.address;
            put!(&mut user, r#","authentication.kubernetes.io/pod-name":[""#, pod.name, r#""],"#);
            put!(&mut user, r#""authentication.kubernetes.io/pod-uid":[""#, pod.uid, r#""],"#);
            put!(&mut user, r#""authentication.kubernetes.io/node-name":[""#, nodes[pod.node].name, r#""]"#);
        }
        put!(&mut user, "}}");
        let agent = format!("{name}/v0.0.0 (linux/amd64) kubernetes/$Format");
        Identity::of_account(namespace, name, user, &agent, address, "view")
    }

    fn of_account(namespace: &str, name: &str, user: Vec<u8>, agent: &str, address: &str, role: &str) -> Identity {
        let told = format!(
            "RBAC: allowed by ClusterRoleBinding \"{role}\" of ClusterRole \"{role}\" to ServiceAccount \"{name}/{namespace}\""
        );
        let mut reason = Vec::new();
        put!(&mut reason, Escaped(&told));
        let full = format!("system:serviceaccount:{namespace}:{name}");
        Identity { name: full, user, agent: agent.into(), address: address.into(), reason }
    }

    fn anonymous(agent: &str, address: &str) -> Identity {
        let mut reason = Vec::new();
        let told = "RBAC: allowed by ClusterRoleBinding \"system:public-info-viewer\" of ClusterRole \
                    \"system:public-info-viewer\" to Group \"system:unauthenticated\"";
        put!(&mut reason, Escaped(told));
        Identity {
            name: "system:anonymous".to_owned(),
            user: br#"{"username":"system:anonymous","groups":["system:unauthenticated"]}"#.to_vec(),
            agent: agent.into(),
            address: address.into(),
            reason,
        }
    }
}

/// A service account's user object up to the members of `extra`.
fn account_head(out: &mut Vec<u8>, namespace: &str, name: &str, rng: &mut StdRng) {
    put!(out, r#"{"username":"system:serviceaccount:"#, namespace, ":", name, r#"","uid":""#, uid(rng));
    put!(out, r#"","groups":["system:serviceaccounts","system:serviceaccounts:"#, namespace);
    put!(out, r#"","system:authenticated"],"extra":{"#);
}

/// One of them, all equally likely.
pub(super) fn pick<T: Copy>(from: &[T], rng: &mut StdRng) -> T {
    from[rng.random_range(0..from.len())]
}

pub(super) fn uid(rng: &mut StdRng) -> Uid {
    Uid(rng.random(), rng.random())
}

/// Letters as Kubernetes appends them to generated names.
pub(super) fn letters(count: usize, rng: &mut StdRng) -> String {
    (0..count).map(|_| char::from(pick(b"bcdfghjklmnpqrstvwxz2456789", rng))).collect()
}

fn fingerprint(rng: &mut StdRng) -> String {
    let mut out = Vec::new();
    for _ in 0..4 {
        put!(&mut out, Hex(rng.random(), 16));
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn text(uid: Uid) -> String {
    let mut out = Vec::new();
    put!(&mut out, uid);
    String::from_utf8_lossy(&out).into_owned()
}
