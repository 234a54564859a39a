//! What the flow says about itself. It writes, the HTTP surface reads; neither knows the other.
//!
//! *Ready* means that events are being evaluated and nothing holds them up: detections are loaded, every source has its
//! share (or has found that there is none, or is at its end), and the sinks that gate the commit accept. It does not mean
//! that a broker is up: a probe that restarts us when Kafka is down only makes things worse. *Alive* is false only after
//! an error that this process cannot get over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;

/// Where a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Not connected yet, or connecting again: with the last error, if there was one.
    Connecting(Option<String>),
    /// Reads so many lanes.
    Assigned(usize),
    /// Connected, and there is nothing for this process to read.
    Idle,
    /// At the end of its input.
    Finished,
    /// Stopped by an error.
    Failed(String),
}

/// Whether a sink accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkState {
    Up,
    Down(String),
}

/// Why a set of detections was not taken into use.
#[derive(Debug, Clone)]
struct ReloadProblem {
    since_ms: i64,
    /// Where and what, the first of them.
    errors: Vec<String>,
    count: usize,
}

#[derive(Debug, Clone)]
struct Sink {
    state: SinkState,
    gates: bool,
}

#[derive(Debug, Default)]
struct Inner {
    /// Zero until they are loaded, then their number plus one.
    detections: AtomicUsize,
    /// Milliseconds since the epoch; 0 is never.
    last_checkpoint_ms: AtomicI64,
    /// Number of the set of detections in force; 0 before there is one.
    generation: AtomicU64,
    /// Why the files of detections cannot be used as they are now.
    reload: Mutex<Option<ReloadProblem>>,
    /// Id, reason and time of each detection that is not evaluated.
    quarantined: Mutex<Vec<(String, String, i64)>>,
    draining: AtomicBool,
    sources: Mutex<BTreeMap<String, SourceState>>,
    sinks: Mutex<BTreeMap<String, Sink>>,
    fatal: Mutex<Option<String>>,
    checkpoint_error: Mutex<Option<String>>,
}

/// Health of the process. Clones are cheap and share everything.
#[derive(Debug, Clone, Default)]
pub struct Health {
    inner: Arc<Inner>,
}

/// An answer to "ready?" with its reasons and the detail that `/readyz` shows.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Why not; empty means ready.
    pub reasons: Vec<String>,
    /// JSON for people and probes: sources, sinks, detections, age of the last checkpoint.
    pub detail: serde_json::Value,
}

impl Readiness {
    /// Whether nothing speaks against it.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl Health {
    /// Nothing is loaded, connected or wrong yet.
    pub fn new() -> Health {
        Health::default()
    }

    /// So many detections are loaded; zero is a legal number.
    pub fn detections_loaded(&self, count: usize) {
        self.inner.detections.store(count.saturating_add(1), Ordering::Relaxed);
    }

    /// The set of this number is in force, and it is what the files hold.
    pub fn generation(&self, number: u64) {
        self.inner.generation.store(number, Ordering::Relaxed);
        self.reload_settled();
    }

    /// Id, reason and time (milliseconds since the epoch) of each detection that is not evaluated. The others are, so this
    /// is no reason not to be ready.
    pub fn quarantined(&self, detections: Vec<(String, String, i64)>) {
        *lock(&self.inner.quarantined) = detections;
    }

    /// The files hold what is in force.
    pub fn reload_settled(&self) {
        *lock(&self.inner.reload) = None;
    }

    /// The files hold something that cannot be used, so what was loaded before stays in force. That is no reason not to
    /// be ready: a restart would find the same files.
    pub fn reload_failed(&self, errors: &[String], count: usize) {
        *lock(&self.inner.reload) = Some(ReloadProblem { since_ms: clock::now_ms(), errors: errors.to_vec(), count });
    }

    /// Where a source stands now. The name must hold no credentials.
    pub fn source(&self, name: &str, state: SourceState) {
        lock(&self.inner.sources).insert(name.to_owned(), state);
    }

    /// A source runs. It reads at once, unless it has said already that it is still connecting.
    pub fn source_started(&self, name: &str) {
        lock(&self.inner.sources).entry(name.to_owned()).or_insert(SourceState::Assigned(1));
    }

    /// Whether a sink accepts. `gates` is true for the durable sink and the dead letters: positions wait for them.
    pub fn sink(&self, name: &str, gates: bool, state: SinkState) {
        lock(&self.inner.sinks).insert(name.to_owned(), Sink { state, gates });
    }

    /// Everything read before now is delivered and committed.
    pub fn checkpoint_done(&self) {
        self.inner.last_checkpoint_ms.store(clock::now_ms(), Ordering::Relaxed);
        *lock(&self.inner.checkpoint_error) = None;
    }

    /// The last checkpoint did not come about; said until one does.
    pub fn checkpoint_failed(&self, error: impl Into<String>) {
        *lock(&self.inner.checkpoint_error) = Some(error.into());
    }

    /// We are stopping: no new work, please.
    pub fn draining(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// Something happened that only a restart mends.
    pub fn fatal(&self, error: impl Into<String>) {
        lock(&self.inner.fatal).get_or_insert(error.into());
    }

    /// Why the process should be restarted, if it should.
    pub fn dead(&self) -> Option<String> {
        lock(&self.inner.fatal).clone()
    }

    /// Whether events are evaluated and delivered, with the detail.
    pub fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        if let Some(error) = self.dead() {
            reasons.push(error);
        }
        if self.inner.draining.load(Ordering::Relaxed) {
            reasons.push("shutting down".to_owned());
        }
        let detections = self.inner.detections.load(Ordering::Relaxed).checked_sub(1);
        if detections.is_none() {
            reasons.push("detections are not loaded yet".to_owned());
        }
        let sources = self.describe_sources(&mut reasons);
        let sinks = self.describe_sinks(&mut reasons);
        let checkpoint_error = lock(&self.inner.checkpoint_error).clone();
        if let Some(error) = &checkpoint_error {
            reasons.push(format!("last checkpoint failed: {error}"));
        }
        let last = self.inner.last_checkpoint_ms.load(Ordering::Relaxed);
        let age = (last > 0).then(|| clock::now_ms().saturating_sub(last).max(0) as f64 / 1_000.0);
        let detail = serde_json::json!({
            "ready": reasons.is_empty(),
            "reasons": &reasons,
            "detections": detections,
            "generation": self.inner.generation.load(Ordering::Relaxed),
            "reload": self.describe_reload(),
            "quarantined": self.describe_quarantined(),
            "sources": sources,
            "sinks": sinks,
            "last_checkpoint_age_seconds": age,
        });
        Readiness { reasons, detail }
    }

    fn describe_quarantined(&self) -> serde_json::Value {
        let all = lock(&self.inner.quarantined);
        let one = |(id, reason, since_ms): &(String, String, i64)| {
            let seconds = clock::now_ms().saturating_sub(*since_ms).max(0) as f64 / 1_000.0;
            (id.clone(), serde_json::json!({"reason": reason, "for_seconds": seconds}))
        };
        serde_json::Value::Object(all.iter().map(one).collect())
    }

    fn describe_reload(&self) -> serde_json::Value {
        match &*lock(&self.inner.reload) {
            None => serde_json::json!({"state": "settled"}),
            Some(ReloadProblem { since_ms, errors, count }) => serde_json::json!({
                "state": "failed",
                "for_seconds": clock::now_ms().saturating_sub(*since_ms).max(0) as f64 / 1_000.0,
                "errors": errors,
                "more": count.saturating_sub(errors.len()),
            }),
        }
    }

    fn describe_sources(&self, reasons: &mut Vec<String>) -> serde_json::Value {
        let sources = lock(&self.inner.sources);
        if sources.is_empty() {
            reasons.push("no source is started yet".to_owned());
        }
        let mut map = serde_json::Map::new();
        for (name, state) in sources.iter() {
            let detail = match state {
                SourceState::Connecting(None) => {
                    reasons.push(format!("source {name} is connecting"));
                    serde_json::json!({"state": "connecting"})
                }
                SourceState::Connecting(Some(error)) => {
                    reasons.push(format!("source {name} is connecting: {error}"));
                    serde_json::json!({"state": "connecting", "error": error})
                }
                SourceState::Assigned(lanes) => serde_json::json!({"state": "assigned", "lanes": lanes}),
                SourceState::Idle => serde_json::json!({"state": "idle"}),
                SourceState::Finished => serde_json::json!({"state": "finished"}),
                SourceState::Failed(error) => {
                    reasons.push(format!("source {name} failed: {error}"));
                    serde_json::json!({"state": "failed", "error": error})
                }
            };
            map.insert(name.clone(), detail);
        }
        serde_json::Value::Object(map)
    }

    fn describe_sinks(&self, reasons: &mut Vec<String>) -> serde_json::Value {
        let mut map = serde_json::Map::new();
        for (name, sink) in lock(&self.inner.sinks).iter() {
            let detail = match &sink.state {
                SinkState::Up => serde_json::json!({"state": "up", "gates_commit": sink.gates}),
                SinkState::Down(error) => {
                    if sink.gates {
                        reasons.push(format!("sink {name} is down and positions wait for it: {error}"));
                    }
                    serde_json::json!({"state": "down", "gates_commit": sink.gates, "error": error})
                }
            };
            map.insert(name.clone(), detail);
        }
        serde_json::Value::Object(map)
    }
}

/// The data is plain values that are whole after any panic, so a poisoned lock is no reason to stop.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Health {
        let health = Health::new();
        health.detections_loaded(60);
        health.source("audit", SourceState::Assigned(4));
        health.sink("alerts", true, SinkState::Up);
        health
    }

    #[test]
    fn not_ready_until_detections_and_sources_are_there() {
        let health = Health::new();
        assert_eq!(health.readiness().reasons.len(), 2);
        health.detections_loaded(0);
        health.source("audit", SourceState::Connecting(Some("connection refused".to_owned())));
        assert_eq!(health.readiness().reasons, ["source audit is connecting: connection refused"]);
        health.source("audit", SourceState::Idle);
        assert!(health.readiness().is_ready(), "idle is ready: another instance has the partitions");
    }

    #[test]
    fn a_source_that_waits_for_its_share_is_not_ready_by_being_started() {
        let health = ready();
        health.source("topic", SourceState::Connecting(None));
        health.source_started("topic");
        assert_eq!(health.readiness().reasons, ["source topic is connecting"]);
        health.source_started("file");
        health.source("topic", SourceState::Assigned(2));
        assert!(health.readiness().is_ready());
    }

    #[test]
    fn only_a_sink_that_gates_the_commit_makes_it_unready() {
        let health = ready();
        health.sink("hook", false, SinkState::Down("503".to_owned()));
        assert!(health.readiness().is_ready());
        health.sink("alerts", true, SinkState::Down("refused".to_owned()));
        let readiness = health.readiness();
        assert!(!readiness.is_ready() && readiness.reasons.iter().any(|reason| reason.contains("refused")));
        assert_eq!(readiness.detail["sinks"]["hook"]["error"], "503");
    }

    #[test]
    fn a_failed_checkpoint_is_said_until_one_succeeds() {
        let health = ready();
        health.checkpoint_failed("broker is away");
        assert!(!health.readiness().is_ready());
        health.checkpoint_done();
        let readiness = health.readiness();
        assert!(readiness.is_ready() && readiness.detail["last_checkpoint_age_seconds"].as_f64().is_some());
    }

    #[test]
    fn a_set_that_cannot_be_used_is_told_and_leaves_it_ready() {
        let health = ready();
        health.generation(3);
        health.reload_failed(&["a.yaml:2:1: no".to_owned()], 4);
        let readiness = health.readiness();
        assert!(readiness.is_ready(), "what was loaded before is in force");
        assert_eq!(readiness.detail["generation"], 3);
        assert_eq!(readiness.detail["reload"]["errors"], serde_json::json!(["a.yaml:2:1: no"]));
        assert_eq!(readiness.detail["reload"]["more"], 3);
        health.generation(4);
        assert_eq!(health.readiness().detail["reload"], serde_json::json!({"state": "settled"}));
    }

    #[test]
    fn draining_is_alive_and_a_fatal_error_is_not() {
        let health = ready();
        health.draining();
        assert!(health.dead().is_none() && !health.readiness().is_ready());
        health.fatal("worker panicked");
        health.fatal("and something later");
        assert_eq!(health.dead().as_deref(), Some("worker panicked"));
    }
}
