//! What was found at a start: positions, clocks and tables, and of what there is nothing, why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::manifest::{ClusterClock, Manifest, PartKey, PartRecord, Positions, Quarantine, Scope, Versions};
use super::read::Damage;
use super::table::Table;

/// The state that a process starts with.
#[derive(Debug, Default)]
pub struct Image {
    /// The epoch that it is from; `None` where the place was empty or nothing could be read.
    pub epoch: Option<u64>,
    /// Number of the set of detections that it is of.
    pub generation: u64,
    /// Detections that are not in force, by id.
    pub quarantined: BTreeMap<String, Quarantine>,
    /// Where every lane goes on.
    pub positions: Positions,
    pub clusters: BTreeMap<String, ClusterClock>,
    /// What could not be read, newest epoch first. Where an older epoch was taken, its positions are older, too, and
    /// nothing is missing.
    pub damages: Vec<Damage>,
    parts: BTreeMap<PartKey, Kept>,
    /// Whether there was state, and no manifest of it can be read.
    unreadable: bool,
}

#[derive(Debug)]
struct Kept {
    record: PartRecord,
    tables: Result<Vec<Table>, String>,
}

/// What became of one part.
#[derive(Debug)]
pub enum Loaded {
    /// Nothing was ever kept under this name.
    Fresh,
    /// The tables as they were saved.
    Restored(Vec<Table>),
    /// Something was kept and cannot be used: what it remembered has to be learned again.
    Gap(Gap),
}

/// A part whose memory is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub key: PartKey,
    pub reason: GapReason,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory of {} begins anew: {}", self.key, self.reason)
    }
}

/// Why what was kept cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GapReason {
    /// The detection's query, window or key changed.
    #[error("what the detection keeps has changed")]
    Changed,
    /// Tables of another engine.
    #[error("it was written by {was}, and this is {is}")]
    Engine { was: String, is: String },
    /// Rows of another version of the table `audit`.
    #[error("its rows are of version {was} of the table audit, and this is {is}")]
    Schema { was: String, is: String },
    /// Bytes are missing or changed, in every epoch that there is.
    #[error("{0}")]
    Damaged(String),
}

impl GapReason {
    /// One word, for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            GapReason::Changed => "changed",
            GapReason::Engine { .. } => "engine",
            GapReason::Schema { .. } => "schema",
            GapReason::Damaged(_) => "damaged",
        }
    }
}

impl Image {
    /// Nothing was ever kept here.
    pub(super) fn empty() -> Image {
        Image::default()
    }

    /// There was state, and no manifest can be read.
    pub(super) fn unreadable(damages: Vec<Damage>) -> Image {
        Image { damages, unreadable: true, ..Image::default() }
    }

    /// What a manifest names, with the tables of each of its parts or what is wrong with them, in its order.
    pub(super) fn of(manifest: &Manifest, tables: Vec<Result<Vec<Table>, String>>, damages: Vec<Damage>) -> Image {
        let parts = manifest.parts.iter().cloned().zip(tables);
        Image {
            epoch: Some(manifest.epoch),
            generation: manifest.generation,
            quarantined: manifest.quarantined.clone(),
            positions: manifest.positions.clone(),
            clusters: manifest.clusters.clone(),
            damages,
            parts: parts.map(|(record, tables)| (record.key.clone(), Kept { record, tables })).collect(),
            unreadable: false,
        }
    }

    /// Whether this is the first start.
    pub fn is_fresh(&self) -> bool {
        self.epoch.is_none() && !self.unreadable
    }

    /// The clusters in which something of a detection was kept.
    pub fn clusters_of(&self, detection: &str) -> Vec<String> {
        let of = self.parts.keys().filter(|key| matches!(&key.scope, Scope::Detection(id) if id == detection));
        of.filter_map(|key| key.cluster.clone()).collect()
    }

    /// Takes a part out. `fingerprint` is the meaning that its user has for it, `versions` what runs now.
    pub fn take(&mut self, key: &PartKey, fingerprint: &str, versions: &Versions) -> Loaded {
        let gap = |reason| Loaded::Gap(Gap { key: key.clone(), reason });
        if self.unreadable {
            return gap(GapReason::Damaged("no manifest of the state can be read".to_owned()));
        }
        let Some(Kept { record, tables }) = self.parts.remove(key) else { return Loaded::Fresh };
        if record.fingerprint != fingerprint {
            return gap(GapReason::Changed);
        }
        if let Some(was) = record.engine.filter(|engine| *engine != versions.engine) {
            return gap(GapReason::Engine { was, is: versions.engine.clone() });
        }
        if let Some(was) = record.schema.filter(|schema| *schema != versions.schema) {
            return gap(GapReason::Schema { was, is: versions.schema.clone() });
        }
        match tables {
            Ok(tables) => Loaded::Restored(tables),
            Err(reason) => gap(GapReason::Damaged(reason)),
        }
    }

    /// Detections of which something was kept and that nobody has taken: they are not loaded any more.
    pub fn left(&self) -> BTreeSet<&str> {
        let ids = self.parts.keys().filter(|key| matches!(key.scope, Scope::Detection(_)));
        ids.map(PartKey::name).collect()
    }
}
