//! What happens when detections are loaded anew, counted and logged.

use super::events::Event;
use super::metrics::Metrics;

/// A set of detections followed another between two chunks.
#[derive(Debug)]
pub struct DetectionsReloaded<'a> {
    pub generation: u64,
    /// How many are loaded.
    pub detections: usize,
    /// Detections whose memories went on.
    pub memories: usize,
    /// Ids of detections that are not loaded any more.
    pub removed: &'a [&'a str],
    /// Time that events waited for it.
    pub seconds: f64,
}

impl Event for DetectionsReloaded<'_> {
    fn emit(self, metrics: &Metrics) {
        let DetectionsReloaded { generation, detections, memories, removed, seconds } = self;
        removed.iter().for_each(|id| metrics.memory_forgotten(id));
        let series = metrics.series();
        series.reloads.with_label_values(&["ok"]).inc();
        series.reload_failing.with_label_values::<&str>(&[]).set(0.0);
        metrics.generation(generation);
        tracing::info!(
            event = "detections_reloaded",
            generation,
            detections,
            memories,
            removed = removed.join(","),
            seconds,
            "detections are loaded anew"
        );
    }
}

/// What is in the files now cannot be used: the set before stays in force.
#[derive(Debug)]
pub struct ReloadFailed<'a> {
    /// Where and what, the first of them.
    pub errors: &'a [String],
    /// How many there are.
    pub count: usize,
}

impl Event for ReloadFailed<'_> {
    fn emit(self, metrics: &Metrics) {
        let ReloadFailed { errors, count } = self;
        let series = metrics.series();
        series.reloads.with_label_values(&["failed"]).inc();
        series.reload_failing.with_label_values::<&str>(&[]).set(1.0);
        for error in errors {
            tracing::error!(event = "reload_error", error, "a file of detections cannot be used");
        }
        tracing::error!(
            event = "reload_failed",
            count,
            "detections are not loaded anew: those before stay in force until the files are mended"
        );
    }
}

/// A detection harmed the others so often that it is not evaluated any more: a gap from here on.
#[derive(Debug)]
pub struct DetectionQuarantined<'a> {
    pub detection: &'a str,
    pub file: &'a str,
    /// What went wrong the last time.
    pub reason: &'a str,
}

impl Event for DetectionQuarantined<'_> {
    fn emit(self, metrics: &Metrics) {
        let DetectionQuarantined { detection, file, reason } = self;
        metrics.series().quarantines.with_label_values(&[detection]).inc();
        tracing::error!(
            event = "detection_quarantined",
            detection,
            file,
            reason,
            "a detection is not evaluated any more: it panicked, or went beyond its bounds of time, rows or memory, too \
             often; make its query cheaper, which puts it back in force, or send SIGHUP to try it again as it is"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_move_their_series() {
        let metrics = Metrics::new();
        let text = |metrics: &Metrics, lines: &[&str]| {
            let text = metrics.render();
            lines
                .iter()
                .for_each(|line| assert!(text.lines().any(|found| found == *line), "no line {line} in\n{text}"));
        };
        metrics.emit(ReloadFailed { errors: &["a.yaml:3:1: no".to_owned()], count: 1 });
        text(&metrics, &["kubetide_reloads_total{outcome=\"failed\"} 1", "kubetide_reload_failing 1"]);
        metrics.memory_holds("old", 1, 1, 1, 0);
        metrics.emit(DetectionsReloaded { generation: 2, detections: 1, memories: 0, removed: &["old"], seconds: 0.0 });
        text(
            &metrics,
            &[
                "kubetide_reloads_total{outcome=\"ok\"} 1",
                "kubetide_reload_failing 0",
                "kubetide_detections_generation 2",
            ],
        );
        assert!(!metrics.render().contains("kubetide_memory_rows{detection=\"old\"}"));
    }
}
