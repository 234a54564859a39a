//! For which keys a query is true, since when, and what was told about them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Groups of events that are remembered as told for one key; further ones count as told.
const GROUPS_MAX: usize = 1000;

/// One key that is or was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    /// The hop at which it turned true: what its finding is named after.
    pub(super) at_us: i64,
    /// The last hop at which it was true.
    pub(super) last_us: i64,
    /// Whether it was true at the last hop.
    pub(super) on: bool,
    /// Events with a lower number were told.
    pub(super) told: u64,
    /// The groups of events that were told.
    pub(super) groups: BTreeSet<u64>,
    /// The last hop that it was found at.
    found_us: i64,
}

impl Edge {
    /// An edge as it was saved.
    pub(super) fn new(at_us: i64, last_us: i64, on: bool, told: u64, groups: BTreeSet<u64>) -> Edge {
        Edge { at_us, last_us, on, told, groups, found_us: last_us }
    }
}

/// What an answer says about a key.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) groups: Vec<u64>,
    /// The number after that of its newest event.
    pub(super) next: u64,
}

/// All keys, by their values as JSON.
#[derive(Debug, Default)]
pub(super) struct Edges {
    all: BTreeMap<String, Edge>,
    now_us: i64,
}

impl Edges {
    /// Begins a hop: whatever was true stayed so up to the hop before, and what is off for longer than `suppress_us` is
    /// forgotten.
    pub(super) fn begin(&mut self, now_us: i64, before_us: i64, suppress_us: i64) {
        self.now_us = now_us;
        self.all.retain(|_, edge| {
            if edge.on {
                edge.last_us = edge.last_us.max(before_us);
            }
            edge.on || now_us.saturating_sub(edge.last_us) <= suppress_us
        });
    }

    /// A key that is true at this hop: the hop of its edge, where there is something to tell.
    pub(super) fn on(&mut self, key: &str, seen: Seen) -> Option<i64> {
        let now_us = self.now_us;
        // What is still there goes on: `begin` forgot the rest.
        let edge =
            self.all.entry(key.to_owned()).or_insert_with(|| Edge::new(now_us, now_us, true, 0, BTreeSet::new()));
        (edge.last_us, edge.found_us, edge.on) = (now_us, now_us, true);
        let mut news = seen.next > edge.told;
        edge.told = edge.told.max(seen.next);
        for group in seen.groups {
            if edge.groups.len() < GROUPS_MAX && edge.groups.insert(group) {
                news = true;
            }
        }
        news.then_some(edge.at_us)
    }

    /// Ends the hop: what was not found is off.
    pub(super) fn end(&mut self) {
        let now_us = self.now_us;
        self.all.values_mut().for_each(|edge| edge.on = edge.found_us == now_us);
    }

    /// The last hop at which some key was true.
    pub(super) fn last_us(&self) -> Option<i64> {
        self.all.values().map(|edge| edge.last_us).max()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes, about.
    pub(super) fn bytes(&self) -> u64 {
        let of = |(key, edge): (&String, &Edge)| key.len() + size_of::<Edge>() + edge.groups.len() * 16;
        self.all.iter().map(of).sum::<usize>() as u64
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Edge)> {
        self.all.iter().map(|(key, edge)| (key.as_str(), edge))
    }

    /// Puts a key back.
    ///
    /// # Errors
    /// Where it is no list of values.
    pub(super) fn insert(&mut self, key: &str, edge: Edge) -> Result<(), String> {
        serde_json::from_str::<Vec<Value>>(key).map_err(|error| format!("the key {key} is not readable: {error}"))?;
        self.all.insert(key.to_owned(), edge);
        Ok(())
    }
}
