//! The recorded log of a real cluster as three clouds would deliver it, and what a run over a file finds in it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

use super::findings::Findings;
use super::process::Process;
use crate::support::broker::Record;
use crate::support::clouds::Cloud;

pub const PARTITIONS: i32 = 4;
/// Events that one cloud delivers before it is the next one's turn.
const TURN: usize = 48;

/// Every event of the log, in turn as EKS, AKS and GKE deliver them. Each value is text without a line break, so that
/// a topic and a file can hold the very same bytes: EKS's envelopes are bare or the base64 of their compressed form.
pub fn records() -> &'static [Vec<u8>] {
    static RECORDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cluster/audit.ndjson.gz");
        let mut text = String::new();
        GzDecoder::new(std::fs::File::open(path).expect("the fixture")).read_to_string(&mut text).expect("gzip");
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
        let turns = events.chunks(TURN).zip(Cloud::ALL.iter().cycle());
        turns.flat_map(|(events, cloud)| cloud.wrap("shop", events)).enumerate().map(as_text).collect()
    })
}

fn as_text((n, value): (usize, Vec<u8>)) -> Vec<u8> {
    if !value.starts_with(&[0x1f, 0x8b]) {
        return value;
    }
    if n % 2 == 0 {
        return BASE64_STANDARD.encode(value).into_bytes();
    }
    let mut text = Vec::new();
    GzDecoder::new(&value[..]).read_to_end(&mut text).expect("gzip");
    text
}

/// The same records with their partitions: dealt out one after the other.
pub fn dealt() -> Vec<Record> {
    let partitions = (0..PARTITIONS).cycle();
    records().iter().zip(partitions).map(|(value, partition)| Record::to(partition, value.clone())).collect()
}

/// The shipped detections that decide on one event, as arguments. Those with memory see the partitions of their own
/// process only, and what they see of a process that dies is the business of `state`.
pub fn at_once() -> [&'static str; 3] {
    static FOLDER: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let shipped = kubetide::detection::files::shipped();
        let set = kubetide::detection::load(&shipped).set;
        let remembers = |path: &str| {
            let id = path.rsplit('/').next().and_then(|name| name.strip_suffix(".yaml")).unwrap_or_default();
            set.get(id).is_some_and(|detection| detection.memory.is_some())
        };
        for file in shipped.iter().filter(|file| !remembers(&file.path)) {
            let place = folder.path().join(file.path.trim_start_matches('/'));
            std::fs::create_dir_all(place.parent().expect("files lie in folders")).expect("writable");
            std::fs::write(place, file.text.as_bytes()).expect("writable");
        }
        let path = folder.path().display().to_string();
        (folder, path)
    });
    ["--no-shipped", "--detections", path]
}

/// What a run over a file of these records finds, and the events that it evaluated.
pub fn expected() -> &'static (Findings, u64) {
    static EXPECTED: OnceLock<(Findings, u64)> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let mut file = tempfile::Builder::new().suffix(".ndjson").tempfile().expect("a file");
        for record in records() {
            assert!(!record.contains(&b'\n'), "one record is one line");
            file.write_all(record).expect("writable");
            file.write_all(b"\n").expect("writable");
        }
        file.flush().expect("writable");
        let path = file.path().display().to_string();
        let ended = Process::run(&[&[path.as_str(), "--format", "json"], at_once().as_slice()].concat()).wait();
        ended.assert_success();
        assert!(ended.log.contains(" 0 unreadable"), "{}", ended.log);
        let findings = Findings::of(ended.output.lines());
        assert!(findings.0.len() > 50, "only {} findings: nothing to compare", findings.0.len());
        (findings, ended.events())
    })
}
