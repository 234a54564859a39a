//! AKS and Arc: Azure Monitor diagnostic records, and rows of the Azure tables.

use super::decoder::{Around, Decoder};
use super::shape::{Shape, text};
use super::time;
use crate::json::write::Object;
use crate::json::{Cursor, JsonError, Text};
use crate::model::{Cloud, EventSink, RejectReason, SkipReason};

const CUT_BY_AZURE: &str =
    "; Azure's log pipeline cuts lines at 16 KiB: log less of large objects, AKS cannot be told to";

/// Whether a category is one of the two audit logs.
fn is_audit(category: Text<'_>) -> bool {
    [b"kube-audit".as_slice(), b"kube-audit-admin"].iter().any(|name| category.raw().eq_ignore_ascii_case(name))
}

impl<S: EventSink + ?Sized> Decoder<'_, S> {
    /// A diagnostic record: the event stands in `properties.log`, as a string or as an object.
    pub(super) fn azure_record(&mut self, record: &[u8], shape: &Shape<'_>, around: &Around) {
        let category = text(shape.category);
        let unescaped;
        let properties = match (shape.properties, text(shape.properties)) {
            (_, Some(properties)) => {
                unescaped = properties.decode();
                Shape::read(unescaped.as_bytes())
            }
            (Some(properties), None) => Shape::read(properties),
            (None, None) => Shape::default(),
        };
        let Some(log) = properties.log else {
            return self.azure_other(record, shape, category);
        };
        if category.is_some_and(|category| !is_audit(category)) {
            return self.skip(SkipReason::Category);
        }
        if self.admits(Cloud::Aks, record) {
            let inside = self.azure_around(shape.resource_id, shape.time, around);
            self.value(log, &inside);
        }
    }

    /// A record without `properties.log`: another category, or another of Azure's logs in the same hub.
    fn azure_other(&mut self, record: &[u8], shape: &Shape<'_>, category: Option<Text<'_>>) {
        if category.is_some_and(is_audit) {
            let detail = "an Azure audit record without `properties.log`";
            return self.reject(RejectReason::Malformed, detail, record);
        }
        let operation = text(shape.operation_name).map(|name| name.decode().to_ascii_lowercase());
        let is_diagnostic = operation.is_some_and(|name| name.ends_with("/diagnosticlogs/read"));
        self.skip(if is_diagnostic { SkipReason::Category } else { SkipReason::Foreign });
    }

    /// What a record or row says about the events in it.
    fn azure_around(&mut self, id: Option<&[u8]>, time: Option<&[u8]>, around: &Around) -> Around {
        let origin = match text(id).and_then(|id| self.origins.azure(id, self.options)) {
            Some(origin) => origin,
            None => self.origins.bare(Cloud::Aks, None, self.options, self.record, self.lane),
        };
        Around { origin: Some(origin), note: CUT_BY_AZURE, ..around.deeper_at(time.and_then(time::millis)) }
    }

    /// A row of a resource-specific table, or of `AzureDiagnostics` with the event in `log_s`.
    pub(super) fn azure_row(&mut self, row: &[u8], shape: &Shape<'_>, around: &Around) {
        let ids = [shape.table_resource_id, shape.resource_id, shape.diagnostics_resource_id];
        let id = ids.into_iter().find_map(|id| id);
        if let Some(log) = shape.log_s {
            if text(shape.table_category).is_some_and(|category| !is_audit(category)) {
                return self.skip(SkipReason::Category);
            }
            if self.admits(Cloud::Aks, row) {
                let inside = self.azure_around(id, shape.time_generated, around);
                self.value(log, &inside);
            }
            return;
        }
        if shape.table_audit_id.is_none() {
            let is_aks = text(shape.table).is_some_and(|table| table.raw().starts_with(b"AKS"));
            return self.skip(if is_aks { SkipReason::Category } else { SkipReason::Foreign });
        }
        if self.admits(Cloud::Aks, row) {
            let inside = self.azure_around(id, shape.time_generated, around);
            let mut event = self.buffer();
            transcode(row, &mut event);
            self.event(&event, &inside);
            self.give_back(event);
        }
    }
}

/// Rewrites a table row as a canonical event. A cut row gives a cut event.
fn transcode(row: &[u8], out: &mut Vec<u8>) {
    let mut event = Object::open(out);
    event.str("kind", "Event");
    event.str("apiVersion", "audit.k8s.io/v1");
    let walked = Cursor::new(row).object(|cursor, key| {
        let (name, dynamic) = match key.raw() {
            b"AuditId" => ("auditID", false),
            b"Level" => ("level", false),
            b"Stage" => ("stage", false),
            b"RequestUri" => ("requestURI", false),
            b"Verb" => ("verb", false),
            b"User" => ("user", true),
            b"ImpersonatedUser" => ("impersonatedUser", true),
            b"SourceIps" => ("sourceIPs", true),
            b"UserAgent" => ("userAgent", false),
            b"ObjectRef" => ("objectRef", true),
            b"ResponseStatus" => ("responseStatus", true),
            b"RequestObject" => ("requestObject", true),
            b"ResponseObject" => ("responseObject", true),
            b"RequestReceivedTime" => ("requestReceivedTimestamp", false),
            b"StageReceivedTime" => ("stageTimestamp", false),
            b"Annotations" => ("annotations", true),
            _ => return Ok(()),
        };
        let raw = cursor.raw()?;
        match raw.text() {
            Some(inside) if inside.is_empty() => {}
            // A dynamic column that arrived as a string; one that holds no JSON is a string indeed.
            Some(inside) if dynamic && matches!(inside.raw().first(), Some(b'{' | b'[')) => {
                let decoded = inside.decode();
                let whole = serde_json::from_str::<serde::de::IgnoredAny>(&decoded).is_ok();
                event.raw(name, Some(if whole { decoded.as_bytes() } else { raw.bytes() }));
            }
            _ => event.raw(name, Some(raw.bytes())),
        }
        Ok::<_, JsonError>(())
    });
    if walked.is_ok() {
        event.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_columns_may_be_strings() {
        let row = br#"{"AuditId":"a","Verb":"get","User":"{\"username\":\"jane\"}","SourceIps":["203.0.113.7"],
            "RequestObject":"skipped-too-big-size-object","ResponseObject":"","ObjectRef":"{\"cut"}"#;
        let mut out = Vec::new();
        transcode(row, &mut out);
        let event: serde_json::Value = serde_json::from_slice(&out).expect("valid");
        let expected = serde_json::json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "verb": "get",
            "user": {"username": "jane"}, "sourceIPs": ["203.0.113.7"],
            "requestObject": "skipped-too-big-size-object", "objectRef": "{\"cut",
        });
        assert_eq!(event, expected);
    }
}
