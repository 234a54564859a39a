//! Detections that harm the others are taken out of force in the middle of a run.

use super::{Outcome, Sequencer};
use crate::telemetry::DetectionQuarantined;

impl Sequencer {
    /// Notes the harm that evaluating a chunk has done.
    pub(super) fn harm_of(&mut self, outcome: &Outcome) {
        for failure in outcome.failures.iter().filter(|failure| failure.harmful) {
            self.harmed(failure.detection, 1, &failure.message);
        }
    }

    /// Notes the harm that memories have done; `failures` are what they say about it.
    pub(super) fn harm_of_memory(&mut self, failures: &[(usize, String)]) {
        let harm = self.memory.as_mut().map(|memory| memory.harm()).unwrap_or_default();
        for (detection, times) in harm {
            let told = failures.iter().rfind(|(of, _)| *of == detection).map_or("", |(_, what)| what.as_str());
            self.harmed(detection, times, told);
        }
    }

    fn harmed(&mut self, number: usize, times: u32, reason: &str) {
        let detection = &self.set.detections[number];
        if !self.breaker.harmed(detection, times, reason) {
            return;
        }
        self.evaluator.quarantine(number);
        if let Some(memory) = &mut self.memory {
            memory.quarantine(number);
        }
        let (id, file) = (&detection.id, &detection.file);
        self.metrics.emit(DetectionQuarantined { detection: id, file, reason });
        self.tell_quarantined();
    }

    /// Tells health and metrics who is quarantined.
    pub(super) fn tell_quarantined(&self) {
        let all = self.breaker.quarantined();
        self.metrics.quarantined(all.keys().map(String::as_str));
        self.health.quarantined(all.iter().map(|(id, one)| (id.clone(), one.reason.clone(), one.since_ms)).collect());
    }
}
