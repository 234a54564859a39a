//! A run that is cut anywhere and goes on from its state tells the same as one that was not cut.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::flow::snapshots::Snapshots;
use crate::state::{Image, StateStore, check};

pub(super) const HEAD: &str = "severity: low\nstatus: stable\nattack: [TA0007/T1613]\ndescription: D\ntriage: T\nfalse_positives: [F]\ntests: []\n";
pub(super) const SEQUENCE: &str = "id: read-then-exec\ntitle: T\nentity: [user_name]\nsuppress: 1h\nsummary: '{user_name}'\nsequence:\n  by: [user_name]\n  within: 30m\n  steps:\n  - sql: SELECT * FROM audit WHERE resource = 'secrets' AND verb = 'get'\n  - sql: SELECT * FROM audit WHERE resource = 'pods' AND verb = 'create'\n";
pub(super) const ABSENT: &str = "id: read-and-no-more\ntitle: T\nentity: [user_name]\nsuppress: 1h\nsummary: '{user_name}'\nsequence:\n  by: [user_name]\n  within: 5m\n  steps:\n  - sql: SELECT * FROM audit WHERE resource = 'secrets' AND verb = 'get'\n  - sql: SELECT * FROM audit WHERE resource = 'pods' AND verb = 'create'\n    absent: true\n";
pub(super) const FIRST_SEEN: &str = "id: new-pod\ntitle: T\nentity: [user_name, name]\nsuppress: 0\nsummary: '{user_name} {name}'\nsql: SELECT * FROM audit WHERE resource = 'pods'\nfirst_seen: {of: [name], per: [user_name], learn: 1m, forget: 30d}\n";
pub(super) const EVENTS: &str = "id: secret-read\ntitle: T\nentity: [user_name]\nsuppress: 1h\nsummary: '{user_name}'\nsql: SELECT * FROM audit WHERE resource = 'secrets'\n";

pub(super) const WINDOW: &str = "id: many-reads\ntitle: T\nentity: [user_name]\nsuppress: 5m\nsummary: '{user_name}'\nsql: SELECT user_name, count(*) AS reads FROM audit WHERE resource = 'secrets' GROUP BY user_name HAVING count(*) >= 3\nwindow: {size: 10m, every: 1m}\n";

fn detections(sequence: &str) -> Arc<DetectionSet> {
    detections_of(&[sequence, ABSENT, FIRST_SEEN, WINDOW, EVENTS])
}

pub(super) fn detections_of(texts: &[&str]) -> Arc<DetectionSet> {
    Arc::new(set_of(texts))
}

/// The set of some detections, each without what all have in common.
pub(super) fn set_of(texts: &[&str]) -> DetectionSet {
    let file = |text: &str| {
        let id = text.strip_prefix("id: ").and_then(|text| text.lines().next()).expect("it begins with its id");
        let path = format!("detections/discovery/{id}.yaml");
        SourceFile { path: path.as_str().into(), text: format!("{text}{HEAD}").into(), support: false }
    };
    let loaded = load(&texts.iter().map(|text| file(text)).collect::<Vec<_>>());
    assert_eq!(loaded.set.detections.len(), texts.len(), "{:?}", loaded.diagnostics);
    loaded.set
}

/// Some hours of four users of two clusters, out of order by less than the lateness, with repeats.
pub(super) fn records() -> Vec<String> {
    let mut chance = 7_u64;
    let mut next = |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let mut records: Vec<String> = Vec::new();
    for n in 0..400_u64 {
        let second = n * 30 + next(50);
        let (user, pod) = (next(4), next(6));
        let (resource, verb) = [("pods", "create"), ("secrets", "get"), ("pods", "get")][next(3) as usize];
        let time = format!("2026-03-04T{:02}:{:02}:{:02}.{:06}Z", 6 + second / 3600, second / 60 % 60, second % 60, n);
        let cluster = ["", r#","annotations":{"cluster":"x"}"#][next(2) as usize];
        records.push(format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a{n}","stage":"ResponseComplete","verb":"{verb}","requestURI":"/{n}","user":{{"username":"user-{user}"}},"objectRef":{{"resource":"{resource}","name":"pod-{pod}"}},"responseStatus":{{"code":200}},"requestReceivedTimestamp":"{time}","stageTimestamp":"{time}"{cluster}}}"#
        ));
        if next(10) == 0 {
            records.push(records[next(records.len() as u64) as usize].clone());
        }
    }
    records
}

/// Sends records from an offset on, and then ends, or asks to stop.
pub(super) struct Part {
    script: Script,
    stops: bool,
}

impl Part {
    pub(super) fn of(records: &[String], from: usize, until: Option<usize>) -> Part {
        let mut script = Script::of(&records[from..until.unwrap_or(records.len())], 3);
        let moved = script.chunks.iter_mut().flat_map(|chunk| &mut chunk.records);
        moved.for_each(|record| record.position.offset += from as u64);
        Part { script, stops: until.is_some() }
    }
}

impl Source for Part {
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError> {
        let Part { script, stops } = *self;
        let asked = stop.clone();
        Box::new(script).run(intake, stop)?;
        if stops {
            asked.request();
        }
        Ok(())
    }
}

/// Refuses a commit that the newest manifest does not cover.
struct Covered(std::path::PathBuf);

impl Committer for Covered {
    fn commit(&self, next: &[Position]) -> Result<(), SourceError> {
        let covered = newest_position(&self.0).unwrap_or(0);
        match next.iter().find(|position| position.offset > covered) {
            Some(position) => Err(SourceError::external(format!("{position:?} is beyond the manifest's {covered}"))),
            None => Ok(()),
        }
    }
}

fn newest_position(place: &Path) -> Option<u64> {
    let files = std::fs::read_dir(place).ok()?.flatten().map(|entry| entry.path());
    let newest = files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).max()?;
    let text: serde_json::Value = serde_json::from_slice(&std::fs::read(newest).ok()?).ok()?;
    text["manifest"]["positions"]["script"]["lane"].as_u64()
}

fn open(place: &Path) -> StateStore {
    StateStore::open(place.to_str().expect("UTF-8")).expect("a store")
}

pub(super) async fn state(place: &Path) -> (Snapshots, Image) {
    Snapshots::open(open(place), Duration::from_millis(1)).await.expect("claimed")
}

pub(super) fn live(
    set: &Arc<DetectionSet>,
    part: impl Source + 'static,
    sink: &MemorySink,
    state: Option<(Snapshots, Image)>,
    place: &Path,
) -> Live {
    let source = LiveSource {
        name: "script".to_owned(),
        source: Box::new(part),
        committer: match &state {
            Some(_) => Arc::new(Covered(place.to_owned())),
            None => Arc::new(crate::stage::source::NoCommit::Ends),
        },
        settings: SourceSettings::default(),
    };
    Live {
        set: Arc::clone(set),
        evaluator: Arc::new(Evaluator::new(&set.detections, &set.planner).expect("prepared")),
        alert_options: AlertOptions::new(clock::today()),
        memory_options: crate::stage::memory::MemoryOptions::default(),
        sources: vec![source],
        durable: Box::new(sink.clone()),
        durable_name: "memory".to_owned(),
        outboxes: Vec::new(),
        dead_letters: None,
        workers: 2,
        state,
        exchange: None,
        reloads: None,
        breaker: crate::flow::breaker::BreakerOptions::default(),
        checkpoint_interval: Duration::from_millis(1),
        metrics: Metrics::new(),
        health: Health::new(),
        stop: Stop::default(),
    }
}

/// By finding: how often it was created, and the largest count that was told.
pub(super) type Told = BTreeMap<String, (usize, u64)>;

pub(super) fn told(sink: &MemorySink) -> Told {
    let mut told = Told::new();
    for alert in &sink.kept().alerts {
        let (created, count) = told.entry(format!("{} {}", alert.detection, alert.uid)).or_default();
        *created += usize::from(alert.activity == Activity::Create);
        *count = (*count).max(alert.count);
    }
    told
}

async fn uncut(set: &Arc<DetectionSet>, records: &[String]) -> Told {
    let sink = MemorySink::default();
    live(set, Part::of(records, 0, None), &sink, None, Path::new("")).run().await.expect("a clean run");
    let told = told(&sink);
    let detections: BTreeSet<&str> = told.keys().filter_map(|key| key.split(' ').next()).collect();
    assert_eq!(detections.len(), 5, "every kind finds something: {told:?}");
    assert!(told.values().all(|(created, _)| *created == 1));
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_anywhere_and_goes_on_tells_the_same() {
    let (records, set) = (records(), detections(SEQUENCE));
    let expected = uncut(&set, &records).await;
    for cuts in [vec![1], vec![50], vec![200], vec![records.len() - 1], vec![30, 31, 200, 300]] {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let sink = MemorySink::default();
        let mut from = 0;
        for until in cuts.iter().copied().map(Some).chain([None]) {
            let state = state(folder.path()).await;
            let part = Part::of(&records, from, until);
            live(&set, part, &sink, Some(state), folder.path()).run().await.expect("a clean run");
            from = until.unwrap_or(records.len());
            assert_eq!(newest_position(folder.path()), Some(from as u64));
        }
        assert_eq!(told(&sink), expected, "cut at {cuts:?}");
        assert_eq!(check(&open(folder.path())).await.expect("read").damages, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_anywhere_goes_on_from_its_manifest_and_misses_nothing() {
    let (records, set) = (records(), detections(SEQUENCE));
    let expected = uncut(&set, &records).await;
    let (mut all_deaths, mut resumed) = (0, 0);
    for dies_at in [1, 40, 120] {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let sink = MemorySink::default();
        let mut deaths = 0;
        loop {
            let state = state(folder.path()).await;
            let from = state.1.positions.get("script").and_then(|lanes| lanes.get("lane")).copied().unwrap_or(0);
            resumed += usize::from(from > 0);
            let part = Part::of(&records, from as usize, None);
            let run = live(&set, part, &sink, Some(state), folder.path()).run();
            let told_before = sink.kept().alerts.len();
            let death = async {
                while deaths >= 6 || sink.kept().alerts.len() < told_before + dies_at {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                result = run => {
                    result.expect("a clean run");
                    break;
                }
                () = death => deaths += 1,
            }
        }
        all_deaths += deaths;
        let told = told(&sink);
        assert_eq!(told.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{deaths} deaths");
        for (finding, (created, count)) in &expected {
            assert!(told[finding].0 >= *created && told[finding].1 == *count, "{finding}: {:?}", told[finding]);
        }
        assert_eq!(check(&open(folder.path())).await.expect("read").damages, []);
    }
    assert!(all_deaths > 3 && resumed > 0, "{all_deaths} deaths, {resumed} times from the middle");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_detection_begins_anew_and_says_so_and_the_others_go_on() {
    let (records, set) = (records(), detections(SEQUENCE));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let sink = MemorySink::default();
    let first = state(folder.path()).await;
    live(&set, Part::of(&records, 0, Some(200)), &sink, Some(first), folder.path()).run().await.expect("a clean run");

    let edited = detections(&SEQUENCE.replace("within: 30m", "within: 20m"));
    let second = live(&edited, Part::of(&records, 200, None), &sink, Some(state(folder.path()).await), folder.path());
    let metrics = second.metrics.clone();
    second.run().await.expect("a clean run");
    let text = metrics.render();
    let gap = "kubetide_state_gaps_total{detection=\"read-then-exec\",reason=\"changed\"}";
    assert!(text.contains(gap), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("kubetide_state_gaps_total")).count(), 1);
    let expected = uncut(&set, &records).await;
    let others = |told: &Told| -> Told {
        told.iter().filter(|(key, _)| !key.starts_with("read-then-exec")).map(|(key, of)| (key.clone(), *of)).collect()
    };
    assert_eq!(others(&told(&sink)), others(&expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_state_was_taken_over_stops_and_commits_nothing_more() {
    let (records, set) = (records(), detections(SEQUENCE));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let old = state(folder.path()).await;
    let _new = state(folder.path()).await;
    let sink = MemorySink::default();
    let run = live(&set, Part::of(&records, 0, None), &sink, Some(old), folder.path()).run();
    let error = run.await.expect_err("it is not the owner");
    assert!(error.to_string().contains("must stop"), "{error}");
    assert_eq!(newest_position(folder.path()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_save_goes_on_and_says_so_at_the_end() {
    let (records, set) = (records(), detections(SEQUENCE));
    let folder = tempfile::tempdir().expect("a scratch folder");
    let state = state(folder.path()).await;
    // A file where the folder of the tables should be.
    std::fs::write(folder.path().join("data"), "").expect("written");
    let sink = MemorySink::default();
    let run = live(&set, Part::of(&records, 0, None), &sink, Some(state), folder.path());
    let metrics = run.metrics.clone();
    let error = run.run().await.expect_err("nothing is saved");
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert_eq!(told(&sink).keys().count(), uncut(&set, &records).await.len(), "alerts are told all the same");
    assert!(!metrics.render().contains("kubetide_snapshots_total{outcome=\"failed\"} 0"));
    assert_eq!(newest_position(folder.path()), None);
}
