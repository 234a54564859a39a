//! A cluster's time when one set of detections follows another: nothing of time changes, numbers of detections do.

use std::collections::BTreeMap;

use super::Timeline;
use crate::stage::memory::Recall;

impl Timeline {
    /// The event time from which on a detection is shown the cluster's events.
    pub fn begins_us(&self, detection: usize) -> i64 {
        self.since.get(&detection).copied().unwrap_or(self.born_us)
    }

    /// Detections have other numbers from now on: `numbers` gives by old number the new one, `None` where what waits and
    /// what is remembered is let go. `anew` are new numbers of detections that begin now. `remake` makes of a memory
    /// the one of the detection as it is now.
    pub fn renumber(
        &mut self,
        numbers: &[Option<usize>],
        anew: impl Iterator<Item = usize>,
        mut remake: impl FnMut(&Timeline, usize, Box<dyn Recall>) -> Option<Box<dyn Recall>>,
    ) {
        let now = |old: usize| numbers.get(old).copied().flatten();
        for held in self.held.values_mut() {
            held.matches.retain_mut(|found| match now(found.detection) {
                Some(number) => {
                    found.detection = number;
                    true
                }
                None => false,
            });
            held.matches.sort_by_key(|found| (found.detection, std::cmp::Reverse(found.step)));
        }
        self.held.retain(|_, held| !held.matches.is_empty());
        let started = std::mem::take(&mut self.started_order);
        self.started.clear();
        for (us, (request, detection, step)) in started {
            if let Some(number) = now(detection) {
                self.started.insert((request, number, step), us);
                self.started_order.push_back((us, (request, number, step)));
            }
        }
        let since = std::mem::take(&mut self.since);
        self.since = since.into_iter().filter_map(|(old, us)| Some((now(old)?, us))).collect();
        // Before the watermark the cluster was shown to others only.
        let begins_us = self.born_us.max(self.watermark_us);
        self.since.extend(anew.map(|number| (number, begins_us)));
        self.wakings.clear();
        self.asleep.clear();
        let recalls: BTreeMap<usize, Box<dyn Recall>> = std::mem::take(&mut self.recalls);
        for (old, recall) in recalls {
            let remade = now(old).and_then(|number| Some((number, remake(self, number, recall)?)));
            if let Some((number, recall)) = remade {
                self.put(number, recall);
            }
        }
    }

    /// Lets go of what waits for a detection and of what it remembers.
    pub fn forget(&mut self, detection: usize) {
        self.held.values_mut().for_each(|held| held.matches.retain(|found| found.detection != detection));
        self.held.retain(|_, held| !held.matches.is_empty());
        self.recalls.remove(&detection);
        self.sleep(detection, None);
    }

    /// The cluster's key.
    pub fn cluster_id(&self) -> &std::sync::Arc<str> {
        &self.cluster_id
    }
}
