//! What happens with Kafka that operators count.

use crate::telemetry::{Metrics, PartitionProgress};

/// Receives what happened; [`Metrics`] counts it, tests make assertions of it.
///
/// Log lines are written by who calls this, so an implementation only counts. Calls come from the source's thread,
/// from librdkafka's callbacks and from the sink's task, so they must be quick.
pub trait Events: Send + Sync {
    /// The consumer polled; long silence means that the group expels it.
    fn polled(&self) {}
    /// Records read from a partition, with the bytes of their values.
    fn records_read(&self, _topic: &str, _partition: i32, _records: u64, _bytes: u64) {}
    /// How far a partition is.
    fn progressed(&self, _topic: &str, _partition: i32, _progress: PartitionProgress) {}
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

impl Events for Metrics {
    fn polled(&self) {
        self.kafka_polled();
    }

    fn records_read(&self, topic: &str, partition: i32, records: u64, bytes: u64) {
        self.partition_read(topic, partition, records, bytes);
    }

    fn progressed(&self, topic: &str, partition: i32, progress: PartitionProgress) {
        self.partition_progressed(topic, partition, progress);
    }

    fn released(&self, topic: &str, partition: i32) {
        self.partition_released(topic, partition);
    }

    fn rebalanced(&self, event: &'static str, assigned: usize) {
        self.partitions_moved(event, assigned);
    }

    fn commit_failed(&self, _code: &str) {
        Metrics::commit_failed(self);
    }

    fn gap_found(&self, _topic: &str, _partition: i32, from: i64, to: i64, cause: &'static str) {
        Metrics::gap_found(self, cause, u64::try_from(to - from).unwrap_or(0));
    }

    fn paused(&self, paused: bool) {
        self.kafka_paused(paused);
    }

    fn failed(&self, code: &str) {
        self.kafka_failed(code);
    }
}
