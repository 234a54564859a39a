//! What happens with Kafka that operators count.

/// How far a partition is; what is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// First offset that was not handed to the pipeline.
    pub position: Option<i64>,
    /// First offset that is not committed.
    pub committed: Option<i64>,
    /// Offset after the last record.
    pub end: Option<i64>,
    /// Age of the newest record that was handed on while more are waiting, 0 when caught up.
    pub lag_seconds: Option<f64>,
}

/// Receives what happened; the telemetry turns it into metrics, tests into assertions.
///
/// Log lines are written by who calls this, so an implementation only counts. Calls come from the source's thread,
/// from librdkafka's callbacks and from the sink's task, so they must be quick.
pub trait Events: Send + Sync {
    /// The consumer polled; long silence means that the group expels it.
    fn polled(&self) {}
    /// Records read from a partition, with the bytes of their values.
    fn records_read(&self, _topic: &str, _partition: i32, _records: u64, _bytes: u64) {}
    /// How far a partition is.
    fn progressed(&self, _topic: &str, _partition: i32, _progress: Progress) {}
    /// A partition is not ours any more.
    fn released(&self, _topic: &str, _partition: i32) {}
    /// `assigned`, `revoked` or `lost`, and the number of partitions held after it.
    fn rebalanced(&self, _event: &'static str, _assigned: usize) {}
    /// A commit did not get through; it is repeated.
    fn commit_failed(&self, _code: &str) {}
    /// Offsets that will never be read: `expired` or `truncated`.
    fn gap_found(&self, _topic: &str, _partition: i32, _from: i64, _to: i64, _cause: &'static str) {}
    /// Partitions paused (`true`) because the pipeline is full, or resumed.
    fn paused(&self, _paused: bool) {}
    /// An error of the client library, by code.
    fn failed(&self, _code: &str) {}
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Events for Silent {}
