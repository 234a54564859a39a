//! What every partition owes: how far it was handed on, acknowledged and committed.
//!
//! The source's thread, the flow that commits and librdkafka's callbacks meet here. A position is committed only
//! while the partition is ours, and only if this process handed on everything before it since it got the partition:
//! acknowledgements that come after a partition was lost and regained never move it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Instant;
use crate::model::{LaneId, Position};
use crate::stage::source::SharedLane;

/// What was appended so short a time before it was read is the present, milliseconds.
const PRESENT_MS: i64 = 5_000;

/// Partition and the first offset that is not done.
pub(super) type Due = (Arc<str>, i32, i64);

#[derive(Default)]
pub(super) struct Ledger {
    table: Mutex<Table>,
    /// Something may be due, or the ledger was closed.
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    /// By lane.
    entries: Vec<Entry>,
    /// Topics and how many partitions each had at the start.
    topics: Vec<(String, i32)>,
    closed: bool,
}

struct Entry {
    topic: Arc<str>,
    partition: i32,
    owned: bool,
    /// First offset that was not handed on; `None` until something was.
    sent: Option<i64>,
    /// Broker's time of the newest record that was handed on.
    time_ms: Option<i64>,
    acknowledged: Option<i64>,
    committed: Option<i64>,
    /// What the last measurement of the lag has seen.
    measured: Option<Measured>,
}

/// Where a partition stood when the broker was last asked for its end.
#[derive(Clone, Copy)]
struct Measured {
    at: Instant,
    position: i64,
    end: i64,
    is_current: bool,
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
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new lane; lanes are numbered in the order of their calls.
    pub(super) fn add(&self, topic: &str, partition: i32) -> LaneId {
        let entries = &mut self.table().entries;
        entries.push(Entry {
            topic: topic.into(),
            partition,
            owned: false,
            sent: None,
            time_ms: None,
            acknowledged: None,
            committed: None,
            measured: None,
        });
        u32::try_from(entries.len() - 1).unwrap_or(LaneId::MAX)
    }

    /// The partition is ours from here on; `committed` is where the group stands, `next` what will be read first.
    pub(super) fn own(&self, lane: LaneId, committed: Option<i64>, next: Option<i64>) {
        self.change(lane, |entry| {
            entry.owned = true;
            entry.committed = committed;
            (entry.sent, entry.acknowledged, entry.time_ms, entry.measured) = (next, None, None, None);
        });
    }

    /// Whether a partition, by the name of its lane, is ours; `None` before the group gave us any.
    pub(super) fn holds(&self, lane: &str) -> Option<bool> {
        let (topic, partition) = lane.rsplit_once('/')?;
        let partition: i32 = partition.parse().ok()?;
        let entries = &self.table().entries;
        let found = entries.iter().find(|entry| &*entry.topic == topic && entry.partition == partition);
        (!entries.is_empty()).then(|| found.is_some_and(|entry| entry.owned))
    }

    /// Tells of all partitions that the group shares.
    pub(super) fn share(&self, topics: impl IntoIterator<Item = (String, i32)>) {
        self.table().topics = topics.into_iter().collect();
    }

    /// The broker has told the end of a partition that is read up to `position`; `behind_ms` is the age of what was read
    /// last.
    pub(super) fn measured(&self, topic: &str, partition: i32, (position, end): (i64, i64), behind_ms: Option<i64>) {
        let mut table = self.table();
        let found = table.entries.iter_mut().find(|entry| &*entry.topic == topic && entry.partition == partition);
        let Some(entry) = found else { return };
        // A partition may end with records that nobody gets to see, such as marks of transactions.
        let is_still = entry.measured.is_some_and(|before| (before.position, before.end) == (position, end));
        let is_current = position >= end || is_still || behind_ms.is_some_and(|ms| ms <= PRESENT_MS);
        entry.measured = Some(Measured { at: Instant::now(), position, end, is_current });
    }

    /// All partitions that the group shares; what was measured longer than `valid` ago says nothing.
    pub(super) fn lanes(&self, valid: Duration) -> Vec<SharedLane> {
        let table = self.table();
        let each = table.topics.iter().flat_map(|(topic, count)| (0..*count).map(move |one| format!("{topic}/{one}")));
        let mut lanes: BTreeMap<String, (bool, bool)> = each.map(|lane| (lane, (false, false))).collect();
        for entry in table.entries.iter().filter(|entry| entry.owned) {
            lanes.insert(format!("{}/{}", entry.topic, entry.partition), (true, entry.is_current(valid)));
        }
        let lanes = lanes.into_iter();
        lanes.map(|(name, (is_own, is_current))| SharedLane { name, is_own, is_current }).collect()
    }

    /// Whether all partitions that are ours are read to their ends, or nearly so.
    pub(super) fn is_current(&self, valid: Duration) -> bool {
        self.table().entries.iter().filter(|entry| entry.owned).all(|entry| entry.is_current(valid))
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

    /// Notes what is delivered.
    pub(super) fn acknowledge(&self, next: &[Position]) {
        let mut table = self.table();
        for position in next {
            let Some(entry) = table.entries.get_mut(position.lane as usize) else { continue };
            let next = i64::try_from(position.offset).unwrap_or(i64::MAX);
            if entry.owned && entry.sent.is_some_and(|sent| next <= sent) {
                entry.acknowledged = entry.acknowledged.max(Some(next));
            }
        }
        self.changed.notify_all();
    }

    /// The partition's starting point is to be stored as if everything before it were done.
    pub(super) fn acknowledge_start(&self, lane: LaneId) {
        self.change(lane, |entry| entry.acknowledged = entry.acknowledged.max(entry.sent));
        self.changed.notify_all();
    }

    /// Waits until something is worth a commit; `None` once closed.
    pub(super) fn wait_for_due(&self) -> Option<Vec<Due>> {
        let mut table = self.table();
        loop {
            let due = due(&table.entries);
            if table.closed {
                return None;
            }
            if !due.is_empty() {
                return Some(due);
            }
            table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long, or until closed.
    pub(super) fn pause(&self, time: Duration) {
        let table = self.table();
        let waited = self.changed.wait_timeout_while(table, time, |table| !table.closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Nothing more will be committed.
    pub(super) fn close(&self) {
        self.table().closed = true;
        self.changed.notify_all();
    }

    /// Whether the broker has everything that was acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        due(&self.table().entries).is_empty()
    }

    /// The broker stored these.
    pub(super) fn committed(&self, stored: &[Due]) {
        let mut table = self.table();
        for (topic, partition, next) in stored {
            let found = table.entries.iter_mut().find(|e| e.partition == *partition && e.topic == *topic);
            if let Some(entry) = found {
                entry.committed = entry.committed.max(Some(*next));
            }
        }
    }

    /// Every partition that is ours.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let table = self.table();
        let owned = table.entries.iter().filter(|e| e.owned);
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
        if let Some(entry) = self.table().entries.get_mut(lane as usize) {
            change(entry);
        }
    }
}

impl Entry {
    fn is_current(&self, valid: Duration) -> bool {
        self.measured.is_some_and(|measured| measured.is_current && measured.at.elapsed() < valid)
    }
}

fn due(entries: &[Entry]) -> Vec<Due> {
    let owed = entries.iter().filter(|entry| entry.owned && entry.acknowledged > entry.committed);
    owed.filter_map(|entry| Some((Arc::clone(&entry.topic), entry.partition, entry.acknowledged?))).collect()
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

    fn owed(ledger: &Ledger) -> Vec<i64> {
        due(&ledger.table().entries).into_iter().map(|(_, _, next)| next).collect()
    }

    fn done(ledger: &Ledger, offset: u64) -> Vec<i64> {
        ledger.acknowledge(&[Position { lane: 0, offset }]);
        owed(ledger)
    }

    #[test]
    fn only_what_was_handed_on_is_committed() {
        let ledger = ledger();
        assert!(done(&ledger, 5).is_empty());
        ledger.sent(0, 10, None);
        assert_eq!(done(&ledger, 5), [5]);
        assert_eq!(done(&ledger, 4), [5]);
        assert!(!ledger.is_settled());
        ledger.committed(&[("t".into(), 0, 5)]);
        assert!(ledger.is_settled());
        assert!(done(&ledger, 5).is_empty());
        assert_eq!(done(&ledger, 7), [7]);
    }

    #[test]
    fn acknowledgement_from_before_the_partition_was_regained_does_not_move_it() {
        let ledger = ledger();
        ledger.sent(0, 100, None);
        ledger.disown(0);
        assert!(done(&ledger, 100).is_empty());
        ledger.own(0, Some(80), Some(80));
        assert!(done(&ledger, 100).is_empty());
        ledger.sent(0, 90, None);
        assert_eq!(done(&ledger, 90), [90]);
    }

    #[test]
    fn whether_a_lane_is_ours_is_known_once_there_is_an_assignment() {
        let empty = Ledger::default();
        assert_eq!(empty.holds("t/0"), None);
        let ledger = ledger();
        assert_eq!(
            (ledger.holds("t/0"), ledger.holds("t/1"), ledger.holds("u/0")),
            (Some(true), Some(false), Some(false))
        );
        ledger.disown(0);
        assert_eq!(ledger.holds("t/0"), Some(false));
        assert_eq!(ledger.holds("no lane"), None);
    }

    #[test]
    fn partitions_are_known_before_they_bring_anything() {
        let ledger = ledger();
        ledger.share([("t".to_owned(), 2)]);
        let owned = |ledger: &Ledger| ledger.lanes(Duration::MAX).iter().map(|lane| lane.is_own).collect::<Vec<_>>();
        assert_eq!(owned(&ledger), [true, false]);
        ledger.disown(0);
        assert_eq!(owned(&ledger), [false, false]);
    }

    #[test]
    fn silence_means_something_only_where_the_end_was_seen() {
        let ledger = ledger();
        let current = |ledger: &Ledger| ledger.is_current(Duration::from_secs(60));
        assert!(!current(&ledger), "nobody has asked");
        ledger.measured("t", 0, (5, 9), Some(60_000));
        assert!(!current(&ledger), "it is behind");
        ledger.measured("t", 0, (6, 9), Some(4_000));
        assert!(current(&ledger), "but not by much");
        ledger.measured("t", 0, (7, 9), None);
        assert!(!current(&ledger));
        ledger.measured("t", 0, (7, 9), None);
        assert!(current(&ledger), "what is left cannot be read");
        ledger.measured("t", 0, (9, 9), None);
        assert!(current(&ledger) && !ledger.is_current(Duration::ZERO), "that was long ago");
        ledger.own(0, None, Some(9));
        assert!(!current(&ledger), "it was somebody else's meanwhile");
    }

    #[test]
    fn closing_wakes_whoever_waits() {
        let ledger = Arc::new(ledger());
        let waiting = Arc::clone(&ledger);
        let thread = std::thread::spawn(move || waiting.wait_for_due());
        ledger.close();
        assert_eq!(thread.join().expect("no panic"), None);
    }
}
