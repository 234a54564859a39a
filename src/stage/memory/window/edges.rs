//! For which keys a query is true, since when, and what was told about them.

use std::collections::BTreeMap;

use serde_json::Value;

/// Groups of events that are remembered for one key; all others are remembered as one.
const GROUPS_MAX: usize = 1000;
/// The number of that one.
const OTHERS: u64 = u64::MAX;

/// One key that is or was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    /// The hop at which it turned true: what its finding is named after.
    pub(super) at_us: i64,
    /// The last hop at which it was true.
    pub(super) last_us: i64,
    /// Whether it was true at the last hop.
    pub(super) on: bool,
    /// By group of events: those with a lower number were told.
    pub(super) told: BTreeMap<u64, u64>,
    /// The last hop that it was found at.
    found_us: i64,
}

impl Edge {
    /// An edge as it was saved.
    pub(super) fn new(at_us: i64, last_us: i64, on: bool, told: BTreeMap<u64, u64>) -> Edge {
        Edge { at_us, last_us, on, told, found_us: last_us }
    }

    /// Up to which number events of a group were told, if it was.
    fn told_of(&self, group: u64) -> Option<u64> {
        self.told.get(&group).or_else(|| self.told.get(&OTHERS)).copied()
    }
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

    /// Whether these groups of a key were all told before.
    pub(super) fn knows(&self, key: &str, groups: impl IntoIterator<Item = u64>) -> bool {
        self.all.get(key).is_some_and(|edge| groups.into_iter().all(|group| edge.told_of(group).is_some()))
    }

    /// A key that is true at this hop, with its groups of events, each with the number after that of its newest event:
    /// the hop of its edge, where there is something to tell.
    pub(super) fn on(&mut self, key: &str, groups: impl IntoIterator<Item = (u64, u64)>) -> Option<i64> {
        let now_us = self.now_us;
        // What is still there goes on: `begin` forgot the rest.
        let edge = self.all.entry(key.to_owned()).or_insert_with(|| Edge::new(now_us, now_us, true, BTreeMap::new()));
        (edge.last_us, edge.found_us, edge.on) = (now_us, now_us, true);
        let mut news = false;
        for (group, next) in groups {
            news |= edge.told_of(group).is_none_or(|told| told < next);
            let group = if edge.told.contains_key(&group) || edge.told.len() < GROUPS_MAX { group } else { OTHERS };
            let told = edge.told.entry(group).or_default();
            *told = next.max(*told);
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
        let of = |(key, edge): (&String, &Edge)| key.len() + size_of::<Edge>() + edge.told.len() * 32;
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
