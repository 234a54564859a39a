//! Measures how far behind the source is, on a thread of its own: every measurement is a round trip to a broker,
//! which must not hold up reading.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::context::Client;
use super::ledger::Standing;
use crate::clock::now_ms;
use crate::telemetry::PartitionProgress;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is tried until there is something to measure: a restart should show its backlog at once.
const FIRST: Duration = Duration::from_secs(1);

/// Measures until dropped; dropping waits for the measurement under way.
pub(super) struct LagMeter {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl LagMeter {
    pub(super) fn start(consumer: &Arc<Client>, every: Duration) -> LagMeter {
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let consumer = Arc::downgrade(consumer);
        let run = move || {
            let mut wait = every.min(FIRST);
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if measure(&consumer, || stopped.try_recv() == Err(mpsc::TryRecvError::Disconnected)) {
                    wait = every;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kafka-lag".to_owned()).spawn(run);
        let thread =
            thread.map_err(|error| tracing::warn!(%error, "no thread for measuring the lag, going on without"));
        LagMeter { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for LagMeter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _joined = thread.join();
        }
    }
}

/// Whether anything could be measured.
fn measure(consumer: &Weak<Client>, stopped: impl Fn() -> bool) -> bool {
    let Some(consumer) = consumer.upgrade() else { return false };
    let callbacks = consumer.context();
    let mut measured = false;
    for Standing { topic, partition, sent, committed, time_ms } in callbacks.ledger.standings() {
        if stopped() {
            break;
        }
        let Ok((low, high)) = consumer.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT) else { continue };
        callbacks.monitor.reached();
        let position = sent.unwrap_or(low);
        let behind_ms = match time_ms {
            _ if position >= high => Some(0),
            time => time.map(|time| (now_ms() - time).max(0)),
        };
        let age_ms = time_ms.map(|time| now_ms() - time);
        callbacks.ledger.measured(&topic, partition, (position, high), age_ms);
        let lag_seconds = behind_ms.map(|ms| ms as f64 / 1_000.0);
        let progress = PartitionProgress { position: Some(position), committed, end: Some(high), lag_seconds };
        callbacks.monitor.events().progressed(&topic, partition, progress);
        measured = true;
    }
    measured
}
