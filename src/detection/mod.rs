//! Detections: the files that authors write, what makes them right, and the set that runs.
//!
//! [`files`] reads texts (or takes the shipped ones), [`load`] checks them and makes a [`DetectionSet`], [`lint`] adds
//! what works but should be better. Every finding is a [`Diagnostic`] with a code, a place and advice; all findings of
//! all files come at once. Nothing here looks at events: `stage::evaluate` does.

mod attack;
mod changed;
pub mod coverage;
mod diagnostic;
mod file;
pub mod files;
mod fingerprint;
mod lint;
mod lint_sql;
mod memory;
mod memory_baseline;
mod pack;
pub mod schema;
mod shape;
mod summary;
mod yaml;

#[cfg(test)]
mod tests;

pub use attack::{ATTACK_VERSION, Attack, AttackError, MATRIX, Matrix, Tactic, Technique};
pub use changed::ChangedNumber;
pub use diagnostic::{Code, Diagnostic, Level, Span, did_you_mean, suggest};
pub use file::{
    AcceptedMutant, Case, DetectionFile, Envelope, EventSpec, ExceptionEntry, ExceptionsFile, Expect, ListEntry,
    ListFile, SampleEvent, Status, Suppress, Use, merge_patch,
};
pub use lint::lint;
pub use memory::{FirstSeenSpec, HabitSpec, Length, Memory, SequenceSpec, StepSpec, WindowSpec};
pub use memory_baseline::{AnomalySpec, IDLE, RhythmSpec, SilenceSpec, SpikeSpec};
pub use pack::{Detection, DetectionSet, Document, Exception, Loaded, SourceFile, load};
pub use summary::{Placeholder, Summary, SummaryError};
