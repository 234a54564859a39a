//! A detection with one thing changed, so that its tests can say whether they notice.

use std::sync::Arc;

use super::memory::{Length, Memory};
use super::pack::{Detection, concerned};
use crate::sql::Planner;

/// A memory with another number in one place.
#[derive(Debug)]
pub struct ChangedNumber {
    /// The key below [`Memory::key`].
    pub key: &'static str,
    /// What was done, for people.
    pub change: String,
    /// Whether more is found than before; otherwise less is.
    pub wider: bool,
    pub memory: Memory,
}

impl Detection {
    /// Its queries as written: of a sequence that of each step, then that of `until`.
    pub fn queries(&self) -> Vec<&str> {
        match &self.memory {
            Some(Memory::Sequence { spec, .. }) => {
                spec.steps.iter().map(|step| step.sql.as_str()).chain(spec.until.as_deref()).collect()
            }
            _ => vec![&self.sql],
        }
    }

    /// The detection with another text for one of its [`queries`](Detection::queries); `None` where it cannot be planned.
    pub fn with_query(&self, planner: &Planner, index: usize, sql: &str) -> Option<Detection> {
        let mut changed = self.clone();
        match &mut changed.memory {
            Some(Memory::Window { spec, plan }) => {
                *plan = Arc::new(planner.plan_window(sql).ok()?);
                if spec.early {
                    plan.only_rises().ok()?;
                }
                changed.plan = concerned(plan);
            }
            Some(Memory::Sequence { further, .. }) if index > 0 => {
                *further.get_mut(index - 1)? = planner.plan_event(sql).ok()?;
            }
            _ => changed.plan = planner.plan_event(sql).ok()?,
        }
        Some(changed)
    }

    /// The detection with another memory of its kind.
    pub fn with_memory(&self, memory: Memory) -> Detection {
        Detection { memory: Some(memory), ..self.clone() }
    }
}

impl Memory {
    /// The same memory with one number changed: a count moved by one, a time halved.
    pub fn changed_numbers(&self) -> Vec<ChangedNumber> {
        let mut found = Vec::new();
        let mut add = |key, change, wider, memory| found.push(ChangedNumber { key, change, wider, memory });
        match self {
            Memory::Window { spec, plan } => {
                let halved = halved(spec.size);
                let spec = super::WindowSpec { size: halved, ..spec.clone() };
                // A window that moves by more than its half has no half.
                if spec.hop().is_ok() {
                    add("size", to(halved), false, Memory::Window { spec, plan: Arc::clone(plan) });
                }
            }
            Memory::Sequence { spec, further } => {
                let within = halved(spec.within);
                let spec = super::SequenceSpec { within, ..spec.clone() };
                add("within", to(within), false, Memory::Sequence { spec, further: further.clone() });
            }
            Memory::FirstSeen(spec) => {
                let learn = halved(spec.learn);
                add("learn", to(learn), true, Memory::FirstSeen(super::FirstSeenSpec { learn, ..spec.clone() }));
                let forget = halved(spec.forget);
                add("forget", to(forget), true, Memory::FirstSeen(super::FirstSeenSpec { forget, ..spec.clone() }));
            }
            Memory::Anomaly(spec) => {
                for (threshold, wider) in [(spec.threshold - 1.0, true), (spec.threshold + 1.0, false)] {
                    let spec = super::AnomalySpec { threshold, ..spec.clone() };
                    add("threshold", moved(threshold), wider, Memory::Anomaly(spec));
                }
            }
            Memory::Spike(spec) => {
                for (floor, wider) in [(spec.floor.saturating_sub(1), true), (spec.floor.saturating_add(1), false)] {
                    let spec = super::SpikeSpec { floor, ..spec.clone() };
                    add("floor", moved(f64::from(floor)), wider, Memory::Spike(spec));
                }
            }
            Memory::Silence(spec) => {
                let least = halved(spec.least);
                add("least", to(least), true, Memory::Silence(super::SilenceSpec { least, ..spec.clone() }));
            }
            Memory::Rhythm(spec) => {
                for (beats, wider) in [(spec.beats.saturating_sub(1), true), (spec.beats.saturating_add(1), false)] {
                    let spec = super::RhythmSpec { beats, ..spec.clone() };
                    add("beats", moved(f64::from(beats)), wider, Memory::Rhythm(spec));
                }
            }
        }
        found
    }
}

fn halved(length: Length) -> Length {
    Length(length.0 / 2)
}

fn to(length: Length) -> String {
    format!("halved to {}s", length.0.as_secs())
}

fn moved(number: f64) -> String {
    format!("moved to {number}")
}
