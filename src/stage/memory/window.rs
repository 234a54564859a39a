//! Sliding windows over event time: a query that is asked again at every hop, and findings where it begins to be true.
//!
//! **Hops.** Time is cut into panes of the length `every`, at its multiples since the epoch in UTC. At each hop, the end
//! E of a pane, the query sees the rows of the time from E - `size` up to, but without, E: an event that happens exactly
//! at a hop belongs to the next pane. However late the process runs, all hops are gone through in order; those at which
//! nothing came in and nothing fell out give the answer of the hop before and are not evaluated.
//!
//! **Findings.** The rows of an answer are told apart by the values of the detection's entity: the key. A finding is the
//! rising edge of a key: a hop at which the answer has a row for it while it had none at the hop before. It goes on while
//! that stays so, and also where it comes again within `suppress` of the last hop at which it was so; only new events
//! make it be told again. Its identity, the key and the hop of the edge, is a function of the set of events alone.
//!
//! **What is not evaluated.** Where groups of events are independent of each other and need a number of events (a *floor*:
//! `HAVING count(*) >= 10`), only the rows of groups that have so many are handed to the query.

mod edges;
mod ring;
mod saved;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use self::edges::{Edges, Seen};
use self::ring::{Chunk, Ring, equal, hashes};
use super::{Entry, Field, Recall, Size};
use crate::detection::WindowSpec;
use crate::model::{Column, ColumnSet, Finding, KeptRows, cell, time_text};
use crate::sql::{Span, WindowPlan};

/// Most events that a finding carries as evidence; the newest are kept.
const EVIDENCE_MAX: usize = 1000;
/// Most rows that are held for one detection in one cluster.
pub const ROWS_MAX: u64 = 1_000_000;
/// Most rows of one answer.
const ANSWER_MAX: usize = 10_000;
/// Most failures that are kept until somebody asks.
const FAILURES_MAX: usize = 100;
/// How many events of the window a row of the answer stands for, among what is computed.
pub const EVENTS: &str = "window_events";

/// A detection with a window, ready to be remembered for any number of clusters.
#[derive(Debug)]
pub struct WindowRule {
    detection: usize,
    plan: Arc<WindowPlan>,
    size_us: i64,
    every_us: i64,
    suppress_us: i64,
    /// By entity column that can differ within a cluster: its place in the answer.
    key: Vec<usize>,
    columns: ColumnSet,
    rows_max: u64,
}

impl WindowRule {
    /// The detection of this index in its set. `entity` names outputs of the query, or columns that are among them;
    /// columns of the cluster need not be. `suppress_us` joins edges that come so soon after each other. Of each event
    /// are kept what the query reads and `evidence`, which alerts are made of.
    ///
    /// # Errors
    /// Says which entity the query does not give, or what is wrong with the window's lengths.
    pub fn new(
        detection: usize,
        plan: Arc<WindowPlan>,
        spec: &WindowSpec,
        entity: &[Field],
        suppress_us: i64,
        evidence: ColumnSet,
    ) -> Result<WindowRule, String> {
        let every_us = spec.hop()?.us();
        let mut key = Vec::new();
        for field in entity {
            match plan.place(&field.name) {
                Some(place) => key.push(place),
                None if field.column.is_some_and(Column::of_cluster) => {}
                None => return Err(format!("the entity `{}` is not in the SELECT list of the query", field.name)),
            }
        }
        let of_sides = plan.sides.iter().flatten().map(|(_, column)| *column);
        let columns = plan.columns.union(evidence).union(of_sides.chain([Column::EventTime]).collect());
        let size_us = spec.size.us();
        Ok(WindowRule { detection, plan, size_us, every_us, suppress_us, key, columns, rows_max: ROWS_MAX })
    }

    /// The end of the pane that an event of this time belongs to.
    fn pane_end(&self, event_us: i64) -> i64 {
        (event_us.div_euclid(self.every_us) + 1).saturating_mul(self.every_us)
    }
}

/// The memory of one detection with a window in one cluster.
#[derive(Debug)]
pub struct Window {
    rule: Arc<WindowRule>,
    cluster_id: Arc<str>,
    ring: Ring,
    edges: Edges,
    /// The last hop that was evaluated or is known to be like the one before.
    done_us: Option<i64>,
    shed: u64,
    failures: Vec<String>,
}

/// One key of an answer.
#[derive(Debug)]
struct Found {
    values: Vec<Value>,
    /// Its rows in the answer.
    rows: Vec<usize>,
    /// The newest events that it stands for: place of the chunk, row.
    evidence: VecDeque<(usize, usize)>,
    events: u64,
    /// The number after that of its newest event.
    next: u64,
}

impl Window {
    pub fn new(rule: Arc<WindowRule>, cluster_id: Arc<str>) -> Window {
        let ring = empty_ring(&rule);
        Window { rule, cluster_id, ring, edges: Edges::default(), done_us: None, shed: 0, failures: Vec::new() }
    }

    fn fail(&mut self, what: String) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(what);
        }
    }

    /// The next hop at which the answer can change.
    fn next_hop(&self) -> Option<i64> {
        let Some(oldest) = self.ring.oldest_end() else {
            // Nothing is left but keys, which are forgotten in time.
            let forgotten = self.rule.pane_end(self.edges.last_us()?.saturating_add(self.rule.suppress_us));
            return Some(self.done_us.map_or(forgotten, |done| forgotten.max(done + self.rule.every_us)));
        };
        let Some(done) = self.done_us else { return Some(oldest) };
        if self.rule.plan.moves && oldest <= done {
            return Some(done + self.rule.every_us);
        }
        let leaves = oldest.saturating_add(self.rule.size_us);
        Some(self.ring.end_after(done).map_or(leaves, |comes| comes.min(leaves)))
    }

    /// Answers the query at a hop.
    fn evaluate(&mut self, end_us: i64, out: &mut Vec<Finding>) {
        let closed =
            if self.ring.newest_end().is_some_and(|newest| newest <= end_us) { self.ring.close() } else { Ok(()) };
        if let Err(error) = closed {
            self.fail(error);
        }
        self.ring.expire(end_us.saturating_sub(self.rule.size_us));
        self.done_us = Some(end_us);
        match self.answer(end_us) {
            Ok(answer) => self.tell(end_us, answer.as_ref(), out),
            Err(error) => self.fail(format!("the window up to {}: {error}", time_text(end_us))),
        }
    }

    fn answer(&self, end_us: i64) -> Result<Option<RecordBatch>, String> {
        let batches = self.ring.batches(end_us);
        if batches.is_empty() {
            return Ok(None);
        }
        let span = Span { start_us: end_us - self.rule.size_us, end_us };
        let answer = self.rule.plan.run(batches, span).map_err(|error| error.to_string())?;
        match answer {
            Some(answer) if answer.num_rows() > ANSWER_MAX => {
                Err(format!("the answer has {} rows; at most {ANSWER_MAX} are allowed", answer.num_rows()))
            }
            answer => Ok(answer),
        }
    }

    /// Compares an answer with the one of the hop before.
    fn tell(&mut self, end_us: i64, answer: Option<&RecordBatch>, out: &mut Vec<Finding>) {
        // All hops since the last evaluation had its answer.
        self.edges.begin(end_us, end_us - self.rule.every_us, self.rule.suppress_us);
        if let Some(answer) = answer {
            let mut found = found(&self.rule, answer);
            let chunks: Vec<&Chunk> = self.ring.chunks(end_us).collect();
            evidence(&self.rule.plan.sides, answer, &chunks, &mut found);
            let groups = groups(&self.rule.plan.sides, answer);
            for (identity, found) in &found {
                let seen = Seen {
                    groups: found.rows.iter().filter_map(|row| groups.get(*row).copied()).collect(),
                    next: found.next,
                };
                if let Some(edge_us) = self.edges.on(identity, seen) {
                    out.extend(self.finding(end_us, edge_us, answer, found, &chunks));
                }
            }
        }
        self.edges.end();
    }

    /// `None` where no event is left that could be shown.
    fn finding(
        &self,
        end_us: i64,
        edge_us: i64,
        answer: &RecordBatch,
        found: &Found,
        chunks: &[&Chunk],
    ) -> Option<Finding> {
        let first = *found.rows.first()?;
        let names = self.rule.plan.output.iter().zip(answer.columns());
        let mut computed: Vec<(Arc<str>, Value)> =
            names.map(|(name, column)| (Arc::from(name.as_str()), cell(column, first))).collect();
        if !self.rule.plan.output.iter().any(|name| name == EVENTS) {
            computed.push((EVENTS.into(), found.events.into()));
        }
        let mut identity = found.values.clone();
        identity.push(time_text(edge_us).into());
        let evidence = gathered(chunks, &found.evidence)?;
        let (detection, cluster_id) = (self.rule.detection, Arc::clone(&self.cluster_id));
        Some(Finding { detection, cluster_id, identity, at_us: end_us, computed, evidence })
    }

    /// Makes room where too much is held.
    fn shed(&mut self) {
        while self.ring.rows() > self.rule.rows_max {
            let end = self.ring.oldest_end().unwrap_or_default();
            let rows = self.ring.drop_oldest();
            if rows == 0 {
                break;
            }
            self.shed += rows;
            let start = time_text(end - self.rule.every_us);
            let (end, max) = (time_text(end), self.rule.rows_max);
            self.fail(format!("{rows} events from {start} to {end} were let go: more than {max} were held"));
        }
    }
}

fn empty_ring(rule: &WindowRule) -> Ring {
    let groups = rule.plan.groups.as_ref().map(|groups| (groups.by.as_slice(), groups.at_least));
    Ring::new(rule.columns, groups)
}

/// The keys of an answer in a fixed order, each with its rows in a fixed order.
fn found(rule: &WindowRule, answer: &RecordBatch) -> BTreeMap<String, Found> {
    let mut keys: BTreeMap<String, Found> = BTreeMap::new();
    let mut texts = Vec::with_capacity(answer.num_rows());
    for row in 0..answer.num_rows() {
        let values: Vec<Value> = answer.columns().iter().map(|column| cell(column, row)).collect();
        let key: Vec<Value> = rule.key.iter().filter_map(|place| values.get(*place).cloned()).collect();
        texts.push(Value::from(values).to_string());
        let identity = Value::from(key.clone()).to_string();
        let found = keys.entry(identity).or_insert_with(|| Found {
            values: key,
            rows: Vec::new(),
            evidence: VecDeque::new(),
            events: 0,
            next: 0,
        });
        found.rows.push(row);
    }
    for found in keys.values_mut() {
        found.rows.sort_by(|left, right| texts.get(*left).cmp(&texts.get(*right)));
    }
    keys
}

/// The outputs of a side.
fn outputs<'a>(side: &[(usize, Column)], answer: &'a RecordBatch) -> Vec<&'a ArrayRef> {
    side.iter().filter_map(|(output, _)| answer.columns().get(*output)).collect()
}

/// By row of an answer: a number for the events that it stands for.
fn groups(sides: &[Vec<(usize, Column)>], answer: &RecordBatch) -> Vec<u64> {
    let columns: Vec<&ArrayRef> = sides.iter().flat_map(|side| outputs(side, answer)).collect();
    hashes(&columns, answer.num_rows())
}

/// Finds the events of each key.
fn evidence(
    sides: &[Vec<(usize, Column)>],
    answer: &RecordBatch,
    chunks: &[&Chunk],
    found: &mut BTreeMap<String, Found>,
) {
    let mut found: Vec<&mut Found> = found.values_mut().collect();
    let mut owner = vec![0; answer.num_rows()];
    for (index, key) in found.iter().enumerate() {
        key.rows.iter().filter_map(|row| owner.get_mut(*row).map(|slot| *slot = index)).for_each(drop);
    }
    let sides: Vec<Side<'_>> = sides.iter().map(|side| Side::new(side, answer)).collect();
    for (place, chunk) in chunks.iter().enumerate() {
        let hashed: Vec<(Vec<&ArrayRef>, Vec<u64>)> = sides.iter().map(|side| side.hashes(&chunk.rows)).collect();
        for row in 0..chunk.rows.num_rows() {
            let mut hit = |index: usize| {
                if let Some(key) = found.get_mut(index) {
                    key.add(place, row, chunk.first + row as u64);
                }
            };
            if sides.is_empty() {
                (0..owner.len()).filter_map(|answer_row| owner.get(answer_row)).for_each(|index| hit(*index));
            }
            for (side, (columns, hashes)) in sides.iter().zip(&hashed) {
                let rows = hashes.get(row).and_then(|hash| side.rows.get(hash)).into_iter().flatten();
                rows.filter(|answer_row| side.fits(**answer_row, columns, row))
                    .filter_map(|answer_row| owner.get(*answer_row))
                    .for_each(|index| hit(*index));
            }
        }
    }
}

/// The rows of an answer, found by what their events have in common.
struct Side<'a> {
    places: &'a [(usize, Column)],
    outputs: Vec<&'a ArrayRef>,
    rows: HashMap<u64, Vec<usize>>,
}

impl<'a> Side<'a> {
    fn new(places: &'a [(usize, Column)], answer: &'a RecordBatch) -> Side<'a> {
        let outputs = outputs(places, answer);
        let mut rows: HashMap<u64, Vec<usize>> = HashMap::new();
        for (row, hash) in hashes(&outputs, answer.num_rows()).into_iter().enumerate() {
            rows.entry(hash).or_default().push(row);
        }
        Side { places, outputs, rows }
    }

    /// The columns of a chunk that are compared, and the numbers of its rows.
    fn hashes<'c>(&self, rows: &'c RecordBatch) -> (Vec<&'c ArrayRef>, Vec<u64>) {
        let columns: Vec<&ArrayRef> =
            self.places.iter().filter_map(|(_, column)| rows.column_by_name(column.name())).collect();
        let hashes = hashes(&columns, rows.num_rows());
        (columns, hashes)
    }

    fn fits(&self, answer_row: usize, columns: &[&ArrayRef], row: usize) -> bool {
        columns.iter().zip(&self.outputs).all(|(column, output)| equal(column, row, output, answer_row))
    }
}

impl Found {
    fn add(&mut self, chunk: usize, row: usize, number: u64) {
        if self.evidence.back() == Some(&(chunk, row)) {
            return;
        }
        if self.evidence.len() >= EVIDENCE_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back((chunk, row));
        self.events += 1;
        self.next = number + 1;
    }
}

/// Rows of chunks as one batch.
fn gathered(chunks: &[&Chunk], places: &VecDeque<(usize, usize)>) -> Option<KeptRows> {
    let places: Vec<(usize, usize)> = places.iter().copied().collect();
    let schema = chunks.first().filter(|_| !places.is_empty())?.rows.schema();
    let columns = (0..schema.fields().len()).map(|column| {
        let arrays: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.rows.column(column).as_ref()).collect();
        interleave(&arrays, &places)
    });
    let columns: Result<Vec<ArrayRef>, _> = columns.collect();
    let rows = columns.and_then(|columns| RecordBatch::try_new(schema, columns));
    let arrival_ms = places.iter().map(|(chunk, row)| {
        let arrival_ms = &chunks.get(*chunk)?.arrival_ms;
        arrival_ms.is_valid(*row).then(|| arrival_ms.value(*row))
    });
    Some(KeptRows { arrival_ms: arrival_ms.collect(), rows: rows.expect("chunks of one ring have the same columns") })
}

impl Recall for Window {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        while let Some(hop) = self.next_hop().filter(|hop| *hop <= entry.event_us) {
            self.evaluate(hop, out);
        }
        let end_us = self.rule.pane_end(entry.event_us);
        if self.done_us.is_some_and(|done| end_us <= done) || self.ring.newest_end().is_some_and(|end| end_us < end) {
            self.shed += 1;
            self.fail(format!("an event of {} came after its window was closed", time_text(entry.event_us)));
            return;
        }
        if let Err(error) = self.ring.push(end_us, entry.clone()) {
            self.fail(error);
        }
        self.shed();
    }

    fn due(&self) -> Option<i64> {
        self.next_hop()
    }

    fn wake(&mut self, at_us: i64, out: &mut Vec<Finding>) {
        while let Some(hop) = self.next_hop().filter(|hop| *hop <= at_us) {
            self.evaluate(hop, out);
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        // Rows that cannot be kept were refused when they came: nothing is left to fail.
        saved::save(self).unwrap_or_default()
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let mut fresh = Window::new(Arc::clone(&self.rule), Arc::clone(&self.cluster_id));
        let restored = saved::restore(&mut fresh, tables);
        *self = match restored {
            Ok(()) => fresh,
            Err(_) => Window::new(Arc::clone(&self.rule), Arc::clone(&self.cluster_id)),
        };
        restored
    }

    fn failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }

    fn size(&self) -> Size {
        let keys = self.edges.len() as u64;
        Size { rows: self.ring.rows(), keys, bytes: self.ring.bytes() + self.edges.bytes(), shed: self.shed }
    }
}
