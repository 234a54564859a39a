//! Takes detections out of force whose evaluation harms the others.
//!
//! What counts is harm: a panic, or a run beyond its bounds of time, rows or memory. A value that cannot be cast is none,
//! or a single made-up event could switch a detection off. Where harm is done so often within some time of running, the
//! detection is quarantined: it is not evaluated any more, which is a gap that is told. The state holds it, so that a
//! restart does not begin with it again. It is held by the meaning of the queries: one that was changed has a fresh
//! chance, and so has every one that an operator asks for (SIGHUP).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::detection::{Detection, DetectionSet};
use crate::state::Quarantine;

/// When a detection is quarantined.
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    /// So many times; 0 never quarantines.
    pub harms: u32,
    /// Within so much time of running.
    pub within: Duration,
}

impl Default for BreakerOptions {
    fn default() -> BreakerOptions {
        BreakerOptions { harms: 3, within: Duration::from_secs(600) }
    }
}

/// What harm was done, and who is quarantined.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    /// By id: when it did harm lately.
    harms: HashMap<String, VecDeque<Instant>>,
    quarantined: BTreeMap<String, Quarantine>,
}

impl Breaker {
    /// `quarantined` is what an earlier run has left.
    pub fn new(options: BreakerOptions, quarantined: BTreeMap<String, Quarantine>) -> Breaker {
        Breaker { options, harms: HashMap::new(), quarantined }
    }

    /// A detection did harm, so many times at once. Whether it is quarantined by that.
    pub fn harmed(&mut self, detection: &Detection, times: u32, reason: &str) -> bool {
        if self.options.harms == 0 || self.quarantined.contains_key(&*detection.id) {
            return false;
        }
        let harms = self.harms.entry(detection.id.to_string()).or_default();
        harms.extend((0..times.min(self.options.harms)).map(|_| Instant::now()));
        while harms.front().is_some_and(|at| at.elapsed() > self.options.within) {
            harms.pop_front();
        }
        if harms.len() < self.options.harms as usize {
            return false;
        }
        self.harms.remove(&*detection.id);
        let (fingerprint, reason) = (detection.query_fingerprint(), reason.to_owned());
        let quarantine = Quarantine { fingerprint, reason, since_ms: clock::now_ms() };
        self.quarantined.insert(detection.id.to_string(), quarantine);
        true
    }

    /// Another set comes. Those that are gone or mean something else are forgiven, with `forgiving` all. The numbers of
    /// those that stay quarantined in it.
    pub fn follow(&mut self, set: &DetectionSet, forgiving: bool) -> Vec<usize> {
        let numbers: HashMap<&str, usize> = set.detections.iter().enumerate().map(|(n, one)| (&*one.id, n)).collect();
        let stays = |id: &str, quarantine: &Quarantine| {
            let detection = set.detections.get(*numbers.get(id)?)?;
            (!forgiving && detection.query_fingerprint() == quarantine.fingerprint).then_some(())
        };
        self.quarantined.retain(|id, quarantine| stays(id, quarantine).is_some());
        if forgiving {
            self.harms.clear();
        }
        self.quarantined.keys().filter_map(|id| numbers.get(id.as_str()).copied()).collect()
    }

    /// Who is quarantined, by id.
    pub fn quarantined(&self) -> &BTreeMap<String, Quarantine> {
        &self.quarantined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::set_reading;

    #[test]
    fn harm_within_some_time_quarantines_until_the_query_changes_or_somebody_asks() {
        let set = set_reading("pods");
        let detection = &set.detections[0];
        let mut breaker = Breaker::new(BreakerOptions::default(), BTreeMap::new());
        assert!(!breaker.harmed(detection, 1, "slow") && !breaker.harmed(detection, 1, "slow"));
        assert!(breaker.harmed(detection, 1, "slow"), "the third time");
        assert!(!breaker.harmed(detection, 1, "slow"), "once");
        let kept = breaker.quarantined().clone();
        assert_eq!(kept["read-pods"].reason, "slow");

        let mut restarted = Breaker::new(BreakerOptions::default(), kept.clone());
        assert_eq!(restarted.follow(&set_reading("pods"), false), [0], "a restart begins with it");
        assert_eq!(restarted.follow(&set_reading("nodes"), false), [0_usize; 0], "another query");
        assert!(restarted.quarantined().is_empty());
        let mut asked = Breaker::new(BreakerOptions::default(), kept);
        assert_eq!(asked.follow(&set_reading("pods"), true), [0_usize; 0]);
    }

    #[test]
    fn harm_that_is_rare_is_forgotten_and_none_may_be_asked_for() {
        let set = set_reading("pods");
        let rare = BreakerOptions { within: Duration::ZERO, ..BreakerOptions::default() };
        let never = BreakerOptions { harms: 0, ..BreakerOptions::default() };
        for options in [rare, never] {
            let mut breaker = Breaker::new(options, BTreeMap::new());
            for _ in 0..9 {
                std::thread::sleep(Duration::from_millis(1));
                assert!(!breaker.harmed(&set.detections[0], 1, "slow"));
            }
        }
    }
}
