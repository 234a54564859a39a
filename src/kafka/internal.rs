//! A topic that belongs to the program: made where it is missing, and written partition by partition.
//!
//! The producer is idempotent, waits for all replicas and repeats without limit, so what it took is stored once and in
//! order within its partition, or the run ends. [`InternalTopic::settle`] waits until all is stored.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use super::{Error, Events, Monitor, Properties, REACH_TIMEOUT, reach};

const FULL_PAUSE: Duration = Duration::from_millis(5);
/// Largest record that a topic of ours takes.
const RECORD_BYTES_MAX: &str = "8388608";
/// Uncompressed bytes of one batch: below what any topic takes, so that only a record that is too large by itself is
/// refused for its size.
const BATCH_BYTES: &str = "524288";

/// Where the topic is, and what it is to be like.
#[derive(Debug, Clone)]
pub struct InternalTopicOptions {
    pub brokers: String,
    pub topic: String,
    /// Partitions that it must have; where it is made and nobody says so, [`PARTITIONS`].
    pub partitions: Option<u32>,
    /// Properties of the client, secrets by file or variable.
    pub properties: Vec<(String, String)>,
}

/// Partitions of a topic that is made here.
pub const PARTITIONS: u32 = 16;

/// A record that the topic refused for its size, by the label that it was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub label: Arc<str>,
    pub bytes: usize,
}

/// The writing end of a topic of our own.
pub struct InternalTopic {
    producer: FutureProducer<Monitor>,
    monitor: Monitor,
    topic: String,
    partitions: u32,
    /// In the order of sending, with label and size.
    reports: VecDeque<(DeliveryFuture, Arc<str>, usize)>,
    refused: Vec<Refused>,
}

impl fmt::Debug for InternalTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, partitions) = (&self.topic, self.partitions);
        f.debug_struct("InternalTopic").field("topic", topic).field("partitions", &partitions).finish_non_exhaustive()
    }
}

impl InternalTopic {
    /// Connects, and makes the topic where it is missing. To be called where the runtime may be blocked on; takes some
    /// seconds at most.
    ///
    /// # Errors
    /// One sentence about what is wrong and how to mend it.
    pub fn open(
        options: &InternalTopicOptions,
        runtime: &tokio::runtime::Handle,
        events: Arc<dyn Events>,
    ) -> Result<InternalTopic, Error> {
        let mut properties = Properties::for_producer(&options.brokers, &options.properties)?;
        properties.set_default("message.max.bytes", RECORD_BYTES_MAX);
        properties.set_default("batch.size", BATCH_BYTES);
        let monitor = Monitor::new(&options.brokers, events);
        let producer: FutureProducer<Monitor> =
            properties.to_config().create_with_context(monitor.clone()).map_err(Error::of_creation)?;
        let topic = &options.topic;
        let counts = || reach(producer.client(), &monitor, std::slice::from_ref(topic), || ());
        let found = match counts() {
            Err(Error::MissingTopic { .. }) => {
                runtime.block_on(create(options, &properties))?;
                tracing::info!(topic, "topic is made");
                counts()?
            }
            other => other?,
        };
        let partitions = found.first().and_then(|count| u32::try_from(*count).ok()).unwrap_or_default();
        if let Some(wanted) = options.partitions.filter(|wanted| *wanted != partitions) {
            let problem = format!("topic `{topic}` has {partitions}, not {wanted}: mend the number or make it anew");
            return Err(Error::Property { property: "partitions".to_owned(), problem });
        }
        let (reports, refused) = (VecDeque::new(), Vec::new());
        Ok(InternalTopic { producer, monitor, topic: topic.clone(), partitions, reports, refused })
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Queues a record; waits for reports while the queue is full.
    ///
    /// # Errors
    /// The topic takes nothing any more.
    pub async fn send(&mut self, partition: u32, value: &[u8], label: &Arc<str>) -> Result<(), Error> {
        let topic = self.topic.clone();
        let mut record: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(&topic).partition(i32::try_from(partition).unwrap_or(i32::MAX)).payload(value);
        loop {
            let (error, back) = match self.producer.send_result(record) {
                Ok(report) => {
                    self.reports.push_back((report, Arc::clone(label), value.len()));
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if self.reports.is_empty() => tokio::time::sleep(FULL_PAUSE).await,
                Some(RDKafkaErrorCode::QueueFull) => self.await_report().await?,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    self.refused.push(Refused { label: Arc::clone(label), bytes: value.len() });
                    return Ok(());
                }
                _ => return Err(self.failed(&error)),
            }
            record = back;
        }
    }

    /// Waits until everything is stored; returns what the topic refused for its size. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Something was not stored: what it came of must not be committed.
    pub async fn settle(&mut self) -> Result<Vec<Refused>, Error> {
        while !self.reports.is_empty() {
            self.await_report().await?;
        }
        Ok(std::mem::take(&mut self.refused))
    }

    async fn await_report(&mut self) -> Result<(), Error> {
        let Some((oldest, ..)) = self.reports.front_mut() else { return Ok(()) };
        let report = oldest.await;
        let Some((_, label, bytes)) = self.reports.pop_front() else { return Ok(()) };
        match report {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                self.refused.push(Refused { label, bytes });
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.failed(&error)),
            Err(_) => Err(Error::Fatal { reason: "the producer went away before it reported".to_owned() }),
        }
    }

    fn failed(&self, error: &KafkaError) -> Error {
        let brokers = self.monitor.brokers();
        let reason = || format!("topic `{}` does not take records: {error}", self.topic);
        Error::of_run(error, brokers).unwrap_or_else(|| Error::Fatal { reason: reason() })
    }
}

/// Makes the topic. Its records carry the broker's time, as that is one clock for all who write.
async fn create(options: &InternalTopicOptions, properties: &Properties) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> = properties.to_config().create().map_err(Error::of_creation)?;
    let partitions = options.partitions.unwrap_or(PARTITIONS);
    // The broker's own default of replicas.
    let replication = TopicReplication::Fixed(-1);
    let topic = NewTopic::new(&options.topic, i32::try_from(partitions).unwrap_or(i32::MAX), replication)
        .set("cleanup.policy", "delete")
        .set("message.timestamp.type", "LogAppendTime")
        .set("max.message.bytes", RECORD_BYTES_MAX);
    let timeout = AdminOptions::new().operation_timeout(Some(REACH_TIMEOUT)).request_timeout(Some(REACH_TIMEOUT));
    let refused = |reason: String| Error::MissingTopic {
        brokers: options.brokers.clone(),
        topic: options.topic.clone(),
        hint: format!(
            " and cannot be made by this user ({reason}): make it with {partitions} partitions, \
             message.timestamp.type=LogAppendTime and max.message.bytes={RECORD_BYTES_MAX}, or grant CREATE"
        ),
    };
    match admin.create_topics([&topic], &timeout).await {
        Ok(results) => match results.into_iter().next() {
            // Another instance was faster.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(refused(code.to_string())),
            None => Err(refused("no answer".to_owned())),
        },
        Err(error) => Err(refused(error.to_string())),
    }
}
