//! Every metric the program exports, and the log lines that go with them, by name.
//!
//! - [`Metrics`] has one method for each thing that is only counted, named after what happened.
//!   Parts that keep their own totals are read by a hook before every scrape ([`Metrics::before_scrape`]).
//! - [`events`] has one struct for each thing that is counted *and* logged; [`Metrics::emit`] does both, so the log line
//!   and the counter cannot drift apart. Lines that bad input could repeat without end are throttled by kind and subject.
//! - [`Health`] is what the flow says about itself; the HTTP surface turns it into `/livez` and `/readyz`.
//! - [`logging`] sets tracing up. Event bodies hold secrets: nothing here takes one.
//!
//! Series exist at zero from the start wherever their labels are known, so that a rate over a quiet system is 0 and not
//! absent. What is unknown (the lag of a partition whose end is not known yet) has no series, never a made-up value.

mod catalogue;
pub mod events;
mod exchange_events;
mod health;
pub mod logging;
mod metrics;
mod reload_events;
mod state_events;
mod throttle;

pub use catalogue::{DEFINITIONS, Definition, Kind, reference};
pub use events::{
    CheckpointDone, CheckpointFailed, DetectionFailed, Event, ExceptionsLoaded, RecordDeadLettered, SourceFailed,
};
pub use exchange_events::{ExchangeRefused, ExchangeUnknown};
pub use health::{Health, Readiness, SinkState, SourceState};
pub use metrics::{AbsorbedTotals, BuildInfo, Metrics, PartitionProgress, SinkTotals};
pub use reload_events::{DetectionQuarantined, DetectionsReloaded, ReloadFailed};
pub use state_events::{MemoryGap, SnapshotDone, SnapshotFailed, StateDamaged, StateRestored};
