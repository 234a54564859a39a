//! What a detection with memory found, before it becomes an alert.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::{LaneId, Match};

/// Rows of the table `audit`, of which only the columns that were kept are there: a subset of the table's, in plain
/// types, by name. The raw events are gone by the time that a detection with memory fires.
#[derive(Debug, Clone)]
pub struct KeptRows {
    pub rows: RecordBatch,
    /// By row: time that the transport gave the record, milliseconds since the epoch.
    pub arrival_ms: Vec<Option<i64>>,
}

/// One finding of a detection with memory, or more about one that was told before: which of both, the receiver knows.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Index of the detection in its set.
    pub detection: usize,
    /// The key of the cluster.
    pub cluster_id: Arc<str>,
    /// What makes it this finding, beside detection and cluster. A function of the set of events alone.
    pub identity: Vec<Value>,
    /// The event time at which it came true, microseconds since the epoch.
    pub at_us: i64,
    /// Values that the detection computed, by name.
    pub computed: Vec<(Arc<str>, Value)>,
    /// The events that are evidence, in order of event time; never none. Where it tells of a finding again, events
    /// that were told before may be among them.
    pub evidence: KeptRows,
}

/// The rows of one chunk that detections with memory keep.
#[derive(Debug, Clone)]
pub struct KeptMatches {
    pub rows: KeptRows,
    /// Which detection keeps which row, in row order.
    pub matches: Vec<Match>,
}

/// How far a lane has come in one cluster: the newest event time of a chunk, microseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub lane: LaneId,
    pub cluster_id: Arc<str>,
    /// The oldest, too: a cluster that was not heard of before begins there.
    pub oldest_us: i64,
    pub newest_us: i64,
}
