//! Detections with memory: windows, sequences, what was never seen before, what is unlike its own past.
//!
//! Rows that pass a detection's own conditions are kept, cut to the columns that somebody reads, and put in order: a
//! [`Timeline`] for each cluster holds them back until the watermark has passed, takes out repeats, and then hands them
//! on in order of (event time, event id), each once, one row for each request and step. Every kind of memory is a
//! [`Recall`]: it is shown rows in that order, and is woken at the event times that it asks for. So what it answers is
//! a function of the set of events, not of how they came.

mod anomaly;
mod entry;
mod rhythm;
mod silence;
mod spike;
mod tables;
mod unusual;

#[cfg(test)]
mod fixture;

use arrow::record_batch::RecordBatch;
use serde_json::Value;

pub use self::anomaly::Anomaly;
pub use self::entry::{Entry, Field, Kept, Key, kept_rows, key_of};
pub use self::rhythm::Rhythm;
pub use self::silence::Silence;
pub use self::spike::Spike;
pub use self::unusual::Unusual;
use crate::model::{Column, Finding, time_text};

/// The memory of one detection in one cluster.
///
/// Rows and wakings come in order of event time; at the same time, rows come first.
pub trait Recall: std::fmt::Debug + Send {
    /// Takes in a row that passed the conditions of step `step` (0 but for sequences).
    fn see(&mut self, step: usize, entry: &Entry, out: &mut Vec<Finding>);

    /// The next event time, microseconds since the epoch, at which it wants to be woken though no row came.
    fn due(&self) -> Option<i64> {
        None
    }

    /// Wakes it: all rows up to `at_us` have been seen, none after it.
    fn wake(&mut self, _at_us: i64, _out: &mut Vec<Finding>) {}

    /// What it remembers, as named tables; put back by [`Recall::restore`] into a fresh one of the same detection.
    fn save(&self) -> Vec<(String, RecordBatch)>;

    /// Takes back what [`Recall::save`] gave.
    ///
    /// # Errors
    /// Says which table is not as expected; the memory is then empty.
    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String>;

    /// How much it holds now.
    fn size(&self) -> Size;
}

/// How much a memory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Events that are kept.
    pub rows: u64,
    /// Keys that are remembered.
    pub keys: u64,
    /// Bytes of both, as far as they are counted.
    pub bytes: u64,
    /// What was dropped for want of room since the start.
    pub shed: u64,
}

/// What makes a finding about a key one with others: the key, and the stretch of `bucket_us` that the event falls into;
/// at 0 the event's request.
fn identity_in(name: &[Value], entry: &Entry, bucket_us: i64) -> Vec<Value> {
    let mut identity = name.to_vec();
    identity.push(match bucket_us {
        1.. => time_text(entry.event_us.div_euclid(bucket_us) * bucket_us).into(),
        _ => entry.text(Column::RequestId).map_or_else(|| time_text(entry.event_us).into(), Value::from),
    });
    identity
}
