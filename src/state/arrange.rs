//! Which tables are written anew, and into which objects.
//!
//! A table that did not change keeps its place; all others of an epoch go one behind the other into one object, or
//! several where that gets large. An object of which less than half is still named is written anew, so that what is
//! stored stays below twice of what is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::keeper::Part;
use super::manifest::{FileRecord, Manifest, PartKey, PartRecord, Versions, checksum};
use super::table::{encode, is_shared, same};
use super::{DATA, StateError};

/// Bytes after which an object is closed.
const OBJECT_BYTES: u64 = 64 << 20;

/// A table and what is known of its stored form.
#[derive(Debug)]
struct Encoded {
    table: String,
    batch: RecordBatch,
    known: Known,
    /// `None` where it was brought into its stored form before.
    bytes: Option<Bytes>,
}

#[derive(Debug, Clone)]
struct Known {
    checksum: String,
    bytes: u64,
    rows: u64,
}

/// A part and its tables as they will be stored.
#[derive(Debug)]
pub(super) struct EncodedPart {
    /// Without its tables.
    part: Part,
    tables: Vec<Encoded>,
}

/// Brings tables into their stored form, and remembers those that live on and do not change: closed panes of a window
/// come again with every snapshot.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    seen: HashMap<(PartKey, String), (RecordBatch, Known)>,
}

impl Encoder {
    /// All tables of all parts.
    pub(super) fn encode(&mut self, parts: Vec<Part>) -> Result<Vec<EncodedPart>, StateError> {
        let mut before = std::mem::take(&mut self.seen);
        let mut encoded = Vec::with_capacity(parts.len());
        for mut part in parts {
            let mut tables = Vec::with_capacity(part.tables.len());
            for (table, batch) in std::mem::take(&mut part.tables) {
                let place = (part.key.clone(), table);
                let again = before.remove(&place).filter(|(seen, _)| same(seen, &batch));
                let (known, bytes) = match again {
                    Some((_, known)) => (known, None),
                    None => {
                        let bytes = bytes_of(&part.key, &place.1, &batch)?;
                        let (checksum, rows) = (checksum(&bytes), batch.num_rows() as u64);
                        (Known { checksum, bytes: bytes.len() as u64, rows }, Some(bytes))
                    }
                };
                let table = place.1.clone();
                if is_shared(&batch) {
                    self.seen.insert(place, (batch.clone(), known.clone()));
                }
                tables.push(Encoded { table, batch, known, bytes });
            }
            encoded.push(EncodedPart { part, tables });
        }
        Ok(encoded)
    }
}

fn bytes_of(part: &PartKey, table: &str, batch: &RecordBatch) -> Result<Bytes, StateError> {
    encode(batch).map_err(|error| StateError::Encode {
        part: part.to_string(),
        table: table.to_owned(),
        reason: error.to_string(),
    })
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
pub(super) fn arrange(
    epoch: u64,
    versions: &Versions,
    parts: Vec<EncodedPart>,
    last: Option<&Manifest>,
) -> Result<Arranged, StateError> {
    let mut places = stay(&parts, last);
    let mut objects = Vec::new();
    let mut open = Open::default();
    for (part, table) in parts.iter().flat_map(|part| part.tables.iter().map(move |table| (&part.part, table))) {
        if places.contains_key(&table.known.checksum) {
            continue;
        }
        if open.bytes > 0 && open.bytes + table.known.bytes > OBJECT_BYTES {
            objects.extend(std::mem::take(&mut open).close(epoch, &mut places));
        }
        let bytes = match &table.bytes {
            Some(bytes) => bytes.clone(),
            // It did not change, and its object is sparse by now.
            None => bytes_of(&part.key, &table.table, &table.batch)?,
        };
        open.add(table.known.checksum.clone(), bytes);
        // Found again by the next table of the same content; where it is, is known when the object is closed.
        places.insert(table.known.checksum.clone(), Place::default());
    }
    objects.extend(open.close(epoch, &mut places));
    let parts: Vec<PartRecord> = parts.into_iter().map(|part| record(part, versions, &places)).collect();
    let mut sizes: BTreeMap<String, u64> = last.map(|last| last.objects.clone()).unwrap_or_default();
    sizes.extend(objects.iter().map(|(name, pieces)| (name.clone(), pieces.iter().map(|p| p.len() as u64).sum())));
    let named: BTreeSet<&str> = parts.iter().flat_map(|part| &part.files).map(|file| file.object.as_str()).collect();
    sizes.retain(|name, _| named.contains(name.as_str()));
    Ok(Arranged { parts, objects: sizes, new: objects })
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
    let known = parts.iter().flat_map(|part| &part.tables).map(|table| &table.known);
    let wanted: BTreeMap<&str, u64> = known.map(|known| (known.checksum.as_str(), known.bytes)).collect();
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
    fn add(&mut self, checksum: String, bytes: Bytes) {
        self.bytes += bytes.len() as u64;
        self.tables.push((checksum, bytes));
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
    let file = |Encoded { table, known, .. }: Encoded| {
        let Place { object, offset } = places.get(&known.checksum).cloned().unwrap_or_default();
        FileRecord { table, object, offset, bytes: known.bytes, rows: known.rows, checksum: known.checksum }
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
