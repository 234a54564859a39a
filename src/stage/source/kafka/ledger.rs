//! What every partition owes: how far it was handed on, acknowledged and committed.
//!
//! The source's thread, the flow that commits and librdkafka's callbacks meet here. A position is committed only
//! while the partition is ours, and only if this process handed on everything before it since it got the partition:
//! acknowledgements that come after a partition was lost and regained never move it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{LaneId, Position};

/// Partition and the first offset that is not done.
pub(super) type Due = (Arc<str>, i32, i64);

#[derive(Default)]
pub(super) struct Ledger(Mutex<Vec<Entry>>);

struct Entry {
    topic: Arc<str>,
    partition: i32,
    owned: bool,
    /// First offset that was not handed on; `None` until something was.
    sent: Option<i64>,
    /// Broker's time of the newest record that was handed on.
    time_ms: Option<i64>,
    acknowledged: Option<i64>,
    /// What the broker was asked to store last.
    asked: Option<i64>,
    committed: Option<i64>,
}

/// A partition and where it stands, for the lag.
pub(super) struct Standing {
    pub topic: Arc<str>,
    pub partition: i32,
    pub sent: Option<i64>,
    pub committed: Option<i64>,
    pub time_ms: Option<i64>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new lane; lanes are numbered in the order of their calls.
    pub(super) fn add(&self, topic: &str, partition: i32) -> LaneId {
        let mut entries = self.entries();
        entries.push(Entry {
            topic: topic.into(),
            partition,
            owned: false,
            sent: None,
            time_ms: None,
            acknowledged: None,
            asked: None,
            committed: None,
        });
        u32::try_from(entries.len() - 1).unwrap_or(LaneId::MAX)
    }

    /// The partition is ours from here on; `committed` is where the group stands, `next` what will be read first.
    pub(super) fn own(&self, lane: LaneId, committed: Option<i64>, next: Option<i64>) {
        self.change(lane, |entry| {
            entry.owned = true;
            entry.committed = committed;
            (entry.sent, entry.acknowledged, entry.asked, entry.time_ms) = (next, None, None, None);
        });
    }

    pub(super) fn disown(&self, lane: LaneId) {
        self.change(lane, |entry| entry.owned = false);
    }

    /// Everything below `next` was handed on.
    pub(super) fn sent(&self, lane: LaneId, next: i64, time_ms: Option<i64>) {
        self.change(lane, |entry| {
            entry.sent = Some(next);
            entry.time_ms = time_ms.or(entry.time_ms);
        });
    }

    /// Notes what is delivered, and returns what is worth a commit.
    pub(super) fn acknowledge(&self, next: &[Position]) -> Vec<Due> {
        let mut entries = self.entries();
        for position in next {
            let Some(entry) = entries.get_mut(position.lane as usize) else { continue };
            let next = i64::try_from(position.offset).unwrap_or(i64::MAX);
            if entry.owned && entry.sent.is_some_and(|sent| next <= sent) {
                entry.acknowledged = entry.acknowledged.max(Some(next));
            }
        }
        due(&mut entries)
    }

    /// The partition's starting point is to be stored as if everything before it were done.
    pub(super) fn acknowledge_start(&self, lane: LaneId) -> Vec<Due> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(lane as usize) {
            entry.acknowledged = entry.acknowledged.max(entry.sent);
        }
        due(&mut entries)
    }

    /// What was asked for and failed, or was never asked for.
    pub(super) fn overdue(&self) -> Vec<Due> {
        due(&mut self.entries())
    }

    /// Whether the broker has everything that was acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.entries().iter().all(|e| !e.owned || e.acknowledged <= e.committed)
    }

    pub(super) fn committed(&self, topic: &str, partition: i32, next: i64) {
        self.change_named(topic, partition, |entry| entry.committed = entry.committed.max(Some(next)));
    }

    pub(super) fn commit_failed(&self, topic: &str, partition: i32) {
        self.change_named(topic, partition, |entry| entry.asked = entry.committed);
    }

    /// Every partition that is ours.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let entries = self.entries();
        let owned = entries.iter().filter(|e| e.owned);
        owned
            .map(|e| Standing {
                topic: Arc::clone(&e.topic),
                partition: e.partition,
                sent: e.sent,
                committed: e.committed,
                time_ms: e.time_ms,
            })
            .collect()
    }

    fn change(&self, lane: LaneId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries().get_mut(lane as usize) {
            change(entry);
        }
    }

    fn change_named(&self, topic: &str, partition: i32, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        if let Some(entry) = entries.iter_mut().find(|e| e.partition == partition && &*e.topic == topic) {
            change(entry);
        }
    }
}

fn due(entries: &mut [Entry]) -> Vec<Due> {
    let mut list = Vec::new();
    for entry in entries.iter_mut().filter(|entry| entry.owned) {
        let Some(next) = entry.acknowledged else { continue };
        if entry.committed.max(entry.asked) < Some(next) {
            entry.asked = Some(next);
            list.push((Arc::clone(&entry.topic), entry.partition, next));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        ledger.add("t", 0);
        ledger.own(0, None, None);
        ledger
    }

    fn offsets(due: Vec<Due>) -> Vec<i64> {
        due.into_iter().map(|(_, _, next)| next).collect()
    }

    fn at(offset: u64) -> [Position; 1] {
        [Position { lane: 0, offset }]
    }

    #[test]
    fn only_what_was_handed_on_is_committed_and_only_once() {
        let ledger = ledger();
        assert_eq!(offsets(ledger.acknowledge(&at(5))), [0_i64; 0]);
        ledger.sent(0, 10, None);
        assert_eq!(offsets(ledger.acknowledge(&at(5))), [5]);
        assert_eq!(offsets(ledger.acknowledge(&at(5))), [0_i64; 0]);
        assert_eq!(offsets(ledger.acknowledge(&at(4))), [0_i64; 0]);
        assert!(!ledger.is_settled());
        ledger.committed("t", 0, 5);
        assert!(ledger.is_settled());
    }

    #[test]
    fn acknowledgement_from_before_the_partition_was_regained_does_not_move_it() {
        let ledger = ledger();
        ledger.sent(0, 100, None);
        ledger.disown(0);
        assert_eq!(offsets(ledger.acknowledge(&at(100))), [0_i64; 0]);
        ledger.own(0, Some(80), Some(80));
        assert_eq!(offsets(ledger.acknowledge(&at(100))), [0_i64; 0]);
        ledger.sent(0, 90, None);
        assert_eq!(offsets(ledger.acknowledge(&at(90))), [90]);
    }

    #[test]
    fn failed_commit_is_asked_again() {
        let ledger = ledger();
        ledger.sent(0, 10, None);
        assert_eq!(offsets(ledger.acknowledge(&at(10))), [10]);
        assert_eq!(offsets(ledger.overdue()), [0_i64; 0]);
        ledger.commit_failed("t", 0);
        assert_eq!(offsets(ledger.overdue()), [10]);
    }
}
