//! Lanes by name: their ids differ from run to run, so what outlives a run is said in names.

use std::collections::{BTreeMap, HashMap};

use crate::model::{Lane, LaneId};
use crate::state::Positions;

/// Source and lane, as people call them.
pub type LaneName = (String, String);

/// Gives each source a name of its own: a second one of the same name becomes `name#2`.
#[derive(Debug, Clone, Default)]
pub struct SourceNames(HashMap<String, usize>);

impl SourceNames {
    /// The name under which the positions of the next source are kept.
    pub fn next(&mut self, name: &str) -> String {
        let count = self.0.entry(name.to_owned()).or_default();
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}#{count}") }
    }
}

/// The lanes of a run and how far each is done.
#[derive(Debug)]
pub struct Lanes {
    /// By number of the source.
    sources: Vec<String>,
    names: HashMap<(usize, LaneId), LaneName>,
    /// Also of lanes that an earlier run has read and this one has not met yet.
    positions: Positions,
}

impl Lanes {
    /// Lanes of these sources; `positions` are those of an earlier run.
    pub fn new(sources: &[String], positions: Positions) -> Lanes {
        let mut names = SourceNames::default();
        Lanes { sources: sources.iter().map(|name| names.next(name)).collect(), names: HashMap::new(), positions }
    }

    /// The lane's names, where it is met for the first time.
    pub fn meet(&mut self, source: usize, id: LaneId, lanes: &[Lane]) -> Option<LaneName> {
        if self.names.contains_key(&(source, id)) {
            return None;
        }
        let name = (self.sources.get(source)?.clone(), lanes.get(id as usize)?.name.to_string());
        self.names.insert((source, id), name.clone());
        Some(name)
    }

    /// Gives a lane its names, where these come with it.
    pub fn know(&mut self, source: usize, id: LaneId, name: LaneName) {
        self.names.insert((source, id), name);
    }

    /// Notes that everything before `offset` of a lane is part of the state; never goes back.
    pub fn reach(&mut self, (source, lane): &LaneName, offset: u64) {
        let known = self.positions.entry(source.clone()).or_default().entry(lane.clone()).or_default();
        *known = offset.max(*known);
    }

    /// Up to where a lane is part of the state; nothing where it is not known.
    pub fn reached(&self, (source, lane): &LaneName) -> Option<u64> {
        self.positions.get(source)?.get(lane).copied()
    }

    /// Notes that everything before `offset` is part of the state.
    pub fn advance(&mut self, source: usize, id: LaneId, offset: u64) {
        if let Some((source, lane)) = self.names.get(&(source, id)) {
            self.positions.entry(source.clone()).or_default().insert(lane.clone(), offset);
        }
    }

    /// The names of a lane that was met.
    pub fn name(&self, source: usize, id: LaneId) -> Option<LaneName> {
        self.names.get(&(source, id)).cloned()
    }

    /// The number of a source by its name.
    pub fn source(&self, name: &str) -> Option<usize> {
        self.sources.iter().position(|known| known == name)
    }

    /// The positions of all lanes but those that `is_gone` says somebody else reads now.
    pub fn positions(&self, is_gone: impl Fn(&str, &str) -> bool) -> Positions {
        let of = self.positions.iter().map(|(source, lanes)| {
            let lanes = lanes.iter().filter(|(lane, _)| !is_gone(source, lane));
            (source.clone(), lanes.map(|(lane, offset)| (lane.clone(), *offset)).collect::<BTreeMap<_, _>>())
        });
        of.filter(|(_, lanes)| !lanes.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> Lane {
        Lane { name: name.into(), fallback_cluster: "c".into(), cluster: None }
    }

    #[test]
    fn positions_are_by_name_whatever_the_ids() {
        let before = Positions::from([(
            "audit".to_owned(),
            BTreeMap::from([("audit/0".to_owned(), 7), ("audit/1".to_owned(), 5)]),
        )]);
        let mut lanes = Lanes::new(&["audit".to_owned(), "audit".to_owned()], before);
        let order = [lane("audit/1"), lane("audit/0")];
        assert_eq!(lanes.meet(0, 0, &order), Some(("audit".to_owned(), "audit/1".to_owned())));
        assert_eq!(lanes.meet(0, 0, &order), None);
        lanes.advance(0, 0, 9);
        lanes.advance(0, 1, 99);
        assert!(lanes.meet(1, 1, &order).is_some());
        lanes.advance(1, 1, 3);
        let positions = lanes.positions(|source, lane| (source, lane) == ("audit", "audit/0"));
        assert_eq!(positions["audit"], BTreeMap::from([("audit/1".to_owned(), 9)]));
        assert_eq!(positions["audit#2"], BTreeMap::from([("audit/0".to_owned(), 3)]));
        assert_eq!(lanes.positions(|_, _| false)["audit"]["audit/0"], 7, "not met, so it stays where it was");
    }
}
