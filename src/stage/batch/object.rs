//! Reads the typed fields out of one Kubernetes object, whole or a fragment, in one pass over its text.
//!
//! An object is typed by its own `kind`; a fragment without one by the resource that the request named. Any JSON shape
//! may stand anywhere (a list may be null, a map may be a string): what is not of the expected shape is stepped over.

use super::pod::{PodSpec, pod_spec};
use crate::json::{Cursor, JsonError, Raw, Text};

/// Result of reading a part; a broken text ends the reading, and what was read so far stands.
pub(super) type Read = Result<(), JsonError>;

/// A list that is absent unless the text has it.
pub(super) type List<T> = Option<Vec<T>>;

#[derive(Debug, Default)]
pub(super) struct Subject<'a> {
    pub kind: Option<Text<'a>>,
    pub name: Option<Text<'a>>,
    pub namespace: Option<Text<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Rule<'a> {
    pub verbs: Vec<Text<'a>>,
    pub api_groups: Vec<Text<'a>>,
    pub resources: Vec<Text<'a>>,
    pub resource_names: Vec<Text<'a>>,
    pub non_resource_urls: Vec<Text<'a>>,
}

/// What the typed columns need from an object.
#[derive(Debug, Default)]
pub(super) struct ObjectFields<'a> {
    pub kind: Option<Text<'a>>,
    pub name: Option<Text<'a>>,
    pub labels: Option<Raw<'a>>,
    pub annotations: Option<Raw<'a>>,
    pub owner: Option<(Text<'a>, Text<'a>)>,
    pub pod: Option<PodSpec<'a>>,
    /// Paths of a persistent volume.
    pub volume_paths: Vec<Text<'a>>,
    pub role_ref_kind: Option<Text<'a>>,
    pub role_ref_name: Option<Text<'a>>,
    pub subjects: List<Subject<'a>>,
    pub rules: List<Rule<'a>>,
    pub service_type: Option<Text<'a>>,
    pub service_ports: List<i32>,
    pub service_selector: Option<Raw<'a>>,
    pub external_ips: List<Text<'a>>,
    pub source_ranges: List<Text<'a>>,
    pub ingress_hosts: List<Text<'a>>,
    pub ingress_tls: Option<bool>,
    pub backend_services: Vec<Text<'a>>,
    pub webhook_urls: Vec<String>,
    pub failure_policy: Option<Text<'a>>,
    pub csr_request: Option<Text<'a>>,
    pub csr_signer: Option<Text<'a>>,
    pub csr_usages: List<Text<'a>>,
    pub csr_conditions: List<Text<'a>>,
    pub token_audiences: List<Text<'a>>,
    pub token_seconds: Option<i64>,
    pub secret_type: Option<Text<'a>>,
    pub data_keys: List<Text<'a>>,
    pub automount_token: Option<bool>,
}

/// Which columns an object of a kind can fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Pod,
    PodTemplate,
    CronJob,
    /// `template` stands at the top level.
    PodTemplateObject,
    PersistentVolume,
    Service,
    Ingress,
    Role,
    Binding,
    Webhook,
    Csr,
    TokenRequest,
    Data,
    ServiceAccount,
    /// A list, a `Status` or another answer that is no object of its own.
    Answer,
    Other,
}

/// The family of a kind.
pub(super) fn family_of_kind(kind: &str) -> Family {
    match kind {
        "Pod" => Family::Pod,
        "Deployment"
        | "DaemonSet"
        | "StatefulSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job"
        | "DeploymentConfig" => Family::PodTemplate,
        "CronJob" => Family::CronJob,
        "PodTemplate" => Family::PodTemplateObject,
        "PersistentVolume" => Family::PersistentVolume,
        "Service" => Family::Service,
        "Ingress" | "Route" => Family::Ingress,
        "Role" | "ClusterRole" => Family::Role,
        "RoleBinding" | "ClusterRoleBinding" => Family::Binding,
        "MutatingWebhookConfiguration"
        | "ValidatingWebhookConfiguration"
        | "ValidatingAdmissionPolicy"
        | "MutatingAdmissionPolicy" => Family::Webhook,
        "CertificateSigningRequest" => Family::Csr,
        "TokenRequest" => Family::TokenRequest,
        "Secret" | "ConfigMap" => Family::Data,
        "ServiceAccount" => Family::ServiceAccount,
        "Status" | "Scale" | "Eviction" | "Binding" | "DeleteOptions" | "Table" | "PartialObjectMetadata" => {
            Family::Answer
        }
        list if list.ends_with("List") => Family::Answer,
        _ => Family::Other,
    }
}

/// The kind that a fragment for this resource is of, where it does not say.
pub(super) fn kind_of_resource(api_group: &str, resource: &str) -> Option<&'static str> {
    Some(match (api_group, resource) {
        ("", "pods") => "Pod",
        ("apps" | "extensions", "deployments") => "Deployment",
        ("apps" | "extensions", "daemonsets") => "DaemonSet",
        ("apps", "statefulsets") => "StatefulSet",
        ("apps" | "extensions", "replicasets") => "ReplicaSet",
        ("", "replicationcontrollers") => "ReplicationController",
        ("", "podtemplates") => "PodTemplate",
        ("batch", "jobs") => "Job",
        ("batch", "cronjobs") => "CronJob",
        ("", "persistentvolumes") => "PersistentVolume",
        ("", "services") => "Service",
        ("networking.k8s.io" | "extensions", "ingresses") => "Ingress",
        ("rbac.authorization.k8s.io", "roles") => "Role",
        ("rbac.authorization.k8s.io", "clusterroles") => "ClusterRole",
        ("rbac.authorization.k8s.io", "rolebindings") => "RoleBinding",
        ("rbac.authorization.k8s.io", "clusterrolebindings") => "ClusterRoleBinding",
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => "MutatingWebhookConfiguration",
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations") => "ValidatingWebhookConfiguration",
        ("certificates.k8s.io", "certificatesigningrequests") => "CertificateSigningRequest",
        ("", "secrets") => "Secret",
        ("", "configmaps") => "ConfigMap",
        ("", "serviceaccounts") => "ServiceAccount",
        ("", "namespaces") => "Namespace",
        ("", "nodes") => "Node",
        _ => return None,
    })
}

/// The object's own `kind`.
pub(super) fn kind_in<'a>(object: Raw<'a>) -> Option<Text<'a>> {
    // A walk ends as soon as the kind is found: `JsonError::Cut` stands for "enough".
    let mut kind = None;
    let _found: Result<bool, JsonError> = object.cursor().object(|cursor, key| {
        if key.raw() == b"kind" {
            kind = cursor.text()?;
            return Err(JsonError::Cut);
        }
        Ok(())
    });
    kind
}

/// Reads an object of a family.
pub(super) fn read<'a>(object: Raw<'a>, family: Family) -> ObjectFields<'a> {
    let mut out = ObjectFields::default();
    let _read = object.cursor().object(|cursor, key| top(&mut out, family, cursor, key));
    out
}

fn top<'a>(out: &mut ObjectFields<'a>, family: Family, cursor: &mut Cursor<'a>, key: Text<'a>) -> Read {
    match (key.raw(), family) {
        (b"kind", _) => out.kind = cursor.text()?,
        (b"metadata", _) => metadata(out, cursor)?,
        (b"spec", _) => spec(out, family, cursor)?,
        (b"template", Family::PodTemplateObject) => template(out, cursor)?,
        (b"roleRef", Family::Binding) => {
            cursor.object(|cursor, key| {
                match key.raw() {
                    b"kind" => out.role_ref_kind = cursor.text()?,
                    b"name" => out.role_ref_name = cursor.text()?,
                    _ => {}
                }
                Ok::<_, JsonError>(())
            })?;
        }
        (b"subjects", Family::Binding) => out.subjects = Some(items(cursor, subject)?),
        (b"rules", Family::Role) => out.rules = Some(items(cursor, rule)?),
        (b"webhooks", Family::Webhook) => {
            cursor.array(|cursor| webhook(out, cursor))?;
        }
        (b"status", Family::Csr) => {
            cursor.object(|cursor, key| {
                if key.raw() == b"conditions" {
                    let mut kinds = Vec::new();
                    cursor.array(|cursor| field(cursor, b"type", |kind| kinds.push(kind)))?;
                    out.csr_conditions = Some(kinds);
                }
                Ok::<_, JsonError>(())
            })?;
        }
        (b"type", Family::Data) => out.secret_type = cursor.text()?,
        (b"data" | b"stringData" | b"binaryData", Family::Data) => {
            let keys = out.data_keys.get_or_insert_default();
            cursor.object(|_, key| {
                keys.push(key);
                Ok::<_, JsonError>(())
            })?;
        }
        (b"automountServiceAccountToken", Family::ServiceAccount) => out.automount_token = cursor.boolean()?,
        _ => {}
    }
    Ok(())
}

fn metadata<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>) -> Read {
    cursor.object(|cursor, key| {
        match key.raw() {
            b"name" => out.name = cursor.text()?,
            b"labels" => out.labels = Some(cursor.raw()?),
            b"annotations" => out.annotations = Some(cursor.raw()?),
            b"ownerReferences" => {
                cursor.array(|cursor| owner(out, cursor))?;
            }
            _ => {}
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(())
}

/// Keeps the controlling owner.
fn owner<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>) -> Read {
    let (mut kind, mut name, mut controller) = (None, None, false);
    cursor.object(|cursor, key| {
        match key.raw() {
            b"kind" => kind = cursor.text()?,
            b"name" => name = cursor.text()?,
            b"controller" => controller = cursor.boolean()? == Some(true),
            _ => {}
        }
        Ok::<_, JsonError>(())
    })?;
    if let (Some(kind), Some(name), true) = (kind, name, controller) {
        out.owner = Some((kind, name));
    }
    Ok(())
}

fn spec<'a>(out: &mut ObjectFields<'a>, family: Family, cursor: &mut Cursor<'a>) -> Read {
    match family {
        Family::Pod => pod_spec(out.pod.get_or_insert_default(), cursor),
        Family::PodTemplate => child(cursor, b"template", |cursor| template(out, cursor)),
        Family::CronJob => child(cursor, b"jobTemplate", |cursor| {
            child(cursor, b"spec", |cursor| child(cursor, b"template", |cursor| template(out, cursor)))
        }),
        Family::PersistentVolume => object(cursor, |cursor, key| match key {
            b"hostPath" | b"local" => field(cursor, b"path", |path| out.volume_paths.push(path)),
            _ => Ok(()),
        }),
        Family::Service => object(cursor, |cursor, key| service(out, cursor, key)),
        Family::Ingress => object(cursor, |cursor, key| ingress(out, cursor, key)),
        Family::Webhook => field(cursor, b"failurePolicy", |policy| weaken(&mut out.failure_policy, policy)),
        Family::Csr => object(cursor, |cursor, key| {
            match key {
                b"request" => out.csr_request = cursor.text()?,
                b"signerName" => out.csr_signer = cursor.text()?,
                b"usages" => out.csr_usages = Some(texts(cursor)?),
                _ => {}
            }
            Ok(())
        }),
        Family::TokenRequest => object(cursor, |cursor, key| {
            match key {
                b"audiences" => out.token_audiences = Some(texts(cursor)?),
                b"expirationSeconds" => out.token_seconds = cursor.integer()?,
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

fn template<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>) -> Read {
    child(cursor, b"spec", |cursor| pod_spec(out.pod.get_or_insert_default(), cursor))
}

fn service<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>, key: &[u8]) -> Read {
    match key {
        b"type" => out.service_type = cursor.text()?,
        b"selector" => out.service_selector = Some(cursor.raw()?),
        b"externalIPs" => out.external_ips = Some(texts(cursor)?),
        b"loadBalancerSourceRanges" => out.source_ranges = Some(texts(cursor)?),
        b"ports" => {
            let ports = out.service_ports.get_or_insert_default();
            cursor.array(|cursor| {
                object(cursor, |cursor, key| {
                    if matches!(key, b"port" | b"targetPort")
                        && let Some(port) = cursor.integer()?.and_then(|port| i32::try_from(port).ok())
                        && !ports.contains(&port)
                    {
                        ports.push(port);
                    }
                    Ok(())
                })
            })?;
        }
        _ => {}
    }
    Ok(())
}

fn ingress<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>, key: &[u8]) -> Read {
    match key {
        b"rules" => {
            cursor.array(|cursor| {
                object(cursor, |cursor, key| {
                    match key {
                        b"host" => out.ingress_hosts.get_or_insert_default().extend(cursor.text()?),
                        b"http" => child(cursor, b"paths", |cursor| {
                            cursor.array(|cursor| child(cursor, b"backend", |cursor| backend(out, cursor)))?;
                            Ok(())
                        })?,
                        _ => {}
                    }
                    Ok(())
                })
            })?;
        }
        b"defaultBackend" | b"backend" => backend(out, cursor)?,
        b"tls" => {
            let mut some = false;
            let is_list = cursor.array(|_| {
                some = true;
                Ok::<_, JsonError>(())
            })?;
            out.ingress_tls = Some(some || !is_list);
        }
        // OpenShift's Route: one host, one service.
        b"host" => out.ingress_hosts.get_or_insert_default().extend(cursor.text()?),
        b"to" => field(cursor, b"name", |name| out.backend_services.push(name))?,
        _ => {}
    }
    Ok(())
}

/// `backend: {service: {name}}`, or `{serviceName}` before networking.k8s.io/v1.
fn backend<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>) -> Read {
    object(cursor, |cursor, key| match key {
        b"service" => field(cursor, b"name", |name| out.backend_services.push(name)),
        b"serviceName" => {
            out.backend_services.extend(cursor.text()?);
            Ok(())
        }
        _ => Ok(()),
    })
}

fn subject<'a>(cursor: &mut Cursor<'a>) -> Result<Subject<'a>, JsonError> {
    let mut subject = Subject::default();
    object(cursor, |cursor, key| {
        match key {
            b"kind" => subject.kind = cursor.text()?,
            b"name" => subject.name = cursor.text()?,
            b"namespace" => subject.namespace = cursor.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(subject)
}

fn rule<'a>(cursor: &mut Cursor<'a>) -> Result<Rule<'a>, JsonError> {
    let mut rule = Rule::default();
    object(cursor, |cursor, key| {
        match key {
            b"verbs" => rule.verbs = texts(cursor)?,
            b"apiGroups" => rule.api_groups = texts(cursor)?,
            b"resources" => rule.resources = texts(cursor)?,
            b"resourceNames" => rule.resource_names = texts(cursor)?,
            b"nonResourceURLs" => rule.non_resource_urls = texts(cursor)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(rule)
}

fn webhook<'a>(out: &mut ObjectFields<'a>, cursor: &mut Cursor<'a>) -> Read {
    object(cursor, |cursor, key| match key {
        b"failurePolicy" => {
            if let Some(policy) = cursor.text()? {
                weaken(&mut out.failure_policy, policy);
            }
            Ok(())
        }
        b"clientConfig" => object(cursor, |cursor, key| {
            match key {
                b"url" => out.webhook_urls.extend(cursor.text()?.map(|url| url.decode().into_owned())),
                b"service" => {
                    let (mut namespace, mut name) = (None, None);
                    object(cursor, |cursor, key| {
                        match key {
                            b"namespace" => namespace = cursor.text()?,
                            b"name" => name = cursor.text()?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    let part = |text: Option<Text<'a>>| text.map(|text| text.decode().into_owned()).unwrap_or_default();
                    out.webhook_urls.push(format!("service:{}/{}", part(namespace), part(name)));
                }
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })
}

/// Keeps the weakest policy: `Ignore` wins over `Fail`.
fn weaken<'a>(kept: &mut Option<Text<'a>>, policy: Text<'a>) {
    if kept.is_none() || policy.is("Ignore") {
        *kept = Some(policy);
    }
}

/// Calls back with the key's raw text for each member; steps over anything but an object.
pub(super) fn object<'a>(cursor: &mut Cursor<'a>, mut each: impl FnMut(&mut Cursor<'a>, &[u8]) -> Read) -> Read {
    cursor.object(|cursor, key| each(cursor, key.raw()))?;
    Ok(())
}

/// Descends into one member.
pub(super) fn child<'a>(cursor: &mut Cursor<'a>, name: &[u8], mut each: impl FnMut(&mut Cursor<'a>) -> Read) -> Read {
    object(cursor, |cursor, key| if key == name { each(cursor) } else { Ok(()) })
}

/// Reads one text member.
pub(super) fn field<'a>(cursor: &mut Cursor<'a>, name: &[u8], mut each: impl FnMut(Text<'a>)) -> Read {
    child(cursor, name, |cursor| {
        if let Some(text) = cursor.text()? {
            each(text);
        }
        Ok(())
    })
}

/// The strings of a list.
pub(super) fn texts<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Text<'a>>, JsonError> {
    let mut items = Vec::new();
    cursor.array(|cursor| {
        items.extend(cursor.text()?);
        Ok::<_, JsonError>(())
    })?;
    Ok(items)
}

/// The objects of a list.
pub(super) fn items<'a, T>(
    cursor: &mut Cursor<'a>,
    mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, JsonError>,
) -> Result<Vec<T>, JsonError> {
    let mut items = Vec::new();
    cursor.array(|cursor| {
        // Filled-in gaps of a JSON patch are null.
        if cursor.kind()? == crate::json::Kind::Object {
            items.push(item(cursor)?);
        }
        Ok::<_, JsonError>(())
    })?;
    Ok(items)
}
