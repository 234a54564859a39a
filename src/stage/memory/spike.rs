//! More of something by one key than its own past, or that of its peers, explains.
//!
//! What is counted slides: the events, or the distinct combinations, of the last stretch of `every`, in sixths of it.
//! It is held against the key's own earlier stretches in which there was anything: the median plus so many robust
//! standard deviations, from the median absolute deviation, which half of the past would have to be odd to move. A key
//! with too short a past is held against its peers', the most lenient group of those it belongs to; where there is
//! none either, and in any case, against the floor. A stretch that was told of teaches no more than the limit that it
//! passed, and requests that did nothing are counted but not learnt.

mod history;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

pub use self::history::STRETCHES_MAX;
use self::history::{History, Normal};
use super::anomaly::rounded;
use super::tables::{float_column, floats, int_column, ints64, named, parsed, table, text_column, texts};
use super::{Entry, Field, Key, Recall, Size, kept_rows, key_of, with};
use crate::detection::SpikeSpec;
use crate::model::{Finding, time_text};

/// In how many parts a stretch slides.
const PANES: i64 = 6;
/// How many stretches a past needs to be believed.
const ENOUGH: usize = 5;
/// Most keys that are remembered for one detection in one cluster.
pub const KEYS_MAX: usize = 100_000;
/// Most distinct combinations of one part of a stretch.
const DISTINCT_MAX: usize = 10_000;
/// Most times that one spike is told of again.
const REPEATS_MAX: u32 = 100;
/// Most groups of one event that are looked at.
const GROUPS_MAX: usize = 16;
/// How long a key may be away before it is forgotten.
const FORGET_US: i64 = 90 * 86_400_000_000;

/// Name of a group: which peers column it came from, and its value.
type Group = (usize, String);

/// A count of events, or of distinct hashes.
#[derive(Debug, Clone, Default)]
struct Count {
    events: u64,
    distinct: HashSet<u64>,
}

/// What is known of one key.
#[derive(Debug)]
struct Tally {
    name: Vec<Value>,
    groups: Vec<Group>,
    last_us: i64,
    /// The stretch that goes into the past when it is over, and what it has so far.
    stretch: i64,
    learnt: Count,
    /// The last parts of stretches, by number.
    panes: VecDeque<(i64, Count)>,
    past: History,
    /// When it was told of, and how often since; the limit that it passed.
    told_us: Option<i64>,
    told: u32,
    limit: f64,
}

/// The memory of a `spike` detection in one cluster.
#[derive(Debug)]
pub struct Spike {
    detection: usize,
    cluster_id: Arc<str>,
    per: Vec<Field>,
    of: Vec<Field>,
    peers: Vec<Field>,
    every_us: i64,
    learn_us: i64,
    floor: f64,
    deviations: f64,
    /// How long after a spike more of it is the same one.
    same_us: i64,
    keys_max: usize,
    /// Event time at which the cluster was first heard of.
    born_us: i64,
    tidied_us: i64,
    tallies: HashMap<Key, Tally>,
    groups: HashMap<Group, History>,
    shed: u64,
}

impl Spike {
    /// The memory of the detection of this index in its set, empty. More events within `suppress_us`, or within the
    /// time over which is counted where that is longer, belong to the same finding. `born_us` is the event time at
    /// which the cluster was first heard of.
    pub fn new(spec: &SpikeSpec, detection: usize, cluster_id: Arc<str>, born_us: i64, suppress_us: i64) -> Spike {
        let fields = |names: &[String]| names.iter().map(|name| Field::new(name)).collect::<Vec<_>>();
        Spike {
            detection,
            cluster_id,
            per: fields(&spec.per),
            of: fields(&spec.of),
            peers: fields(&spec.peers),
            every_us: spec.every.us().max(PANES),
            learn_us: spec.learn.us(),
            floor: f64::from(spec.floor),
            deviations: spec.deviations,
            same_us: suppress_us.max(spec.every.us()),
            keys_max: KEYS_MAX,
            born_us,
            tidied_us: i64::MIN,
            tallies: HashMap::new(),
            groups: HashMap::new(),
            shed: 0,
        }
    }

    fn groups_of(&self, entry: &Entry) -> Vec<Group> {
        let mut groups = Vec::new();
        for (column, field) in self.peers.iter().enumerate() {
            let value = entry.value(field);
            let items = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
            for name in items.iter().filter_map(Value::as_str).take(GROUPS_MAX - groups.len().min(GROUPS_MAX)) {
                groups.push((column, name.to_owned()));
            }
        }
        groups
    }

    /// The tally of an event's key, with the stretches before the event closed; `None` where there is no room.
    fn tally(&mut self, entry: &Entry) -> Option<&mut Tally> {
        let (key, name) = entry.key(&self.per);
        let now = entry.event_us;
        let groups = self.groups_of(entry);
        if self.tallies.len() >= self.keys_max && now.saturating_sub(self.tidied_us) >= self.every_us {
            self.tidied_us = now;
            self.tallies.retain(|_, tally| now - tally.last_us < FORGET_US);
        }
        if self.tallies.len() >= self.keys_max && !self.tallies.contains_key(&key) {
            self.shed += 1;
            return None;
        }
        let stretch = now.div_euclid(self.every_us);
        let tally = self.tallies.entry(key).or_insert_with(|| Tally {
            name,
            groups: Vec::new(),
            last_us: now,
            stretch,
            learnt: Count::default(),
            panes: VecDeque::new(),
            past: History::default(),
            told_us: None,
            told: 0,
            limit: 0.0,
        });
        if tally.stretch < stretch {
            let mut count = tally.learnt.size(!self.of.is_empty());
            let start_us = tally.stretch * self.every_us;
            if tally.told_us.is_some_and(|told| told >= start_us - self.every_us) {
                count = count.min(tally.limit as u64);
            }
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if count > 0 {
                tally.past.push(count);
                for group in &tally.groups {
                    self.groups.entry(group.clone()).or_default().push(count);
                }
            }
            tally.stretch = stretch;
            tally.learnt = Count::default();
        }
        tally.groups = groups;
        tally.last_us = now;
        Some(tally)
    }
}

impl Count {
    fn add(&mut self, hash: Option<u64>) -> bool {
        self.events += 1;
        match hash {
            Some(hash) if self.distinct.len() < DISTINCT_MAX => {
                self.distinct.insert(hash);
                true
            }
            Some(hash) => self.distinct.contains(&hash),
            None => true,
        }
    }

    fn size(&self, distinct: bool) -> u64 {
        if distinct { self.distinct.len() as u64 } else { self.events }
    }
}

impl Tally {
    /// Events, or distinct combinations, of the last parts.
    fn recent(&self, distinct: bool, floor: f64) -> u64 {
        let most: u64 = self.panes.iter().map(|(_, pane)| pane.size(distinct)).sum();
        if !distinct || (most as f64) < floor {
            return most;
        }
        let all: HashSet<u64> = self.panes.iter().flat_map(|(_, pane)| pane.distinct.iter().copied()).collect();
        all.len() as u64
    }

    /// What is normal for it and whose past says so.
    fn normal(&self, groups: &HashMap<Group, History>, deviations: f64) -> Option<(Normal, String)> {
        if let Some(normal) = self.past.normal(ENOUGH) {
            return Some((normal, format!("its own {} stretches", self.past.len())));
        }
        let known = self.groups.iter().filter_map(|group| {
            let history = groups.get(group)?;
            Some((history.normal(ENOUGH)?, format!("{} stretches of {}", history.len(), group.1)))
        });
        known.max_by(|a, b| a.0.limit(deviations).total_cmp(&b.0.limit(deviations)))
    }
}

impl Recall for Spike {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let now = entry.event_us;
        let hash = (!self.of.is_empty()).then(|| {
            let (key, _) = entry.key(&self.of);
            u64::from_le_bytes(key.first_chunk::<8>().copied().unwrap_or_default())
        });
        let (floor, deviations, distinct) = (self.floor, self.deviations, hash.is_some());
        let (every_us, same_us, learning) = (self.every_us, self.same_us, now - self.born_us < self.learn_us);
        if self.tally(entry).is_none() {
            return;
        }
        let (key, _) = entry.key(&self.per);
        let Some(tally) = self.tallies.get_mut(&key) else { return };
        let pane = now.div_euclid(every_us / PANES);
        while tally.panes.front().is_some_and(|(number, _)| *number <= pane - PANES) {
            tally.panes.pop_front();
        }
        if tally.panes.back().is_none_or(|(number, _)| *number != pane) {
            tally.panes.push_back((pane, Count::default()));
        }
        let room = tally.panes.back_mut().is_none_or(|(_, count)| count.add(hash));
        self.shed += u64::from(!room);
        if entry.succeeded() {
            tally.learnt.add(hash);
        }
        let count = tally.recent(distinct, floor);
        if learning || (count as f64) < floor {
            return;
        }
        let normal = tally.normal(&self.groups, deviations);
        let limit = normal.as_ref().map_or(floor, |(normal, _)| normal.limit(deviations).max(floor));
        if (count as f64) < limit {
            return;
        }
        if tally.told_us.is_none_or(|told| now - told >= same_us) {
            (tally.told_us, tally.told, tally.limit) = (Some(now), 0, limit);
        }
        tally.told += 1;
        if tally.told > REPEATS_MAX {
            return;
        }
        let start_us = tally.told_us.unwrap_or(now).div_euclid(every_us) * every_us;
        let mut identity = tally.name.clone();
        identity.push(time_text(start_us).into());
        let (median, whose) =
            normal.map_or((0.0, "nothing, so the floor holds".to_owned()), |(normal, whose)| (normal.median, whose));
        out.push(Finding {
            detection: self.detection,
            cluster_id: Arc::clone(&self.cluster_id),
            identity,
            at_us: now,
            computed: with(
                entry,
                [
                    ("count", count.into()),
                    ("limit", rounded(limit)),
                    ("usual", rounded(median)),
                    ("reasons", format!("normal by {whose}").into()),
                ],
            ),
            evidence: kept_rows(std::slice::from_ref(entry)),
        });
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut tallies: Vec<_> = self.tallies.iter().collect();
        tallies.sort_by_key(|(key, _)| *key);
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(group, _)| *group);
        let all = || tallies.iter().map(|(_, tally)| *tally);
        let keys = table(vec![
            ("name", text_column(all().map(|tally| json!(tally.name).to_string()))),
            ("groups", text_column(all().map(|tally| json!(tally.groups).to_string()))),
            ("last_us", int_column(all().map(|tally| tally.last_us))),
            ("stretch", int_column(all().map(|tally| tally.stretch))),
            ("learnt", int_column(all().map(|tally| tally.learnt.events as i64))),
            ("past", text_column(all().map(|tally| json!(tally.past.counts().collect::<Vec<_>>()).to_string()))),
            ("told_us", int_column(all().map(|tally| tally.told_us.unwrap_or(i64::MIN)))),
            ("told", int_column(all().map(|tally| i64::from(tally.told)))),
            ("limit", float_column(all().map(|tally| tally.limit))),
        ]);
        let panes: Vec<(i64, i64, i64)> = all()
            .enumerate()
            .flat_map(|(owner, tally)| {
                tally.panes.iter().map(move |(number, count)| (owner as i64, *number, count.events as i64))
            })
            .collect();
        // The stretch that is being learnt stands under number -1; panes are counted from the epoch.
        let mut hashes: Vec<(i64, i64, i64)> = all()
            .enumerate()
            .flat_map(|(owner, tally)| {
                let panes = tally.panes.iter().map(|(number, count)| (*number, count));
                let counts = panes.chain([(-1, &tally.learnt)]);
                counts.flat_map(move |(number, count)| {
                    count.distinct.iter().map(move |hash| (owner as i64, number, *hash as i64))
                })
            })
            .collect();
        hashes.sort_unstable();
        let groups = table(vec![
            ("name", text_column(groups.iter().map(|(group, _)| json!(group).to_string()))),
            ("past", text_column(groups.iter().map(|(_, past)| json!(past.counts().collect::<Vec<_>>()).to_string()))),
        ]);
        vec![
            ("keys".to_owned(), keys),
            ("panes".to_owned(), triples(&panes, "events")),
            ("hashes".to_owned(), triples(&hashes, "hash")),
            ("groups".to_owned(), groups),
        ]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        (self.tallies, self.groups) = read(tables)?;
        Ok(())
    }

    fn size(&self) -> Size {
        let hashes: usize = self
            .tallies
            .values()
            .map(|tally| {
                tally.learnt.distinct.len() + tally.panes.iter().map(|(_, pane)| pane.distinct.len()).sum::<usize>()
            })
            .sum();
        let counts: usize = self.tallies.values().map(|tally| tally.past.len()).sum();
        let bytes = (self.tallies.len() * 512 + hashes * 16 + counts * 4 + self.groups.len() * 1024) as u64;
        Size { rows: 0, keys: self.tallies.len() as u64, bytes, shed: self.shed }
    }
}

/// What a table holds: tallies by key, histories by group.
type Parts = (HashMap<Key, Tally>, HashMap<Group, History>);

/// What [`Recall::save`] wrote.
fn read(tables: &[(String, RecordBatch)]) -> Result<Parts, String> {
    let table = named(tables, "groups")?;
    let mut groups = HashMap::new();
    for (name, past) in texts(table, "name")?.iter().zip(texts(table, "past")?) {
        groups.insert(parsed(name)?, history(&past)?);
    }
    let keys = named(tables, "keys")?;
    let (names, members, pasts) = (texts(keys, "name")?, texts(keys, "groups")?, texts(keys, "past")?);
    let (lasts, stretches, learnt) = (ints64(keys, "last_us")?, ints64(keys, "stretch")?, ints64(keys, "learnt")?);
    let (told_at, told, limits) = (ints64(keys, "told_us")?, ints64(keys, "told")?, floats(keys, "limit")?);
    let mut tallies: HashMap<Key, Tally> = HashMap::new();
    let mut order: Vec<Key> = Vec::with_capacity(keys.num_rows());
    for row in 0..keys.num_rows() {
        let name: Vec<Value> = parsed(&names[row])?;
        order.push(key_of(&name));
        let tally = Tally {
            groups: parsed(&members[row])?,
            last_us: lasts[row],
            stretch: stretches[row],
            learnt: Count { events: learnt[row] as u64, distinct: HashSet::new() },
            panes: VecDeque::new(),
            past: history(&pasts[row])?,
            told_us: Some(told_at[row]).filter(|at| *at != i64::MIN),
            told: u32::try_from(told[row]).unwrap_or(u32::MAX),
            limit: limits[row],
            name,
        };
        tallies.insert(key_of(&tally.name), tally);
    }
    let owner = |owner: i64| usize::try_from(owner).ok().and_then(|owner| order.get(owner));
    for (at, number, events) in read_triples(tables, "panes", "events")? {
        if let Some(tally) = owner(at).and_then(|key| tallies.get_mut(key)) {
            tally.panes.push_back((number, Count { events: events as u64, distinct: HashSet::new() }));
        }
    }
    for (at, number, hash) in read_triples(tables, "hashes", "hash")? {
        let Some(tally) = owner(at).and_then(|key| tallies.get_mut(key)) else { continue };
        let pane = tally.panes.iter_mut().find(|(pane, _)| *pane == number).map(|(_, count)| count);
        pane.unwrap_or(&mut tally.learnt).distinct.insert(hash as u64);
    }
    Ok((tallies, groups))
}

fn history(text: &str) -> Result<History, String> {
    let counts: Vec<u32> = parsed(text)?;
    let mut history = History::default();
    counts.into_iter().for_each(|count| history.push(count));
    Ok(history)
}

fn triples(rows: &[(i64, i64, i64)], what: &str) -> RecordBatch {
    table(vec![
        ("key", int_column(rows.iter().map(|row| row.0))),
        ("number", int_column(rows.iter().map(|row| row.1))),
        (what, int_column(rows.iter().map(|row| row.2))),
    ])
}

fn read_triples(tables: &[(String, RecordBatch)], name: &str, what: &str) -> Result<Vec<(i64, i64, i64)>, String> {
    let table = named(tables, name)?;
    let (keys, numbers, values) = (ints64(table, "key")?, ints64(table, "number")?, ints64(table, what)?);
    Ok(keys.into_iter().zip(numbers).zip(values).map(|((key, number), value)| (key, number, value)).collect())
}
