//! The state of `kubetide run`: which place it is, taking it over, and where Kafka goes on by it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::Failure;
use crate::config::{Config, StatePlace};
use crate::flow::snapshots::Snapshots;
use crate::state::{Division, Image, StateStore, division};

/// Processes on one machine that may use the default place side by side.
const PLACES_MAX: usize = 64;

/// State that is open.
#[derive(Debug)]
pub struct Opened {
    pub snapshots: Snapshots,
    pub image: Image,
    /// Keeps other processes out of the default place; released with the process.
    pub lock: Option<File>,
}

/// Takes over the place of state that the configuration gives; `None` where nothing is kept.
///
/// # Errors
/// A place that somebody asked for cannot be had. The default one may be missing: then the run goes on without.
pub async fn open(config: &Config) -> Result<Option<Opened>, Failure> {
    let (store, lock) = match config.state_place(|name| std::env::var(name).ok()) {
        StatePlace::Nowhere => return Ok(None),
        StatePlace::Given(address) => {
            let store = StateStore::open(&address)?;
            if let Some(Division { topic, .. }) = division(&store).await? {
                return Err(Failure::environment(format!(
                    "state at {address}: it is divided between instances that share `exchange` topic {topic}; set \
                     `exchange`, or give `state` another place"
                )));
            }
            (store, None)
        }
        StatePlace::Default(base) => {
            let found = free_place(&base).map_err(|error| error.to_string()).and_then(|(path, lock)| {
                let store = StateStore::open(&path.display().to_string()).map_err(|error| error.to_string())?;
                Ok((store, lock))
            });
            match found {
                Ok((store, lock)) => (store, Some(lock)),
                Err(error) => {
                    let place = base.display();
                    tracing::warn!(%place, error, "no state is kept: set `state` to a place that can be written, or to `off`");
                    return Ok(None);
                }
            }
        }
    };
    let (snapshots, image) = Snapshots::open(store, Duration::from_millis(config.snapshot_interval_ms)).await?;
    tracing::info!(place = snapshots.place(), "state is kept here");
    Ok(Some(Opened { snapshots, image, lock }))
}

/// The first of `base`, `base-2`, `base-3`, … that no other process uses.
fn free_place(base: &Path) -> std::io::Result<(PathBuf, File)> {
    for number in 1..=PLACES_MAX {
        let path = match number {
            1 => base.to_owned(),
            number => PathBuf::from(format!("{}-{number}", base.display())),
        };
        StateStore::open(&path.display().to_string()).map_err(std::io::Error::other)?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => return Ok((path, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(std::io::Error::other(format!("{PLACES_MAX} processes use it and its neighbours")))
}

/// Where the partitions of a Kafka source go on.
pub fn resume(lanes: Option<&BTreeMap<String, u64>>) -> HashMap<(String, i32), i64> {
    let partition = |(lane, next): (&String, &u64)| {
        let (topic, partition) = lane.rsplit_once('/')?;
        Some(((topic.to_owned(), partition.parse().ok()?), i64::try_from(*next).ok()?))
    };
    lanes.into_iter().flatten().filter_map(partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_side_by_side_have_places_of_their_own() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let base = folder.path().join("state");
        let (first, lock) = free_place(&base).expect("free");
        let (second, _other) = free_place(&base).expect("free");
        assert_eq!((first.clone(), second), (base.clone(), folder.path().join("state-2")));
        drop(lock);
        assert_eq!(free_place(&base).expect("free again").0, first);
    }

    #[test]
    fn lanes_are_partitions_again() {
        let lanes = BTreeMap::from([("a/b/3".to_owned(), 7), ("x.log".to_owned(), 9)]);
        assert_eq!(resume(Some(&lanes)), HashMap::from([(("a/b".to_owned(), 3), 7)]));
        assert_eq!(resume(None), HashMap::new());
    }
}
