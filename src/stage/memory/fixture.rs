//! Entries and runs for the tests of memories.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::{Entry, Kept, Recall};
use crate::model::{Finding, KeptRows};

/// An event of some text columns, a response code, and what a SELECT list computed for it.
pub fn entry(event_us: i64, texts: &[(&str, &str)], code: i64, computed: &[(&str, Value)]) -> Entry {
    let times = TimestampMicrosecondArray::from(vec![event_us]).with_timezone("UTC");
    let mut columns: Vec<(&str, ArrayRef)> =
        vec![("event_time", Arc::new(times)), ("response_code", Arc::new(Int64Array::from(vec![code])))];
    for (name, text) in texts {
        columns.push((name, Arc::new(StringArray::from(vec![*text]))));
    }
    let rows = RecordBatch::try_from_iter(columns).expect("one row each");
    let kept = Arc::new(Kept::new(KeptRows { rows, arrival_ms: vec![None] }));
    let computed: Vec<(Arc<str>, Value)> =
        computed.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    Entry::new(&kept, 0, event_us, computed.into())
}

/// Shows events to a memory in order, waking it where it asks for it, as its flow does.
pub fn run(memory: &mut impl Recall, events: &[Entry]) -> Vec<Finding> {
    let mut out = Vec::new();
    for event in events {
        while let Some(due_us) = memory.due().filter(|due_us| *due_us < event.event_us) {
            memory.wake(due_us, &mut out);
        }
        memory.see(0, event, &mut out);
    }
    out
}

/// A generator of the same numbers every time (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.roll() % below
    }

    /// True with a probability of `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64 <= p
    }
}
