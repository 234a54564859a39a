//! One request while its event is put together, and the events of its stages.

use super::json::{Escaped, Micros, Uid, put};
use super::world::Identity;

/// How much of a request the audit policy records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Level {
    #[default]
    Metadata,
    RequestResponse,
}

/// Which of a request's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Received,
    Started,
    Complete,
}

/// What a request is about; absent parts are empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target<'t> {
    pub group: &'t str,
    /// `v1` where empty.
    pub version: &'t str,
    pub namespace: &'t str,
    pub resource: &'t str,
    pub name: &'t str,
    pub subresource: &'t str,
}

impl<'t> Target<'t> {
    pub fn core(namespace: &'t str, resource: &'t str, name: &'t str) -> Target<'t> {
        Target { namespace, resource, name, ..Target::default() }
    }

    pub fn of(group: &'t str, namespace: &'t str, resource: &'t str, name: &'t str) -> Target<'t> {
        Target { group, namespace, resource, name, ..Target::default() }
    }

    pub fn sub(self, subresource: &'t str) -> Target<'t> {
        Target { subresource, ..self }
    }
}

/// A request. Its buffers are JSON already and are used again for the next.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub id: Option<Uid>,
    pub received_us: i64,
    /// From receipt to the end, in microseconds.
    pub took_us: i64,
    pub level: Level,
    pub verb: &'static str,
    pub code: u64,
    /// Watches and sessions have an event when they start, too.
    pub is_long: bool,
    pub is_allowed: bool,
    uri: Vec<u8>,
    user: Vec<u8>,
    pub impersonated: Vec<u8>,
    address: Vec<u8>,
    pub agent: Vec<u8>,
    object: Vec<u8>,
    message: Vec<u8>,
    reason: Vec<u8>,
    pub request: Vec<u8>,
    pub response: Vec<u8>,
}

impl Draft {
    /// Begins a request that succeeds.
    pub fn start(&mut self, who: &Identity, verb: &'static str, level: Level) {
        let buffers = [
            &mut self.uri,
            &mut self.user,
            &mut self.impersonated,
            &mut self.address,
            &mut self.agent,
            &mut self.object,
            &mut self.message,
            &mut self.reason,
            &mut self.request,
            &mut self.response,
        ];
        buffers.into_iter().for_each(Vec::clear);
        self.user.extend_from_slice(&who.user);
        self.address.extend_from_slice(&who.address);
        self.agent.extend_from_slice(&who.agent);
        self.reason.extend_from_slice(&who.reason);
        self.verb = verb;
        self.level = level;
        self.code = if verb == "create" { 201 } else { 200 };
        self.is_long = verb == "watch";
        self.is_allowed = true;
    }

    /// Names the object and so the URI; `query` is without the question mark.
    pub fn target(&mut self, target: Target<'_>, query: &str) {
        let Target { group, namespace, resource, name, subresource, .. } = target;
        let version = if target.version.is_empty() { "v1" } else { target.version };
        let uri = &mut self.uri;
        match group {
            "" => put!(uri, "/api/", version),
            _ => put!(uri, "/apis/", group, "/", version),
        }
        if !namespace.is_empty() && resource != "namespaces" {
            put!(uri, "/namespaces/", namespace);
        }
        put!(uri, "/", resource);
        if !name.is_empty() && (self.verb != "create" || !subresource.is_empty()) {
            put!(uri, "/", name);
        }
        if !subresource.is_empty() {
            put!(uri, "/", subresource);
        }
        if !query.is_empty() {
            put!(uri, "?", Escaped(query));
        }
        let object = &mut self.object;
        put!(object, r#"{"resource":""#, resource, "\"");
        for (key, value) in [("namespace", namespace), ("name", name), ("apiGroup", group)] {
            if !value.is_empty() {
                put!(object, ",\"", key, "\":\"", value, "\"");
            }
        }
        put!(object, r#","apiVersion":""#, version, "\"");
        if !subresource.is_empty() {
            put!(object, r#","subresource":""#, subresource, "\"");
        }
        object.push(b'}');
    }

    /// A URL that is no resource.
    pub fn path(&mut self, path: &str) {
        put!(&mut self.uri, Escaped(path));
    }

    /// The request fails.
    pub fn fail(&mut self, code: u64, message: &str) {
        self.code = code;
        self.is_allowed = code != 403;
        self.message.clear();
        put!(&mut self.message, Escaped(message));
        if !self.is_allowed {
            self.reason.clear();
        }
    }

    /// Answers with what was sent.
    pub fn echo(&mut self) {
        self.response.clear();
        self.response.extend_from_slice(&self.request);
    }

    /// The stages that have an event, in order.
    pub fn stages(&self, is_all: bool) -> &'static [Stage] {
        match (is_all, self.is_long) {
            (true, true) => &[Stage::Received, Stage::Started, Stage::Complete],
            (true, false) => &[Stage::Received, Stage::Complete],
            (false, _) => &[Stage::Complete],
        }
    }

    /// Appends the event of one stage.
    pub fn write(&self, stage: Stage, out: &mut Vec<u8>) {
        let level = match self.level {
            Level::Metadata => "Metadata",
            Level::RequestResponse => "RequestResponse",
        };
        let (name, elapsed_us) = match stage {
            Stage::Received => ("RequestReceived", 0),
            Stage::Started => ("ResponseStarted", self.took_us / 4),
            Stage::Complete => ("ResponseComplete", self.took_us),
        };
        put!(out, r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":""#, level, r#"","auditID":""#);
        put!(out, self.id.unwrap_or(Uid(0, 0)), r#"","stage":""#, name, r#"","requestURI":""#, self.uri);
        put!(out, r#"","verb":""#, self.verb, r#"","user":"#, self.user);
        if !self.impersonated.is_empty() {
            put!(out, r#","impersonatedUser":"#, self.impersonated);
        }
        put!(out, r#","sourceIPs":[""#, self.address, r#""],"userAgent":""#, self.agent, "\"");
        if !self.object.is_empty() {
            put!(out, r#","objectRef":"#, self.object);
        }
        if stage != Stage::Received {
            self.write_status(out);
        }
        if stage == Stage::Complete && self.level == Level::RequestResponse {
            for (key, body) in [("requestObject", &self.request), ("responseObject", &self.response)] {
                if !body.is_empty() {
                    put!(out, ",\"", key, "\":", body);
                }
            }
        }
        put!(out, r#","requestReceivedTimestamp":""#, Micros(self.received_us));
        put!(out, r#"","stageTimestamp":""#, Micros(self.received_us + elapsed_us), "\"");
        if stage != Stage::Received {
            let decision = if self.is_allowed { "allow" } else { "forbid" };
            put!(out, r#","annotations":{"authorization.k8s.io/decision":""#, decision);
            put!(out, r#"","authorization.k8s.io/reason":""#, self.reason, r#""}"#);
        }
        out.push(b'}');
    }

    fn write_status(&self, out: &mut Vec<u8>) {
        put!(out, r#","responseStatus":{"metadata":{}"#);
        if self.code >= 400 {
            let reason = match self.code {
                401 => "Unauthorized",
                403 => "Forbidden",
                404 => "NotFound",
                409 => "Conflict",
                _ => "InternalError",
            };
            put!(out, r#","status":"Failure","message":""#, self.message, r#"","reason":""#, reason, "\"");
        }
        put!(out, r#","code":"#, self.code, "}");
    }
}
