//! The command over a real directory.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use clap::Parser;

use super::*;
use crate::state::{ClusterClock, Keeper, Part, PartKey, Snapshot, Versions};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    command: StateCommand,
}

/// The output and whether the exit code was 0.
fn run_line(words: &[&str]) -> Result<(String, bool), Failure> {
    let line = Line::try_parse_from(std::iter::once("state").chain(words.iter().copied())).expect("it parses");
    let mut out = Vec::new();
    let code = run(&line.command, &mut out)?;
    // Codes have no comparison of their own.
    let is_zero = format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS);
    Ok((String::from_utf8(out).expect("UTF-8"), is_zero))
}

fn json(words: &[&str]) -> Value {
    let (text, _) = run_line(&[words, &["--format", "json"]].concat()).expect("it runs");
    serde_json::from_str(&text).expect("JSON")
}

fn part(key: PartKey) -> Part {
    let users = StringArray::from_iter_values((0..25).map(|number| format!("user-{number}")));
    let times = Int64Array::from_iter_values((0..25).map(|number| number * 1_000_000));
    let columns = [("user", Arc::new(users) as _), ("last_us", Arc::new(times) as _)];
    Part {
        key,
        kind: "first_seen".to_owned(),
        fingerprint: "abc".to_owned(),
        needs_engine: false,
        needs_schema: false,
        rows: 0,
        keys: 25,
        tables: vec![("keys".to_owned(), RecordBatch::try_from_iter(columns).expect("a table"))],
    }
}

/// A place with two epochs after that of the claim.
fn filled() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let place = folder.path().to_str().expect("UTF-8").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let versions = Versions { product: "1".into(), engine: "e".into(), schema: "1.0".into() };
        let store = StateStore::open(&place).expect("a store");
        let (mut keeper, _) = Keeper::claim(store, versions).await.expect("claimed");
        for round in 1..=2_i64 {
            let clock = ClusterClock { watermark_us: Some(round * 60_000_000), ..ClusterClock::default() };
            let lanes = [("audit/0".to_owned(), round as u64 * 100)].into();
            let snapshot = Snapshot {
                generation: 1,
                quarantined: [].into(),
                positions: [("audit".to_owned(), lanes)].into(),
                clusters: [("prod".to_owned(), clock)].into(),
                parts: vec![part(PartKey::detection("new-user", "prod")), part(PartKey::shared("findings", None))],
            };
            keeper.publish(snapshot).await.expect("published");
        }
    });
    (folder, place)
}

#[test]
fn ls_tells_epochs_newest_first_with_event_time_and_positions() {
    let (_folder, place) = filled();
    let (text, _) = run_line(&["ls", "--state", &place]).expect("it runs");
    assert!(text.contains("epoch 3  events until 1970-01-01T00:02:00Z  2 parts"), "{text}");
    assert!(text.contains("epoch 2  events until 1970-01-01T00:01:00Z (60 s before the newest)"), "{text}");
    assert!(text.contains("audit: audit/0 200"), "{text}");
    let listed = json(&["ls", "--state", &place]);
    assert_eq!(listed["epochs"][0]["epoch"], 3);
    assert_eq!(listed["epochs"][1]["positions"]["audit"]["audit/0"], 100);
}

#[test]
fn show_tells_parts_and_the_first_rows_of_one() {
    let (_folder, place) = filled();
    let (text, _) = run_line(&["show", "--state", &place]).expect("it runs");
    assert!(text.contains("new-user") && text.contains("first_seen") && text.contains("shared"), "{text}");
    assert!(text.contains("prod: watermark 1970-01-01T00:02:00Z"), "{text}");
    let (text, _) = run_line(&["show", "new-user", "--state", &place]).expect("it runs");
    assert!(text.contains("user=user-9  last_us=1970-01-01T00:00:09Z"), "{text}");
    assert!(!text.contains("user-10") && text.contains("… and 15 more"), "{text}");
    let shown = json(&["show", "findings", "--state", &place]);
    assert_eq!(shown[0]["part"]["shared"], "findings");
    assert_eq!(shown[0]["heads"][0]["head"][1]["user"], "user-1");
}

#[test]
fn mistakes_are_told_with_what_is_there() {
    let (_folder, place) = filled();
    let told = |words: &[&str]| run_line(&[words, &["--state", &place]].concat()).expect_err("a mistake").to_string();
    assert!(told(&["show", "new-usr"]).contains("did you mean `new-user`?"));
    assert!(told(&["show", "new-user", "--cluster", "prd"]).contains("did you mean `prod`?"));
    assert!(told(&["show", "--epoch", "77"]).contains("there are 3, 2, 1"));
    let error = run_line(&["ls", "--state", "/nowhere/at/all"]).expect_err("nothing there").to_string();
    assert!(error.contains("there is no state at /nowhere/at/all"), "{error}");
    let error = run_line(&["ls", "--state", "off"]).expect_err("nothing to list").to_string();
    assert!(error.contains("--state"), "{error}");
}

#[test]
fn verify_fails_on_damage_only() {
    let (_folder, place) = filled();
    let (text, is_zero) = run_line(&["verify", "--state", &place]).expect("it runs");
    assert!(is_zero && text.contains("3 epochs, 4 tables") && text.ends_with("whole\n"), "{text}");
    let objects = std::fs::read_dir(format!("{place}/data")).expect("there are tables");
    let object = objects.flatten().next().expect("one").path();
    let mut bytes = std::fs::read(&object).expect("readable");
    bytes[100] ^= 1;
    std::fs::write(&object, bytes).expect("written");
    let (text, is_zero) = run_line(&["verify", "--state", &place]).expect("it runs");
    assert!(!is_zero && text.contains("checksum") && text.contains("damaged"), "{text}");
    assert!(json(&["verify", "--state", &place])["damages"].as_array().is_some_and(|all| !all.is_empty()));
}
