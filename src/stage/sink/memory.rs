//! A sink that keeps what it gets, for tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AlertSink, DeadLetterSink, SinkError, SinkFuture};
use crate::model::{Alert, DeadLetter};

/// Keeps alerts and dead letters in memory. Clones share what they keep: give one away and look through the other.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    kept: Arc<Mutex<Kept>>,
}

/// What a [`MemorySink`] has seen.
#[derive(Debug, Default)]
pub struct Kept {
    /// Alerts in the order of delivery.
    pub alerts: Vec<Alert>,
    /// Dead letters in the order of delivery.
    pub letters: Vec<DeadLetter>,
    /// Number of `flush` calls that succeeded.
    pub flushes: usize,
    /// Number of alerts that were there at the last successful `flush`.
    pub alerts_durable: usize,
    /// Errors that the next calls return, one each, before anything works again.
    pub failures: VecDeque<SinkError>,
}

impl MemorySink {
    /// What it holds now. Do not keep the guard over an `await`.
    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next call fail.
    pub fn fail_next(&self, error: SinkError) {
        self.kept().failures.push_back(error);
    }

    fn call(&self, work: impl FnOnce(&mut Kept)) -> Result<(), SinkError> {
        let mut kept = self.kept();
        if let Some(error) = kept.failures.pop_front() {
            return Err(error);
        }
        work(&mut kept);
        Ok(())
    }

    fn flush_all(&self) -> Result<(), SinkError> {
        self.call(|kept| {
            kept.flushes += 1;
            kept.alerts_durable = kept.alerts.len();
        })
    }
}

impl AlertSink for MemorySink {
    fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a> {
        Box::pin(async { self.call(|kept| kept.alerts.extend_from_slice(alerts)) })
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(async { self.flush_all() })
    }
}

impl DeadLetterSink for MemorySink {
    fn deliver<'a>(&'a mut self, letters: &'a [DeadLetter]) -> SinkFuture<'a> {
        Box::pin(async { self.call(|kept| kept.letters.extend_from_slice(letters)) })
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(async { self.flush_all() })
    }
}
