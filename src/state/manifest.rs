//! What a manifest says, and how it stands in its file.
//!
//! A manifest is the commit: it names the tables of every part of the state, the position of every lane that they
//! cover, and the clocks of every cluster. It is written once under the number of its epoch and never changed. The file
//! holds the manifest and the BLAKE3 of its text, so that a torn or changed one is known for what it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of this form. A manifest of another one is refused, never guessed at.
pub const FORMAT: u32 = 1;

/// By source, by lane's name: the first offset that is not part of the state.
///
/// Names and not numbers, as the ids of lanes differ from run to run.
pub type Positions = BTreeMap<String, BTreeMap<String, u64>>;

/// What wrote a manifest; a part that depends on one of these is not put back into another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Of Kubetide; for people.
    pub product: String,
    /// Of the SQL engine, such as `datafusion 55.2.0`.
    pub engine: String,
    /// Of the table `audit`.
    pub schema: String,
}

/// Why a detection is not evaluated: a gap in what is seen, from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Of its queries: another one gets a fresh chance.
    pub fingerprint: String,
    /// What went wrong the last time.
    pub reason: String,
    /// Since when, by the wall clock, milliseconds since the epoch.
    pub since_ms: i64,
}

/// Event time in one cluster, microseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterClock {
    /// When the cluster was first heard of.
    pub born_us: i64,
    /// No event before this is waited for any more, be it that all lanes have come further or that the wall clock has
    /// decided so: a replay does not decide it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watermark_us: Option<i64>,
    /// Newest event by source and lane.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<String, BTreeMap<String, i64>>,
}

/// What a part of the state belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A detection, by its id.
    Detection(String),
    /// Something that all detections share, by name: `findings`, `timeline`.
    Shared(String),
}

/// Name of a part: one for each scope and cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartKey {
    #[serde(flatten)]
    pub scope: Scope,
    /// `None`: of all clusters together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<String>,
}

impl PartKey {
    /// The part of a detection in a cluster.
    pub fn detection(id: &str, cluster: &str) -> PartKey {
        PartKey { scope: Scope::Detection(id.to_owned()), cluster: Some(cluster.to_owned()) }
    }

    /// A part that belongs to no single detection.
    pub fn shared(name: &str, cluster: Option<&str>) -> PartKey {
        PartKey { scope: Scope::Shared(name.to_owned()), cluster: cluster.map(str::to_owned) }
    }

    /// The detection's id, or the shared name.
    pub fn name(&self) -> &str {
        match &self.scope {
            Scope::Detection(name) | Scope::Shared(name) => name,
        }
    }
}

impl std::fmt::Display for PartKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "{} in {cluster}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// A part as a manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    #[serde(flatten)]
    pub key: PartKey,
    /// `window`, `sequence`, `first_seen`, `anomaly`, or the shared name.
    pub kind: String,
    /// Meaning of what is kept ([`super::fingerprint`]).
    pub fingerprint: String,
    /// Engine that the tables can only be used with; absent where they are plain rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine: Option<String>,
    /// Version of the table `audit` whose rows are in the tables; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schema: Option<String>,
    /// Events that are kept.
    pub rows: u64,
    /// Keys that are remembered.
    pub keys: u64,
    pub files: Vec<FileRecord>,
}

impl PartRecord {
    /// Bytes of its tables as they are stored.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// A table: an Arrow IPC stream, a stretch of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    pub table: String,
    /// The object below the place.
    pub object: String,
    pub offset: u64,
    pub bytes: u64,
    pub rows: u64,
    /// BLAKE3 of the bytes, 64 hexadecimal digits.
    pub checksum: String,
}

/// One commit of the whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    #[serde(flatten)]
    pub versions: Versions,
    pub epoch: u64,
    /// The epoch that this one continues.
    pub previous: Option<u64>,
    /// The process that wrote it; told to whoever comes too late.
    pub owner: String,
    /// Wall clock, milliseconds since the epoch; for people only, nothing is decided by it.
    pub written_ms: i64,
    /// Number of the set of detections that it is of; 0 where the version that wrote it did not count them.
    #[serde(default)]
    pub generation: u64,
    /// Detections that were taken out of force because evaluating them harmed the others, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined: BTreeMap<String, Quarantine>,
    pub positions: Positions,
    pub clusters: BTreeMap<String, ClusterClock>,
    pub parts: Vec<PartRecord>,
    /// Every object that a table is in, and its bytes.
    pub objects: BTreeMap<String, u64>,
}

impl Manifest {
    /// The name of an epoch's manifest; in order of names they are in order of epochs.
    pub fn name(epoch: u64) -> String {
        format!("manifest-{epoch:012}.json")
    }

    /// The epoch that a name stands for.
    pub fn epoch_of(name: &str) -> Option<u64> {
        name.strip_prefix("manifest-")?.strip_suffix(".json")?.parse().ok()
    }

    /// All tables.
    pub fn files(&self) -> impl Iterator<Item = &FileRecord> {
        self.parts.iter().flat_map(|part| &part.files)
    }

    /// Bytes of all tables as they are stored.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(PartRecord::bytes).sum()
    }

    /// The furthest watermark of all clusters: how old this state is by event time.
    pub fn newest_us(&self) -> Option<i64> {
        self.clusters.values().filter_map(|clock| clock.watermark_us).max()
    }

    /// The file's text.
    pub(super) fn seal(&self) -> Bytes {
        let text = serde_json::to_string(self).expect("plain data with text keys always serialises");
        let checksum = checksum(text.as_bytes());
        format!("{{\"checksum\":\"{checksum}\",\"manifest\":{text}}}\n").into()
    }

    /// Reads a file's text.
    pub(super) fn open(text: &[u8]) -> Result<Manifest, Unsealed> {
        #[derive(Deserialize)]
        struct Sealed<'a> {
            checksum: String,
            #[serde(borrow)]
            manifest: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            #[serde(default)]
            product: String,
        }
        let damaged = |error: serde_json::Error| Unsealed::Damaged(error.to_string());
        let sealed: Sealed<'_> = serde_json::from_slice(text).map_err(damaged)?;
        if checksum(sealed.manifest.get().as_bytes()) != sealed.checksum {
            return Err(Unsealed::Damaged("its checksum does not fit its text".to_owned()));
        }
        let head: Head = serde_json::from_str(sealed.manifest.get()).map_err(damaged)?;
        if head.format != FORMAT {
            return Err(Unsealed::Format { found: head.format, product: head.product });
        }
        serde_json::from_str(sealed.manifest.get()).map_err(damaged)
    }
}

/// Why a manifest's text gives no manifest.
#[derive(Debug)]
pub(super) enum Unsealed {
    Damaged(String),
    Format { found: u32, product: String },
}

/// BLAKE3 as 64 hexadecimal digits.
pub(super) fn checksum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = |text: &str| text.to_owned();
        let lanes = BTreeMap::from([(text("audit/0"), 42)]);
        let part = |key, engine: Option<&str>| PartRecord {
            key,
            kind: text("window"),
            fingerprint: text("f"),
            engine: engine.map(text),
            schema: None,
            rows: 1,
            keys: 2,
            files: vec![FileRecord {
                table: text("rows"),
                object: text("data/x"),
                offset: 0,
                bytes: 3,
                rows: 1,
                checksum: text("c"),
            }],
        };
        Manifest {
            format: FORMAT,
            versions: Versions { product: text("1"), engine: text("2"), schema: text("3") },
            epoch: 7,
            previous: Some(6),
            owner: text("me"),
            written_ms: 1,
            generation: 4,
            quarantined: BTreeMap::from([(
                text("d"),
                Quarantine { fingerprint: text("f"), reason: text("r"), since_ms: 3 },
            )]),
            positions: BTreeMap::from([(text("audit"), lanes)]),
            clusters: BTreeMap::from([(
                text("prod"),
                ClusterClock {
                    born_us: -9,
                    watermark_us: Some(-5),
                    lanes: BTreeMap::from([(text("audit"), BTreeMap::from([(text("audit/0"), 9)]))]),
                },
            )]),
            parts: vec![
                part(PartKey::detection("d", "prod"), Some("e")),
                part(PartKey::shared("findings", None), None),
            ],
            objects: BTreeMap::from([(text("data/x"), 3)]),
        }
    }

    #[test]
    fn what_is_sealed_is_read_again() {
        let manifest = manifest();
        let sealed = manifest.seal();
        assert_eq!(Manifest::open(&sealed).expect("whole"), manifest);
        assert_eq!((manifest.bytes(), manifest.newest_us()), (6, Some(-5)));
    }

    #[test]
    fn every_changed_or_cut_byte_is_noticed() {
        let sealed = manifest().seal();
        let whole = sealed.len() - 1;
        for at in 0..whole {
            assert!(Manifest::open(&sealed[..at]).is_err(), "cut at {at}");
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(Manifest::open(&changed).is_err(), "changed at {at}: {}", String::from_utf8_lossy(&changed));
        }
    }

    #[test]
    fn another_format_is_told_apart_from_damage() {
        let newer = Manifest { format: 9, ..manifest() };
        assert!(matches!(Manifest::open(&newer.seal()), Err(Unsealed::Format { found: 9, .. })));
    }

    #[test]
    fn names_are_in_order_of_epochs() {
        let names: Vec<String> = [1, 9, 10, 999, 1_000_000_000].map(Manifest::name).to_vec();
        assert!(names.is_sorted());
        assert_eq!(Manifest::epoch_of(&Manifest::name(77)), Some(77));
        assert_eq!(Manifest::epoch_of("manifest-x.json"), None);
        assert_eq!(Manifest::epoch_of("manifest-000000000001.json#1"), None);
    }
}
