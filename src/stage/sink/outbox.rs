//! The outbox of a sink that does not gate: bounded, on a task of its own.
//!
//! `push` never waits. While the sink is slow or down, alerts queue; when the queue is full, the oldest are given up
//! and counted, as the newest matter most and the durable sink has them all. The queue is bounded by count and bytes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{AlertSink, RetryPolicy, SinkStats, Whose};
use crate::model::Alert;

/// Most alerts given to the sink in one call.
const BATCH_MAX: usize = 64;

/// How much an outbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    pub alerts_max: usize,
    pub bytes_max: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        OutboxLimits { alerts_max: 10_000, bytes_max: 32 << 20 }
    }
}

/// Queue and task of one sink. Dropping it stops the task at once; [`Outbox::close`] gives it time to finish.
pub struct Outbox {
    name: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("name", &self.name).field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl Outbox {
    /// Starts the task, on the current Tokio runtime. `name` is for log lines.
    pub fn start(
        name: impl Into<String>,
        sink: Box<dyn AlertSink>,
        limits: OutboxLimits,
        retry: RetryPolicy,
        stats: Arc<SinkStats>,
    ) -> Self {
        let name = name.into();
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Notify::new(), limits, stats });
        let courier = Courier { name: name.clone(), sink, shared: Arc::clone(&shared), retry };
        #[expect(clippy::disallowed_methods, reason = "the outbox owns the task and waits for it in `close`")]
        let task = tokio::spawn(courier.run());
        Outbox { name, shared, task }
    }

    /// Puts alerts into the queue; gives up the oldest where it is full.
    pub fn push(&self, alerts: &[Alert]) {
        let mut queue = self.shared.queue();
        if queue.ended {
            return;
        }
        let dropped = queue.push(alerts, self.shared.limits);
        if dropped > 0 {
            self.shared.stats.dropped(dropped);
            if !queue.overflowing {
                tracing::warn!(sink = self.name, "outbox is full, giving up the oldest alerts");
            }
            queue.overflowing = true;
        }
        self.shared.stats.queued(queue.len());
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// Takes nothing more, waits up to `patience` until everything is delivered, and gives the number of alerts that
    /// were given up.
    pub async fn close(mut self, patience: Duration) -> usize {
        self.shared.queue().closing = true;
        self.shared.changed.notify_one();
        if tokio::time::timeout(patience, &mut self.task).await.is_ok() {
            return 0;
        }
        self.task.abort();
        let left = self.shared.queue().len();
        self.shared.stats.dropped(left);
        self.shared.stats.queued(0);
        tracing::warn!(sink = self.name, alerts = left, "sink did not take its last alerts in time, giving them up");
        left
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
    limits: OutboxLimits,
    stats: Arc<SinkStats>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Alert>,
    /// Of `waiting`.
    bytes: usize,
    /// Taken out by the task and not yet delivered.
    in_hand: usize,
    overflowing: bool,
    closing: bool,
    /// The task is over: the reader of standard output went away.
    ended: bool,
}

impl Queue {
    /// Alerts that are not delivered.
    fn len(&self) -> usize {
        self.waiting.len() + self.in_hand
    }

    /// Gives the number of alerts that had to go.
    fn push(&mut self, alerts: &[Alert], limits: OutboxLimits) -> usize {
        let mut dropped = 0;
        for alert in alerts {
            self.bytes += weight(alert);
            self.waiting.push_back(alert.clone());
            while self.waiting.len() > limits.alerts_max.max(1)
                || (self.bytes > limits.bytes_max && self.waiting.len() > 1)
            {
                if let Some(oldest) = self.waiting.pop_front() {
                    self.bytes -= weight(&oldest);
                    dropped += 1;
                }
            }
        }
        dropped
    }

    fn take(&mut self) -> Vec<Alert> {
        let count = self.waiting.len().min(BATCH_MAX);
        let batch: Vec<Alert> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(weight).sum::<usize>();
        self.in_hand = batch.len();
        batch
    }
}

/// Bytes that an alert keeps alive.
fn weight(alert: &Alert) -> usize {
    alert.ocsf.len() + alert.summary.len() + size_of::<Alert>()
}

/// The task: takes from the queue and delivers.
struct Courier {
    name: String,
    sink: Box<dyn AlertSink>,
    shared: Arc<Shared>,
    retry: RetryPolicy,
}

impl Courier {
    async fn run(mut self) {
        loop {
            let (batch, closing) = {
                let mut queue = self.shared.queue();
                (queue.take(), queue.closing)
            };
            if !batch.is_empty() {
                if !self.deliver(&batch).await {
                    break;
                }
                self.delivered();
                continue;
            }
            if let Err(error) = self.sink.flush().await {
                tracing::warn!(sink = self.name, error = error.message, "sink could not make its alerts durable");
            }
            if closing {
                break;
            }
            self.shared.changed.notified().await;
        }
        let mut queue = self.shared.queue();
        queue.ended = true;
        queue.waiting.clear();
        queue.in_hand = 0;
        self.shared.stats.queued(0);
    }

    /// Repeats until the sink has the batch. False where nobody will ever read it.
    async fn deliver(&mut self, batch: &[Alert]) -> bool {
        let mut pauses = self.retry.pauses();
        let mut reported = String::new();
        loop {
            match self.sink.deliver(batch).await {
                Ok(()) => return true,
                Err(error) if error.whose == Whose::Reader => return false,
                // What is final for a sink that gates (a wrong token, say) may be mended at the other end.
                Err(error) if error.message != reported => {
                    tracing::error!(sink = self.name, error = error.message, "sink refuses alerts, repeating");
                    reported = error.message;
                }
                Err(_) => {}
            }
            self.shared.stats.retried(1);
            pauses.wait(None).await;
        }
    }

    fn delivered(&self) {
        let mut queue = self.shared.queue();
        queue.in_hand = 0;
        if queue.overflowing && queue.waiting.is_empty() {
            queue.overflowing = false;
            tracing::info!(sink = self.name, "outbox is empty again");
        }
        self.shared.stats.queued(queue.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::sink::samples::{alert, alerts};
    use crate::stage::sink::{MemorySink, SinkError, SinkFuture};

    const QUICK: RetryPolicy = RetryPolicy {
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(5),
        file_patience: Duration::from_millis(5),
    };
    const PATIENCE: Duration = Duration::from_secs(10);

    fn uids(sink: &MemorySink) -> Vec<String> {
        sink.kept().alerts.iter().map(|alert| alert.uid.to_string()).collect()
    }

    fn start(sink: impl AlertSink + 'static, alerts_max: usize) -> (Outbox, Arc<SinkStats>) {
        let stats = Arc::new(SinkStats::default());
        let limits = OutboxLimits { alerts_max, ..OutboxLimits::default() };
        (Outbox::start("test", Box::new(sink), limits, QUICK, Arc::clone(&stats)), stats)
    }

    /// Takes nothing until the gate opens.
    struct Gated {
        gate: Arc<tokio::sync::Semaphore>,
        then: MemorySink,
    }

    impl AlertSink for Gated {
        fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a> {
            Box::pin(async move {
                drop(self.gate.acquire().await.expect("open"));
                self.then.deliver(alerts).await
            })
        }

        fn flush(&mut self) -> SinkFuture<'_> {
            AlertSink::flush(&mut self.then)
        }
    }

    #[tokio::test]
    async fn everything_arrives_in_order_and_is_flushed_before_the_end() {
        let memory = MemorySink::default();
        let (outbox, stats) = start(memory.clone(), 1_000);
        for round in 0..10 {
            outbox.push(&alerts(&format!("{round}-"), 20));
        }
        assert_eq!(outbox.close(PATIENCE).await, 0);
        assert_eq!(uids(&memory).len(), 200);
        assert_eq!(uids(&memory)[199], "9-19");
        assert_eq!(memory.kept().alerts_durable, 200);
        assert_eq!(stats.read().queued, 0);
    }

    #[tokio::test]
    async fn a_full_outbox_gives_up_the_oldest_and_never_waits() {
        let (gate, memory) = (Arc::new(tokio::sync::Semaphore::new(0)), MemorySink::default());
        let (outbox, stats) = start(Gated { gate: Arc::clone(&gate), then: memory.clone() }, 3);
        outbox.push(&[alert("in hand")]);
        while stats.read().queued != 1 || !outbox.shared.queue().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        outbox.push(&alerts("late", 5));
        assert_eq!((stats.read().dropped, stats.read().queued), (2, 4));
        gate.add_permits(1);
        assert_eq!(outbox.close(PATIENCE).await, 0);
        assert_eq!(uids(&memory), ["in hand", "late2", "late3", "late4"]);
    }

    #[tokio::test]
    async fn bytes_bound_the_queue_too() {
        let stats = Arc::new(SinkStats::default());
        let limits = OutboxLimits { alerts_max: 1_000, bytes_max: 3 * weight(&alert("f0")) };
        let gated = Gated { gate: Arc::new(tokio::sync::Semaphore::new(0)), then: MemorySink::default() };
        let outbox = Outbox::start("test", Box::new(gated), limits, QUICK, Arc::clone(&stats));
        outbox.push(&alerts("f", 10));
        assert_eq!(stats.read().dropped, 7);
    }

    #[tokio::test]
    async fn a_sink_that_is_down_at_the_end_costs_bounded_time() {
        let gated = Gated { gate: Arc::new(tokio::sync::Semaphore::new(0)), then: MemorySink::default() };
        let (outbox, stats) = start(gated, 100);
        outbox.push(&alerts("f", 7));
        assert_eq!(outbox.close(Duration::from_millis(50)).await, 7);
        assert_eq!((stats.read().dropped, stats.read().queued), (7, 0));
    }

    #[tokio::test]
    async fn even_a_final_error_is_tried_again() {
        let memory = MemorySink::default();
        memory.fail_next(SinkError::user("wrong token"));
        memory.fail_next(SinkError::external("down"));
        let (outbox, stats) = start(memory.clone(), 100);
        outbox.push(&alerts("f", 2));
        assert_eq!(outbox.close(PATIENCE).await, 0);
        assert_eq!(uids(&memory), ["f0", "f1"]);
        assert_eq!(stats.read().retried, 2);
    }

    #[tokio::test]
    async fn a_reader_that_went_away_ends_it_quietly() {
        let memory = MemorySink::default();
        memory.fail_next(SinkError::reader_gone());
        let (outbox, stats) = start(memory.clone(), 100);
        outbox.push(&alerts("f", 2));
        while !outbox.shared.queue().ended {
            tokio::task::yield_now().await;
        }
        outbox.push(&alerts("g", 2));
        assert_eq!(outbox.close(PATIENCE).await, 0);
        assert_eq!(stats.read(), crate::stage::sink::SinkCounts::default());
    }
}
