//! Reads manifests and tables, and tells what is wrong with those that cannot be read.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::StateError;
use super::image::Image;
use super::manifest::{FORMAT, FileRecord, Manifest, Unsealed, checksum};
use super::store::StateStore;
use super::table::{Table, decode};

/// Something that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub epoch: u64,
    /// What is wrong, and with which object.
    pub reason: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {}: {}", self.epoch, self.reason)
    }
}

/// Epochs in order, each with its manifest or what is wrong with it.
pub(super) type Found = Vec<(u64, Result<Manifest, Damage>)>;

/// Numbers of all epochs, in order.
pub(super) async fn epochs(store: &StateStore) -> Result<Vec<u64>, StateError> {
    let listed = store.list("").await?;
    Ok(listed.iter().filter_map(|object| Manifest::epoch_of(&object.name)).collect())
}

/// The highest epoch; zero where there is none.
pub(super) async fn highest(store: &StateStore) -> Result<u64, StateError> {
    Ok(epochs(store).await?.last().copied().unwrap_or(0))
}

/// An epoch's manifest, or what is wrong with it; `None` where it is gone.
///
/// # Errors
/// The store fails, or the manifest has another format.
pub(super) async fn manifest(store: &StateStore, epoch: u64) -> Result<Option<Result<Manifest, Damage>>, StateError> {
    let name = Manifest::name(epoch);
    let Some(text) = store.get(&name).await? else { return Ok(None) };
    let damage = |reason: String| Damage { epoch, reason: format!("{name} is damaged: {reason}") };
    match Manifest::open(&text) {
        Ok(manifest) if manifest.epoch == epoch => Ok(Some(Ok(manifest))),
        Ok(manifest) => Ok(Some(Err(damage(format!("it is of epoch {}", manifest.epoch))))),
        Err(Unsealed::Damaged(reason)) => Ok(Some(Err(damage(reason)))),
        Err(Unsealed::Format { found, product }) => {
            Err(StateError::Format { place: store.place().to_owned(), name, found, known: FORMAT, product })
        }
    }
}

/// All manifests.
///
/// # Errors
/// As [`manifest`].
pub(super) async fn all(store: &StateStore) -> Result<Found, StateError> {
    let mut found = Found::new();
    for epoch in epochs(store).await? {
        found.extend(manifest(store, epoch).await?.map(|manifest| (epoch, manifest)));
    }
    Ok(found)
}

/// The state to start with, and the manifest to go on from: of the newest epoch that is whole, else of the newest of
/// which anything can be read.
///
/// # Errors
/// The store fails.
pub(super) async fn choose(store: &StateStore, found: &Found) -> Result<(Image, Option<Manifest>), StateError> {
    let mut damages = Vec::new();
    let mut partial = None;
    for (_, manifest) in found.iter().rev() {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(damage) => {
                damages.push(damage.clone());
                continue;
            }
        };
        // What a first start published before anything was read: behind lost epochs it would pass for a fresh place.
        if manifest.parts.is_empty() && manifest.positions.is_empty() && !damages.is_empty() {
            continue;
        }
        let tables = tables(store, manifest).await?;
        let Some(reason) = tables.iter().find_map(|part| part.as_ref().err()) else {
            return Ok((Image::of(manifest, tables, damages), Some(manifest.clone())));
        };
        damages.push(Damage { epoch: manifest.epoch, reason: reason.clone() });
        partial.get_or_insert((manifest, tables));
    }
    let Some((manifest, tables)) = partial else {
        let image = if found.is_empty() { Image::empty() } else { Image::unreadable(damages) };
        return Ok((image, None));
    };
    let mut rest = manifest.clone();
    let mut intact = tables.iter().map(Result::is_ok);
    rest.parts.retain(|_| intact.next().unwrap_or(false));
    let named: Vec<String> = rest.files().map(|file| file.object.clone()).collect();
    rest.objects.retain(|name, _| named.contains(name));
    Ok((Image::of(manifest, tables, damages), Some(rest)))
}

/// Tables of one part, or what is wrong with one of them.
pub(super) type PartTables = Result<Vec<Table>, String>;

/// The tables of each part. Objects are read once each, one after the other.
///
/// # Errors
/// The store fails.
pub(super) async fn tables(store: &StateStore, manifest: &Manifest) -> Result<Vec<PartTables>, StateError> {
    let mut by_object: BTreeMap<&str, Vec<(usize, usize, &FileRecord)>> = BTreeMap::new();
    for (part, record) in manifest.parts.iter().enumerate() {
        for (place, file) in record.files.iter().enumerate() {
            by_object.entry(&file.object).or_default().push((part, place, file));
        }
    }
    let mut parts: Vec<Result<BTreeMap<usize, Table>, String>> =
        manifest.parts.iter().map(|_| Ok(BTreeMap::new())).collect();
    for (object, files) in by_object {
        let bytes = store.get(object).await?;
        for (part, place, file) in files {
            let table = bytes.as_ref().ok_or_else(|| "it is not there".to_owned()).and_then(|bytes| table(bytes, file));
            match (table, parts.get_mut(part)) {
                (Ok(table), Some(Ok(tables))) => drop(tables.insert(place, (file.table.clone(), table))),
                (Err(reason), Some(slot)) => *slot = Err(format!("{object} is damaged: {reason}")),
                _ => {}
            }
        }
    }
    Ok(parts.into_iter().map(|part| part.map(|tables| tables.into_values().collect())).collect())
}

/// A table out of its object's bytes.
fn table(object: &Bytes, file: &FileRecord) -> Result<RecordBatch, String> {
    let range = usize::try_from(file.offset).ok().zip(usize::try_from(file.offset.saturating_add(file.bytes)).ok());
    let bytes = range.and_then(|(start, end)| object.get(start..end)).ok_or("it is too short")?;
    if checksum(bytes) != file.checksum {
        return Err(format!("the checksum of table {} does not fit", file.table));
    }
    let batch = decode(bytes).map_err(|error| format!("table {}: {error}", file.table))?;
    if batch.num_rows() as u64 != file.rows {
        return Err(format!("table {} has {} rows instead of {}", file.table, batch.num_rows(), file.rows));
    }
    Ok(batch)
}
