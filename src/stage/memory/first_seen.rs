//! What was never seen before: an exact set of combinations, each with the time when it was last seen.
//!
//! A set and no filter of bits: a false positive of a filter would be an attack missed, and a filter cannot forget.
//! An entry is 16 bytes of key and 4 of time. Refused requests and dry runs do not teach: an attacker could otherwise
//! make a combination known by trying it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use serde_json::Value;

use super::tables::{ints, ints64, keys, named, read_keys, table};
use super::{Entry, Field, Key, Recall, Size, kept_rows, key_of};
use crate::detection::FirstSeenSpec;
use crate::model::{Finding, time_text};

const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 24 * 60 * MINUTE_US;
/// Combinations remembered by one detection for one cluster; further ones are shed and raise no alert.
pub const KEYS_MAX: usize = 10_000_000;

/// The set of one detection in one cluster.
#[derive(Debug)]
pub struct FirstSeen {
    detection: usize,
    cluster_id: Arc<str>,
    of: Vec<Field>,
    per: Vec<Field>,
    learn_us: i64,
    settle_us: i64,
    forget_us: i64,
    /// Event time at which the cluster was first heard of.
    born_us: i64,
    /// By combination of `per` and `of`: the minute since the epoch at which it was last seen.
    seen: HashMap<Key, i32>,
    /// By `per`: the minutes at which it was first and last seen.
    known: HashMap<Key, (i32, i32)>,
    /// Event time of the last sweep.
    swept_us: i64,
    shed: u64,
}

impl FirstSeen {
    /// `born_us` is the event time at which the cluster was first heard of.
    pub fn new(spec: &FirstSeenSpec, detection: usize, cluster_id: Arc<str>, born_us: i64) -> FirstSeen {
        let fields = |names: &[String]| names.iter().map(|name| Field::new(name)).collect();
        FirstSeen {
            detection,
            cluster_id,
            of: fields(&spec.of),
            per: fields(&spec.per),
            learn_us: spec.learn.us(),
            settle_us: spec.settle.map_or(0, |settle| settle.us()),
            forget_us: spec.forget.us(),
            born_us,
            seen: HashMap::new(),
            known: HashMap::new(),
            swept_us: i64::MIN,
            shed: 0,
        }
    }

    /// Forgets what was not seen for long, once a day: what is over is never taken for known meanwhile either.
    fn sweep(&mut self, now_us: i64) {
        if now_us < self.swept_us.saturating_add(DAY_US) {
            return;
        }
        self.swept_us = now_us;
        let oldest = minute(now_us.saturating_sub(self.forget_us));
        self.seen.retain(|_, last| *last >= oldest);
        self.known.retain(|_, (_, last)| *last >= oldest);
    }
}

impl Recall for FirstSeen {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let now_us = entry.event_us;
        self.sweep(now_us);
        let (who, per) = entry.key(&self.per);
        let (_, of) = entry.key(&self.of);
        let combination = key_of(&[per.clone(), of.clone()].concat());
        let now = minute(now_us);
        let last = self.seen.get(&combination).copied();
        let fresh = last.is_none_or(|last| i64::from(last) * MINUTE_US < now_us.saturating_sub(self.forget_us));
        let first = self.known.get(&who).map_or(now, |(first, _)| *first);
        if fresh && last.is_none() && self.seen.len() >= KEYS_MAX {
            self.shed += 1;
            return;
        }
        if entry.succeeded() {
            self.seen.insert(combination, now);
            let known = self.known.entry(who).or_insert((now, now));
            known.1 = known.1.max(now);
        }
        let learning = now_us < self.born_us.saturating_add(self.learn_us);
        let settling = now_us < (i64::from(first) * MINUTE_US).saturating_add(self.settle_us);
        if !fresh || learning || settling {
            return;
        }
        let day = now_us.div_euclid(DAY_US).saturating_mul(DAY_US);
        let mut identity = [per, of].concat();
        identity.push(Value::from(time_text(day)));
        out.push(Finding {
            detection: self.detection,
            cluster_id: Arc::clone(&self.cluster_id),
            identity,
            at_us: now_us,
            computed: entry.computed().to_vec(),
            evidence: kept_rows(std::slice::from_ref(entry)),
        });
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let born = Int64Array::from(vec![self.born_us, self.swept_us]);
        let born = table(vec![("us", Arc::new(born))]);
        let mut seen: Vec<(Key, i32)> = self.seen.iter().map(|(key, last)| (*key, *last)).collect();
        seen.sort_unstable();
        let last: Int32Array = seen.iter().map(|(_, last)| *last).collect();
        let seen = table(vec![("key", keys(seen.iter().map(|(key, _)| key))), ("last_minute", Arc::new(last))]);
        let mut known: Vec<(Key, (i32, i32))> = self.known.iter().map(|(key, times)| (*key, *times)).collect();
        known.sort_unstable();
        let first: Int32Array = known.iter().map(|(_, (first, _))| *first).collect();
        let last: Int32Array = known.iter().map(|(_, (_, last))| *last).collect();
        let known = table(vec![
            ("key", keys(known.iter().map(|(key, _)| key))),
            ("first_minute", Arc::new(first)),
            ("last_minute", Arc::new(last)),
        ]);
        vec![("born".to_owned(), born), ("seen".to_owned(), seen), ("known".to_owned(), known)]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let (mut seen, mut known) = (HashMap::new(), HashMap::new());
        let born = ints64(named(tables, "born")?, "us")?;
        let [born_us, swept_us] = born[..] else { return Err("table born is not as expected".to_owned()) };
        let table = named(tables, "seen")?;
        for (key, last) in read_keys(table)?.into_iter().zip(ints(table, "last_minute")?) {
            seen.insert(key, last);
        }
        let table = named(tables, "known")?;
        let times = ints(table, "first_minute")?.into_iter().zip(ints(table, "last_minute")?);
        for (key, times) in read_keys(table)?.into_iter().zip(times) {
            known.insert(key, times);
        }
        (self.born_us, self.swept_us, self.seen, self.known) = (born_us, swept_us, seen, known);
        Ok(())
    }

    fn size(&self) -> Size {
        let slot = |entry: usize, capacity: usize| (capacity * (entry + 1)) as u64;
        let bytes = slot(size_of::<(Key, i32)>(), self.seen.capacity())
            + slot(size_of::<(Key, (i32, i32))>(), self.known.capacity());
        Size { rows: 0, keys: self.seen.len() as u64, bytes, shed: self.shed }
    }
}

fn minute(us: i64) -> i32 {
    i32::try_from(us.div_euclid(MINUTE_US)).unwrap_or(if us < 0 { i32::MIN } else { i32::MAX })
}
