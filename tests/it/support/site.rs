//! A folder as an operator may have it: a detection, events of a real cluster, and the program that runs there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

use super::process::{self, Ended, Running, command};

/// Every line of the recorded cluster log.
pub static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cluster/audit.ndjson.gz");
    let file = std::fs::File::open(path).expect("the fixture is there");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("a whole file");
    text.lines().map(str::to_owned).collect()
});

/// A part of the log with attacks and much else.
pub fn lines() -> &'static [String] {
    &LINES[6_000..9_000]
}

/// Lines as the bytes of a file.
pub fn text(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

/// Tells of every request for secrets, one finding each: quick to load, and what it finds is easy to count.
const DETECTION: &str = r#"id: secret-request
title: A secret was asked for
severity: medium
status: stable
attack: [TA0006/T1552.007]
description: Somebody asked for a secret.
triage: Ask them why.
false_positives: [controllers]
sql: SELECT * FROM audit WHERE resource = 'secrets' AND stage = 'ResponseComplete'
entity: [cluster, user_name]
suppress: 0
summary: "{user_name} wants {resource} {namespace}/{name}"
tests:
  - name: a secret is read
    events: [{sample: secret-get}]
    expect: {alerts: 1}
  - name: a pod is made
    events: [{sample: pod-create}]
    expect: {alerts: 0}
  - name: a pod is deleted
    events: [{sample: pod-delete}]
    expect: {alerts: 0}
"#;

/// Options that run this detection alone.
pub const ALONE: [&str; 3] = ["--no-shipped", "--detections", "secret-request.yaml"];

pub struct Site {
    folder: TempDir,
}

impl Site {
    pub fn new() -> Site {
        let site = Site { folder: tempfile::tempdir().expect("a folder") };
        site.write("secret-request.yaml", DETECTION);
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the folder.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
        std::fs::write(path, bytes).expect("writable");
    }

    /// The text of a file; empty where there is none yet.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs a command line to its end; words are split at blanks.
    #[track_caller]
    pub fn run(&self, line: &str) -> Ended {
        process::run(self.folder.path(), &words(line))
    }

    #[track_caller]
    pub fn run_with_input(&self, line: &str, input: &[u8]) -> Ended {
        process::run_with_input(self.folder.path(), &words(line), input)
    }

    /// `kubetide run LINE` with our detection alone, to its end.
    #[track_caller]
    pub fn evaluate(&self, line: &str) -> Ended {
        process::run(self.folder.path(), &evaluation(line))
    }

    /// The same, left running.
    pub fn start(&self, line: &str) -> Running {
        Running::start(command(self.folder.path(), &evaluation(line)))
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn evaluation(line: &str) -> Vec<&str> {
    ["run"].into_iter().chain(words(line)).chain(ALONE).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A request for a secret with this audit ID, as one line.
pub fn secret_request(id: &str) -> String {
    let sample = include_str!("../../../detections/samples/secret-get.json");
    let mut event: Value = serde_json::from_str(sample).expect("a sample is JSON");
    event["auditID"] = id.into();
    event.to_string()
}

/// The requests that alerts of our detection are about.
pub fn requests(alerts: &[Value]) -> BTreeSet<String> {
    let events =
        alerts.iter().flat_map(|alert| alert["finding_info"]["related_events"].as_array().into_iter().flatten());
    events.filter_map(|event| event["uid"].as_str()).map(str::to_owned).collect()
}

/// The ids of findings.
pub fn uids(alerts: &[Value]) -> BTreeSet<String> {
    alerts.iter().filter_map(|alert| alert["finding_info"]["uid"].as_str()).map(str::to_owned).collect()
}

/// By detection, the requests that it found.
pub fn found(alerts: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for alert in alerts {
        let detection = alert["finding_info"]["analytic"]["uid"].as_str().expect("a detection").to_owned();
        found.entry(detection).or_default().extend(requests(std::slice::from_ref(alert)));
    }
    found
}

/// The requests for secrets among these lines, told without the program.
pub fn secret_requests(lines: &[String]) -> BTreeSet<String> {
    let event = |line: &String| serde_json::from_str::<Value>(line).expect("an event");
    let is_ours = |event: &Value| event["objectRef"]["resource"] == "secrets" && event["stage"] == "ResponseComplete";
    let ours = lines.iter().map(event).filter(is_ours);
    ours.map(|event| event["auditID"].as_str().expect("an id").to_owned()).collect()
}
