//! Mutation testing of detections: changes a query one piece at a time and asks whether some test notices.
//!
//! A test's events are decoded once. Each condition of the query, and each changed one, is evaluated over them by itself;
//! a changed query matches the rows for which all its conditions hold, and the test notices where its number of alerts
//! is no longer the one that it expects. The pieces are those of [`mutate`](crate::sql::mutate).
//!
//! What is more than a filter, or has a memory, is made anew with each change and put to its tests as a whole ([`whole`]);
//! there the numbers of the memory are changed as well.

mod whole;

use std::collections::HashMap;
use std::sync::Arc;

use super::replay::record;
use super::work::{chunk_of, decode};
use crate::clock;
use crate::detection::{Case, Detection, DetectionSet};
use crate::model::{Activity, Lane, MatchedRows, Need};
use crate::sql::mutate::{Condition, Mutant, conditions, spelling};
use crate::sql::{Predicate, Shape, SqlError};
use crate::stage::alert::{AlertOptions, AlertSpec, AlertStage};
use crate::stage::evaluate::{Evaluator, Hit};
use crate::stage::format::{FormatOptions, Formats};

/// What the tests of one detection notice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Changes that were tried.
    pub tried: usize,
    /// Changes that no test notices, in the order of the query.
    pub survivors: Vec<Survivor>,
    /// Conditions and changes that the file explains and some test notices, or that are not part of the query.
    pub unused: Vec<String>,
    /// Why nothing was tried.
    pub skipped: Option<&'static str>,
}

impl Survey {
    /// Survivors that the file does not explain.
    pub fn unexplained(&self) -> impl Iterator<Item = &Survivor> {
        self.survivors.iter().filter(|survivor| survivor.reason.is_none())
    }

    fn skipped(why: &'static str) -> Survey {
        Survey { skipped: Some(why), ..Survey::default() }
    }
}

/// A change that no test notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The condition, one of those that the query joins with AND.
    pub condition: String,
    /// What was done to it.
    pub change: String,
    /// Whether the changed query matches more events; otherwise it matches fewer.
    pub wider: bool,
    /// The file's explanation.
    pub reason: Option<String>,
}

impl Survivor {
    /// Which test would notice.
    pub fn hint(&self) -> &'static str {
        if self.wider {
            "add a quiet test: an event that fires but for this"
        } else {
            "add a firing test: an event that fires only because of this"
        }
    }
}

/// Tests detections of one set; shares what it plans among them.
#[derive(Debug)]
pub struct Surveyor<'a> {
    set: &'a DetectionSet,
    /// By SQL text; `None` where it cannot be planned.
    predicates: HashMap<String, Option<Arc<Predicate>>>,
}

/// The events of one test.
struct Trial {
    /// All rows, without matches.
    rows: MatchedRows,
    expected: u64,
    /// By condition: the rows for which it holds.
    holds: Vec<Vec<bool>>,
}

impl<'a> Surveyor<'a> {
    pub fn new(set: &'a DetectionSet) -> Surveyor<'a> {
        Surveyor { set, predicates: HashMap::new() }
    }

    /// Tries every change of one detection, whose tests must pass.
    ///
    /// # Errors
    /// Where the detection cannot be made executable.
    pub fn survey(&mut self, detection: &Arc<Detection>) -> Result<Survey, SqlError> {
        let conditions = match (&detection.plan.shape, conditions(&detection.sql)) {
            (Shape::Filter { .. }, Some(conditions)) if detection.memory.is_none() => conditions,
            _ if detection.reads_alerts() => {
                return Ok(Survey::skipped("its tests need all other detections, too slow for each change"));
            }
            _ => return whole::survey(self.set, detection),
        };
        let alerts = Alerts::new(self.set, detection)?;
        let mut trials = Vec::with_capacity(detection.tests.len());
        for case in &detection.tests {
            match trial(self.set, case) {
                Some(trial) => trials.push(trial),
                None => return Ok(Survey::skipped("an event of a test cannot be read")),
            }
        }
        for condition in &conditions {
            let Some(predicate) = self.predicate(&condition.sql) else {
                return Ok(Survey::skipped("a condition cannot be planned by itself"));
            };
            trials.iter_mut().for_each(|trial| trial.holds.push(holds(&predicate, &trial.rows)));
        }
        if trials.iter().any(|trial| alerts.count(trial, &trial.matched(None)) != trial.expected) {
            return Ok(Survey::skipped("its tests do not pass"));
        }
        let mut survey = Survey::default();
        for (index, condition) in conditions.iter().enumerate() {
            self.condition(index, condition, &trials, &alerts, &mut survey);
        }
        explain(detection, &mut survey);
        Ok(survey)
    }

    fn condition(
        &mut self,
        index: usize,
        condition: &Condition,
        trials: &[Trial],
        alerts: &Alerts,
        survey: &mut Survey,
    ) {
        // Whether each mutant survives, itself or the one around it.
        let mut survives: Vec<bool> = Vec::with_capacity(condition.mutants.len());
        for mutant in &condition.mutants {
            if mutant.within.is_some_and(|outer| survives.get(outer) == Some(&true)) {
                survives.push(true);
                continue;
            }
            let predicate = match &mutant.sql {
                None => None,
                Some(sql) => match self.predicate(sql) {
                    Some(predicate) => Some(predicate),
                    None => {
                        survives.push(false);
                        continue;
                    }
                },
            };
            survey.tried += 1;
            let noticed = trials.iter().any(|trial| notices(trial, index, predicate.as_deref(), alerts));
            survives.push(!noticed);
            if !noticed {
                survey.survivors.push(survivor(condition, mutant));
            }
        }
    }

    /// Plans a condition, once for all detections that have it.
    fn predicate(&mut self, sql: &str) -> Option<Arc<Predicate>> {
        if let Some(known) = self.predicates.get(sql) {
            return known.clone();
        }
        // A change may make something that is no condition any more: no mutant then.
        let planned = self.set.planner.plan_predicate(sql).ok().map(Arc::new);
        self.predicates.insert(sql.to_owned(), planned.clone());
        planned
    }
}

impl Trial {
    /// The rows that all conditions hold for, one of them replaced by other answers or (`None`) left out.
    fn matched(&self, instead: Option<(usize, Option<&[bool]>)>) -> Vec<bool> {
        let mut matched = vec![true; self.rows.texts.len()];
        for (index, answers) in self.holds.iter().enumerate() {
            let answers = match instead {
                Some((replaced, None)) if replaced == index => continue,
                Some((replaced, Some(other))) if replaced == index => other,
                _ => answers.as_slice(),
            };
            matched.iter_mut().zip(answers).for_each(|(matched, answer)| *matched &= answer);
        }
        matched
    }
}

fn notices(trial: &Trial, index: usize, changed: Option<&Predicate>, alerts: &Alerts) -> bool {
    let answers = changed.map(|predicate| holds(predicate, &trial.rows));
    let matched = trial.matched(Some((index, answers.as_deref())));
    matched != trial.matched(None) && alerts.count(trial, &matched) != trial.expected
}

/// Answers by row; where evaluation fails, row by row, and a row that fails does not hold.
fn holds(predicate: &Predicate, rows: &MatchedRows) -> Vec<bool> {
    predicate.holds(&rows.rows).unwrap_or_else(|_| {
        let single = |row| predicate.holds(&rows.rows.slice(row, 1)).is_ok_and(|answers| answers == [true]);
        (0..rows.rows.num_rows()).map(single).collect()
    })
}

/// The events of a test with all their columns; `None` where one cannot be read.
fn trial(set: &DetectionSet, case: &Case) -> Option<Trial> {
    let mut records = Vec::new();
    for spec in &case.events {
        records.append(&mut record(set, spec)?);
    }
    let lane = Lane { name: "test".into(), fallback_cluster: "test".into(), cluster: None };
    let mut formats = Formats::new(FormatOptions::default());
    let need = Arc::new(Need::everything());
    let batch = decode(&mut formats, need, Arc::from([]), &chunk_of(&records, lane));
    let rows = MatchedRows {
        rows: batch.plain().ok()?,
        texts: (0..batch.rows.len()).map(|row| batch.text(row)).collect(),
        positions: batch.rows.iter().map(|row| row.position).collect(),
        arrival_ms: batch.rows.iter().map(|row| row.arrival_ms).collect(),
        matches: Vec::new(),
    };
    Some(Trial { rows, expected: u64::from(case.expect.alerts), holds: Vec::new() })
}

/// Counts the alerts of one detection.
struct Alerts {
    evaluator: Evaluator,
    detection: Arc<Detection>,
}

impl Alerts {
    fn new(set: &DetectionSet, detection: &Arc<Detection>) -> Result<Alerts, SqlError> {
        let evaluator = Evaluator::new(std::slice::from_ref(detection), &set.planner)?;
        Ok(Alerts { evaluator, detection: Arc::clone(detection) })
    }

    /// Alerts after suppression if these rows match.
    fn count(&self, trial: &Trial, matched: &[bool]) -> u64 {
        let rows = matched.iter().enumerate().filter(|(_, matched)| **matched);
        let hits: Vec<Hit> = rows.map(|(row, _)| Hit { row, detection: 0, step: 0 }).collect();
        if hits.is_empty() {
            return 0;
        }
        // For a filter this computes the outputs of the SELECT list, and does not ask again whether the row matches.
        let (matches, _) = self.evaluator.confirm(&hits, &trial.rows.rows, |row| row);
        let spec = AlertSpec::of(&self.detection);
        let mut stage = AlertStage::with_specs(vec![spec], Vec::new(), AlertOptions::new(clock::today()));
        let mut alerts = stage.accept(&MatchedRows { matches, ..trial.rows.clone() });
        alerts.extend(stage.flush());
        alerts.iter().filter(|alert| alert.activity == Activity::Create).count() as u64
    }
}

fn survivor(condition: &Condition, mutant: &Mutant) -> Survivor {
    Survivor { condition: condition.sql.clone(), change: mutant.change.clone(), wider: mutant.wider, reason: None }
}

/// Lays the file's explanations beside the survivors.
fn explain(detection: &Detection, survey: &mut Survey) {
    for accepted in &detection.mutants {
        let condition = spelling(&accepted.sql);
        let mut used = false;
        for survivor in &mut survey.survivors {
            let same_change = accepted.change.as_ref().is_none_or(|change| *change == survivor.change);
            if condition.as_ref() == Some(&survivor.condition) && same_change {
                survivor.reason.get_or_insert_with(|| accepted.reason.clone());
                used = true;
            }
        }
        if !used {
            let change = accepted.change.as_ref().map(|change| format!(": {change}")).unwrap_or_default();
            survey.unused.push(format!("{}{change}", accepted.sql.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::{SourceFile, files, load};

    /// A detection over the shipped samples, with these further keys.
    fn survey(sql: &str, keys: &str) -> Survey {
        let text = format!(
            "id: d\ntitle: T\nseverity: low\nstatus: stable\nattack: [TA0002/T1609]\ndescription: D\nsql: \"{sql}\"\n\
             entity: [cluster]\nsuppress: 1h\nsummary: S\n{keys}"
        );
        let file = SourceFile { path: "detections/execution/d.yaml".into(), text: text.into(), support: false };
        let loaded = load(&files::shipped_support().into_iter().chain([file]).collect::<Vec<_>>());
        let detection = loaded.set.get("d").unwrap_or_else(|| panic!("loads: {:?}", loaded.diagnostics));
        Surveyor::new(&loaded.set).survey(detection).expect("planned")
    }

    fn changes(survey: &Survey) -> Vec<String> {
        survey.survivors.iter().map(|survivor| format!("{}: {}", survivor.condition, survivor.change)).collect()
    }

    const SQL: &str = "SELECT * FROM audit WHERE verb IN ('create', 'update') AND resource = 'pods'";
    const FIRES: &str = "tests:\n  - {name: fires, events: [{sample: pod-create}], expect: {alerts: 1}}\n";
    const UPDATE: &str = "  - {name: u, events: [{sample: pod-create, set: {verb: update}}], expect: {alerts: 1}}\n";
    const GET: &str = "  - {name: g, events: [{sample: pod-create, set: {verb: get}}], expect: {alerts: 0}}\n";
    const NODE: &str =
        "  - {name: n, events: [{sample: pod-create, set: {objectRef: {resource: nodes}}}], expect: {alerts: 0}}\n";

    #[test]
    fn what_no_test_notices_survives_once() {
        let found = survey(SQL, FIRES);
        // The condition that no test needs says it all; its values are not told beside it.
        assert_eq!(changes(&found), ["verb IN ('create', 'update'): dropped", "resource = 'pods': dropped"]);
        assert!(found.survivors.iter().all(|survivor| survivor.wider && survivor.hint().contains("quiet")));
        let found = survey(SQL, &format!("{FIRES}{GET}{NODE}"));
        assert_eq!(changes(&found), ["verb IN ('create', 'update'): without `'update'` in `verb IN`"]);
        assert!(found.survivors[0].hint().contains("firing"));
        let found = survey(SQL, &format!("{FIRES}{GET}{NODE}{UPDATE}"));
        assert_eq!((changes(&found), found.tried), (Vec::new(), 4));
    }

    #[test]
    fn an_explanation_covers_a_condition_or_one_change() {
        let why = "mutants:\n  - {sql: \"resource='pods'\", reason: R}\n  - {sql: \"verb = 'get'\", reason: R}\n";
        let found = survey(SQL, &format!("{FIRES}{GET}{UPDATE}{why}"));
        assert_eq!(changes(&found), ["resource = 'pods': dropped"]);
        assert_eq!((found.unexplained().count(), &found.unused[..]), (0, &["verb = 'get'".to_owned()][..]));
        let why = "mutants: [{sql: \"resource = 'pods'\", change: other, reason: R}]\n";
        let found = survey(SQL, &format!("{FIRES}{GET}{UPDATE}{why}"));
        assert_eq!((found.unexplained().count(), found.unused.len()), (1, 1));
    }

    #[test]
    fn what_is_no_filter_is_put_to_its_tests_as_a_whole() {
        let grouped =
            "SELECT verb, count(*) AS n FROM audit WHERE resource = 'pods' GROUP BY verb HAVING count(*) >= 1";
        let found = survey(grouped, FIRES);
        assert!(changes(&found).contains(&"resource = 'pods': dropped".to_owned()), "{:?}", changes(&found));
        assert!(survey(grouped, &format!("{FIRES}{NODE}")).survivors.len() < found.survivors.len());
    }

    #[test]
    fn a_window_loses_conditions_and_half_its_time() {
        let counts = "SELECT user_name, count(*) AS n FROM audit WHERE verb = 'get' GROUP BY user_name \
                      HAVING count(*) >= 3";
        let window = |copies: u32, alerts: u32, every: &str| {
            format!(
                "  - {{name: w{copies}{every}, events: [{{sample: secret-get, repeat: {copies}, every: {every}}}], \
                 expect: {{alerts: {alerts}}}}}\n"
            )
        };
        let keys = |tests: &str| format!("window: {{size: 10m}}\ntests:\n{tests}");
        let found = survey(counts, &keys(&window(4, 1, "1m")));
        assert_eq!(changes(&found), ["verb = 'get': dropped", "count(*) >= 3: dropped", "size: halved to 300s"]);
        let more = [window(3, 1, "4m"), window(2, 0, "1m")].concat();
        let found = survey(counts, &keys(&more));
        assert_eq!(changes(&found), ["verb = 'get': dropped"]);
    }

    #[test]
    fn what_does_not_pass_is_skipped() {
        let fails = FIRES.replace("alerts: 1", "alerts: 2");
        assert_eq!(survey(SQL, &fails).skipped, Some("its tests do not pass"));
    }

    #[test]
    fn suppression_counts_as_it_does_in_a_run() {
        let twice = "tests:\n  - name: t\n    events: [{sample: pod-create}, {sample: pod-create, set: {verb: update}}]\n    \
                     expect: {alerts: 1}\n";
        let found = survey("SELECT *, verb AS what FROM audit WHERE verb = 'create'", twice);
        // Both events are about one cluster, within the hour.
        assert_eq!(changes(&found), ["verb = 'create': dropped"]);
    }
}
