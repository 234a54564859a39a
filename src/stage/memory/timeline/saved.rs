//! A cluster's time as tables: rows that wait for the watermark, who keeps them, and requests that have begun.
//!
//! Detections stand by id and meaning, as their numbers change with the set: what waits for one whose query has changed
//! since is not shown to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use serde_json::{Map, Value};

use super::{Held, HeldMatch, LaneKey, Timeline, number};
use crate::model::Column;
use crate::stage::memory::Entry;
use crate::stage::memory::tables::{entries_of, entries_table, ints64, keys, named, read_keys, table, texts};

/// The table of when detections began; state of before it was has none.
const SINCE: &str = "since";

/// Detections by number and by name.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// By number: id and meaning.
    pub known: &'a [(Arc<str>, Option<String>)],
}

impl<'a> Names<'a> {
    fn of(&self, detection: usize) -> Option<(&'a str, &'a str)> {
        let (id, meaning) = self.known.get(detection)?;
        Some((id, meaning.as_deref()?))
    }

    fn numbers(&self) -> Numbers<'a> {
        (0..self.known.len()).filter_map(|number| Some((self.of(number)?, number))).collect()
    }
}

impl Timeline {
    /// When the cluster was first heard of.
    pub fn born_us(&self) -> i64 {
        self.born_us
    }

    /// Newest event times by source and lane; `name` gives the names of a lane.
    pub fn lanes(&self, name: impl Fn(LaneKey) -> Option<(String, String)>) -> BTreeMap<(String, String), i64> {
        let own = self.lanes.iter().filter_map(|(lane, newest)| Some((name(*lane)?, *newest)));
        self.awaited.iter().map(|(names, newest)| (names.clone(), *newest)).chain(own).collect()
    }

    /// A lane has got a name: what is known of it from an earlier run is its own from here on.
    pub fn meet(&mut self, lane: LaneKey, names: &(String, String)) {
        if let Some(newest) = self.awaited.remove(names) {
            let known = self.lanes.entry(lane).or_insert(newest);
            *known = newest.max(*known);
        }
    }

    /// Leaves only lanes that are still read here: others hold nothing back.
    pub fn retain_lanes(&mut self, is_read: impl Fn(LaneKey) -> bool, is_awaited: impl Fn(&str, &str) -> bool) {
        self.lanes.retain(|lane, _| is_read(*lane));
        self.heard_at.retain(|lane, _| is_read(*lane));
        self.awaited.retain(|(source, lane), _| is_awaited(source, lane));
    }

    /// What waits, as named tables.
    pub fn save(&self, names: Names<'_>) -> Vec<(String, RecordBatch)> {
        let none: Arc<[(Arc<str>, Value)]> = Arc::from([]);
        let entries: Vec<Entry> = self
            .held
            .iter()
            .map(|((event_us, _), held)| Entry::new(&held.kept, held.row, *event_us, Arc::clone(&none)))
            .collect();
        let matches = self.held.values().zip(0_i64..).flat_map(|(held, row)| {
            held.matches.iter().filter_map(move |found| Some((row, names.of(found.detection)?, found)))
        });
        let matches: Vec<(i64, (&str, &str), &HeldMatch)> = matches.collect();
        let computed = matches.iter().map(|(_, _, found)| {
            let pairs = found.computed.iter().map(|(name, value)| (name.to_string(), value.clone()));
            Some(Value::Object(pairs.collect()).to_string())
        });
        let matches_table = table(vec![
            ("row", int_column(matches.iter().map(|(row, _, _)| *row))),
            ("detection", text_column(matches.iter().map(|(_, (id, _), _)| *id))),
            ("meaning", text_column(matches.iter().map(|(_, (_, meaning), _)| *meaning))),
            ("step", int_column(matches.iter().map(|(_, _, found)| found.step as i64))),
            ("computed", Arc::new(computed.collect::<StringArray>())),
        ]);
        let started = self.started_order.iter().filter_map(|(us, (request, detection, step))| {
            Some((*us, request.to_be_bytes(), names.of(*detection)?, *step as i64))
        });
        let started: Vec<_> = started.collect();
        let started_table = table(vec![
            ("us", int_column(started.iter().map(|(us, ..)| *us))),
            ("key", keys(started.iter().map(|(_, request, ..)| request))),
            ("detection", text_column(started.iter().map(|(_, _, (id, _), _)| *id))),
            ("meaning", text_column(started.iter().map(|(_, _, (_, meaning), _)| *meaning))),
            ("step", int_column(started.iter().map(|(.., step)| *step))),
        ]);
        let since = (0..names.known.len()).filter_map(|number| Some((names.of(number)?, self.begins_us(number))));
        let since: Vec<_> = since.collect();
        let since_table = table(vec![
            ("detection", text_column(since.iter().map(|((id, _), _)| *id))),
            ("meaning", text_column(since.iter().map(|((_, meaning), _)| *meaning))),
            ("us", int_column(since.iter().map(|(_, us)| *us))),
        ]);
        let mut tables = vec![
            ("matches".to_owned(), matches_table),
            ("started".to_owned(), started_table),
            (SINCE.to_owned(), since_table),
        ];
        if !entries.is_empty() {
            tables.push(("waiting".to_owned(), entries_table(&entries)));
        }
        tables
    }

    /// Takes back what [`Timeline::save`] gave, in a timeline that has seen nothing.
    ///
    /// # Errors
    /// Says which table is not as expected; nothing waits then.
    pub fn restore(&mut self, tables: &[(String, RecordBatch)], names: Names<'_>) -> Result<(), String> {
        let numbers = names.numbers();
        let entries = match tables.iter().any(|(name, _)| name == "waiting") {
            true => entries_of(named(tables, "waiting")?)?,
            false => Vec::new(),
        };
        let mut matches = vec![Vec::new(); entries.len()];
        for (row, found) in matches_of(named(tables, "matches")?, &numbers)? {
            let place = usize::try_from(row).ok().and_then(|row| matches.get_mut(row));
            place.ok_or("table matches does not fit table waiting")?.extend(found);
        }
        let started = started_of(named(tables, "started")?, &numbers)?;
        if tables.iter().any(|(name, _)| name == SINCE) {
            self.since = self.since_of(named(tables, SINCE)?, &numbers)?;
        }
        for (entry, mut matches) in entries.iter().zip(matches) {
            // Numbers may be in another order than they were.
            matches.sort_by_key(|found: &HeldMatch| (found.detection, std::cmp::Reverse(found.step)));
            let event = entry.text(Column::EventId).map_or(0, number);
            let (kept, row) = entry.place();
            self.held.insert((entry.event_us, event), Held { kept: Arc::clone(kept), row, matches });
        }
        for (us, key) in started {
            self.started.insert(key, us);
            self.started_order.push_back((us, key));
        }
        Ok(())
    }

    /// From when on detections were shown the cluster's events; those that are not in the table begin now.
    fn since_of(&self, table: &RecordBatch, numbers: &Numbers<'_>) -> Result<BTreeMap<usize, i64>, String> {
        let (ids, meanings, us) = (texts(table, "detection")?, texts(table, "meaning")?, ints64(table, "us")?);
        let known = ids.iter().zip(&meanings).zip(us);
        let known: HashMap<(&str, &str), i64> = known.map(|((id, of), us)| ((id.as_str(), of.as_str()), us)).collect();
        let now_us = self.born_us.max(self.watermark_us);
        let of = numbers.iter().map(|(names, number)| (*number, known.get(names).copied().unwrap_or(now_us)));
        Ok(of.filter(|(_, us)| *us != self.born_us).collect())
    }

    /// Puts back how far the cluster had come, and lanes that this run has not met yet.
    pub fn resume(&mut self, watermark_us: Option<i64>, lanes: BTreeMap<(String, String), i64>) {
        self.watermark_us = watermark_us.unwrap_or(i64::MIN);
        self.awaited = lanes;
    }

    /// Puts a memory in place.
    pub fn put(&mut self, detection: usize, recall: Box<dyn crate::stage::memory::Recall>) {
        let due = recall.due();
        self.recalls.insert(detection, recall);
        self.sleep(detection, due);
    }
}

type Numbers<'a> = HashMap<(&'a str, &'a str), usize>;

/// Rows and who keeps them; nobody, where the detection is gone or means something else now.
fn matches_of(table: &RecordBatch, numbers: &Numbers<'_>) -> Result<Vec<(i64, Option<HeldMatch>)>, String> {
    let (rows, steps) = (ints64(table, "row")?, ints64(table, "step")?);
    let (ids, meanings) = (texts(table, "detection")?, texts(table, "meaning")?);
    let computed = texts(table, "computed")?;
    let mut found = Vec::with_capacity(rows.len());
    for ((((row, step), id), meaning), text) in rows.into_iter().zip(steps).zip(&ids).zip(&meanings).zip(computed) {
        let Some(detection) = numbers.get(&(id.as_str(), meaning.as_str())).copied() else {
            found.push((row, None));
            continue;
        };
        let computed: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| format!("column computed: {error}"))?;
        let computed = computed.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
        found.push((row, Some(HeldMatch { detection, step: step_of(step)?, computed })));
    }
    Ok(found)
}

type Started = (i64, (u128, usize, usize));

fn started_of(table: &RecordBatch, numbers: &Numbers<'_>) -> Result<Vec<Started>, String> {
    let (us, steps, requests) = (ints64(table, "us")?, ints64(table, "step")?, read_keys(table)?);
    let (ids, meanings) = (texts(table, "detection")?, texts(table, "meaning")?);
    let mut found = Vec::with_capacity(us.len());
    for ((((us, step), request), id), meaning) in us.into_iter().zip(steps).zip(requests).zip(&ids).zip(&meanings) {
        if let Some(detection) = numbers.get(&(id.as_str(), meaning.as_str())) {
            found.push((us, (u128::from_be_bytes(request), *detection, step_of(step)?)));
        }
    }
    Ok(found)
}

fn step_of(step: i64) -> Result<usize, String> {
    usize::try_from(step).map_err(|_| "column step is not as expected".to_owned())
}

fn int_column(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn text_column<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}
