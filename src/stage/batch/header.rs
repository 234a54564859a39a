//! Fills the columns that need no body.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use memchr::memmem::Finder;

use super::builders::{Columns, NULL, SpanCache};
use super::{body, identity, is_set, time};
use crate::json::{JsonError, Raw, Text, text_of};
use crate::model::{Column, EventContext, EventFields, Origin};

/// Built once: building it costs more than a search.
static DRY_RUN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"dryRun=All"));

/// What was worked out from spans that repeat within a batch.
#[derive(Debug, Default)]
pub(super) struct HeaderCaches {
    users: SpanCache<UserKeys>,
    outcomes: SpanCache<Outcome>,
    annotations: SpanCache<AnnotationKeys>,
    addresses: SpanCache<(i32, i32)>,
    origin: Option<(Arc<Origin>, OriginKeys)>,
}

#[derive(Debug, Clone, Copy)]
struct UserKeys {
    name: i32,
    effective: i32,
    uid: i32,
    groups: i32,
    extra: i32,
    credential: i32,
    service_account: i32,
}

#[derive(Debug, Clone, Copy)]
struct Outcome {
    code: Option<i64>,
    reason: i32,
    has_message: bool,
}

#[derive(Debug, Clone, Copy)]
struct AnnotationKeys {
    decision: i32,
    reason: i32,
    all: i32,
    truncated: bool,
}

#[derive(Debug, Clone, Copy)]
struct OriginKeys {
    cloud: i32,
    account: i32,
    region: i32,
    cluster: i32,
    cluster_id: i32,
}

/// The parts of `objectRef`, as they are needed further on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestParts<'a> {
    present: bool,
    verb: Option<Text<'a>>,
    api_group: Option<Text<'a>>,
    api_version: Option<Text<'a>>,
    resource: Option<Text<'a>>,
    subresource: Option<Text<'a>>,
    namespace: Option<Text<'a>>,
    name: Option<Text<'a>>,
    uid: Option<Text<'a>>,
}

impl<'a> RequestParts<'a> {
    pub fn verb(&self) -> Cow<'a, str> {
        self.verb.map(|text| text.decode()).unwrap_or_default()
    }

    /// Whether the request is to a subresource whose body is not the object itself.
    pub fn subresource(&self) -> bool {
        self.subresource.is_some_and(|text| !text.is_empty() && !text.is("ephemeralcontainers"))
    }

    /// Whether the request may run a command.
    pub fn runs(&self) -> bool {
        self.subresource.is_some_and(|text| text.is("exec") || text.is("attach") || text.is("proxy"))
    }

    pub fn resource(&self) -> Cow<'a, str> {
        self.resource.map(|text| text.decode()).unwrap_or_default()
    }

    /// `core`, as Google writes it, is the empty group.
    pub fn api_group(&self) -> Cow<'a, str> {
        match self.api_group {
            Some(group) if !group.is("core") => group.decode(),
            _ => Cow::Borrowed(""),
        }
    }
}

/// Writes one row's header columns.
pub(super) struct Header<'b> {
    pub columns: &'b mut Columns,
    pub caches: &'b mut HeaderCaches,
    pub trusted_proxies: &'b [IpNet],
    pub arrival_ms: Option<i64>,
}

impl Header<'_> {
    /// Fills the header columns; returns what the body's reading depends on, and whether the event is truncated.
    pub fn fill<'a>(&mut self, fields: &EventFields<'a>, context: &EventContext) -> (RequestParts<'a>, bool) {
        let times = self.times(fields, context);
        self.origin(&context.origin);
        let request = self.request(fields);
        self.actor(fields, context);
        let code = self.outcome(fields.response_status);
        let truncated = self.annotations(fields.annotations)
            || fields.cut
            || body::left_out(fields.request_object)
            || body::left_out(fields.response_object);
        self.columns.put_text(Column::AuditId, fields.audit_id);
        self.columns.put_text(Column::Stage, fields.stage);
        self.columns.put_text(Column::Level, fields.level);
        self.columns.put_bool(Column::Truncated, truncated);
        if self.columns.has(Column::EventId) || self.columns.has(Column::RequestId) {
            let ids = identity::ids(&context.origin.cluster_id(), fields, times.request, times.stage, code);
            self.columns.put_str(Column::EventId, &ids.event);
            self.columns.put_str(Column::RequestId, &ids.request);
        }
        (request, truncated)
    }

    /// Event time: the event's own, else the envelope's, else the transport's.
    fn times(&mut self, fields: &EventFields<'_>, context: &EventContext) -> Times {
        let wanted = [Column::EventTime, Column::RequestTime, Column::TimeSource, Column::RequestId, Column::EventId];
        if !wanted.iter().any(|column| self.columns.has(*column)) {
            return Times::default();
        }
        let parse = |text: Option<Text<'_>>| text.and_then(|text| time::parse(text.raw()));
        let (own_stage, own_request) = (parse(fields.stage_time), parse(fields.request_time));
        let own = own_stage.or(own_request);
        let (event, source) = match (own, context.envelope_time_ms, self.arrival_ms) {
            (Some(time), _, _) => (Some(time), "event"),
            (None, Some(time), _) => (Some(time.saturating_mul(1000)), "envelope"),
            (None, None, time) => (time.map(|time| time.saturating_mul(1000)), "broker"),
        };
        let request = own_request.or(event);
        if let Some(event) = event {
            self.columns.put_time(Column::EventTime, event);
            let key = self.columns.str_key(Column::TimeSource, source);
            self.columns.put_key(Column::TimeSource, key);
        }
        if let Some(request) = request {
            self.columns.put_time(Column::RequestTime, request);
        }
        Times { request, stage: event }
    }

    fn origin(&mut self, origin: &Arc<Origin>) {
        let keys = match &self.caches.origin {
            Some((known, keys)) if Arc::ptr_eq(known, origin) => *keys,
            _ => {
                let columns = &mut *self.columns;
                let mut optional = |column, text: &Option<Arc<str>>| match text {
                    Some(text) => columns.str_key(column, text),
                    None => NULL,
                };
                let (account, region) =
                    (optional(Column::Account, &origin.account), optional(Column::Region, &origin.region));
                let keys = OriginKeys {
                    cloud: columns.str_key(Column::Cloud, origin.cloud.as_str()),
                    account,
                    region,
                    cluster: columns.str_key(Column::Cluster, &origin.cluster),
                    cluster_id: columns.str_key(Column::ClusterId, &origin.cluster_id()),
                };
                self.caches.origin = Some((Arc::clone(origin), keys));
                keys
            }
        };
        self.columns.put_key(Column::Cloud, keys.cloud);
        self.columns.put_key(Column::Account, keys.account);
        self.columns.put_key(Column::Region, keys.region);
        self.columns.put_key(Column::Cluster, keys.cluster);
        self.columns.put_key(Column::ClusterId, keys.cluster_id);
    }

    fn request<'a>(&mut self, fields: &EventFields<'a>) -> RequestParts<'a> {
        let mut parts = RequestParts { verb: fields.verb, ..RequestParts::default() };
        if let Some(reference) = fields.object_ref {
            // A broken reference keeps the parts before the break.
            let _shape: Result<bool, JsonError> = reference.cursor().object(|cursor, key| {
                parts.present = true;
                match key.raw() {
                    b"resource" => parts.resource = cursor.text()?,
                    b"subresource" => parts.subresource = cursor.text()?,
                    b"namespace" => parts.namespace = cursor.text()?,
                    b"name" => parts.name = cursor.text()?,
                    b"uid" => parts.uid = cursor.text()?,
                    b"apiGroup" => parts.api_group = cursor.text()?,
                    b"apiVersion" => parts.api_version = cursor.text()?,
                    _ => {}
                }
                Ok(())
            });
        }
        let columns = &mut *self.columns;
        columns.put_text(Column::Verb, fields.verb);
        columns.put_text(Column::Uri, fields.uri);
        columns.put_text(Column::UserAgent, fields.user_agent);
        if parts.resource.is_some() {
            // Some forwarders write group and version together, as manifests do.
            if let Some((group, version)) = parts.api_version.and_then(group_and_version) {
                parts.api_group = parts.api_group.or(Some(group));
                parts.api_version = Some(version);
            }
            if parts.api_group.is_none() {
                parts.api_group = group_elsewhere(fields);
            }
            let key = match parts.api_group {
                Some(group) if !group.is("core") => columns.key(Column::ApiGroup, Some(group)),
                _ => columns.str_key(Column::ApiGroup, ""),
            };
            columns.put_key(Column::ApiGroup, key);
        }
        columns.put_text(Column::ApiVersion, parts.api_version);
        columns.put_text(Column::Resource, parts.resource);
        columns.put_text(Column::Subresource, parts.subresource.filter(|text| !text.is_empty()));
        columns.put_text(Column::Namespace, parts.namespace.filter(|text| !text.is_empty()));
        columns.put_text(Column::ObjectUid, parts.uid);
        match parts.name.filter(|text| !text.is_empty()) {
            Some(name) => columns.put_text(Column::Name, Some(name)),
            None if columns.has(Column::Name) && fields.verb.is_some_and(|verb| verb.is("create")) => {
                if let Some(name) = body::generated_name(fields) {
                    columns.put_str(Column::Name, &name);
                }
            }
            None => {}
        }
        self.dry_run(fields);
        self.exec(fields, &parts);
        parts
    }

    fn dry_run(&mut self, fields: &EventFields<'_>) {
        let Some(uri) = fields.uri else { return };
        let raw = uri.raw();
        let query = memchr::memchr(b'?', raw).map(|at| &raw[at + 1..]);
        if self.columns.has(Column::DryRun) {
            let dry = query.is_some_and(|query| DRY_RUN.find(query).is_some());
            self.columns.put_bool(Column::DryRun, dry || dry_run_in_body(fields));
        }
    }

    /// What an exec or attach runs, and where: from the query string, else from its options object.
    fn exec(&mut self, fields: &EventFields<'_>, parts: &RequestParts<'_>) {
        let wanted = [Column::ExecCommand, Column::ExecContainer].iter().any(|column| self.columns.has(*column));
        if !wanted || !parts.runs() {
            return;
        }
        let uri = fields.uri.map(|uri| uri.decode()).unwrap_or_default();
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let mut command = Vec::new();
        let mut container = None;
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                // `cmd` is what the kubelet's own `run` takes behind nodes/proxy.
                "command" | "cmd" => command.push(percent_decode(value)),
                "container" => container = Some(percent_decode(value)),
                _ => {}
            }
        }
        if let (true, Some(options)) = (command.is_empty(), fields.request_object) {
            let _shape: Result<bool, JsonError> = options.cursor().object(|cursor, key| {
                match key.raw() {
                    b"command" => {
                        cursor.array(|cursor| {
                            command.extend(cursor.text()?.map(|word| word.decode().into_owned()));
                            Ok::<_, JsonError>(())
                        })?;
                    }
                    b"container" => container = cursor.text()?.map(|name| name.decode().into_owned()),
                    _ => {}
                }
                Ok(())
            });
        }
        if !command.is_empty() {
            self.columns.put_str(Column::ExecCommand, &command.join(" "));
        }
        if let Some(container) = container {
            let key = self.columns.str_key(Column::ExecContainer, &container);
            self.columns.put_key(Column::ExecContainer, key);
        }
    }

    fn actor(&mut self, fields: &EventFields<'_>, context: &EventContext) {
        let user = fields.user.map(|user| self.user(user, context.no_groups));
        let effective = match fields.impersonated_user {
            Some(impersonated) => self.impersonated(impersonated),
            None => NULL,
        };
        if let Some(user) = user {
            let columns = &mut *self.columns;
            columns.put_key(Column::UserName, user.name);
            columns.put_key(Column::EffectiveUser, if is_set(effective) { effective } else { user.effective });
            columns.put_key(Column::UserUid, user.uid);
            columns.put_key(Column::UserGroups, user.groups);
            columns.put_key(Column::UserExtra, user.extra);
            columns.put_key(Column::CredentialId, user.credential);
            columns.put_key(Column::ServiceAccount, user.service_account);
        }
        if let Some(addresses) = fields.source_ips {
            let (list, address) = match self.caches.addresses.get(addresses.bytes()) {
                Some(known) => known,
                None => {
                    let value = self.addresses(addresses);
                    self.caches.addresses.put(value);
                    value
                }
            };
            self.columns.put_key(Column::SourceIps, list);
            self.columns.put_key(Column::SourceIp, address);
        }
    }

    fn user(&mut self, user: Raw<'_>, no_groups: bool) -> UserKeys {
        if let Some(known) = self.caches.users.get(user.bytes()) {
            return known;
        }
        let columns = &mut *self.columns;
        let mut keys = UserKeys {
            name: NULL,
            effective: NULL,
            uid: NULL,
            groups: if no_groups { NULL } else { columns.empty_list_key(Column::UserGroups) },
            extra: NULL,
            credential: NULL,
            service_account: NULL,
        };
        let _shape: Result<bool, JsonError> = user.cursor().object(|cursor, key| {
            match key.raw() {
                b"username" => {
                    let name = cursor.text()?.filter(|name| !name.is_empty());
                    keys.name = columns.key(Column::UserName, name);
                    keys.effective = columns.key(Column::EffectiveUser, name);
                    if let Some(account) = name.and_then(|name| service_account(&name.decode())) {
                        keys.service_account = columns.str_key(Column::ServiceAccount, &account);
                    }
                }
                b"uid" => keys.uid = columns.key(Column::UserUid, cursor.text()?),
                b"groups" => {
                    let groups = cursor.raw()?;
                    if groups.kind() == crate::json::Kind::Array {
                        keys.groups = columns.list_key(Column::UserGroups, groups);
                    }
                }
                b"extra" => {
                    let extra = cursor.raw()?;
                    let text = text_of(extra.bytes());
                    keys.extra = columns.str_key(Column::UserExtra, &text);
                    keys.credential = credential(columns, extra);
                }
                _ => {}
            }
            Ok(())
        });
        self.caches.users.put(keys);
        keys
    }

    /// Key of the impersonated name among the effective users.
    fn impersonated(&mut self, user: Raw<'_>) -> i32 {
        let columns = &mut *self.columns;
        let mut effective = NULL;
        let mut groups = columns.empty_list_key(Column::ImpersonatedGroups);
        let _shape: Result<bool, JsonError> = user.cursor().object(|cursor, key| {
            match key.raw() {
                b"username" => {
                    let name = cursor.text()?.filter(|name| !name.is_empty());
                    columns.put_text(Column::ImpersonatedUser, name);
                    effective = columns.key(Column::EffectiveUser, name);
                }
                b"groups" => groups = columns.list_key(Column::ImpersonatedGroups, cursor.raw()?),
                _ => {}
            }
            Ok(())
        });
        columns.put_key(Column::ImpersonatedGroups, groups);
        effective
    }

    /// Keys of the list and of the client's address: the last one that is no trusted proxy.
    fn addresses(&mut self, addresses: Raw<'_>) -> (i32, i32) {
        let mut all: Vec<Cow<'_, str>> = Vec::new();
        let _shape: Result<bool, JsonError> = addresses.cursor().array(|cursor| {
            all.extend(cursor.text()?.map(|text| text.decode()));
            Ok(())
        });
        let trusted = |address: &str| {
            address.parse::<IpAddr>().is_ok_and(|address| self.trusted_proxies.iter().any(|net| net.contains(&address)))
        };
        let client = all.iter().rev().find(|address| !trusted(address)).or(all.first());
        let list = self.columns.list_key(Column::SourceIps, addresses);
        let address = client.map_or(NULL, |client| self.columns.str_key(Column::SourceIp, client));
        (list, address)
    }

    fn outcome(&mut self, status: Option<Raw<'_>>) -> Option<i64> {
        let status = status?;
        let outcome = match self.caches.outcomes.get(status.bytes()) {
            Some(known) => known,
            None => {
                let columns = &mut *self.columns;
                let mut outcome = Outcome { code: None, reason: NULL, has_message: false };
                let _shape: Result<bool, JsonError> = status.cursor().object(|cursor, key| {
                    match key.raw() {
                        b"code" => outcome.code = cursor.integer()?,
                        b"reason" => outcome.reason = columns.key(Column::ResponseReason, cursor.text()?),
                        b"message" => outcome.has_message = true,
                        _ => {}
                    }
                    Ok(())
                });
                self.caches.outcomes.put(outcome);
                outcome
            }
        };
        if let Some(code) = outcome.code {
            self.columns.put_int(Column::ResponseCode, code);
        }
        if outcome.has_message && self.columns.has(Column::ResponseMessage) {
            let columns = &mut *self.columns;
            let _shape: Result<bool, JsonError> = status.cursor().object(|cursor, key| {
                if key.raw() == b"message" {
                    columns.put_text(Column::ResponseMessage, cursor.text()?);
                }
                Ok(())
            });
        }
        self.columns.put_key(Column::ResponseReason, outcome.reason);
        outcome.code
    }

    /// Whether the annotations say that the bodies were dropped.
    fn annotations(&mut self, annotations: Option<Raw<'_>>) -> bool {
        let Some(annotations) = annotations else { return false };
        let keys = match self.caches.annotations.get(annotations.bytes()) {
            Some(known) => known,
            None => {
                let columns = &mut *self.columns;
                let text = text_of(annotations.bytes());
                let all = columns.str_key(Column::Annotations, &text);
                let mut keys = AnnotationKeys { decision: NULL, reason: NULL, all, truncated: false };
                let _shape: Result<bool, JsonError> = annotations.cursor().object(|cursor, key| {
                    match key.raw() {
                        b"authorization.k8s.io/decision" => {
                            keys.decision = columns.key(Column::Decision, cursor.text()?);
                        }
                        b"authorization.k8s.io/reason" => {
                            keys.reason = columns.key(Column::DecisionReason, cursor.text()?);
                        }
                        b"audit.k8s.io/truncated" => {
                            keys.truncated = cursor.text()?.is_some_and(|text| text.is("true"));
                        }
                        _ => {}
                    }
                    Ok(())
                });
                self.caches.annotations.put(keys);
                keys
            }
        };
        self.columns.put_key(Column::Decision, keys.decision);
        self.columns.put_key(Column::DecisionReason, keys.reason);
        self.columns.put_key(Column::Annotations, keys.all);
        keys.truncated
    }
}

/// The group of a reference that leaves it out (forwarders drop it): from the URI's `/apis/GROUP/`, else from the body's
/// `apiVersion`. `None` is the core group.
fn group_elsewhere<'a>(fields: &EventFields<'a>) -> Option<Text<'a>> {
    if let Some(uri) = fields.uri {
        let rest = uri.raw().strip_prefix(b"/apis/")?;
        let group = std::str::from_utf8(rest.split(|byte| *byte == b'/').next()?).ok()?;
        return Some(Text::plain(group));
    }
    let mut group = None;
    // Ends as soon as the version is found: `JsonError::Cut` stands for "enough".
    let _found: Result<bool, JsonError> = fields.request_object?.cursor().object(|cursor, key| {
        if key.raw() == b"apiVersion" {
            let version = cursor.text()?.and_then(|text| std::str::from_utf8(text.raw()).ok());
            group = version.and_then(|version| version.split_once('/')).map(|(group, _)| Text::plain(group));
            return Err(JsonError::Cut);
        }
        Ok(())
    });
    group
}

/// The parts of `apps/v1`; none without a slash.
fn group_and_version(text: Text<'_>) -> Option<(Text<'_>, Text<'_>)> {
    let (group, version) = std::str::from_utf8(text.raw()).ok()?.split_once('/')?;
    Some((Text::plain(group), Text::plain(version)))
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    request: Option<i64>,
    stage: Option<i64>,
}

/// Deletions carry `dryRun` in their options rather than in the query.
fn dry_run_in_body(fields: &EventFields<'_>) -> bool {
    let deletes = fields.verb.is_some_and(|verb| verb.is("delete") || verb.is("deletecollection"));
    let mut dry = false;
    if let (true, Some(body)) = (deletes, fields.request_object) {
        let _shape: Result<bool, JsonError> = body.cursor().object(|cursor, key| {
            if key.raw() == b"dryRun" {
                cursor.array(|cursor| {
                    dry |= cursor.text()?.is_some_and(|text| text.is("All"));
                    Ok::<_, JsonError>(())
                })?;
            }
            Ok(())
        });
    }
    dry
}

/// `ns/name` of `system:serviceaccount:ns:name`.
fn service_account(user: &str) -> Option<String> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some(format!("{namespace}/{name}"))
}

/// The first credential id in `user.extra`.
fn credential(columns: &mut Columns, extra: Raw<'_>) -> i32 {
    let mut key = NULL;
    let _shape: Result<bool, JsonError> = extra.cursor().object(|cursor, name| {
        if name.raw() == b"authentication.kubernetes.io/credential-id" {
            cursor.array(|cursor| {
                let id = cursor.text()?;
                if !is_set(key) {
                    key = columns.key(Column::CredentialId, id);
                }
                Ok::<_, JsonError>(())
            })?;
        }
        Ok(())
    });
    key
}

/// A query value decoded; broken escapes stay as they are.
fn percent_decode(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
