//! The consumer's callbacks: they only take notes. All work happens on the source's own thread between two polls,
//! with everything at hand and nothing locked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::ledger::Ledger;
use crate::kafka::Monitor;

pub(super) type Client = BaseConsumer<Callbacks>;

/// A change of the assignment that the group waits for.
pub(super) enum Change {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// What the consumer calls.
pub(super) struct Callbacks {
    pub(super) monitor: Monitor,
    pub(super) ledger: Arc<Ledger>,
    changes: Mutex<VecDeque<Change>>,
    closing: AtomicBool,
}

impl Callbacks {
    pub(super) fn new(monitor: Monitor, ledger: Arc<Ledger>) -> Callbacks {
        Callbacks { monitor, ledger, changes: Mutex::default(), closing: AtomicBool::default() }
    }

    /// The oldest change that is not answered.
    pub(super) fn next_change(&self) -> Option<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From here on changes are answered at once: nobody will look for them any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.monitor.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.monitor.error(error, reason);
    }
}

impl ConsumerContext for Callbacks {
    /// Librdkafka waits until the assignment is answered, so the answer may come later, from the source's loop.
    fn rebalance(&self, consumer: &Client, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assign = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            answer(consumer, partitions, assign);
            return;
        }
        let partitions = partitions.clone();
        let change = if assign { Change::Assign(partitions) } else { Change::Revoke(partitions) };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
    }
}

/// Takes partitions or lets them go, in the way that the group's protocol wants.
pub(super) fn answer(consumer: &Client, partitions: &TopicPartitionList, assign: bool) {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let result = match (assign, cooperative) {
        (true, true) => consumer.incremental_assign(partitions),
        (true, false) => consumer.assign(partitions),
        (false, true) => consumer.incremental_unassign(partitions),
        (false, false) => consumer.unassign(),
    };
    if let Err(error) = result {
        tracing::warn!(%error, assign, "the kafka client refused a change of its assignment");
    }
}
