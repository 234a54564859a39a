//! Stores positions with the broker, on a thread of its own.
//!
//! The library reports the outcome of a commit only to a caller that waits for it, and a broker that is away makes that
//! wait long. Neither the flow nor the polling thread can afford it: they note what is done in the ledger and, where it
//! matters, wait for the ledger to be settled.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::context::Client;
use super::ledger::{Due, Ledger};
use crate::model::Position;
use crate::stage::source::{Committer, SharedLane, SourceError};

/// Pause after a commit that failed: a rebalance that refuses it is over soon.
const RETRY: Duration = Duration::from_millis(200);

/// Commits on behalf of the flow.
pub(super) struct GroupCommitter {
    pub(super) ledger: Arc<Ledger>,
    /// How long a measurement of the lag says something.
    pub(super) valid: Duration,
}

impl Committer for GroupCommitter {
    /// Notes the positions and returns at once: they are stored soon after, repeatedly where that fails, and before a
    /// partition is let go or the run ends. Never fails.
    fn commit(&self, next: &[Position]) -> Result<(), SourceError> {
        self.ledger.acknowledge(next);
        Ok(())
    }

    fn holds(&self, lane: &str) -> Option<bool> {
        self.ledger.holds(lane)
    }

    fn lanes(&self) -> Vec<SharedLane> {
        self.ledger.lanes(self.valid)
    }

    fn is_current(&self) -> bool {
        self.ledger.is_current(self.valid)
    }
}

/// Starts the thread; it ends when the ledger is closed or the consumer is gone.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start(consumer: &Arc<Client>) -> std::io::Result<()> {
    let ledger = Arc::clone(&consumer.context().ledger);
    // Weak, so that the consumer is closed by the thread that polls it.
    let consumer = Arc::downgrade(consumer);
    std::thread::Builder::new().name("kafka-commit".to_owned()).spawn(move || store(&ledger, &consumer)).map(drop)
}

fn store(ledger: &Ledger, consumer: &Weak<Client>) {
    let mut failing = false;
    while let Some(due) = ledger.wait_for_due() {
        let Some(consumer) = consumer.upgrade() else { return };
        let result = commit(&consumer, &due);
        let events = consumer.context().monitor.events();
        match result {
            Ok(()) => {
                ledger.committed(&due);
                failing = false;
            }
            Err(error) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                events.commit_failed(&format!("{code:?}"));
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(?code, "positions are not committed, trying again");
                }
                drop(consumer);
                ledger.pause(RETRY);
            }
        }
    }
}

fn commit(consumer: &Client, due: &[Due]) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(due.len());
    for (topic, partition, next) in due {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    consumer.commit(&list, CommitMode::Sync)
}
