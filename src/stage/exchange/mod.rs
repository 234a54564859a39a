//! What instances of one group tell each other, as records of a keyed topic.
//!
//! A detection with memory needs all events of a cluster in one place, and an instance reads only some lanes. So what
//! memories keep of a chunk goes to the partition of its cluster ([`partition_of`]), whoever read it, and whoever reads
//! that partition remembers. Two kinds of record travel, each in the order of its sender:
//!
//! * [`Rows`]: rows of one cluster that passed the conditions of detections, or alerts that others look at;
//! * [`Tide`]: how far the sender's lanes have come. It goes to every partition, after the rows that it speaks of, so
//!   that a reader who has come to it has everything before it.
//!
//! What a reader makes of a partition is a function of the partition's records alone: also the clock by which lanes are
//! idle is the broker's time of the tides. This module knows how records look; who sends and remembers, the flow knows.

mod divide;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use divide::{by_cluster, halves};
pub use wire::{decode, encode_rows, encode_tide};

use crate::model::KeptMatches;

/// Detections by number: id and, with a memory, what its memory means.
pub type Known = [(Arc<str>, Option<String>)];

/// By id and meaning: the number of a detection.
pub type Numbers = HashMap<(Arc<str>, String), usize>;

/// The numbers of detections with a memory.
pub fn numbers(known: &Known) -> Numbers {
    let each = (0..).zip(known);
    each.filter_map(|(number, (id, meaning))| Some(((Arc::clone(id), meaning.clone()?), number))).collect()
}

/// Longest record that is sent where it can be divided further.
pub const RECORD_BYTES: usize = 400 << 10;

/// What rows are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    Events,
    Alerts,
}

/// Rows of one cluster.
#[derive(Debug, Clone)]
pub struct Rows {
    pub of: Of,
    pub cluster_id: Arc<str>,
    /// Event time at which the cluster begins where it was not heard of before, microseconds since the epoch.
    pub oldest_us: i64,
    /// By source and lane: the first offset that the chunk does not cover. Who has come further has these rows already.
    pub next: BTreeMap<String, BTreeMap<String, u64>>,
    /// Whether these are the last of their chunk.
    pub is_last: bool,
    pub kept: KeptMatches,
    /// Matches of detections that the reader does not have, or with another meaning.
    pub unknown: u64,
}

/// How far lanes have come.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tide {
    /// Those that the sender reads.
    pub lanes: Vec<LaneTide>,
    /// All that there are, whoever reads them, by source.
    pub all: BTreeMap<String, Vec<String>>,
}

/// How far one lane has come.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaneTide {
    pub source: String,
    pub lane: String,
    /// First offset that was not passed on; `None` before the sender has read anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Newest event of all clusters since the sender reads it, microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_us: Option<i64>,
    /// The sender has nothing more to read, or only what came a moment ago: silence means silence.
    pub current: bool,
    /// By cluster: oldest and newest event since the tide before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clusters: BTreeMap<String, (i64, i64)>,
}

/// One record.
#[derive(Debug, Clone)]
pub enum Sent {
    Rows(Box<Rows>),
    Tide(Tide),
}

/// The partition of a cluster, out of so many.
pub fn partition_of(cluster_id: &str, partitions: u32) -> u32 {
    let hash = blake3::hash(cluster_id.as_bytes());
    let (head, _) = hash.as_bytes().split_at(8);
    let number = head.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    u32::try_from(number % u64::from(partitions.max(1))).unwrap_or_default()
}
