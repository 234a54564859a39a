//! The hot walk: one pass over the top level of a canonical audit event.
//!
//! Takes `audit.k8s.io/v1`, `v1beta1` and events without kind and apiVersion (items of a list). Bodies are spans: they
//! are neither parsed nor validated here, however deep or large, and unknown keys are stepped over. A walk stops at
//! `"stage":"RequestReceived"`, so bodies behind it are not even skipped.
//!
//! A text that ends too early or breaks off yields what was read before the damage, with `cut` set.

use crate::json::{Cursor, JsonError, Raw, Text};
use crate::model::EventFields;

/// How a kube-apiserver begins an event; the `apiVersion` may be any version.
const PREFIX: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/"#;
/// How it begins an item of a list.
const ITEM_PREFIX: &[u8] = br#"{"level":""#;

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The event is whole.
    Complete,
    /// The stage is `RequestReceived`; what follows it was not read and [`Walked::end`] is not known.
    NotEvaluated,
    /// The text broke off; the fields are those before the damage.
    Damaged(JsonError),
}

/// What a walk found.
#[derive(Debug, Clone, Copy)]
pub struct Walked<'a> {
    pub fields: EventFields<'a>,
    pub ending: Ending,
    /// Bytes of the text that the event takes; all of them unless the event is complete.
    pub end: usize,
    /// Merged in by OpenShift's log forwarder.
    pub openshift: bool,
    /// Name or id of the cluster where a distribution adds it to the event itself.
    pub cluster: Option<Text<'a>>,
}

impl Walked<'_> {
    /// Whether enough of a damaged event is known to evaluate it: what was done, and by whom or under which id.
    pub fn has_head(&self) -> bool {
        let fields = &self.fields;
        (fields.verb.is_some() || fields.uri.is_some()) && (fields.user.is_some() || fields.audit_id.is_some())
    }

    /// Whether a whole event says anything at all.
    pub fn says_something(&self) -> bool {
        let fields = &self.fields;
        fields.verb.is_some()
            || fields.uri.is_some()
            || fields.user.is_some()
            || fields.audit_id.is_some()
            || fields.object_ref.is_some()
    }
}

/// Why the callback stopped.
enum Stop {
    Stage,
    Json(JsonError),
}

impl From<JsonError> for Stop {
    fn from(error: JsonError) -> Stop {
        Stop::Json(error)
    }
}

/// Whether the text begins as a kube-apiserver writes an event, which spares looking for wrappers.
#[inline]
pub(super) fn starts_as_event(text: &[u8]) -> bool {
    text.starts_with(PREFIX)
}

/// Whether the text begins as an item of an EventList.
#[inline]
pub(super) fn starts_as_item(text: &[u8]) -> bool {
    text.starts_with(ITEM_PREFIX)
}

/// Walks the event that the text begins with. The caller has made sure that it is one.
pub fn walk(text: &[u8]) -> Walked<'_> {
    let mut fields = EventFields { text, ..EventFields::default() };
    let mut openshift = false;
    let mut cluster = None;
    let mut policy_level = None;
    let mut cursor = Cursor::new(text);
    let result = cursor.object(|cursor, key| {
        match key.raw() {
            b"level" => fields.level = cursor.text()?,
            b"auditID" => fields.audit_id = cursor.text()?,
            b"stage" => {
                fields.stage = cursor.text()?;
                if fields.stage.is_some_and(|stage| stage.raw() == b"RequestReceived") {
                    return Err(Stop::Stage);
                }
            }
            b"requestURI" => fields.uri = cursor.text()?,
            b"verb" => fields.verb = cursor.text()?,
            b"user" => fields.user = value(cursor)?,
            b"impersonatedUser" => fields.impersonated_user = value(cursor)?,
            b"sourceIPs" => fields.source_ips = value(cursor)?,
            b"userAgent" => fields.user_agent = cursor.text()?,
            b"objectRef" => fields.object_ref = value(cursor)?,
            b"responseStatus" => fields.response_status = value(cursor)?,
            b"requestObject" => fields.request_object = value(cursor)?,
            b"responseObject" => fields.response_object = value(cursor)?,
            b"requestReceivedTimestamp" => fields.request_time = cursor.text()?,
            b"stageTimestamp" => fields.stage_time = cursor.text()?,
            b"annotations" => fields.annotations = value(cursor)?,
            b"k8s_audit_level" | b"openshift_audit_level" => {
                // The forwarder puts a log severity into `level` and keeps the policy's level here.
                openshift = true;
                policy_level = cursor.text()?;
            }
            b"log_source" => openshift = true,
            b"openshift" => {
                openshift = true;
                cluster = cursor.raw().map(cluster_id)?;
            }
            b"_gdch_cluster" => cluster = cursor.text()?,
            _ => {}
        }
        Ok(())
    });
    if policy_level.is_some() {
        fields.level = policy_level;
    }
    let mut end = text.len();
    let ending = match result {
        Ok(true) => {
            end = cursor.position();
            fields.text = text.get(..end).unwrap_or(text);
            Ending::Complete
        }
        Ok(false) => Ending::Damaged(JsonError::Malformed { at: 0 }),
        Err(Stop::Stage) => Ending::NotEvaluated,
        Err(Stop::Json(error)) => Ending::Damaged(error),
    };
    fields.cut = matches!(ending, Ending::Damaged(_));
    Walked { fields, ending, end, openshift, cluster }
}

/// A value's span; `null` counts as absent.
#[inline]
fn value<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Raw<'a>>, JsonError> {
    let raw = cursor.raw()?;
    Ok((raw.bytes() != b"null").then_some(raw))
}

/// `openshift.cluster_id`.
fn cluster_id(openshift: Raw<'_>) -> Option<Text<'_>> {
    let mut id = None;
    let walked = openshift.cursor().object(|cursor, key| {
        if key.raw() == b"cluster_id" {
            id = cursor.text()?;
        }
        Ok::<_, JsonError>(())
    });
    walked.ok().and(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/pods","verb":"list","user":{"username":"jane"},"sourceIPs":["203.0.113.4"],"responseStatus":{"code":200},"requestObject":{"spec":{"x":[1,2]}},"stageTimestamp":"2026-03-04T10:15:30.150001Z"}"#;

    #[test]
    fn takes_the_top_level_and_ends_at_the_event() {
        let text = format!("{EVENT}\n{{}}");
        let walked = walk(text.as_bytes());
        assert_eq!((walked.ending, walked.end), (Ending::Complete, EVENT.len()));
        let fields = walked.fields;
        assert_eq!(fields.text, EVENT.as_bytes());
        assert_eq!(fields.verb.map(|verb| verb.raw()), Some(b"list".as_slice()));
        assert_eq!(fields.request_object.map(|body| body.bytes()), Some(br#"{"spec":{"x":[1,2]}}"#.as_slice()));
        assert!(!fields.cut && fields.annotations.is_none());
    }

    #[test]
    fn every_cut_keeps_what_came_before() {
        for end in 0..EVENT.len() {
            let walked = walk(&EVENT.as_bytes()[..end]);
            assert!(matches!(walked.ending, Ending::Damaged(_)) && walked.fields.cut, "cut at {end}");
            let place = |part: &str| EVENT.find(part).expect("it is there");
            // The quote that closes the URI, the brace that closes the user.
            assert_eq!(walked.has_head(), end > place(r#"","verb""#), "cut at {end}");
            assert_eq!(walked.fields.user.is_some(), end > place(r#"},"sourceIPs"#), "cut at {end}");
        }
    }

    #[test]
    fn request_received_stops_the_walk_before_the_bodies() {
        let text = br#"{"auditID":"a","stage":"RequestReceived","requestObject":{"#;
        assert_eq!(walk(text).ending, Ending::NotEvaluated);
    }

    #[test]
    fn damage_in_the_middle_is_told_with_its_place() {
        let walked = walk(br#"{"verb":"get","auditID":"a" "stage":"Panic"}"#);
        assert_eq!(walked.ending, Ending::Damaged(JsonError::Malformed { at: 28 }));
        assert!(walked.has_head());
    }

    #[test]
    fn openshift_keeps_the_level_of_the_policy() {
        let walked =
            walk(br#"{"level":"info","k8s_audit_level":"Metadata","openshift":{"cluster_id":"c-1"},"auditID":"a"}"#);
        assert!(walked.openshift);
        assert_eq!(walked.fields.level.map(|level| level.raw()), Some(b"Metadata".as_slice()));
        assert_eq!(walked.cluster.map(|cluster| cluster.raw()), Some(b"c-1".as_slice()));
    }
}
