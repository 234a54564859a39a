//! Where the fields of an audit event, as other rule languages name them, stand in the `audit` table.
//!
//! A field is a path into the event (`objectRef.resource`, `requestObject.spec.containers.image`): Sigma writes it like
//! this, Falco's `jevt.value[/…]` with slashes, and its `ka.*` fields are short names of such paths. What has a typed
//! column gets it, so that every kind with a pod template and every cloud's form counts; any other path into a body is
//! read out of the JSON.

use super::expr::literal;

/// What a field is compared as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// One text.
    Text(Case),
    /// A list of text, of which any element counts.
    Texts(Form),
    Number,
    Numbers,
    /// True or false; other values than `true` are asked of the JSON.
    Flag,
    /// A field of the structs in `containers`; the name.
    Container(&'static str, ContainerKind),
    /// A point in time.
    Time,
    /// A key somewhere inside a list of the JSON; the name.
    Inside(String),
    /// What role rules name under one key; the JSON of the rules is searched.
    Rules(&'static str),
}

/// How texts of a column are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Kubernetes has lower case only.
    Lower,
    /// One of these words.
    Words(&'static [&'static str]),
    Free,
}

/// What is done to the elements of a list column, so that a value must go through it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    AsWritten,
    /// `//etc/` is `/etc`.
    Path,
    /// `CAP_SYS_ADMIN` is `SYS_ADMIN`.
    Capability,
    /// Images as written; the value is an image without its tag.
    Repository,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContainerKind {
    Flag,
    Text,
    Number,
    List,
}

/// A field of the source and what stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub kind: Kind,
    /// The column, or the expression that reads it.
    pub sql: String,
    /// The same out of the body's JSON, exactly where the source looks; for what the column cannot tell.
    pub raw: Option<Raw>,
    /// How the column differs from the field of the source.
    pub note: Option<&'static str>,
}

/// A place in the JSON of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// The column that holds the JSON.
    pub column: &'static str,
    pub keys: Vec<String>,
}

impl Raw {
    fn arguments(&self) -> String {
        let index = |key: &String| key.parse::<u32>().map_or_else(|_| literal(key), |index| index.to_string());
        self.keys.iter().fold(self.column.to_owned(), |all, key| format!("{all}, {}", index(key)))
    }

    /// The scalar there as text; of an object or a list, its JSON.
    pub(super) fn text(&self) -> String {
        if self.keys.is_empty() { self.column.to_owned() } else { format!("json_as_text({})", self.arguments()) }
    }

    /// Whether there is anything.
    pub(super) fn exists(&self) -> String {
        if self.keys.is_empty() {
            format!("{} IS NOT NULL", self.column)
        } else {
            format!("json_contains({})", self.arguments())
        }
    }

    /// The list around this place, and the key inside it; none where no list is on the way.
    pub(super) fn inside_list(&self) -> Option<(Raw, String)> {
        let list = self.keys.iter().position(|key| LISTS.contains(&key.as_str()))?;
        let key = self.keys.last().filter(|_| list + 1 < self.keys.len())?.clone();
        if self.keys.get(list + 1).is_some_and(|next| next.parse::<u32>().is_ok()) {
            return None;
        }
        Some((Raw { column: self.column, keys: self.keys[..=list].to_vec() }, key))
    }
}

/// Keys of bodies that hold lists of objects.
const LISTS: &[&str] = &[
    "containers",
    "initContainers",
    "ephemeralContainers",
    "volumes",
    "subjects",
    "rules",
    "ports",
    "webhooks",
    "env",
    "envFrom",
    "volumeMounts",
    "ownerReferences",
    "tolerations",
    "imagePullSecrets",
    "items",
    "conditions",
    "validations",
];

const STAGES: Case = Case::Words(&["ResponseComplete", "ResponseStarted", "Panic"]);
const LEVELS: Case = Case::Words(&["Metadata", "Request", "RequestResponse"]);
const SERVICE_TYPES: Case = Case::Words(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);

const TEMPLATES: &str = "init and ephemeral containers, and the pod templates of other kinds, count too";
const BARE: &str = "a bare name, read as what it says wherever it stands in the body";
const NAME: &str = "filled from the response where the request generated the name";
const SUBJECTS: &str = "service accounts stand there as system:serviceaccount:NAMESPACE:NAME";
const COMMANDS: &str = "command and arguments of a container are one text there, joined with spaces";

/// Fields outside of the bodies.
fn head(path: &str) -> Option<(Kind, &'static str, Option<&'static str>)> {
    let text = |case, column| Some((Kind::Text(case), column, None));
    let noted = |kind, column, note| Some((kind, column, Some(note)));
    match path {
        "auditID" => text(Case::Free, "audit_id"),
        "stage" => text(STAGES, "stage"),
        "level" => text(LEVELS, "level"),
        "verb" => text(Case::Lower, "verb"),
        "requestURI" => text(Case::Free, "uri"),
        "userAgent" => text(Case::Free, "user_agent"),
        "user.username" => text(Case::Free, "user_name"),
        "user.uid" => text(Case::Free, "user_uid"),
        "user.groups" => Some((Kind::Texts(Form::AsWritten), "user_groups", None)),
        "impersonatedUser.username" => text(Case::Free, "impersonated_user"),
        "impersonatedUser.groups" => Some((Kind::Texts(Form::AsWritten), "impersonated_groups", None)),
        "sourceIPs" => Some((Kind::Texts(Form::AsWritten), "source_ips", None)),
        "objectRef.resource" | "resource" => text(Case::Lower, "resource"),
        "objectRef.subresource" | "subresource" => text(Case::Lower, "subresource"),
        "objectRef.namespace" | "namespace" => text(Case::Lower, "namespace"),
        "objectRef.name" | "name" => noted(Kind::Text(Case::Free), "name", NAME),
        "objectRef.apiGroup" | "apiGroup" => text(Case::Lower, "api_group"),
        "objectRef.apiVersion" => text(Case::Lower, "api_version"),
        "objectRef.uid" => text(Case::Free, "object_uid"),
        "responseStatus.code" => Some((Kind::Number, "response_code", None)),
        "responseStatus.reason" => text(Case::Free, "response_reason"),
        "responseStatus.message" => text(Case::Free, "response_message"),
        "annotations.authorization.k8s.io/decision" => text(Case::Lower, "decision"),
        "annotations.authorization.k8s.io/reason" => text(Case::Free, "decision_reason"),
        "requestReceivedTimestamp" => Some((Kind::Time, "request_time", None)),
        "stageTimestamp" => Some((Kind::Time, "event_time", None)),
        "hostPath" => noted(Kind::Texts(Form::Path), "host_paths", BARE),
        "capabilities" => noted(Kind::Texts(Form::Capability), "capabilities_added", BARE),
        "image" => noted(Kind::Texts(Form::AsWritten), "images", BARE),
        "privileged" | "hostNetwork" | "hostPID" | "hostIPC" => {
            let column = match path {
                "privileged" => "privileged",
                "hostNetwork" => "host_network",
                "hostPID" => "host_pid",
                _ => "host_ipc",
            };
            noted(Kind::Flag, column, BARE)
        }
        _ => None,
    }
}

/// Fields of a body that have a column, the way to a pod template left out.
fn body(path: &str) -> Option<(Kind, &'static str, Option<&'static str>)> {
    let text = |case, column| Some((Kind::Text(case), column, None));
    let texts = |form, column, note| Some((Kind::Texts(form), column, note));
    if let Some(field) = CONTAINERS.iter().find_map(|list| path.strip_prefix(list)) {
        return container(field);
    }
    match path {
        "spec.volumes.hostPath.path" | "spec.volumes.hostPath" => texts(Form::Path, "host_paths", Some(TEMPLATES)),
        "spec.hostNetwork" => Some((Kind::Flag, "host_network", Some(TEMPLATES))),
        "spec.hostPID" => Some((Kind::Flag, "host_pid", Some(TEMPLATES))),
        "spec.hostIPC" => Some((Kind::Flag, "host_ipc", Some(TEMPLATES))),
        "spec.shareProcessNamespace" => Some((Kind::Flag, "share_process_namespace", Some(TEMPLATES))),
        "spec.serviceAccountName" | "spec.serviceAccount" => text(Case::Free, "service_account_name"),
        "spec.nodeName" => text(Case::Free, "node_name"),
        "spec.priorityClassName" => text(Case::Free, "priority_class"),
        "spec.runtimeClassName" => text(Case::Free, "runtime_class"),
        "roleRef.name" => text(Case::Free, "role_ref_name"),
        "roleRef.kind" => text(Case::Words(&["ClusterRole", "Role"]), "role_ref_kind"),
        "subjects.name" => texts(Form::AsWritten, "subject_names", Some(SUBJECTS)),
        "rules.verbs" => Some((Kind::Rules("verbs"), "rules", None)),
        "rules.resources" => Some((Kind::Rules("resources"), "rules", None)),
        "rules.apiGroups" => Some((Kind::Rules("apiGroups"), "rules", None)),
        "rules.nonResourceURLs" => Some((Kind::Rules("nonResourceURLs"), "rules", None)),
        "rules.resourceNames" => Some((Kind::Rules("resourceNames"), "rules", None)),
        "spec.type" => text(SERVICE_TYPES, "service_type"),
        "spec.externalIPs" => texts(Form::AsWritten, "external_ips", None),
        "spec.loadBalancerSourceRanges" => texts(Form::AsWritten, "load_balancer_source_ranges", None),
        "spec.signerName" => text(Case::Free, "csr_signer"),
        "spec.usages" => texts(Form::AsWritten, "csr_usages", None),
        "spec.audiences" => texts(Form::AsWritten, "token_audiences", None),
        _ => None,
    }
}

const CONTAINERS: &[&str] =
    &["spec.containers.", "spec.initContainers.", "spec.ephemeralContainers.", "ephemeralContainers."];

/// Fields of a container.
fn container(path: &str) -> Option<(Kind, &'static str, Option<&'static str>)> {
    let field = |name, kind| Some((Kind::Container(name, kind), "containers", Some(TEMPLATES)));
    match path {
        "image" => Some((Kind::Texts(Form::AsWritten), "images", Some(TEMPLATES))),
        "name" => field("name", ContainerKind::Text),
        "command" | "args" => Some((Kind::Texts(Form::AsWritten), "commands", Some(COMMANDS))),
        "securityContext.privileged" => Some((Kind::Flag, "privileged", Some(TEMPLATES))),
        "securityContext.allowPrivilegeEscalation" => field("allow_privilege_escalation", ContainerKind::Flag),
        "securityContext.runAsUser" => field("run_as_user", ContainerKind::Number),
        "securityContext.runAsNonRoot" => field("run_as_non_root", ContainerKind::Flag),
        "securityContext.readOnlyRootFilesystem" => field("read_only_root", ContainerKind::Flag),
        "securityContext.procMount" => field("proc_mount", ContainerKind::Text),
        "securityContext.seccompProfile.type" => field("seccomp", ContainerKind::Text),
        "securityContext.capabilities.add" => {
            Some((Kind::Texts(Form::Capability), "capabilities_added", Some(TEMPLATES)))
        }
        "securityContext.capabilities.drop" => field("capabilities_dropped", ContainerKind::List),
        "ports.hostPort" => Some((Kind::Numbers, "host_ports", Some(TEMPLATES))),
        _ => None,
    }
}

/// Keys of which the rest of the path is one key: it may hold dots.
const DOTTED: &[&str] = &["annotations", "labels", "extra", "matchLabels", "nodeSelector", "data", "stringData"];

/// The field at a path with dots, `[…]` of lists left out. None where the event has no such thing.
pub(super) fn at_path(path: &str) -> Option<Field> {
    let mut path = path.trim().to_owned();
    for mark in ["[*]", "[]", "{}", "[any]"] {
        path = path.replace(mark, "");
    }
    if let Some((kind, column, note)) = head(&path) {
        return Some(Field { kind, sql: column.to_owned(), raw: None, note });
    }
    let (part, rest) = path.split_once('.').unwrap_or((&path, ""));
    let column = match part {
        "requestObject" => "request_object",
        "responseObject" => "response_object",
        "annotations" if !rest.is_empty() => return Some(json("annotations", vec![rest.to_owned()])),
        "user" => return rest.strip_prefix("extra.").map(|key| json("user_extra", vec![key.to_owned()])),
        _ => return None,
    };
    let raw = Raw { column, keys: keys(rest) };
    if let Some((kind, column, note)) = body(template(rest)) {
        return Some(Field { kind, sql: column.to_owned(), raw: Some(raw), note });
    }
    Some(match raw.inside_list() {
        Some((list, key)) => Field { kind: Kind::Inside(key), sql: list.text(), raw: Some(raw), note: None },
        None => json(column, raw.keys),
    })
}

fn json(column: &'static str, keys: Vec<String>) -> Field {
    let raw = Raw { column, keys };
    Field { kind: Kind::Text(Case::Free), sql: raw.text(), raw: Some(raw), note: None }
}

/// The path without the way to a pod template.
fn template(path: &str) -> &str {
    ["spec.jobTemplate.spec.template.", "spec.template.", "template."]
        .iter()
        .find_map(|way| path.strip_prefix(way))
        .unwrap_or(path)
}

fn keys(path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('.').unwrap_or((rest, ""));
        let (key, index) = match key.strip_suffix(']').and_then(|key| key.split_once('[')) {
            Some((key, index)) => (key, Some(index.to_owned())),
            None => (key, None),
        };
        keys.push(key.to_owned());
        keys.extend(index);
        if DOTTED.contains(&key) && !after.is_empty() {
            keys.push(after.to_owned());
            break;
        }
        rest = after;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Column;

    fn sql(path: &str) -> String {
        at_path(path).map_or_else(|| "-".to_owned(), |field| field.sql)
    }

    #[test]
    fn paths_lead_to_columns_and_others_into_the_json() {
        for (path, expected) in [
            ("objectRef.resource", "resource"),
            ("requestObject.spec.containers[*].image", "images"),
            ("requestObject.spec.template.spec.initContainers.securityContext.privileged", "privileged"),
            ("requestObject.spec.jobTemplate.spec.template.spec.volumes[].hostPath.path", "host_paths"),
            (
                "requestObject.metadata.labels.app.kubernetes.io/name",
                "json_as_text(request_object, 'metadata', 'labels', 'app.kubernetes.io/name')",
            ),
            ("requestObject.spec.containers[0].tty", "json_as_text(request_object, 'spec', 'containers', 0, 'tty')"),
            ("requestObject.spec.containers.tty", "json_as_text(request_object, 'spec', 'containers')"),
            ("requestObject", "request_object"),
            (
                "annotations.pod-security.kubernetes.io/exempt",
                "json_as_text(annotations, 'pod-security.kubernetes.io/exempt')",
            ),
            ("user.extra.sessionName", "json_as_text(user_extra, 'sessionName')"),
            ("EventID", "-"),
        ] {
            assert_eq!(sql(path), expected, "{path}");
        }
    }

    #[test]
    fn every_column_that_is_named_exists() {
        let heads = [
            "auditID",
            "stage",
            "level",
            "userAgent",
            "sourceIPs",
            "objectRef.uid",
            "hostIPC",
            "image",
            "responseStatus.message",
            "annotations.authorization.k8s.io/reason",
            "stageTimestamp",
            "user.uid",
        ];
        let bodies = [
            "spec.hostPID",
            "spec.nodeName",
            "roleRef.kind",
            "subjects.name",
            "spec.externalIPs",
            "spec.usages",
            "spec.audiences",
            "spec.signerName",
            "spec.loadBalancerSourceRanges",
            "spec.runtimeClassName",
            "spec.containers.ports.hostPort",
            "spec.containers.securityContext.capabilities.add",
            "rules.verbs",
        ];
        let bodies = bodies.iter().map(|path| format!("requestObject.{path}"));
        for path in heads.iter().map(|path| (*path).to_owned()).chain(bodies) {
            assert!(Column::by_name(&sql(&path)).is_some(), "{path}: {}", sql(&path));
        }
    }
}
