//! What detections yield: matches, and the alerts made of them.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::finding::KeptRows;
use super::record::Position;

/// How bad; the order is the order of badness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 5] =
        [Severity::Informational, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

    /// The word used in detection files, metrics and on the terminal.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Informational => "informational",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// OCSF `severity_id`.
    pub fn ocsf_id(self) -> u8 {
        self as u8 + 1
    }
}

/// The rows that matched anything in one batch, with every column of the table, and which detection matched which.
///
/// Only matched rows are decoded in full: the batch that detections ran over holds just the columns that they read.
#[derive(Debug, Clone)]
pub struct MatchedRows {
    /// All columns of `audit`, plain types, one row for each matched event.
    pub rows: RecordBatch,
    /// By row: the event as JSON text, as evidence.
    pub texts: Vec<bytes::Bytes>,
    /// By row: where the record was.
    pub positions: Vec<Position>,
    /// By row: time that the transport gives the record, milliseconds since the epoch.
    pub arrival_ms: Vec<Option<i64>>,
    /// In row order, then in the order of detections.
    pub matches: Vec<Match>,
}

/// One event that one detection matched.
#[derive(Debug, Clone)]
pub struct Match {
    /// Index of the detection in its set.
    pub detection: usize,
    /// Which of its queries matched: the step of a sequence, else 0.
    pub step: usize,
    /// Row of [`MatchedRows`].
    pub row: usize,
    /// Values of the columns that the detection's SELECT list computes itself, by name.
    pub computed: Vec<(Arc<str>, serde_json::Value)>,
}

/// Whether a finding is told for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    Create,
    Update,
}

/// One emission about a finding, ready for any sink.
#[derive(Debug, Clone)]
pub struct Alert {
    /// `finding_info.uid`: the same for every emission about this finding.
    pub uid: Arc<str>,
    /// `metadata.uid`: of this emission.
    pub emission_uid: Arc<str>,
    pub activity: Activity,
    pub detection: Arc<str>,
    pub severity: Severity,
    pub title: Arc<str>,
    /// The detection's summary with its placeholders filled in.
    pub summary: String,
    /// Names of what it is about, such as `cluster=prod namespace=shop name=web`.
    pub entity: Vec<(Arc<str>, String)>,
    /// ATT&CK ids, `TA0004/T1611`.
    pub attack: Vec<Arc<str>>,
    /// Number of events in the finding so far.
    pub count: u64,
    /// Event time at which the finding came true, microseconds since the epoch.
    pub at_us: i64,
    /// Event time of the newest event, microseconds since the epoch.
    pub event_time_us: i64,
    /// Arrival of the newest record by the transport's clock, milliseconds since the epoch.
    pub arrival_ms: Option<i64>,
    /// The event that raised it, where it is told for the first time and somebody correlates alerts.
    pub subject: Option<KeptRows>,
    /// OCSF 1.8 Detection Finding as one line of JSON.
    pub ocsf: bytes::Bytes,
}

/// A record that could not be read, as it goes to the dead-letter sink.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The lane's name, such as `topic/3`.
    pub lane: Arc<str>,
    pub offset: u64,
    /// Index of the element inside its record.
    pub index: u32,
    /// Value of [`super::RejectReason::as_str`].
    pub reason: &'static str,
    /// What is wrong, where, and how to mend it.
    pub detail: String,
    /// The original bytes.
    pub bytes: bytes::Bytes,
}
