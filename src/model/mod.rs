//! Words that everything above talks about: records, events, the `audit` table's columns, matches and alerts.

mod alert;
mod columns;
mod event;
mod record;

pub use alert::{Activity, Alert, DeadLetter, Match, MatchedRows, Severity};
pub use columns::{AUDIT_SCHEMA, AUDIT_SCHEMA_VERSION, COLUMNS, Column, ColumnInfo, ColumnSet, Kind, Layout, Level};
pub use event::{Cloud, EventContext, EventFields, EventSink, Origin, RejectReason, SkipReason};
pub use record::{Chunk, Lane, LaneId, Position, RawRecord};
