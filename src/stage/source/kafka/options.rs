//! What can be chosen about reading from Kafka, and how it is written in an address.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use regex::Regex;

use crate::kafka::{Address, Error, Properties};
use crate::model::Lane;

/// Where a group begins that has no position yet. A position that it has always wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the oldest record that is still there: nothing is missed.
    #[default]
    Earliest,
    /// With what arrives from now on.
    Latest,
    /// With the first record that is not older, milliseconds since the epoch.
    At(i64),
}

/// When a chunk is full. Whichever comes first closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub records: usize,
    pub bytes: usize,
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { records: 8_192, bytes: 4 << 20, age: Duration::from_millis(100) }
    }
}

/// Which cluster a record is from, where the record's envelope does not say; in this order.
#[derive(Debug, Clone)]
pub struct Clusters {
    /// Header that names it.
    pub header: String,
    /// Whether the record's key names it.
    pub key: bool,
    /// Pattern over the topic whose first group names it.
    pub topic: Option<Regex>,
    /// The one cluster that all records are from.
    pub name: Option<Arc<str>>,
}

impl Default for Clusters {
    fn default() -> Self {
        Clusters { header: "cluster".to_owned(), key: false, topic: None, name: None }
    }
}

impl Clusters {
    /// The lane of a partition.
    pub(super) fn lane(&self, topic: &str, partition: i32) -> Lane {
        let matched =
            self.topic.as_ref().and_then(|pattern| pattern.captures(topic)?.get(1)).map(|m| m.as_str().into());
        Lane {
            name: format!("{topic}/{partition}").into(),
            fallback_cluster: topic.into(),
            cluster: matched.or_else(|| self.name.clone()),
        }
    }
}

/// Answers where partitions go on.
pub type WhereOn = dyn Fn(&[i32]) -> HashMap<i32, i64> + Send + Sync;

/// Who wants to know of every partition that comes and goes.
#[derive(Clone)]
pub struct Comings(pub Arc<WhereOn>);

impl std::fmt::Debug for Comings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Comings")
    }
}

/// Everything that a Kafka source is told.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    pub topics: Vec<String>,
    pub start: Start,
    /// Where partitions go on, by topic and partition, whatever the group's position is: the state of an earlier run
    /// reaches so far. Holds for the first time that this run gets them.
    pub resume: HashMap<(String, i32), i64>,
    /// Where each partition of the one topic goes on, asked every time that partitions come; and a chunk says when one
    /// has gone. It may take as long as the group waits for a member that does not poll.
    pub comings: Option<Comings>,
    /// End the run at the offsets that are the ends of the partitions when it starts.
    pub until_end: bool,
    pub clusters: Clusters,
    pub limits: Limits,
    /// How long finished work may take to drain when partitions are taken away or the run stops.
    pub drain: Duration,
    /// How often the lag is measured.
    pub lag_every: Duration,
    pub properties: Properties,
}

/// Options of an address that are not librdkafka's.
const OWN: [&str; 11] = [
    "group",
    "start",
    "until",
    "cluster",
    "cluster_header",
    "cluster_key",
    "cluster_topic",
    "chunk_records",
    "chunk_bytes",
    "chunk_age_ms",
    "drain_ms",
];

/// Longest default of `drain_ms`: orchestrators kill half a minute after they asked for a stop.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Properties of librdkafka without a dot in their name.
const DOTLESS: [&str; 1] = ["debug"];

impl KafkaOptions {
    /// Reads an address's options; `given` are properties from elsewhere, which an address's own override.
    ///
    /// # Errors
    /// An option that does not exist or cannot have that value.
    pub fn from_address(address: &Address, given: &[(String, String)]) -> Result<KafkaOptions, Error> {
        KafkaOptions::with_limits(address, given, Limits::default())
    }

    /// As [`KafkaOptions::from_address`], with limits that hold where the address names none.
    ///
    /// # Errors
    /// As [`KafkaOptions::from_address`].
    pub fn with_limits(address: &Address, given: &[(String, String)], limits: Limits) -> Result<KafkaOptions, Error> {
        let mut properties: Vec<(String, String)> = given.to_vec();
        let mut own = Vec::new();
        for (name, value) in &address.options {
            if OWN.contains(&name.as_str()) {
                own.push((name.as_str(), value.as_str()));
            } else if name.contains('.') || DOTLESS.contains(&name.as_str()) {
                properties.push((name.clone(), value.clone()));
            } else {
                return Err(unknown(name));
            }
        }
        let mut options = KafkaOptions {
            topics: address.topics.clone(),
            start: Start::default(),
            resume: HashMap::new(),
            comings: None,
            until_end: false,
            clusters: Clusters::default(),
            limits,
            drain: Duration::ZERO,
            lag_every: Duration::from_secs(10),
            properties: Properties::new(&address.brokers, &properties)?,
        };
        for (name, value) in own {
            options.set(name, value)?;
        }
        options.fill_properties()?;
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let wrong = |problem: String| Error::Property { property: name.to_owned(), problem };
        let number =
            || value.parse::<u32>().ok().filter(|&n| n > 0).ok_or_else(|| wrong(format!("`{value}` is no number")));
        match name {
            "group" => self.properties.require("group.id", value, "`group` says so").map(drop)?,
            "start" => self.start = start(value).map_err(wrong)?,
            "until" if value == "end" => self.until_end = true,
            "until" => return Err(wrong(format!("`{value}` is not `end`"))),
            "cluster" => self.clusters.name = Some(value.into()),
            "cluster_header" => self.clusters.header = value.to_owned(),
            "cluster_key" => {
                self.clusters.key = value.parse().map_err(|_| wrong(format!("`{value}` is not true or false")))?;
            }
            "cluster_topic" => {
                let pattern = Regex::new(value).map_err(|e| wrong(e.to_string()))?;
                if pattern.captures_len() < 2 {
                    return Err(wrong("the pattern needs a group that names the cluster, such as `audit-(.+)`".into()));
                }
                self.clusters.topic = Some(pattern);
            }
            "chunk_records" => self.limits.records = number()? as usize,
            "chunk_bytes" => self.limits.bytes = number()? as usize,
            "chunk_age_ms" => self.limits.age = Duration::from_millis(number()?.into()),
            _ => self.drain = Duration::from_millis(number()?.into()),
        }
        Ok(())
    }

    /// What the promises of the source rest on, and defaults that a user may change.
    fn fill_properties(&mut self) -> Result<(), Error> {
        let properties = &mut self.properties;
        properties.require("enable.auto.commit", "false", "only what is delivered is committed")?;
        properties.require("enable.auto.offset.store", "false", "only what is delivered is committed")?;
        properties.require("auto.offset.reset", "error", "a lost position is recorded as a gap; use `start`")?;
        let eof = if self.until_end { "true" } else { "false" };
        properties.require("enable.partition.eof", eof, "`until` says whether to end")?;
        properties.set_default("group.id", "kubetide");
        properties.set_default("check.crcs", "true");
        properties.set_default("fetch.wait.max.ms", "100");
        properties.set_default("queued.max.messages.kbytes", "32768");
        properties.set_default("max.poll.interval.ms", "120000");
        // The broker decides these under the newer protocol, and the library refuses them there.
        if properties.get("group.protocol") != Some("consumer") {
            properties.set_default("partition.assignment.strategy", "cooperative-sticky");
            properties.set_default("session.timeout.ms", "45000");
        }
        if self.drain.is_zero() {
            // The group waits for a member that gives up partitions as long as for one that does not poll; the library
            // keeps the session alive meanwhile.
            let wait_ms = properties.get("max.poll.interval.ms").and_then(|ms| ms.parse().ok());
            self.drain = Duration::from_millis(wait_ms.unwrap_or(u64::MAX) / 2).min(DRAIN_MAX);
        }
        Ok(())
    }
}

fn start(value: &str) -> Result<Start, String> {
    match value {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Ok(ms) = value.parse::<i64>() {
        return Ok(Start::At(ms));
    }
    let time = DateTime::parse_from_rfc3339(value);
    time.map(|t| Start::At(t.timestamp_millis()))
        .map_err(|_| format!("`{value}` is not earliest, latest or a time such as 2026-11-24T08:00:00Z"))
}

fn unknown(name: &str) -> Error {
    let nearest = OWN
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let problem = match nearest {
        Some((_, known)) => format!("no such option, did you mean `{known}`?"),
        None => format!("no such option; known are {} and every property of librdkafka", OWN.join(", ")),
    };
    Error::Property { property: name.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<KafkaOptions, Error> {
        let address: Address = format!("kafka://a:1/audit-prod?{query}").parse().expect("an address");
        KafkaOptions::from_address(&address, &[])
    }

    #[test]
    fn defaults_never_commit_by_themselves() {
        let options = read("").expect("good");
        assert_eq!(options.properties.get("group.id"), Some("kubetide"));
        assert_eq!(options.properties.get("enable.auto.commit"), Some("false"));
        assert_eq!(options.properties.get("auto.offset.reset"), Some("error"));
        assert_eq!(options.properties.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(options.start, Start::Earliest);
        assert_eq!(options.drain, DRAIN_MAX);
        assert_eq!(read("max.poll.interval.ms=6000").expect("good").drain, Duration::from_secs(3));
    }

    #[test]
    fn options_are_read() {
        let options = read("group=g&start=2026-01-01T00:00:00Z&until=end&cluster_topic=audit-(.%2B)&fetch.min.bytes=7")
            .expect("good");
        assert_eq!(options.properties.get("group.id"), Some("g"));
        assert_eq!(options.start, Start::At(1_767_225_600_000));
        assert!(options.until_end);
        assert_eq!(options.properties.get("fetch.min.bytes"), Some("7"));
        assert_eq!(options.clusters.lane("audit-prod", 3).cluster.as_deref(), Some("prod"));
        assert_eq!(&*options.clusters.lane("other", 3).name, "other/3");
        assert_eq!(options.clusters.lane("other", 3).cluster, None);
    }

    #[test]
    fn mistakes_are_named() {
        for (query, part) in [
            ("grop=g", "did you mean `group`"),
            ("start=yesterday", "is not earliest"),
            ("until=friday", "is not `end`"),
            ("cluster_topic=audit", "needs a group"),
            ("enable.auto.commit=true", "has to be `false`"),
            ("auto.offset.reset=latest", "use `start`"),
            ("sasl.password=x", "a secret does not belong"),
            ("chunk_records=0", "is no number"),
        ] {
            let error = read(query).expect_err(query).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_newer_group_protocol_gets_no_classic_properties() {
        let options = read("group.protocol=consumer").expect("good");
        assert_eq!(options.properties.get("session.timeout.ms"), None);
        assert_eq!(options.properties.get("partition.assignment.strategy"), None);
    }
}
