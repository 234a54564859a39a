//! What happens to the state of a run, counted and logged.

use super::events::Event;
use super::metrics::Metrics;

/// A run goes on where an earlier one ended, or begins.
#[derive(Debug)]
pub struct StateRestored<'a> {
    pub place: &'a str,
    /// The epoch that was read; `None` where the place was empty or unreadable.
    pub epoch: Option<u64>,
    /// Memories of detections that were put back.
    pub memories: usize,
    /// Findings that are open.
    pub findings: u64,
}

impl Event for StateRestored<'_> {
    fn emit(self, _: &Metrics) {
        let StateRestored { place, epoch, memories, findings } = self;
        match epoch {
            Some(epoch) => {
                tracing::info!(event = "state_restored", place, epoch, memories, findings, "state is restored");
            }
            None => tracing::info!(event = "state_restored", place, "state begins"),
        }
    }
}

/// An epoch of the state cannot be read; an older one is used where there is one.
#[derive(Debug)]
pub struct StateDamaged<'a> {
    pub place: &'a str,
    pub epoch: u64,
    pub reason: &'a str,
}

impl Event for StateDamaged<'_> {
    fn emit(self, _: &Metrics) {
        let StateDamaged { place, epoch, reason } = self;
        tracing::error!(event = "state_damaged", place, epoch, reason, "an epoch of the state cannot be read");
    }
}

/// The memory of a detection begins anew, though something was kept of it.
#[derive(Debug)]
pub struct MemoryGap<'a> {
    /// The detection's id, or the name of a part that all share.
    pub detection: &'a str,
    pub cluster: Option<&'a str>,
    /// One word.
    pub reason: &'static str,
    pub detail: &'a str,
}

impl Event for MemoryGap<'_> {
    fn emit(self, metrics: &Metrics) {
        let MemoryGap { detection, cluster, reason, detail } = self;
        metrics.series().state_gaps.with_label_values(&[detection, reason]).inc();
        tracing::warn!(event = "memory_gap", detection, cluster, reason, detail, "a memory begins anew");
    }
}

/// A snapshot is durable.
#[derive(Debug)]
pub struct SnapshotDone<'a> {
    pub epoch: u64,
    /// Bytes of all tables, and of those that were written now.
    pub bytes: u64,
    pub bytes_written: u64,
    pub seconds: f64,
    /// Why what is not needed any more could not be removed.
    pub unswept: Option<&'a str>,
}

impl Event for SnapshotDone<'_> {
    fn emit(self, metrics: &Metrics) {
        let SnapshotDone { epoch, bytes, bytes_written, seconds, unswept } = self;
        let series = metrics.series();
        series.snapshots.with_label_values(&["ok"]).inc();
        series.snapshot_seconds.with_label_values::<&str>(&[]).observe(seconds);
        series.snapshot_bytes.with_label_values::<&str>(&[]).inc_by(bytes_written);
        series.state_bytes.with_label_values::<&str>(&[]).set(bytes as f64);
        tracing::debug!(event = "snapshot_done", epoch, bytes, bytes_written, seconds, "snapshot");
        if let Some(error) = unswept
            && let Some(held_back) = metrics.throttle().pass("snapshot_unswept", "")
        {
            tracing::warn!(event = "snapshot_unswept", error, held_back, "old snapshots cannot be removed");
        }
    }
}

/// A snapshot did not come about: positions stay where the one before has them, and it is tried again.
#[derive(Debug)]
pub struct SnapshotFailed<'a> {
    pub error: &'a str,
}

impl Event for SnapshotFailed<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().snapshots.with_label_values(&["failed"]).inc();
        if let Some(held_back) = metrics.throttle().pass("snapshot_failed", "") {
            tracing::error!(event = "snapshot_failed", error = self.error, held_back, "snapshot failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_and_gaps_move_their_series() {
        let metrics = Metrics::new();
        metrics.emit(SnapshotDone { epoch: 2, bytes: 70, bytes_written: 7, seconds: 0.1, unswept: None });
        metrics.emit(SnapshotFailed { error: "disk full" });
        metrics.emit(MemoryGap { detection: "d", cluster: Some("prod"), reason: "changed", detail: "edited" });
        let text = metrics.render();
        for line in [
            "kubetide_snapshots_total{outcome=\"ok\"} 1",
            "kubetide_snapshots_total{outcome=\"failed\"} 1",
            "kubetide_snapshot_written_bytes_total 7",
            "kubetide_state_bytes 70",
            "kubetide_state_gaps_total{detection=\"d\",reason=\"changed\"} 1",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
