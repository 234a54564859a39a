//! An audit event as Google re-encodes it: a Cloud Logging entry with an `AuditLog` payload.
//!
//! Lost on the way, as at Google: level, groups, uid and extra of the user, the query string (a command and a dry run
//! survive as labels), all addresses but the last, the HTTP code unless the response is a `Status`, and bodies that are
//! no objects, which the payload's type cannot hold.

use std::borrow::Cow;

use super::each_member;
use crate::json::write::{Object, string};
use crate::json::{Cursor, JsonError, Kind, Raw, Text};

const PROJECT: &str = "shop-prod";
const LOCATION: &str = "europe-west1";

/// What is carried over, as spans of the event.
#[derive(Default)]
struct Event<'a> {
    audit_id: Option<Text<'a>>,
    stage: Option<Text<'a>>,
    verb: Option<Text<'a>>,
    uri: Option<Text<'a>>,
    user: Option<Text<'a>>,
    impersonated: Option<Text<'a>>,
    address: Option<Text<'a>>,
    user_agent: Option<Text<'a>>,
    object: Option<Reference<'a>>,
    code: Option<i64>,
    message: Option<Text<'a>>,
    request: Option<Raw<'a>>,
    response: Option<Raw<'a>>,
    request_time: Option<Text<'a>>,
    stage_time: Option<Text<'a>>,
    annotations: Option<Raw<'a>>,
    decision: Option<Text<'a>>,
}

/// `objectRef`, absent parts empty.
#[derive(Default)]
struct Reference<'a> {
    group: Cow<'a, str>,
    version: Cow<'a, str>,
    namespace: Cow<'a, str>,
    resource: Cow<'a, str>,
    name: Cow<'a, str>,
    subresource: Cow<'a, str>,
}

/// The entry of one event; none for a request that was merely received.
pub(super) fn entry(event: &[u8], cluster: &str) -> Option<Vec<u8>> {
    let event = Event::read(event);
    if event.stage.is_some_and(|stage| stage.is("RequestReceived")) {
        return None;
    }
    let verb = decode(event.verb);
    let uri = decode(event.uri);
    let (path, query) = uri.split_once('?').unwrap_or((&*uri, ""));
    let (method, resource) = match &event.object {
        Some(object) => (object.method(&verb), object.place(path, event.response)),
        None => (format!("io.k8s.{verb}"), path.trim_start_matches('/').to_owned()),
    };
    let mut out = Vec::with_capacity(2048);
    let mut entry = Object::open(&mut out);
    let id = decode(event.audit_id);
    entry.str("insertId", &id);
    let log = if matches!(&*verb, "get" | "list" | "watch") { "data_access" } else { "activity" };
    entry.str("logName", &format!("projects/{PROJECT}/logs/cloudaudit.googleapis.com%2F{log}"));
    let time = event.request_time.or(event.stage_time);
    entry.str("timestamp", &decode(time));
    entry.str("receiveTimestamp", &decode(event.stage_time.or(time)));
    let mut monitored = entry.object("resource");
    monitored.str("type", "k8s_cluster");
    let mut labels = monitored.object("labels");
    labels.str("cluster_name", cluster);
    labels.str("location", LOCATION);
    labels.str("project_id", PROJECT);
    labels.close();
    monitored.close();
    event.write_labels(query, &mut entry);
    let mut operation = entry.object("operation");
    operation.str("id", &id);
    operation.str("producer", "k8s.io");
    operation.raw("first", b"true".as_slice());
    // A request that has merely begun to be answered is followed by another entry with the same id.
    if event.stage.is_none_or(|stage| !stage.is("ResponseStarted")) {
        operation.raw("last", b"true".as_slice());
    }
    operation.close();
    event.write_payload(&verb, &method, &resource, &mut entry);
    entry.close();
    Some(out)
}

impl<'a> Event<'a> {
    fn read(text: &'a [u8]) -> Event<'a> {
        let mut event = Event::default();
        each_member(text, |key, value| {
            let value = RawSpan(value);
            match key.raw() {
                b"auditID" => event.audit_id = value.text(),
                b"stage" => event.stage = value.text(),
                b"verb" => event.verb = value.text(),
                b"requestURI" => event.uri = value.text(),
                b"user" => event.user = value.member("username"),
                b"impersonatedUser" => event.impersonated = value.member("username"),
                b"sourceIPs" => event.address = value.last(),
                b"userAgent" => event.user_agent = value.text(),
                b"objectRef" => event.object = Some(Reference::read(value)),
                b"responseStatus" => {
                    event.code = value.integer("code");
                    event.message = value.member("message");
                }
                b"requestObject" => event.request = value.object(),
                b"responseObject" => event.response = value.object(),
                b"requestReceivedTimestamp" => event.request_time = value.text(),
                b"stageTimestamp" => event.stage_time = value.text(),
                b"annotations" => {
                    event.annotations = value.object();
                    event.decision = value.member("authorization.k8s.io/decision");
                }
                _ => {}
            }
        });
        event
    }

    /// Labels are the annotations, and what Google saves of the query string.
    fn write_labels(&self, query: &str, entry: &mut Object<'_>) {
        let mut labels = entry.object("labels");
        if let Some(annotations) = self.annotations {
            each_member(annotations.bytes(), |key, value| {
                labels.raw_key(key.raw());
                labels.out.extend_from_slice(value);
            });
        }
        let mut words = Vec::new();
        for parameter in query.split('&') {
            match parameter.split_once('=') {
                Some(("command", word)) => words.push(percent_decoded(word)),
                Some(("dryRun", value)) if !value.is_empty() => labels.str("command.gke.io/dryRun", value),
                _ => {}
            }
        }
        let labelled =
            self.annotations.is_some_and(|all| memchr::memmem::find(all.bytes(), b"command.gke.io/command").is_some());
        if !words.is_empty() && !labelled {
            let mut list = vec![b'['];
            for (index, word) in words.iter().enumerate() {
                if index > 0 {
                    list.push(b',');
                }
                string(&mut list, word);
            }
            list.push(b']');
            labels.key("command.gke.io/command");
            string(labels.out, &list);
        }
        labels.close();
    }

    fn write_payload(&self, verb: &str, method: &str, resource: &str, entry: &mut Object<'_>) {
        let mut payload = entry.object("protoPayload");
        payload.str("@type", "type.googleapis.com/google.cloud.audit.AuditLog");
        payload.str("serviceName", "k8s.io");
        payload.str("methodName", method);
        payload.str("resourceName", resource);
        let mut authentication = payload.object("authenticationInfo");
        if let Some(user) = self.user {
            authentication.str("principalEmail", &user.decode());
        }
        if let Some(user) = self.impersonated {
            authentication.str("authoritySelector", &user.decode());
        }
        authentication.close();
        if let Some(decision) = self.decision {
            payload.key("authorizationInfo");
            payload.out.push(b'[');
            let mut authorization = Object::open(payload.out);
            // Protobuf leaves out what is false.
            if decision.is("allow") {
                authorization.raw("granted", b"true".as_slice());
            }
            authorization.str("permission", method);
            authorization.str("resource", resource);
            authorization.close();
            payload.out.push(b']');
        }
        let mut metadata = payload.object("requestMetadata");
        if let Some(address) = self.address {
            metadata.str("callerIp", &address.decode());
        }
        if let Some(agent) = self.user_agent {
            metadata.str("callerSuppliedUserAgent", &agent.decode());
        }
        metadata.close();
        if let Some(request) = self.request {
            write_body("request", request, verb == "patch", &mut payload);
        }
        if let Some(response) = self.response {
            write_body("response", response, false, &mut payload);
        }
        if let Some(code) = self.code {
            let mut status = payload.object("status");
            if code >= 400 {
                status.raw("code", rpc_code(code).to_string().as_bytes());
                if let Some(message) = self.message {
                    status.str("message", &message.decode());
                }
            }
            status.close();
        }
        payload.close();
    }
}

impl<'a> Reference<'a> {
    fn read(value: RawSpan<'a>) -> Reference<'a> {
        let mut object = Reference::default();
        each_member(value.0, |key, value| {
            let value = || decode(RawSpan(value).text());
            match key.raw() {
                b"apiGroup" => object.group = value(),
                b"apiVersion" => object.version = value(),
                b"namespace" => object.namespace = value(),
                b"resource" => object.resource = value(),
                b"name" => object.name = value(),
                b"subresource" => object.subresource = value(),
                _ => {}
            }
        });
        object
    }

    /// `methodName`: group in reverse, version, resource, subresource, verb.
    fn method(&self, verb: &str) -> String {
        let mut method = match &*self.group {
            "" => "io.k8s.core".to_owned(),
            group if group.contains('.') => group.rsplit('.').collect::<Vec<_>>().join("."),
            group => format!("io.k8s.{group}"),
        };
        for part in [&*self.version, &*self.resource, &*self.subresource, verb] {
            if !part.is_empty() {
                method.push('.');
                method.push_str(part);
            }
        }
        method
    }

    /// `resourceName`; a generated name and the path behind a proxy are in it.
    fn place(&self, path: &str, response: Option<Raw<'_>>) -> String {
        let generated = match (&*self.name, response) {
            ("", Some(response)) => name_of(response),
            _ => None,
        };
        let mut place = if self.group.is_empty() { "core".to_owned() } else { self.group.to_string() };
        place.push('/');
        place.push_str(&self.version);
        let mut add = |part: &str| {
            if !part.is_empty() {
                place.push('/');
                place.push_str(part);
            }
        };
        if !self.namespace.is_empty() && self.resource != "namespaces" {
            add("namespaces");
            add(&self.namespace);
        }
        add(&self.resource);
        add(generated.as_deref().unwrap_or(&self.name));
        add(&self.subresource);
        if self.subresource == "proxy"
            && let Some((_, behind)) = path.split_once("/proxy/")
        {
            add(behind);
        }
        place
    }
}

/// The span of one member's value.
#[derive(Clone, Copy)]
struct RawSpan<'a>(&'a [u8]);

impl<'a> RawSpan<'a> {
    fn raw(self) -> Option<Raw<'a>> {
        Cursor::new(self.0).raw().ok()
    }

    fn text(self) -> Option<Text<'a>> {
        self.raw()?.text()
    }

    fn object(self) -> Option<Raw<'a>> {
        self.raw().filter(|raw| raw.kind() == Kind::Object)
    }

    fn member(self, name: &str) -> Option<Text<'a>> {
        let mut found = None;
        each_member(self.0, |key, value| {
            if key.is(name) {
                found = RawSpan(value).text();
            }
        });
        found
    }

    fn integer(self, name: &str) -> Option<i64> {
        let mut found = None;
        each_member(self.0, |key, value| {
            if key.is(name) {
                found = Cursor::new(value).integer().ok().flatten();
            }
        });
        found
    }

    fn last(self) -> Option<Text<'a>> {
        let mut last = None;
        let _broken: Result<bool, JsonError> = Cursor::new(self.0).array(|cursor| {
            last = cursor.text()?.or(last);
            Ok(())
        });
        last
    }
}

fn decode(text: Option<Text<'_>>) -> Cow<'_, str> {
    text.map(|text| text.decode()).unwrap_or_default()
}

/// The name that a created object got; a list has none.
fn name_of(response: Raw<'_>) -> Option<String> {
    let mut name = None;
    each_member(response.bytes(), |key, value| {
        if key.is("metadata") {
            name = RawSpan(value).member("name").map(|name| name.decode().into_owned());
        }
    });
    name
}

/// A body with the type that Google adds in front.
fn write_body(name: &str, body: Raw<'_>, is_patch: bool, payload: &mut Object<'_>) {
    let span = RawSpan(body.bytes());
    let kind = match (is_patch, span.member("apiVersion"), span.member("kind")) {
        (true, ..) => Some("k8s.io/Patch".to_owned()),
        (false, Some(version), Some(kind)) => {
            let version = version.decode();
            let version = match version.split_once('/') {
                None => format!("core.k8s.io/{version}"),
                Some((group, _)) if group.contains('.') => version.into_owned(),
                Some((group, version)) => format!("{group}.k8s.io/{version}"),
            };
            Some(format!("{version}.{}", kind.decode()))
        }
        _ => None,
    };
    let mut object = payload.object(name);
    if let Some(kind) = kind {
        object.str("@type", &kind);
    }
    each_member(body.bytes(), |key, value| {
        object.raw_key(key.raw());
        object.out.extend_from_slice(value);
    });
    object.close();
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

/// The google.rpc code that stands for an HTTP code of a failure.
fn rpc_code(http: i64) -> u8 {
    match http {
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 10,
        429 => 8,
        499 => 1,
        501 => 12,
        503 => 14,
        504 => 4,
        400..=498 => 3,
        _ => 13,
    }
}
