//! Steps by one entity, in order of event time.
//!
//! For each key and each step but the last, the latest way to have come so far is remembered: of two ways to the same
//! step the one that began later serves every continuation that the other does, so one is enough. Steps must be apart
//! in event time; an event is never two steps of one way. When the last step comes, what was remembered for the key is
//! used up. A last step that is `absent` is decided when the time for it is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use serde_json::Value;

use super::tables::{entries_of, entries_table, ints64, keys, named, read_keys, table};
use super::{Bound, Entry, Field, Key, Recall, Size, kept_rows};
use crate::detection::SequenceSpec;
use crate::model::{Column, Finding};

/// Ways that one detection remembers for one cluster; then the oldest are shed.
pub const WAYS_MAX: usize = 100_000;
/// Fewest findings that are looked through for those that are over.
const SWEEP_LEAST: usize = 1024;

/// The sequences of one detection in one cluster.
#[derive(Debug)]
pub struct Sequence {
    detection: usize,
    cluster_id: Arc<str>,
    by: Vec<Field>,
    within_us: i64,
    suppress_us: i64,
    /// Steps that are events.
    steps: usize,
    /// The last step is that none follows.
    absent: bool,
    /// By key and number of steps done.
    ways: HashMap<(Key, usize), Vec<Entry>>,
    /// The same by the event time of their first step.
    by_start: BTreeSet<(i64, Key, usize)>,
    /// By key: the event time of its last finding, and the identity of the first of the row of findings.
    found: HashMap<Key, (i64, Vec<Value>)>,
    /// At so many of them, those that are over are forgotten.
    sweep_at: usize,
    shed: u64,
}

impl Sequence {
    /// The sequences of a detection whose findings about one key go on as one for `suppress_us` after each.
    pub fn new(spec: &SequenceSpec, detection: usize, cluster_id: Arc<str>, suppress_us: i64) -> Sequence {
        let absent = spec.steps.last().is_some_and(|step| step.absent);
        Sequence {
            detection,
            cluster_id,
            by: spec.by.iter().map(|name| Field::new(name)).collect(),
            within_us: spec.within.us(),
            suppress_us,
            steps: spec.steps.len() - usize::from(absent),
            absent,
            ways: HashMap::new(),
            by_start: BTreeSet::new(),
            found: HashMap::new(),
            sweep_at: SWEEP_LEAST,
            shed: 0,
        }
    }

    fn forget(&mut self, key: Key, done: usize) -> Option<Vec<Entry>> {
        let way = self.ways.remove(&(key, done))?;
        self.by_start.remove(&(start(&way), key, done));
        Some(way)
    }

    fn remember(&mut self, key: Key, way: Vec<Entry>) {
        let done = way.len();
        if self.ways.get(&(key, done)).is_some_and(|known| start(known) > start(&way)) {
            return;
        }
        self.forget(key, done);
        if self.ways.len() >= WAYS_MAX
            && let Some((_, key, done)) = self.by_start.first().copied()
        {
            self.forget(key, done);
            self.shed += 1;
        }
        self.by_start.insert((start(&way), key, done));
        self.ways.insert((key, done), way);
    }

    fn found(&mut self, key: Key, way: &[Entry], at_us: i64, out: &mut Vec<Finding>) {
        let Some(last) = way.last() else { return };
        let (_, values) = last.key(&self.by);
        let goes_on = self.found.get(&key).filter(|(last_us, _)| at_us <= last_us.saturating_add(self.suppress_us));
        let identity = match goes_on {
            Some((_, identity)) => identity.clone(),
            None => values.into_iter().chain(way.iter().map(request)).collect(),
        };
        if self.found.len() >= self.sweep_at {
            let over = at_us.saturating_sub(self.suppress_us);
            self.found.retain(|_, (last, _)| *last >= over);
            self.sweep_at = (self.found.len() * 2).max(SWEEP_LEAST);
        }
        self.found.insert(key, (at_us, identity.clone()));
        out.push(Finding {
            detection: self.detection,
            cluster_id: Arc::clone(&self.cluster_id),
            identity,
            at_us,
            computed: last.computed().to_vec(),
            evidence: kept_rows(way),
        });
    }

    /// Takes in an event of a step; `step` counts from 0.
    fn advance(&mut self, step: usize, key: Key, entry: &Entry, out: &mut Vec<Finding>) {
        let mut way = match step {
            0 => Vec::new(),
            _ => match self.ways.get(&(key, step)) {
                Some(way) if way.last().is_some_and(|last| last.event_us < entry.event_us) => way.clone(),
                _ => return,
            },
        };
        if way.first().is_some_and(|first| entry.event_us > first.event_us.saturating_add(self.within_us)) {
            return;
        }
        way.push(entry.owned());
        if way.len() == self.steps && !self.absent {
            (1..self.steps).for_each(|done| {
                self.forget(key, done);
            });
            self.found(key, &way, entry.event_us, out);
        } else {
            self.remember(key, way);
        }
    }
}

impl Recall for Sequence {
    fn see(&mut self, step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let (key, _) = entry.key(&self.by);
        let until = self.steps + usize::from(self.absent);
        if step == until {
            (1..=self.steps).for_each(|done| {
                self.forget(key, done);
            });
        } else if step == self.steps {
            // What must not follow did: in time for every way that is still waiting.
            if self.ways.get(&(key, step)).and_then(|way| way.last()).is_some_and(|last| last.event_us < entry.event_us)
            {
                self.forget(key, step);
            }
        } else {
            self.advance(step, key, entry, out);
        }
    }

    fn due(&self) -> Option<i64> {
        // One later than the last moment in which a step still counts.
        self.by_start.first().map(|(start, _, _)| start.saturating_add(self.within_us).saturating_add(1))
    }

    fn wake(&mut self, at_us: i64, out: &mut Vec<Finding>) {
        while let Some((start, key, done)) = self.by_start.first().copied() {
            let deadline = start.saturating_add(self.within_us);
            if deadline >= at_us {
                break;
            }
            let Some(way) = self.forget(key, done) else { break };
            if self.absent && done == self.steps {
                self.found(key, &way, deadline, out);
            }
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut ways: Vec<(&(Key, usize), &Vec<Entry>)> = self.ways.iter().collect();
        ways.sort_unstable_by_key(|(place, _)| **place);
        let lengths: Int64Array = ways.iter().map(|((_, done), _)| *done as i64).collect();
        let index = table(vec![("key", keys(ways.iter().map(|((key, _), _)| key))), ("steps", Arc::new(lengths))]);
        let entries: Vec<Entry> = ways.iter().flat_map(|(_, way)| way.iter().cloned()).collect();
        let mut found: Vec<(&Key, &(i64, Vec<Value>))> = self.found.iter().collect();
        found.sort_unstable_by_key(|(key, _)| **key);
        let last: Int64Array = found.iter().map(|(_, (last, _))| *last).collect();
        let identities: arrow::array::StringArray =
            found.iter().map(|(_, (_, identity))| Some(Value::from(identity.clone()).to_string())).collect();
        let findings = table(vec![
            ("key", keys(found.iter().map(|(key, _)| *key))),
            ("last_us", Arc::new(last)),
            ("identity", Arc::new(identities)),
        ]);
        let mut tables = vec![("ways".to_owned(), index), ("found".to_owned(), findings)];
        if !entries.is_empty() {
            tables.push(("events".to_owned(), entries_table(&entries)));
        }
        tables
    }

    fn bound(&self) -> Bound {
        Bound { rows: true, engine: false }
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let index = named(tables, "ways")?;
        let lengths = ints64(index, "steps")?;
        let mut entries = match lengths.is_empty() {
            true => Vec::new(),
            false => entries_of(named(tables, "events")?)?,
        }
        .into_iter();
        let mut ways = Vec::with_capacity(lengths.len());
        for (key, length) in read_keys(index)?.into_iter().zip(lengths) {
            let way: Vec<Entry> = entries.by_ref().take(usize::try_from(length).unwrap_or(0)).collect();
            if way.is_empty() || way.len() > self.steps {
                return Err("table ways does not fit table events".to_owned());
            }
            ways.push((key, way));
        }
        let table = named(tables, "found")?;
        let mut found = HashMap::new();
        let rows = read_keys(table)?.into_iter().zip(ints64(table, "last_us")?);
        for ((key, last), identity) in rows.zip(super::tables::texts(table, "identity")?) {
            let identity = serde_json::from_str(&identity).map_err(|error| format!("column identity: {error}"))?;
            found.insert(key, (last, identity));
        }
        self.ways.clear();
        self.by_start.clear();
        self.found = found;
        ways.into_iter().for_each(|(key, way)| self.remember(key, way));
        Ok(())
    }

    fn size(&self) -> Size {
        let rows: usize = self.ways.values().map(Vec::len).sum();
        let bytes: usize =
            self.ways.values().flatten().map(|entry| entry.place().0.batch().get_array_memory_size()).sum();
        let keys = (self.ways.len() + self.found.len()) as u64;
        Size { rows: rows as u64, keys, bytes: bytes as u64, shed: self.shed }
    }
}

fn start(way: &[Entry]) -> i64 {
    way.first().map_or(0, |entry| entry.event_us)
}

fn request(entry: &Entry) -> Value {
    Value::from(entry.text(Column::RequestId).unwrap_or_default())
}
