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
//! `HAVING count(*) >= 10`), only the rows of groups that have so many are handed to the query. Where the aggregate can
//! be put together out of parts, each pane is aggregated once ([`Evaluator::Panes`]) and not for every window that it
//! is in. None of it changes an answer.
//!
//! **Early.** A condition that stays true as events are added can be told before its pane is over: with `early`, the
//! group of each event is asked about as soon as it has enough. The finding is the one of the hop at the pane's end, so
//! its identity does not depend on how early it was told.

mod edges;
mod evidence;
mod report;
mod ring;
mod saved;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::Value;

use self::edges::Edges;
use self::evidence::{Found, evidence, found, gathered, groups};
pub use self::report::{Evaluator, WindowReport};
use self::ring::{Chunk, Ring};
use super::{Bound, Entry, Field, Recall, Size};
use crate::detection::WindowSpec;
use crate::model::{Column, ColumnSet, Finding, cell, time_text};
use crate::sql::{Span, SqlError, WindowPlan};

/// Most rows that are held for one detection in one cluster.
const ROWS_MAX: u64 = 1_000_000;
/// Most rows of one answer.
const ANSWER_MAX: usize = 10_000;
/// Most failures that are kept until somebody asks.
const FAILURES_MAX: usize = 100;
/// How many events of the window a row of the answer stands for, among what is computed.
const EVENTS: &str = "window_events";

/// A detection with a window, ready to be remembered for any number of clusters.
#[derive(Debug)]
pub struct WindowRule {
    detection: usize,
    plan: Arc<WindowPlan>,
    size_us: i64,
    every_us: i64,
    suppress_us: i64,
    early: bool,
    evaluator: Evaluator,
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
    /// Says which entity the query does not give, what is wrong with the window's lengths, or why it cannot fire early.
    pub fn new(
        detection: usize,
        plan: Arc<WindowPlan>,
        spec: &WindowSpec,
        entity: &[Field],
        suppress_us: i64,
        evidence: ColumnSet,
    ) -> Result<WindowRule, String> {
        let (size_us, every_us) = (spec.size.us(), spec.hop()?.us());
        let mut key = Vec::new();
        for field in entity {
            match plan.place(&field.name) {
                Some(place) if plan.is_moving(place) => {
                    return Err(format!("the entity `{}` differs from hop to hop", field.name));
                }
                Some(place) => key.push(place),
                None if field.column.is_some_and(Column::of_cluster) => {}
                None => return Err(format!("the entity `{}` is not in the SELECT list of the query", field.name)),
            }
        }
        if spec.early {
            plan.only_rises().map_err(|why| format!("the window cannot fire early: {why}"))?;
        }
        let of_sides = plan.sides.iter().flatten().map(|(_, column)| *column);
        let columns = plan.columns.union(evidence).union(of_sides.chain([Column::EventTime]).collect());
        let evaluator = if plan.merges() && size_us > every_us { Evaluator::Panes } else { Evaluator::Ring };
        let (early, rows_max) = (spec.early, ROWS_MAX);
        Ok(WindowRule { detection, plan, size_us, every_us, suppress_us, early, evaluator, key, columns, rows_max })
    }

    /// What is kept, and how it is evaluated.
    pub fn report(&self) -> WindowReport {
        WindowReport::new(self)
    }

    /// The end of the pane that an event of this time belongs to.
    fn pane_end(&self, event_us: i64) -> i64 {
        (event_us.div_euclid(self.every_us) + 1).saturating_mul(self.every_us)
    }

    /// The window that ends at a hop.
    fn span(&self, end_us: i64) -> Span {
        Span { start_us: end_us.saturating_sub(self.size_us), end_us }
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
    /// The number after that of the newest event that the last answer was about.
    told: u64,
    /// Where it fires early, for the pane that is open: by group, with how many events it is asked about again; with
    /// no number where it was told.
    tried: BTreeMap<u64, Option<u64>>,
    shed: u64,
    failures: Vec<String>,
    /// How many evaluations went beyond a bound or panicked since somebody asked.
    harm: Cell<u32>,
}

impl Window {
    /// The memory of a cluster that nothing was seen of.
    pub fn new(rule: Arc<WindowRule>, cluster_id: Arc<str>) -> Window {
        let groups = rule.plan.groups.as_ref().map(|groups| (groups.by.as_slice(), groups.at_least));
        let ring = Ring::new(rule.columns, groups);
        let (edges, tried, harm) = (Edges::default(), BTreeMap::new(), Cell::new(0));
        Window { rule, cluster_id, ring, edges, done_us: None, told: 0, tried, shed: 0, failures: Vec::new(), harm }
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
        if self.ring.newest_end().is_some_and(|newest| newest <= end_us)
            && let Err(error) = self.ring.close()
        {
            self.fail(error);
        }
        self.tried.clear();
        let span = self.rule.span(end_us);
        self.ring.expire(span.start_us);
        self.done_us = Some(end_us);
        match self.answer(span) {
            Ok(answer) => {
                self.told = self.tell(span, answer.as_ref(), out);
                self.edges.end();
            }
            Err(error) => self.fail(format!("the window up to {}: {error}", time_text(end_us))),
        }
    }

    fn answer(&mut self, span: Span) -> Result<Option<RecordBatch>, String> {
        let (plan, harm) = (Arc::clone(&self.rule.plan), &self.harm);
        let answer = match self.rule.evaluator {
            Evaluator::Ring => match self.ring.batches(span) {
                batches if batches.is_empty() => Ok(None),
                batches => plan.run(&batches, span),
            },
            Evaluator::Panes => {
                let state = |rows: &[RecordBatch]| plan.state(rows, span).map_err(|error| told(harm, &error));
                match self.ring.states(span, state)? {
                    states if states.is_empty() => Ok(None),
                    states => plan.finish(&states, span),
                }
            }
        };
        bounded(answer.map_err(|error| told(harm, &error))?)
    }

    /// Asks about the group of the newest row before its pane is over: what is true now stays so up to the hop.
    fn fire_early(&mut self, end_us: i64, out: &mut Vec<Finding>) {
        let (Some(groups), Some((group, rows))) = (&self.rule.plan.groups, self.ring.newest_group()) else { return };
        let again = match self.tried.get(&group) {
            Some(Some(again)) => *again,
            Some(None) => return,
            None => groups.at_least,
        };
        if rows < again {
            return;
        }
        if let Err(error) = self.ring.close() {
            return self.fail(error);
        }
        let span = self.rule.span(end_us);
        let answer =
            self.rule.plan.run(&self.ring.of_group(span, group), span).map_err(|error| told(&self.harm, &error));
        match answer.and_then(bounded) {
            Ok(Some(answer)) => {
                self.tried.insert(group, None);
                // Other groups are not told, so this is not about all events up to here.
                self.tell(span, Some(&answer), out);
            }
            // Not for every event of a group that needs more than a number of events.
            Ok(None) => drop(self.tried.insert(group, Some(rows + (rows / 8).max(1)))),
            Err(error) => self.fail(format!("the open window up to {}: {error}", time_text(end_us))),
        }
    }

    /// Compares an answer with the one of the hop before. The number after that of the newest event of the window.
    fn tell(&mut self, span: Span, answer: Option<&RecordBatch>, out: &mut Vec<Finding>) -> u64 {
        // All hops since the last evaluation had its answer.
        self.edges.begin(span.end_us, span.end_us - self.rule.every_us, self.rule.suppress_us);
        let chunks: Vec<&Chunk> = self.ring.chunks(span).collect();
        let newest = chunks.last().map_or(0, |chunk| chunk.first + chunk.rows.num_rows() as u64);
        let Some(answer) = answer else { return newest };
        let mut keys = found(&self.rule.key, answer);
        let groups = groups(&self.rule.plan.sides, answer);
        let group = |row: &usize| groups.get(*row).copied().unwrap_or_default();
        let told =
            newest <= self.told && keys.iter().all(|(key, found)| self.edges.knows(key, found.rows.iter().map(group)));
        let next = match told {
            true => vec![0; answer.num_rows()],
            false => evidence(&self.rule.plan.sides, answer, &chunks, &mut keys),
        };
        for (key, found) in &keys {
            let groups = found.rows.iter().map(|row| (group(row), next.get(*row).copied().unwrap_or_default()));
            if let Some(edge_us) = self.edges.on(key, groups) {
                out.extend(self.finding(span.end_us, edge_us, answer, found, &chunks));
            }
        }
        newest
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
            let (start, end, max) = (time_text(end - self.rule.every_us), time_text(end), self.rule.rows_max);
            self.fail(format!("{rows} events from {start} to {end} were let go: more than {max} were held"));
        }
    }
}

fn told(harm: &Cell<u32>, error: &SqlError) -> String {
    harm.set(harm.get() + u32::from(error.harmful));
    error.to_string()
}

fn bounded(answer: Option<RecordBatch>) -> Result<Option<RecordBatch>, String> {
    match answer {
        Some(answer) if answer.num_rows() > ANSWER_MAX => {
            Err(format!("the answer has {} rows; at most {ANSWER_MAX} are allowed", answer.num_rows()))
        }
        answer => Ok(answer),
    }
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
        if self.rule.early {
            self.fire_early(end_us, out);
        }
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
        saved::restore(&mut fresh, tables)?;
        *self = fresh;
        Ok(())
    }

    fn replan(&mut self, rule: &Arc<WindowRule>) {
        self.rule = Arc::clone(rule);
        self.ring.forget_states();
        self.tried.clear();
    }

    fn bound(&self) -> Bound {
        Bound { rows: true, engine: false }
    }

    fn failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }

    fn harm(&mut self) -> u32 {
        self.harm.take()
    }

    fn size(&self) -> Size {
        let keys = self.edges.len() as u64;
        Size { rows: self.ring.rows(), keys, bytes: self.ring.bytes() + self.edges.bytes(), shed: self.shed }
    }
}
