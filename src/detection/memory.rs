//! The keys of a detection file that give it a memory.
//!
//! The doc comments here are what an editor shows and what a diagnostic advises, so they speak to the author.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value as Json;

use super::file::{DetectionFile, SampleEvent, duration, merge_patch};
use super::memory_baseline::{AnomalySpec, RhythmSpec, SilenceSpec, SpikeSpec};
use crate::sql::{EventPlan, WindowPlan};

/// A length of time: a whole number with s, m, h or d, such as 15m.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Length(pub Duration);

impl Length {
    /// Microseconds.
    pub fn us(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl TryFrom<String> for Length {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text)
            .filter(|length| !length.is_zero())
            .map(Length)
            .ok_or_else(|| format!("'{text}' is no length of time such as 30s, 15m, 1h or 7d"))
    }
}

impl JsonSchema for Length {
    fn schema_name() -> Cow<'static, str> {
        "Length".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a whole number with s, m, h or d, such as 15m",
            "type": "string",
            "pattern": "^[1-9][0-9]{0,5}[smhd]$",
        })
    }
}

/// A sliding window over event time: the query sees all events of the window as `audit`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// How much time the window covers.
    pub size: Length,
    /// How far it moves from one evaluation to the next; `size` must be a multiple of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Length")]
    pub every: Option<Length>,
    /// Tell as soon as the condition is true, not at the end of `every`; only where further events cannot make it false.
    #[serde(default)]
    pub early: bool,
}

impl WindowSpec {
    /// Most positions that the window takes while one event is in it.
    const HOPS_MAX: u64 = 3600;
    /// How many it takes where the author does not say,
    const HOPS: u64 = 30;
    /// unless it would then move by less than this.
    const HOP_SECONDS_MIN: u64 = 10;

    /// How far the window moves from one evaluation to the next.
    ///
    /// # Errors
    /// Where the size is no multiple of it, or of too small a part.
    pub fn hop(&self) -> Result<Length, String> {
        let size = self.size.0.as_secs();
        let Some(every) = self.every else {
            let hops = (size / Self::HOP_SECONDS_MIN).clamp(1, Self::HOPS);
            let hops = (1..=hops).rev().find(|hops| size.is_multiple_of(*hops)).unwrap_or(1);
            return Ok(Length(Duration::from_secs(size / hops)));
        };
        let every_s = every.0.as_secs();
        if every_s == 0 || !size.is_multiple_of(every_s) {
            return Err(format!("`size` ({size}s) is not a multiple of `every` ({every_s}s)"));
        }
        if size / every_s > Self::HOPS_MAX {
            let max = Self::HOPS_MAX;
            return Err(format!("`every` ({every_s}s) is less than 1/{max} of `size` ({size}s)"));
        }
        Ok(every)
    }
}

/// Steps by the same entity, in order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceSpec {
    /// Columns that all steps have in common.
    #[schemars(length(min = 1))]
    pub by: Vec<String>,
    /// The longest time from the first step to the last.
    pub within: Length,
    /// The steps, each a query over `audit`.
    #[schemars(length(min = 2))]
    pub steps: Vec<StepSpec>,
    /// A query whose events end what has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub until: Option<String>,
}

/// One step of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// `SELECT * FROM audit WHERE …`
    #[schemars(length(min = 1))]
    pub sql: String,
    /// Only as the last step: that no such event follows in time.
    #[serde(default)]
    pub absent: bool,
}

/// A combination of values that was never seen before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstSeenSpec {
    /// The columns whose combination is new.
    #[schemars(length(min = 1))]
    pub of: Vec<String>,
    /// For whom it is new; without it, for the cluster.
    #[serde(default)]
    pub per: Vec<String>,
    /// How long, after a cluster is first heard of, its events only teach and raise no alert.
    pub learn: Length,
    /// How long, after its own first event, whoever `per` names only teaches and raises no alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Length")]
    pub settle: Option<Length>,
    /// How long a combination may be away before it is new again.
    pub forget: Length,
}

/// Who does this by habit: once it was seen on an earlier day, alerts about it have severity low.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HabitSpec {
    /// Columns that say whose habit it is, such as user_name.
    #[schemars(length(min = 1))]
    pub per: Vec<String>,
    /// So many others of the cluster with the habit make it one for everybody, and so do two more who only begin; without
    /// it only one's own counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1))]
    pub others: Option<u32>,
    /// A habit that was not shown for so long is over.
    #[serde(default = "month")]
    pub forget: Length,
}

fn month() -> Length {
    Length(Duration::from_secs(30 * 86_400))
}

/// What a detection with memory keeps in mind.
#[derive(Debug, Clone)]
pub enum Memory {
    /// Steps by one entity, one after the other.
    Sequence {
        spec: SequenceSpec,
        /// The queries of the steps after the first, then that of `until`.
        further: Vec<EventPlan>,
    },
    /// Combinations of values that were seen before.
    FirstSeen(FirstSeenSpec),
    /// How often keys and their peers did what.
    Anomaly(AnomalySpec),
    /// How much of it there was.
    Spike(SpikeSpec),
    /// How long keys were quiet.
    Silence(SilenceSpec),
    /// At what intervals requests came.
    Rhythm(RhythmSpec),
    /// The events of a sliding window.
    Window { spec: WindowSpec, plan: Arc<WindowPlan> },
}

impl Memory {
    /// The key in the file.
    pub fn key(&self) -> &'static str {
        match self {
            Memory::Sequence { .. } => "sequence",
            Memory::FirstSeen(_) => "first_seen",
            Memory::Anomaly(_) => "anomaly",
            Memory::Spike(_) => "spike",
            Memory::Silence(_) => "silence",
            Memory::Rhythm(_) => "rhythm",
            Memory::Window { .. } => "window",
        }
    }

    /// Lists of columns or outputs that its keys name, each with the key below [`Memory::key`].
    pub(super) fn name_lists(&self) -> Vec<(&'static str, &[String])> {
        match self {
            Memory::Sequence { spec, .. } => vec![("by", &spec.by)],
            Memory::FirstSeen(spec) => vec![("of", &spec.of), ("per", &spec.per)],
            Memory::Anomaly(spec) => vec![
                ("features", &spec.features),
                ("per", &spec.per),
                ("peers", &spec.peers),
                ("when", spec.when.as_slice()),
            ],
            Memory::Spike(spec) => vec![("per", &spec.per), ("of", &spec.of), ("peers", &spec.peers)],
            Memory::Silence(spec) => vec![("per", &spec.per)],
            Memory::Rhythm(spec) => vec![("per", &spec.per)],
            Memory::Window { .. } => Vec::new(),
        }
    }

    /// What it computes for each finding, beside the SELECT list: names that the summary may use.
    pub fn gives(&self) -> &'static [&'static str] {
        match self {
            Memory::Sequence { .. } | Memory::FirstSeen(_) | Memory::Window { .. } => &[],
            Memory::Anomaly(_) => &["score", "reasons", "usual"],
            Memory::Spike(_) => &["count", "limit", "usual", "reasons"],
            Memory::Silence(_) => &["quiet_since", "quiet_minutes", "limit_minutes", "usual"],
            Memory::Rhythm(_) => &["interval_seconds", "beats", "since", "usual"],
        }
    }

    /// Columns or outputs that its keys name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.name_lists().into_iter().flat_map(|(_, names)| names).map(String::as_str)
    }
}

impl DetectionFile {
    /// What compares with what is usual, taken out of the file.
    ///
    /// # Errors
    /// Names the key whose values cannot be, and says what is wrong with them.
    pub(super) fn take_baseline(&mut self) -> Result<Option<Memory>, (&'static str, String)> {
        if let Some(spec) = self.anomaly.take() {
            return spec.check().map(|()| Some(Memory::Anomaly(spec))).map_err(|error| ("anomaly", error));
        }
        if let Some(spec) = self.spike.take() {
            return spec.check().map(|()| Some(Memory::Spike(spec))).map_err(|error| ("spike", error));
        }
        if let Some(spec) = self.silence.take() {
            return spec.check().map(|()| Some(Memory::Silence(spec))).map_err(|error| ("silence", error));
        }
        if let Some(spec) = self.rhythm.take() {
            return spec.check().map(|()| Some(Memory::Rhythm(spec))).map_err(|error| ("rhythm", error));
        }
        Ok(None)
    }

    /// The keys of the file that give it a memory.
    pub(super) fn memory_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("sequence", self.sequence.is_some()),
            ("first_seen", self.first_seen.is_some()),
            ("anomaly", self.anomaly.is_some()),
            ("spike", self.spike.is_some()),
            ("silence", self.silence.is_some()),
            ("rhythm", self.rhythm.is_some()),
            ("window", self.window.is_some()),
        ];
        keys.into_iter().filter_map(|(key, given)| given.then_some(key)).collect()
    }
}

/// The events that a test's entry stands for: the sample with its changes, at its time, as often as it says.
///
/// `None` where the sample's own time is asked for and cannot be read.
pub(super) fn events_of(spec: &SampleEvent, sample: &Json) -> Option<Vec<Json>> {
    const TIMES: [&str; 2] = ["requestReceivedTimestamp", "stageTimestamp"];
    let copies = spec.repeat.unwrap_or(1);
    let every = spec.every.map_or(TimeDelta::seconds(1), |every| TimeDelta::microseconds(every.us()));
    let mut events = Vec::with_capacity(copies as usize);
    for number in 1..=copies {
        let mut event = sample.clone();
        let set = match spec.repeat {
            Some(_) => numbered(&Json::Object(spec.set.clone()), number),
            None => Json::Object(spec.set.clone()),
        };
        merge_patch(&mut event, set.as_object()?);
        if spec.repeat.is_some() && !spec.set.contains_key("auditID") {
            let id = event.get("auditID").and_then(Json::as_str).unwrap_or("event").to_owned();
            let at = spec.at.as_deref().unwrap_or_default();
            event["auditID"] = Json::from(format!("{id}-{at}-{number}"));
        }
        if spec.at.is_some() || spec.repeat.is_some() {
            let own = |event: &Json| event.get(TIMES[1])?.as_str()?.parse::<DateTime<Utc>>().ok();
            let start = match spec.at.as_deref() {
                None => own(&event)?,
                Some(at) => match at.strip_prefix('+') {
                    Some(after) => own(&event)? + TimeDelta::from_std(duration(after)?).ok()?,
                    None => at.parse().ok()?,
                },
            };
            let time = start + every * i32::try_from(number - 1).ok()?;
            for name in TIMES {
                event[name] = Json::from(time.to_rfc3339_opts(SecondsFormat::Micros, true));
            }
        }
        events.push(event);
    }
    Some(events)
}

/// The value with `{n}` in all its texts replaced.
fn numbered(value: &Json, number: u32) -> Json {
    match value {
        Json::String(text) => text.replace("{n}", &number.to_string()).into(),
        Json::Array(items) => items.iter().map(|item| numbered(item, number)).collect(),
        Json::Object(map) => {
            Json::Object(map.iter().map(|(key, value)| (key.clone(), numbered(value, number))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn events(spec: Json) -> Vec<Json> {
        let spec: SampleEvent = serde_json::from_value(spec).expect("a sample");
        let sample = json!({"auditID": "a", "stageTimestamp": "2026-01-05T10:00:00.5Z", "verb": "get"});
        events_of(&spec, &sample).expect("times are readable")
    }

    #[test]
    fn copies_are_numbered_and_apart() {
        let made = events(json!({"sample": "s", "repeat": 3, "every": "2m", "at": "+1h",
            "set": {"objectRef": {"name": "secret-{n}"}}}));
        let names: Vec<_> = made.iter().map(|event| event["objectRef"]["name"].clone()).collect();
        assert_eq!(names, ["secret-1", "secret-2", "secret-3"]);
        assert_eq!(made[2]["stageTimestamp"], "2026-01-05T11:04:00.500000Z");
        assert_eq!(made[2]["requestReceivedTimestamp"], made[2]["stageTimestamp"]);
        assert_ne!(made[0]["auditID"], made[1]["auditID"]);
    }

    #[test]
    fn an_entry_without_time_is_the_sample_as_it_is() {
        let made = events(json!({"sample": "s", "set": {"verb": "{n}"}}));
        assert_eq!(made, [json!({"auditID": "a", "stageTimestamp": "2026-01-05T10:00:00.5Z", "verb": "{n}"})]);
        let made = events(json!({"sample": "s", "at": "2026-02-01T00:00:00Z"}));
        assert_eq!(made[0]["stageTimestamp"], "2026-02-01T00:00:00.000000Z");
        assert_eq!(made[0]["auditID"], "a");
    }
}
