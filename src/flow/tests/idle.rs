//! A lane that has nothing holds nothing back, and one that is behind does.

use std::sync::atomic::{AtomicBool, Ordering};

use super::state::{ABSENT, detections_of};
use super::*;
use crate::stage::memory::MemoryOptions;

fn read_at(hour: u32) -> String {
    let time = format!("2026-03-04T{hour:02}:00:00Z");
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a{hour}","stage":"ResponseComplete","verb":"get","requestURI":"/{hour}","user":{{"username":"jane"}},"objectRef":{{"resource":"secrets","name":"s"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"}}"#
    )
}

/// One lane brings something of now, the other has stayed behind; then both are silent until somebody is told, or for a
/// while.
struct Silent {
    sink: MemorySink,
    patience: Duration,
    was_told: Arc<AtomicBool>,
}

impl Source for Silent {
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError> {
        let lane = |name: &str| Lane { name: name.into(), fallback_cluster: "c".into(), cluster: None };
        for (number, hour) in [(0, 6), (1, 6), (0, 9)] {
            let mut chunk = chunk_of(&[read_at(hour)], lane("busy"));
            chunk.lanes = Arc::from([lane("busy"), lane("silent")]);
            chunk
                .records
                .iter_mut()
                .for_each(|record| record.position = Position { lane: number, offset: hour.into() });
            intake.send(chunk).expect("somebody listens");
        }
        let deadline = clock::Instant::now().after(self.patience);
        while self.sink.kept().alerts.is_empty() && !deadline.remaining().is_zero() {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.was_told.store(!self.sink.kept().alerts.is_empty(), Ordering::SeqCst);
        stop.request();
        Ok(())
    }
}

struct Stands {
    is_current: bool,
}

impl Committer for Stands {
    fn commit(&self, _: &[Position]) -> Result<(), SourceError> {
        Ok(())
    }

    fn is_current(&self) -> bool {
        self.is_current
    }
}

/// Whether what a silent lane holds back was told while the run went on.
async fn is_told(is_current: bool, patience: Duration) -> bool {
    let (sink, was_told) = (MemorySink::default(), Arc::new(AtomicBool::default()));
    let source = Silent { sink: sink.clone(), patience, was_told: Arc::clone(&was_told) };
    let set = detections_of(&[ABSENT]);
    let live = Live {
        evaluator: Arc::new(Evaluator::new(&set.detections, &set.planner).expect("prepared")),
        set,
        alert_options: AlertOptions::new(clock::today()),
        memory_options: MemoryOptions { silence: Duration::from_millis(100), ..MemoryOptions::default() },
        sources: vec![LiveSource {
            name: "script".to_owned(),
            source: Box::new(source),
            committer: Arc::new(Stands { is_current }),
            settings: SourceSettings::default(),
        }],
        durable: Box::new(sink),
        durable_name: "memory".to_owned(),
        outboxes: Vec::new(),
        dead_letters: None,
        workers: 2,
        state: None,
        exchange: None,
        reloads: None,
        breaker: crate::flow::breaker::BreakerOptions::default(),
        checkpoint_interval: Duration::from_millis(20),
        metrics: Metrics::new(),
        health: Health::new(),
        stop: Stop::default(),
    };
    live.run().await.expect("a clean run");
    was_told.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_has_nothing_holds_nothing_back() {
    assert!(is_told(true, Duration::from_secs(60)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_behind_is_waited_for() {
    assert!(!is_told(false, Duration::from_secs(1)).await);
}
