//! The owner of a place of state: takes it over, and publishes epoch after epoch.
//!
//! **One owner.** Whoever starts last owns the place: it publishes an epoch of its own before anything else, and an
//! epoch's manifest can be made once only. The process before finds its next epoch taken and must stop
//! ([`StateError::Fenced`]); it finds that out, too, where the epochs after its own are so many that its next number is
//! free again. So positions are committed to a source only by the process whose manifest covers them.
//!
//! **Order.** Tables, then the manifest that names them, each durable before the next. A crash in between leaves the
//! epoch before in force, and objects that nobody names, which a later epoch sweeps away.
//!
//! **Objects.** What is new in an epoch goes into one object, or several where it is large; a table that did not change
//! stays where it is. Objects of which less than half is still named are written anew. The last [`EPOCHS_KEPT`] epochs
//! stay whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::arrange::{self, Arranged, Encoder, arrange};
use super::image::Image;
use super::manifest::{ClusterClock, FORMAT, Manifest, PartKey, Positions, Quarantine, Versions};
use super::read::{self, Found};
use super::store::StateStore;
use super::table::Table;
use super::{DATA, StateError};
use crate::clock;

/// Epochs that can be gone back to.
pub const EPOCHS_KEPT: usize = 3;
/// How often a start tries again because another process was faster.
const CLAIMS: usize = 8;

/// A part to be saved.
#[derive(Debug, Clone)]
pub struct Part {
    pub key: PartKey,
    /// `window`, `sequence`, `first_seen`, `anomaly`, or the shared name.
    pub kind: String,
    pub fingerprint: String,
    /// Whether the tables hold what only this version of the SQL engine understands.
    pub needs_engine: bool,
    /// Whether the tables hold rows of the table `audit`.
    pub needs_schema: bool,
    /// Events that are kept.
    pub rows: u64,
    /// Keys that are remembered.
    pub keys: u64,
    pub tables: Vec<Table>,
}

/// Everything that goes together into one epoch. Cheap to clone: tables are shared.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Number of the set of detections that runs.
    pub generation: u64,
    pub quarantined: BTreeMap<String, Quarantine>,
    pub positions: Positions,
    pub clusters: BTreeMap<String, ClusterClock>,
    pub parts: Vec<Part>,
}

/// What publishing an epoch came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    pub epoch: u64,
    /// Bytes of all tables, and of those that were written now.
    pub bytes: u64,
    pub bytes_written: u64,
    /// Why objects that are not needed any more could not be removed; the next epoch tries again.
    pub unswept: Option<String>,
}

/// The owner of a place of state.
#[derive(Debug)]
pub struct Keeper {
    store: StateStore,
    versions: Versions,
    owner: String,
    epoch: u64,
    encoder: Encoder,
    /// In order of epochs; without a manifest where it cannot be read.
    kept: VecDeque<(u64, Option<Manifest>)>,
}

impl Keeper {
    /// Takes the place over and reads the newest state that is whole. An epoch that is damaged is passed over for the
    /// one before; where none is whole, what can be read of the newest is taken.
    ///
    /// # Errors
    /// The store fails, or holds a format that this version does not know.
    pub async fn claim(store: StateStore, versions: Versions) -> Result<(Keeper, Image), StateError> {
        let owner = owner();
        for _ in 0..CLAIMS {
            let found = read::all(&store).await?;
            let (image, base) = read::choose(&store, &found).await?;
            let mut keeper = Keeper::behind(&store, &versions, &owner, found);
            let claim = keeper.continuing(base);
            if store.put_new(&Manifest::name(claim.epoch), claim.seal()).await? {
                keeper.epoch = claim.epoch;
                keeper.kept.push_back((claim.epoch, Some(claim)));
                store.remove_leftovers().await;
                return Ok((keeper, image));
            }
        }
        let epoch = read::highest(&store).await?;
        Err(fenced(&store, epoch, &owner).await)
    }

    fn behind(store: &StateStore, versions: &Versions, owner: &str, found: Found) -> Keeper {
        Keeper {
            store: store.clone(),
            versions: versions.clone(),
            owner: owner.to_owned(),
            epoch: found.last().map_or(0, |(epoch, _)| *epoch),
            encoder: Encoder::default(),
            kept: found.into_iter().map(|(epoch, manifest)| (epoch, manifest.ok())).collect(),
        }
    }

    /// The epoch published last.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What runs now.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The place.
    pub fn place(&self) -> &str {
        self.store.place()
    }

    fn last(&self) -> Option<&Manifest> {
        self.kept.back().and_then(|(_, manifest)| manifest.as_ref())
    }

    /// The next epoch with the content of another.
    fn continuing(&self, base: Option<Manifest>) -> Manifest {
        let mut next = self.manifest(Snapshot::default());
        next.previous = base.as_ref().map(|base| base.epoch);
        if let Some(base) = base {
            next.quarantined = base.quarantined;
            (next.generation, next.positions, next.clusters) = (base.generation, base.positions, base.clusters);
            (next.parts, next.objects) = (base.parts, base.objects);
        }
        next
    }

    /// The next epoch, as yet without parts.
    fn manifest(&self, snapshot: Snapshot) -> Manifest {
        Manifest {
            format: FORMAT,
            versions: self.versions.clone(),
            epoch: self.epoch + 1,
            previous: self.last().map(|last| last.epoch),
            owner: self.owner.clone(),
            written_ms: clock::now_ms(),
            generation: snapshot.generation,
            quarantined: snapshot.quarantined,
            positions: snapshot.positions,
            clusters: snapshot.clusters,
            parts: Vec::new(),
            objects: BTreeMap::new(),
        }
    }

    /// Makes a snapshot the next epoch. When this returns, it is durable.
    ///
    /// # Errors
    /// The store fails: the epoch before stays in force, and the next call tries again. [`StateError::Fenced`]: the
    /// place has another owner, and every further call will fail.
    pub async fn publish(&mut self, mut snapshot: Snapshot) -> Result<Published, StateError> {
        let parts = std::mem::take(&mut snapshot.parts);
        let mut manifest = self.manifest(snapshot);
        let (epoch, versions, last) = (manifest.epoch, self.versions.clone(), self.last().cloned());
        let mut encoder = std::mem::take(&mut self.encoder);
        let encoding = tokio::task::spawn_blocking(move || {
            let arranged = encoder.encode(parts).and_then(|parts| arrange(epoch, &versions, parts, last.as_ref()));
            (encoder, arranged)
        });
        let (encoder, arranged) = encoding.await.map_err(|panic| StateError::Encode {
            part: "state".to_owned(),
            table: "some".to_owned(),
            reason: panic.to_string(),
        })?;
        self.encoder = encoder;
        let Arranged { parts, objects, new } = arranged?;
        (manifest.parts, manifest.objects) = (parts, objects);
        let mut published = Published { bytes: manifest.bytes(), ..Published::default() };
        for (name, pieces) in new {
            published.bytes_written += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            self.store.put(&name, pieces).await?;
        }
        while !self.store.put_new(&Manifest::name(manifest.epoch), manifest.seal()).await? {
            // The answer to an earlier try of ours may have been lost on the way; anybody else's epoch ends ours.
            let taken = read::manifest(&self.store, manifest.epoch).await?.and_then(Result::ok);
            if taken.is_none_or(|taken| taken.owner != self.owner) {
                return Err(fenced(&self.store, manifest.epoch, &self.owner).await);
            }
            self.kept.push_back((manifest.epoch, None));
            (self.epoch, manifest.previous) = (manifest.epoch, Some(manifest.epoch));
            manifest.epoch += 1;
        }
        let highest = read::highest(&self.store).await?;
        if highest > manifest.epoch {
            // The number was free only because the new owner's epochs of that age are gone already.
            self.store.delete(&Manifest::name(manifest.epoch)).await?;
            return Err(fenced(&self.store, highest, &self.owner).await);
        }
        self.epoch = manifest.epoch;
        published.epoch = manifest.epoch;
        self.kept.push_back((manifest.epoch, Some(manifest)));
        published.unswept = self.sweep().await.err().map(|error| error.to_string());
        Ok(published)
    }

    /// Removes epochs that are too old and the objects that only they named. An object is younger than every epoch
    /// that may name it, so one of a writer that has not published yet is never touched.
    async fn sweep(&mut self) -> Result<(), StateError> {
        while self.kept.iter().filter(|(_, manifest)| manifest.is_some()).count() > EPOCHS_KEPT {
            if let Some((epoch, _)) = self.kept.front() {
                self.store.delete(&Manifest::name(*epoch)).await?;
            }
            self.kept.pop_front();
        }
        let Some((oldest, _)) = self.kept.front() else { return Ok(()) };
        let oldest = *oldest;
        let manifests = self.kept.iter().filter_map(|(_, manifest)| manifest.as_ref());
        let named: BTreeSet<&str> =
            manifests.flat_map(|manifest| manifest.objects.keys().map(String::as_str)).collect();
        for object in self.store.list(DATA).await? {
            let is_old = arrange::epoch_of(&object.name).is_some_and(|epoch| epoch < oldest);
            if is_old && !named.contains(object.name.as_str()) {
                self.store.delete(&object.name).await?;
            }
        }
        Ok(())
    }
}

/// The error of a process that comes too late.
async fn fenced(store: &StateStore, epoch: u64, own: &str) -> StateError {
    let owner = match read::manifest(store, epoch).await {
        Ok(Some(Ok(manifest))) => manifest.owner,
        // Deleted since, or not to be read: whoever it is, it is not us.
        _ => "another process".to_owned(),
    };
    StateError::Fenced { place: store.place().to_owned(), epoch, owner, own: own.to_owned() }
}

/// A name for this run of this process.
fn owner() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("unknown-host");
    format!("{host}/{}/{:08x}", std::process::id(), rand::random::<u32>())
}
