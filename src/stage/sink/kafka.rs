//! Alerts and dead letters into Kafka topics.
//!
//! **Delivery.** The producer is idempotent and waits for all replicas; the library repeats what repeating can mend,
//! without limit, so a broker that is down holds the pipeline up instead of losing anything. `deliver` only queues, and
//! waits for reports when the queue is full; `flush` waits for every report.
//!
//! **An alert** is keyed by the finding's uid, so that a compacted topic keeps the last state of each finding and all
//! emissions about it stay in order. The value is the OCSF JSON, the headers are those of a CloudEvent in binary mode.
//!
//! **A dead letter** has the original bytes as value, its lane as key, and where and why in its headers: `lane`,
//! `offset`, `index`, `reason`, `detail`, `size`, `blake3`, and `cut: true` where the value is only the beginning.
//!
//! **Too large for the topic.** A dead letter is cut further. An alert is sent without its evidence; if even that is
//! refused, it is counted and logged with its uid, and the run goes on: the topic's limit is then too small for anything.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use super::{AlertSink, DeadLetterSink, KafkaTarget, SinkError, SinkFuture, SinkStats};
use crate::kafka::{Error, Events, Monitor, Properties, reach};
use crate::model::{Activity, Alert, DeadLetter};

/// Longest value of a dead letter: topics take 1 MB by default, headers and framing included.
const LETTER_BYTES_MAX: usize = 900_000;
/// Below this a refusal is not about size.
const LETTER_BYTES_MIN: usize = 1_024;
const DETAIL_BYTES_MAX: usize = 4_096;
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Alerts into a topic.
pub struct KafkaSink {
    outgoing: Outgoing,
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink").field("topic", &self.outgoing.topic).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// Connects and checks that the topic is there. Blocks for at most some seconds.
    ///
    /// `given` are properties of the configuration; those of the target win.
    ///
    /// # Errors
    /// The broker, the topic or a property cannot be used: one sentence about what to check.
    pub fn open(
        target: &KafkaTarget,
        given: &[(String, String)],
        events: Arc<dyn Events>,
        stats: Arc<SinkStats>,
    ) -> Result<KafkaSink, SinkError> {
        Ok(KafkaSink { outgoing: Outgoing::open(target, given, events, stats)? })
    }

    async fn send_all(&mut self, alerts: &[Alert]) -> Result<(), SinkError> {
        for alert in alerts {
            self.outgoing.send(&alert.uid, &alert.ocsf, alert_headers(alert)).await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), SinkError> {
        self.outgoing.settle().await?;
        while let Some(refused) = self.outgoing.next_refused().await? {
            let uid = String::from_utf8_lossy(refused.key().unwrap_or_default()).into_owned();
            let value = refused.payload().unwrap_or_default();
            let headers = refused.headers().cloned().unwrap_or_default();
            let taken = match without_evidence(value) {
                Some(less) => self.outgoing.send_alone(&uid, &less, headers).await?.is_none(),
                None => false,
            };
            if !taken {
                self.give_up(&uid, value.len());
            }
        }
        Ok(())
    }

    fn give_up(&mut self, uid: &str, size: usize) {
        self.outgoing.stats.rejected(1);
        tracing::error!(
            uid,
            size,
            topic = self.outgoing.topic,
            "alert is too large for its topic, even without evidence: raise the topic's max.message.bytes"
        );
    }
}

impl AlertSink for KafkaSink {
    fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a> {
        Box::pin(self.send_all(alerts))
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(self.settle())
    }
}

/// Dead letters into a topic.
pub struct KafkaDeadLetters {
    outgoing: Outgoing,
}

impl fmt::Debug for KafkaDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaDeadLetters").field("topic", &self.outgoing.topic).finish_non_exhaustive()
    }
}

impl KafkaDeadLetters {
    /// As [`KafkaSink::open`].
    ///
    /// # Errors
    /// As [`KafkaSink::open`].
    pub fn open(
        target: &KafkaTarget,
        given: &[(String, String)],
        events: Arc<dyn Events>,
        stats: Arc<SinkStats>,
    ) -> Result<KafkaDeadLetters, SinkError> {
        Ok(KafkaDeadLetters { outgoing: Outgoing::open(target, given, events, stats)? })
    }

    async fn send_all(&mut self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        for letter in letters {
            let kept = letter.bytes.get(..LETTER_BYTES_MAX).unwrap_or(&letter.bytes);
            self.outgoing.send(&letter.lane, kept, letter_headers(letter, kept.len() < letter.bytes.len())).await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), SinkError> {
        self.outgoing.settle().await?;
        while let Some(mut refused) = self.outgoing.next_refused().await? {
            loop {
                let value = refused.payload().unwrap_or_default();
                if value.len() < LETTER_BYTES_MIN {
                    let (topic, size) = (&self.outgoing.topic, value.len());
                    return Err(SinkError::user(format!("topic `{topic}` refuses a dead letter of {size} bytes")));
                }
                let kept = value.get(..value.len() / 2).unwrap_or_default();
                let lane = String::from_utf8_lossy(refused.key().unwrap_or_default());
                let headers = mark_cut(refused.headers().cloned().unwrap_or_default());
                match self.outgoing.send_alone(&lane, kept, headers).await? {
                    Some(again) => refused = again,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

impl DeadLetterSink for KafkaDeadLetters {
    fn deliver<'a>(&'a mut self, letters: &'a [DeadLetter]) -> SinkFuture<'a> {
        Box::pin(self.send_all(letters))
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(self.settle())
    }
}

/// A producer and the reports that it owes.
struct Outgoing {
    producer: FutureProducer<Monitor>,
    monitor: Monitor,
    topic: String,
    /// In the order of sending.
    reports: VecDeque<DeliveryFuture>,
    /// What the topic refused for its size.
    refused: VecDeque<OwnedMessage>,
    stats: Arc<SinkStats>,
}

impl Outgoing {
    fn open(
        target: &KafkaTarget,
        given: &[(String, String)],
        events: Arc<dyn Events>,
        stats: Arc<SinkStats>,
    ) -> Result<Outgoing, SinkError> {
        let all: Vec<(String, String)> = given.iter().chain(&target.properties).cloned().collect();
        let properties = Properties::for_producer(&target.brokers, &all).map_err(wrong)?;
        let monitor = Monitor::new(&target.brokers, events);
        let producer: FutureProducer<Monitor> = properties
            .to_config()
            .create_with_context(monitor.clone())
            .map_err(|error| wrong(Error::of_creation(error)))?;
        // The producer has a thread of its own that serves its callbacks.
        reach(producer.client(), &monitor, std::slice::from_ref(&target.topic), || ()).map_err(wrong)?;
        let (reports, refused) = (VecDeque::new(), VecDeque::new());
        Ok(Outgoing { producer, monitor, topic: target.topic.clone(), reports, refused, stats })
    }

    /// Queues a record; waits for reports while the queue is full.
    async fn send(&mut self, key: &str, value: &[u8], headers: OwnedHeaders) -> Result<(), SinkError> {
        let topic = self.topic.clone();
        let mut record = FutureRecord::to(&topic).key(key).payload(value).headers(headers);
        loop {
            let (error, back) = match self.producer.send_result(record) {
                Ok(report) => {
                    self.reports.push_back(report);
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if self.reports.is_empty() => tokio::time::sleep(FULL_PAUSE).await,
                Some(RDKafkaErrorCode::QueueFull) => self.await_report().await?,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    let headers = back.headers;
                    self.refused.push_back(owned(&topic, key, value, headers));
                    return Ok(());
                }
                _ => return Err(self.failed(&error)),
            }
            record = back;
        }
    }

    /// The next record that the topic does not take even by itself. A broker refuses a whole batch for its size, so
    /// most of what it refused only had the wrong company.
    async fn next_refused(&mut self) -> Result<Option<OwnedMessage>, SinkError> {
        while let Some(refused) = self.refused.pop_front() {
            let key = String::from_utf8_lossy(refused.key().unwrap_or_default());
            let headers = refused.headers().cloned().unwrap_or_default();
            let value = refused.payload().unwrap_or_default();
            let still = self.send_alone(&key, value, headers).await?;
            if still.is_some() {
                return Ok(still);
            }
        }
        Ok(None)
    }

    /// Sends a record in a batch of its own; gives it back where the topic refuses it for its size.
    async fn send_alone(
        &mut self,
        key: &str,
        value: &[u8],
        headers: OwnedHeaders,
    ) -> Result<Option<OwnedMessage>, SinkError> {
        let before = self.refused.len();
        self.send(key, value, headers).await?;
        self.settle().await?;
        Ok(if self.refused.len() > before { self.refused.pop_back() } else { None })
    }

    /// Waits for every report.
    async fn settle(&mut self) -> Result<(), SinkError> {
        while !self.reports.is_empty() {
            self.await_report().await?;
        }
        Ok(())
    }

    /// Waits for the oldest report. Dropping the future keeps the report.
    async fn await_report(&mut self) -> Result<(), SinkError> {
        let Some(oldest) = self.reports.front_mut() else { return Ok(()) };
        let report = oldest.await;
        self.reports.pop_front();
        match report {
            Ok(Ok(_)) => {
                self.stats.delivered(1);
                if self.reports.is_empty() {
                    self.monitor.reached();
                }
                Ok(())
            }
            Ok(Err((error, message))) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                    self.refused.push_back(message);
                    return Ok(());
                }
                Err(self.failed(&error))
            }
            Err(_) => Err(SinkError::internal("the kafka producer went away before it reported")),
        }
    }

    fn failed(&self, error: &KafkaError) -> SinkError {
        use RDKafkaErrorCode as Code;
        let (brokers, topic) = (self.monitor.brokers(), &self.topic);
        if let Some(error) = Error::of_run(error, brokers) {
            return wrong(error);
        }
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                let (brokers, topic, hint) = (brokers.to_owned(), topic.clone(), " any more".to_owned());
                wrong(Error::MissingTopic { brokers, topic, hint })
            }
            _ => SinkError::external(format!("topic `{topic}` on {brokers} does not take records: {error}")),
        }
    }
}

fn wrong(error: Error) -> SinkError {
    if error.is_users() { SinkError::user(error.to_string()) } else { SinkError::external(error.to_string()) }
}

fn owned(topic: &str, key: &str, value: &[u8], headers: Option<OwnedHeaders>) -> OwnedMessage {
    let (key, value) = (Some(key.as_bytes().to_vec()), Some(value.to_vec()));
    OwnedMessage::new(value, key, topic.to_owned(), rdkafka::Timestamp::NotAvailable, -1, 0, headers)
}

fn header<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

fn alert_headers(alert: &Alert) -> OwnedHeaders {
    let kind = match alert.activity {
        Activity::Create => "dev.kubetide.detection_finding.create",
        Activity::Update => "dev.kubetide.detection_finding.update",
    };
    let headers = OwnedHeaders::new_with_capacity(8)
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_id", &alert.emission_uid))
        .insert(header("ce_type", kind))
        .insert(header("ce_source", "/kubetide"))
        .insert(header("ce_subject", &alert.detection))
        .insert(header("ce_severity", alert.severity.as_str()))
        .insert(header("content-type", "application/json"));
    match DateTime::from_timestamp_micros(alert.event_time_us) {
        Some(time) => headers.insert(header("ce_time", &time.to_rfc3339_opts(SecondsFormat::Micros, true))),
        None => headers,
    }
}

fn letter_headers(letter: &DeadLetter, cut: bool) -> OwnedHeaders {
    let mut detail_end = letter.detail.len().min(DETAIL_BYTES_MAX);
    while !letter.detail.is_char_boundary(detail_end) {
        detail_end -= 1;
    }
    let headers = OwnedHeaders::new_with_capacity(8)
        .insert(header("lane", &letter.lane))
        .insert(header("offset", &letter.offset.to_string()))
        .insert(header("index", &letter.index.to_string()))
        .insert(header("reason", letter.reason))
        .insert(header("detail", letter.detail.get(..detail_end).unwrap_or_default()))
        .insert(header("size", &letter.bytes.len().to_string()))
        .insert(header("blake3", &blake3::hash(&letter.bytes).to_hex()));
    if cut { mark_cut(headers) } else { headers }
}

fn mark_cut(headers: OwnedHeaders) -> OwnedHeaders {
    use rdkafka::message::Headers as _;
    if headers.iter().any(|h| h.key == "cut") { headers } else { headers.insert(header("cut", "true")) }
}

/// The same finding without what makes it large, or `None` where nothing is left to leave out.
fn without_evidence(value: &[u8]) -> Option<Vec<u8>> {
    let mut finding: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(value).ok()?;
    let mut less = false;
    for key in ["evidences", "raw_data", "unmapped"] {
        less |= finding.remove(key).is_some();
    }
    if !less {
        return None;
    }
    serde_json::to_vec(&finding).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_finding_loses_its_evidence_and_nothing_else() {
        let less = without_evidence(br#"{"finding_info":{"uid":"u"},"evidences":[{"data":"big"}]}"#).expect("less");
        assert_eq!(less, br#"{"finding_info":{"uid":"u"}}"#);
        assert_eq!(without_evidence(&less), None);
    }

    #[test]
    fn records_are_never_given_up_by_default_but_idempotence_is_not_negotiable() {
        let properties = Properties::for_producer("a:1", &[]).expect("good");
        assert_eq!(properties.get("message.timeout.ms"), Some("0"));
        let given = [("enable.idempotence".to_owned(), "false".to_owned())];
        assert!(Properties::for_producer("a:1", &given).is_err());
    }
}
