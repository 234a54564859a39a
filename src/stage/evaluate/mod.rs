//! Runs every detection over a batch of events.
//!
//! Nothing is planned here. Each detection's condition arrives split into conjuncts; equal conjuncts of all detections
//! are one [`Condition`], evaluated at most once for a row:
//!
//! * `resource` and `verb` equalities put detections into buckets, and a bucket's detections see only its rows;
//! * a condition over one dictionary column is evaluated on the dictionary's values;
//! * cheap conditions come first, and dear ones are evaluated only on the rows still alive;
//! * a query that is more than a filter runs as a prepared plan, for each event that could match, by itself.
//!
//! A detection that fails (or panics) on a batch is reported for that batch and does not touch the others.

mod bits;
mod conjunct;
mod explain;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int32Type;

pub use explain::{ConditionReport, DetectionReport};

use self::bits::Bits;
use self::conjunct::{Answers, Condition, literals};
use crate::detection::Detection;
use crate::model::{Bodies, Column, ColumnSet, EventBatch, Match, Need, cell};
use crate::sql::{Conjunct, Planner, Shape, SqlError};

/// One event that a detection matched, or could match where the detection still needs the whole row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// Row of the batch.
    pub row: usize,
    /// Index of the detection.
    pub detection: usize,
    /// Which of its queries: the step of a sequence, else 0.
    pub step: usize,
}

/// A detection that could not be evaluated on some rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub detection: usize,
    /// What went wrong.
    pub message: String,
}

/// What came of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    /// In row order, then in the order of detections.
    pub hits: Vec<Hit>,
    pub failures: Vec<Failure>,
}

/// Names that an equality asks for; `None` where any will do.
type Names = Option<BTreeSet<String>>;

/// Outputs that a SELECT list computes.
type Computed = Vec<(Arc<str>, serde_json::Value)>;

/// Queries that name the same resources and verbs.
#[derive(Debug)]
struct Bucket {
    resources: Option<BTreeSet<String>>,
    verbs: Option<BTreeSet<String>>,
    probes: Vec<usize>,
}

/// A set of detections, prepared.
#[derive(Debug)]
pub struct Evaluator {
    detections: Vec<Arc<Detection>>,
    conditions: Vec<Condition>,
    /// Detection and step of each query. A detection's first query has the detection's index.
    probes: Vec<(usize, usize)>,
    /// By query: its conditions, cheap ones first.
    conjuncts: Vec<Vec<usize>>,
    buckets: Vec<Bucket>,
    need: Arc<Need>,
}

/// Where a detection's conjuncts send it, and what is left of them.
struct Routed<'a> {
    resources: Option<BTreeSet<String>>,
    verbs: Option<BTreeSet<String>>,
    rest: Vec<&'a Conjunct>,
}

impl Evaluator {
    /// Prepares detections; indices in [`Hit`] are those of `detections`.
    ///
    /// # Errors
    /// Where an expression that was planned cannot be made executable.
    pub fn new(detections: &[Arc<Detection>], planner: &Planner) -> Result<Evaluator, SqlError> {
        let mut conditions: Vec<Condition> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut conjuncts = Vec::with_capacity(detections.len());
        let mut buckets: BTreeMap<(Names, Names), Vec<usize>> = BTreeMap::new();
        let mut columns: ColumnSet = [Column::Resource, Column::Verb].into_iter().collect();
        if detections.iter().any(|detection| detection.memory.is_some()) {
            // Watermarks are made of the times of all events.
            columns = columns.union([Column::EventTime, Column::ClusterId].into_iter().collect());
        }
        let mut bodies = Bodies::default();
        let first = detections.iter().enumerate().map(|(index, detection)| (index, 0, &detection.plan));
        let further = detections.iter().enumerate().flat_map(|(index, detection)| {
            detection.probes().enumerate().skip(1).map(move |(step, plan)| (index, step, plan))
        });
        let mut probes = Vec::with_capacity(detections.len());
        for (probe, (detection, step, plan)) in first.chain(further).enumerate() {
            probes.push((detection, step));
            let routed = match detections[detection].reads_alerts() {
                // No event is its business.
                true => Routed { resources: Some(BTreeSet::new()), verbs: None, rest: Vec::new() },
                false => route(filter(&plan.shape)),
            };
            let mut own = Vec::with_capacity(routed.rest.len());
            let mut read = ColumnSet::EMPTY;
            for conjunct in routed.rest {
                let condition = match known.get(&conjunct.text) {
                    Some(condition) => *condition,
                    None => {
                        conditions.push(Condition::new(planner, conjunct)?);
                        known.insert(conjunct.text.clone(), conditions.len() - 1);
                        conditions.len() - 1
                    }
                };
                own.push(condition);
                read = read.union(conjunct.columns);
            }
            own.sort_by_key(|condition| conditions[*condition].cost);
            columns = columns.union(read);
            if read.any_body() {
                bodies.add(routed.resources.as_ref(), routed.verbs.as_ref(), read);
            }
            buckets.entry((routed.resources, routed.verbs)).or_default().push(probe);
            conjuncts.push(own);
        }
        let buckets =
            buckets.into_iter().map(|((resources, verbs), probes)| Bucket { resources, verbs, probes }).collect();
        let need = Arc::new(Need { columns, bodies });
        Ok(Evaluator { detections: detections.to_vec(), conditions, probes, conjuncts, buckets, need })
    }

    /// What a batch must hold for [`Evaluator::evaluate`].
    pub fn need(&self) -> &Arc<Need> {
        &self.need
    }

    /// The detections in index order.
    pub fn detections(&self) -> &[Arc<Detection>] {
        &self.detections
    }

    /// Finds the rows of a batch that detections match.
    pub fn evaluate(&self, batch: &EventBatch) -> Hits {
        let mut out = Hits::default();
        let rows = batch.rows.len();
        if rows == 0 {
            return out;
        }
        let routes = Routes::of(batch);
        let mut answers = Answers::new(batch, self.conditions.len());
        for bucket in &self.buckets {
            let members = routes.rows(bucket, rows);
            if members.is_empty() {
                continue;
            }
            for &probe in &bucket.probes {
                let conjuncts = &self.conjuncts[probe];
                let (detection, step) = self.probes[probe];
                if conjuncts.iter().any(|condition| answers.known_empty(*condition)) {
                    continue;
                }
                let matched = catch_unwind(AssertUnwindSafe(|| self.matched(conjuncts, &members, &mut answers)));
                match matched.unwrap_or_else(|panic| Err(panic_text(&panic))) {
                    Ok(alive) => out.hits.extend(alive.iter().map(|row| Hit { row, detection, step })),
                    Err(message) => {
                        let alive = self.one_by_one(conjuncts, &members, batch);
                        out.hits.extend(alive.iter().map(|row| Hit { row, detection, step }));
                        out.failures.push(Failure { detection, message });
                    }
                }
            }
        }
        out.hits.sort_unstable();
        out
    }

    fn matched(&self, conjuncts: &[usize], members: &Bits, answers: &mut Answers<'_>) -> Result<Bits, String> {
        let mut alive = members.clone();
        for &condition in conjuncts {
            answers.narrow(condition, &self.conditions[condition], &mut alive)?;
            if alive.is_empty() {
                break;
            }
        }
        Ok(alive)
    }

    /// After a failure: each row by itself, so that the one that fails does not hide the others.
    fn one_by_one(&self, conjuncts: &[usize], members: &Bits, batch: &EventBatch) -> Bits {
        let mut found = Bits::none(batch.rows.len());
        for row in members.iter() {
            let mut single = Bits::none(batch.rows.len());
            single.insert(row);
            // Answers of their own: a panic may have left the shared ones half written.
            let mut answers = Answers::new(batch, self.conditions.len());
            let matched = catch_unwind(AssertUnwindSafe(|| self.matched(conjuncts, &single, &mut answers)));
            if matched.is_ok_and(|alive| alive.is_ok_and(|alive| !alive.is_empty())) {
                found.insert(row);
            }
        }
        found
    }

    /// Turns hits into matches: settles those of queries that are more than a filter, and computes the outputs of
    /// SELECT lists. `rows` holds every column of the rows that were hit, and `row_of` says where each of them is in it.
    pub fn confirm(
        &self,
        hits: &[Hit],
        rows: &RecordBatch,
        row_of: impl Fn(usize) -> usize,
    ) -> (Vec<Match>, Vec<Failure>) {
        let mut matches = Vec::with_capacity(hits.len());
        let mut failures = Vec::new();
        for hit in hits {
            let row = row_of(hit.row);
            let single = rows.slice(row, 1);
            let settled = catch_unwind(AssertUnwindSafe(|| self.computed(hit, &single)));
            match settled.unwrap_or_else(|panic| Err(panic_text(&panic))) {
                Ok(Some(computed)) => matches.push(Match { detection: hit.detection, step: hit.step, row, computed }),
                Ok(None) => {}
                Err(message) => failures.push(Failure { detection: hit.detection, message }),
            }
        }
        (matches, failures)
    }

    /// The computed outputs for one event; `None` where its query gives no row.
    fn computed(&self, hit: &Hit, event: &RecordBatch) -> Result<Option<Computed>, String> {
        let detection = &self.detections[hit.detection];
        let plan = detection.probes().nth(hit.step).unwrap_or(&detection.plan);
        match &plan.shape {
            Shape::Filter { .. } => {
                let mut computed = Vec::with_capacity(plan.computed.len());
                for (name, expr) in &plan.computed {
                    let value = expr.evaluate(event).and_then(|value| value.into_array(1));
                    let value = value.map_err(|error| format!("output {name}: {error}"))?;
                    computed.push((Arc::clone(name), cell(&value, 0)));
                }
                Ok(Some(computed))
            }
            Shape::General { plan, .. } => {
                let Some(found) = plan.matches(event).map_err(|error| error.message)? else { return Ok(None) };
                let schema = found.schema();
                let outputs = schema.fields().iter().zip(found.columns());
                let own = outputs.filter(|(field, _)| Column::by_name(field.name()).is_none());
                Ok(Some(own.map(|(field, array)| (Arc::from(field.name().as_str()), cell(array, 0))).collect()))
            }
        }
    }
}

/// The conjuncts that a batch is narrowed with; for a general query those that its events must pass.
fn filter(shape: &Shape) -> &[Conjunct] {
    match shape {
        Shape::Filter { conjuncts } => conjuncts,
        Shape::General { candidates, .. } => candidates.as_deref().unwrap_or_default(),
    }
}

fn route(conjuncts: &[Conjunct]) -> Routed<'_> {
    let mut routed = Routed { resources: None, verbs: None, rest: Vec::new() };
    for conjunct in conjuncts {
        let place = match conjunct.columns.iter().next() {
            Some(Column::Resource) => Some((&mut routed.resources, Column::Resource)),
            Some(Column::Verb) => Some((&mut routed.verbs, Column::Verb)),
            _ => None,
        };
        match place {
            Some((place @ None, column)) => match literals(&conjunct.expr, column) {
                Some(values) => *place = Some(values.into_iter().collect()),
                None => routed.rest.push(conjunct),
            },
            _ => routed.rest.push(conjunct),
        }
    }
    routed
}

/// The rows of a batch by resource and verb.
struct Routes {
    resources: Vec<Option<String>>,
    verbs: Vec<Option<String>>,
    /// By resource and verb, null last in both.
    rows: Vec<Vec<u32>>,
}

impl Routes {
    fn of(batch: &EventBatch) -> Routes {
        let column = |column: Column| {
            let array = batch.column(column).and_then(|array| array.as_dictionary_opt::<Int32Type>());
            let array = array.expect("resource and verb are decoded always, as dictionaries");
            let values = array.values().as_string::<i32>();
            let names = values.iter().map(|name| name.map(str::to_owned)).chain([None]).collect::<Vec<_>>();
            (array.keys().clone(), names)
        };
        let (resource_keys, resources) = column(Column::Resource);
        let (verb_keys, verbs) = column(Column::Verb);
        let mut rows = vec![Vec::new(); resources.len() * verbs.len()];
        for row in 0..batch.rows.len() {
            let key = |keys: &arrow::array::Int32Array, names: usize| {
                if keys.is_null(row) { names - 1 } else { keys.value(row) as usize }
            };
            let place = key(&resource_keys, resources.len()) * verbs.len() + key(&verb_keys, verbs.len());
            rows[place].push(row as u32);
        }
        Routes { resources, verbs, rows }
    }

    fn rows(&self, bucket: &Bucket, rows: usize) -> Bits {
        if bucket.resources.is_none() && bucket.verbs.is_none() {
            return Bits::all(rows);
        }
        let wanted = |names: &[Option<String>], set: &Option<BTreeSet<String>>| -> Vec<usize> {
            let holds = |name: &Option<String>| match (set, name) {
                (None, _) => true,
                (Some(set), Some(name)) => set.contains(name),
                (Some(_), None) => false,
            };
            names.iter().enumerate().filter(|(_, name)| holds(name)).map(|(index, _)| index).collect()
        };
        let verbs = wanted(&self.verbs, &bucket.verbs);
        let mut bits = Bits::none(rows);
        for resource in wanted(&self.resources, &bucket.resources) {
            for verb in &verbs {
                self.rows[resource * self.verbs.len() + verb].iter().for_each(|row| bits.insert(*row as usize));
            }
        }
        bits
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the evaluation panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

#[cfg(test)]
mod tests;
