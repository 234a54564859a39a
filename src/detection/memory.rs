//! The keys of a detection file that give it a memory.
//!
//! The doc comments here are what an editor shows and what a diagnostic advises, so they speak to the author.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::file::duration;

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
    /// How long after its first event whoever `per` names only teaches and raises no alert.
    pub learn: Length,
    /// How long a combination may be away before it is new again.
    pub forget: Length,
}
