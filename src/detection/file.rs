//! The files that detection authors write: one Rust type for each, from which the JSON Schema, the checks and the
//! documentation are made.
//!
//! The doc comments here are what an editor shows and what a diagnostic advises, so they speak to the author.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::memory::{FirstSeenSpec, HabitSpec, Length, SequenceSpec, WindowSpec};
use super::memory_baseline::{AnomalySpec, RhythmSpec, SilenceSpec, SpikeSpec};
use crate::model::Severity;

/// A detection: one SQL query over Kubernetes audit events, why it matters, and the events that prove it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "Kubetide detection")]
#[serde(deny_unknown_fields)]
pub struct DetectionFile {
    /// Name for machines, the same as the file's: lower case words joined with hyphens.
    #[schemars(regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"))]
    pub id: String,
    /// What happened, in one line.
    #[schemars(length(min = 1))]
    pub title: String,
    /// How bad it is when it fires.
    pub severity: Severity,
    /// How far it can be trusted; only `stable` is on by default.
    pub status: Status,
    /// ATT&CK Enterprise v19 as tactic/technique, such as TA0004/T1611.
    #[schemars(length(min = 1))]
    pub attack: Vec<String>,
    /// Why it matters: what an attacker gains.
    #[schemars(length(min = 1))]
    pub description: String,
    /// What to look at and what to do when it fires.
    #[serde(default)]
    pub triage: String,
    /// Who does this for good reasons.
    #[serde(default)]
    pub false_positives: Vec<String>,
    /// Where the query is used.
    #[serde(default = "alert_only")]
    #[schemars(length(min = 1))]
    pub uses: Vec<Use>,
    /// `SELECT * FROM audit WHERE …`, or a SELECT list with computed columns. A sequence has one for each step instead.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub sql: String,
    /// The query sees the events of a sliding window of event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WindowSpec")]
    pub window: Option<WindowSpec>,
    /// Several queries match one after the other for the same entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SequenceSpec")]
    pub sequence: Option<SequenceSpec>,
    /// Of the events that the query matches, only those with a combination of values that was not seen before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FirstSeenSpec")]
    pub first_seen: Option<FirstSeenSpec>,
    /// Fires for what is improbable for whoever did it and for its peers, with the reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnomalySpec")]
    pub anomaly: Option<AnomalySpec>,
    /// Fires when there is more than the past explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SpikeSpec")]
    pub spike: Option<SpikeSpec>,
    /// Fires when events stay away for longer than they ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SilenceSpec")]
    pub silence: Option<SilenceSpec>,
    /// Fires when a request begins to come at exact intervals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RhythmSpec")]
    pub rhythm: Option<RhythmSpec>,
    /// Columns that say what the alert is about; repeats about the same values become one alert.
    #[schemars(length(min = 1))]
    pub entity: Vec<String>,
    /// How long repeats about the same entity update one alert.
    #[serde(default)]
    pub suppress: Suppress,
    /// Who does this by habit: once it was seen on an earlier day, alerts about it have severity low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HabitSpec")]
    pub habit: Option<HabitSpec>,
    /// One line for the alert; {column} is replaced by the event's value.
    #[schemars(length(min = 1))]
    pub summary: String,
    /// Where to read more.
    #[serde(default)]
    pub references: Vec<String>,
    /// Events that must fire and events that must stay quiet.
    #[serde(default)]
    pub tests: Vec<Case>,
    /// Changes of the query that no test needs to notice, with the reason; `kubetide test --mutants` finds the others.
    #[serde(default)]
    pub mutants: Vec<AcceptedMutant>,
}

fn alert_only() -> Vec<Use> {
    vec![Use::Alert]
}

/// How far a detection can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Experimental,
    Testing,
    Stable,
    Deprecated,
}

impl Status {
    /// From the least trusted on; deprecated ones last.
    pub const ALL: [Status; 4] = [Status::Experimental, Status::Testing, Status::Stable, Status::Deprecated];

    /// The word used in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Experimental => "experimental",
            Status::Testing => "testing",
            Status::Stable => "stable",
            Status::Deprecated => "deprecated",
        }
    }
}

/// A place where the engine runs the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// On the live stream.
    Alert,
    /// On the objects in the cluster.
    Posture,
    /// On requests before they are stored.
    Admission,
}

/// A length of time: 0 (one alert for each event) or a whole number with s, m, h or d, such as 15m.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SuppressText")]
pub struct Suppress(pub Duration);

#[derive(Deserialize)]
#[serde(untagged)]
enum SuppressText {
    Number(u64),
    Text(String),
}

const SUPPRESS_PATTERN: &str = "^(0|[1-9][0-9]{0,5}[smhd])$";

impl Default for Suppress {
    fn default() -> Self {
        Suppress(Duration::from_secs(3600))
    }
}

impl TryFrom<SuppressText> for Suppress {
    type Error = String;

    fn try_from(text: SuppressText) -> Result<Self, String> {
        match text {
            SuppressText::Number(0) => Ok(Suppress(Duration::ZERO)),
            SuppressText::Number(number) => Err(format!("{number} lacks its unit: s, m, h or d")),
            SuppressText::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for Suppress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let length = duration(text).map(Suppress);
        length.ok_or_else(|| format!("'{text}' is no length of time such as 30s, 15m, 1h, 1d or 0"))
    }
}

/// A length of time as files write it: 0, or a whole number above it with s, m, h or d.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u32 = text.strip_suffix(unit)?.parse().ok().filter(|number| *number > 0)?;
    Some(Duration::from_secs(u64::from(number) * seconds))
}

impl JsonSchema for Suppress {
    fn schema_name() -> Cow<'static, str> {
        "Suppress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "0 (one alert for each event) or a whole number with s, m, h or d, such as 15m",
            "type": ["string", "integer"],
            "pattern": SUPPRESS_PATTERN,
            "minimum": 0,
            "maximum": 0,
            "default": "1h",
        })
    }
}

/// A test: events that go in, alerts that must come out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence that says what the events are.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Events in order of arrival.
    #[schemars(length(min = 1))]
    pub events: Vec<EventSpec>,
    /// What must come out.
    pub expect: Expect,
}

/// A change of the query that no test needs to notice.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedMutant {
    /// One of the conditions that the query joins with AND, as it stands there.
    #[schemars(length(min = 1))]
    pub sql: String,
    /// Only this change of it, in the words of `kubetide test --mutants`; without it, every change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub change: Option<String>,
    /// Why no test can or need notice.
    #[schemars(length(min = 1))]
    pub reason: String,
}

/// What a test must yield.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Number of alerts after suppression; 0 for a test that stays quiet.
    pub alerts: u32,
    /// Columns of the last matched event and the values that they must have.
    #[serde(default)]
    pub fields: BTreeMap<String, serde_json::Value>,
}

/// An event of a test: a whole record as some cloud delivers it, or a named sample with changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "serde_json::Map<String, serde_json::Value>")]
pub enum EventSpec {
    /// A named sample with changes.
    Sample(SampleEvent),
    /// A whole record in any supported wire format.
    Wire(serde_json::Value),
}

/// A named sample with changes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleEvent {
    /// Name of a file in `samples/`, without `.json`.
    pub sample: String,
    /// What differs from the sample, as a JSON merge patch (RFC 7386): null removes a key, lists are replaced whole.
    #[serde(default)]
    pub set: serde_json::Map<String, serde_json::Value>,
    /// When it happened: a time such as 2026-01-05T10:00:00Z, or +5m for that long after the sample's own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        regex(pattern = r"^(\+(0|[1-9][0-9]{0,5}[smhd])|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z)$")
    )]
    pub at: Option<String>,
    /// How many such events there are; `{n}` in the texts of `set` is the number of each, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 10000))]
    pub repeat: Option<u32>,
    /// The time from each of them to the next; 1s without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Length")]
    pub every: Option<Length>,
    /// The cloud whose envelope the event comes in; without it the event is sent as the API server writes it.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Envelope")]
    pub envelope: Option<Envelope>,
}

/// A cloud's envelope around audit events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    Eks,
    Aks,
    Gke,
}

impl From<serde_json::Map<String, serde_json::Value>> for EventSpec {
    fn from(map: serde_json::Map<String, serde_json::Value>) -> Self {
        if map.contains_key("sample")
            && let Ok(sample) = serde_json::from_value(serde_json::Value::Object(map.clone()))
        {
            return EventSpec::Sample(sample);
        }
        EventSpec::Wire(map.into())
    }
}

impl JsonSchema for EventSpec {
    fn schema_name() -> Cow<'static, str> {
        "Event".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let sample = generator.subschema_for::<SampleEvent>();
        json_schema!({
            "description": "{sample, set, as}, or a whole record in any supported wire format",
            "type": "object",
            "if": { "required": ["sample"] },
            "then": sample,
            "else": { "type": "object" },
        })
    }
}

/// A list of values that detections name as `reference('name')`, each with the reason why it is there.
///
/// A list of the same name elsewhere adds to this one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "Kubetide reference list")]
#[serde(deny_unknown_fields)]
pub struct ListFile {
    /// The name, the same as the file's.
    #[schemars(regex(pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"))]
    pub name: String,
    /// What the values have in common.
    #[schemars(length(min = 1))]
    pub description: String,
    /// The values.
    pub entries: Vec<ListEntry>,
}

/// One value of a list.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListEntry {
    /// The value as SQL compares it.
    #[schemars(length(min = 1))]
    pub value: String,
    /// Why it belongs here.
    #[schemars(length(min = 1))]
    pub reason: String,
}

/// Exceptions of a site: matches that are known and accepted.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(title = "Kubetide exceptions")]
#[serde(transparent)]
pub struct ExceptionsFile(pub Vec<ExceptionEntry>);

/// One exception: a detection, and which of its events it accepts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExceptionEntry {
    /// Id of the detection.
    #[schemars(length(min = 1))]
    pub detection: String,
    /// A predicate over the columns of `audit`; events for which it is true raise no alert of this detection.
    #[schemars(length(min = 1))]
    pub sql: String,
    /// Why this is fine.
    #[schemars(length(min = 1))]
    pub reason: String,
    /// Who answers for it.
    #[schemars(length(min = 1))]
    pub owner: String,
    /// Last day on which it holds, such as 2026-12-31.
    #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub expires: String,
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge_patch(target: &mut serde_json::Value, patch: &serde_json::Map<String, serde_json::Value>) {
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let serde_json::Value::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            serde_json::Value::Null => {
                target.remove(key);
            }
            serde_json::Value::Object(inner) => {
                merge_patch(target.entry(key.as_str()).or_insert(serde_json::Value::Null), inner);
            }
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lengths_of_time_are_read_with_their_unit() {
        let seconds = |text: &str| text.parse::<Suppress>().map(|suppress| suppress.0.as_secs());
        assert_eq!([seconds("0"), seconds("30s"), seconds("15m")], [Ok(0), Ok(30), Ok(900)]);
        assert_eq!([seconds("1h"), seconds("2d")], [Ok(3600), Ok(172_800)]);
        for wrong in ["", "h", "1", "0m", "1.5h", "-1h", "1w", "1h30m", "1 h", "٣h"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn merge_patch_follows_the_rfc() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, expected) in cases {
            merge_patch(&mut target, patch.as_object().expect("a patch is an object"));
            assert_eq!(target, expected);
        }
    }

    #[test]
    fn an_event_is_a_sample_when_it_names_one() {
        let event: EventSpec = serde_json::from_value(json!({"sample": "exec", "as": "gke"})).expect("valid");
        assert!(matches!(event, EventSpec::Sample(SampleEvent { envelope: Some(Envelope::Gke), .. })));
        let event: EventSpec = serde_json::from_value(json!({"kind": "Event"})).expect("valid");
        assert!(matches!(event, EventSpec::Wire(_)));
    }
}
