//! Nothing from a key that was never quiet for so long.
//!
//! The limit is so many times the longest silence of the last fourteen days on which there was one, and never less
//! than a floor. A silence that was told of is not learnt. No clock is asked: a silence is told at the first event
//! after its limit, of whatever key, and again with its end when its own key is heard of. So where all events are one
//! key, an outage is told when it is over, and the end of a file is no silence.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::anomaly::rounded;
use super::tables::{entries_of, entries_table, int_column, ints64, named, parsed, table, text_column, texts};
use super::{Entry, Field, Key, Recall, Size, kept_rows, key_of, with};
use crate::detection::SilenceSpec;
use crate::model::{Finding, time_text};

const DAY_US: i64 = 86_400_000_000;
/// How many days' longest silences are remembered.
pub const DAYS_MAX: usize = 14;
/// Most keys that are remembered for one detection in one cluster.
pub const KEYS_MAX: usize = 10_000;

#[derive(Debug)]
struct Pulse {
    name: Vec<Value>,
    first_us: i64,
    /// The last event: what a silence began with. It keeps the rows of its chunk alive, but keys are few and come often.
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
    keys_max: usize,
    pulses: HashMap<Key, Pulse>,
    /// Before this event time no silence that goes on is too long.
    next_us: i64,
    shed: u64,
}

impl Pulse {
    fn longest_us(&self) -> i64 {
        self.longest.iter().map(|(_, us)| *us).max().unwrap_or(0)
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
            keys_max: KEYS_MAX,
            pulses: HashMap::new(),
            next_us: i64::MAX,
            shed: 0,
        }
    }

    /// The event time at which the silence of a pulse will have lasted too long.
    fn limit_at(&self, pulse: &Pulse) -> i64 {
        let limit_us = ((pulse.longest_us() as f64 * self.times) as i64).max(self.least_us);
        pulse.last.event_us.saturating_add(limit_us)
    }

    /// Whether a silence that is too long at `at_us` can be told: the key is known for long enough.
    fn learnt(&self, pulse: &Pulse, at_us: i64) -> bool {
        at_us - pulse.first_us >= self.learn_us
    }

    fn finding(&self, pulse: &Pulse, at_us: i64, end: Option<&Entry>) -> Finding {
        let began_us = pulse.last.event_us;
        let mut identity = pulse.name.clone();
        identity.push(time_text(began_us).into());
        let minutes = |us: i64| rounded(us as f64 / 60e6);
        let evidence: Vec<Entry> = std::iter::once(&pulse.last).chain(end).cloned().collect();
        Finding {
            detection: self.detection,
            cluster_id: Arc::clone(&self.cluster_id),
            identity,
            at_us,
            computed: with(
                &pulse.last,
                [
                    ("quiet_since", time_text(began_us).into()),
                    ("quiet_minutes", minutes(end.map_or(at_us, |end| end.event_us) - began_us)),
                    ("limit_minutes", minutes(at_us - began_us)),
                    ("usual", format!("at most {} minutes", minutes(pulse.longest_us())).into()),
                ],
            ),
            evidence: kept_rows(&evidence),
        }
    }

    /// Tells of every other key that is quiet for too long at `now_us`.
    fn sweep(&mut self, heard: &Key, now_us: i64, out: &mut Vec<Finding>) {
        let mut quiet: Vec<Key> = Vec::new();
        let mut next_us = i64::MAX;
        for (key, pulse) in self.pulses.iter().filter(|(key, pulse)| *key != heard && !pulse.told) {
            let at_us = self.limit_at(pulse);
            if at_us >= now_us {
                next_us = next_us.min(at_us);
            } else if self.learnt(pulse, at_us) {
                quiet.push(*key);
            }
        }
        quiet.sort_unstable();
        for key in quiet {
            if let Some(pulse) = self.pulses.get(&key) {
                out.push(self.finding(pulse, self.limit_at(pulse), None));
            }
            if let Some(pulse) = self.pulses.get_mut(&key) {
                pulse.told = true;
            }
        }
        self.next_us = next_us;
    }
}

impl Recall for Silence {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let (key, name) = entry.key(&self.per);
        if entry.event_us > self.next_us {
            self.sweep(&key, entry.event_us, out);
        }
        if let Some(pulse) = self.pulses.get(&key) {
            let at_us = self.limit_at(pulse);
            let over = entry.event_us > at_us && self.learnt(pulse, at_us);
            if over {
                out.push(self.finding(pulse, at_us, Some(entry)));
            }
            if let Some(pulse) = self.pulses.get_mut(&key) {
                pulse.hear(entry, over);
            }
        } else if self.pulses.len() < self.keys_max {
            let pulse =
                Pulse { name, first_us: entry.event_us, last: entry.clone(), longest: VecDeque::new(), told: false };
            self.pulses.insert(key, pulse);
        } else {
            self.shed += 1;
        }
        if let Some(pulse) = self.pulses.get(&key) {
            self.next_us = self.next_us.min(self.limit_at(pulse));
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut pulses: Vec<_> = self.pulses.iter().collect();
        pulses.sort_by_key(|(key, _)| *key);
        let all = || pulses.iter().map(|(_, pulse)| *pulse);
        let last: Vec<Entry> = all().map(|pulse| pulse.last.clone()).collect();
        let keys = table(vec![
            ("name", text_column(all().map(|pulse| json!(pulse.name).to_string()))),
            ("first_us", int_column(all().map(|pulse| pulse.first_us))),
            ("last_us", int_column(all().map(|pulse| pulse.last.event_us))),
            ("longest", text_column(all().map(|pulse| json!(pulse.longest).to_string()))),
            ("told", int_column(all().map(|pulse| i64::from(pulse.told)))),
        ]);
        vec![("keys".to_owned(), keys), ("last".to_owned(), entries_table(&last))]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let keys = named(tables, "keys")?;
        let (names, longest) = (texts(keys, "name")?, texts(keys, "longest")?);
        let (firsts, lasts, told) = (ints64(keys, "first_us")?, ints64(keys, "last_us")?, ints64(keys, "told")?);
        let last = entries_of(named(tables, "last")?)?;
        if last.len() != keys.num_rows() {
            return Err("table last has another length than table keys".to_owned());
        }
        let mut pulses = HashMap::with_capacity(last.len());
        for (row, mut last) in last.into_iter().enumerate() {
            last.event_us = lasts[row];
            let (name, longest): (Vec<Value>, _) = (parsed(&names[row])?, parsed(&longest[row])?);
            let pulse = Pulse { first_us: firsts[row], last: last.owned(), longest, told: told[row] != 0, name };
            pulses.insert(key_of(&pulse.name), pulse);
        }
        // The first event looks at all of them.
        (self.pulses, self.next_us) = (pulses, i64::MIN);
        Ok(())
    }

    fn size(&self) -> Size {
        let keys = self.pulses.len() as u64;
        Size { rows: keys, keys, bytes: keys * 1024, shed: self.shed }
    }
}

#[cfg(test)]
#[path = "silence_tests.rs"]
mod tests;
