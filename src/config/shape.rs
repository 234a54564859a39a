//! The shape of the configuration: sections, keys, defaults. The reference and the JSON Schema are made of it, so the
//! doc comments here are what operators read. Units stand in the names.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::state::StateAddress;
use super::values::{Address, ClusterPattern, Listen, LogFilter, Parsed, Properties, Secret};
use crate::detection::Status;
use crate::stage::format::Format;
use crate::telemetry::logging::LogFormat;

/// Configuration of Kubetide.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What to read. Sources on the command line replace this list.
    pub sources: Vec<SourceConfig>,
    /// Where alerts go. The first is durable: positions are committed only after it has accepted. Standard output where
    /// the list is empty.
    pub alerts: Vec<Address>,
    /// Where records go that cannot be read: a file or a Kafka topic. Without it they are counted and logged only.
    pub dead_letters: Option<Address>,
    /// Settings of every Kafka client.
    pub kafka: KafkaConfig,
    /// Which detections run.
    pub detections: DetectionsConfig,
    /// What a site knows to be harmless.
    pub exceptions: ExceptionsConfig,
    /// When a batch is closed: by whichever bound is reached first.
    pub batch: BatchConfig,
    /// Threads that decode and evaluate; the number of cores where absent.
    pub workers: Option<NonZeroUsize>,
    /// Time between checkpoints: how much is read again after a crash, at most.
    #[schemars(range(min = 100, max = 600_000))]
    pub checkpoint_interval_ms: u64,
    /// How far events may be out of order within a lane, milliseconds: detections with memory wait so long for
    /// stragglers; what comes later still meets all other detections.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub lateness_ms: u64,
    /// How long a partition or a listener must be silent until detections with memory wait for it no longer,
    /// milliseconds.
    #[schemars(range(min = 1000, max = 86_400_000))]
    pub idle_ms: u64,
    /// Where everything that is remembered outlives the process: a directory, an address such as `s3://bucket/folder`, or
    /// `off`. Where absent: with a Kafka source `kubetide-state` in `$XDG_STATE_HOME` or `~/.local/state`, else nowhere.
    /// Every process has a place of its own.
    pub state: Option<Parsed<StateAddress>>,
    /// Time between snapshots of it. Positions are committed with a snapshot, so this much is read again after a crash.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub snapshot_interval_ms: u64,
    /// With several instances of one group: the topic by which they share what detections with memory remember, such as
    /// `kafka://host:port/kubetide-memory`. Each cluster's memory is then kept by one of them, whichever reads its events,
    /// and moves with its partition. Made where it is missing, with 16 partitions or `?partitions=N`. Needs `state` at a
    /// place that all instances reach. Where absent, each remembers what it reads itself.
    pub exchange: Option<Address>,
    /// Metrics and health pages.
    pub http: HttpConfig,
    /// Log lines, which go to standard error.
    pub log: LogConfig,
    /// What a record may be at most; beyond it, it goes to the dead letters.
    pub limits: LimitsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            sources: Vec::new(),
            alerts: Vec::new(),
            dead_letters: None,
            kafka: KafkaConfig::default(),
            detections: DetectionsConfig::default(),
            exceptions: ExceptionsConfig::default(),
            batch: BatchConfig::default(),
            workers: None,
            checkpoint_interval_ms: 5_000,
            lateness_ms: 60_000,
            idle_ms: 60_000,
            state: None,
            snapshot_interval_ms: 30_000,
            exchange: None,
            http: HttpConfig::default(),
            log: LogConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

impl Config {
    /// Threads that decode and evaluate.
    pub fn worker_count(&self) -> NonZeroUsize {
        self.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
    }
}

/// One source and what it cannot say about itself.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// A path, a glob, a directory, `-`, `kafka://host:port/topic?group=name` or `http://address:port/path`.
    pub url: String,
    /// What the records look like; found out for each record where `auto`.
    #[serde(default)]
    pub format: Format,
    /// Go on reading files that grow or are rotated.
    #[serde(default)]
    pub follow: bool,
    /// The cluster's name, where the records do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Takes the cluster's name from the topic's: a regular expression with a group named `cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_cluster_pattern: Option<Parsed<ClusterPattern>>,
    /// Kafka header that holds the cluster's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_header: Option<String>,
    /// The cloud, where the records do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudName>,
    /// Subscription, account or project, where the records do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The region, where the records do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Networks of proxies and load balancers before the API server. The client's address is the last of `sourceIPs`
    /// that is in none of them; entries before it are what the client claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<Parsed<IpNet>>,
    /// Bearer token that senders must show to an `http://` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// PEM file with the certificate chain of an `https://` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the private key of an `https://` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
}

impl SourceConfig {
    /// A source of which only the address is known.
    pub fn new(url: impl Into<String>) -> SourceConfig {
        SourceConfig {
            url: url.into(),
            format: Format::default(),
            follow: false,
            cluster: None,
            topic_cluster_pattern: None,
            cluster_header: None,
            cloud: None,
            account: None,
            region: None,
            trusted_proxies: Vec::new(),
            token: None,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

/// A cloud's name as the `cloud` column has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloudName {
    Aks,
    Eks,
    Gke,
    OpenShift,
    Other,
}

impl From<CloudName> for crate::model::Cloud {
    fn from(name: CloudName) -> Self {
        match name {
            CloudName::Aks => Self::Aks,
            CloudName::Eks => Self::Eks,
            CloudName::Gke => Self::Gke,
            CloudName::OpenShift => Self::OpenShift,
            CloudName::Other => Self::Other,
        }
    }
}

/// Settings of every Kafka client.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Any librdkafka property, for sources and sinks alike; options of an address win. Secrets such as `sasl.password`
    /// are `{ file = "PATH" }` or `{ env = "NAME" }`.
    pub properties: Properties,
}

/// Which detections run.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionsConfig {
    /// Whether the detections that ship with the program run.
    pub shipped: bool,
    /// Files and directories with more detections.
    pub paths: Vec<PathBuf>,
    /// Maturities that run.
    pub statuses: Vec<Status>,
    /// With live sources: time between two looks at the files of detections, exceptions and lists, which are loaded
    /// anew where they have changed; 0 looks at SIGHUP only.
    #[schemars(range(max = 3_600_000))]
    pub watch_interval_ms: u64,
    /// A detection that so many times panics, or goes beyond its bounds of time, rows or memory, is not evaluated any
    /// more until its query changes or SIGHUP asks for it; 0 evaluates it always.
    #[schemars(range(max = 1_000))]
    pub breaker_harms: u32,
    /// Within this time.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub breaker_interval_ms: u64,
}

impl Default for DetectionsConfig {
    fn default() -> Self {
        DetectionsConfig {
            shipped: true,
            paths: Vec::new(),
            statuses: vec![Status::Stable],
            watch_interval_ms: 2_000,
            breaker_harms: 3,
            breaker_interval_ms: 600_000,
        }
    }
}

/// What a site knows to be harmless.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExceptionsConfig {
    /// Files and directories with exceptions.
    pub paths: Vec<PathBuf>,
}

/// When a batch is closed.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Events in a batch. More is faster under load.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub events: usize,
    /// Bytes of their records.
    #[schemars(range(min = 4_096, max = 1_073_741_824))]
    pub bytes: usize,
    /// Age of its first event: the latency of an alert when little arrives.
    #[schemars(range(min = 1, max = 60_000))]
    pub age_ms: u64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig { events: 8_192, bytes: 4 << 20, age_ms: 100 }
    }
}

/// Metrics and health pages.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to serve them on, `off`, or `auto`: 127.0.0.1:9464 when some source is live, off when all are files.
    pub listen: Parsed<Listen>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { listen: Parsed(Listen::Auto) }
    }
}

/// Log lines.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, `off`, or directives such as `info,kubetide::kafka=debug`.
    pub level: Parsed<LogFilter>,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: Parsed(LogFilter::default()), format: LogFormat::default() }
    }
}

/// What a record may be at most.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of one event.
    #[schemars(range(min = 1_024, max = 1_073_741_824))]
    pub event_bytes: usize,
    /// Bytes of one record after decompression.
    #[schemars(range(min = 1_024, max = 4_294_967_296u64))]
    pub decompressed_bytes: usize,
    /// Levels of nesting in JSON.
    #[schemars(range(min = 8, max = 1_024))]
    pub depth: usize,
    /// Layers of wrapping around an event, such as base64 of gzip of an envelope.
    #[schemars(range(min = 1, max = 16))]
    pub unwrap: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig { event_bytes: 10 << 20, decompressed_bytes: 64 << 20, depth: 128, unwrap: 6 }
    }
}
