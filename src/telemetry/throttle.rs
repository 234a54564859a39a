//! Holds back log lines that would repeat without end, and says how many it held back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// One line of a kind about a subject in this time; counters count every one.
const PERIOD: Duration = Duration::from_secs(10);

struct Slot {
    last: Instant,
    held: u64,
}

/// Remembers when a kind of line was last written. Subjects are few (reasons, detections, sinks), so it stays small.
#[derive(Default)]
pub(super) struct Throttle {
    slots: Mutex<HashMap<(&'static str, String), Slot>>,
}

impl Throttle {
    /// The number of lines held back since the last one if this one may be written, `None` if it is held back.
    pub fn pass(&self, kind: &'static str, subject: &str) -> Option<u64> {
        self.pass_at(kind, subject, Instant::now())
    }

    fn pass_at(&self, kind: &'static str, subject: &str, now: Instant) -> Option<u64> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.get_mut(&(kind, subject.to_owned())) {
            Some(slot) if now.since(slot.last) < PERIOD => {
                slot.held += 1;
                None
            }
            Some(slot) => {
                slot.last = now;
                Some(std::mem::take(&mut slot.held))
            }
            None => {
                slots.insert((kind, subject.to_owned()), Slot { last: now, held: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_one_line_and_a_count() {
        let throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.pass_at("dead_letter", "not_json", start), Some(0));
        assert_eq!(throttle.pass_at("dead_letter", "too_deep", start), Some(0), "another subject has its own turn");
        for _ in 0..5 {
            assert_eq!(throttle.pass_at("dead_letter", "not_json", start.after(Duration::from_secs(1))), None);
        }
        assert_eq!(throttle.pass_at("dead_letter", "not_json", start.after(PERIOD)), Some(5));
    }
}
