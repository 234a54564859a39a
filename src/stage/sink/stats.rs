//! What a sink counts. Whoever publishes metrics reads it at scrape time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one sink, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct SinkStats {
    delivered: AtomicU64,
    retried: AtomicU64,
    rejected: AtomicU64,
    dropped: AtomicU64,
    queued: AtomicU64,
}

/// One reading of [`SinkStats`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Alerts or dead letters that the sink has taken.
    pub delivered: u64,
    /// Attempts that failed and were repeated.
    pub retried: u64,
    /// Alerts that the receiver refused for good (HTTP 400, 413, 422 …), each with a log line.
    pub rejected: u64,
    /// Alerts that a full or closing outbox gave up.
    pub dropped: u64,
    /// Alerts that wait in the outbox now: a gauge.
    pub queued: u64,
}

impl SinkStats {
    /// All counters now.
    pub fn read(&self) -> SinkCounts {
        SinkCounts {
            delivered: self.delivered.load(Relaxed),
            retried: self.retried.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            queued: self.queued.load(Relaxed),
        }
    }

    pub(super) fn delivered(&self, count: usize) {
        self.delivered.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn retried(&self, count: usize) {
        self.retried.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn rejected(&self, count: usize) {
        self.rejected.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn queued(&self, now: usize) {
        self.queued.store(now as u64, Relaxed);
    }
}
