//! Writes snapshots beside the run, one at a time.
//!
//! A snapshot is taken when sinks and dead letters have everything that came of the events in it. While it is written
//! the run goes on; when it is durable, and only then, the positions that it covers may be committed.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Instant;
use crate::model::AUDIT_SCHEMA_VERSION;
use crate::sql;
use crate::state::{Image, Keeper, Published, Snapshot, StateError, StateStore, Versions};

/// What runs now, as far as kept tables depend on it.
pub fn versions() -> Versions {
    Versions {
        product: env!("CARGO_PKG_VERSION").to_owned(),
        engine: sql::engine(),
        schema: AUDIT_SCHEMA_VERSION.to_owned(),
    }
}

/// The writer of a run's snapshots.
#[derive(Debug)]
pub struct Snapshots {
    /// Away while a snapshot is written.
    keeper: Option<Keeper>,
    writing: Option<JoinHandle<(Keeper, Result<Published, StateError>)>>,
    interval: Duration,
    begun: Instant,
    /// The last one failed, so the next is tried at once.
    failed: bool,
    place: String,
}

/// What writing one came to.
#[derive(Debug)]
pub struct Written {
    pub result: Result<Published, StateError>,
    pub seconds: f64,
}

impl Snapshots {
    /// Takes a place of state over and reads what it holds.
    ///
    /// # Errors
    /// The place cannot be reached, or holds a format that this version does not know.
    pub async fn open(store: StateStore, interval: Duration) -> Result<(Snapshots, Image), StateError> {
        let place = store.place().to_owned();
        let (keeper, image) = Keeper::claim(store, versions()).await?;
        let snapshots =
            Snapshots { keeper: Some(keeper), writing: None, interval, begun: Instant::now(), failed: false, place };
        Ok((snapshots, image))
    }

    /// The place.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether one is being written.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether it is time for the next one.
    pub fn is_due(&self) -> bool {
        !self.is_writing() && (self.failed || self.begun.elapsed() >= self.interval)
    }

    /// Begins to write a snapshot. [`Snapshots::written`] tells how that ends; no other may be begun before.
    #[expect(clippy::disallowed_methods, reason = "it is waited for: by the next snapshot, or at the end of the run")]
    pub fn begin(&mut self, snapshot: Snapshot) {
        let mut keeper = self.keeper.take().expect("one snapshot is written at a time");
        self.begun = Instant::now();
        self.writing = Some(tokio::spawn(async move {
            let result = keeper.publish(snapshot).await;
            (keeper, result)
        }));
    }

    /// Waits for what is being written; never ends where nothing is. Safe to drop while waiting.
    pub async fn written(&mut self) -> Written {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let joined = writing.await;
        self.writing = None;
        let (keeper, result) = joined.expect("publishing turns every fault into an error");
        self.keeper = Some(keeper);
        self.failed = result.is_err();
        Written { result, seconds: self.begun.elapsed_seconds() }
    }
}
