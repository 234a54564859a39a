//! Programs against DataFusion: the same condition over the same rows gives the same answer.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};

use super::*;
use crate::detection::{DetectionSet, files, load};
use crate::flow::work::{chunk_of, decode};
use crate::model::{ColumnSet, EventBatch, Lane, Need, plain_schema};
use crate::sql::{Conjunct, FUNCTIONS, Planner, Shape};
use crate::stage::format::{FormatOptions, Formats};

fn batch(events: &[Vec<u8>]) -> EventBatch {
    let lane = Lane { name: "test".into(), fallback_cluster: "test".into(), cluster: None };
    let mut formats = Formats::new(FormatOptions::default());
    decode(&mut formats, std::sync::Arc::new(Need::everything()), std::sync::Arc::from([]), &chunk_of(events, lane))
}

/// Events of the shipped detections' tests; not all, as DataFusion takes long over them. The engine's own test has all.
fn events(set: &DetectionSet) -> Vec<Vec<u8>> {
    let cases = set.detections.iter().flat_map(|detection| &detection.tests);
    let specs = cases.flat_map(|case| &case.events).filter_map(|spec| set.events(spec)).flatten();
    specs.step_by(6).map(|event| event.to_string().into_bytes()).collect()
}

fn by_datafusion(planner: &Planner, expr: &Expr, rows: &RecordBatch) -> Vec<bool> {
    let physical = planner.physical(expr, &plain_schema(ColumnSet::all())).expect("planned");
    let answers = physical.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).expect("evaluates");
    let answers = answers.as_boolean();
    (0..rows.num_rows()).map(|row| answers.is_valid(row) && answers.value(row)).collect()
}

fn by_program(program: &Program, column: impl Fn(Column) -> Option<ArrayRef>, rows: usize) -> Vec<bool> {
    let arrays: Vec<(Column, ArrayRef)> =
        program.columns.iter().map(|name| (*name, column(*name).expect("every column was decoded"))).collect();
    let of = |name: Column| arrays.iter().find(|(known, _)| *known == name).map(|(_, array)| array);
    let bound = program.over(|name| of(name).ok_or_else(|| "missing".to_owned())).expect("laid out as expected");
    (0..rows).map(|row| bound.holds(row)).collect()
}

fn conjuncts(planner: &Planner, condition: &str) -> Vec<Conjunct> {
    let plan = planner.plan_event(&format!("SELECT * FROM audit WHERE {condition}"));
    match plan.unwrap_or_else(|error| panic!("{condition}: {error}")).shape {
        Shape::Filter { conjuncts } => conjuncts,
        Shape::General { .. } => panic!("{condition} is a filter"),
    }
}

/// Compares both, over columns as a batch lays them out and over plain ones. Returns whether there is a program.
fn agrees(planner: &Planner, conjunct: &Conjunct, batch: &EventBatch, plain: &RecordBatch) -> bool {
    let Some(program) = Program::of(&conjunct.expr) else { return false };
    let expected = by_datafusion(planner, &conjunct.expr, plain);
    let laid_out = by_program(&program, |column| batch.column(column).cloned(), batch.rows.len());
    let differing = (0..expected.len()).find(|row| expected[*row] != laid_out[*row]);
    if let Some(row) = differing {
        panic!("row {row}: {} is {} by DataFusion; {}", conjunct.text, expected[row], batch_text(batch, row));
    }
    let all_plain = by_program(&program, |column| plain.column_by_name(column.name()).cloned(), plain.num_rows());
    assert_eq!(all_plain, expected, "{}", conjunct.text);
    true
}

fn batch_text(batch: &EventBatch, row: usize) -> String {
    String::from_utf8_lossy(&batch.text(row)).into_owned()
}

#[test]
fn every_shipped_condition_means_what_datafusion_says() {
    let set = load(&files::shipped()).set;
    let batch = batch(&events(&set));
    let plain = batch.plain().expect("all columns");
    let mut left = Vec::new();
    let mut all = 0;
    let mut seen = std::collections::HashSet::new();
    for detection in set.detections.iter().filter(|detection| !detection.reads_alerts()) {
        for plan in detection.probes() {
            let (Shape::Filter { conjuncts } | Shape::General { candidates: Some(conjuncts), .. }) = &plan.shape else {
                continue;
            };
            for conjunct in conjuncts.iter().filter(|conjunct| seen.insert(conjunct.text.clone())) {
                all += 1;
                if !agrees(&set.planner, conjunct, &batch, &plain) {
                    left.push(format!("{}: {}", detection.id, conjunct.text));
                }
            }
        }
    }
    // What is left runs as well, but slowly.
    assert!(left.len() * 100 <= all, "{} of {all} conditions have no program:\n{}", left.len(), left.join("\n"));
}

#[test]
fn functions_and_operators_mean_what_datafusion_says() {
    let set = load(&files::shipped()).set;
    let batch = batch(&events(&set));
    let plain = batch.plain().expect("all columns");
    let further = [
        "user_name LIKE '%:%-%' OR name NOT LIKE 'a_%'",
        "user_agent ILIKE '%KUBECTL%' AND user_agent NOT ILIKE 'Mozilla%'",
        "name IN ('admin', NULL)",
        "(name NOT IN ('admin', 'x', 'y', 'z', NULL)) IS NOT TRUE",
        "response_code IN (200, 201, 403) AND response_code <> 201",
        "response_code BETWEEN 200 AND 299",
        "name >= 'm' AND name < namespace",
        "user_name <> effective_user OR impersonated_user IS NOT NULL",
        "coalesce(impersonated_user, user_name) LIKE 'system:%'",
        "split_part(user_name, ':', 3) = 'kube-system' OR split_part(user_name, ':', -1) = 'default'",
        "split_part(user_name, ':', 9) = ''",
        "user_groups[1] = 'system:masters' OR array_element(user_groups, -1) = 'system:authenticated'",
        "array_element(user_groups, 7) IS NULL",
        "array_to_string(user_groups, ',') LIKE '%masters,system%'",
        "concat_ws('/', namespace, name, subresource) LIKE '%/%/%'",
        "lower(user_agent) LIKE 'kubectl%' OR upper(verb) = 'GET'",
        "regexp_replace(uri, '[0-9]+', 'N', 'g') LIKE '%N%' OR regexp_replace(uri, 'API', 'x', 'i') LIKE '/x%'",
        "cardinality(user_groups) > 2 OR cardinality(containers) = 0",
        "cardinality(host_ports) >= 1 OR array_has(host_ports, 80)",
        "array_has(images, 'nginx') OR array_has(user_groups, 'system:masters')",
        "object->>'kind' = 'Pod' OR json_get_str(object, 'metadata', 'name') LIKE 'a%'",
        "json_get_str(object, 'spec', 'containers', 0, 'image') LIKE '%/%'",
        "json_get_int(object, 'spec', 'replicas') > 1 OR json_get_bool(object, 'spec', 'hostNetwork')",
        "json_contains(object, 'spec') OR json_contains(object, 'metadata', 'labels')",
        "json_contains(object, 'spec') = false",
        "privileged IS NOT TRUE AND host_pid IS NULL",
        "(privileged OR host_network) IS UNKNOWN",
        "NOT (privileged AND truncated)",
        "CASE WHEN dry_run THEN name ELSE namespace END = 'default'",
        "starts_with(user_name, 'system:') OR starts_with(name, '100%_')",
        "object ~ '\"kind\":\\s*\"Pod\"' OR user_agent ~* 'GO-http' OR uri !~ '^/api'",
        "any_container(containers, 'run_as_user', 0) OR any_container(containers, 'privileged', false)",
        "all_in(user_groups, 'system:authenticated', 'system:masters') OR all_in(images, 'nginx') IS NULL",
        "any_in(user_groups, 'system:masters', NULL) IS NULL",
    ];
    let examples = FUNCTIONS.iter().filter(|function| function.signature.ends_with("boolean"));
    let examples: Vec<&str> = examples.map(|function| function.example).chain(further).collect();
    let mut without = Vec::new();
    for text in examples {
        for conjunct in conjuncts(&set.planner, text) {
            if !agrees(&set.planner, &conjunct, &batch, &plain) {
                without.push(conjunct.text);
            }
        }
    }
    assert!(without.len() <= 2, "no program for:\n{}", without.join("\n"));
}
