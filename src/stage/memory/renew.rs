//! One set of detections follows another while events flow: what each remembers goes on under its new number.
//!
//! Kept is what has the same meaning under the same id ([`Detection::state_fingerprint`]): as it is, or, where settings
//! beside the meaning have changed, through the tables of [`Recall::save`], as over a restart. Others begin now: what they
//! learn, they learn from here on. Time is the clusters', not the detections', and goes on.

use std::collections::HashSet;
use std::sync::Arc;

use super::Memory;
use super::timeline::Memories as _;
use crate::detection::{Detection, Memory as Kind};

/// What became of memories when a set followed another; by id.
#[derive(Debug, Default)]
pub struct Renewed {
    /// Go on as they were.
    pub kept: usize,
    /// Were there, and mean something else now.
    pub changed: Vec<Arc<str>>,
    /// Detection, cluster and reason of memories that could not be taken over.
    pub unfit: Vec<(Arc<str>, Arc<str>, String)>,
}

/// By number of a detection before: its number among those that follow, where its memory means the same.
pub fn same_memory(before: &[Arc<Detection>], after: &[Arc<Detection>]) -> Vec<Option<usize>> {
    let place = |one: &Arc<Detection>| {
        let meaning = one.state_fingerprint()?;
        let number = after.iter().position(|other| other.id == one.id)?;
        (after.get(number)?.state_fingerprint()? == meaning).then_some(number)
    };
    before.iter().map(place).collect()
}

impl Memory {
    /// Takes over what another set's memories hold. This one has seen nothing yet. `numbers` is [`same_memory`].
    pub fn follow(&mut self, before: Memory, numbers: &[Option<usize>]) -> Renewed {
        let mut renewed = Renewed::default();
        let old = &before.kinds.detections;
        let kept: HashSet<usize> = numbers.iter().flatten().copied().collect();
        renewed.kept = kept.len();
        for (number, detection) in old.iter().enumerate().filter(|(_, detection)| detection.memory.is_some()) {
            let still = self.kinds.detections.iter().any(|other| other.id == detection.id && other.memory.is_some());
            if still && numbers.get(number).copied().flatten().is_none() {
                renewed.changed.push(Arc::clone(&detection.id));
            }
        }
        let with_memory = self.kinds.detections.iter().enumerate().filter(|(_, one)| one.memory.is_some());
        let anew: Vec<usize> = with_memory.map(|(number, _)| number).filter(|number| !kept.contains(number)).collect();
        let pairs = numbers.iter().zip(old).filter_map(|(after, before)| Some(((*after)?, before)));
        let unchanged: HashSet<usize> = pairs
            .filter(|(after, before)| self.kinds.detections.get(*after).is_some_and(|one| same_settings(before, one)))
            .map(|(after, _)| after)
            .collect();
        (self.alerts_until, self.counts) = (before.alerts_until, before.counts);
        self.timelines = before.timelines;
        let kinds = &self.kinds;
        for timeline in self.timelines.values_mut() {
            timeline.renumber(numbers, anew.iter().copied(), |timeline, number, mut recall| {
                if let Some(rule) = kinds.windows.get(&number) {
                    recall.replan(rule);
                    return Some(recall);
                }
                if unchanged.contains(&number) {
                    return Some(recall);
                }
                let mut fresh = kinds.make(number, timeline.cluster_id(), timeline.begins_us(number))?;
                if let Err(reason) = fresh.restore(&recall.save()) {
                    let id = Arc::clone(&kinds.detections.get(number)?.id);
                    renewed.unfit.push((id, Arc::clone(timeline.cluster_id()), reason));
                }
                Some(fresh)
            });
        }
        renewed
    }
}

/// Whether a memory that means the same is made the same way, too; a window takes its settings from its rule.
fn same_settings(one: &Detection, other: &Detection) -> bool {
    let made = match (&one.memory, &other.memory) {
        (Some(Kind::Sequence { spec, .. }), Some(Kind::Sequence { spec: other, .. })) => spec == other,
        (Some(Kind::FirstSeen(spec)), Some(Kind::FirstSeen(other))) => spec == other,
        (Some(Kind::Anomaly(spec)), Some(Kind::Anomaly(other))) => spec == other,
        (Some(Kind::Spike(spec)), Some(Kind::Spike(other))) => spec == other,
        (Some(Kind::Silence(spec)), Some(Kind::Silence(other))) => spec == other,
        (Some(Kind::Rhythm(spec)), Some(Kind::Rhythm(other))) => spec == other,
        _ => false,
    };
    made && one.suppress == other.suppress
}
