//! What happens with Kafka that operators count.

/// Receives what happened; the telemetry turns it into metrics, tests into assertions.
///
/// Log lines are written by who calls this, so an implementation only counts. Calls come from the source's thread,
/// from librdkafka's callbacks and from the sink's task, so they must be quick.
pub trait Events: Send + Sync {
    /// Records read from a partition, with the bytes of their values.
    fn records_read(&self, _topic: &str, _partition: i32, _records: u64, _bytes: u64) {}
    /// How far the newest record of a partition is ahead of what was handed on: records, and seconds by their time.
    fn lag_measured(&self, _topic: &str, _partition: i32, _records: u64, _seconds: f64) {}
    /// `assigned`, `revoked` or `lost`, and the number of partitions held after it.
    fn rebalanced(&self, _event: &'static str, _assigned: usize) {}
    /// The broker stored the position: first offset that is not done.
    fn committed(&self, _topic: &str, _partition: i32, _next: i64) {}
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
