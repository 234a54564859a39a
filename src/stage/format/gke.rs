//! GKE: Cloud Logging's re-encoding of audit events, written back as canonical events.
//!
//! The mapping is that of `formats.md` section 8. Google does not deliver level, stage, groups, extra, query string
//! and (on success) the HTTP code; what can be inferred is, and the annotation `kubetide/inferred` names those fields
//! in the rewritten event.

use std::borrow::Cow;

use super::decoder::{Around, Decoder};
use super::gke_target::{Target, http_code};
use super::origin::Parts;
use super::query::query_value;
use super::shape::{Shape, text};
use super::time;
use crate::json::write::{Object, literal, string};
use crate::json::{Cursor, JsonError, Kind, Raw, Text};
use crate::model::{Cloud, EventSink, RejectReason, SkipReason};

/// Names the fields of a rewritten event that were not delivered.
const INFERRED: &str = "kubetide/inferred";
const DECISION: &str = "authorization.k8s.io/decision";

/// The parts of a log entry that are wanted.
#[derive(Default)]
struct Entry<'a> {
    insert_id: Option<Text<'a>>,
    log_name: Option<Text<'a>>,
    timestamp: Option<Text<'a>>,
    received_ms: Option<i64>,
    cluster: Option<Text<'a>>,
    project: Option<Text<'a>>,
    location: Option<Text<'a>>,
    labels: Option<Raw<'a>>,
    decision: Option<Text<'a>>,
    command: Option<Text<'a>>,
    dry_run: Option<Text<'a>>,
    operation_id: Option<Text<'a>>,
    first: bool,
    last: bool,
    service: Option<Text<'a>>,
    method: Option<Text<'a>>,
    resource: Option<Text<'a>>,
    /// The text ended, or broke, before the entry did: what is absent may have been cut off.
    is_cut: bool,
    principal: Option<Text<'a>>,
    impersonated: Option<Text<'a>>,
    granted: Option<bool>,
    has_authorization: bool,
    caller_ip: Option<Text<'a>>,
    user_agent: Option<Text<'a>>,
    request: Option<Raw<'a>>,
    response: Option<Raw<'a>>,
    status: Option<Status<'a>>,
}

/// `protoPayload.status`, or a response that is a `Status`.
#[derive(Default, Clone, Copy)]
struct Status<'a> {
    code: Option<i64>,
    message: Option<Text<'a>>,
    reason: Option<Text<'a>>,
    is_failure: bool,
}

impl<S: EventSink + ?Sized> Decoder<'_, S> {
    /// A log entry with an audit payload; ours if the service is `k8s.io`.
    pub(super) fn log_entry(&mut self, text: &[u8], shape: &Shape<'_>, around: &Around) {
        let (entry, damage) = Entry::read(text);
        let is_kubernetes = match (entry.service, entry.method) {
            (Some(service), _) => service.is("k8s.io"),
            (None, Some(method)) => method.raw().starts_with(b"io.k8s."),
            (None, None) => false,
        };
        if let Some(error) = damage.or(shape.damage)
            && (!is_kubernetes || entry.method.is_none())
        {
            let detail = format!("a log entry that breaks off before its method could be read: {error}");
            return self.reject(RejectReason::Malformed, detail, text);
        }
        if !is_kubernetes {
            return self.skip(SkipReason::Foreign);
        }
        if entry.method.is_none() {
            let detail = "a `k8s.io` audit entry without `protoPayload.methodName`";
            return self.reject(RejectReason::Malformed, detail, text);
        }
        if !self.admits(Cloud::Gke, text) {
            return;
        }
        let inside = self.gke_around(&entry, around);
        let mut event = self.buffer();
        entry.transcode(&mut event);
        if damage.is_some() {
            // What is missing was cut off, not absent: an open object says so.
            event.pop();
        }
        self.event(&event, &inside);
        self.give_back(event);
    }

    fn gke_around(&mut self, entry: &Entry<'_>, around: &Around) -> Around {
        let decode = |text: Option<Text<'_>>| text.map(|text| text.decode().into_owned());
        let project = entry.project.map(|project| project.decode()).or_else(|| {
            let name = entry.log_name?.decode();
            let project = name.strip_prefix("projects/")?.split('/').next()?;
            Some(Cow::Owned(project.to_owned()))
        });
        let location = decode(entry.location);
        let origin = match entry.cluster {
            Some(cluster) => self.origins.get(Parts {
                cloud: Cloud::Gke,
                account: project.as_deref().or(self.options.account.as_deref()),
                region: location.as_deref().or(self.options.region.as_deref()),
                resource_group: None,
                cluster: &cluster.decode(),
            }),
            None => self.origins.bare(Cloud::Gke, None, self.options, self.record, self.lane),
        };
        Around { origin: Some(origin), no_groups: true, ..around.deeper_at(entry.received_ms) }
    }
}

impl<'a> Entry<'a> {
    /// Reads an entry; a cut one as far as it goes.
    fn read(text: &'a [u8]) -> (Entry<'a>, Option<JsonError>) {
        let mut entry = Entry::default();
        let result = Cursor::new(text).object(|cursor, key| {
            match key.raw() {
                b"insertId" => entry.insert_id = cursor.text()?,
                b"logName" => entry.log_name = cursor.text()?,
                b"timestamp" => entry.timestamp = cursor.text()?,
                b"receiveTimestamp" => entry.received_ms = time::millis(cursor.raw()?.bytes()),
                b"resource" => entry.read_resource(cursor)?,
                b"labels" => entry.read_labels(cursor)?,
                b"operation" => entry.read_operation(cursor)?,
                b"protoPayload" => entry.read_payload(cursor)?,
                _ => {}
            }
            Ok::<_, JsonError>(())
        });
        let damage = result.err();
        entry.is_cut = damage.is_some();
        (entry, damage)
    }

    fn read_resource(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        cursor.object(|cursor, key| {
            if key.raw() == b"labels" {
                cursor.object(|cursor, key| {
                    match key.raw() {
                        b"cluster_name" => self.cluster = cursor.text()?,
                        b"project_id" => self.project = cursor.text()?,
                        b"location" => self.location = cursor.text()?,
                        _ => {}
                    }
                    Ok::<_, JsonError>(())
                })?;
            }
            Ok::<_, JsonError>(())
        })?;
        Ok(())
    }

    fn read_labels(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        let raw = cursor.raw()?;
        if raw.kind() != Kind::Object {
            return Ok(());
        }
        let walked = raw.cursor().object(|cursor, key| {
            match key.raw() {
                b"authorization.k8s.io/decision" => self.decision = cursor.text()?,
                b"command.gke.io/command" => self.command = cursor.text()?,
                b"command.gke.io/dryRun" => self.dry_run = cursor.text()?,
                _ => {}
            }
            Ok::<_, JsonError>(())
        });
        // Labels that are broken inside cannot be copied, but must not hide the event either.
        if walked.is_ok() {
            self.labels = Some(raw);
        }
        Ok(())
    }

    fn read_operation(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        cursor.object(|cursor, key| {
            match key.raw() {
                b"id" => self.operation_id = cursor.text()?,
                b"first" => self.first = cursor.boolean()?.unwrap_or(false),
                b"last" => self.last = cursor.boolean()?.unwrap_or(false),
                _ => {}
            }
            Ok::<_, JsonError>(())
        })?;
        Ok(())
    }

    fn read_payload(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        cursor.object(|cursor, key| {
            match key.raw() {
                b"serviceName" => self.service = cursor.text()?,
                b"methodName" => self.method = cursor.text()?,
                b"resourceName" => self.resource = cursor.text()?,
                b"authenticationInfo" => self.read_authentication(cursor)?,
                b"authorizationInfo" => self.read_authorization(cursor)?,
                b"requestMetadata" => {
                    cursor.object(|cursor, key| {
                        match key.raw() {
                            b"callerIp" => self.caller_ip = cursor.text()?,
                            b"callerSuppliedUserAgent" => self.user_agent = cursor.text()?,
                            _ => {}
                        }
                        Ok::<_, JsonError>(())
                    })?;
                }
                b"request" => self.request = Some(cursor.raw()?).filter(|raw| raw.kind() != Kind::Null),
                b"response" => self.response = Some(cursor.raw()?).filter(|raw| raw.kind() != Kind::Null),
                b"status" => {
                    let raw = cursor.raw()?;
                    self.status = if raw.kind() == Kind::Object { Some(Status::read(raw)?) } else { None };
                }
                _ => {}
            }
            Ok::<_, JsonError>(())
        })?;
        Ok(())
    }

    fn read_authentication(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        let mut subject = None;
        cursor.object(|cursor, key| {
            match key.raw() {
                b"principalEmail" => self.principal = cursor.text()?.filter(|text| !text.is_empty()),
                b"principalSubject" => subject = cursor.text()?.filter(|text| !text.is_empty()),
                b"authoritySelector" => self.impersonated = cursor.text()?.filter(|text| !text.is_empty()),
                _ => {}
            }
            Ok::<_, JsonError>(())
        })?;
        // Federated identities have no e-mail.
        self.principal = self.principal.or(subject);
        // Where nobody else is named, the selector is the caller itself.
        if self.principal.is_none() {
            self.principal = self.impersonated.take();
        }
        Ok(())
    }

    /// `granted` of the first element.
    fn read_authorization(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        cursor.array(|cursor| {
            if !self.has_authorization {
                cursor.object(|cursor, key| {
                    if key.raw() == b"granted" {
                        self.granted = cursor.boolean()?;
                    }
                    Ok::<_, JsonError>(())
                })?;
            }
            self.has_authorization = true;
            Ok::<_, JsonError>(())
        })?;
        Ok(())
    }

    /// What the authorization decided; writers of protobuf leave `granted` out where it is false.
    fn granted(&self) -> Option<bool> {
        let is_denied = self.has_authorization && self.status.is_some_and(|status| status.code == Some(7));
        self.granted.or(is_denied.then_some(false))
    }

    /// Writes the canonical event.
    fn transcode(&self, out: &mut Vec<u8>) {
        let method = self.method.map(|method| method.decode()).unwrap_or_default();
        let resource = self.resource.map(|resource| resource.decode()).unwrap_or_default();
        let target = Target::parse(&method, &resource);
        let stage = if self.first && !self.last { "ResponseStarted" } else { "ResponseComplete" };
        let level = match (self.request, self.response) {
            (_, Some(_)) => "RequestResponse",
            (Some(_), None) => "Request",
            (None, None) => "Metadata",
        };
        let mut event = Object::open(out);
        event.str("kind", "Event");
        event.str("apiVersion", "audit.k8s.io/v1");
        event.str("level", level);
        let id = self.operation_id.filter(|id| !id.is_empty()).or(self.insert_id);
        event.text("auditID", id);
        event.str("stage", stage);
        if self.resource.is_some() || target.object.is_some() {
            event.str("requestURI", &self.uri(&target, &resource));
        }
        event.str("verb", target.verb);
        event.key("user");
        identity(&mut event, self.principal);
        if self.impersonated.is_some() {
            event.key("impersonatedUser");
            identity(&mut event, self.impersonated);
        }
        if let Some(ip) = self.caller_ip.filter(|ip| !ip.is_empty()) {
            event.key("sourceIPs");
            event.out.push(b'[');
            literal(event.out, ip);
            event.out.push(b']');
        }
        event.text("userAgent", self.user_agent);
        if let Some(object) = &target.object {
            event.key("objectRef");
            object.write(event.out);
        }
        let is_code_inferred = self.write_status(&target, &mut event);
        event.raw("requestObject", self.request.map(|raw| raw.bytes()));
        event.raw("responseObject", self.response.map(|raw| raw.bytes()));
        event.text("requestReceivedTimestamp", self.timestamp);
        event.text("stageTimestamp", self.timestamp);
        event.key("annotations");
        self.write_annotations(is_code_inferred, event.out);
        event.close();
    }

    /// The request's URI, rebuilt: the query holds only what labels tell.
    fn uri(&self, target: &Target<'_>, resource: &str) -> String {
        let mut uri = match &target.object {
            Some(object) => object.path(target.verb),
            None => format!("/{}", resource.trim_start_matches('/')),
        };
        let mut separator = '?';
        let mut add = |name: &str, value: &str| {
            uri.push(separator);
            separator = '&';
            uri.push_str(name);
            uri.push('=');
            query_value(&mut uri, value);
        };
        if let Some(command) = self.command {
            let command = command.decode();
            for word in words(&command) {
                add("command", &word);
            }
        }
        if self.dry_run.is_some_and(|dry_run| !dry_run.is_empty() && !dry_run.is("false")) {
            add("dryRun", "All");
        }
        uri
    }

    /// Writes `responseStatus` where anything is known; returns whether the code is inferred.
    fn write_status(&self, target: &Target<'_>, event: &mut Object<'_>) -> bool {
        let response = self.response.and_then(Status::of_response);
        let rpc = self.status;
        let (code, is_inferred) = match (response, rpc) {
            (Some(Status { code: Some(code), .. }), _) => (Some(code), false),
            (_, Some(Status { code: Some(code), .. })) if code != 0 => (http_code(code), true),
            (Some(Status { is_failure: true, .. }), _) => (self.refused(), true),
            // proto3 leaves an OK status out, so unless the authorization tells otherwise the request succeeded.
            _ if self.refused().is_some() => (self.refused(), true),
            (Some(_), _) | (_, Some(_)) => (Some(target.success()), true),
            (None, None) if self.response.is_some() || (!self.is_cut && self.granted() == Some(true)) => {
                (Some(target.success()), true)
            }
            (None, None) => (None, true),
        };
        let message = rpc.and_then(|status| status.message).or(response.and_then(|status| status.message));
        let reason = response.and_then(|status| status.reason);
        let is_failure = code.is_some_and(|code| code >= 400) || response.is_some_and(|status| status.is_failure);
        if code.is_none() && !is_failure {
            return false;
        }
        event.key("responseStatus");
        let mut status = Object::open(event.out);
        status.raw("metadata", b"{}".as_slice());
        if is_failure {
            status.str("status", "Failure");
            status.text("message", message);
            status.text("reason", reason);
        }
        if let Some(code) = code {
            status.integer("code", code);
        }
        status.close();
        is_inferred && code.is_some()
    }

    /// The code where only the authorization tells of a failure.
    fn refused(&self) -> Option<i64> {
        (self.granted() == Some(false)).then_some(403)
    }

    /// Labels are the annotations; the decision may be known only from the authorization.
    fn write_annotations(&self, is_code_inferred: bool, out: &mut Vec<u8>) {
        let mut annotations = Object::open(out);
        if let Some(labels) = self.labels {
            // They were walked before, so this walk ends at their end.
            let copied = labels.cursor().object(|cursor, key| {
                let value = cursor.raw()?;
                annotations.raw_key(key.raw());
                annotations.out.extend_from_slice(value.bytes());
                Ok::<_, JsonError>(())
            });
            debug_assert!(copied.is_ok());
        }
        if self.decision.is_none()
            && let Some(granted) = self.granted()
        {
            annotations.str(DECISION, if granted { "allow" } else { "forbid" });
        }
        annotations.key(INFERRED);
        let code = if is_code_inferred { ",responseStatus.code" } else { "" };
        string(annotations.out, format!("level,stage,requestURI{code}"));
        annotations.close();
    }
}

fn identity(event: &mut Object<'_>, name: Option<Text<'_>>) {
    let mut user = Object::open(event.out);
    user.text("username", name);
    user.close();
}

/// The words of a command: a JSON array's, else those between spaces.
fn words(command: &str) -> Vec<Cow<'_, str>> {
    match serde_json::from_str::<Vec<String>>(command) {
        Ok(words) => words.into_iter().map(Cow::Owned).collect(),
        Err(_) => command.split_whitespace().map(Cow::Borrowed).collect(),
    }
}

impl<'a> Status<'a> {
    fn read(raw: Raw<'a>) -> Result<Status<'a>, JsonError> {
        let mut status = Status::default();
        raw.cursor().object(|cursor, key| {
            match key.raw() {
                // A whole number, or one that went through a double or a string.
                b"code" => {
                    let value = cursor.raw()?;
                    status.code = match value.text() {
                        Some(digits) => digits.decode().parse().ok(),
                        None => value.cursor().integer()?,
                    };
                }
                b"message" => status.message = cursor.text()?,
                b"reason" => status.reason = cursor.text()?,
                b"status" => status.is_failure = cursor.text()?.is_some_and(|status| status.is("Failure")),
                _ => {}
            }
            Ok::<_, JsonError>(())
        })?;
        Ok(status)
    }

    /// The status that a response body is, if it is one.
    fn of_response(response: Raw<'a>) -> Option<Status<'a>> {
        let shape = Shape::read(response.bytes());
        let status = Status::read(response).ok()?;
        let is_status = text(shape.kind).is_some_and(|kind| kind.is("Status"));
        (is_status || status.is_failure).then_some(status)
    }
}
