//! Makes an [`Alert`] of what is to be told about a finding: the events become OCSF, redacted and bounded.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::clean::{self, Cleaner};
use super::identity::{self, FindingId};
use super::ocsf;
use super::redact::{self, Redacted};
use super::row::Event;
use super::spec::AlertSpec;
use super::summary;
use super::suppression::Related;
use crate::detection::ATTACK_VERSION;
use crate::model::{AUDIT_SCHEMA_VERSION, Activity, Alert, Severity};

/// Distinct resources and observables in one alert.
const RESOURCES_MAX: usize = 20;
const OBSERVABLES_MAX: usize = 40;
/// Groups of a user that are listed.
const GROUPS_MAX: usize = 64;

/// One emission about one finding.
#[derive(Debug)]
pub struct Emission<'a> {
    pub spec: &'a AlertSpec,
    pub finding: FindingId,
    pub activity: Activity,
    /// It is told at low severity, as somebody's habit.
    pub habitual: bool,
    /// Events in the finding so far.
    pub count: u64,
    /// Event time of the event that opened the finding, of its oldest and of its newest event.
    pub created_us: i64,
    pub first_us: i64,
    pub last_us: i64,
    /// The events that this emission adds.
    pub related: &'a [Related],
    /// Those of them that are shown, the newest first.
    pub events: &'a [Event],
}

impl Emission<'_> {
    fn severity(&self) -> Severity {
        if self.habitual { self.spec.severity.min(Severity::Low) } else { self.spec.severity }
    }
}

/// The alert; `evidence_bytes_max` bounds each raw event.
pub fn render(emission: &Emission<'_>, evidence_bytes_max: usize) -> Option<Alert> {
    let newest = emission.events.first()?;
    let redacted: Vec<Redacted> =
        emission.events.iter().map(|event| redact::event(&event.text, event.is_about_secrets())).collect();
    let spec = emission.spec;
    let cleaner = Cleaner::new(newest, redacted.first()?);
    let fields: Vec<Value> = spec
        .fields
        .iter()
        .zip(&newest.fields)
        .map(|(field, value)| {
            let computed = newest.computed.iter().any(|(name, _)| *name == field.name);
            cleaner.field(field, computed, value)
        })
        .collect();
    let summary = summary::fill(&spec.summary, |name| {
        let field = spec.fields.iter().zip(&fields).find(|(field, _)| &*field.name == name);
        field.map(|(_, value)| summary::show(value))
    });
    let mut unmapped = unmapped(spec, newest, &cleaner, &fields);
    if emission.habitual {
        unmapped.insert("habitual".into(), true.into());
    }
    let shown = Shown::of(emission.events, redacted, evidence_bytes_max);
    let uid = emission.finding.hex();
    let activity = if emission.activity == Activity::Create { "create" } else { "update" };
    let emission_uid = identity::emission(emission.finding, activity, emission.related.iter().map(|one| one.request));
    let finding = finding(emission, &summary, &uid, &emission_uid, shown, unmapped);
    let ocsf = serde_json::to_vec(&finding).expect("keys are text and nothing in it can fail to serialize");
    Some(Alert {
        emission_uid,
        activity: emission.activity,
        detection: Arc::clone(&spec.id),
        severity: emission.severity(),
        title: Arc::clone(&spec.title),
        summary,
        entity: spec
            .entity()
            .iter()
            .zip(&fields)
            .map(|(field, value)| (Arc::clone(&field.name), summary::show(value)))
            .collect(),
        attack: spec.attack.iter().map(|attack| attack.id()).collect(),
        count: emission.count,
        at_us: emission.created_us,
        event_time_us: emission.last_us,
        subject: None,
        arrival_ms: emission.events.iter().filter_map(|event| event.arrival_ms).max(),
        ocsf: ocsf.into(),
        uid,
    })
}

fn finding<'a>(
    emission: &'a Emission<'_>,
    summary: &'a str,
    uid: &'a str,
    emission_uid: &'a str,
    shown: Shown,
    unmapped: Map<String, Value>,
) -> ocsf::DetectionFinding<'a> {
    let spec = emission.spec;
    let (activity_id, activity_name, type_uid, type_name) = ocsf::activity(emission.activity);
    ocsf::DetectionFinding {
        activity_id,
        activity_name,
        category_uid: 2,
        category_name: "Findings",
        class_uid: 2004,
        class_name: "Detection Finding",
        type_uid,
        type_name,
        time: ms(emission.last_us),
        start_time: ms(emission.first_us),
        end_time: ms(emission.last_us),
        severity_id: emission.severity().ocsf_id(),
        severity: ocsf::severity(emission.severity()),
        status_id: 1,
        status: "New",
        is_alert: true,
        count: emission.count,
        message: summary,
        metadata: ocsf::Metadata {
            version: ocsf::OCSF_VERSION,
            uid: emission_uid,
            event_code: &spec.id,
            product: ocsf::Product { name: "Kubetide", vendor_name: "Kubetide", version: env!("CARGO_PKG_VERSION") },
            profiles: if shown.cloud.is_some() { &["cloud"] } else { &[] },
            log_provider: "kube-apiserver",
            log_name: "audit.k8s.io/v1",
        },
        cloud: shown.cloud,
        finding_info: finding_info(emission, uid),
        evidences: shown.evidences,
        resources: shown.resources,
        observables: shown.observables,
        remediation: (!spec.triage.trim().is_empty())
            .then_some(ocsf::Remediation { desc: &spec.triage, references: &spec.references }),
        unmapped,
    }
}

fn finding_info<'a>(emission: &'a Emission<'_>, uid: &'a str) -> ocsf::FindingInfo<'a> {
    let spec = emission.spec;
    let term = |(uid, name): &(Arc<str>, Arc<str>)| ocsf::Term { uid: Arc::clone(uid), name: Arc::clone(name) };
    let (state_id, state) = if spec.experimental { (3, "Experimental") } else { (1, "Active") };
    ocsf::FindingInfo {
        uid,
        title: &spec.title,
        desc: &spec.description,
        types: [&spec.id],
        created_time: ms(emission.created_us),
        first_seen_time: ms(emission.first_us),
        last_seen_time: ms(emission.last_us),
        analytic: ocsf::Analytic { uid: &spec.id, name: &spec.title, type_id: 1, kind: "Rule", state_id, state },
        attacks: spec
            .attack
            .iter()
            .map(|attack| ocsf::Attack {
                version: ATTACK_VERSION,
                tactic: term(&attack.tactic),
                technique: term(&attack.technique),
                sub_technique: attack.sub_technique.as_ref().map(term),
            })
            .collect(),
        related_events: emission
            .related
            .iter()
            .map(|one| ocsf::RelatedEvent { uid: &one.audit_id, created_time: ms(one.event_us) })
            .collect(),
        related_events_count: emission.count,
        data_sources: ["kubernetes.audit"],
    }
}

fn ms(us: i64) -> i64 {
    us.div_euclid(1000)
}

/// The parts of an alert that repeat what its events say.
struct Shown {
    cloud: Option<ocsf::Cloud>,
    evidences: Vec<ocsf::Evidence>,
    resources: Vec<ocsf::Resource>,
    observables: Vec<ocsf::Observable>,
}

impl Shown {
    fn of(events: &[Event], redacted: Vec<Redacted>, evidence_bytes_max: usize) -> Shown {
        let mut shown = Shown { cloud: None, evidences: vec![], resources: vec![], observables: vec![] };
        for (event, redacted) in events.iter().zip(redacted) {
            let cleaner = Cleaner::new(event, &redacted);
            if shown.cloud.is_none() {
                shown.cloud = cloud(event, &cleaner);
            }
            for resource in [cluster(event, &cleaner), target(event, &cleaner)].into_iter().flatten() {
                if shown.resources.len() < RESOURCES_MAX && !shown.resources.contains(&resource) {
                    shown.resources.push(resource);
                }
            }
            let mut evidence = evidence(event, &cleaner);
            shown.observe(&evidence);
            evidence.data = clean::fit(redacted.data, evidence_bytes_max);
            shown.evidences.push(evidence);
        }
        let names: Vec<String> = shown.resources.iter().filter_map(|resource| resource.uid.clone()).collect();
        names.into_iter().for_each(|uid| shown.add("resources[].uid", 10, "Resource UID", Some(uid)));
        shown
    }

    fn observe(&mut self, evidence: &ocsf::Evidence) {
        let user = evidence.actor.as_ref().and_then(|actor| actor.user.as_ref());
        self.add("evidences[].actor.user.name", 4, "User Name", user.and_then(|user| user.name.clone()));
        let user = evidence.user.as_ref();
        self.add("evidences[].user.name", 4, "User Name", user.and_then(|user| user.name.clone()));
        let ip = evidence.src_endpoint.as_ref().map(|endpoint| endpoint.ip.clone());
        self.add("evidences[].src_endpoint.ip", 2, "IP Address", ip);
        let agent = evidence.http_request.as_ref().and_then(|request| request.user_agent.clone());
        self.add("evidences[].http_request.user_agent", 16, "HTTP User-Agent", agent);
    }

    fn add(&mut self, name: &'static str, type_id: u8, kind: &'static str, value: Option<String>) {
        let Some(value) = value else { return };
        let observable = ocsf::Observable { name, type_id, kind, value };
        if self.observables.len() < OBSERVABLES_MAX && !self.observables.contains(&observable) {
            self.observables.push(observable);
        }
    }
}

fn cloud(event: &Event, cleaner: &Cleaner<'_>) -> Option<ocsf::Cloud> {
    let (provider, type_id, kind) = match event.cloud.as_deref()? {
        "aks" => ("Azure", 13, "Azure Subscription"),
        "eks" => ("AWS", 10, "AWS Account"),
        "gke" => ("GCP", 11, "GCP Project"),
        _ => return None,
    };
    let account = event.account.as_deref().map(|uid| ocsf::Account { uid: cleaner.name(uid), type_id, kind });
    Some(ocsf::Cloud { provider, account, region: event.region.as_deref().map(|region| cleaner.name(region)) })
}

fn cluster(event: &Event, cleaner: &Cleaner<'_>) -> Option<ocsf::Resource> {
    let name = |text: &Option<String>| text.as_deref().map(|text| cleaner.name(text));
    let (uid, name) = (name(&event.cluster_id), name(&event.cluster));
    (uid.is_some() || name.is_some()).then_some(ocsf::Resource {
        uid,
        name,
        kind: Some("Kubernetes Cluster".into()),
        namespace: None,
        role_id: 3,
        role: "Affected",
    })
}

/// The object of the request. Requests about a whole collection have no name: `*` says so.
fn target(event: &Event, cleaner: &Cleaner<'_>) -> Option<ocsf::Resource> {
    let resource = event.resource.as_deref()?;
    let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(|text| cleaner.name(text));
    let collection = matches!(event.verb.as_deref(), Some("list" | "watch" | "deletecollection"));
    let name = text(&event.name).or_else(|| collection.then(|| "*".into()));
    let uid = text(&event.object_uid);
    let kind = match text(&event.api_group) {
        Some(group) => format!("{resource}.{group}"),
        None => resource.to_owned(),
    };
    (uid.is_some() || name.is_some()).then_some(ocsf::Resource {
        uid,
        name,
        kind: Some(cleaner.name(&kind)),
        namespace: text(&event.namespace),
        role_id: 1,
        role: "Target",
    })
}

fn evidence(event: &Event, cleaner: &Cleaner<'_>) -> ocsf::Evidence {
    let name = |text: &Option<String>| text.as_deref().map(|text| cleaner.name(text));
    ocsf::Evidence {
        uid: name(&event.event_id),
        actor: actor(event, cleaner),
        user: user(&event.impersonated_user, &None, &event.impersonated_groups, cleaner),
        api: event.verb.as_deref().map(|verb| ocsf::Api {
            operation: cleaner.name(verb),
            group: event
                .api_group
                .as_deref()
                .map(|group| ocsf::Group { name: if group.is_empty() { "core".into() } else { cleaner.name(group) } }),
            version: name(&event.api_version),
            request: ocsf::Request { uid: event.audit_id.clone() },
            response: (event.response_code.is_some() || event.response_reason.is_some()).then(|| ocsf::Response {
                code: event.response_code,
                error: event.response_reason.as_deref().map(|reason| cleaner.text(reason)),
            }),
        }),
        src_endpoint: event.source_ip.as_deref().and_then(address).map(|ip| ocsf::Endpoint { ip }),
        http_request: http_request(event, cleaner),
        data: Value::Null,
    }
}

fn actor(event: &Event, cleaner: &Cleaner<'_>) -> Option<ocsf::Actor> {
    let user = user(&event.user_name, &event.user_uid, &event.user_groups, cleaner);
    let session = event.credential_id.as_deref().map(|id| ocsf::Session { credential_uid: cleaner.name(id) });
    let authorizations: Vec<ocsf::Authorization> = event
        .decision
        .as_deref()
        .map(|decision| ocsf::Authorization {
            decision: cleaner.name(decision),
            policy: event
                .decision_reason
                .as_deref()
                .filter(|reason| !reason.is_empty())
                .map(|reason| ocsf::Policy { name: "authorization.k8s.io/reason", desc: cleaner.name(reason) }),
        })
        .into_iter()
        .collect();
    // the schema wants a user or a session in an actor
    (user.is_some() || session.is_some()).then_some(ocsf::Actor { user, session, authorizations })
}

fn user(
    name: &Option<String>,
    uid: &Option<String>,
    groups: &Option<Vec<String>>,
    cleaner: &Cleaner<'_>,
) -> Option<ocsf::User> {
    if name.is_none() && uid.is_none() {
        return None;
    }
    let (type_id, kind) = match name.as_deref() {
        Some(name) if name.starts_with("system:serviceaccount:") => (4, "Service"),
        Some(name) if name.starts_with("system:") => (3, "System"),
        _ => (1, "User"),
    };
    let groups = groups.iter().flatten().take(GROUPS_MAX);
    Some(ocsf::User {
        name: name.as_deref().map(|name| cleaner.name(name)),
        uid: uid.as_deref().map(|uid| cleaner.name(uid)),
        type_id,
        kind,
        groups: groups.map(|group| ocsf::Group { name: cleaner.name(group) }).collect(),
    })
}

fn http_request(event: &Event, cleaner: &Cleaner<'_>) -> Option<ocsf::HttpRequest> {
    let url = event.uri.as_deref().map(|uri| {
        let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
        ocsf::Url { path: cleaner.text(path), query_string: query.map(|query| cleaner.text(query)) }
    });
    // all but the last are what the client claims
    let claimed = event.source_ips.as_deref().and_then(|ips| ips.split_last()).map_or(&[][..], |(_, claimed)| claimed);
    let request = ocsf::HttpRequest {
        http_method: event.verb.as_deref().and_then(method),
        url,
        user_agent: event.user_agent.as_deref().map(|agent| cleaner.text(agent)),
        x_forwarded_for: claimed.iter().take(16).filter_map(|ip| address(ip)).collect(),
    };
    let empty = request.http_method.is_none() && request.url.is_none() && request.user_agent.is_none();
    (!empty).then_some(request)
}

fn method(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "get" | "list" | "watch" => "GET",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "head" => "HEAD",
        "options" => "OPTIONS",
        "connect" => "CONNECT",
        "trace" => "TRACE",
        _ => return None,
    })
}

/// The canonical form of an IP address, `None` for everything else that clouds write in its place.
fn address(text: &str) -> Option<String> {
    text.trim().parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

/// What OCSF has no place for, and what people filter by.
fn unmapped(spec: &AlertSpec, event: &Event, cleaner: &Cleaner<'_>, fields: &[Value]) -> Map<String, Value> {
    let mut unmapped = Map::new();
    let names = [
        ("provider", &event.cloud),
        ("cluster", &event.cluster),
        ("cluster_id", &event.cluster_id),
        ("resource", &event.resource),
        ("subresource", &event.subresource),
        ("namespace", &event.namespace),
        ("name", &event.name),
        ("service_account", &event.service_account),
        ("impersonated_user", &event.impersonated_user),
        ("source_ip", &event.source_ip),
    ];
    for (key, value) in names {
        if let Some(value) = value {
            unmapped.insert(key.into(), cleaner.name(value).into());
        }
    }
    let entity = spec.entity().iter().zip(fields);
    let entity: Map<_, _> = entity.map(|(field, value)| (field.name.to_string(), value.clone())).collect();
    unmapped.insert("entity".into(), entity.into());
    if !event.computed.is_empty() {
        let computed = event.computed.iter().map(|(name, value)| (name.to_string(), cleaner.computed(value)));
        unmapped.insert("computed".into(), computed.collect::<Map<_, _>>().into());
    }
    if !spec.false_positives.is_empty() {
        unmapped.insert("false_positives".into(), spec.false_positives.clone().into());
    }
    if event.truncated {
        unmapped.insert("truncated".into(), true.into());
    }
    unmapped.insert("suppress_seconds".into(), spec.suppress.as_secs().into());
    unmapped.insert("audit_schema_version".into(), AUDIT_SCHEMA_VERSION.into());
    unmapped
}
