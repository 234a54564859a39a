//! With state: whatever happens to the process, it goes on from its manifest, and nothing is committed beyond it.

use std::path::Path;

use super::*;
use crate::support::process as command;

/// A few detections, so that a process is up in a moment: what changes and who does it tell of single events; the other
/// only remembers, which is what the state is to hold.
fn detections(folder: &Path) -> String {
    let head = "title: T\nseverity: low\nstatus: stable\nattack: [TA0007/T1613]\ndescription: D\ntriage: T\nfalse_positives: [F]\ntests: []\n";
    let changed = "id: changed\nentity: [cluster, resource, namespace, name]\nsuppress: 1h\nsummary: '{name}'\nsql: SELECT * FROM audit WHERE verb IN ('create', 'update', 'patch', 'delete')\n";
    let seen = "id: seen\nentity: [user_name]\nsuppress: 1h\nsummary: '{user_name}'\nsql: SELECT * FROM audit WHERE resource IS NOT NULL\nfirst_seen: {of: [resource, verb], per: [user_name], learn: 365d, forget: 365d}\n";
    let place = folder.join("discovery");
    std::fs::create_dir(&place).expect("a folder");
    for (name, text) in [("changed", changed), ("seen", seen)] {
        std::fs::write(place.join(format!("{name}.yaml")), format!("{text}{head}")).expect("writable");
    }
    folder.display().to_string()
}

/// What the state holds, as `kubetide state` tells it.
fn told(state: &str, action: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = command::run(folder.path(), &["state", action, "--state", state, "--format", "json"]).expect_code(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// Records that the newest epoch covers.
fn covered(place: &Place, state: &str) -> i64 {
    let listed = told(state, "ls");
    let lanes = listed["epochs"][0]["positions"][&place.topic].as_object();
    lanes.into_iter().flatten().map(|(_, next)| next.as_i64().expect("a number")).sum()
}

/// What a run over a file of the same records finds.
fn by_file(folder: &Path, detections: &str) -> Findings {
    let file = folder.join("records.ndjson");
    let lines: Vec<Vec<u8>> = corpus::records().iter().map(|record| [record.as_slice(), b"\n"].concat()).collect();
    std::fs::write(&file, lines.concat()).expect("writable");
    let file = file.display().to_string();
    let ended = Process::run(&[&file, "--format", "json", "--no-shipped", "--detections", detections]).wait();
    ended.assert_success();
    let findings = Findings::of(ended.output.lines());
    assert!(findings.0.len() > 50, "only {} findings: nothing to compare", findings.0.len());
    findings
}

/// A folder with detections and a place for the state, and what is to be found.
struct Site {
    _folder: tempfile::TempDir,
    state: String,
    detections: String,
    expected: Findings,
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state").display().to_string();
        let detections = detections(folder.path());
        let expected = by_file(folder.path(), &detections);
        Site { _folder: folder, state, detections, expected }
    }
}

#[track_caller]
fn assert_found(broker: &Broker, place: &Place, expected: &Findings) {
    let records = broker.read_all(&place.alerts);
    let found = Findings::of(records.iter().map(|record| record.value.as_deref().expect("a value")));
    found.same_as(expected).unwrap_or_else(|difference| panic!("{difference}"));
    assert_eq!(place.committed(broker), dealt().len() as i64, "every record is committed");
}

#[test]
fn a_process_that_is_killed_goes_on_from_its_state_and_commits_nothing_beyond_it() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let Site { state, detections, expected, .. } = &Site::new();
    let options = ["--no-shipped", "--detections", detections, "--state", state, "--set", "snapshot_interval_ms=1000"];
    let all = dealt();
    let mut random = StdRng::seed_from_u64(5);
    let mut slices = all.chunks(all.len().div_ceil(6));
    for slice in slices.by_ref().take(5) {
        broker.produce(&place.topic, slice);
        let mut process = place.run(&options, "");
        process.until("a record", |p| p.metric("kubetide_source_records_total").is_some_and(|n| n > 0.0));
        std::thread::sleep(Duration::from_millis(random.random_range(0..3_000)));
        process.kill();
        let (committed, covered) = (place.committed(broker), covered(&place, state));
        assert!(committed <= covered, "{committed} committed, {covered} in the state");
        assert_eq!(told(state, "verify")["damages"], serde_json::json!([]));
    }
    slices.for_each(|slice| broker.produce(&place.topic, slice));
    let last = place.run(&options, "&until=end").wait();
    last.assert_success();
    assert!(last.log.contains("state_restored"), "{}", last.log);
    assert_found(broker, &place, expected);
    assert_eq!(covered(&place, state), all.len() as i64);
    let parts = told(state, "show");
    let seen = parts["parts"].as_array().expect("parts").iter().find(|part| part["detection"] == "seen");
    assert!(seen.is_some_and(|part| part["keys"].as_u64() > Some(0)), "{parts}");

    // Another group, which knows nothing: the state knows where to go on.
    let other = Place { group: unique("group"), ..place };
    let again = other.run(&options, "&until=end").wait();
    again.assert_success();
    assert_eq!(again.events(), 0);
    assert_found(broker, &other, expected);
}

#[test]
fn the_process_that_comes_last_owns_the_state_and_the_other_stops() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let Site { state, detections, expected, .. } = &Site::new();
    let options = ["--no-shipped", "--detections", detections, "--state", state, "--set", "snapshot_interval_ms=1000"];
    broker.produce(&place.topic, &dealt());
    let mut old = place.run(&options, "");
    old.until("a commit", |_| place.committed(broker) > 0);
    let new = place.run(&options, "");
    let ended = old.wait();
    assert_eq!(ended.status.code(), Some(3), "{}", ended.log);
    assert!(ended.log.contains("has taken it over"), "{}", ended.log);
    new.terminate();
    new.wait().assert_success();
    place.run(&options, "&until=end").wait().assert_success();
    assert_found(broker, &place, expected);
}
