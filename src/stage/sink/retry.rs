//! Repeating what may succeed later: growing, jittered pauses without end.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use super::{SinkError, SinkStats};

/// A receiver that asks for a longer pause than this gets this one: a year by mistake must not silence us for a year.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// How long to pause between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// First pause; each further one is twice as long.
    pub delay_min: Duration,
    /// Longest pause, before jitter, which adds up to as much again.
    pub delay_max: Duration,
    /// Pauses after which a file that cannot be written to is given up, together. Receivers elsewhere are waited for
    /// without end: they come back by themselves, a full disk does not.
    pub file_patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            delay_min: Duration::from_millis(250),
            delay_max: Duration::from_secs(30),
            file_patience: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The pauses of one call, from the shortest.
    pub(super) fn pauses(&self) -> Pauses {
        let builder = ExponentialBuilder::default()
            .with_min_delay(self.delay_min)
            .with_max_delay(self.delay_max)
            .with_jitter()
            .without_max_times();
        Pauses { delays: builder.build(), delay_max: self.delay_max, waited: Duration::ZERO }
    }
}

/// Pauses between the attempts of one call.
pub(super) struct Pauses {
    delays: ExponentialBackoff,
    delay_max: Duration,
    /// All pauses so far.
    waited: Duration,
}

impl Pauses {
    /// Waits for the next pause, and at least as long as the receiver asked for.
    pub(super) async fn wait(&mut self, asked: Option<Duration>) {
        let own = self.delays.next().unwrap_or(self.delay_max);
        let pause = own.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX));
        self.waited += pause;
        tokio::time::sleep(pause).await;
    }
}

/// Repeats `attempt` until it succeeds, fails for good, or has been repeated for as long as `patience`. An outage is
/// logged when it begins and when it ends.
pub(super) async fn until_done<F, A>(
    name: &str,
    policy: RetryPolicy,
    patience: Duration,
    stats: &SinkStats,
    mut attempt: A,
) -> Result<(), SinkError>
where
    A: FnMut() -> F,
    F: Future<Output = Result<(), SinkError>>,
{
    let mut pauses = policy.pauses();
    let mut failed = false;
    loop {
        match attempt().await {
            Err(error) if error.retry && pauses.waited < patience => {
                stats.retried(1);
                if !failed {
                    tracing::warn!(sink = name, error = error.message, "sink failed, trying again");
                }
                failed = true;
                pauses.wait(None).await;
            }
            Err(error) if failed && error.retry => {
                let seconds = pauses.waited.as_secs();
                let message = format!("{}; given up after {seconds} s", error.message);
                return Err(SinkError { retry: false, message, ..error });
            }
            result => {
                if failed && result.is_ok() {
                    tracing::info!(sink = name, "sink works again");
                }
                return result;
            }
        }
    }
}
