//! Fills the body columns of a row from its request and response.

use std::borrow::Cow;

use super::builders::{Columns, StructWriter};
use super::object::{Family, ObjectFields, family_of_kind, kind_in, kind_of_resource, read};
use super::pod::{Container, PodSpec, Volume};
use super::{csr, patch};
use crate::json::{Kind, Raw, Text, text_of};
use crate::model::{Column, ColumnSet, EventFields, ImageName, clean_capability, clean_path};

/// Columns that hold a body, or what is known without reading into it.
const WHOLE: [Column; 5] =
    [Column::RequestObject, Column::ResponseObject, Column::Object, Column::ObjectPartial, Column::PatchType];

/// What AKS writes in place of a body that is too big.
const TOO_BIG: &str = "skipped-too-big-size-object";

/// Whether the text stands in for a body that was left out.
pub(super) fn left_out(body: Option<Raw<'_>>) -> bool {
    body.and_then(|body| body.text()).is_some_and(|text| text.is(TOO_BIG))
}

/// Header fields that the reading of bodies depends on.
pub(super) struct Request<'a> {
    pub verb: &'a str,
    pub api_group: &'a str,
    pub resource: &'a str,
    /// The request is to a subresource other than ephemeral containers, whose body is the pod.
    pub subresource: bool,
}

/// Sets every body column that the event's bodies tell; the others of this row stay null.
pub(super) fn fill(columns: &mut Columns, fields: &EventFields<'_>, request: &Request<'_>) {
    let present = |body: Option<Raw<'_>>| body.is_some_and(|body| body.kind() != Kind::Null) && !left_out(body);
    if present(fields.request_object) {
        put_json(columns, Column::RequestObject, fields.request_object);
    }
    if present(fields.response_object) {
        put_json(columns, Column::ResponseObject, fields.response_object);
    }
    if request.verb == "patch" {
        put_patch_type(columns, fields.request_object);
    }
    // A body that does not name its kind, as forwarders and fragments leave it, is of the resource's, unless it is sent to
    // a subresource.
    let fallback = if request.subresource { None } else { kind_of_resource(request.api_group, request.resource) };
    if let Some((object, family)) = answered(fields, fallback) {
        put_object(columns, object, family, request, false);
        return;
    }
    let Some(body) = fields.request_object else { return };
    if request.verb == "patch" && body.kind() == Kind::Array {
        if let Some(fragment) = patch::fragment(body.bytes())
            && let Ok(object) = crate::json::Cursor::new(&fragment).raw()
            && let Some((object, family)) = typed(object, fallback)
        {
            put_object(columns, object, family, request, true);
        }
        return;
    }
    let partial = request.verb == "patch";
    if let Some((object, family)) = typed(body, fallback) {
        put_object(columns, object, family, request, partial);
    }
}

/// The columns that [`fill`] may set; all others stay null. Looks at no more than what the bodies are.
pub(super) fn fillable(fields: &EventFields<'_>, request: &Request<'_>) -> ColumnSet {
    let mut columns = ColumnSet::EMPTY;
    if fields.request_object.is_some() {
        columns.insert(Column::RequestObject);
    }
    if fields.response_object.is_some() {
        columns.insert(Column::ResponseObject);
    }
    if request.verb == "patch" {
        columns.insert(Column::PatchType);
    }
    let fallback = if request.subresource { None } else { kind_of_resource(request.api_group, request.resource) };
    let family = match answered(fields, fallback) {
        Some((_, family)) => Some(family),
        None => match fields.request_object {
            // A list of operations can put anything anywhere.
            Some(body) if request.verb == "patch" && body.kind() == Kind::Array => return ColumnSet::bodies(),
            Some(body) => typed(body, fallback).map(|(_, family)| family),
            None => None,
        },
    };
    family.map_or(columns, |family| columns.union(columns_of(family)))
}

/// The columns that objects of a family can fill.
fn columns_of(family: Family) -> ColumnSet {
    use Column::{
        AutomountToken, BackendServices, CapabilitiesAdded, Commands, Containers, CsrConditions, CsrSigner, CsrSubject,
        CsrUsages, DataKeys, ExternalIps, FailurePolicy, HostIpc, HostNetwork, HostPaths, HostPid, HostPorts, Images,
        IngressHosts, IngressTls, Labels, LoadBalancerSourceRanges, NodeName, Object, ObjectAnnotations, ObjectKind,
        ObjectPartial, OwnerKind, OwnerName, PriorityClass, Privileged, RoleRefKind, RoleRefName, Rules, RuntimeClass,
        SecretType, ServiceAccountName, ServicePorts, ServiceSelector, ServiceType, ShareProcesses, SubjectNames,
        Subjects, TokenAudiences, TokenSeconds, Volumes, WebhookUrls,
    };
    let own: &[Column] = match family {
        Family::Pod | Family::PodTemplate | Family::CronJob | Family::PodTemplateObject => &[
            HostNetwork,
            HostPid,
            HostIpc,
            ShareProcesses,
            AutomountToken,
            ServiceAccountName,
            NodeName,
            PriorityClass,
            RuntimeClass,
            HostPaths,
            Volumes,
            Privileged,
            Images,
            Commands,
            CapabilitiesAdded,
            HostPorts,
            Containers,
        ],
        Family::PersistentVolume => &[HostPaths],
        Family::Service => &[ServiceType, ServicePorts, ServiceSelector, ExternalIps, LoadBalancerSourceRanges],
        Family::Ingress => &[IngressHosts, IngressTls, BackendServices],
        Family::Role => &[Rules],
        Family::Binding => &[RoleRefKind, RoleRefName, Subjects, SubjectNames],
        Family::Webhook => &[WebhookUrls, FailurePolicy],
        Family::Csr => &[CsrSigner, CsrUsages, CsrConditions, CsrSubject],
        Family::TokenRequest => &[TokenAudiences, TokenSeconds],
        Family::Data => &[SecretType, DataKeys],
        Family::ServiceAccount => &[AutomountToken],
        Family::Answer | Family::Other => &[],
    };
    let common = [Object, ObjectPartial, ObjectKind, Labels, ObjectAnnotations, OwnerKind, OwnerName];
    own.iter().copied().chain(common).collect()
}

/// An object with its family; none for answers that are no object of their own.
fn typed<'a>(body: Raw<'a>, fallback_kind: Option<&str>) -> Option<(Raw<'a>, Family)> {
    if body.kind() != Kind::Object {
        return None;
    }
    let family = match kind_in(body) {
        Some(kind) => family_of_kind(&kind.decode()),
        None => fallback_kind.map_or(Family::Other, family_of_kind),
    };
    (family != Family::Answer).then_some((body, family))
}

/// The object that was answered, with its family.
fn answered<'a>(fields: &EventFields<'a>, fallback_kind: Option<&str>) -> Option<(Raw<'a>, Family)> {
    let body = fields.response_object?;
    if body.kind() != Kind::Object {
        return None;
    }
    let family = match kind_in(body) {
        Some(kind) => family_of_kind(&kind.decode()),
        None if is_nameless_object(body) => fallback_kind.map_or(Family::Other, family_of_kind),
        None => return None,
    };
    (family != Family::Answer).then_some((body, family))
}

/// Whether an answer that names no kind can be the object: it has parts of one, and is no list and no failure's status.
fn is_nameless_object(body: Raw<'_>) -> bool {
    let (mut parts, mut other) = (false, false);
    let _shape: Result<bool, crate::json::JsonError> = body.cursor().object(|cursor, key| {
        let value = cursor.raw()?;
        parts = true;
        other |= key.is("items") || (key.is("status") && value.kind() == Kind::String);
        Ok(())
    });
    parts && !other
}

fn put_json(columns: &mut Columns, column: Column, body: Option<Raw<'_>>) {
    if let (true, Some(body)) = (columns.wants(column), body) {
        columns.put_str(column, &text_of(body.bytes()));
    }
}

fn put_patch_type(columns: &mut Columns, body: Option<Raw<'_>>) {
    let kind = match body {
        Some(body) if body.kind() == Kind::Array => "json",
        // A server-side apply sends an object that names itself.
        Some(body) if body.kind() == Kind::Object && kind_in(body).is_some() => "apply",
        Some(body) if body.kind() == Kind::Object => "merge",
        _ => return,
    };
    let key = columns.str_key(Column::PatchType, kind);
    columns.put_key(Column::PatchType, key);
}

fn put_object(columns: &mut Columns, object: Raw<'_>, family: Family, request: &Request<'_>, partial: bool) {
    put_json(columns, Column::Object, Some(object));
    columns.put_bool(Column::ObjectPartial, partial);
    let whole = WHOLE.into_iter().collect();
    if columns.wanted.intersection(ColumnSet::bodies()).without(whole).is_empty() {
        return;
    }
    let fields = read(object, family);
    let kind = fields.kind.or(kind_of_resource(request.api_group, request.resource).map(Text::plain));
    columns.put_text(Column::ObjectKind, kind);
    put_json(columns, Column::Labels, fields.labels);
    put_json(columns, Column::ObjectAnnotations, fields.annotations);
    if let Some((kind, name)) = fields.owner {
        columns.put_text(Column::OwnerKind, Some(kind));
        columns.put_text(Column::OwnerName, Some(name));
    }
    match family {
        Family::Pod | Family::PodTemplate | Family::CronJob | Family::PodTemplateObject => {
            put_pod(columns, fields.pod.as_ref().unwrap_or(&PodSpec::default()), partial);
        }
        Family::PersistentVolume if !partial || !fields.volume_paths.is_empty() => {
            columns.put_texts(Column::HostPaths, fields.volume_paths.iter().map(|path| clean_path(&path.decode())));
        }
        Family::Binding => put_binding(columns, &fields, partial),
        Family::Role => put_rules(columns, &fields, partial),
        Family::Service | Family::Ingress => put_network(columns, &fields, family, partial),
        _ => put_others(columns, &fields, family),
    }
}

/// A list: as the text has it; absent from a whole object it is empty, absent from a fragment it is unknown.
fn put_list<'a>(columns: &mut Columns, column: Column, list: Option<&[Text<'a>]>, partial: bool) {
    match list {
        Some(items) => columns.put_texts(column, items.iter().map(Text::decode)),
        None if !partial => columns.put_texts(column, std::iter::empty::<&str>()),
        None => {}
    }
}

/// A flag: as the text has it; absent from a whole object it is false, absent from a fragment it is unknown.
fn put_flag(columns: &mut Columns, column: Column, flag: Option<bool>, partial: bool) {
    if let Some(flag) = flag.or(if partial { None } else { Some(false) }) {
        columns.put_bool(column, flag);
    }
}

fn put_pod(columns: &mut Columns, pod: &PodSpec<'_>, partial: bool) {
    put_flag(columns, Column::HostNetwork, pod.host_network, partial);
    put_flag(columns, Column::HostPid, pod.host_pid, partial);
    put_flag(columns, Column::HostIpc, pod.host_ipc, partial);
    put_flag(columns, Column::ShareProcesses, pod.share_processes, partial);
    if let Some(automount) = pod.automount_token {
        columns.put_bool(Column::AutomountToken, automount);
    }
    columns.put_text(Column::ServiceAccountName, pod.service_account);
    columns.put_text(Column::NodeName, pod.node_name);
    columns.put_text(Column::PriorityClass, pod.priority_class);
    columns.put_text(Column::RuntimeClass, pod.runtime_class);
    if pod.volumes.is_some() || !partial {
        let volumes = pod.volumes.as_deref().unwrap_or_default();
        let paths = volumes.iter().filter_map(|volume| volume.host_path);
        columns.put_texts(Column::HostPaths, paths.map(|path| clean_path(&path.decode())));
        columns.put_structs(Column::Volumes, volumes, write_volume);
    }
    if pod.containers.is_some() || !partial {
        put_containers(columns, pod.containers.as_deref().unwrap_or_default(), partial);
    }
}

fn put_containers(columns: &mut Columns, containers: &[Container<'_>], partial: bool) {
    let privileged = containers.iter().any(|container| container.privileged == Some(true));
    let told = containers.iter().any(|container| container.privileged.is_some());
    put_flag(columns, Column::Privileged, if privileged || told { Some(privileged) } else { None }, partial);
    let images = containers.iter().filter_map(|container| container.image);
    columns.put_texts(Column::Images, images.map(|image| image.decode()));
    if columns.wants(Column::Commands) {
        columns.put_texts(Column::Commands, containers.iter().flat_map(commands));
    }
    let capabilities = containers.iter().flat_map(|container| &container.capabilities_added);
    columns.put_texts(Column::CapabilitiesAdded, capabilities.map(|name| clean_capability(&name.decode())));
    columns.put_ints(Column::HostPorts, containers.iter().flat_map(|container| container.host_ports.iter().copied()));
    columns.put_structs(Column::Containers, containers, write_container);
}

/// The command lines that a container can run.
fn commands(container: &Container<'_>) -> Vec<String> {
    let join = |words: &[Text<'_>]| words.iter().map(Text::decode).collect::<Vec<_>>().join(" ");
    let main: Vec<Text<'_>> = container.command.iter().chain(&container.args).copied().collect();
    let main = (!main.is_empty()).then(|| join(&main));
    main.into_iter().chain(container.hooks.iter().map(|words| join(words))).collect()
}

/// Field order is that of `Kind::Containers`.
fn write_container(writer: &mut StructWriter<'_>, container: &Container<'_>) {
    let decode = |text: Option<Text<'_>>| text.map(|text| text.decode().into_owned());
    let image = container.image.map(|image| image.decode().into_owned());
    let parts = image.as_deref().and_then(ImageName::parse);
    writer.text(decode(container.name));
    writer.text(Some(container.kind));
    writer.text(image);
    writer.text(parts.as_ref().map(|parts| &parts.registry));
    writer.text(parts.as_ref().map(|parts| &parts.repository));
    writer.text(parts.as_ref().and_then(|parts| parts.tag.as_ref()));
    writer.text(parts.as_ref().and_then(|parts| parts.digest.as_ref()));
    writer.texts(container.command.iter().map(Text::decode));
    writer.texts(container.args.iter().map(Text::decode));
    writer.boolean(container.privileged);
    writer.boolean(container.allow_privilege_escalation);
    writer.integer(container.run_as_user);
    writer.boolean(container.run_as_non_root);
    writer.boolean(container.read_only_root);
    writer.texts(container.capabilities_added.iter().map(|name| clean_capability(&name.decode())));
    writer.texts(container.capabilities_dropped.iter().map(|name| clean_capability(&name.decode())));
    writer.text(decode(container.seccomp));
    writer.text(decode(container.apparmor));
    writer.text(decode(container.proc_mount));
    writer.texts(container.env_secret_refs.iter().map(Text::decode));
    writer.ints(container.host_ports.iter().copied());
    writer.text(decode(container.cpu_limit));
    writer.text(decode(container.memory_limit));
}

/// Field order is that of `Kind::Volumes`.
fn write_volume(writer: &mut StructWriter<'_>, volume: &Volume<'_>) {
    let decode = |text: Option<Text<'_>>| text.map(|text| text.decode().into_owned());
    writer.text(decode(volume.name));
    writer.text(decode(volume.kind));
    writer.text(volume.host_path.map(|path| clean_path(&path.decode())));
    writer.text(decode(volume.source));
    writer.boolean(volume.read_only);
}

fn put_binding(columns: &mut Columns, fields: &ObjectFields<'_>, partial: bool) {
    columns.put_text(Column::RoleRefKind, fields.role_ref_kind);
    columns.put_text(Column::RoleRefName, fields.role_ref_name);
    if fields.subjects.is_none() && partial {
        return;
    }
    let subjects = fields.subjects.as_deref().unwrap_or_default();
    let decode = |text: Option<Text<'_>>| text.map(|text| text.decode().into_owned());
    columns.put_structs(Column::Subjects, subjects, |writer, subject| {
        writer.text(decode(subject.kind));
        writer.text(decode(subject.name));
        writer.text(decode(subject.namespace));
    });
    let name = |subject: &super::object::Subject<'_>| -> Option<String> {
        let name = subject.name?.decode().into_owned();
        let is_account = subject.kind.is_some_and(|kind| kind.is("ServiceAccount"));
        let namespace = decode(subject.namespace).unwrap_or_default();
        Some(if is_account { format!("system:serviceaccount:{namespace}:{name}") } else { name })
    };
    columns.put_texts(Column::SubjectNames, subjects.iter().filter_map(name));
}

/// Field order is that of `Kind::Rules`.
fn put_rules(columns: &mut Columns, fields: &ObjectFields<'_>, partial: bool) {
    if fields.rules.is_none() && partial {
        return;
    }
    columns.put_structs(Column::Rules, fields.rules.as_deref().unwrap_or_default(), |writer, rule| {
        writer.texts(rule.verbs.iter().map(Text::decode));
        writer.texts(rule.api_groups.iter().map(Text::decode));
        writer.texts(rule.resources.iter().map(Text::decode));
        writer.texts(rule.resource_names.iter().map(Text::decode));
        writer.texts(rule.non_resource_urls.iter().map(Text::decode));
    });
}

fn put_network(columns: &mut Columns, fields: &ObjectFields<'_>, family: Family, partial: bool) {
    if family == Family::Service {
        let default = if partial { None } else { Some(Text::plain("ClusterIP")) };
        columns.put_text(Column::ServiceType, fields.service_type.or(default));
        if fields.service_ports.is_some() || !partial {
            columns.put_ints(Column::ServicePorts, fields.service_ports.iter().flatten().copied());
        }
        put_json(columns, Column::ServiceSelector, fields.service_selector);
        put_list(columns, Column::ExternalIps, fields.external_ips.as_deref(), partial);
        put_list(columns, Column::LoadBalancerSourceRanges, fields.source_ranges.as_deref(), partial);
    } else {
        put_list(columns, Column::IngressHosts, fields.ingress_hosts.as_deref(), partial);
        put_flag(columns, Column::IngressTls, fields.ingress_tls, partial);
        let backends = (!partial || !fields.backend_services.is_empty()).then_some(fields.backend_services.as_slice());
        put_list(columns, Column::BackendServices, backends, partial);
    }
}

fn put_others(columns: &mut Columns, fields: &ObjectFields<'_>, family: Family) {
    match family {
        Family::Webhook => {
            columns.put_texts(Column::WebhookUrls, &fields.webhook_urls);
            columns.put_text(Column::FailurePolicy, fields.failure_policy);
        }
        Family::Csr => {
            columns.put_text(Column::CsrSigner, fields.csr_signer);
            put_list(columns, Column::CsrUsages, fields.csr_usages.as_deref(), false);
            put_list(columns, Column::CsrConditions, fields.csr_conditions.as_deref(), false);
            if columns.wants(Column::CsrSubject)
                && let Some(subject) = fields.csr_request.and_then(|request| csr::subject(&request.decode()))
            {
                columns.put_str(Column::CsrSubject, &subject);
            }
        }
        Family::TokenRequest => {
            put_list(columns, Column::TokenAudiences, fields.token_audiences.as_deref(), false);
            if let Some(seconds) = fields.token_seconds {
                columns.put_int(Column::TokenSeconds, seconds);
            }
        }
        Family::Data => {
            columns.put_text(Column::SecretType, fields.secret_type);
            put_list(columns, Column::DataKeys, fields.data_keys.as_deref(), false);
        }
        Family::ServiceAccount => {
            if let Some(automount) = fields.automount_token {
                columns.put_bool(Column::AutomountToken, automount);
            }
        }
        _ => {}
    }
}

/// `metadata.name` of the response, else of the request: the name that `generateName` led to.
pub(super) fn generated_name<'a>(fields: &EventFields<'a>) -> Option<Cow<'a, str>> {
    [fields.response_object, fields.request_object].into_iter().flatten().find_map(|body| {
        let mut name = None;
        let mut answer = false;
        // Ends as soon as the name is found: `JsonError::Cut` stands for "enough".
        let _found: Result<bool, crate::json::JsonError> = body.cursor().object(|cursor, key| {
            match key.raw() {
                b"kind" => answer = cursor.text()?.is_some_and(|kind| kind.is("Status")),
                b"metadata" => {
                    super::object::field(cursor, b"name", |text| name = Some(text.decode()))?;
                    return Err(crate::json::JsonError::Cut);
                }
                _ => {}
            }
            Ok(())
        });
        name.filter(|name| !answer && !name.is_empty())
    })
}
