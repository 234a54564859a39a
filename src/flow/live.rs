//! A run: sources to sinks, until the input ends or somebody asks to stop.
//!
//! Sources send numbered chunks; worker threads decode and evaluate them side by side; one task, the sequencer, takes
//! their outcomes in number order, makes alerts of them and delivers. A **checkpoint** is the only commit: it emits what
//! findings have gathered, waits until the durable sink and the dead letters have everything, and then tells the
//! sources how far they are done. Between checkpoints nothing is committed, so a crash at any point only repeats work,
//! and repeated alerts carry the same ids.
//!
//! Where state is kept ([`keeping`](super::keeping)), positions are committed with the snapshot that covers them, never
//! beyond: sinks, then the snapshot, then the sources. Snapshots are rarer than checkpoints and are written beside the
//! run; whoever asks for a checkpoint, and the end of a run, wait for one.

mod ends;
mod quarantine;
mod shared;
mod turn;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::ends::Ends;
pub use self::shared::Sharing;
use self::shared::{Shared, share_written};
use self::turn::next_set;
use super::breaker::{Breaker, BreakerOptions};
use super::exchange::{Exchange, TIDE_EVERY};
use super::keeping::{self, Covered, Keeping};
use super::lanes::SourceNames;
use super::reload::{Generation, Plan, Stand, memory_of};
use super::shares::ShareOptions;
use super::snapshots::Snapshots;
use super::work::{Outcome, SourceSettings, Worker, matches_by_detection};
use crate::clock::{self, Instant};
use crate::detection::DetectionSet;
use crate::model::{
    Alert, Cloud, Column, DeadLetter, Finding, LaneId, MatchedRows, Position, RejectReason, SkipReason,
};
use crate::stage::alert::{AlertOptions, AlertStage};
use crate::stage::evaluate::Evaluator;
use crate::stage::memory::{Memory, MemoryCounts, MemoryOptions};
use crate::stage::sink::{AlertSink, DeadLetterSink, Outbox, SinkError, Whose};
use crate::stage::source::{Committer, Message, Source, SourceError, Stop, intakes};
use crate::state::{Image, StateError};
use crate::telemetry::{
    AbsorbedTotals, CheckpointDone, CheckpointFailed, DetectionFailed, Health, Metrics, RecordDeadLettered, SinkState,
    SourceFailed, SourceState,
};

/// How long further sinks may take to empty their outboxes at the end.
const OUTBOX_PATIENCE: Duration = Duration::from_secs(10);
/// How long what is in hand may take after a stop: less than the half minute after which orchestrators kill.
const STOP_PATIENCE: Duration = Duration::from_secs(25);
const STOP_POLL: Duration = Duration::from_millis(250);

/// A source, ready to run.
#[allow(missing_debug_implementations, reason = "trait objects of other modules")]
pub struct LiveSource {
    pub name: String,
    pub source: Box<dyn Source>,
    pub committer: Arc<dyn Committer>,
    pub settings: SourceSettings,
}

/// Everything that a run consists of.
#[allow(missing_debug_implementations, reason = "trait objects of other modules")]
pub struct Live {
    pub set: Arc<DetectionSet>,
    pub evaluator: Arc<Evaluator>,
    pub alert_options: AlertOptions,
    pub memory_options: MemoryOptions,
    pub sources: Vec<LiveSource>,
    /// The first sink: gates the commit.
    pub durable: Box<dyn AlertSink>,
    pub durable_name: String,
    pub outboxes: Vec<Outbox>,
    /// `None`: unreadable records are logged and counted only, as their file stays where it is.
    pub dead_letters: Option<Box<dyn DeadLetterSink>>,
    pub workers: usize,
    pub checkpoint_interval: Duration,
    /// What outlives the run, and what an earlier one has left; `None` keeps nothing.
    pub state: Option<(Snapshots, Image)>,
    /// How memory is shared with the other instances of the group; it then has state of its own. `None` remembers what
    /// this process reads.
    pub exchange: Option<Sharing>,
    /// Sets of detections that follow this one; `None` where none will.
    pub reloads: Option<mpsc::Receiver<Generation>>,
    /// When a detection that harms the others is taken out of force.
    pub breaker: BreakerOptions,
    pub metrics: Metrics,
    pub health: Health,
    pub stop: Stop,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub records: u64,
    pub bytes: u64,
    pub events: u64,
    pub skipped: BTreeMap<&'static str, u64>,
    pub rejected: u64,
    pub truncated: u64,
    pub alerts: u64,
    pub updates: u64,
    /// Findings by severity word.
    pub by_severity: BTreeMap<&'static str, u64>,
    pub failures: u64,
    /// Matches that exceptions have hidden.
    pub hidden: u64,
    /// Events that came too late for detections with memory.
    pub late: u64,
    pub seconds: f64,
    /// Standard output was closed by its reader.
    pub reader_gone: bool,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("source {name}: {error}")]
    Source { name: String, error: SourceError },
    #[error("sink {name}: {error}")]
    Sink { name: String, error: SinkError },
    #[error(
        "sink {name} did not take everything within {} s after the stop; what is missing is read again by the next run",
        STOP_PATIENCE.as_secs()
    )]
    Overdue { name: String },
    #[error("{0}")]
    State(StateError),
    #[error("exchange: {0}")]
    Exchange(crate::kafka::Error),
    #[error(
        "the memory of partition {partition} was taken over by another instance while the group still gives it to this \
         one ({reason}); a restart settles whose it is"
    )]
    Overtaken { partition: String, reason: String },
    #[error("{0}")]
    Internal(String),
}

/// An outcome with its place in the order.
struct Numbered {
    sequence: u64,
    source: usize,
    outcome: Outcome,
}

impl Live {
    /// Runs until every source has ended.
    ///
    /// # Errors
    /// The first failure of a source or of a sink that gates. Everything delivered until then is committed where its
    /// sink could make it durable.
    pub async fn run(mut self) -> Result<Summary, RunError> {
        let started = Instant::now();
        let mut all = self.sources;
        let (sharing, own) = match self.exchange.filter(|_| self.set.detections.iter().any(|one| one.memory.is_some()))
        {
            Some(Sharing { topic, source, places }) => {
                all.push(source);
                (Some((topic, places)), all.len() - 1)
            }
            None => (None, 0),
        };
        let (sources, settings, committers, names) = split(all);
        let (handles, outlet) = intakes(sources.len(), self.workers);
        let (results, outcomes) = mpsc::channel(self.workers);
        let mut memory = memory_of(&self.set, &self.memory_options);
        let subjects = self.set.detections.iter().any(|detection| detection.reads_alerts());
        let alert_options = AlertOptions { subjects, ..self.alert_options };
        let mut stage = AlertStage::new(Arc::clone(&self.set), alert_options.clone());
        let shared = sharing.and_then(|(topic, places)| {
            let mut fronts = SourceNames::default();
            let fronts = names.iter().take(own).map(|name| fronts.next(name)).collect();
            let out = Exchange::new(topic, memory.take()?, fronts, self.metrics.clone());
            let (set, metrics) = (Arc::clone(&self.set), self.metrics.clone());
            let options = ShareOptions { set, memory: self.memory_options, alerts: alert_options.clone(), metrics };
            Some(Shared::new(out, own, places, options))
        });
        let left = self.state.as_mut().map(|(_, image)| std::mem::take(&mut image.quarantined)).unwrap_or_default();
        let mut breaker = Breaker::new(self.breaker, left);
        for number in breaker.follow(&self.set, false) {
            self.evaluator.quarantine(number);
            memory.iter_mut().for_each(|memory| memory.quarantine(number));
        }
        let keeping = self.state.map(|(snapshots, image)| {
            Keeping::start(snapshots, image, &names, (memory.as_mut(), &mut stage), &self.metrics)
        });
        let generation = keeping.as_ref().map_or(1, Keeping::generation);
        self.metrics.generation(generation);
        self.health.generation(generation);
        let kept = memory.as_ref().map(Memory::need).or_else(|| shared.as_ref().map(|shared| shared.out().need()));
        let kept = kept.cloned();
        let exchange = shared.as_ref().map(|shared| (shared.source(), Arc::new(shared.out().numbers())));
        let worker =
            || Worker::new(Arc::clone(&self.evaluator), &settings, kept.clone()).with_exchange(exchange.clone());
        let stand = Arc::new(Stand::new(Plan { evaluator: Arc::clone(&self.evaluator), kept: kept.clone() }));
        spawn_workers(self.workers, outlet.work, results, &stand, worker);
        let mut ended = Vec::new();
        for ((source, intake), name) in sources.into_iter().zip(handles).zip(&names) {
            ended.push(spawn_source(source, intake, self.stop.clone(), name));
            self.health.source_started(name);
        }
        let mut sequencer = Sequencer {
            stage,
            memory,
            shared,
            keeping,
            unsaved: None,
            set: self.set,
            evaluator: self.evaluator,
            breaker,
            alert_options,
            stand,
            generation,
            coming: VecDeque::new(),
            durable: self.durable,
            durable_name: self.durable_name,
            outboxes: self.outboxes,
            dead_letters: self.dead_letters,
            committers,
            names,
            metrics: self.metrics,
            health: self.health,
            pending: HashMap::new(),
            held: BTreeMap::new(),
            done: 0,
            waiting: Vec::new(),
            hidden: HashMap::new(),
            summary: Summary::default(),
        };
        sequencer.tell_quarantined();
        let result = tokio::select! {
            result = sequencer.run(outcomes, outlet.control, self.checkpoint_interval, (ended, self.reloads), &self.stop) => result,
            () = overdue(&self.stop) => Err(RunError::Overdue { name: sequencer.durable_name.clone() }),
        };
        self.stop.request();
        sequencer.close().await;
        sequencer.summary.seconds = started.elapsed_seconds();
        match result {
            Err(RunError::Sink { error, .. }) if error.whose == Whose::Reader => {
                sequencer.summary.reader_gone = true;
                Ok(sequencer.summary)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(sequencer.summary),
        }
    }
}

/// Returns when a stop was asked for and what is in hand has had its time. A sink that waits for a broker to come back
/// would otherwise keep the process until somebody kills it.
async fn overdue(stop: &Stop) {
    while !stop.requested() {
        tokio::time::sleep(STOP_POLL).await;
    }
    tokio::time::sleep(STOP_PATIENCE).await;
}

/// How a source ends, once it does.
type Ended = oneshot::Receiver<Result<(), SourceError>>;

type Parts = (Vec<Box<dyn Source>>, Vec<SourceSettings>, Vec<Arc<dyn Committer>>, Vec<String>);

fn split(sources: Vec<LiveSource>) -> Parts {
    let mut parts: Parts = Default::default();
    for source in sources {
        parts.0.push(source.source);
        parts.1.push(source.settings);
        parts.2.push(source.committer);
        parts.3.push(source.name);
    }
    parts
}

/// Runs a source on a thread of its own; the receiver is told how it ended.
fn spawn_source(
    source: Box<dyn Source>,
    intake: crate::stage::source::Intake,
    stop: Stop,
    name: &str,
) -> oneshot::Receiver<Result<(), SourceError>> {
    let (ended, wait) = oneshot::channel();
    let run = move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| source.run(intake, stop)));
        let result = result.unwrap_or_else(|_| Err(SourceError::external("the source panicked; see the log above")));
        // Nobody listens after a failure elsewhere.
        ended.send(result).ok();
    };
    let thread = std::thread::Builder::new().name(format!("source {name}"));
    thread.spawn(run).expect("the system gives a thread to each source");
    wait
}

fn spawn_workers(
    count: usize,
    work: mpsc::Receiver<Message>,
    results: mpsc::Sender<Numbered>,
    stand: &Arc<Stand>,
    make: impl Fn() -> Worker,
) {
    let work = Arc::new(Mutex::new(work));
    for number in 0..count {
        let (work, results, stand) = (Arc::clone(&work), results.clone(), Arc::clone(stand));
        let mut worker = make();
        let run = move || {
            loop {
                // The lock is held while waiting, so workers take chunks one after the other, in order.
                let mut queue = work.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(Message::Chunk { sequence, source, chunk }) = queue.blocking_recv() else { return };
                let plan = stand.take(sequence);
                drop(queue);
                worker.follow(&plan.evaluator, plan.kept.as_ref());
                let outcome = worker.work(source, &chunk);
                if results.blocking_send(Numbered { sequence, source, outcome }).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("worker {number}"));
        thread.spawn(run).expect("the system gives a thread to each worker");
    }
}

/// Takes outcomes in order and delivers.
struct Sequencer {
    set: Arc<DetectionSet>,
    evaluator: Arc<Evaluator>,
    breaker: Breaker,
    alert_options: AlertOptions,
    /// By what workers evaluate.
    stand: Arc<Stand>,
    /// Number of the set in force.
    generation: u64,
    /// Sets that follow it, each from the chunk of this number on.
    coming: VecDeque<(u64, Generation)>,
    stage: AlertStage,
    memory: Option<Memory>,
    /// In place of the memory, where it is shared.
    shared: Option<Shared>,
    keeping: Option<Keeping>,
    /// Why the last snapshot is not durable.
    unsaved: Option<StateError>,
    durable: Box<dyn AlertSink>,
    durable_name: String,
    outboxes: Vec<Outbox>,
    dead_letters: Option<Box<dyn DeadLetterSink>>,
    committers: Vec<Arc<dyn Committer>>,
    names: Vec<String>,
    metrics: Metrics,
    health: Health,
    /// By source and lane: first offset that is not delivered.
    pending: HashMap<(usize, LaneId), u64>,
    /// Outcomes that came before their turn.
    held: BTreeMap<u64, Numbered>,
    /// Number of the next outcome.
    done: u64,
    /// Who waits for a checkpoint, and for which number.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    /// By detection: matches hidden by exceptions that are in the metrics already.
    hidden: HashMap<String, u64>,
    summary: Summary,
}

impl Sequencer {
    async fn run(
        &mut self,
        mut outcomes: mpsc::Receiver<Numbered>,
        mut control: mpsc::UnboundedReceiver<Message>,
        interval: Duration,
        (ended, mut reloads): (Vec<Ended>, Option<mpsc::Receiver<Generation>>),
        stop: &Stop,
    ) -> Result<(), RunError> {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut tides = tokio::time::interval(TIDE_EVERY);
        tides.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ends = Ends::new(ended);
        let mut failure = None;
        loop {
            tokio::select! {
                biased;
                Some(Message::Checkpoint { before, done }) = control.recv() => {
                    self.waiting.push((before, done));
                    self.answer().await?;
                },
                (source, result) = ends.next(), if !ends.all() => {
                    let name = self.names[source].clone();
                    match result {
                        Ok(()) => self.health.source(&name, SourceState::Finished),
                        Err(error) => {
                            self.health.source(&name, SourceState::Failed(error.message.clone()));
                            let first = failure.is_none();
                            self.metrics.emit(SourceFailed { source: &name, error: &error.message, first });
                            // The other sources hand over what they have; then the run ends with this error.
                            stop.request();
                            failure.get_or_insert(RunError::Source { name, error });
                        }
                    }
                },
                (written, covered) = keeping::written(&mut self.keeping) => self.settle(written, covered)?,
                (lane, written, covered) = share_written(&mut self.shared) => self.settle_share(lane, &written, covered)?,
                _ = tides.tick(), if self.shared.is_some() => self.tide(outcomes.is_empty()).await?,
                // Rare, and large: it need not make every other wait larger.
                next = next_set(&mut reloads) => Box::pin(self.renew(next)).await?,
                // Before the outcomes, which under load are always there.
                _ = ticks.tick() => {
                    self.pass_time(outcomes.is_empty()).await?;
                    self.checkpoint(false).await?;
                },
                numbered = outcomes.recv() => match numbered {
                    Some(numbered) => self.in_order(numbered).await?,
                    None => break,
                },
            }
        }
        // Before the end of the input is taken for the end of time: a later run may go on from here.
        self.checkpoint(true).await?;
        // A run that was stopped goes on another time; only an input that is over closes what is open.
        if failure.is_none()
            && !stop.requested()
            && let Some(memory) = &mut self.memory
        {
            let findings = memory.finish();
            self.remember(&findings, Vec::new()).await?;
            self.flush().await?;
            self.tell_counts();
            self.tell_memory();
        }
        let failure = failure.or_else(|| self.unsaved.take().map(RunError::State));
        failure.map_or(Ok(()), Err)
    }

    async fn in_order(&mut self, numbered: Numbered) -> Result<(), RunError> {
        self.held.insert(numbered.sequence, numbered);
        while let Some(next) = self.held.remove(&self.done) {
            self.take(next).await?;
            self.done += 1;
            Box::pin(self.turn()).await?;
        }
        self.answer().await
    }

    async fn take(&mut self, numbered: Numbered) -> Result<(), RunError> {
        let Numbered { source, mut outcome, .. } = numbered;
        self.harm_of(&outcome);
        if self.shared.is_some() {
            return Box::pin(self.take_shared(source, outcome)).await;
        }
        self.count(source, &outcome);
        if let Some(keeping) = &mut self.keeping {
            keeping.advance(source, &outcome.next, &outcome.lanes, self.memory.as_mut());
        }
        for (lane, offset) in outcome.next {
            self.pending.insert((source, lane), offset);
        }
        self.dead(&outcome.dead_letters).await?;
        let mut at_once = Vec::new();
        for matched in &outcome.matched {
            let alerts = self.stage.accept(matched);
            self.deliver(&alerts).await?;
            at_once.extend(alerts);
        }
        if let Some(memory) = &mut self.memory {
            outcome.kept.iter_mut().for_each(|kept| self.stage.admit(kept));
            let taken = (outcome.heard.as_slice(), outcome.kept.as_slice(), outcome.ended.as_slice());
            let findings = memory.take(source, taken, clock::now_us());
            self.remember(&findings, at_once).await?;
        }
        Ok(())
    }

    /// Lets lanes that are silent for long hold nothing back, where that is not because something waits: here
    /// (`is_idle`: nothing does), or where it is read from.
    async fn pass_time(&mut self, is_idle: bool) -> Result<(), RunError> {
        let is_current = is_idle && self.held.is_empty() && self.committers.iter().all(|one| one.is_current());
        let Some(memory) = self.memory.as_mut().filter(|_| is_current) else { return Ok(()) };
        let findings = memory.idle(clock::now_us());
        self.remember(&findings, Vec::new()).await
    }

    /// Tells what detections with memory have found, and what is found among alerts: these, and those that came at once
    /// with the events.
    async fn remember(&mut self, findings: &[Finding], mut alerts: Vec<Alert>) -> Result<(), RunError> {
        alerts.extend(self.tell(findings).await?);
        let Some(memory) = &mut self.memory else { return Ok(()) };
        let correlated = memory.correlate(&alerts);
        let failures = memory.failures();
        for (detection, error) in &failures {
            self.metrics.emit(DetectionFailed { detection: &self.set.detections[*detection].id, error });
            self.summary.failures += 1;
        }
        self.harm_of_memory(&failures);
        self.tell(&correlated).await?;
        Ok(())
    }

    async fn tell(&mut self, findings: &[Finding]) -> Result<Vec<Alert>, RunError> {
        self.tell_by(findings, |run, finding| run.stage.remember(finding)).await
    }

    /// Counts and delivers what findings become; `remember` makes alerts of one.
    async fn tell_by(
        &mut self,
        findings: &[Finding],
        mut remember: impl FnMut(&mut Sequencer, &Finding) -> Vec<Alert>,
    ) -> Result<Vec<Alert>, RunError> {
        let mut all = Vec::new();
        for finding in findings {
            self.count_finding(finding);
            let alerts = remember(self, finding);
            self.deliver(&alerts).await?;
            all.extend(alerts);
        }
        Ok(all)
    }

    fn count_finding(&self, finding: &Finding) {
        let detection = &self.set.detections[finding.detection];
        self.metrics.detection_matched(&detection.id, detection.severity, finding.evidence.rows.num_rows() as u64);
    }

    async fn dead(&mut self, letters: &[DeadLetter]) -> Result<(), RunError> {
        for letter in letters {
            self.metrics.emit(RecordDeadLettered {
                lane: &letter.lane,
                offset: letter.offset,
                reason: letter.reason,
                detail: &letter.detail,
            });
        }
        match &mut self.dead_letters {
            Some(sink) if !letters.is_empty() => {
                sink.deliver(letters).await.map_err(|error| RunError::Sink { name: "dead letters".to_owned(), error })
            }
            _ => Ok(()),
        }
    }

    async fn deliver(&mut self, alerts: &[Alert]) -> Result<(), RunError> {
        if alerts.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let delivered = self.durable.deliver(alerts).await;
        self.metrics.sink_answered(&self.durable_name, started.elapsed_seconds());
        if let Err(error) = delivered {
            self.health.sink(&self.durable_name, true, SinkState::Down(error.message.clone()));
            return Err(RunError::Sink { name: self.durable_name.clone(), error });
        }
        self.outboxes.iter().for_each(|outbox| outbox.push(alerts));
        for alert in alerts {
            self.metrics.alert_emitted(&alert.detection, alert.activity, alert.event_time_us, alert.arrival_ms);
            match alert.activity {
                crate::model::Activity::Create => {
                    self.summary.alerts += 1;
                    *self.summary.by_severity.entry(alert.severity.as_str()).or_default() += 1;
                }
                crate::model::Activity::Update => self.summary.updates += 1,
            }
        }
        Ok(())
    }

    /// Answers those who wait for a checkpoint that is now possible.
    async fn answer(&mut self) -> Result<(), RunError> {
        if !self.waiting.iter().any(|(before, _)| *before <= self.done) {
            return Ok(());
        }
        self.checkpoint(true).await?;
        let (ready, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(before, _)| *before <= self.done);
        self.waiting = waiting;
        let ready: Vec<(u64, oneshot::Sender<()>)> = ready;
        // Whoever stopped waiting has given up the partition already.
        ready.into_iter().for_each(|(_, done)| {
            done.send(()).ok();
        });
        Ok(())
    }

    /// Has everything delivered and durable.
    async fn flush(&mut self) -> Result<(), RunError> {
        let updates = self.stage.flush();
        self.deliver(&updates).await?;
        self.flush_shared().await?;
        let durable = self.durable.flush().await;
        if let Err(error) = durable {
            self.metrics.emit(CheckpointFailed { error: &error.message });
            self.health.checkpoint_failed(error.message.clone());
            return Err(RunError::Sink { name: self.durable_name.clone(), error });
        }
        if let Some(sink) = &mut self.dead_letters {
            let flushed = sink.flush().await;
            flushed.map_err(|error| RunError::Sink { name: "dead letters".to_owned(), error })?;
        }
        Ok(())
    }

    /// The one commit: everything delivered, durable, and then the sources are told. Where state is kept, that takes a
    /// snapshot: `whole` waits for one of everything so far, otherwise one is begun when it is due.
    async fn checkpoint(&mut self, whole: bool) -> Result<(), RunError> {
        let started = Instant::now();
        self.flush().await?;
        let lanes = self.pending.len();
        if self.keeping.is_some() {
            self.keep(whole).await?;
        } else {
            let covered = std::mem::take(&mut self.pending);
            self.commit(covered)?;
            self.keep_shares(whole).await?;
        }
        self.tell_counts();
        self.tell_memory();
        if self.unsaved.is_none() {
            self.metrics.emit(CheckpointDone { lanes, seconds: started.elapsed_seconds() });
            self.health.checkpoint_done();
        }
        Ok(())
    }

    async fn keep(&mut self, whole: bool) -> Result<(), RunError> {
        if whole && self.keeping.as_ref().is_some_and(Keeping::is_writing) {
            let (written, covered) = keeping::written(&mut self.keeping).await;
            self.settle(written, covered)?;
        }
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        if let Some(memory) = &mut self.memory {
            keeping.retain_lanes(memory, &self.committers);
        }
        if keeping.is_writing() || !(whole || keeping.is_due()) {
            return Ok(());
        }
        let covered = std::mem::take(&mut self.pending);
        let quarantined = self.breaker.quarantined().clone();
        keeping.begin((self.memory.as_ref(), &self.stage), &self.committers, covered, quarantined);
        if whole {
            let (written, covered) = keeping::written(&mut self.keeping).await;
            self.settle(written, covered)?;
        }
        Ok(())
    }

    /// A snapshot is durable, and so the positions that it covers may be committed; or it is not, and they wait for the
    /// next one.
    ///
    /// # Errors
    /// The state has another owner: this run must not go on.
    fn settle(&mut self, written: keeping::Written, covered: Covered) -> Result<(), RunError> {
        keeping::tell(&written, &self.metrics);
        match written.result {
            Ok(_) => {
                self.unsaved = None;
                self.commit(covered)
            }
            Err(error @ StateError::Fenced { .. }) => Err(RunError::State(error)),
            Err(error) => {
                self.health.checkpoint_failed(error.to_string());
                for (lane, offset) in covered {
                    // What came since is further.
                    self.pending.entry(lane).or_insert(offset);
                }
                self.unsaved = Some(error);
                Ok(())
            }
        }
    }

    fn commit(&mut self, covered: Covered) -> Result<(), RunError> {
        let mut next: Vec<Vec<Position>> = vec![Vec::new(); self.committers.len()];
        for ((source, lane), offset) in covered {
            next[source].push(Position { lane, offset });
        }
        for (source, positions) in next.iter().enumerate().filter(|(_, positions)| !positions.is_empty()) {
            if let Err(error) = self.committers[source].commit(positions) {
                self.metrics.emit(CheckpointFailed { error: &error.message });
                return Err(RunError::Source { name: self.names[source].clone(), error });
            }
        }
        Ok(())
    }

    fn count(&mut self, source: usize, outcome: &Outcome) {
        let (counts, metrics, summary) = (&outcome.counts, &self.metrics, &mut self.summary);
        metrics.records_received(&self.names[source], counts.records, counts.bytes);
        summary.records += counts.records;
        summary.bytes += counts.bytes;
        for (cloud, events) in Cloud::ALL.into_iter().zip(counts.events) {
            metrics.events_decoded(cloud, events);
            summary.events += events;
        }
        for (reason, elements) in SkipReason::ALL.into_iter().zip(counts.skipped) {
            metrics.events_skipped(reason, elements);
            if elements > 0 {
                *summary.skipped.entry(reason.as_str()).or_default() += elements;
            }
        }
        for reason in RejectReason::ALL {
            let letters = outcome.dead_letters.iter().filter(|letter| letter.reason == reason.as_str()).count();
            metrics.events_rejected(reason, letters as u64);
            summary.rejected += letters as u64;
        }
        metrics.events_truncated(counts.truncated);
        summary.truncated += counts.truncated;
        metrics.batch_decoded(counts.events.iter().sum::<u64>() as usize, outcome.decode_seconds);
        metrics.batch_evaluated(outcome.evaluate_seconds);
        for failure in &outcome.failures {
            let detection = &self.set.detections[failure.detection];
            metrics.emit(DetectionFailed { detection: &detection.id, error: &failure.message });
            summary.failures += 1;
        }
        for matched in &outcome.matched {
            let delays = matched.arrival_ms.iter().zip(event_times_us(matched));
            let seconds = delays.filter_map(|(arrival, event)| Some(((*arrival)? * 1000 - event?) as f64 / 1e6));
            metrics.events_delayed(seconds);
            for (index, events) in matches_by_detection(&matched.matches) {
                let detection = &self.set.detections[index];
                metrics.detection_matched(&detection.id, detection.severity, events);
            }
        }
    }

    /// Publishes what the alert stage counts.
    fn tell_counts(&mut self) {
        let counts = self.alert_counts();
        self.summary.hidden = counts.hidden;
        self.metrics.matches_absorbed(AbsorbedTotals {
            suppressed: counts.suppressed,
            duplicates: counts.duplicates,
            hidden: counts.hidden,
            open: counts.open,
            evicted: counts.evicted,
        });
        let mut hidden: HashMap<&str, u64> = HashMap::new();
        for exception in &counts.exceptions {
            *hidden.entry(&exception.detection).or_default() += exception.hidden;
        }
        for (detection, total) in hidden {
            let told = self.hidden.entry(detection.to_owned()).or_default();
            self.metrics.alerts_hidden(detection, total - *told);
            *told = total;
        }
    }

    /// Publishes what the memories hold, and warns of events that came too late for them.
    fn tell_memory(&mut self) {
        let Some(memory) = &self.memory else { return self.tell_shares() };
        for (detection, size) in memory.sizes() {
            let id = &self.set.detections[detection].id;
            self.metrics.memory_holds(id, size.rows, size.keys, size.bytes, size.shed);
        }
        if let Some(oldest) =
            memory.watermarks().map(|(_, us)| us).filter(|us| ![i64::MIN, i64::MAX].contains(us)).min()
        {
            self.metrics.watermark(oldest);
        }
        let counts = memory.counts();
        self.count_memory(counts);
    }

    fn count_memory(&mut self, counts: MemoryCounts) {
        self.metrics.memory_counted(counts.kept, counts.duplicates, counts.late, counts.held);
        let more = counts.late.saturating_sub(self.summary.late);
        if more > 0 {
            tracing::warn!(
                event = "events_late",
                more,
                total = counts.late,
                "events came after the watermark had passed their time; detections with memory did not see them"
            );
        }
        self.summary.late = counts.late;
    }

    async fn close(&mut self) {
        for outbox in self.outboxes.drain(..) {
            let lost = outbox.close(OUTBOX_PATIENCE).await;
            if lost > 0 {
                tracing::warn!(lost, "a further sink did not take all alerts in time");
            }
        }
    }
}

/// Event times of the matched rows, microseconds since the epoch.
fn event_times_us(matched: &MatchedRows) -> impl Iterator<Item = Option<i64>> + '_ {
    use arrow::array::{Array, AsArray};
    let times =
        matched.rows.column(Column::EventTime as usize).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    (0..times.len()).map(|row| times.is_valid(row).then(|| times.value(row)))
}
