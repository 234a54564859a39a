//! The engine against the plain meaning of SQL: each detection's conjuncts over all columns of all rows.

use std::sync::LazyLock;

use arrow::array::{Array, AsArray};

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
        .filter_map(|spec| set.events(spec))
        .flatten()
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
        let first = hits.hits.iter().filter(|hit| (hit.detection, hit.step) == (index, 0));
        let own: Vec<usize> = first.map(|hit| hit.row).collect();
        let expected = match detection.reads_alerts() {
            true => Vec::new(),
            false => expected(detection, planner, &everything),
        };
        assert_eq!(own, expected, "{}", detection.id);
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

/// The need of an evaluator with every body read as the batch is built.
fn eager(need: &Need) -> Arc<Need> {
    Arc::new(Need { columns: need.columns.union(need.late), bodies: need.bodies.clone(), late: ColumnSet::EMPTY })
}

mod late {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::{Value, json};

    use super::*;

    /// What is done to an event: what makes reading bodies late go wrong if anything does.
    #[derive(Debug, Clone)]
    enum Change {
        None,
        /// The body of another event, or its request.
        Bodies(Index),
        Request(Index),
        Actor(Index),
        Verb(&'static str),
        /// The text ends early.
        Cut(Index),
        /// A list of operations that puts the spec of another event.
        Patch(Index),
        /// Every key's first letter is written as an escape.
        Escapes,
        /// A member somewhere in a body is null or of another shape.
        Shape(Vec<Index>, u8),
        NoKind,
        Code(Option<i64>),
    }

    fn change() -> impl Strategy<Value = Change> {
        let verb = prop_oneof![Just("create"), Just("update"), Just("patch"), Just("delete"), Just("get")];
        prop_oneof![
            Just(Change::None),
            any::<Index>().prop_map(Change::Bodies),
            any::<Index>().prop_map(Change::Request),
            any::<Index>().prop_map(Change::Actor),
            verb.prop_map(Change::Verb),
            any::<Index>().prop_map(Change::Cut),
            any::<Index>().prop_map(Change::Patch),
            Just(Change::Escapes),
            (proptest::collection::vec(any::<Index>(), 1..5), 0u8..4).prop_map(|(path, to)| Change::Shape(path, to)),
            Just(Change::NoKind),
            prop_oneof![Just(None), Just(Some(200)), Just(Some(201)), Just(Some(403))].prop_map(Change::Code),
        ]
    }

    fn reshape(value: &mut Value, path: &[Index], to: u8) {
        let Some((first, rest)) = path.split_first() else {
            *value = [json!(null), json!([]), json!("text"), json!({"kind": "Pod"})][to as usize].clone();
            return;
        };
        match value {
            Value::Object(map) if !map.is_empty() => {
                let nth = first.index(map.len());
                if let Some(inner) = map.values_mut().nth(nth) {
                    reshape(inner, rest, to);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                let nth = first.index(items.len());
                reshape(&mut items[nth], rest, to);
            }
            other => reshape(other, &[], to),
        }
    }

    /// The text with the first letter of each key escaped.
    fn escaped(text: &str) -> String {
        let key = regex::Regex::new(r#"([{,])"([a-zA-Z])([a-zA-Z]*)":"#).expect("a pattern");
        key.replace_all(text, |found: &regex::Captures<'_>| {
            let letter = found[2].chars().next().map_or(0, u32::from);
            format!("{}\"\\u{letter:04x}{}\":", &found[1], &found[3])
        })
        .into_owned()
    }

    fn changed(event: &[u8], change: &Change) -> Vec<u8> {
        let parse = |event: &[u8]| serde_json::from_slice::<Value>(event).expect("events of tests are JSON");
        let other = |index: &Index| parse(&PACK.1[index.index(PACK.1.len())]);
        let mut value = parse(event);
        match change {
            Change::None => {}
            Change::Bodies(index) => {
                value["requestObject"] = other(index)["requestObject"].clone();
                value["responseObject"] = other(index)["responseObject"].clone();
            }
            Change::Request(index) => {
                value["objectRef"] = other(index)["objectRef"].clone();
                value["requestURI"] = other(index)["requestURI"].clone();
            }
            Change::Actor(index) => {
                value["user"] = other(index)["user"].clone();
                value["userAgent"] = other(index)["userAgent"].clone();
            }
            Change::Verb(verb) => value["verb"] = json!(verb),
            Change::Patch(index) => {
                let spec = other(index)["requestObject"]["spec"].clone();
                value["verb"] = json!("patch");
                value["requestObject"] = json!([{"op": "add", "path": "/spec", "value": spec}]);
            }
            Change::Shape(path, to) => {
                let body = if *to % 2 == 0 { "requestObject" } else { "responseObject" };
                reshape(&mut value[body], path, *to);
            }
            Change::NoKind => {
                for body in ["requestObject", "responseObject"] {
                    value[body].as_object_mut().map(|body| body.remove("kind"));
                }
            }
            Change::Code(code) => value["responseStatus"] = json!({"code": code, "message": "cannot impersonate"}),
            Change::Cut(index) => return event[..index.index(event.len())].to_vec(),
            // Only bodies: the walk over the top level knows keys by their bytes.
            Change::Escapes => {
                for body in ["requestObject", "responseObject"] {
                    if let Some(inner) = value.get(body).filter(|inner| inner.is_object()) {
                        let text = format!("\"{body}\":{inner}");
                        let event =
                            value.to_string().replace(&text, &format!("\"{body}\":{}", escaped(&inner.to_string())));
                        return event.into_bytes();
                    }
                }
            }
        }
        value.to_string().into_bytes()
    }

    static EVALUATOR: LazyLock<Evaluator> =
        LazyLock::new(|| Evaluator::new(&PACK.0.detections, &PACK.0.planner).expect("prepared"));

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn bodies_read_late_match_as_bodies_read_at_once(
            picks in proptest::collection::vec((any::<Index>(), change(), change()), 1..80)
        ) {
            let events: Vec<Vec<u8>> = picks
                .iter()
                .map(|(index, first, second)| {
                    let once = changed(&PACK.1[index.index(PACK.1.len())], first);
                    if serde_json::from_slice::<Value>(&once).is_ok() { changed(&once, second) } else { once }
                })
                .collect();
            let need = EVALUATOR.need();
            let (late, at_once) = (batch_of(&events, need), batch_of(&events, &eager(need)));
            prop_assert!(late.late.is_some() && at_once.late.is_none());
            let hits = EVALUATOR.evaluate(&late);
            prop_assert_eq!(&hits, &EVALUATOR.evaluate(&at_once));
            // An evaluator that remembers nothing says the same.
            let fresh = Evaluator::new(&PACK.0.detections, &PACK.0.planner).expect("prepared");
            prop_assert_eq!(&hits, &fresh.evaluate(&at_once));
            // What stays null was foretold.
            let bodies = late.late.as_ref().expect("it was asked for");
            for (row, shape) in bodies.shapes.iter().enumerate() {
                let fillable = bodies.fillable[*shape as usize];
                let foretold = need.late.union(crate::model::FORETOLD.into_iter().collect());
                for column in foretold.without(fillable).iter() {
                    let filled = at_once.column(column).is_some_and(|array| arrow::array::Array::is_valid(array, row));
                    prop_assert!(!filled, "{} of {}", column, String::from_utf8_lossy(&events[row]));
                }
            }
        }
    }
}

#[test]
fn a_condition_that_fails_on_a_signature_is_asked_of_each_row() {
    let set = detections(&[
        "SELECT * FROM audit WHERE resource = 'pods' AND CAST(user_name AS INT) > 5",
        "SELECT * FROM audit WHERE resource = 'pods' AND user_name LIKE 's%'",
    ]);
    let evaluator = Evaluator::new(&set.detections, &set.planner).expect("prepared");
    let by = |user: &str| String::from_utf8(event("get", "a")).expect("text").replace("jane", user).into_bytes();
    let events = [by("7"), by("seven"), by("3"), by("8")];
    // The second time from memory.
    for _ in 0..2 {
        let found = evaluator.evaluate(&batch_of(&events, evaluator.need()));
        let of = |detection: usize| -> Vec<usize> {
            found.hits.iter().filter(|hit| hit.detection == detection).map(|hit| hit.row).collect()
        };
        assert_eq!((of(0), of(1)), (vec![0, 3], vec![1]));
        assert_eq!(found.failures.len(), 1, "{:?}", found.failures);
    }
}
