//! What happens with Kafka that operators count.

use crate::telemetry::{Health, Metrics, PartitionProgress, SourceState};

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

/// Counts what happens to a consumer, and says where it stands: it waits for its share until the group gives it one.
#[derive(Debug)]
pub struct Consuming {
    metrics: Metrics,
    health: Health,
    name: String,
    /// Whether its partitions are those of an exchange, and counted apart.
    is_exchange: bool,
}

impl Consuming {
    /// `name` is the source's; it is connecting from now on.
    pub fn new(metrics: Metrics, health: Health, name: &str) -> Consuming {
        health.source(name, SourceState::Connecting(None));
        Consuming { metrics, health, name: name.to_owned(), is_exchange: false }
    }

    /// As [`Consuming::new`], of an exchange.
    pub fn of_exchange(metrics: Metrics, health: Health, name: &str) -> Consuming {
        Consuming { is_exchange: true, ..Consuming::new(metrics, health, name) }
    }
}

impl Events for Consuming {
    fn polled(&self) {
        Events::polled(&self.metrics);
    }

    fn records_read(&self, topic: &str, partition: i32, records: u64, bytes: u64) {
        Events::records_read(&self.metrics, topic, partition, records, bytes);
    }

    fn progressed(&self, topic: &str, partition: i32, progress: PartitionProgress) {
        Events::progressed(&self.metrics, topic, partition, progress);
    }

    fn released(&self, topic: &str, partition: i32) {
        Events::released(&self.metrics, topic, partition);
    }

    fn rebalanced(&self, event: &'static str, assigned: usize) {
        if self.is_exchange {
            self.metrics.exchange_assigned(assigned);
        } else {
            Events::rebalanced(&self.metrics, event, assigned);
        }
        let state = match (assigned, event) {
            (0, "lost") => SourceState::Connecting(Some("the group has taken the partitions away".to_owned())),
            (0, _) => SourceState::Idle,
            (assigned, _) => SourceState::Assigned(assigned),
        };
        self.health.source(&self.name, state);
    }

    fn commit_failed(&self, code: &str) {
        Events::commit_failed(&self.metrics, code);
    }

    fn gap_found(&self, topic: &str, partition: i32, from: i64, to: i64, cause: &'static str) {
        Events::gap_found(&self.metrics, topic, partition, from, to, cause);
    }

    fn paused(&self, paused: bool) {
        Events::paused(&self.metrics, paused);
    }

    fn failed(&self, code: &str) {
        Events::failed(&self.metrics, code);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_ready_once_the_group_has_answered() {
        let (metrics, health) = (Metrics::new(), Health::new());
        health.detections_loaded(1);
        let consumer = Consuming::new(metrics, health.clone(), "audit");
        health.source_started("audit");
        assert_eq!(health.readiness().reasons, ["source audit is connecting"]);
        for (event, assigned, ready) in
            [("assigned", 4, true), ("lost", 0, false), ("assigned", 0, true), ("revoked", 0, true), ("lost", 2, true)]
        {
            consumer.rebalanced(event, assigned);
            assert_eq!(health.readiness().is_ready(), ready, "{event} {assigned}");
        }
    }
}
