//! The events of one cluster in order of event time, and the memories that are shown them.
//!
//! The watermark is the least of the cluster's lanes' newest event times, less the lateness: what is older than it can
//! only come late. Rows wait until the watermark has passed them. They are released in order of (event time, event id);
//! between them the memories are woken at the event times that they asked for.

mod renew;
mod saved;
pub use self::saved::Names;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::{Entry, Kept, Recall};
use crate::model::{Column, Finding, LaneId, Match, first_half};

/// How long after its start the end of a request is still known to be one: sessions of exec and watch last for hours.
const REQUEST_US: i64 = 24 * 3600 * 1_000_000;

/// A lane of a source.
pub type LaneKey = (usize, LaneId);

/// Makes the memory of a detection for a cluster; `born_us` is the event time at which it begins: when the cluster was
/// first heard of, or when the detection came later.
pub trait Memories: std::fmt::Debug {
    fn make(&self, detection: usize, cluster_id: &Arc<str>, born_us: i64) -> Option<Box<dyn Recall>>;
}

/// A row that waits for the watermark.
#[derive(Debug)]
pub struct Held {
    pub kept: Arc<Kept>,
    pub row: usize,
    /// By detection, and among those of one the later step first: an event must not be two steps.
    pub matches: Vec<HeldMatch>,
}

/// A detection that keeps the row.
#[derive(Debug, Clone)]
pub struct HeldMatch {
    pub detection: usize,
    pub step: usize,
    pub computed: Arc<[(Arc<str>, Value)]>,
}

impl HeldMatch {
    pub fn of(found: &Match) -> HeldMatch {
        HeldMatch { detection: found.detection, step: found.step, computed: found.computed.clone().into() }
    }
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Held,
    /// The same event waits already.
    Duplicate,
    /// The watermark has passed it.
    Late,
}

/// The time of one cluster.
#[derive(Debug)]
pub struct Timeline {
    cluster_id: Arc<str>,
    born_us: i64,
    /// Detections that came later than the cluster: the event time from which on they are shown its events.
    since: BTreeMap<usize, i64>,
    watermark_us: i64,
    /// Newest event time of each open lane.
    lanes: HashMap<LaneKey, i64>,
    /// When each open lane was last heard of, by the clock of whoever runs this, microseconds.
    heard_at: HashMap<LaneKey, i64>,
    /// The same of lanes of an earlier run that this one has not met yet, by the names of source and lane.
    awaited: BTreeMap<(String, String), i64>,
    /// Since when they are waited for while nothing else waits, by the same clock.
    awaited_since_us: Option<i64>,
    held: BTreeMap<(i64, u128), Held>,
    /// Requests whose start a detection's step has been shown, with the time of that; oldest first.
    started: HashMap<(u128, usize, usize), i64>,
    started_order: VecDeque<(i64, (u128, usize, usize))>,
    recalls: BTreeMap<usize, Box<dyn Recall>>,
    /// Event times at which memories want to be woken.
    wakings: BTreeSet<(i64, usize)>,
    asleep: HashMap<usize, i64>,
}

impl Timeline {
    /// A cluster that is heard of for the first time.
    pub fn new(cluster_id: Arc<str>, born_us: i64) -> Timeline {
        Timeline {
            cluster_id,
            born_us,
            since: BTreeMap::new(),
            watermark_us: i64::MIN,
            lanes: HashMap::new(),
            awaited: BTreeMap::new(),
            awaited_since_us: None,
            heard_at: HashMap::new(),
            held: BTreeMap::new(),
            started: HashMap::new(),
            started_order: VecDeque::new(),
            recalls: BTreeMap::new(),
            wakings: BTreeSet::new(),
            asleep: HashMap::new(),
        }
    }

    /// What is older can only come late.
    pub fn watermark_us(&self) -> i64 {
        self.watermark_us
    }

    /// Rows that wait.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The memories, by detection.
    pub fn recalls(&self) -> impl Iterator<Item = (usize, &dyn Recall)> {
        self.recalls.iter().map(|(detection, recall)| (*detection, recall.as_ref()))
    }

    /// What went wrong in the memories since somebody last asked.
    pub fn failures(&mut self) -> Vec<(usize, String)> {
        let each = self.recalls.iter_mut();
        each.flat_map(|(detection, recall)| recall.failures().into_iter().map(|what| (*detection, what))).collect()
    }

    /// How often evaluations of detections harmed others since somebody last asked.
    pub fn harm(&mut self) -> impl Iterator<Item = (usize, u32)> {
        self.recalls.iter_mut().map(|(detection, recall)| (*detection, recall.harm())).filter(|(_, harm)| *harm > 0)
    }

    /// Notes that a lane has come to an event time; `now_us` is the clock of whoever runs this.
    pub fn heard(&mut self, lane: LaneKey, event_us: i64, now_us: i64) {
        self.heard_at.insert(lane, now_us);
        let newest = self.lanes.entry(lane).or_insert(event_us);
        *newest = event_us.max(*newest);
    }

    /// The cluster is heard of with an event as old as this; nothing of it was released yet, or it makes no difference.
    pub fn begins(&mut self, oldest_us: i64) {
        if self.watermark_us == i64::MIN {
            self.born_us = self.born_us.min(oldest_us);
        }
    }

    /// Whether the cluster was heard of in a lane.
    pub fn hears(&self, lane: LaneKey) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// The silence of a lane means nothing until now.
    pub fn attend(&mut self, lane: LaneKey, now_us: i64) {
        if self.lanes.contains_key(&lane) {
            self.heard_at.insert(lane, now_us);
        }
    }

    /// A lane has ended and holds nothing back any more.
    pub fn ended(&mut self, lane: LaneKey) {
        self.lanes.remove(&lane);
        self.heard_at.remove(&lane);
    }

    /// The event time up to which everything is here where lanes that were silent for `silence_us` are idle: these
    /// hold nothing back. Where all are, time goes on from the newest event as the clock does.
    pub fn complete_without_idle(&mut self, lateness_us: i64, silence_us: i64, now_us: i64) -> Option<i64> {
        if !self.awaited.is_empty() {
            let since_us = *self.awaited_since_us.get_or_insert(now_us);
            if now_us.saturating_sub(since_us) < silence_us {
                return None;
            }
            // Silent since the start: idle as any other, and new where they speak again.
            self.awaited.clear();
        }
        for lane in self.lanes.keys() {
            self.heard_at.entry(*lane).or_insert(now_us);
        }
        let silent =
            |lane: &LaneKey| self.heard_at.get(lane).is_some_and(|heard| now_us.saturating_sub(*heard) >= silence_us);
        let last = self.heard_at.values().max()?;
        let awake = self.lanes.iter().filter(|(lane, _)| !silent(lane)).map(|(_, newest)| *newest).min();
        let until = awake.or_else(|| {
            let newest = self.lanes.values().max()?;
            Some(newest.saturating_add(now_us.saturating_sub(*last)))
        });
        until.map(|until| until.saturating_sub(lateness_us))
    }

    /// The event time up to which everything is here, if `lateness_us` bounds how far events are out of order in a lane.
    pub fn complete_until(&self, lateness_us: i64) -> Option<i64> {
        self.lanes.values().chain(self.awaited.values()).min().map(|newest| newest.saturating_sub(lateness_us))
    }

    /// Takes a row in.
    pub fn take(&mut self, event_us: i64, event: u128, held: Held) -> Taken {
        if event_us < self.watermark_us {
            return Taken::Late;
        }
        match self.held.entry((event_us, event)) {
            std::collections::btree_map::Entry::Occupied(_) => Taken::Duplicate,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(held);
                Taken::Held
            }
        }
    }

    /// Moves the watermark, never back: releases rows and wakes memories in order of event time.
    pub fn advance(&mut self, watermark_us: i64, memories: &dyn Memories, out: &mut Vec<Finding>) {
        self.watermark_us = self.watermark_us.max(watermark_us);
        loop {
            let row_us = self.held.first_key_value().map(|((us, _), _)| *us).filter(|us| *us < self.watermark_us);
            let wake = self.wakings.first().copied().filter(|(us, _)| *us < self.watermark_us);
            match (row_us, wake) {
                (Some(row_us), Some((wake_us, detection))) if wake_us < row_us => self.wake(wake_us, detection, out),
                (Some(_), _) => self.release(memories, out),
                (None, Some((wake_us, detection))) => self.wake(wake_us, detection, out),
                (None, None) => break,
            }
        }
    }

    fn wake(&mut self, at_us: i64, detection: usize, out: &mut Vec<Finding>) {
        self.wakings.remove(&(at_us, detection));
        self.asleep.remove(&detection);
        if let Some(recall) = self.recalls.get_mut(&detection) {
            let before = out.len();
            recall.wake(at_us, out);
            numbered(out, before, detection);
            let due = recall.due();
            // A memory that asks for the past would be woken for ever.
            self.sleep(detection, due.map(|due| due.max(at_us.saturating_add(1))));
        }
    }

    fn sleep(&mut self, detection: usize, due: Option<i64>) {
        if self.asleep.get(&detection).copied() == due {
            return;
        }
        if let Some(before) = self.asleep.remove(&detection) {
            self.wakings.remove(&(before, detection));
        }
        if let Some(due) = due {
            self.asleep.insert(detection, due);
            self.wakings.insert((due, detection));
        }
    }

    fn release(&mut self, memories: &dyn Memories, out: &mut Vec<Finding>) {
        let Some(((event_us, _), held)) = self.held.pop_first() else { return };
        while self.started_order.front().is_some_and(|(us, _)| *us < event_us.saturating_sub(REQUEST_US)) {
            if let Some((_, key)) = self.started_order.pop_front() {
                self.started.remove(&key);
            }
        }
        for found in held.matches {
            let entry = Entry::new(&held.kept, held.row, event_us, found.computed);
            if !self.first_of_request(&entry, found.detection, found.step) {
                continue;
            }
            let begins_us = self.begins_us(found.detection);
            let recall = match self.recalls.entry(found.detection) {
                std::collections::btree_map::Entry::Occupied(recall) => recall.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let Some(made) = memories.make(found.detection, &self.cluster_id, begins_us) else { continue };
                    place.insert(made)
                }
            };
            let before = out.len();
            recall.see(found.step, &entry, out);
            numbered(out, before, found.detection);
            let due = recall.due();
            self.sleep(found.detection, due);
        }
    }

    /// Whether it is the first row of its request that the step is shown: a request with a start and an end is one.
    fn first_of_request(&mut self, entry: &Entry, detection: usize, step: usize) -> bool {
        let Some(request) = entry.text(Column::RequestId) else { return true };
        let key = (number(request), detection, step);
        if self.started.contains_key(&key) {
            return false;
        }
        // An alert, too, counts once, however often and by however many instances it is told.
        let is_alert = entry.text(Column::AlertUid).is_some();
        if is_alert || entry.text(Column::Stage) == Some("ResponseStarted") {
            self.started.insert(key, entry.event_us);
            self.started_order.push_back((entry.event_us, key));
        }
        true
    }
}

/// A memory is older than the number that its detection has now, where a set followed another.
fn numbered(out: &mut [Finding], before: usize, detection: usize) {
    out.iter_mut().skip(before).for_each(|finding| finding.detection = detection);
}

/// An id of the table as a number: its hexadecimal digits where it is made of them.
pub fn number(id: &str) -> u128 {
    let digits = id.get(..32).filter(|digits| digits.len() == id.len());
    let number = digits.and_then(|digits| u128::from_str_radix(digits, 16).ok());
    number.unwrap_or_else(|| u128::from_le_bytes(first_half(blake3::hash(id.as_bytes()))))
}
