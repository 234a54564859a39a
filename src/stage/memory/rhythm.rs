//! The same request at exact intervals, by a key that made it at irregular times before.
//!
//! A program that asks every ten minutes since it was installed is no news; one that starts to is. For each key, the
//! last few events propose intervals; a proposal lives as long as an event comes when it is due, give or take the
//! jitter, whatever comes in between. A rhythm is one that lived long enough, and in whose time at most as many other
//! events came as beats: else chance alone would keep any proposal alive. Events outside of a rhythm count as
//! irregular, once the proposal that they belong to has died or was never made.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::anomaly::rounded;
use super::tables::{int_column, ints64, named, parsed, table, text_column, texts};
use super::{Entry, Field, Key, Recall, Size, kept_rows, key_of, with};
use crate::detection::RhythmSpec;
use crate::model::{Finding, time_text};

/// How many events back an interval is proposed from.
const BACK: usize = 3;
/// Most proposals of one key; the one with the fewest beats goes first.
pub const PROPOSALS_MAX: usize = 8;
/// The least jitter that is forgiven, microseconds.
const JITTER_LEAST_US: i64 = 1_000_000;
/// How long a rhythm of a key is not told again.
const AGAIN_US: i64 = 86_400_000_000;
/// How many beats of one make its events regular.
const REGULAR: u32 = 3;
/// Most keys that are remembered for one detection in one cluster.
pub const KEYS_MAX: usize = 200_000;
/// How long a key may be away before it is forgotten, where room is needed.
const FORGET_US: i64 = 30 * 86_400_000_000;

/// An interval that may be a rhythm.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proposal {
    began_us: i64,
    last_us: i64,
    interval_us: i64,
    beats: u32,
    /// Events since it began that were no beats.
    others: u32,
}

#[derive(Debug)]
struct Beat {
    name: Vec<Value>,
    recent: VecDeque<i64>,
    proposals: Vec<Proposal>,
    irregular: u32,
    /// When a rhythm of it was told last.
    told_us: i64,
}

/// The memory of a `rhythm` detection in one cluster.
#[derive(Debug)]
pub struct Rhythm {
    detection: usize,
    cluster_id: Arc<str>,
    per: Vec<Field>,
    spec: RhythmSpec,
    keys_max: usize,
    keys: HashMap<Key, Beat>,
    shed: u64,
}

impl Rhythm {
    /// The memory of the detection of this index in its set, empty.
    pub fn new(spec: &RhythmSpec, detection: usize, cluster_id: Arc<str>) -> Rhythm {
        Rhythm {
            detection,
            cluster_id,
            per: spec.per.iter().map(|name| Field::new(name)).collect(),
            spec: spec.clone(),
            keys_max: KEYS_MAX,
            keys: HashMap::new(),
            shed: 0,
        }
    }

    fn room(&mut self, key: &Key, now_us: i64) -> bool {
        if self.keys.len() < self.keys_max || self.keys.contains_key(key) {
            return true;
        }
        self.keys.retain(|_, beat| beat.recent.back().is_some_and(|last_us| now_us - last_us < FORGET_US));
        self.keys.len() < self.keys_max
    }

    fn finding(&self, beat: &Beat, rhythm: &Proposal, entry: &Entry) -> Finding {
        let mut identity = beat.name.clone();
        identity.push(time_text(rhythm.began_us).into());
        Finding {
            detection: self.detection,
            cluster_id: Arc::clone(&self.cluster_id),
            identity,
            at_us: entry.event_us,
            computed: with(
                entry,
                [
                    ("interval_seconds", rounded(rhythm.interval_us as f64 / 1e6)),
                    ("beats", rhythm.beats.into()),
                    ("since", time_text(rhythm.began_us).into()),
                    ("usual", format!("{} requests at irregular times before", beat.irregular).into()),
                ],
            ),
            evidence: kept_rows(std::slice::from_ref(entry)),
        }
    }
}

impl Beat {
    /// Moves all proposals on to an event; whether some rhythm took it.
    fn hear(&mut self, now_us: i64, spec: &RhythmSpec) -> bool {
        let mut taken = false;
        let jitter = |interval_us: i64| (interval_us * i64::from(spec.jitter) / 100).max(JITTER_LEAST_US);
        self.proposals.retain_mut(|proposal| {
            let off_us = now_us - proposal.last_us - proposal.interval_us;
            if off_us > jitter(proposal.interval_us) {
                return false;
            }
            if off_us < -jitter(proposal.interval_us) {
                proposal.others += 1;
                return true;
            }
            proposal.beats += 1;
            proposal.last_us = now_us;
            taken |= proposal.beats >= REGULAR;
            true
        });
        taken
    }

    fn propose(&mut self, now_us: i64, spec: &RhythmSpec) {
        for before_us in &self.recent {
            let interval_us = now_us - before_us;
            let known = self.proposals.iter().any(|proposal| {
                let off_us = (proposal.interval_us - interval_us).abs();
                proposal.last_us == now_us && off_us <= (interval_us / 50).max(JITTER_LEAST_US)
            });
            if (spec.shortest.us()..=spec.longest.us()).contains(&interval_us) && !known {
                let (began_us, last_us) = (*before_us, now_us);
                self.proposals.push(Proposal { began_us, last_us, interval_us, beats: 1, others: 0 });
            }
        }
        while self.proposals.len() > PROPOSALS_MAX {
            let fewest = self.proposals.iter().enumerate().min_by_key(|(place, proposal)| (proposal.beats, *place));
            let Some((place, _)) = fewest else { break };
            self.proposals.remove(place);
        }
        self.recent.push_back(now_us);
        if self.recent.len() > BACK {
            self.recent.pop_front();
        }
    }
}

impl Recall for Rhythm {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let (key, name) = entry.key(&self.per);
        if !self.room(&key, entry.event_us) {
            self.shed += 1;
            return;
        }
        let fresh = || Beat { name, recent: VecDeque::new(), proposals: Vec::new(), irregular: 0, told_us: i64::MIN };
        let beat = self.keys.entry(key).or_insert_with(fresh);
        if !beat.hear(entry.event_us, &self.spec) && entry.succeeded() {
            beat.irregular = beat.irregular.saturating_add(1);
        }
        beat.propose(entry.event_us, &self.spec);
        let (beats, irregular) = (self.spec.beats, self.spec.irregular);
        let due = |one: &Proposal| one.beats >= beats && one.others <= one.beats && one.last_us == entry.event_us;
        let Some(place) = beat.proposals.iter().position(due).filter(|_| beat.irregular >= irregular) else { return };
        // Twice the interval is a rhythm, too, and one that pauses begins anew: it is the same story for a day.
        if entry.event_us.saturating_sub(beat.told_us) < AGAIN_US {
            return;
        }
        if let Some(rhythm) = beat.proposals.get(place).cloned() {
            beat.told_us = entry.event_us;
            if let Some(beat) = self.keys.get(&key) {
                out.push(self.finding(beat, &rhythm, entry));
            }
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by_key(|(key, _)| *key);
        let all = || keys.iter().map(|(_, beat)| *beat);
        let beats = table(vec![
            ("name", text_column(all().map(|beat| json!(beat.name).to_string()))),
            ("recent", text_column(all().map(|beat| json!(beat.recent).to_string()))),
            ("irregular", int_column(all().map(|beat| i64::from(beat.irregular)))),
            ("told_us", int_column(all().map(|beat| beat.told_us))),
        ]);
        let proposals: Vec<(usize, &Proposal)> =
            all().enumerate().flat_map(|(owner, beat)| beat.proposals.iter().map(move |one| (owner, one))).collect();
        let proposed = table(vec![
            ("key", int_column(proposals.iter().map(|(owner, _)| *owner as i64))),
            ("began_us", int_column(proposals.iter().map(|(_, one)| one.began_us))),
            ("last_us", int_column(proposals.iter().map(|(_, one)| one.last_us))),
            ("interval_us", int_column(proposals.iter().map(|(_, one)| one.interval_us))),
            ("beats", int_column(proposals.iter().map(|(_, one)| i64::from(one.beats)))),
            ("others", int_column(proposals.iter().map(|(_, one)| i64::from(one.others)))),
        ]);
        vec![("keys".to_owned(), beats), ("proposals".to_owned(), proposed)]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        self.keys = read(tables)?;
        Ok(())
    }

    fn size(&self) -> Size {
        let proposals: usize = self.keys.values().map(|beat| beat.proposals.len()).sum();
        let bytes = (self.keys.len() * 320 + proposals * 40) as u64;
        Size { rows: 0, keys: self.keys.len() as u64, bytes, shed: self.shed }
    }
}

/// What [`Recall::save`] wrote.
fn read(tables: &[(String, RecordBatch)]) -> Result<HashMap<Key, Beat>, String> {
    let table = named(tables, "keys")?;
    let (names, recents, irregular) = (texts(table, "name")?, texts(table, "recent")?, ints64(table, "irregular")?);
    let told = ints64(table, "told_us")?;
    let (mut keys, mut order) = (HashMap::new(), Vec::with_capacity(table.num_rows()));
    for row in 0..table.num_rows() {
        let name: Vec<Value> = parsed(&names[row])?;
        let (recent, irregular) = (parsed(&recents[row])?, u32::try_from(irregular[row]).unwrap_or(u32::MAX));
        let key = key_of(&name);
        order.push(key);
        keys.insert(key, Beat { name, recent, proposals: Vec::new(), irregular, told_us: told[row] });
    }
    let table = named(tables, "proposals")?;
    let (owners, began, last) = (ints64(table, "key")?, ints64(table, "began_us")?, ints64(table, "last_us")?);
    let (intervals, beats) = (ints64(table, "interval_us")?, ints64(table, "beats")?);
    let others = ints64(table, "others")?;
    for row in 0..table.num_rows() {
        let owner = usize::try_from(owners[row]).ok().and_then(|owner| order.get(owner));
        let Some(beat) = owner.and_then(|key| keys.get_mut(key)) else {
            return Err(format!("table proposals: row {row} belongs to nothing"));
        };
        beat.proposals.push(Proposal {
            began_us: began[row],
            last_us: last[row],
            interval_us: intervals[row],
            beats: u32::try_from(beats[row]).unwrap_or(u32::MAX),
            others: u32::try_from(others[row]).unwrap_or(u32::MAX),
        });
    }
    Ok(keys)
}

#[cfg(test)]
#[path = "rhythm_tests.rs"]
mod tests;
