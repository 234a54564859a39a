//! Collects records into chunks.

use std::sync::Arc;
use std::time::Duration;

use super::super::buffers;
use super::options::Limits;
use crate::clock::Instant;
use crate::model::{Chunk, Lane, Position, RawRecord};

/// A first chunk starts with so much room; later ones with what their predecessor needed.
const FIRST_ROOM: usize = 64 << 10;

/// The chunk that is being filled. Payloads are copied into one buffer, so that nothing of the client library's
/// memory outlives a poll, and a chunk costs one allocation instead of one for each record.
pub(super) struct Builder {
    limits: Limits,
    bytes: Vec<u8>,
    records: Vec<RawRecord>,
    opened: Option<Instant>,
    room: usize,
}

impl Builder {
    pub(super) fn new(limits: Limits) -> Builder {
        Builder { limits, bytes: Vec::new(), records: Vec::new(), opened: None, room: FIRST_ROOM }
    }

    /// Whether a payload of this size should wait for the next chunk.
    pub(super) fn is_full_for(&self, payload: usize) -> bool {
        !self.records.is_empty() && self.bytes.len() + payload > self.limits.bytes
    }

    /// Adds a record. A record without value (a tombstone) gets an empty range.
    pub(super) fn push(&mut self, position: Position, payload: &[u8], time_ms: Option<i64>, cluster: Option<Arc<str>>) {
        if self.opened.is_none() {
            self.opened = Some(Instant::now());
            self.bytes = buffers::take(self.room);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.records.push(RawRecord { position, range: start..self.bytes.len(), time_ms, cluster });
    }

    /// Whether the chunk should go by its size.
    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= self.limits.records || self.bytes.len() >= self.limits.bytes
    }

    /// Whether the chunk should go, by any of its limits.
    pub(super) fn is_due(&self) -> bool {
        self.is_full() || self.time_left().is_some_and(|left| left.is_zero())
    }

    /// How long the chunk may still wait; `None` while it is empty.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.opened.map(|opened| opened.after(self.limits.age).remaining())
    }

    /// Takes the chunk, unless it is empty.
    pub(super) fn close(&mut self, lanes: &Arc<[Lane]>) -> Option<Chunk> {
        self.opened = None;
        if self.records.is_empty() {
            return None;
        }
        self.room = (self.bytes.len() + self.bytes.len() / 8).clamp(FIRST_ROOM, self.limits.bytes.max(FIRST_ROOM));
        let records = Vec::with_capacity(self.records.len().min(self.limits.records));
        Some(Chunk {
            bytes: buffers::lend(std::mem::take(&mut self.bytes)),
            records: std::mem::replace(&mut self.records, records),
            lanes: Arc::clone(lanes),
            ended: Vec::new(),
        })
    }

    /// Forgets the records that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl Fn(&RawRecord) -> bool) {
        self.records.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(records: usize, bytes: usize) -> Builder {
        Builder::new(Limits { records, bytes, age: Duration::from_secs(60) })
    }

    fn at(offset: u64) -> Position {
        Position { lane: 0, offset }
    }

    #[test]
    fn chunk_closes_by_count_and_keeps_payloads_apart() {
        let mut builder = builder(3, 1 << 20);
        for (offset, payload) in [&b"ab"[..], b"", b"cde"].into_iter().enumerate() {
            assert!(!builder.is_due());
            builder.push(at(offset as u64), payload, None, None);
        }
        assert!(builder.is_due());
        let chunk = builder.close(&Arc::from([])).expect("not empty");
        let payloads: Vec<&[u8]> = chunk.records.iter().map(|r| chunk.payload(r)).collect();
        assert_eq!(payloads, [&b"ab"[..], b"", b"cde"]);
        assert!(builder.close(&Arc::from([])).is_none());
    }

    #[test]
    fn chunk_closes_before_it_grows_beyond_its_bytes() {
        let mut builder = builder(100, 10);
        assert!(!builder.is_full_for(1_000), "a record larger than a chunk gets one of its own");
        builder.push(at(0), b"123456", None, None);
        assert!(builder.is_full_for(5));
        assert!(!builder.is_full_for(4));
    }

    #[test]
    fn chunk_closes_by_age() {
        let mut builder = Builder::new(Limits { records: 9, bytes: 9, age: Duration::ZERO });
        assert!(!builder.is_due());
        builder.push(at(0), b"1", None, None);
        assert!(builder.is_due());
    }
}
