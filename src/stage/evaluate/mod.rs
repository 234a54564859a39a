//! Runs every detection over a batch of events.
//!
//! Nothing is planned here. Each detection's condition arrives split into conjuncts; equal conjuncts of all detections
//! are one [`Condition`], evaluated at most once for a row:
//!
//! * conditions over what repeats (the kind of request, then who asks) are evaluated once for each signature, and the
//!   detections that are left are remembered for the next event with the same one;
//! * bodies are read only for rows of which some detection may still be true, and only the columns that it reads; what
//!   a body can tell at all is known by its kind, and a condition that needs more rules the row out unread;
//! * a condition that compares one dictionary column with texts is a look-up of its keys; others are programs of ours
//!   ([`crate::sql::Program`]), decided row by row, and what those do not know is left to DataFusion;
//! * cheap conditions come first, and each is decided only for the rows still alive;
//! * a query that is more than a filter runs as a prepared plan, for each event that could match, by itself.
//!
//! A detection that fails (or panics) on a batch is reported for that batch and does not touch the others.

mod bits;
mod conjunct;
mod explain;
mod heads;
mod possible;
mod recall;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, RecordBatch};

pub use explain::{ConditionReport, DetectionReport};

use self::bits::Bits;
use self::conjunct::{Answers, Condition, Tier, literals};
use self::recall::Recalls;
use self::table::Table;
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
    /// It panicked or went beyond a bound: it harms others, which a value that cannot be cast does not.
    pub harmful: bool,
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

/// The same for all rows of a batch.
type Outputs = Vec<(Arc<str>, ArrayRef)>;

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
    /// What signatures of requests are made of, and those of actors besides.
    request_columns: Vec<Column>,
    actor_columns: Vec<Column>,
    recalls: Recalls,
    /// By detection: it is not evaluated any more.
    quarantined: Vec<AtomicBool>,
    any_quarantined: AtomicBool,
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
        let late = columns.intersection(ColumnSet::bodies());
        let need = Arc::new(Need { columns: columns.without(late), bodies, late });
        let read_in = |tier: Tier| {
            let own = conditions.iter().filter(|condition| condition.tier == tier);
            own.fold(ColumnSet::EMPTY, |all, condition| all.union(condition.columns))
        };
        let routing = [Column::Resource, Column::Verb].into_iter().collect();
        let request_columns = read_in(Tier::Request).union(routing);
        let actor_columns = read_in(Tier::Actor).without(request_columns);
        Ok(Evaluator {
            detections: detections.to_vec(),
            request_columns: request_columns.iter().collect(),
            actor_columns: actor_columns.iter().collect(),
            recalls: Recalls::default(),
            quarantined: detections.iter().map(|_| AtomicBool::new(false)).collect(),
            any_quarantined: AtomicBool::new(false),
            conditions,
            probes,
            conjuncts,
            buckets,
            need,
        })
    }

    /// What a batch must hold for [`Evaluator::evaluate`].
    pub fn need(&self) -> &Arc<Need> {
        &self.need
    }

    /// The detections in index order.
    pub fn detections(&self) -> &[Arc<Detection>] {
        &self.detections
    }

    /// Evaluates a detection no more; batches that are under way may still be.
    pub fn quarantine(&self, detection: usize) {
        if let Some(one) = self.quarantined.get(detection) {
            one.store(true, Ordering::Relaxed);
            self.any_quarantined.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a detection is not evaluated.
    pub fn is_quarantined(&self, detection: usize) -> bool {
        self.quarantined.get(detection).is_some_and(|one| one.load(Ordering::Relaxed))
    }

    /// Finds the rows of a batch that detections match.
    pub fn evaluate(&self, batch: &EventBatch) -> Hits {
        let mut out = Hits::default();
        if batch.rows.is_empty() {
            return out;
        }
        let mut recall = self.recalls.take(self.conditions.len());
        let mut alive = self.possible(batch, &mut recall);
        if self.any_quarantined.load(Ordering::Relaxed) {
            let quarantined = self.probes.iter().zip(&mut alive).filter(|((one, _), _)| self.is_quarantined(*one));
            quarantined.for_each(|(_, rows)| rows.clear());
        }
        for tier in [Tier::Event, Tier::Body, Tier::Object] {
            self.round(tier, batch, &recall.distrusted, &mut alive, &mut out.failures);
        }
        self.recalls.give_back(recall);
        for ((detection, step), rows) in self.probes.iter().copied().zip(&alive) {
            out.hits.extend(rows.iter().map(|row| Hit { row: *row as usize, detection, step }));
        }
        out.hits.sort_unstable();
        out
    }

    /// The conditions of a query that are evaluated in a tier, cheap ones first.
    fn own(&self, probe: usize, tier: Tier, distrusted: &[bool]) -> impl Iterator<Item = usize> {
        self.conjuncts[probe].iter().copied().filter(move |condition| {
            // What failed as a signature's is asked of each row, as others of the header are.
            let own = self.conditions[*condition].tier;
            (if distrusted[*condition] { own.max(Tier::Event) } else { own }) == tier
        })
    }

    /// Narrows the rows of each query by its conditions of one tier.
    fn round(
        &self,
        tier: Tier,
        batch: &EventBatch,
        distrusted: &[bool],
        alive: &mut [Vec<u32>],
        failures: &mut Vec<Failure>,
    ) {
        let mut asking: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut wanted: Vec<Option<ColumnSet>> = vec![None; batch.rows.len()];
        for (probe, rows) in alive.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let conditions: Vec<usize> = self.own(probe, tier, distrusted).collect();
            if conditions.is_empty() {
                continue;
            }
            let columns = conditions.iter().map(|condition| self.conditions[*condition].columns);
            let columns = columns.fold(ColumnSet::EMPTY, ColumnSet::union);
            for row in rows {
                let known = &mut wanted[*row as usize];
                *known = Some(known.unwrap_or(ColumnSet::EMPTY).union(columns));
            }
            asking.push((probe, conditions));
        }
        if asking.is_empty() {
            return;
        }
        let wanted: Vec<(usize, ColumnSet)> =
            wanted.into_iter().enumerate().filter_map(|(row, columns)| Some((row, columns?))).collect();
        let mut places = vec![0u32; batch.rows.len()];
        wanted.iter().enumerate().for_each(|(place, (row, _))| places[*row] = place as u32);
        let mut table = Table::of(batch, wanted.iter().map(|(row, _)| *row as u32).collect());
        if let (Tier::Body | Tier::Object, Some(late)) = (tier, &batch.late) {
            table = table.with(late.reader.read(&wanted));
        }
        let mut answers = Answers::new(&table, self.conditions.len());
        for (probe, conditions) in asking {
            let mut members = Bits::none(table.len());
            alive[probe].iter().for_each(|row| members.insert(places[*row as usize] as usize));
            let matched = catch_unwind(AssertUnwindSafe(|| self.matched(&conditions, &members, &mut answers)));
            let harmful = matched.is_err();
            let left = matched.unwrap_or_else(|panic| Err(panic_text(&panic))).unwrap_or_else(|message| {
                let detection = self.probes[probe].0;
                if !failures.iter().any(|failure| failure.detection == detection) {
                    failures.push(Failure { detection, message, harmful });
                }
                self.one_by_one(&conditions, &members, &table)
            });
            alive[probe] = left.iter().map(|place| wanted[place].0 as u32).collect();
        }
    }

    fn matched(&self, conditions: &[usize], members: &Bits, answers: &mut Answers<'_, '_>) -> Result<Bits, String> {
        if conditions.iter().any(|condition| answers.known_empty(*condition)) {
            return Ok(Bits::none(0));
        }
        let mut alive = members.clone();
        for &condition in conditions {
            answers.narrow(condition, &self.conditions[condition], &mut alive)?;
            if alive.is_empty() {
                break;
            }
        }
        Ok(alive)
    }

    /// After a failure: each row by itself, so that the one that fails does not hide the others.
    fn one_by_one(&self, conditions: &[usize], members: &Bits, table: &Table<'_>) -> Bits {
        let mut found = Bits::none(table.len());
        for row in members.iter() {
            // A table of its own, as a dictionary also holds the value that fails; and answers of its own, as a panic may
            // have left the shared ones half written.
            let alone = table.row(row);
            let mut answers = Answers::new(&alone, self.conditions.len());
            let matched = catch_unwind(AssertUnwindSafe(|| self.matched(conditions, &Bits::all(1), &mut answers)));
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
        let mut whole: HashMap<(usize, usize), Option<Outputs>> = HashMap::new();
        for hit in hits.iter().filter(|hit| !self.is_quarantined(hit.detection)) {
            let row = row_of(hit.row);
            let outputs = whole.entry((hit.detection, hit.step)).or_insert_with(|| self.outputs(hit, rows));
            if let Some(outputs) = outputs {
                let computed = outputs.iter().map(|(name, array)| (Arc::clone(name), cell(array, row))).collect();
                matches.push(Match { detection: hit.detection, step: hit.step, row, computed });
                continue;
            }
            let single = rows.slice(row, 1);
            let settled = catch_unwind(AssertUnwindSafe(|| self.computed(hit, &single)));
            match settled.unwrap_or_else(|panic| Err((panic_text(&panic), true))) {
                Ok(Some(computed)) => {
                    matches.push(Match { detection: hit.detection, step: hit.step, row, computed });
                }
                Ok(None) => {}
                Err((message, harmful)) => failures.push(Failure { detection: hit.detection, message, harmful }),
            }
        }
        (matches, failures)
    }

    /// The computed outputs for all rows at once; `None` where each row has to be asked by itself: the query is more
    /// than a filter, or an output fails on some row.
    fn outputs(&self, hit: &Hit, rows: &RecordBatch) -> Option<Outputs> {
        let detection = &self.detections[hit.detection];
        let plan = detection.probes().nth(hit.step)?;
        if matches!(plan.shape, Shape::General { .. }) {
            return None;
        }
        let evaluate = || {
            let each = plan.computed.iter().map(|(name, expr)| {
                let value = expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows())).ok()?;
                Some((Arc::clone(name), value))
            });
            each.collect()
        };
        catch_unwind(AssertUnwindSafe(evaluate)).ok()?
    }

    /// The computed outputs for one event; `None` where its query gives no row.
    fn computed(&self, hit: &Hit, event: &RecordBatch) -> Result<Option<Computed>, (String, bool)> {
        let detection = &self.detections[hit.detection];
        let plan = detection.probes().nth(hit.step).unwrap_or(&detection.plan);
        match &plan.shape {
            Shape::Filter { .. } => {
                let mut computed = Vec::with_capacity(plan.computed.len());
                for (name, expr) in &plan.computed {
                    let value = expr.evaluate(event).and_then(|value| value.into_array(1));
                    let value = value.map_err(|error| (format!("output {name}: {error}"), false))?;
                    computed.push((Arc::clone(name), cell(&value, 0)));
                }
                Ok(Some(computed))
            }
            Shape::General { plan, .. } => {
                let Some(found) = plan.matches(event).map_err(|error| (error.message, error.harmful))? else {
                    return Ok(None);
                };
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the evaluation panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))
}

#[cfg(test)]
mod tests;
