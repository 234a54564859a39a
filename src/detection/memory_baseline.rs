//! The keys of a detection file that compare what happens with what is usual.
//!
//! The doc comments here are what an editor shows and what a diagnostic advises, so they speak to the author.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::memory::Length;

/// The name of a feature that the engine computes: how long the key was away before this event.
pub const IDLE: &str = "idle";

/// How surprising an event is for whoever did it, and for its peers, explained by feature.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnomalySpec {
    /// Columns that are judged, each by itself: of the table, or computed by the SELECT list. Null does not count. `idle`
    /// is how long the key was away: under a day, days, a week or more, a month or more.
    #[schemars(length(min = 1, max = 16))]
    pub features: Vec<String>,
    /// Whose habits are learnt, such as `user_name`.
    #[schemars(length(min = 1))]
    pub per: Vec<String>,
    /// Columns with the groups that it belongs to, a text or a list; smaller groups count more than larger ones.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Features whose values say nothing while they are new to everybody, such as a namespace that was just made.
    #[serde(default)]
    pub places: Vec<String>,
    /// A column that says which events are judged; without it, all. Events that are not judged still teach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub when: Option<String>,
    /// How long after a cluster's first event it only learns and raises no alert.
    pub learn: Length,
    /// After what time a habit counts half.
    #[serde(default = "two_weeks", skip_serializing_if = "is_two_weeks")]
    pub half_life: Length,
    /// From how many bits on it fires: each bit is a halving of how probable the event is.
    #[schemars(range(min = 1, max = 1000))]
    pub threshold: f64,
    /// The most bits that one feature gives, so that one oddity alone does not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 1, max = 1000))]
    pub cap: Option<f64>,
}

fn two_weeks() -> Length {
    Length(Duration::from_secs(14 * 86_400))
}

fn is_two_weeks(length: &Length) -> bool {
    *length == two_weeks()
}

impl AnomalySpec {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// Says which value cannot be, why, and what could.
    pub fn check(&self) -> Result<(), String> {
        let whole = self.threshold;
        if !(whole.is_finite() && whole >= 1.0) {
            return Err(format!("anomaly: threshold {whole} is no number of bits; say 10 or more"));
        }
        if let Some(place) = self.places.iter().find(|place| !self.features.contains(place)) {
            return Err(format!("anomaly: place '{place}' is no feature; name it in features, too"));
        }
        if let Some(cap) = self.cap {
            let reach = cap * self.features.len() as f64;
            if !(cap.is_finite() && cap >= 1.0 && reach >= whole) {
                let features = self.features.len();
                return Err(format!(
                    "anomaly: {features} features of at most {cap} bits never reach threshold {whole}; raise cap"
                ));
            }
        }
        unique("anomaly: features", &self.features)?;
        unique("anomaly: per", &self.per)?;
        if self.half_life.0 < Duration::from_secs(86_400) {
            return Err("anomaly: half_life is under a day, but habits are counted in days; say 1d or more".to_owned());
        }
        Ok(())
    }
}

/// More of something by one key than its own past, or that of its peers, explains.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpikeSpec {
    /// Whose events are counted, such as `user_name`.
    #[schemars(length(min = 1))]
    pub per: Vec<String>,
    /// Count the distinct combinations of these columns; without it, events.
    #[serde(default)]
    pub of: Vec<String>,
    /// Columns with the groups that it belongs to, a text or a list: their past is used where its own is too short.
    #[serde(default)]
    pub peers: Vec<String>,
    /// The time over which is counted.
    pub every: Length,
    /// How long after a cluster's first event it only learns and raises no alert.
    pub learn: Length,
    /// Fewer than this never fire.
    #[schemars(range(min = 2))]
    pub floor: u32,
    /// How many robust standard deviations above the median of the past it takes.
    #[serde(default = "six")]
    #[schemars(range(min = 1, max = 100))]
    pub deviations: f64,
}

fn six() -> f64 {
    6.0
}

impl SpikeSpec {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// Says which value cannot be, why, and what could.
    pub fn check(&self) -> Result<(), String> {
        if self.floor < 2 {
            return Err(format!("spike: floor {} lets single events fire; say 2 or more", self.floor));
        }
        if !(self.deviations.is_finite() && self.deviations >= 1.0) {
            return Err(format!("spike: deviations {} is too low; 6 is usual", self.deviations));
        }
        if self.every.0 < Duration::from_secs(60) {
            return Err("spike: every is under a minute; say 1m or more".to_owned());
        }
        unique("spike: per", &self.per)?;
        unique("spike: of", &self.of)
    }
}

/// Nothing from a key that was never quiet for so long.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceSpec {
    /// Whose events must go on; without it, the cluster's.
    #[serde(default)]
    pub per: Vec<String>,
    /// How long after a key's first event it only learns and raises no alert.
    pub learn: Length,
    /// Shorter silences never fire.
    pub least: Length,
    /// How many times longer than the longest silence of the last two weeks it must be.
    #[serde(default = "twice")]
    #[schemars(range(min = 1, max = 100))]
    pub times: f64,
}

fn twice() -> f64 {
    2.0
}

impl SilenceSpec {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// Says which value cannot be, why, and what could.
    pub fn check(&self) -> Result<(), String> {
        if !(self.times.is_finite() && self.times >= 1.0) {
            return Err(format!("silence: times {} is below 1; 2 is usual", self.times));
        }
        unique("silence: per", &self.per)
    }
}

/// The same request at exact intervals, by a key that made it at irregular times before.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RhythmSpec {
    /// What makes requests the same, such as `user_name, verb, resource, namespace, name`.
    #[schemars(length(min = 1))]
    pub per: Vec<String>,
    /// How many intervals must be equal.
    #[schemars(range(min = 4))]
    pub beats: u32,
    /// The shortest interval.
    pub shortest: Length,
    /// The longest interval.
    pub longest: Length,
    /// How far an interval may be off, in percent.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 20))]
    pub jitter: u32,
    /// How many requests at irregular times there must have been before; 0 to take any rhythm.
    #[serde(default)]
    pub irregular: u32,
}

fn two() -> u32 {
    2
}

impl RhythmSpec {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// Says which value cannot be, why, and what could.
    pub fn check(&self) -> Result<(), String> {
        if self.beats < 4 {
            return Err(format!("rhythm: {} beats come by chance; say 8 or more", self.beats));
        }
        if self.shortest >= self.longest {
            return Err("rhythm: shortest is not below longest".to_owned());
        }
        if !(1..=20).contains(&self.jitter) {
            return Err(format!("rhythm: jitter {} is not between 1 and 20 percent", self.jitter));
        }
        unique("rhythm: per", &self.per)
    }
}

fn unique(what: &str, names: &[String]) -> Result<(), String> {
    let twice = names.iter().enumerate().find(|(place, name)| names[..*place].contains(name));
    match twice {
        Some((_, name)) => Err(format!("{what} names '{name}' twice; leave one out")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anomaly(text: &str) -> Result<(), String> {
        serde_json::from_str::<AnomalySpec>(text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_cannot_fire_is_an_error_that_says_so() {
        let good = r#"{"features": ["verb", "idle"], "per": ["user_name"], "learn": "7d", "threshold": 12, "cap": 8}"#;
        assert_eq!(anomaly(good), Ok(()));
        for (from, to, expected) in [
            ("\"cap\": 8", "\"cap\": 5", "2 features of at most 5 bits never reach threshold 12; raise cap"),
            ("\"threshold\": 12", "\"threshold\": 0.5", "no number of bits"),
            ("\"idle\"", "\"verb\"", "names 'verb' twice"),
            ("\"learn\": \"7d\"", "\"learn\": \"7d\", \"places\": [\"namespace\"]", "'namespace' is no feature"),
            ("\"learn\": \"7d\"", "\"learn\": \"7d\", \"half_life\": \"3h\"", "half_life is under a day"),
            ("\"learn\": \"7d\"", "\"learn\": \"7d\", \"window\": \"3h\"", "unknown field `window`"),
        ] {
            let error = anomaly(&good.replace(from, to)).expect_err(to);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn counts_and_times_must_make_sense() {
        let spike = |floor: u32, every: &str| {
            let text = format!(r#"{{"per": ["user_name"], "every": "{every}", "learn": "7d", "floor": {floor}}}"#);
            serde_json::from_str::<SpikeSpec>(&text).expect("well-formed").check()
        };
        assert_eq!(spike(10, "1h"), Ok(()));
        assert!(spike(1, "1h").is_err_and(|error| error.contains("single events")));
        assert!(spike(10, "30s").is_err_and(|error| error.contains("under a minute")));
        let rhythm = |beats: u32, shortest: &str| {
            let text = format!(r#"{{"per": ["name"], "beats": {beats}, "shortest": "{shortest}", "longest": "1h"}}"#);
            serde_json::from_str::<RhythmSpec>(&text).expect("well-formed").check()
        };
        assert_eq!(rhythm(12, "20s"), Ok(()));
        assert!(rhythm(3, "20s").is_err_and(|error| error.contains("by chance")));
        assert!(rhythm(12, "1h").is_err_and(|error| error.contains("not below")));
        let silence = r#"{"learn": "1d", "least": "15m", "times": 0.5}"#;
        let silence = serde_json::from_str::<SilenceSpec>(silence).expect("well-formed").check();
        assert!(silence.is_err_and(|error| error.contains("below 1")));
    }
}
