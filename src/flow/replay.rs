//! A few records through all stages at once: the tests in detection files, and `explain`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::work::{SourceSettings, Worker, chunk_of};
use crate::clock;
use crate::detection::{Case, Detection, DetectionSet, Envelope, EventSpec, Exception};
use crate::generate::wire::{WireFormat, wrap};
use crate::model::{Activity, Alert, COLUMNS, Chunk, ColumnSet, Finding, Lane, MatchedRows};
use crate::sql::SqlError;
use crate::stage::alert::{AlertOptions, AlertSpec, AlertStage, ExceptionCount, ExceptionSpec, cell};
use crate::stage::evaluate::Evaluator;
use crate::stage::memory::{Memory, MemoryOptions};

/// What a test gave, beside what it expects.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseResult {
    pub name: String,
    /// One line for each difference; none for a test that passes.
    pub differences: Vec<Difference>,
}

/// Something that is not as a test expects it.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// Another number of alerts.
    Alerts { expected: u64, actual: u64 },
    /// Another value of a column.
    Field { column: String, expected: serde_json::Value, actual: serde_json::Value },
    /// The events could not be read, or the query failed on them.
    Failed(String),
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Alerts { expected, actual } => write!(f, "alerts: expected {expected}, got {actual}"),
            Difference::Field { column, expected, actual } => write!(f, "{column}: expected {expected}, got {actual}"),
            Difference::Failed(message) => f.write_str(message),
        }
    }
}

/// The tests of one detection.
pub fn run_cases(set: &DetectionSet, detection: &Arc<Detection>) -> Result<Vec<CaseResult>, SqlError> {
    let mut detections = vec![Arc::clone(detection)];
    if detection.reads_alerts() {
        // Its input are the alerts of the others.
        detections.extend(set.detections.iter().filter(|other| !other.reads_alerts()).map(Arc::clone));
    }
    let evaluator = Arc::new(Evaluator::new(&detections, &set.planner)?);
    Ok(detection.tests.iter().map(|case| run_case(set, &evaluator, case)).collect())
}

fn run_case(set: &DetectionSet, evaluator: &Arc<Evaluator>, case: &Case) -> CaseResult {
    let mut differences = Vec::new();
    let mut records = Vec::new();
    for (index, spec) in case.events.iter().enumerate() {
        match record(set, spec) {
            Some(mut texts) => records.append(&mut texts),
            None => {
                differences.push(Difference::Failed(format!("event {} names a sample that does not exist", index + 1)))
            }
        }
    }
    let lane = Lane { name: "test".into(), fallback_cluster: "test".into(), cluster: None };
    let replayed = replay(evaluator, &chunk_of(&records, lane));
    differences.extend(replayed.problems.into_iter().map(Difference::Failed));
    let own = evaluator.detections().first().map(|detection| &detection.id);
    let created = replayed.alerts.iter().filter(|alert| alert.activity == Activity::Create);
    let actual = created.filter(|alert| Some(&alert.detection) == own).count() as u64;
    let expected = u64::from(case.expect.alerts);
    if actual != expected {
        differences.push(Difference::Alerts { expected, actual });
    }
    if actual > 0 {
        let fields = replayed.fields;
        for (column, expected) in &case.expect.fields {
            let actual = fields.get(column).cloned().unwrap_or_default();
            if actual != *expected {
                differences.push(Difference::Field { column: column.clone(), expected: expected.clone(), actual });
            }
        }
    }
    CaseResult { name: case.name.clone(), differences }
}

/// A test's events of one entry as records on the wire.
pub(super) fn record(set: &DetectionSet, spec: &EventSpec) -> Option<Vec<Vec<u8>>> {
    let events = set.events(spec)?;
    let texts: Vec<Vec<u8>> = events.iter().map(serde_json::to_vec).collect::<Result<_, _>>().ok()?;
    let envelope = match spec {
        EventSpec::Sample(sample) => sample.envelope,
        EventSpec::Wire(_) => None,
    };
    let wire = match envelope {
        Some(Envelope::Eks) => WireFormat::from_name("eks"),
        Some(Envelope::Aks) => WireFormat::from_name("aks"),
        Some(Envelope::Gke) => WireFormat::from_name("gke"),
        None => None,
    };
    Some(match wire {
        Some(wire) => wrap(wire, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>(), "test"),
        None => texts,
    })
}

/// What came of replayed records.
#[derive(Debug)]
pub struct Replayed {
    pub alerts: Vec<Alert>,
    /// Every column of the last matched event, and the outputs that the query computed.
    pub fields: BTreeMap<String, serde_json::Value>,
    /// Records that could not be read, and queries that failed.
    pub problems: Vec<String>,
}

/// Takes a chunk through all stages. Exceptions are left out: they are a site's, not the detection's.
pub fn replay(evaluator: &Arc<Evaluator>, chunk: &Chunk) -> Replayed {
    through(evaluator, chunk, &[]).0
}

/// What each exception of a detection hides in the detection's own tests, expired ones too; as in a run, each test has
/// a start of its own.
///
/// # Errors
/// Where the detection cannot be made executable.
pub fn hidden(set: &DetectionSet, detection: &Arc<Detection>) -> Result<Vec<ExceptionCount>, SqlError> {
    let exceptions: Vec<&Exception> =
        set.exceptions.iter().filter(|exception| exception.detection == detection.id).collect();
    let mut counts: Vec<ExceptionCount> = Vec::new();
    if exceptions.is_empty() {
        return Ok(counts);
    }
    let evaluator = Arc::new(Evaluator::new(std::slice::from_ref(detection), &set.planner)?);
    for case in &detection.tests {
        let records: Vec<Vec<u8>> = case.events.iter().filter_map(|spec| record(set, spec)).flatten().collect();
        let lane = Lane { name: "test".into(), fallback_cluster: "test".into(), cluster: None };
        let (_, told) = through(&evaluator, &chunk_of(&records, lane), &exceptions);
        match counts.is_empty() {
            true => counts = told,
            false => counts.iter_mut().zip(told).for_each(|(all, more)| all.hidden += more.hidden),
        }
    }
    Ok(counts)
}

fn through(evaluator: &Arc<Evaluator>, chunk: &Chunk, exceptions: &[&Exception]) -> (Replayed, Vec<ExceptionCount>) {
    let excepted = exceptions.iter().fold(ColumnSet::EMPTY, |all, exception| all.union(exception.predicate.columns));
    let mut memory = Memory::new(evaluator.detections(), excepted, &MemoryOptions::default());
    let kept = memory.as_ref().map(|memory| Arc::clone(memory.need()));
    let mut worker = Worker::new(Arc::clone(evaluator), &[SourceSettings::default()], kept);
    let mut outcome = worker.work(0, chunk);
    let specs = evaluator.detections().iter().map(|detection| AlertSpec::of(detection)).collect();
    let subjects = evaluator.detections().iter().any(|detection| detection.reads_alerts());
    let options = AlertOptions { subjects, ..AlertOptions::new(clock::today()) };
    let mut stage = AlertStage::with_specs(
        specs,
        exceptions.iter().map(|exception| ExceptionSpec::of(exception)).collect(),
        options,
    );
    outcome.kept.iter_mut().for_each(|kept| stage.admit(kept));
    let mut alerts: Vec<Alert> = outcome.matched.iter().flat_map(|matched| stage.accept(matched)).collect();
    let mut last = outcome.matched.last().and_then(last_fields);
    if let Some(memory) = &mut memory {
        let mut findings = memory.take(0, (&outcome.heard, &outcome.kept, &[]), 0);
        findings.extend(memory.finish());
        alerts.extend(findings.iter().flat_map(|finding| stage.remember(finding)));
        let correlated = memory.correlate(&alerts);
        alerts.extend(correlated.iter().flat_map(|finding| stage.remember(finding)));
        findings.extend(correlated);
        last = findings.iter().rfind(|finding| finding.detection == 0).map(finding_fields).or(last);
    }
    alerts.extend(stage.flush());
    let unreadable =
        outcome.dead_letters.iter().map(|letter| format!("event {}: {}", letter.offset + 1, letter.detail));
    let failed = outcome.failures.iter().map(|failure| {
        let detection = &evaluator.detections()[failure.detection];
        format!("the query of {} failed: {}", detection.id, failure.message)
    });
    let problems = unreadable.chain(failed).collect();
    let replayed = Replayed { alerts, fields: last.unwrap_or_default(), problems };
    (replayed, stage.counts().exceptions)
}

/// Every column of the last matched event, and the outputs that the query computed.
fn last_fields(matched: &MatchedRows) -> Option<BTreeMap<String, serde_json::Value>> {
    let last = matched.matches.last()?;
    Some(fields(&matched.rows, last.row, &last.computed))
}

/// The same of a finding's newest event.
fn finding_fields(finding: &Finding) -> BTreeMap<String, serde_json::Value> {
    let rows = &finding.evidence.rows;
    fields(rows, rows.num_rows().saturating_sub(1), &finding.computed)
}

fn fields(
    rows: &RecordBatch,
    row: usize,
    computed: &[(Arc<str>, serde_json::Value)],
) -> BTreeMap<String, serde_json::Value> {
    let columns = COLUMNS.iter().map(|info| (info.name.to_owned(), cell(rows, info.column, row)));
    columns.chain(computed.iter().map(|(name, value)| (name.to_string(), value.clone()))).collect()
}
