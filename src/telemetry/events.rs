//! Things that are both counted and logged, one struct each; its fields are what an operator will ask.
//!
//! Every line carries a field `event` with the struct's name in snake case, so that it can be searched for. Lines that
//! one bad input could repeat without end are throttled; `held_back` says how many came in between. None takes the bytes
//! of a record: they may hold secrets.

use chrono::NaiveDate;

use super::metrics::Metrics;

/// Counts and logs itself.
pub trait Event {
    /// Called by [`Metrics::emit`].
    fn emit(self, metrics: &Metrics);
}

/// A source met an error that ends the run.
#[derive(Debug)]
pub struct SourceFailed<'a> {
    pub source: &'a str,
    pub error: &'a str,
    /// Whether it is what the run ends with and says at its end; only further failures need a line of their own.
    pub first: bool,
}

impl Event for SourceFailed<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().source_errors.with_label_values(&[self.source]).inc();
        let SourceFailed { source, error, first } = self;
        if !first {
            tracing::error!(event = "source_failed", source, error, "source met an error");
        }
    }
}

/// A record went to the dead-letter sink.
#[derive(Debug)]
pub struct RecordDeadLettered<'a> {
    /// Lane of the record, such as `topic/3`.
    pub lane: &'a str,
    pub offset: u64,
    pub reason: &'static str,
    /// What is wrong and how to mend it; never the record's bytes.
    pub detail: &'a str,
}

impl Event for RecordDeadLettered<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().dead_letters.with_label_values(&[self.reason]).inc();
        if let Some(held_back) = metrics.throttle().pass("record_dead_lettered", self.reason) {
            let RecordDeadLettered { lane, offset, reason, detail } = self;
            tracing::warn!(
                event = "record_dead_lettered",
                lane,
                offset,
                reason,
                detail,
                held_back,
                "record could not be read"
            );
        }
    }
}

/// A detection failed on a batch; the others went on.
#[derive(Debug)]
pub struct DetectionFailed<'a> {
    pub detection: &'a str,
    pub error: &'a str,
}

impl Event for DetectionFailed<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().detection_errors.with_label_values(&[self.detection]).inc();
        if let Some(held_back) = metrics.throttle().pass("detection_failed", self.detection) {
            let (detection, error) = (self.detection, self.error);
            tracing::error!(event = "detection_failed", detection, error, held_back, "detection failed on a batch");
        }
    }
}

/// Exceptions were loaded; the expired ones hide nothing and should be renewed or removed.
#[derive(Debug)]
pub struct ExceptionsLoaded<'a> {
    /// In force.
    pub loaded: usize,
    /// Detection, file and expiry date of each that has expired.
    pub expired: &'a [(String, String, NaiveDate)],
}

impl Event for ExceptionsLoaded<'_> {
    fn emit(self, metrics: &Metrics) {
        let series = metrics.series();
        series.exceptions_loaded.with_label_values::<&str>(&[]).set(self.loaded as f64);
        series.exceptions_expired.with_label_values::<&str>(&[]).set(self.expired.len() as f64);
        for (detection, file, expires) in self.expired {
            tracing::warn!(event = "exception_expired", detection, file, %expires, "exception has expired");
        }
    }
}

/// Everything read so far is delivered and committed.
#[derive(Debug)]
pub struct CheckpointDone {
    /// Lanes whose position moved.
    pub lanes: usize,
    pub seconds: f64,
}

impl Event for CheckpointDone {
    fn emit(self, metrics: &Metrics) {
        let series = metrics.series();
        series.checkpoints.with_label_values(&["ok"]).inc();
        series.checkpoint_seconds.with_label_values::<&str>(&[]).observe(self.seconds);
        metrics.checkpointed();
        tracing::debug!(event = "checkpoint_done", lanes = self.lanes, seconds = self.seconds, "checkpoint");
    }
}

/// A checkpoint did not come about; nothing is lost, its records will be read again if we stop now.
#[derive(Debug)]
pub struct CheckpointFailed<'a> {
    pub error: &'a str,
}

impl Event for CheckpointFailed<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().checkpoints.with_label_values(&["failed"]).inc();
        if let Some(held_back) = metrics.throttle().pass("checkpoint_failed", "") {
            tracing::error!(event = "checkpoint_failed", error = self.error, held_back, "checkpoint failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RejectReason;

    #[test]
    fn events_move_their_series() {
        let metrics = Metrics::new();
        let reason = RejectReason::NotJson.as_str();
        for offset in 0..3 {
            metrics.emit(RecordDeadLettered { lane: "audit/0", offset, reason, detail: "starts with byte 0x00" });
        }
        metrics.emit(DetectionFailed { detection: "a", error: "division by zero" });
        metrics.emit(CheckpointDone { lanes: 1, seconds: 0.01 });
        metrics.emit(CheckpointFailed { error: "sink is down" });
        metrics.emit(SourceFailed { source: "audit.log", error: "permission denied", first: true });
        let expired = NaiveDate::from_ymd_opt(2025, 1, 31).expect("a date");
        let expired = [("a".to_owned(), "exceptions/a.yaml".to_owned(), expired)];
        metrics.emit(ExceptionsLoaded { loaded: 2, expired: &expired });
        let text = metrics.render();
        for line in [
            "kubetide_dead_letters_total{reason=\"not_json\"} 3",
            "kubetide_detection_errors_total{detection=\"a\"} 1",
            "kubetide_checkpoints_total{outcome=\"ok\"} 1",
            "kubetide_checkpoints_total{outcome=\"failed\"} 1",
            "kubetide_source_errors_total{source=\"audit.log\"} 1",
            "kubetide_exceptions_loaded 2",
            "kubetide_exceptions_expired 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }
}
