//! With state: whatever happens to the process, it goes on from its manifest, and nothing is committed beyond it.

use super::*;
use crate::support::process as command;

/// Sum of the positions of the newest epoch, as `kubetide state ls` tells them.
fn covered(place: &Place, state: &str) -> i64 {
    let folder = tempfile::tempdir().expect("a folder");
    let ended = command::run(folder.path(), &["state", "ls", "--state", state, "--format", "json"]).expect_code(0);
    let listed: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let lanes = listed["epochs"][0]["positions"][&place.topic].as_object();
    lanes.into_iter().flatten().map(|(_, next)| next.as_i64().expect("a number")).sum()
}

#[test]
fn a_process_that_is_killed_goes_on_from_its_state_and_commits_nothing_beyond_it() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state").display().to_string();
    let options = ["--state", &state, "--set", "snapshot_interval_ms=1000"];
    let all = dealt();
    let mut random = StdRng::seed_from_u64(5);
    let mut slices = all.chunks(all.len().div_ceil(6));
    for slice in slices.by_ref().take(5) {
        broker.produce(&place.topic, slice);
        let mut process = place.run(&options, "");
        process.until("a record", |p| p.metric("kubetide_source_records_total").is_some_and(|n| n > 0.0));
        std::thread::sleep(Duration::from_millis(random.random_range(0..3_000)));
        process.kill();
        let (committed, covered) = (place.committed(broker), covered(&place, &state));
        assert!(committed <= covered, "{committed} committed, {covered} in the state");
        command::run(folder.path(), &["state", "verify", "--state", &state]).expect_code(0).expect_stderr(&[]);
    }
    slices.for_each(|slice| broker.produce(&place.topic, slice));
    let last = place.run(&options, "&until=end").wait();
    last.assert_success();
    assert!(last.log.contains("state_restored"), "{}", last.log);
    place.assert_complete(broker);
    assert_eq!(covered(&place, &state), all.len() as i64);

    // Another group, which knows nothing: the state knows where to go on.
    let other = Place { group: unique("group"), ..place };
    let again = other.run(&options, "&until=end").wait();
    again.assert_success();
    assert_eq!(again.events(), 0);
    other.assert_complete(broker);
}

#[test]
fn the_process_that_comes_last_owns_the_state_and_the_other_stops() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state").display().to_string();
    let options = ["--state", &state, "--set", "snapshot_interval_ms=1000"];
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
    place.assert_complete(broker);
}
