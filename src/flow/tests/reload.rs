//! A set of detections that follows another in the middle of a run: what did not change tells the same.

use tokio::sync::mpsc;

use super::state::{ABSENT, EVENTS, FIRST_SEEN, HEAD, SEQUENCE, Told, WINDOW, live, records, set_of, state, told};
use super::*;
use crate::flow::reload::Generation;
use crate::model::Severity;
use crate::stage::memory::MemoryOptions;

const ALL: [&str; 5] = [SEQUENCE, ABSENT, FIRST_SEEN, WINDOW, EVENTS];

/// A set that is handed over after some chunks.
struct Next {
    after: usize,
    set: Generation,
    /// All chunks before are done, and the ones that follow wait until it is in force.
    exactly: bool,
}

fn next(after: usize, texts: &[&str], exactly: bool) -> Next {
    let set = Generation::prepare(set_of(texts), &MemoryOptions::default()).expect("prepared");
    Next { after, set, exactly }
}

/// Sends chunks of three records, and sets in between.
struct Reloading {
    script: Script,
    sets: Vec<Next>,
    sender: mpsc::Sender<Generation>,
    health: Health,
}

impl Source for Reloading {
    fn run(self: Box<Self>, intake: Intake, _stop: Stop) -> Result<(), SourceError> {
        let Reloading { script, mut sets, sender, health } = *self;
        let generation = || health.readiness().detail["generation"].as_u64().unwrap_or_default();
        for (index, chunk) in script.chunks.into_iter().enumerate() {
            if sets.first().is_some_and(|next| next.after == index) {
                let Next { set, exactly, .. } = sets.remove(0);
                assert!(!exactly || intake.checkpoint(Duration::from_secs(60)));
                let before = generation();
                sender.blocking_send(set).expect("the run takes it");
                while exactly && generation() == before {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            intake.send(chunk).expect("the run goes on");
        }
        Ok(())
    }
}

/// Runs over all records with sets that follow the first; the summary and the page of metrics come back.
async fn run(first: &[&str], sets: Vec<Next>, sink: &MemorySink) -> (Summary, String) {
    run_over(&records(), first, sets, sink).await
}

async fn run_over(records: &[String], first: &[&str], sets: Vec<Next>, sink: &MemorySink) -> (Summary, String) {
    let (sender, receiver) = mpsc::channel(1);
    let health = Health::new();
    let source = Reloading { script: Script::of(records, 3), sets, sender, health: health.clone() };
    let mut live = live(&Arc::new(set_of(first)), source, sink, None, std::path::Path::new(""));
    (live.health, live.reloads) = (health, Some(receiver));
    let metrics = live.metrics.clone();
    let summary = live.run().await.expect("a clean run");
    (summary, metrics.render())
}

async fn uncut() -> Told {
    let sink = MemorySink::default();
    run(&ALL, Vec::new(), &sink).await;
    told(&sink)
}

fn without(told: &Told, detection: &str) -> Told {
    told.iter().filter(|(key, _)| !key.starts_with(detection)).map(|(key, of)| (key.clone(), *of)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_that_say_the_same_follow_each_other_unnoticed() {
    let expected = uncut().await;
    for exactly in [false, true] {
        let sink = MemorySink::default();
        let sets = [1, 20, 21, 70, 110].map(|after| next(after, &ALL, exactly));
        let (summary, metrics) = run(&ALL, sets.into(), &sink).await;
        assert_eq!(summary.events, records().len() as u64);
        assert_eq!(told(&sink), expected);
        assert!(metrics.contains("kubetide_detections_generation 6"), "{metrics}");
        assert!(!metrics.contains("kubetide_state_gaps_total{"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_detections_change_and_what_they_remember_goes_on() {
    let before = "id: a-first\ntitle: T\nentity: [user_name]\nsuppress: 1h\nsummary: S\nsql: SELECT * FROM audit WHERE verb = 'none'\n";
    let expected = uncut().await;
    let mut shifted = vec![before];
    shifted.extend(ALL);
    for exactly in [false, true] {
        let sink = MemorySink::default();
        let sets = vec![next(40, &shifted, exactly), next(80, &ALL, exactly)];
        run(&ALL, sets, &sink).await;
        assert_eq!(told(&sink), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_decided_once_whichever_set_it_meets() {
    let of = |id: &str| EVENTS.replace("secret-read", id).replace("suppress: 1h", "suppress: 0");
    let (one, other) = (of("one"), of("other"));
    let sink = MemorySink::default();
    let sets = (0..20).map(|n| next(5 + n * 5, &[if n % 2 == 0 { &other } else { &one }], false)).collect();
    // Without repeats, which each of the two would tell.
    let mut records = records();
    let mut seen = std::collections::BTreeSet::new();
    records.retain(|record| seen.insert(record.clone()));
    let (_, metrics) = run_over(&records, &[&one], sets, &sink).await;
    assert!(metrics.contains("kubetide_detections_generation 21"), "{metrics}");
    let alone = MemorySink::default();
    run_over(&records, &[&one], Vec::new(), &alone).await;
    let events = |sink: &MemorySink| {
        let mut events: Vec<i64> = sink.kept().alerts.iter().map(|alert| alert.event_time_us).collect();
        events.sort_unstable();
        events
    };
    assert_eq!(events(&sink), events(&alone));
    let by_other = sink.kept().alerts.iter().filter(|alert| &*alert.detection == "other").count();
    assert!(by_other > 0 && by_other < sink.kept().alerts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_beside_the_meaning_change_and_the_memory_goes_on() {
    let expected = uncut().await;
    let loud: Vec<String> = ALL.iter().map(|text| format!("{text}references: [https://example.com]\n")).collect();
    let loud: Vec<String> = loud.iter().map(|text| text.replace("learn: 1m", "learn: 2m")).collect();
    let texts: Vec<&str> = loud.iter().map(String::as_str).collect();
    let mut set = set_of(&texts);
    assert!(HEAD.contains("severity: low"));
    set.detections = set
        .detections
        .into_iter()
        .map(|one| {
            Arc::new(crate::detection::Detection { severity: Severity::High, ..Arc::try_unwrap(one).expect("own") })
        })
        .collect();
    let sink = MemorySink::default();
    let set = Generation::prepare(set, &MemoryOptions::default()).expect("prepared");
    let (_, metrics) = run(&ALL, vec![Next { after: 66, set, exactly: true }], &sink).await;
    assert_eq!(told(&sink), expected, "the same findings");
    assert!(!metrics.contains("kubetide_state_gaps_total{"), "{metrics}");
    let severities: Vec<Severity> = sink.kept().alerts.iter().map(|alert| alert.severity).collect();
    assert!(severities.contains(&Severity::Low) && severities.last() == Some(&Severity::High));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detection_that_means_something_else_begins_anew_and_the_others_go_on() {
    let expected = uncut().await;
    let edited = WINDOW.replace("size: 10m", "size: 12m");
    let sink = MemorySink::default();
    let sets = vec![next(66, &[SEQUENCE, ABSENT, FIRST_SEEN, &edited, EVENTS], true)];
    let (_, metrics) = run(&ALL, sets, &sink).await;
    assert_eq!(without(&told(&sink), "many-reads"), without(&expected, "many-reads"));
    assert!(metrics.contains("kubetide_state_gaps_total{detection=\"many-reads\",reason=\"changed\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detection_that_is_gone_ends_and_one_that_comes_learns_from_then_on() {
    let expected = uncut().await;
    let sink = MemorySink::default();
    let learning = FIRST_SEEN.replace("learn: 1m", "learn: 100d");
    let comes = FIRST_SEEN.replace("id: new-pod", "id: z-new-pod");
    let sets = vec![
        next(66, &[SEQUENCE, ABSENT, EVENTS], true),
        next(80, &[SEQUENCE, ABSENT, EVENTS, &comes], true),
        next(100, &[SEQUENCE, ABSENT, EVENTS, &comes, &learning], true),
    ];
    let (_, metrics) = run(&ALL, sets, &sink).await;
    let told = told(&sink);
    let others = |told: &Told| without(&without(&without(told, "new-pod"), "many-reads"), "z-new-pod");
    assert_eq!(others(&told), others(&expected));
    assert!(!metrics.contains("kubetide_memory_rows{detection=\"many-reads\"}"), "{metrics}");
    let windows = |told: &Told| told.keys().filter(|key| key.starts_with("many-reads")).count();
    assert!(windows(&told) > 0 && windows(&told) < windows(&expected), "it ended in the middle");
    // Within a minute of its coming it learns; with the cluster's age it would tell of everything at once.
    let first =
        sink.kept().alerts.iter().filter(|alert| &*alert.detection == "z-new-pod").map(|a| a.event_time_us).min();
    let came = records()[80 * 3].split("requestReceivedTimestamp\":\"").nth(1).expect("a time")[..20].to_owned();
    let first = crate::model::time_text(first.expect("there are new pods afterwards"));
    assert!(first > came, "{first} is not a minute after {came}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_set_goes_on_over_restarts_in_the_manifest() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    for expected in 1..=2 {
        let opened = state(folder.path()).await;
        assert_eq!(opened.1.generation, expected - 1);
        let (sink, set) = (MemorySink::default(), Arc::new(set_of(&ALL)));
        let mut live = live(&set, Script::of(&[], 1), &sink, Some(opened), folder.path());
        let health = Health::new();
        live.health = health.clone();
        live.run().await.expect("a clean run");
        assert_eq!(health.readiness().detail["generation"], expected);
    }
}
