//! The shipped pack against what others say about events: a labelled log of a real API server, and the test cases of
//! two other rule sets. `tests/fixtures/{cluster,panther,falco}/README.md` say where they come from.
//!
//! Nothing here is a target to move at will: what is not found, and where we and others differ, is listed with its
//! reason, and a list that is no longer true fails as well.

mod agreement;
mod ocsf;
mod score;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use self::score::{Labels, Score};
use crate::support::process;

/// Labels that no single event decides, with the reason. There is none: of every burst and chain in the log, at least one
/// event is telling by itself. All others are found at medium severity or more.
const UNDECIDED: &[(&str, &str)] = &[];
/// Background matches at medium severity or more per 1,000 requests.
const BACKGROUND_MAX: f64 = 0.1;
/// Innocent requests inside findings about something else, per 1,000 requests.
const SWEPT_MAX: f64 = 2.0;
/// Share of Panther's cases about audit events in which we have to agree.
const PANTHER_MIN: f64 = 0.95;
/// Share of Falco's.
const FALCO_MIN: f64 = 0.95;

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What the program says about the whole log, run once for all tests.
static CLUSTER_ALERTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let log = fixtures("cluster/audit.ndjson.gz");
    let log = log.to_str().expect("UTF-8");
    process::run(folder.path(), &["run", log, "--format", "json", "--quiet"]).expect_code(0).alerts()
});

#[test]
fn labelled_attacks_are_found_and_nothing_else_is() {
    let labels = Labels::read(&fixtures("cluster/labels.json"));
    let score = Score::of(&labels, &CLUSTER_ALERTS);
    println!("{score}");
    let undecided: Vec<&str> = UNDECIDED.iter().map(|(label, _)| *label).collect();
    let lost: Vec<&String> = score.missed.iter().filter(|label| !undecided.contains(&label.as_str())).collect();
    let found: Vec<&&str> =
        undecided.iter().filter(|label| !score.missed.iter().any(|missed| missed == **label)).collect();
    assert!(lost.is_empty(), "no detection of medium severity or more finds {lost:?}\n{score}");
    assert!(found.is_empty(), "found after all, take them off the list: {found:?}");
    assert!(score.near_misses.is_empty(), "harmless look-alikes are reported: {:?}", score.near_misses);
    assert!(score.background_per_1000() <= BACKGROUND_MAX, "{score}\n{:#?}", score.background);
    assert!(score.swept_per_1000() <= SWEPT_MAX, "{score}");
}

#[test]
fn alerts_are_what_the_schema_says() {
    assert!(CLUSTER_ALERTS.len() > 100, "{} alerts", CLUSTER_ALERTS.len());
    for alert in CLUSTER_ALERTS.iter() {
        ocsf::check(alert);
    }
}

#[test]
fn panther_cases_agree() {
    agreement::Suite::panther(&fixtures("panther")).check(PANTHER_MIN);
}

#[test]
fn falco_cases_agree() {
    agreement::Suite::falco(&fixtures("falco")).check(FALCO_MIN);
}
