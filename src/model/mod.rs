//! Words that everything above talks about: records, events, the `audit` table's columns, matches and alerts.

mod alert;
mod batch;
mod cell;
mod columns;
mod digest;
mod event;
mod finding;
mod names;
mod record;

pub use alert::{Activity, Alert, DeadLetter, Match, MatchedRows, Severity};
pub use batch::{
    BatchCounts, Bodies, EventBatch, FORETOLD, LateBodies, Need, ReadBodies, Row, plain, plain_rows, plain_schema,
};
pub use cell::{cell, time_text};
pub use columns::{
    ALERTS_SCHEMA, ALL_COLUMNS, AUDIT_SCHEMA, AUDIT_SCHEMA_VERSION, COLUMNS, Column, ColumnInfo, ColumnSet, Kind,
    Layout, Level,
};
pub use digest::first_half;
pub use event::{Cloud, EventContext, EventFields, EventSink, Origin, RejectReason, SkipReason};
pub use finding::{Finding, Heard, KeptMatches, KeptRows};
pub use names::{ImageName, clean_capability, clean_path};
pub use record::{Chunk, Lane, LaneId, Position, RawRecord};
