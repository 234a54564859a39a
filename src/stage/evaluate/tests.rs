//! The engine against the plain meaning of SQL: each detection's conjuncts over all columns of all rows.

use std::sync::LazyLock;

use super::*;
use crate::detection::{DetectionSet, SourceFile, files, load};
use crate::flow::work::{chunk_of, decode};
use crate::model::{Lane, plain_schema};
use crate::stage::format::{FormatOptions, Formats};

/// The shipped pack with every event of its tests.
static PACK: LazyLock<(DetectionSet, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let set = load(&files::shipped()).set;
    let cases = set.detections.iter().flat_map(|detection| &detection.tests);
    let events: Vec<Vec<u8>> = cases
        .flat_map(|case| &case.events)
        .filter_map(|spec| set.event(spec))
        .map(|event| event.to_string().into_bytes())
        .collect();
    (set, events)
});

fn batch_of(events: &[Vec<u8>], need: &Arc<Need>) -> EventBatch {
    let lane = Lane { name: "test".into(), fallback_cluster: "test".into(), cluster: None };
    let mut formats = Formats::new(FormatOptions::default());
    decode(&mut formats, Arc::clone(need), Arc::from([]), &chunk_of(events, lane))
}

/// Rows that pass every conjunct, evaluated one by one over the whole table.
fn expected(detection: &Detection, planner: &Planner, rows: &RecordBatch) -> Vec<usize> {
    let conjuncts = filter(&detection.plan.shape);
    let schema = plain_schema(ColumnSet::all());
    let passes: Vec<Vec<bool>> = conjuncts
        .iter()
        .map(|conjunct| {
            let expr = planner.physical(&conjunct.expr, &schema).expect("planned");
            let answers = expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).expect("evaluates");
            let answers = answers.as_boolean();
            (0..rows.num_rows()).map(|row| answers.is_valid(row) && answers.value(row)).collect()
        })
        .collect();
    (0..rows.num_rows()).filter(|row| passes.iter().all(|answers| answers[*row])).collect()
}

fn check(detections: &[Arc<Detection>], planner: &Planner, events: &[Vec<u8>]) -> usize {
    let evaluator = Evaluator::new(detections, planner).expect("prepared");
    let hits = evaluator.evaluate(&batch_of(events, evaluator.need()));
    assert_eq!(hits.failures, Vec::new());
    let everything = batch_of(events, &Arc::new(Need::everything())).plain().expect("all columns");
    for (index, detection) in detections.iter().enumerate() {
        let own: Vec<usize> = hits.hits.iter().filter(|hit| hit.detection == index).map(|hit| hit.row).collect();
        assert_eq!(own, expected(detection, planner, &everything), "{}", detection.id);
    }
    hits.hits.len()
}

#[test]
fn the_shipped_pack_matches_what_plain_sql_matches() {
    let (set, events) = &*PACK;
    assert!(events.len() > 200, "the tests of the pack bring many events");
    let hits = check(&set.detections, &set.planner, events);
    assert!(hits > set.detections.len(), "every detection has a test that fires");
}

#[test]
fn small_batches_match_the_same() {
    let (set, events) = &*PACK;
    for part in events.chunks(97).take(4) {
        check(&set.detections, &set.planner, part);
    }
    check(&set.detections, &set.planner, &[]);
}

/// Detections of these queries.
fn detections(queries: &[&str]) -> DetectionSet {
    let file = |(index, sql): (usize, &&str)| {
        let text = format!(
            "id: d{index}\ntitle: T\nseverity: low\nstatus: stable\nattack: [TA0002/T1609]\ndescription: D\ntriage: T\nfalse_positives: [F]\nsql: |\n  {sql}\nentity: [cluster]\nsuppress: 0\nsummary: S\ntests: []\n"
        );
        let path = format!("detections/execution/d{index}.yaml");
        SourceFile { path: path.into(), text: text.into(), support: false }
    };
    let files: Vec<SourceFile> = queries.iter().enumerate().map(file).collect();
    let loaded = load(&files);
    let errors: Vec<String> = loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.level == crate::detection::Level::Error)
        .map(|diagnostic| diagnostic.message.clone())
        .collect();
    assert_eq!(loaded.set.detections.len(), queries.len(), "{errors:?}");
    loaded.set
}

fn event(verb: &str, name: &str) -> Vec<u8> {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"{name}","stage":"ResponseComplete","verb":"{verb}","user":{{"username":"jane"}},"objectRef":{{"resource":"pods","name":"{name}"}},"responseStatus":{{"code":200}}}}"#
    )
    .into_bytes()
}

#[test]
fn a_failing_row_is_reported_and_does_not_hide_its_neighbours() {
    let set = detections(&[
        "SELECT * FROM audit WHERE resource = 'pods' AND CAST(name AS INT) > 5",
        "SELECT * FROM audit WHERE resource = 'pods' AND verb = 'get'",
    ]);
    let evaluator = Evaluator::new(&set.detections, &set.planner).expect("prepared");
    let events = [event("get", "7"), event("get", "seven"), event("list", "8"), event("get", "3")];
    let found = evaluator.evaluate(&batch_of(&events, evaluator.need()));
    let rows = |detection: usize| -> Vec<usize> {
        found.hits.iter().filter(|hit| hit.detection == detection).map(|hit| hit.row).collect()
    };
    assert_eq!(rows(0), vec![0, 2]);
    assert_eq!(rows(1), vec![0, 1, 3]);
    assert_eq!(found.failures.len(), 1);
    assert!(found.failures[0].message.contains("seven"), "{:?}", found.failures);
}

#[test]
fn general_queries_are_settled_for_each_event_by_itself() {
    let set = detections(&[
        "SELECT DISTINCT user_name, upper(verb) AS loud FROM audit WHERE resource = 'pods' AND verb = 'get'",
        "SELECT upper(verb) AS loud, audit_id FROM audit WHERE resource = 'pods'",
    ]);
    let evaluator = Evaluator::new(&set.detections, &set.planner).expect("prepared");
    assert!(evaluator.explain(0).general && !evaluator.explain(1).general);
    let events = [event("get", "a"), event("list", "b"), event("get", "c")];
    let found = evaluator.evaluate(&batch_of(&events, evaluator.need()));
    let rows = batch_of(&events, &Arc::new(Need::everything())).plain().expect("all columns");
    let (matches, failures) = evaluator.confirm(&found.hits, &rows, |row| row);
    assert_eq!(failures, Vec::new());
    let of = |detection: usize| -> Vec<(usize, String)> {
        let own = matches.iter().filter(|found| found.detection == detection);
        own.map(|found| (found.row, format!("{:?}", found.computed))).collect()
    };
    let loud = |verb: &str| format!("[(\"loud\", String(\"{verb}\"))]");
    assert_eq!(of(0), vec![(0, loud("GET")), (2, loud("GET"))]);
    assert_eq!(of(1), vec![(0, loud("GET")), (1, loud("LIST")), (2, loud("GET"))]);
}

#[test]
fn the_need_names_the_bodies_that_are_read() {
    let set = detections(&[
        "SELECT * FROM audit WHERE resource = 'pods' AND verb IN ('create','update') AND privileged",
        "SELECT * FROM audit WHERE resource = 'secrets' AND user_name = 'x'",
        "SELECT * FROM audit WHERE verb = 'patch' AND host_network",
    ]);
    let evaluator = Evaluator::new(&set.detections, &set.planner).expect("prepared");
    let need = evaluator.need();
    let only = |column: Column| -> ColumnSet { [column].into_iter().collect() };
    assert_eq!(need.bodies.wanted("pods", "update"), only(Column::Privileged));
    assert_eq!(need.bodies.wanted("pods", "patch"), only(Column::HostNetwork));
    assert!(need.bodies.wanted("secrets", "get").is_empty() && need.bodies.wanted("pods", "delete").is_empty());
    assert!(need.late.contains(Column::Privileged) && !need.late.contains(Column::Images));
    assert!(!need.columns.any_body(), "bodies are read when somebody asks");
}
