//! Raw input: lanes, positions and the chunks that carry records from a source to a worker.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// Index of a lane within its source.
pub type LaneId = u32;

/// One ordered input: a Kafka partition, a file, a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// What people call it: `topic/3`, a path, a listener's address.
    pub name: Arc<str>,
    /// What the cluster is called where nothing in the event says so: topic, file stem or listener name.
    pub fallback_cluster: Arc<str>,
    /// The cluster's name as the source's configuration gives it; wins over `fallback_cluster`, not over an envelope.
    pub cluster: Option<Arc<str>>,
}

/// How far into a lane: the record's offset (Kafka offset, byte offset of a file's line, count of a listener).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub lane: LaneId,
    pub offset: u64,
}

/// One record as it arrived: a Kafka message's value, a line of a file, a request body.
#[derive(Debug, Clone)]
pub struct RawRecord {
    pub position: Position,
    /// Where its bytes are in the chunk. An empty range is a tombstone.
    pub range: Range<usize>,
    /// Time that the transport gives it (broker append time), milliseconds since the epoch.
    pub time_ms: Option<i64>,
    /// Cluster named by the record itself: a Kafka header or key.
    pub cluster: Option<Arc<str>>,
}

/// Records in arrival order with the bytes that they point into: the unit of work of a worker.
///
/// A chunk owns its bytes, so nothing borrowed from a client library outlives a poll.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    pub bytes: Bytes,
    pub records: Vec<RawRecord>,
    /// Lanes by [`LaneId`], shared by all chunks of the source.
    pub lanes: Arc<[Lane]>,
    /// Lanes that end with this chunk: a file that was read to its end, a partition that went to another instance.
    pub ended: Vec<LaneId>,
}

impl Chunk {
    /// The bytes of one of its records.
    pub fn payload(&self, record: &RawRecord) -> &[u8] {
        self.bytes.get(record.range.clone()).unwrap_or_default()
    }

    /// The lane that a record belongs to.
    pub fn lane(&self, record: &RawRecord) -> &Lane {
        &self.lanes[record.position.lane as usize]
    }
}
