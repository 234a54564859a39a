//! Reads Kafka topics as one member of a consumer group.
//!
//! **Contract.** Every partition is a lane, `topic/partition`, whose id stays the same for the whole run; its records
//! arrive in offset order. What was not committed is read again by whoever gets the partition next, so nothing is
//! lost, and what is read twice gives the same alert ids. Never committed: a position that the pipeline did not name,
//! a partition that is not ours any more, or anything behind a record that this process did not hand on.
//!
//! **One thread** polls, copies payloads into [`Chunk`](crate::model::Chunk)s and answers the group. The library's
//! callbacks only take notes ([`context`]); the loop ([`reader`]) acts on them between two polls:
//! - *full pipeline*: it waits a moment, then pauses the partitions and goes on polling, so that the group keeps us.
//! - *revoke*: what was read is handed on, delivered and committed before the partitions go, within `drain`;
//!   partitions that are lost already are let go at once, without a commit.
//! - *stop*: nothing more is read; the same drain, then the group is left.
//! - *state of an earlier run* ([`KafkaOptions::resume`]): a partition begins where that ends, before or behind the
//!   group's position.
//! - *expired or truncated offsets*: the gap is logged and counted, then the partition goes on with what is there.
//!
//! Positions are stored by a thread of their own ([`commits`]), out of what the [`ledger`] says is done.
//!
//! A broker that goes away is waited for; the library reconnects by itself.

mod assignment;
mod chunks;
mod commits;
mod context;
mod lag;
mod ledger;
mod options;
mod reader;
mod resume;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use self::commits::GroupCommitter;
use self::context::{Callbacks, Client};
use self::ledger::Ledger;
use self::reader::Reader;
use super::{Committer, Intake, Source, SourceError, Stop};
use crate::kafka::{Error, Events, Monitor, reach};

pub use options::{Clusters, Comings, KafkaOptions, Limits, Start};

/// A consumer that is connected and knows that its topics exist; it joins its group when it runs.
pub struct KafkaSource {
    consumer: Arc<Client>,
    options: KafkaOptions,
    /// Ends of the partitions at the time of opening, where the run is to end there.
    ends: HashMap<(String, i32), i64>,
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource").field("options", &self.options).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// Connects and checks that every topic can be read. Blocks for at most some seconds.
    ///
    /// # Errors
    /// One sentence about what is wrong: the address, the credentials, TLS, a topic, a property.
    pub fn open(
        options: KafkaOptions,
        events: Arc<dyn Events>,
    ) -> Result<(KafkaSource, Arc<dyn Committer>), SourceError> {
        let ledger = Arc::new(Ledger::default());
        let monitor = Monitor::new(options.properties.get("bootstrap.servers").unwrap_or_default(), events);
        let callbacks = Callbacks::new(monitor.clone(), Arc::clone(&ledger));
        let consumer: Client = options
            .properties
            .to_config()
            .create_with_context(callbacks)
            .map_err(|error| failed(Error::of_creation(error)))?;
        // Nothing is subscribed yet, so a poll delivers callbacks and no records.
        let serve = || drop(consumer.poll(Duration::ZERO));
        let counts = reach(consumer.client(), &monitor, &options.topics, serve).map_err(failed)?;
        ledger.share(options.topics.iter().cloned().zip(counts.iter().copied()));
        let mut source = KafkaSource { consumer: Arc::new(consumer), options, ends: HashMap::new() };
        if source.options.until_end {
            source.note_ends(&counts)?;
        }
        // Two measurements and a half, as one may come late.
        let valid = source.options.lag_every.saturating_mul(5) / 2;
        Ok((source, Arc::new(GroupCommitter { ledger, valid })))
    }

    fn note_ends(&mut self, counts: &[i32]) -> Result<(), SourceError> {
        for (topic, &count) in self.options.topics.iter().zip(counts) {
            for partition in 0..count {
                let ends = self.consumer.fetch_watermarks(topic, partition, crate::kafka::REACH_TIMEOUT);
                let (_, high) = ends.map_err(|error| {
                    SourceError::external(format!("cannot ask for the end of {topic}/{partition}: {error}"))
                })?;
                self.ends.insert((topic.clone(), partition), high);
            }
        }
        Ok(())
    }
}

impl Source for KafkaSource {
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError> {
        Reader::new(self.consumer, self.options, self.ends, intake, stop).run()
    }
}

fn failed(error: Error) -> SourceError {
    SourceError { configuration: error.is_users(), message: error.to_string() }
}
