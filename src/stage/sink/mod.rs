//! Sinks: where alerts and dead letters go.
//!
//! **Contract of a sink.** `deliver` takes alerts in order and returns once the sink has them; `flush` returns once all
//! that was delivered before it would survive a crash of this process and its host. A sink repeats by itself whatever
//! repeating can mend (a webhook that answers 500, a full disk), for ever and with growing pauses, so an `Err` is
//! final: the run has to stop with the message. Dropping a future that waits is safe: what was not acknowledged counts
//! as not delivered, its input is not committed, and a restart delivers it again under the same ids.
//!
//! **Who gates.** The first alert sink is *durable*: the flow awaits it, and positions are committed only after its
//! `flush`. Every other sink stands behind an [`Outbox`] of its own: it never holds up the pipeline, and when it is down
//! it delays only itself. Dead letters always gate: a dead letter that cannot be stored stops the lane.
//!
//! Names of sinks are [`SinkUrl`]s; [`open_alert_sink`] and [`open_dead_letter_sink`] turn them into sinks.

mod console;
mod dead_letter;
mod file;
mod kafka;
mod memory;
mod outbox;
mod retry;
#[cfg(test)]
mod samples;
mod stats;
mod url;
mod webhook;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::kafka::{Events, Silent};
use crate::model::{Alert, DeadLetter};

pub use console::{ConsoleFormat, ConsoleSink, plain, render};
pub use dead_letter::{FileDeadLetters, LINE_BYTES_MAX, StderrDeadLetters, WebhookDeadLetters, encode};
pub use file::FileSink;
pub use kafka::{KafkaDeadLetters, KafkaSink};
pub use memory::{Kept, MemorySink};
pub use outbox::{Outbox, OutboxLimits};
pub use retry::RetryPolicy;
pub use stats::{SinkCounts, SinkStats};
pub use url::{FileTarget, HttpTarget, KafkaTarget, SinkUrl, UrlError};
pub use webhook::{Secret, WebhookOptions, WebhookSink};

/// What a sink's calls return: boxed, so that sinks can be `dyn`.
pub type SinkFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Takes alerts. See the module's header for what a sink promises.
pub trait AlertSink: Send {
    /// Hands over alerts, in order. Returns when the sink has them all; waits while it cannot take them.
    fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a>;

    /// Returns when everything delivered so far is durable.
    fn flush(&mut self) -> SinkFuture<'_>;
}

/// Takes records that could not be read. Never drops one: what it cannot store is an error.
pub trait DeadLetterSink: Send {
    /// Hands over dead letters, in order. An error means that at least one is not stored.
    fn deliver<'a>(&'a mut self, letters: &'a [DeadLetter]) -> SinkFuture<'a>;

    /// Returns when everything delivered so far is durable.
    fn flush(&mut self) -> SinkFuture<'_>;
}

/// Whose fault a sink's failure is, which decides what the program does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The configuration is wrong (address, credentials, topic): exit code 3.
    User,
    /// The receiving side failed.
    External,
    /// A fault of this program.
    Internal,
    /// Nobody's: whoever read standard output has gone (`| head`). The run ends quietly with exit code 0.
    Reader,
}

/// Why a sink could not take something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    pub whose: Whose,
    /// Whether the same call may succeed later without anybody changing anything here.
    pub retry: bool,
    /// What failed, where, and how to mend it.
    pub message: String,
}

impl SinkError {
    /// The configuration is wrong; repeating is of no use.
    pub fn user(message: impl Into<String>) -> Self {
        SinkError { whose: Whose::User, retry: false, message: message.into() }
    }

    /// The receiving side failed; repeating may help.
    pub fn external(message: impl Into<String>) -> Self {
        SinkError { whose: Whose::External, retry: true, message: message.into() }
    }

    /// A fault of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        SinkError { whose: Whose::Internal, retry: false, message: message.into() }
    }

    /// Standard output was closed by its reader.
    pub fn reader_gone() -> Self {
        SinkError { whose: Whose::Reader, retry: false, message: "the reader of standard output has gone".to_owned() }
    }
}

/// How sinks are opened: what does not stand in their URLs.
#[derive(Clone)]
pub struct SinkOptions {
    /// How alerts look on standard output.
    pub format: ConsoleFormat,
    pub webhook: WebhookOptions,
    pub retry: RetryPolicy,
    /// librdkafka properties of the configuration; those of a URL win.
    pub kafka_properties: Vec<(String, String)>,
    /// Told what happens with Kafka.
    pub kafka_events: Arc<dyn Events>,
    /// What the sink counts into. One for each sink: keep a clone and read it.
    pub stats: Arc<SinkStats>,
}

impl Default for SinkOptions {
    fn default() -> Self {
        SinkOptions {
            format: ConsoleFormat::default(),
            webhook: WebhookOptions::default(),
            retry: RetryPolicy::default(),
            kafka_properties: Vec::new(),
            kafka_events: Arc::new(Silent),
            stats: Arc::default(),
        }
    }
}

/// Properties may be secret, so they are left out.
impl fmt::Debug for SinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkOptions")
            .field("format", &self.format)
            .field("webhook", &self.webhook)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Opens a sink for alerts.
///
/// # Errors
/// The configuration is wrong (whose: user), such as a missing folder, an unreadable token file or an unknown topic; or
/// a broker cannot be reached.
pub async fn open_alert_sink(url: &SinkUrl, options: &SinkOptions) -> Result<Box<dyn AlertSink>, SinkError> {
    let (url, options) = (url.clone(), options.clone());
    opened(move || {
        let stats = Arc::clone(&options.stats);
        Ok(match &url {
            SinkUrl::Standard => Box::new(ConsoleSink::stdout(options.format, stats)) as Box<dyn AlertSink>,
            SinkUrl::File(target) => Box::new(FileSink::open(target, options.retry, stats)?),
            SinkUrl::Http(target) => Box::new(WebhookSink::open(target, &options.webhook, options.retry, stats)?),
            SinkUrl::Kafka(target) => {
                Box::new(KafkaSink::open(target, &options.kafka_properties, options.kafka_events, stats)?)
            }
        })
    })
    .await
}

/// Opens a sink for dead letters; `-` is standard error.
///
/// # Errors
/// As [`open_alert_sink`].
pub async fn open_dead_letter_sink(url: &SinkUrl, options: &SinkOptions) -> Result<Box<dyn DeadLetterSink>, SinkError> {
    let (url, options) = (url.clone(), options.clone());
    opened(move || {
        let stats = Arc::clone(&options.stats);
        Ok(match &url {
            SinkUrl::Standard => Box::new(StderrDeadLetters::new(stats)) as Box<dyn DeadLetterSink>,
            SinkUrl::File(target) => Box::new(FileDeadLetters::open(target, options.retry, stats)?),
            SinkUrl::Http(target) => {
                Box::new(WebhookDeadLetters::open(target, &options.webhook, options.retry, stats)?)
            }
            SinkUrl::Kafka(target) => {
                Box::new(KafkaDeadLetters::open(target, &options.kafka_properties, options.kafka_events, stats)?)
            }
        })
    })
    .await
}

/// Opening reads files and asks brokers, so it has a thread that may block.
async fn opened<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    let job = tokio::task::spawn_blocking(open);
    job.await.unwrap_or_else(|error| Err(SinkError::internal(format!("opening a sink failed: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_become_sinks() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let options = SinkOptions::default();
        for text in ["-", &path("alerts.ndjson"), "http://127.0.0.1:1/hook"] {
            let url: SinkUrl = text.parse().expect(text);
            let mut sink = open_alert_sink(&url, &options).await.expect(text);
            sink.flush().await.expect("nothing to do");
        }
        for text in ["-", &path("dead.ndjson"), "http://127.0.0.1:1/hook"] {
            let url: SinkUrl = text.parse().expect(text);
            let mut sink = open_dead_letter_sink(&url, &options).await.expect(text);
            sink.flush().await.expect("nothing to do");
        }
        let url: SinkUrl = path("missing/alerts.ndjson").parse().expect("a path");
        let error = open_alert_sink(&url, &options).await.err().expect("no folder");
        assert_eq!(error.whose, Whose::User);
        assert!(error.message.contains("create it first"), "{error}");
    }
}
