//! Nothing from a key that was never quiet for so long.
//!
//! The limit is so many times the longest silence of each of the last fourteen days on which there was one, and never
//! less than a floor. A silence that was told of is not learnt. It is told when the limit passes, if something wakes
//! this memory then, and in any case when the key is heard of again: the same finding, now with its end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::anomaly::rounded;
use super::tables::{Reader, Writer};
use super::{Entry, Field, Kept, Key, Recall, Size, kept_rows, key_of};
use crate::detection::SilenceSpec;
use crate::model::{Finding, time_text};

const DAY_US: i64 = 86_400_000_000;
/// How many days' longest silences are remembered.
const DAYS_MAX: usize = 14;
/// Most keys that are remembered for one detection in one cluster.
const KEYS_MAX: usize = 10_000;

#[derive(Debug)]
struct Pulse {
    name: Vec<Value>,
    first_us: i64,
    /// The last event: what a silence began with.
    last: Entry,
    /// By day, oldest first: the longest silence that ended on it.
    longest: VecDeque<(i64, i64)>,
    /// Whether the silence that goes on was told.
    told: bool,
}

/// The memory of a `silence` detection in one cluster.
#[derive(Debug)]
pub struct Silence {
    detection: usize,
    cluster_id: Arc<str>,
    per: Vec<Field>,
    learn_us: i64,
    least_us: i64,
    times: f64,
    pulses: HashMap<Key, Pulse>,
    shed: u64,
}

impl Pulse {
    /// How long a silence is too long, microseconds.
    fn limit_us(&self, least_us: i64, times: f64) -> i64 {
        let longest = self.longest.iter().map(|(_, us)| *us).max().unwrap_or(0);
        ((longest as f64 * times) as i64).max(least_us)
    }

    fn hear(&mut self, entry: &Entry, over_limit: bool) {
        let (quiet_us, day) = (entry.event_us - self.last.event_us, entry.event_us.div_euclid(DAY_US));
        if !over_limit {
            match self.longest.back_mut() {
                Some((last, us)) if *last == day => *us = quiet_us.max(*us),
                _ => self.longest.push_back((day, quiet_us)),
            }
            if self.longest.len() > DAYS_MAX {
                self.longest.pop_front();
            }
        }
        self.last = entry.clone();
        self.told = false;
    }
}

impl Silence {
    /// The memory of the detection of this index in its set, empty.
    pub fn new(spec: &SilenceSpec, detection: usize, cluster_id: Arc<str>) -> Silence {
        Silence {
            detection,
            cluster_id,
            per: spec.per.iter().map(|name| Field::new(name)).collect(),
            learn_us: spec.learn.us(),
            least_us: spec.least.us(),
            times: spec.times,
            pulses: HashMap::new(),
            shed: 0,
        }
    }

    fn finding(&self, pulse: &Pulse, at_us: i64, limit_us: i64, end: Option<&Entry>) -> Finding {
        let began_us = pulse.last.event_us;
        let mut identity = pulse.name.clone();
        identity.push(time_text(began_us).into());
        let minutes = |us: i64| rounded(us as f64 / 60e6);
        let mut evidence = vec![pulse.last.clone()];
        evidence.extend(end.cloned());
        let usual = pulse.longest.iter().map(|(_, us)| *us).max().unwrap_or(0);
        Finding {
            detection: self.detection,
            cluster_id: Arc::clone(&self.cluster_id),
            identity,
            at_us,
            computed: vec![
                ("quiet_since".into(), time_text(began_us).into()),
                ("quiet_minutes".into(), minutes(end.map_or(at_us, |end| end.event_us) - began_us)),
                ("limit_minutes".into(), minutes(limit_us)),
                ("usual".into(), format!("at most {} minutes", minutes(usual)).into()),
            ],
            evidence: kept_rows(&evidence),
        }
    }

    /// When the silence of a pulse will have lasted too long, where that can be told.
    fn due_of(&self, pulse: &Pulse) -> Option<i64> {
        let at_us = pulse.last.event_us + pulse.limit_us(self.least_us, self.times);
        (!pulse.told && at_us - pulse.first_us >= self.learn_us).then_some(at_us)
    }
}

impl Recall for Silence {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let (key, name) = entry.key(&self.per);
        let Some(pulse) = self.pulses.get(&key) else {
            if self.pulses.len() >= KEYS_MAX {
                self.shed += 1;
                return;
            }
            let (first_us, last) = (entry.event_us, entry.clone());
            self.pulses.insert(key, Pulse { name, first_us, last, longest: VecDeque::new(), told: false });
            return;
        };
        let limit_us = pulse.limit_us(self.least_us, self.times);
        let passed_us = pulse.last.event_us + limit_us;
        let over = entry.event_us > passed_us && passed_us - pulse.first_us >= self.learn_us;
        if over {
            out.push(self.finding(pulse, passed_us, limit_us, Some(entry)));
        }
        if let Some(pulse) = self.pulses.get_mut(&key) {
            pulse.hear(entry, over);
        }
    }

    fn due(&self) -> Option<i64> {
        self.pulses.values().filter_map(|pulse| self.due_of(pulse)).min()
    }

    fn wake(&mut self, at_us: i64, out: &mut Vec<Finding>) {
        let mut quiet: Vec<Key> = Vec::new();
        for (key, pulse) in &self.pulses {
            // At the limit it is not yet over it: an event at this very time was seen before.
            if self.due_of(pulse).is_some_and(|due_us| due_us <= at_us) {
                quiet.push(*key);
            }
        }
        quiet.sort_unstable();
        for key in quiet {
            let Some(pulse) = self.pulses.get(&key) else { continue };
            let limit_us = pulse.limit_us(self.least_us, self.times);
            out.push(self.finding(pulse, pulse.last.event_us + limit_us, limit_us, None));
            if let Some(pulse) = self.pulses.get_mut(&key) {
                pulse.told = true;
            }
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut pulses: Vec<_> = self.pulses.iter().collect();
        pulses.sort_by_key(|(key, _)| *key);
        let all = || pulses.iter().map(|(_, pulse)| *pulse);
        let last: Vec<Entry> = all().map(|pulse| pulse.last.clone()).collect();
        let rows = kept_rows(&last);
        let keys = Writer::default()
            .texts("name", all().map(|pulse| json!(pulse.name).to_string()))
            .ints("first_us", all().map(|pulse| pulse.first_us))
            .texts("longest", all().map(|pulse| json!(pulse.longest).to_string()))
            .ints("told", all().map(|pulse| i64::from(pulse.told)))
            .ints("arrival_ms", rows.arrival_ms.iter().map(|ms| ms.unwrap_or(i64::MIN)));
        vec![("keys".to_owned(), keys.table()), ("last".to_owned(), rows.rows)]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        self.pulses.clear();
        let done = self.put_back(tables);
        if done.is_err() {
            self.pulses.clear();
        }
        done
    }

    fn size(&self) -> Size {
        let keys = self.pulses.len() as u64;
        Size { rows: keys, keys, bytes: keys * 1024, shed: self.shed }
    }
}

impl Silence {
    fn put_back(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let keys = Reader::open(tables, "keys")?;
        let (names, firsts, told) = (keys.texts("name")?, keys.ints("first_us")?, keys.ints("told")?);
        let (longest, arrivals) = (keys.texts("longest")?, keys.ints("arrival_ms")?);
        let rows = tables.iter().find(|(name, _)| name == "last").map(|(_, rows)| rows.clone());
        let rows = rows.filter(|rows| rows.num_rows() == keys.rows()).ok_or("table 'last' is not as it was written")?;
        let arrival_ms = arrivals.iter().map(|ms| Some(*ms).filter(|ms| *ms != i64::MIN)).collect();
        let kept = Arc::new(Kept::new(crate::model::KeptRows { rows, arrival_ms }));
        for row in 0..keys.rows() {
            let wrong = |error: serde_json::Error| format!("table 'keys': row {row}: {error}");
            let name: Vec<Value> = serde_json::from_str(names[row]).map_err(wrong)?;
            let longest = serde_json::from_str(longest[row]).map_err(wrong)?;
            let last = Entry::new(&kept, row, Arc::from([]));
            let pulse = Pulse { first_us: firsts[row], last, longest, told: told[row] != 0, name };
            self.pulses.insert(key_of(&pulse.name), pulse);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "silence_tests.rs"]
mod tests;
