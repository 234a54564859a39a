//! What outlives a process: snapshots of everything remembered, and the manifest that binds them to positions.
//!
//! **Contract.** A place of state ([`StateStore`]) holds epochs. An epoch is a manifest and the tables that it names:
//! what every detection with memory remembers in every cluster, the clocks of the clusters, and for every lane the first
//! offset that is *not* part of all that. A start takes the newest epoch that is whole and reads on from its positions,
//! so that after a crash at any point everything is seen once by what remembers, and at worst told twice under the same
//! id. What cannot be used is never silently empty: it is a [`Gap`] with a reason, or an error.
//!
//! * [`Keeper`] owns a place: it publishes epochs, fences whoever owned it before, and sweeps.
//! * [`Image`] is what a start finds; [`Image::take`] gives each part to its user, or says why not.
//! * [`divide`] makes of a place one for each partition that instances share.
//! * [`inspect`](inspect()) looks without owning: `kubetide state`.
//!
//! This module knows names, tables and numbers; what they mean, their users know.

mod arrange;
mod divided;
mod error;
mod fingerprint;
mod image;
mod inspect;
mod keeper;
mod manifest;
mod read;
mod store;
mod table;

pub use divided::{Division, divide, division};
pub use error::StateError;
pub use fingerprint::fingerprint;
pub use image::{Gap, GapReason, Image, Loaded};
pub use inspect::{Report, check, inspect, tables_of};
pub use keeper::{EPOCHS_KEPT, Keeper, Part, Published, Snapshot};
pub use manifest::{
    ClusterClock, FORMAT, FileRecord, Manifest, PartKey, PartRecord, Positions, Quarantine, Scope, Versions,
};
pub use read::Damage;
pub use store::StateStore;
pub use table::Table;

/// The folder of the objects that tables are in.
const DATA: &str = "data";

#[cfg(test)]
mod tests;
