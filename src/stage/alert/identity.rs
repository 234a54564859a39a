//! Names that depend on nothing but content.
//!
//! A finding's uid covers the detection, the cluster, the entity and the bucket of the request's time, or the request
//! alone where suppression is off; of a detection with memory, whatever its memory names. An emission's uid covers the finding and the events that the emission lists. Order
//! of arrival, host, offset and the time of the run are no inputs, so a replay yields the same names.
//!
//! Every part is framed (a tag, then the length, then the bytes): no two lists of parts share one encoding, and null
//! differs from the empty string.

use std::sync::Arc;

use serde_json::Value;

use crate::model::first_half;

/// Version of the recipe; changing it renames every finding, which consumers key their tickets on.
const FINDING_RECIPE: &str = "kubetide.finding.1";
const EMISSION_RECIPE: &str = "kubetide.emission.1";

/// Identity of a finding: 128 bits of BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FindingId([u8; 16]);

impl FindingId {
    /// The form that leaves the program: 32 hexadecimal digits.
    pub fn hex(self) -> Arc<str> {
        hex(self.0)
    }

    /// The form that is kept.
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The id of which [`FindingId::bytes`] gave these.
    pub fn of(bytes: [u8; 16]) -> FindingId {
        FindingId(bytes)
    }
}

/// Identity of a request, as a number that is cheap to remember.
pub type RequestId = u128;

/// What the repeats of a finding have in common.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// One finding for each entity and stretch of time.
    Bucket {
        cluster_id: Option<&'a str>,
        /// Values of the detection's entity columns, in its order; as they are, before any redaction.
        entity: &'a [Value],
        /// Start of the bucket and its length, microseconds.
        start_us: i64,
        length_us: i64,
    },
    /// One finding for each request.
    Request(&'a str),
    /// What a detection with memory says that makes it this finding.
    Remembered { cluster_id: &'a str, parts: &'a [Value] },
}

/// The identity of a finding of `detection`.
pub fn finding(detection: &str, scope: Scope<'_>) -> FindingId {
    let mut frames = Frames::new(FINDING_RECIPE);
    frames.text(Some(detection));
    match scope {
        Scope::Bucket { cluster_id, entity, start_us, length_us } => {
            frames.text(Some("entity"));
            frames.text(cluster_id);
            frames.number(entity.len() as i64);
            entity.iter().for_each(|value| frames.value(value));
            frames.number(start_us);
            frames.number(length_us);
        }
        Scope::Request(request_id) => {
            frames.text(Some("request"));
            frames.text(Some(request_id));
        }
        Scope::Remembered { cluster_id, parts } => {
            frames.text(Some("remembered"));
            frames.text(Some(cluster_id));
            frames.number(parts.len() as i64);
            parts.iter().for_each(|value| frames.value(value));
        }
    }
    FindingId(frames.finish())
}

/// The uid of one emission: the same when the same events are told about the same finding again.
pub fn emission(finding: FindingId, activity: &str, requests: impl Iterator<Item = RequestId>) -> Arc<str> {
    let mut requests: Vec<RequestId> = requests.collect();
    requests.sort_unstable();
    let mut frames = Frames::new(EMISSION_RECIPE);
    frames.bytes(3, &finding.0);
    frames.text(Some(activity));
    for request in requests {
        frames.bytes(3, &request.to_le_bytes());
    }
    hex(frames.finish())
}

/// A request's id as a number; `id` is the value of the `request_id` column.
pub fn request(id: &str) -> RequestId {
    u128::from_le_bytes(first_half(blake3::hash(id.as_bytes())))
}

/// Tells clusters apart, in a form that is the same in every run.
pub fn cluster(id: Option<&str>) -> u64 {
    let mut frames = Frames::new("kubetide.cluster.1");
    frames.text(id);
    let [first, _] = *frames.finish().as_chunks::<8>().0 else { return 0 };
    u64::from_le_bytes(first)
}

/// Start of the bucket of `length_us` that a time lies in: aligned to the epoch, also before it.
pub fn bucket_start(time_us: i64, length_us: i64) -> i64 {
    time_us.saturating_sub(time_us.rem_euclid(length_us.max(1)))
}

fn hex(bytes: [u8; 16]) -> Arc<str> {
    format!("{:032x}", u128::from_be_bytes(bytes)).into()
}

/// Feeds framed parts to the hash.
struct Frames(blake3::Hasher);

impl Frames {
    fn new(recipe: &str) -> Frames {
        let mut frames = Frames(blake3::Hasher::new());
        frames.text(Some(recipe));
        frames
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.0.update(&[tag]);
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            None => self.bytes(0, &[]),
            Some(text) => self.bytes(1, text.as_bytes()),
        }
    }

    fn number(&mut self, number: i64) {
        self.bytes(2, &number.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.text(None),
            Value::String(text) => self.text(Some(text)),
            other => self.bytes(4, other.to_string().as_bytes()),
        }
    }

    fn finish(self) -> [u8; 16] {
        first_half(self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bucket(entity: &[Value]) -> FindingId {
        finding("d", Scope::Bucket { cluster_id: Some("c"), entity, start_us: 0, length_us: 1 })
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let ids = [
            bucket(&[json!("ab"), json!("c")]),
            bucket(&[json!("a"), json!("bc")]),
            bucket(&[json!("abc")]),
            bucket(&[json!("abc"), json!("")]),
            bucket(&[json!("abc"), Value::Null]),
            bucket(&[json!("1")]),
            bucket(&[json!(1)]),
            bucket(&[json!(["1"])]),
            bucket(&[]),
            finding("d", Scope::Bucket { cluster_id: None, entity: &[], start_us: 0, length_us: 1 }),
            finding("d", Scope::Bucket { cluster_id: Some(""), entity: &[], start_us: 0, length_us: 1 }),
            finding("d", Scope::Request("c")),
            finding("d", Scope::Remembered { cluster_id: "c", parts: &[] }),
            finding("d", Scope::Remembered { cluster_id: "", parts: &[json!("c")] }),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn buckets_are_aligned_to_the_epoch_on_both_sides() {
        assert_eq!(bucket_start(3_599_999_999, 3_600_000_000), 0);
        assert_eq!(bucket_start(3_600_000_000, 3_600_000_000), 3_600_000_000);
        assert_eq!(bucket_start(-1, 3_600_000_000), -3_600_000_000);
        assert_eq!(bucket_start(i64::MIN, 3_600_000_000), i64::MIN);
    }

    #[test]
    fn uids_are_pinned_because_ticket_systems_key_on_them() {
        let id = finding(
            "sensitive-host-path",
            Scope::Bucket {
                cluster_id: Some("acct/prod"),
                entity: &[json!("prod"), Value::Null],
                start_us: 1_767_225_600_000_000,
                length_us: 3_600_000_000,
            },
        );
        assert_eq!(&*id.hex(), PINNED);
        assert_eq!(emission(id, "create", [1, 2].into_iter()), emission(id, "create", [2, 1].into_iter()));
        assert_ne!(emission(id, "create", [1].into_iter()), emission(id, "update", [1].into_iter()));
    }

    const PINNED: &str = "7f0e347045636dd3b78f1d4a1c253234";
}
