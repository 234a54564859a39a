//! What a run found, in the form in which two runs are compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Findings by uid, each with the events that are listed as its evidence in any of its emissions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(pub BTreeMap<String, BTreeSet<String>>);

impl Findings {
    /// Reads emissions, OCSF in JSON, in any order and any of them more than once.
    pub fn of<V: AsRef<[u8]>>(emissions: impl IntoIterator<Item = V>) -> Findings {
        let mut findings = Findings::default();
        for emission in emissions {
            let value: Value = serde_json::from_slice(emission.as_ref()).expect("an emission is JSON");
            let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).expect(pointer).to_owned();
            let events = findings.0.entry(text("/finding_info/uid")).or_default();
            let related = value.pointer("/finding_info/related_events").and_then(Value::as_array).expect("events");
            events.extend(related.iter().map(|event| event["uid"].as_str().expect("an audit id").to_owned()));
        }
        findings
    }

    /// Whether these are exactly the findings of `other`, with at least its evidence; what differs, if not.
    pub fn same_as(&self, other: &Findings) -> Result<(), String> {
        let missing: Vec<&String> = other.0.keys().filter(|uid| !self.0.contains_key(*uid)).collect();
        let extra: Vec<&String> = self.0.keys().filter(|uid| !other.0.contains_key(*uid)).collect();
        if !missing.is_empty() || !extra.is_empty() {
            return Err(format!(
                "{} findings are missing: {missing:?}, {} are extra: {extra:?}",
                missing.len(),
                extra.len()
            ));
        }
        for (uid, events) in &other.0 {
            let lost: Vec<&String> = events.difference(&self.0[uid]).collect();
            if !lost.is_empty() {
                return Err(format!("finding {uid} lost its events {lost:?}"));
            }
        }
        Ok(())
    }

    /// Panics unless the comparison would notice the loss of any one finding, of any one event, and a stranger.
    pub fn assert_every_loss_shows(&self) {
        assert!(!self.0.is_empty());
        for (uid, events) in &self.0 {
            let mut less = self.clone();
            less.0.remove(uid);
            assert!(less.same_as(self).is_err(), "the loss of {uid} goes unnoticed");
            assert!(self.same_as(&less).is_err(), "{uid} that nobody expects goes unnoticed");
            for event in events {
                let mut less = self.clone();
                less.0.get_mut(uid).expect("it is ours").remove(event);
                assert!(less.same_as(self).is_err(), "the loss of {event} in {uid} goes unnoticed");
            }
        }
    }
}
