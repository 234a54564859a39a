//! How well alerts tell labelled attacks from all else.
//!
//! * An attack is **found** when a finding of medium severity or more names one of its requests as evidence and shares
//!   a technique with it (a sub-technique counts as its technique; a label without techniques takes any).
//! * A **near miss** is a harmless look-alike one of whose requests stands in a finding of medium severity or more.
//! * **Background** is a finding of medium severity or more whose requests are in no label at all.
//! * **Swept** requests are in no label but in a finding that touches one, so that one finding about everything does
//!   not look perfect.
//!
//! All emissions of a finding count as one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// OCSF's number of medium severity.
const MEDIUM: u64 = 3;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Alert,
    NoAlert,
    Ignore,
}

#[derive(Debug, Deserialize)]
struct Label {
    id: String,
    techniques: Vec<String>,
    expect: Expect,
    #[serde(rename = "auditIDs", default)]
    own: Vec<String>,
    #[serde(rename = "auxAuditIDs", default)]
    auxiliary: Vec<String>,
    #[serde(rename = "derivedAuditIDs", default)]
    derived: Vec<String>,
    #[serde(rename = "relatedAuditIDs", default)]
    related: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    labels: Vec<Label>,
}

pub struct Labels {
    labels: Vec<Label>,
    /// Requests in the log.
    requests: usize,
}

impl Labels {
    /// Labels, and the number of requests of the log beside them.
    pub fn read(path: &Path) -> Labels {
        let text = std::fs::read_to_string(path).expect("labels are there");
        let Document { labels } = serde_json::from_str(&text).expect("labels are JSON");
        let log = std::fs::File::open(path.with_file_name("audit.ndjson.gz")).expect("the log is there");
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(log).read_to_string(&mut text).expect("a whole log");
        let ids: BTreeSet<&str> = text.lines().filter_map(audit_id).collect();
        Labels { labels, requests: ids.len() }
    }
}

fn audit_id(line: &str) -> Option<&str> {
    line.split_once("\"auditID\":\"")?.1.split('"').next()
}

/// A finding, all its emissions together.
#[derive(Default)]
struct Finding<'a> {
    detection: &'a str,
    severity: u64,
    requests: BTreeSet<&'a str>,
    techniques: BTreeSet<&'a str>,
}

/// Without the sub-technique; T1562 was renumbered in ATT&CK v19.
fn base(technique: &str) -> &str {
    match technique.split('.').next().unwrap_or_default() {
        "T1562" => "T1685",
        other => other,
    }
}

fn findings(alerts: &[Value]) -> Vec<Finding<'_>> {
    let mut findings: BTreeMap<&str, Finding<'_>> = BTreeMap::new();
    for alert in alerts {
        let info = &alert["finding_info"];
        let finding = findings.entry(info["uid"].as_str().expect("a finding has an id")).or_default();
        finding.detection = info["analytic"]["uid"].as_str().expect("a finding names its detection");
        finding.severity = finding.severity.max(alert["severity_id"].as_u64().unwrap_or_default());
        let events = info["related_events"].as_array().into_iter().flatten();
        finding.requests.extend(events.filter_map(|event| event["uid"].as_str()));
        for attack in info["attacks"].as_array().into_iter().flatten() {
            finding.techniques.extend(attack["technique"]["uid"].as_str().map(base));
            finding.techniques.extend(attack["sub_technique"]["uid"].as_str().map(base));
        }
    }
    findings.into_values().collect()
}

#[derive(Debug)]
pub struct Score {
    findings: usize,
    requests: usize,
    attacks: usize,
    /// Ids of attacks that were not found.
    pub missed: Vec<String>,
    /// Look-alikes that were reported, and by what.
    pub near_misses: Vec<(String, String)>,
    /// Findings about nothing, by detection.
    pub background: BTreeMap<String, usize>,
    swept: usize,
}

impl Score {
    pub fn of(labels: &Labels, alerts: &[Value]) -> Score {
        let all = findings(alerts);
        let loud: Vec<&Finding<'_>> = all.iter().filter(|finding| finding.severity >= MEDIUM).collect();
        let labelled: BTreeSet<&str> = labels
            .labels
            .iter()
            .flat_map(|label| [&label.own, &label.auxiliary, &label.derived, &label.related])
            .flatten()
            .map(String::as_str)
            .collect();
        let touches = |finding: &Finding<'_>, label: &Label| {
            label.own.iter().any(|request| finding.requests.contains(request.as_str()))
        };
        let is_found = |label: &Label| {
            let on_topic = |finding: &Finding<'_>| {
                let mut techniques = label.techniques.iter().map(|technique| base(technique));
                label.techniques.is_empty() || techniques.any(|technique| finding.techniques.contains(technique))
            };
            loud.iter().any(|finding| touches(finding, label) && on_topic(finding))
        };
        let attacks: Vec<&Label> = labels.labels.iter().filter(|label| matches!(label.expect, Expect::Alert)).collect();
        let missed = attacks.iter().filter(|label| !is_found(label)).map(|label| label.id.clone()).collect();
        let harmless = labels.labels.iter().filter(|label| matches!(label.expect, Expect::NoAlert));
        let near_misses = harmless
            .flat_map(|label| {
                loud.iter().filter(|finding| touches(finding, label)).map(move |finding| (label, finding))
            })
            .map(|(label, finding)| (label.id.clone(), finding.detection.to_owned()))
            .collect();
        let mut background = BTreeMap::new();
        let mut swept = BTreeSet::new();
        for finding in &all {
            if finding.requests.is_disjoint(&labelled) {
                if finding.severity >= MEDIUM {
                    *background.entry(finding.detection.to_owned()).or_default() += 1;
                }
            } else {
                swept.extend(finding.requests.difference(&labelled).copied());
            }
        }
        let requests = labels.requests;
        let (findings, attacks, swept) = (all.len(), attacks.len(), swept.len());
        Score { findings, requests, attacks, missed, near_misses, background, swept }
    }

    pub fn background_per_1000(&self) -> f64 {
        self.background.values().sum::<usize>() as f64 / self.requests as f64 * 1_000.0
    }

    pub fn swept_per_1000(&self) -> f64 {
        self.swept as f64 / self.requests as f64 * 1_000.0
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.attacks - self.missed.len();
        write!(
            f,
            "{} findings: {found} of {} attacks found, {} look-alikes reported, background {:.2} and swept {:.2} per 1,000 requests",
            self.findings,
            self.attacks,
            self.near_misses.len(),
            self.background_per_1000(),
            self.swept_per_1000()
        )
    }
}
