//! One set of detections follows another while events flow.
//!
//! A [`Generation`] is a whole set, prepared beside the run. When it comes, workers get its [`Plan`] with the next chunk
//! that they take: chunks are taken in order, one at a time, so there is one number ([`Stand::replace`]) before which all
//! chunks belong to the generation before, and from which on all belong to this one. The sequencer changes memories and
//! the alert stage over exactly there. So every event is evaluated once, by one whole generation.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock;
use crate::detection::DetectionSet;
use crate::model::{ColumnSet, Need};
use crate::sql::SqlError;
use crate::stage::evaluate::Evaluator;
use crate::stage::memory::{Memory, MemoryOptions};
use crate::telemetry::{ExceptionsLoaded, Health, Metrics};

/// A set of detections that is ready to run.
#[derive(Debug)]
pub struct Generation {
    pub set: Arc<DetectionSet>,
    pub evaluator: Arc<Evaluator>,
    /// Memories that have seen nothing; `None` where no detection has one.
    pub(super) memory: Option<Memory>,
    /// Detections that were quarantined get another chance.
    pub forgiving: bool,
}

impl Generation {
    /// Prepares a set. Takes its time, and is for a thread beside the run.
    ///
    /// # Errors
    /// Where an expression that was planned cannot be made executable.
    pub fn prepare(set: DetectionSet, options: &MemoryOptions) -> Result<Generation, SqlError> {
        let evaluator = Arc::new(Evaluator::new(&set.detections, &set.planner)?);
        let memory = memory_of(&set, options);
        Ok(Generation { set: Arc::new(set), evaluator, memory, forgiving: false })
    }

    /// A detection of it is not evaluated.
    pub(super) fn quarantine(&mut self, number: usize) {
        self.evaluator.quarantine(number);
        if let Some(memory) = &mut self.memory {
            memory.quarantine(number);
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let kept = self.memory.as_ref().map(|memory| Arc::clone(memory.need()));
        Plan { evaluator: Arc::clone(&self.evaluator), kept }
    }
}

/// The memories of a set's detections.
pub(super) fn memory_of(set: &DetectionSet, options: &MemoryOptions) -> Option<Memory> {
    let excepted = set.exceptions.iter().fold(ColumnSet::EMPTY, |all, one| all.union(one.predicate.columns));
    Memory::new(&set.detections, excepted, options)
}

/// Tells metrics and health what is loaded.
pub fn announce(set: &DetectionSet, metrics: &Metrics, health: &Health) {
    metrics.register_detections(set.detections.iter().map(|detection| (&*detection.id, detection.severity)));
    metrics.detections_loaded(set.detections.iter().map(|detection| detection.status.as_str()));
    let today = clock::today();
    let expired: Vec<_> = set
        .exceptions
        .iter()
        .filter(|exception| exception.expired(today))
        .map(|exception| (exception.detection.to_string(), exception.owner.clone(), exception.expires))
        .collect();
    metrics.emit(ExceptionsLoaded { loaded: set.exceptions.len(), expired: &expired });
    health.detections_loaded(set.detections.len());
}

/// What workers have to know of a generation.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub evaluator: Arc<Evaluator>,
    /// What detections with memory keep of their rows.
    pub kept: Option<Arc<Need>>,
}

/// The plan in force, and how far chunks were taken under it and those before.
#[derive(Debug)]
pub(super) struct Stand {
    inner: Mutex<(Arc<Plan>, u64)>,
}

impl Stand {
    pub fn new(plan: Plan) -> Stand {
        Stand { inner: Mutex::new((Arc::new(plan), 0)) }
    }

    /// The plan for the chunk of this number. To be called in the order of chunks.
    pub fn take(&self, sequence: u64) -> Arc<Plan> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1 = sequence + 1;
        Arc::clone(&inner.0)
    }

    /// Puts another plan in force; the number of the first chunk that it is for.
    pub fn replace(&self, plan: Plan) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 = Arc::new(plan);
        inner.1
    }
}
