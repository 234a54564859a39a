//! What a run promises, held with sources and sinks in memory.

mod breaker;
mod idle;
mod reload;
mod state;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::live::{Live, LiveSource, RunError, Summary};
use super::work::{SourceSettings, chunk_of};
use crate::clock;
use crate::detection::{DetectionSet, SourceFile, load};
use crate::model::{Activity, Chunk, Lane, Position};
use crate::stage::alert::AlertOptions;
use crate::stage::evaluate::Evaluator;
use crate::stage::sink::{MemorySink, Outbox, OutboxLimits, RetryPolicy, SinkError};
use crate::stage::source::{Committer, Intake, Source, SourceError, Stop};
use crate::telemetry::{Health, Metrics};

const DETECTION: &str = "id: read-pods\ntitle: T\nseverity: low\nstatus: stable\nattack: [TA0007/T1613]\ndescription: D\ntriage: T\nfalse_positives: [F]\nsql: |\n  SELECT * FROM audit WHERE resource = 'pods' AND verb = 'get'\nentity: [name]\nsuppress: 1h\nsummary: '{user_name} read {name}'\ntests: []\n";

fn set() -> Arc<DetectionSet> {
    set_reading("pods")
}

/// A set of one detection about reading a kind of object.
pub(super) fn set_reading(resource: &str) -> Arc<DetectionSet> {
    let text = DETECTION.replace("resource = 'pods'", &format!("resource = '{resource}'"));
    let path = "detections/discovery/read-pods.yaml";
    let loaded = load(&[SourceFile { path: path.into(), text: text.into(), support: false }]);
    assert_eq!(loaded.set.detections.len(), 1, "{:?}", loaded.diagnostics);
    Arc::new(loaded.set)
}

/// An event that `read-pods` matches; `n` tells requests apart, `pod` entities.
fn event(n: usize, pod: usize) -> String {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a{n}","stage":"ResponseComplete","verb":"get","requestURI":"/api/v1/pods/{pod}","user":{{"username":"jane"}},"objectRef":{{"resource":"pods","name":"pod-{pod}"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"2026-03-04T10:15:30Z","stageTimestamp":"2026-03-04T10:15:30Z"}}"#
    )
}

/// Sends chunks whose offsets go on from one to the next; asks for a checkpoint where told.
struct Script {
    chunks: Vec<Chunk>,
    checkpoint_after: Option<usize>,
    answered: Arc<Mutex<Vec<bool>>>,
}

impl Script {
    fn of(records: &[String], per_chunk: usize) -> Script {
        let lane = Lane { name: "lane".into(), fallback_cluster: "c".into(), cluster: None };
        let mut chunks = Vec::new();
        let mut offset = 0;
        for part in records.chunks(per_chunk) {
            let mut chunk = chunk_of(part, lane.clone());
            chunk.records.iter_mut().for_each(|record| {
                record.position.offset = offset;
                offset += 1;
            });
            chunks.push(chunk);
        }
        Script { chunks, checkpoint_after: None, answered: Arc::default() }
    }
}

impl Source for Script {
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError> {
        for (index, chunk) in self.chunks.into_iter().enumerate() {
            if stop.requested() || intake.send(chunk).is_err() {
                return Ok(());
            }
            if self.checkpoint_after == Some(index) {
                let answered = intake.checkpoint(Duration::from_secs(60));
                self.answered.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
            }
        }
        Ok(())
    }
}

/// Notes each commit, with the alerts that were durable at that moment.
struct Notes {
    sink: MemorySink,
    commits: Mutex<Vec<(u64, usize, usize)>>,
}

impl Committer for Notes {
    fn commit(&self, next: &[Position]) -> Result<(), SourceError> {
        let kept = self.sink.kept();
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        commits.push((next[0].offset, kept.alerts_durable, kept.alerts.len()));
        Ok(())
    }
}

struct Bench {
    sink: MemorySink,
    letters: MemorySink,
    notes: Arc<Notes>,
}

impl Bench {
    fn new() -> Bench {
        let sink = MemorySink::default();
        let notes = Arc::new(Notes { sink: sink.clone(), commits: Mutex::default() });
        Bench { sink, letters: MemorySink::default(), notes }
    }

    async fn run(&self, script: Script, workers: usize, outboxes: Vec<Outbox>) -> Result<Summary, RunError> {
        let set = set();
        let evaluator = Arc::new(Evaluator::new(&set.detections, &set.planner).expect("prepared"));
        let source = LiveSource {
            name: "script".to_owned(),
            source: Box::new(script),
            committer: Arc::clone(&self.notes) as Arc<dyn Committer>,
            settings: SourceSettings::default(),
        };
        let live = Live {
            set,
            evaluator,
            alert_options: AlertOptions::new(clock::today()),
            memory_options: crate::stage::memory::MemoryOptions::default(),
            sources: vec![source],
            durable: Box::new(self.sink.clone()),
            durable_name: "memory".to_owned(),
            outboxes,
            dead_letters: Some(Box::new(self.letters.clone())),
            workers,
            state: None,
            exchange: None,
            reloads: None,
            breaker: crate::flow::breaker::BreakerOptions::default(),
            checkpoint_interval: Duration::from_millis(5),
            metrics: Metrics::new(),
            health: Health::new(),
            stop: Stop::default(),
        };
        live.run().await
    }

    fn commits(&self) -> Vec<(u64, usize, usize)> {
        self.notes.commits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `finding uid` and activity of each emission, in order.
    fn told(&self) -> Vec<(String, Activity)> {
        self.sink.kept().alerts.iter().map(|alert| (alert.uid.to_string(), alert.activity)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_before_its_alerts_are_durable() {
    let bench = Bench::new();
    let records: Vec<String> = (0..500).map(|n| event(n, n)).collect();
    let summary = bench.run(Script::of(&records, 3), 4, Vec::new()).await.expect("a clean run");
    assert_eq!((summary.alerts, summary.events, summary.rejected), (500, 500, 0));
    let commits = bench.commits();
    assert_eq!(commits.last(), Some(&(500, 500, 500)));
    for (next, durable, delivered) in commits {
        assert_eq!(durable, delivered, "a commit follows a flush");
        assert_eq!(durable as u64, next, "each record up to the commit has its alert");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_workers_tells_the_same_in_the_same_order() {
    let records: Vec<String> = (0..300).map(|n| event(n, n % 40)).collect();
    let mut creates: Vec<Vec<String>> = Vec::new();
    for (workers, per_chunk) in [(1, 300), (4, 1), (3, 7)] {
        let bench = Bench::new();
        let summary = bench.run(Script::of(&records, per_chunk), workers, Vec::new()).await.expect("a clean run");
        assert_eq!(summary.alerts, 40);
        let told = bench.told();
        creates
            .push(told.into_iter().filter(|(_, activity)| *activity == Activity::Create).map(|(uid, _)| uid).collect());
        let last = bench
            .sink
            .kept()
            .alerts
            .iter()
            .rev()
            .find(|alert| alert.activity == Activity::Update)
            .map(|alert| alert.count);
        assert!(last.is_some_and(|count| count <= 8), "300 requests about 40 pods: {last:?}");
    }
    assert!(creates.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sink_ends_the_run_and_commits_nothing_more() {
    let bench = Bench::new();
    bench.sink.fail_next(SinkError::user("no such topic"));
    let records: Vec<String> = (0..50).map(|n| event(n, n)).collect();
    let error = bench.run(Script::of(&records, 5), 2, Vec::new()).await.expect_err("the sink refuses");
    assert!(error.to_string().contains("no such topic"), "{error}");
    let delivered = bench.sink.kept().alerts.len() as u64;
    assert!(bench.commits().iter().all(|(next, _, _)| *next <= delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_kept_and_its_neighbours_are_told() {
    let bench = Bench::new();
    let records = vec![event(1, 1), "not an event".to_owned(), event(2, 2), "{\"kind\":0}".to_owned(), event(3, 3)];
    let summary = bench.run(Script::of(&records, 2), 2, Vec::new()).await.expect("a clean run");
    assert_eq!((summary.alerts, summary.rejected), (3, 2));
    let kept = bench.letters.kept();
    let letters: Vec<(u64, &[u8])> = kept.letters.iter().map(|letter| (letter.offset, letter.bytes.as_ref())).collect();
    assert_eq!(letters, vec![(1, b"not an event".as_slice()), (3, b"{\"kind\":0}".as_slice())]);
    assert_eq!(bench.commits().last().map(|commit| commit.0), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_gets_its_checkpoint() {
    let bench = Bench::new();
    let records: Vec<String> = (0..40).map(|n| event(n, n)).collect();
    let mut script = Script::of(&records, 4);
    script.checkpoint_after = Some(4);
    let answered = Arc::clone(&script.answered);
    bench.run(script, 2, Vec::new()).await.expect("a clean run");
    assert_eq!(*answered.lock().unwrap_or_else(PoisonError::into_inner), vec![true]);
    assert!(bench.commits().iter().any(|(next, durable, _)| *next == 20 && *durable == 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_sink_that_is_down_delays_only_itself() {
    let down = MemorySink::default();
    (0..10_000).for_each(|_| down.fail_next(SinkError::external("down")));
    let outbox = Outbox::start("down", Box::new(down), OutboxLimits::default(), RetryPolicy::default(), Arc::default());
    let bench = Bench::new();
    let records: Vec<String> = (0..30).map(|n| event(n, n)).collect();
    let run = bench.run(Script::of(&records, 3), 2, vec![outbox]);
    let watch = async {
        // The first sink has everything while the other is still being tried.
        while bench.sink.kept().alerts_durable < 30 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = run => { result.expect("a clean run"); }
        () = watch => {}
    }
    assert_eq!(bench.sink.kept().alerts.len(), 30);
}
