//! Test cases of other rule sets, put to the shipped pack.
//!
//! `agreement.yaml` beside the cases maps each of their rules to the detections of ours that stand for it, and lists
//! every case in which we differ, with who is right and why. It has to be complete and true: a difference that is not
//! listed fails, and so does one that is listed and no longer there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use kubetide::detection::{SourceFile, Status, files, load};
use kubetide::flow::replay::replay;
use kubetide::flow::work::chunk_of;
use kubetide::model::{Lane, Severity};
use kubetide::stage::evaluate::Evaluator;
use serde::Deserialize;
use serde_json::{Value, json};

/// The detections that a run has by default.
static SHIPPED: LazyLock<Arc<Evaluator>> = LazyLock::new(|| with_lists(Vec::new()));

/// The same at a site that keeps these lists.
fn with_lists(lists: Vec<SourceFile>) -> Arc<Evaluator> {
    let files: Vec<SourceFile> = files::shipped().into_iter().chain(lists).collect();
    let set = load(&files).set.select(|detection| detection.status == Status::Stable);
    Arc::new(Evaluator::new(&set.detections, &set.planner).expect("the pack is right"))
}

/// A list as a site writes one.
fn site_list(name: &str, values: &[String]) -> SourceFile {
    let entries: Vec<Value> =
        values.iter().map(|value| json!({"value": value, "reason": "as their case has it"})).collect();
    let text = json!({"name": name, "description": "the site's", "entries": entries}).to_string();
    SourceFile { path: format!("site/lists/{name}.yaml").into(), text: text.into(), support: false }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    /// Their rule → what stands for it here.
    rules: BTreeMap<String, Counterpart>,
    differences: Vec<Difference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counterpart {
    /// Ids of our detections; none where we have nothing for it.
    detections: Vec<String>,
    /// The records are no audit events, so that agreement is not asked for; they are listed all the same.
    #[serde(default)]
    outside: bool,
    /// Why these, where it does not go without saying.
    #[serde(default)]
    why: Option<String>,
}

/// A case in which we differ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    rule: String,
    test: String,
    right: Right,
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Right {
    Ours,
    Theirs,
    /// A matter of what a site wants to hear of.
    Either,
}

/// One of their cases.
struct Case {
    rule: String,
    test: String,
    expected: bool,
    records: Vec<String>,
    /// The pack with the lists of the site that the case is about.
    site: Arc<Evaluator>,
}

/// Falco's rules as they are installed know the users of the clusters that the cases come from.
const FALCO_USERS: [&str; 2] = ["minikube-user", "admin"];

pub struct Suite {
    name: &'static str,
    mapping: Mapping,
    cases: Vec<Case>,
    /// What counts as a hit where they expect silence: their informational rules are off there, so ours are.
    quiet_below: Severity,
}

impl Suite {
    /// One event each; `wire` is the event as its cloud would send it.
    pub fn panther(folder: &Path) -> Suite {
        let case = |line: &Value| {
            let event = if line["wire"].is_null() { &line["event"] } else { &line["wire"] };
            let record = if line["cloud"] == "aks" { json!({"records": [event]}) } else { event.clone() };
            vec![record.to_string()]
        };
        Suite::read("Panther", folder, Severity::Informational, case, |_| Arc::clone(&SHIPPED))
    }

    /// One or more events each, as an API server's log backend wrote them; `overrides` names users that the site expects
    /// as well.
    pub fn falco(folder: &Path) -> Suite {
        let mut sites: BTreeMap<Vec<String>, Arc<Evaluator>> = BTreeMap::new();
        let site = |line: &Value| {
            let overrides = line["overrides"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let more = overrides.filter_map(|name| name.strip_prefix("allow_user_")?.strip_suffix(".yaml"));
            let users: Vec<String> = FALCO_USERS.into_iter().chain(more).map(str::to_owned).collect();
            let guarded = site_list("guarded-clusters", &[CLUSTER.to_owned()]);
            let site = sites.entry(users);
            Arc::clone(site.or_insert_with_key(|users| with_lists(vec![guarded, site_list("expected-users", users)])))
        };
        let case = |line: &Value| line["events"].as_array().into_iter().flatten().map(Value::to_string).collect();
        Suite::read("Falco", folder, Severity::Medium, case, site)
    }

    fn read(
        name: &'static str,
        folder: &Path,
        quiet_below: Severity,
        records: impl Fn(&Value) -> Vec<String>,
        mut site: impl FnMut(&Value) -> Arc<Evaluator>,
    ) -> Suite {
        let text = |file: &str| std::fs::read_to_string(folder.join(file)).expect("a fixture");
        let mapping = serde_saphyr::from_str(&text("agreement.yaml")).unwrap_or_else(|error| panic!("{name}: {error}"));
        let word = |line: &Value, key: &str| line[key].as_str().expect("text").to_owned();
        let case = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("a case is JSON");
            Case {
                rule: word(&line, "rule_id"),
                test: word(&line, "test_name"),
                expected: line["expected"].as_bool().expect("a case expects something"),
                records: records(&line),
                site: site(&line),
            }
        };
        Suite { name, mapping, cases: text("tests.ndjson").lines().map(case).collect(), quiet_below }
    }

    /// Fails where a difference is not explained, an explanation is not true, or we agree in less than this share.
    #[track_caller]
    pub fn check(&self, agreement_min: f64) {
        let mut wrong = self.mapping_mistakes();
        let (mut agreed, mut asked) = (0, 0);
        let mut by_right = BTreeMap::new();
        for case in &self.cases {
            let Some(counterpart) = self.mapping.rules.get(&case.rule) else {
                wrong.push(format!("rule {} is not mapped", case.rule));
                continue;
            };
            let fired = fired(case);
            let least = if case.expected { Severity::Informational } else { self.quiet_below };
            let hit = fired.iter().any(|(id, severity)| counterpart.detections.contains(id) && *severity >= least);
            let listed = self.listed(case);
            let agrees = hit == case.expected;
            agreed += usize::from(agrees && !counterpart.outside);
            asked += usize::from(!counterpart.outside);
            let place = format!("{} / {}", case.rule, case.test);
            match (agrees, listed) {
                (true, None) => {}
                (true, Some(_)) => wrong.push(format!("{place}: listed as a difference, but we agree")),
                (false, Some(difference)) => *by_right.entry(format!("{:?}", difference.right)).or_insert(0) += 1,
                (false, None) => {
                    wrong.push(format!("{place}: they expect {}, we say {fired:?}; not listed", case.expected));
                }
            }
        }
        let share = agreed as f64 / asked as f64;
        println!(
            "{}: {agreed} of {asked} cases about audit events agree ({:.1} %), {} are about other records; differences: \
             {by_right:?}",
            self.name,
            share * 100.0,
            self.cases.len() - asked
        );
        assert!(wrong.is_empty(), "{}: {agreed} of {asked} agree\n{}", self.name, wrong.join("\n"));
        assert!(share >= agreement_min, "{}: only {agreed} of {asked} cases agree", self.name);
    }

    fn listed(&self, case: &Case) -> Option<&Difference> {
        self.mapping.differences.iter().find(|listed| listed.rule == case.rule && listed.test == case.test)
    }

    /// Names in the mapping that name nothing, and gaps without a reason.
    fn mapping_mistakes(&self) -> Vec<String> {
        let known: BTreeSet<&str> = SHIPPED.detections().iter().map(|detection| &*detection.id).collect();
        let mut wrong = Vec::new();
        for (rule, counterpart) in &self.mapping.rules {
            let unknown = counterpart.detections.iter().filter(|id| !known.contains(id.as_str()));
            wrong.extend(unknown.map(|id| format!("{rule}: there is no detection {id}")));
            if counterpart.detections.is_empty() && counterpart.why.is_none() {
                wrong.push(format!("{rule}: nothing stands for it, and no reason is given"));
            }
            if !self.cases.iter().any(|case| case.rule == *rule) {
                wrong.push(format!("{rule}: no case is about this rule"));
            }
        }
        let mut seen = BTreeSet::new();
        for Difference { rule, test, why, .. } in &self.mapping.differences {
            let exists = self.cases.iter().any(|case| case.rule == *rule && case.test == *test);
            if !exists || why.trim().is_empty() || !seen.insert((rule, test)) {
                wrong.push(format!("difference {rule} / {test}: no such case, no reason, or listed twice"));
            }
        }
        wrong
    }
}

/// The cluster that records without one come from.
const CLUSTER: &str = "case";

/// The detections that fire on the records of a case, each with its severity.
fn fired(case: &Case) -> BTreeSet<(String, Severity)> {
    let lane = Lane { name: "case".into(), fallback_cluster: CLUSTER.into(), cluster: None };
    let replayed = replay(&case.site, &chunk_of(&case.records, lane));
    replayed.alerts.iter().map(|alert| (alert.detection.to_string(), alert.severity)).collect()
}
