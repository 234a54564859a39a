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

mod kafka;
mod stats;
mod url;

use std::future::Future;
use std::pin::Pin;

use crate::model::{Alert, DeadLetter};

pub use kafka::{KafkaDeadLetters, KafkaSink};
pub use stats::{SinkCounts, SinkStats};
pub use url::{FileTarget, HttpTarget, KafkaTarget, SinkUrl, UrlError};

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
