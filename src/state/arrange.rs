//! Which tables are written anew, and into which objects.
//!
//! A table that did not change keeps its place; all others of an epoch go one behind the other into one object, or
//! several where that gets large. An object of which less than half is still named is written anew, so that what is
//! stored stays below twice of what is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::keeper::Part;
use super::manifest::{FileRecord, Manifest, PartRecord, Versions};
use super::table::{Encoded, encode};
use super::{DATA, StateError};

/// Bytes after which an object is closed.
const OBJECT_BYTES: u64 = 64 << 20;

/// A part and its tables as they will be stored.
#[derive(Debug)]
pub(super) struct EncodedPart {
    /// Without its tables.
    part: Part,
    tables: Vec<Encoded>,
}

/// Brings all tables into their stored form.
pub(super) fn encode_all(parts: Vec<Part>) -> Result<Vec<EncodedPart>, StateError> {
    let one = |mut part: Part| {
        let tables = std::mem::take(&mut part.tables);
        let encoded = tables.iter().map(|(name, batch)| {
            encode(name, batch).map_err(|error| StateError::Encode {
                part: part.key.to_string(),
                table: name.clone(),
                reason: error.to_string(),
            })
        });
        let tables = encoded.collect::<Result<_, _>>()?;
        Ok(EncodedPart { part, tables })
    };
    parts.into_iter().map(one).collect()
}

/// An object to be written, in pieces.
pub(super) type Object = (String, Vec<Bytes>);

/// What an epoch names.
#[derive(Debug)]
pub(super) struct Arranged {
    pub parts: Vec<PartRecord>,
    /// Bytes of every object that is named.
    pub objects: BTreeMap<String, u64>,
    /// Those of them that have to be written.
    pub new: Vec<Object>,
}

/// Finds a place for every table; `last` is the manifest of the epoch before.
pub(super) fn arrange(epoch: u64, versions: &Versions, parts: Vec<EncodedPart>, last: Option<&Manifest>) -> Arranged {
    let mut places = stay(&parts, last);
    let mut objects = Vec::new();
    let mut open = Open::default();
    for table in parts.iter().flat_map(|part| &part.tables) {
        if places.contains_key(&table.checksum) {
            continue;
        }
        if open.bytes > 0 && open.bytes + table.bytes.len() as u64 > OBJECT_BYTES {
            objects.extend(std::mem::take(&mut open).close(epoch, &mut places));
        }
        open.add(table);
        // Found again by the next table of the same content; where it is, is known when the object is closed.
        places.insert(table.checksum.clone(), Place::default());
    }
    objects.extend(open.close(epoch, &mut places));
    let parts: Vec<PartRecord> = parts.into_iter().map(|part| record(part, versions, &places)).collect();
    let mut sizes: BTreeMap<String, u64> = last.map(|last| last.objects.clone()).unwrap_or_default();
    sizes.extend(objects.iter().map(|(name, pieces)| (name.clone(), pieces.iter().map(|p| p.len() as u64).sum())));
    let named: BTreeSet<&str> = parts.iter().flat_map(|part| &part.files).map(|file| file.object.as_str()).collect();
    sizes.retain(|name, _| named.contains(name.as_str()));
    Arranged { parts, objects: sizes, new: objects }
}

#[derive(Debug, Clone, Default)]
struct Place {
    object: String,
    offset: u64,
}

type Places = HashMap<String, Place>;

/// The tables that stay where they are, by checksum.
fn stay(parts: &[EncodedPart], last: Option<&Manifest>) -> Places {
    let Some(last) = last else { return Places::new() };
    let wanted: BTreeMap<&str, u64> = parts
        .iter()
        .flat_map(|part| &part.tables)
        .map(|table| (table.checksum.as_str(), table.bytes.len() as u64))
        .collect();
    let mut places = Places::new();
    let mut live: HashMap<&str, u64> = HashMap::new();
    for file in last.parts.iter().flat_map(|part| &part.files) {
        let Some(bytes) = wanted.get(file.checksum.as_str()) else { continue };
        let place = Place { object: file.object.clone(), offset: file.offset };
        if places.insert(file.checksum.clone(), place).is_none() {
            *live.entry(&file.object).or_default() += bytes;
        }
    }
    let is_dense = |object: &str| {
        let live = live.get(object).copied().unwrap_or_default();
        last.objects.get(object).is_some_and(|bytes| live * 2 >= *bytes)
    };
    places.retain(|_, place| is_dense(&place.object));
    places
}

/// An object that is being filled.
#[derive(Debug, Default)]
struct Open {
    bytes: u64,
    tables: Vec<(String, Bytes)>,
}

impl Open {
    fn add(&mut self, table: &Encoded) {
        self.bytes += table.bytes.len() as u64;
        self.tables.push((table.checksum.clone(), table.bytes.clone()));
    }

    /// The object, named by epoch and content; none where nothing is in it.
    fn close(self, epoch: u64, places: &mut Places) -> Option<Object> {
        if self.tables.is_empty() {
            return None;
        }
        let mut content = blake3::Hasher::new();
        for (checksum, _) in &self.tables {
            content.update(checksum.as_bytes());
        }
        let digest = content.finalize().to_hex();
        let name = format!("{DATA}/{epoch:012}-{}.arrows", digest.get(..16).unwrap_or_default());
        let mut offset = 0;
        for (checksum, bytes) in &self.tables {
            places.insert(checksum.clone(), Place { object: name.clone(), offset });
            offset += bytes.len() as u64;
        }
        Some((name, self.tables.into_iter().map(|(_, bytes)| bytes).collect()))
    }
}

/// The epoch in which an object was made.
pub(super) fn epoch_of(object: &str) -> Option<u64> {
    object.strip_prefix(DATA)?.strip_prefix('/')?.split_once('-')?.0.parse().ok()
}

fn record(encoded: EncodedPart, versions: &Versions, places: &Places) -> PartRecord {
    let EncodedPart { part, tables } = encoded;
    let file = |table: Encoded| {
        let place = places.get(&table.checksum).cloned().unwrap_or_default();
        FileRecord {
            table: table.table,
            object: place.object,
            offset: place.offset,
            bytes: table.bytes.len() as u64,
            rows: table.rows,
            checksum: table.checksum,
        }
    };
    PartRecord {
        key: part.key,
        kind: part.kind,
        fingerprint: part.fingerprint,
        engine: part.needs_engine.then(|| versions.engine.clone()),
        schema: part.needs_schema.then(|| versions.schema.clone()),
        rows: part.rows,
        keys: part.keys,
        files: tables.into_iter().map(file).collect(),
    }
}
