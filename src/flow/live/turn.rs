//! The turn from one set of detections to the next, between two chunks.

use tokio::sync::mpsc;

use super::{RunError, Sequencer};
use crate::clock::{self, Instant};
use crate::flow::reload::{Generation, announce};
use crate::stage::alert::AlertOptions;
use crate::stage::memory::{Renewed, same_memory};
use crate::telemetry::{DetectionsReloaded, MemoryGap};

impl Sequencer {
    /// Another generation is there: workers evaluate by it from the next chunk on.
    pub(super) async fn renew(&mut self, mut next: Generation) -> Result<(), RunError> {
        for number in self.breaker.follow(&next.set, next.forgiving) {
            next.quarantine(number);
        }
        let from = self.stand.replace(next.plan());
        self.coming.push_back((from, next));
        self.turn().await
    }

    /// Changes over to what comes with the next chunk, if it comes with that.
    pub(super) async fn turn(&mut self) -> Result<(), RunError> {
        while self.coming.front().is_some_and(|(from, _)| *from <= self.done) {
            let Some((_, next)) = self.coming.pop_front() else { break };
            // What has gathered is told by those that found it, as some of them may be gone then.
            let updates = self.stage.flush();
            self.deliver(&updates).await?;
            self.tell_counts();
            self.change_over(next);
        }
        Ok(())
    }

    fn change_over(&mut self, next: Generation) {
        let started = Instant::now();
        let Generation { set, evaluator, memory, .. } = next;
        self.evaluator = evaluator;
        let (before, mut memory) = (std::mem::replace(&mut self.set, set), memory);
        self.generation += 1;
        let renewed = match (&mut memory, self.memory.take()) {
            (Some(after), Some(old)) => after.follow(old, &same_memory(&before.detections, &self.set.detections)),
            _ => Renewed::default(),
        };
        self.memory = memory;
        let subjects = self.set.detections.iter().any(|detection| detection.reads_alerts());
        let options = AlertOptions { subjects, today: clock::today(), ..self.alert_options.clone() };
        self.stage.follow(&self.set, options);
        self.hidden.clear();
        if let Some(keeping) = &mut self.keeping {
            let meanings = self.memory.as_ref().map(|memory| memory.meanings()).unwrap_or_default();
            keeping.follow(self.generation, meanings);
        }
        let known = |one: &str| self.set.detections.iter().any(|detection| *detection.id == *one);
        let removed: Vec<&str> =
            before.detections.iter().map(|detection| &*detection.id).filter(|id| !known(id)).collect();
        for id in &renewed.changed {
            let detail = "what the detection keeps has changed";
            self.metrics.emit(MemoryGap { detection: id, cluster: None, reason: "changed", detail });
        }
        for (id, cluster, detail) in &renewed.unfit {
            self.metrics.emit(MemoryGap { detection: id, cluster: Some(cluster), reason: "damaged", detail });
        }
        self.metrics.emit(DetectionsReloaded {
            generation: self.generation,
            detections: self.set.detections.len(),
            memories: renewed.kept,
            removed: &removed,
            seconds: started.elapsed_seconds(),
        });
        announce(&self.set, &self.metrics, &self.health);
        self.health.generation(self.generation);
        self.tell_quarantined();
    }
}

/// The set of detections that is to follow; never ends where none will.
pub(super) async fn next_set(reloads: &mut Option<mpsc::Receiver<Generation>>) -> Generation {
    match reloads {
        Some(waiting) => match waiting.recv().await {
            Some(next) => next,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
