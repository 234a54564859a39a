//! Answers within seconds whether topics can be used, with one sentence if not.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::error::Error;
use super::monitor::Monitor;
use crate::clock::Instant;

/// How long a broker may take to answer at the start.
pub const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// A topic that was made a moment ago may be unknown to the broker that is asked first.
const MISSING_TIMEOUT: Duration = Duration::from_secs(2);

const SLICE: Duration = Duration::from_millis(250);

/// Waits until the broker answers and has every topic; returns the number of partitions of each.
///
/// `serve` lets the client deliver its callbacks to `monitor`; it must not block.
///
/// # Errors
/// The first thing that is certainly wrong, or [`Error::Unreachable`] after [`REACH_TIMEOUT`].
pub fn reach<C: ClientContext>(
    client: &Client<C>,
    monitor: &Monitor,
    topics: &[String],
    serve: impl Fn(),
) -> Result<Vec<i32>, Error> {
    let start = Instant::now();
    let mut counts = Vec::with_capacity(topics.len());
    for topic in topics {
        counts.push(partitions(client, monitor, topic, &serve, start)?);
    }
    monitor.reached();
    Ok(counts)
}

fn partitions<C: ClientContext>(
    client: &Client<C>,
    monitor: &Monitor,
    topic: &str,
    serve: &impl Fn(),
    start: Instant,
) -> Result<i32, Error> {
    let mut missing_since = None;
    loop {
        let metadata = client.fetch_metadata(Some(topic), SLICE);
        serve();
        if let Ok(metadata) = &metadata {
            match judge(metadata, topic) {
                Ok(count) => return Ok(count),
                Err(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                    return Err(Error::NotAuthorised {
                        brokers: monitor.brokers().to_owned(),
                        what: format!("topic `{topic}`"),
                        needed: "DESCRIBE and READ (source) or WRITE (sink) on the topic",
                    });
                }
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    let since = *missing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= MISSING_TIMEOUT {
                        return Err(missing(client, monitor, topic));
                    }
                }
                // No leader yet, and the like: ask again.
                Err(_) => {}
            }
            std::thread::sleep(SLICE / 2);
        } else if let Some(error) = monitor.verdict() {
            return Err(error);
        }
        if start.elapsed() >= REACH_TIMEOUT {
            return Err(monitor.unreachable(REACH_TIMEOUT.as_secs()));
        }
    }
}

fn judge(metadata: &Metadata, topic: &str) -> Result<i32, RDKafkaErrorCode> {
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    let found = found.ok_or(RDKafkaErrorCode::UnknownTopic)?;
    match found.error() {
        Some(error) => Err(error.into()),
        None if found.partitions().is_empty() => Err(RDKafkaErrorCode::LeaderNotAvailable),
        None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
    }
}

fn missing<C: ClientContext>(client: &Client<C>, monitor: &Monitor, topic: &str) -> Error {
    let all = client.fetch_metadata(None, SLICE * 4).ok();
    let names = all.iter().flat_map(|m| m.topics()).map(|t| t.name());
    let nearest = names
        .map(|name| (strsim::jaro_winkler(topic, name), name))
        .filter(|(score, name)| *score > 0.8 && !name.starts_with("__"))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = nearest.map_or_else(String::new, |(_, name)| format!(", did you mean `{name}`"));
    Error::MissingTopic { brokers: monitor.brokers().to_owned(), topic: topic.to_owned(), hint }
}
