//! What a JSON object is, told by its keys: one pass that keeps the spans of the keys that tell forms apart.

use crate::json::{Cursor, JsonError, Text};

/// A form that a record, or an object inside one, can have. The order of the tests is that of `formats.md` section 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A canonical event.
    Event,
    /// A canonical list of events.
    EventList,
    /// `kind: Event` of the core or `events.k8s.io` group, which is no audit event.
    CoreEvent,
    CloudWatch,
    /// `awslogs.data`.
    Lambda,
    /// `records` or `Records`: Firehose, Kinesis, Azure Monitor.
    Records,
    /// One element of a Firehose or Kinesis batch.
    Data,
    LogEntry,
    /// A Google log entry without an audit payload.
    OtherLogEntry,
    /// An Azure Monitor record with `properties`.
    AzureRecord,
    /// A row of an Azure table.
    AzureRow,
    PubSub,
    /// `schema` and `payload`.
    Connect,
    Otlp,
    /// An OTLP value.
    AnyValue,
    /// An OpenShift log record that is not of the API audit logs.
    OpenShiftOther,
    Rancher,
    /// An event, or one of the forms above, under a collector's key.
    Wrapper,
    Unknown,
}

macro_rules! shape {
    ($( $field:ident $key:literal ),* $(,)?) => {
        /// Spans of the values of telling keys. A span that ends with the text is that of a cut value.
        #[derive(Debug, Default, Clone, Copy)]
        pub(super) struct Shape<'a> {
            $( pub $field: Option<&'a [u8]>, )*
            /// Where the object broke off, if it did.
            pub damage: Option<JsonError>,
        }

        impl<'a> Shape<'a> {
            /// Reads the object that a text begins with; a cut one as far as it goes.
            pub fn read(text: &'a [u8]) -> Shape<'a> {
                let mut shape = Shape::default();
                let result = Cursor::new(text).object(|cursor, key| {
                    let slot = match key.raw() {
                        $( $key => &mut shape.$field, )*
                        _ => return Ok(()),
                    };
                    let rest = cursor.rest();
                    match cursor.raw() {
                        Ok(raw) => *slot = (raw.bytes() != b"null").then_some(raw.bytes()),
                        Err(error) => {
                            *slot = Some(rest);
                            return Err(error);
                        }
                    }
                    Ok(())
                });
                shape.damage = result.err();
                shape
            }
        }
    };
}

shape! {
    kind b"kind", api_version b"apiVersion", audit_id b"auditID", stage b"stage", verb b"verb",
    request_uri b"requestURI", level b"level", items b"items",
    involved_object b"involvedObject", regarding b"regarding",
    message_type b"messageType", owner b"owner", log_group b"logGroup", log_stream b"logStream",
    log_events b"logEvents",
    awslogs b"awslogs", records b"records", kinesis_records b"Records", kinesis b"kinesis", data b"data",
    kinesis_data b"Data",
    proto_payload b"protoPayload", log_name b"logName",
    properties b"properties", category b"category", table_category b"Category", operation_name b"operationName",
    resource_id b"resourceId", table_resource_id b"_ResourceId", diagnostics_resource_id b"ResourceId",
    table_audit_id b"AuditId", table b"Type", time_generated b"TimeGenerated", log_s b"log_s",
    subscription b"subscription", publish_time b"publishTime",
    schema b"schema", payload b"payload",
    resource_logs b"resourceLogs", string_value b"stringValue", list_value b"kvlistValue",
    log_source b"log_source", log_type b"log_type", openshift b"openshift", structured b"structured",
    response_code b"responseCode", request_timestamp b"requestTimestamp", method b"method",
    log b"log", message b"message", event b"event", original b"original", body b"body", msg b"msg",
    at_timestamp b"@timestamp", timestamp b"timestamp", time b"time", date b"date",
}

/// The string that a value is, if it is one and whole.
pub(super) fn text(value: Option<&[u8]>) -> Option<Text<'_>> {
    Cursor::new(value?).text().ok().flatten()
}

fn is(value: Option<&[u8]>, wanted: &[u8]) -> bool {
    text(value).is_some_and(|text| text.raw() == wanted)
}

fn is_container(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| matches!(value.first(), Some(b'{' | b'[')))
}

impl<'a> Shape<'a> {
    /// What the object is.
    pub fn form(&self) -> Form {
        if let Some(form) = self.kubernetes_form() {
            return form;
        }
        let is_row = self.table.is_some() && self.time_generated.is_some();
        match self {
            _ if self.log_events.is_some() && (self.message_type.is_some() || self.log_group.is_some()) => {
                Form::CloudWatch
            }
            _ if self.awslogs.is_some() => Form::Lambda,
            _ if is_container(self.records) || is_container(self.kinesis_records) => Form::Records,
            _ if is_container(self.proto_payload) => Form::LogEntry,
            _ if self.table_audit_id.is_some() || self.log_s.is_some() || is_row => Form::AzureRow,
            _ if self.is_azure_record() => Form::AzureRecord,
            _ if self.is_push() => Form::PubSub,
            _ if self.schema.is_some() && self.payload.is_some() => Form::Connect,
            _ if is_container(self.resource_logs) => Form::Otlp,
            _ if self.string_value.is_some() || self.list_value.is_some() => Form::AnyValue,
            _ if self.is_openshift_other() => Form::OpenShiftOther,
            _ if self.candidates().iter().any(Option::is_some) => Form::Wrapper,
            _ if self.data.is_some() || self.kinesis_data.is_some() || is_container(self.kinesis) => Form::Data,
            _ if self.log_name.is_some() => Form::OtherLogEntry,
            _ => Form::Unknown,
        }
    }

    /// The forms that Kubernetes and Rancher write.
    fn kubernetes_form(&self) -> Option<Form> {
        let api = text(self.api_version);
        let is_audit = api.is_some_and(|api| api.raw().starts_with(b"audit.k8s.io/"));
        if is(self.kind, b"EventList") {
            let form = if is_audit || api.is_none() { Form::EventList } else { Form::CoreEvent };
            return Some(form);
        }
        let is_event = is(self.kind, b"Event");
        if is_event && is_audit {
            return Some(Form::Event);
        }
        if is_event && (api.is_some() || self.involved_object.is_some() || self.regarding.is_some()) {
            return Some(Form::CoreEvent);
        }
        if self.kind.is_some() && !is_event {
            // Some other Kubernetes object, whose own keys (`data`, `message`) are no wrappers.
            return api.is_some().then_some(Form::Unknown);
        }
        if self.request_uri.is_some() && (self.response_code.is_some() || self.request_timestamp.is_some()) {
            return Some(Form::Rancher);
        }
        let marks = [self.audit_id, self.stage, self.verb, self.request_uri];
        let marked = marks.iter().filter(|mark| mark.is_some()).count();
        // Two marks do for what says what it is; anything else must look like nothing else, and a cut object could be
        // Rancher's, which has no level.
        let says_so = is_event || is_audit;
        let enough = if says_so { 2 } else { 3 };
        let is_clear = says_so || self.method.is_none() && (self.damage.is_none() || self.level.is_some());
        (marked >= enough && is_clear).then_some(Form::Event)
    }

    fn is_azure_record(&self) -> bool {
        let named = self.operation_name.is_some() || self.resource_id.is_some();
        self.category.is_some() && (self.properties.is_some() || named) || self.properties.is_some() && named
    }

    fn is_push(&self) -> bool {
        self.subscription.is_some() && is_container(self.message)
            || self.message.is_some_and(|message| {
                message.first() == Some(&b'{') && {
                    let inner = Shape::read(message);
                    inner.data.is_some() && inner.publish_time.is_some()
                }
            })
    }

    fn is_openshift_other(&self) -> bool {
        let forwarded = self.openshift.is_some() || self.log_source.is_some();
        let other_type = text(self.log_type).is_some_and(|kind| kind.raw() != b"audit");
        let other_source = text(self.log_source).is_some_and(|source| matches!(source.raw(), b"auditd" | b"ovn"));
        forwarded && (other_type || other_source)
    }

    fn candidates(&self) -> [Option<&'a [u8]>; 8] {
        [self.structured, self.log, self.message, self.original, self.event, self.body, self.payload, self.msg]
    }

    /// The value under a collector's key that most likely holds the event: the first that looks like something we know,
    /// else the first string.
    pub fn wrapped(&self) -> Option<&'a [u8]> {
        let candidates = self.candidates();
        let mut values = candidates.iter().copied().flatten();
        values.find(|value| promises(value)).or_else(|| {
            let mut values = candidates.iter().copied().flatten();
            values.find(|value| value.first() == Some(&b'"'))
        })
    }

    /// Time that the envelope gives, milliseconds since the epoch.
    pub fn time_ms(&self) -> Option<i64> {
        let times = [self.at_timestamp, self.timestamp, self.time, self.date, self.time_generated];
        times.into_iter().flatten().find_map(super::time::millis)
    }
}

/// Whether a collector's value may hold an event.
fn promises(value: &[u8]) -> bool {
    match value.first() {
        Some(b'"') => {
            let inside = value.get(1..).unwrap_or_default().trim_ascii_start();
            let starts_json = matches!(inside.first(), Some(b'{' | b'[')) || inside.starts_with(br#"\""#);
            starts_json
                || super::inflate::starts_like_base64(inside)
                || inside.first().is_some_and(u8::is_ascii_digit) && memchr::memchr(b'{', inside).is_some()
        }
        Some(b'{') => Shape::read(value).form() != Form::Unknown,
        Some(b'[') => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        Shape::read(text.as_bytes()).form()
    }

    #[test]
    fn forms_are_told_by_their_keys() {
        for (text, expected) in [
            (r#"{"apiVersion":"audit.k8s.io/v1beta1","kind":"Event"}"#, Form::Event),
            (r#"{"kind":"Event","stage":"Panic","verb":"get"}"#, Form::Event),
            (r#"{"auditID":"a","stage":"Panic","verb":"get"}"#, Form::Event),
            (r#"{"kind":"Event","apiVersion":"v1","involvedObject":{}}"#, Form::CoreEvent),
            (r#"{"kind":"Event","involvedObject":{}}"#, Form::CoreEvent),
            (r#"{"kind":"EventList","apiVersion":"events.k8s.io/v1","items":[]}"#, Form::CoreEvent),
            (r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[]}"#, Form::EventList),
            (r#"{"kind":0}"#, Form::Unknown),
            (r#"{"kind":"ConfigMap","apiVersion":"v1","data":{},"message":"{}"}"#, Form::Unknown),
            (r#"{"records":[]}"#, Form::Records),
            (r#"{"auditID":"a","requestURI":"/v3","verb":"get","stage":"x","responseCode":200}"#, Form::Rancher),
            (r#"{"auditID":"a","requestURI":"/v3","method":"GET","requestTimestamp":"x"}"#, Form::Rancher),
            (r#"{"log":"x"}"#, Form::Wrapper),
            (r#"{"log_source":"ovn","message":"x"}"#, Form::OpenShiftOther),
            (r#"{"logName":"projects/p/logs/x","jsonPayload":{}}"#, Form::OtherLogEntry),
            (r#"{"hello":1}"#, Form::Unknown),
        ] {
            assert_eq!(form(text), expected, "{text}");
        }
    }

    #[test]
    fn a_collectors_own_log_key_is_not_mistaken_for_the_event() {
        let text = br#"{"log":{"offset":1,"file":{"path":"/x"}},"message":"{\"kind\":\"Event\"}"}"#;
        let shape = Shape::read(text);
        assert_eq!(shape.form(), Form::Wrapper);
        assert_eq!(shape.wrapped(), shape.message);
    }

    #[test]
    fn a_cut_value_is_kept_to_its_end() {
        let shape = Shape::read(br#"{"logGroup":"g","logEvents":[{"message":"{"#);
        assert_eq!((shape.form(), shape.damage), (Form::CloudWatch, Some(JsonError::Cut)));
        assert_eq!(shape.log_events, Some(br#"[{"message":"{"#.as_slice()));
    }
}
