//! Looks at a place of state without owning it.

use std::collections::BTreeMap;

use super::StateError;
use super::divided::{Division, division};
use super::manifest::{Manifest, PartRecord};
use super::read::{self, Damage};
use super::store::StateStore;
use super::table::Table;

/// All epochs, the newest first, each with its manifest or what is wrong with it.
///
/// # Errors
/// The store fails, holds a newer format, or there is nothing.
pub async fn inspect(store: &StateStore) -> Result<Vec<(u64, Result<Manifest, Damage>)>, StateError> {
    let mut found = read::all(store).await?;
    if found.is_empty() {
        if let Some(Division { partitions, .. }) = division(store).await? {
            let place = store.place().to_owned();
            let reason = format!(
                "it is divided between instances: name one of its {partitions} places, such as {place}/partition-0000"
            );
            return Err(StateError::Divided { place, reason });
        }
        return Err(StateError::Absent { place: store.place().to_owned() });
    }
    found.reverse();
    Ok(found)
}

/// The tables of one part of a manifest, or what is wrong with them.
///
/// # Errors
/// The store fails.
pub async fn tables_of(
    store: &StateStore,
    manifest: &Manifest,
    part: &PartRecord,
) -> Result<Result<Vec<Table>, String>, StateError> {
    let only = Manifest { parts: vec![part.clone()], ..manifest.clone() };
    let mut tables = read::tables(store, &only).await?;
    Ok(tables.pop().unwrap_or_else(|| Ok(Vec::new())))
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub epochs: usize,
    /// Tables read, each of an object counted once for each epoch that names it.
    pub tables: usize,
    pub bytes: u64,
    /// What is wrong; nothing where the state is whole.
    pub damages: Vec<Damage>,
}

/// Reads everything: checksums, references, the chain of epochs, and that no lane's position goes back.
///
/// # Errors
/// The store fails, holds a newer format, or there is nothing.
pub async fn check(store: &StateStore) -> Result<Report, StateError> {
    let mut report = Report::default();
    let mut newer: Option<Manifest> = None;
    for (epoch, manifest) in inspect(store).await? {
        let found = match manifest {
            Ok(manifest) => {
                let mut found = check_tables(store, &manifest, &mut report).await?;
                found.extend(newer.as_ref().map(|newer| check_chain(newer, &manifest)).unwrap_or_default());
                newer = Some(manifest);
                found
            }
            Err(damage) => vec![damage.reason],
        };
        // A process that runs meanwhile sweeps old epochs away; what is gone as a whole is not damaged.
        if found.is_empty() || read::manifest(store, epoch).await?.is_some() {
            report.epochs += 1;
            report.damages.extend(found.into_iter().map(|reason| Damage { epoch, reason }));
        }
    }
    Ok(report)
}

async fn check_tables(store: &StateStore, manifest: &Manifest, report: &mut Report) -> Result<Vec<String>, StateError> {
    let mut found = Vec::new();
    for (part, tables) in manifest.parts.iter().zip(read::tables(store, manifest).await?) {
        match tables {
            Ok(tables) => report.tables += tables.len(),
            Err(reason) => found.push(format!("{}: {reason}", part.key)),
        }
    }
    report.bytes += manifest.bytes();
    for file in manifest.files() {
        if !manifest.objects.contains_key(&file.object) {
            found.push(format!("{} is named by table {} and not listed", file.object, file.table));
        }
    }
    let sizes: BTreeMap<String, u64> =
        store.list(super::DATA).await?.into_iter().map(|object| (object.name, object.bytes)).collect();
    for (name, bytes) in &manifest.objects {
        if let Some(is) = sizes.get(name).filter(|is| *is != bytes) {
            found.push(format!("{name} has {is} bytes instead of {bytes}"));
        }
    }
    Ok(found)
}

/// What is wrong between an epoch and the one before it.
fn check_chain(newer: &Manifest, older: &Manifest) -> Vec<String> {
    let mut found = Vec::new();
    match newer.previous {
        Some(previous) if previous >= newer.epoch => {
            found.push(format!("epoch {} says that it continues {previous}", newer.epoch));
        }
        // It may continue an older one, where this one could not be read whole at the time.
        Some(previous) if previous < older.epoch => return found,
        _ => {}
    }
    for (source, lanes) in &older.positions {
        for (lane, offset) in lanes {
            let next = newer.positions.get(source).and_then(|lanes| lanes.get(lane));
            if let Some(next) = next.filter(|next| *next < offset) {
                found.push(format!("{lane} of {source} goes back from {offset} to {next} in epoch {}", newer.epoch));
            }
        }
    }
    found
}
