//! `kubetide run`: the main job.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::config::ConfigArgs;
use super::exit::Failure;
use super::pack::load_untested;
use super::run_reload::Reloader;
use super::watched::{Seen, look};
use super::{run_exchange, run_state};
use crate::clock;
use crate::config::{self, Config, Secret, SourceConfig};
use crate::detection::{Detection, DetectionSet, Status};
use crate::flow::breaker::BreakerOptions;
use crate::flow::lanes::SourceNames;
use crate::flow::live::{Live, LiveSource, RunError, Summary};
use crate::flow::reload;
use crate::flow::work::SourceSettings;
use crate::http;
use crate::kafka::{self, Consuming};
use crate::model::Severity;
use crate::stage::alert::AlertOptions;
use crate::stage::evaluate::Evaluator;
use crate::stage::format::{FormatOptions, Limits};
use crate::stage::memory::MemoryOptions;
use crate::stage::sink::{
    ConsoleFormat, Outbox, OutboxLimits, SinkError, SinkOptions, SinkStats, SinkUrl, open_alert_sink,
    open_dead_letter_sink,
};
use crate::stage::source::file::{FileLimits, FileSource};
use crate::stage::source::http::{HttpAddress, HttpSource};
use crate::stage::source::kafka::{KafkaOptions, KafkaSource, Limits as KafkaLimits};
use crate::stage::source::{NoCommit, Stop};
use crate::state::Positions;
use crate::telemetry::{Health, Metrics, SinkState, SinkTotals, logging};

/// Where unreadable records of live sources go unless told otherwise.
const DEAD_LETTERS: &str = "kubetide-dead-letters.ndjson";

/// Evaluate detections over audit logs and emit alerts
///
/// A SOURCE is a file, a directory, a glob, `-` for standard input, `kafka://host:port/topic?group=NAME`, or
/// `http://addr/path` to receive a kube-apiserver's audit webhook. Formats and compression are detected.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Where audit events come from (default: the configuration's sources)
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Where alerts go: `-`, a path, `kafka://host:port/topic` or `https://…`; the first one gates the commit (repeatable)
    #[arg(long, value_name = "URL")]
    alerts: Vec<String>,
    /// Where records go that cannot be read: a path, `-` for standard error, `kafka://…` or `https://…`
    #[arg(long, value_name = "URL")]
    dead_letters: Option<String>,
    /// How alerts look on standard output
    #[arg(long, value_enum, default_value = "human")]
    format: Output,
    /// Further detections: files or directories (repeatable)
    #[arg(long, value_name = "PATH")]
    detections: Vec<PathBuf>,
    /// Leave the shipped pack out
    #[arg(long)]
    no_shipped: bool,
    /// Exceptions: files or directories (repeatable)
    #[arg(long, value_name = "PATH")]
    exceptions: Vec<PathBuf>,
    /// Run only detections of at least this severity
    #[arg(long, value_enum, value_name = "SEVERITY")]
    min_severity: Option<MinSeverity>,
    /// Name of the cluster where nothing in the events says so
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Form of the records, where detection per record is not wanted
    #[arg(long, value_enum, value_name = "FORM")]
    source_format: Option<SourceForm>,
    /// Read on as files grow or are rotated
    #[arg(long)]
    follow: bool,
    /// Serve /metrics, /livez and /readyz here; `off` for nowhere (default: 127.0.0.1:9464 for live sources)
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Keep what is remembered here, over restarts: a directory, s3://…, gs://…, az://…, or `off` (default: for Kafka a
    /// folder in the user's state directory)
    #[arg(long, value_name = "URL")]
    state: Option<String>,
    /// Share what is remembered with the other instances of the group, by this topic: `kafka://host:port/topic`
    #[arg(long, value_name = "URL")]
    exchange: Option<String>,
    /// Worker threads (default: one a core)
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Print no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Human,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum MinSeverity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl From<MinSeverity> for Severity {
    fn from(severity: MinSeverity) -> Severity {
        Severity::ALL[severity as usize]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SourceForm {
    Auto,
    Native,
    Eks,
    Aks,
    Gke,
    Openshift,
}

/// Runs until the input ends or a signal comes.
///
/// # Errors
/// Exit code 2 for detections that are wrong, 3 for configuration and environment.
pub fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let config = configuration(args)?;
    logging::init(config.log.level.0.as_str(), config.log.format)
        .map_err(|error| Failure::environment(error.to_string()))?;
    if config.sources.is_empty() {
        return Err(Failure::environment(
            "nothing to read: name a source, as in `kubetide run audit.log`, or set `sources` in the configuration",
        ));
    }
    let selection = Arc::new(Selection::of(args, &config));
    // Looked at before they are loaded: a change in between is seen later, not missed.
    let seen = look(&selection.paths);
    let set = selection.select(load_untested(selection.shipped, &selection.paths)?).map_err(Failure::rules)?;
    let evaluator = Evaluator::new(&set.detections, &set.planner)
        .map_err(|error| Failure::rules(format!("detections cannot be prepared: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(format!("cannot start: {error}")))?;
    let format = if args.format == Output::Json { ConsoleFormat::Json } else { ConsoleFormat::Human };
    let set = (Arc::new(set), Arc::new(evaluator));
    let result = runtime.block_on(start(&config, format, (selection, seen), set));
    // Threads that read standard input cannot be interrupted.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match result {
        Ok(summary) => {
            if !args.quiet && !summary.reader_gone {
                report(&summary);
            }
            if summary.rejected > 0 && summary.events == 0 && summary.skipped.is_empty() {
                return Err(Failure::rules(format!(
                    "none of {} records could be read as an audit event; --dead-letters - shows why",
                    summary.records
                )));
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => Err(failure),
    }
}

/// Flags over environment over file over defaults.
fn configuration(args: &RunArgs) -> Result<Config, Failure> {
    let mut layers = args.config.layers()?;
    if !args.sources.is_empty() {
        let source = |url: &String| {
            let mut source = json!({ "url": url, "follow": args.follow });
            if let Some(cluster) = &args.cluster {
                source["cluster"] = json!(cluster);
            }
            if let Some(form) = args.source_format {
                source["format"] = json!(format!("{form:?}").to_lowercase());
            }
            source
        };
        layers.flag("SOURCE", "sources", json!(args.sources.iter().map(source).collect::<Vec<_>>()));
    }
    if !args.alerts.is_empty() {
        layers.flag("--alerts", "alerts", json!(args.alerts));
    }
    let texts = [
        ("--dead-letters", "dead_letters", &args.dead_letters),
        ("--http", "http.listen", &args.http),
        ("--state", "state", &args.state),
    ];
    for (flag, key, value) in texts {
        if let Some(value) = value {
            layers.flag(flag, key, json!(value));
        }
    }
    for (flag, key, paths) in
        [("--detections", "detections.paths", &args.detections), ("--exceptions", "exceptions.paths", &args.exceptions)]
    {
        if !paths.is_empty() {
            layers.flag(flag, key, json!(paths));
        }
    }
    if args.no_shipped {
        layers.flag("--no-shipped", "detections.shipped", json!(false));
    }
    if let Some(exchange) = &args.exchange {
        layers.flag("--exchange", "exchange", json!(exchange));
    }
    if let Some(workers) = args.workers {
        layers.flag("--workers", "workers", json!(workers));
    }
    Ok(config::load(&layers)?.config)
}

/// Which detections run.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub shipped: bool,
    /// Files and directories of detections, exceptions and lists.
    pub paths: Vec<PathBuf>,
    pub statuses: Vec<Status>,
    pub least: Severity,
}

impl Selection {
    fn of(args: &RunArgs, config: &Config) -> Selection {
        Selection {
            shipped: config.detections.shipped,
            paths: config.detections.paths.iter().chain(&config.exceptions.paths).cloned().collect(),
            statuses: config.detections.statuses.clone(),
            least: args.min_severity.map_or(Severity::Informational, Severity::from),
        }
    }

    /// What is to run of a set.
    ///
    /// # Errors
    /// Says so where that is nothing.
    pub fn select(&self, set: DetectionSet) -> Result<DetectionSet, String> {
        let wanted =
            |detection: &Detection| self.statuses.contains(&detection.status) && detection.severity >= self.least;
        let set = set.select(wanted);
        if set.detections.is_empty() {
            let statuses: Vec<&str> = self.statuses.iter().map(|status| status.as_str()).collect();
            return Err(format!(
                "no detection is left to run: status must be one of {}, severity at least {}",
                statuses.join(", "),
                self.least.as_str()
            ));
        }
        Ok(set)
    }
}

async fn start(
    config: &Config,
    format: ConsoleFormat,
    (selection, seen): (Arc<Selection>, Seen),
    (set, evaluator): (Arc<DetectionSet>, Arc<Evaluator>),
) -> Result<Summary, Failure> {
    let (metrics, health, stop) = (Metrics::new(), Health::new(), Stop::default());
    reload::announce(&set, &metrics, &health);
    let live = config.sources.iter().any(is_live);
    let server = match config.http.listen.0.address(live) {
        Some(address) => {
            let pages = http::Pages { metrics: metrics.clone(), health: health.clone() };
            let server = http::start(address, pages).await;
            Some(server.map_err(|error| Failure::environment(error.to_string()))?)
        }
        None => None,
    };
    let (durable_name, durable, outboxes) = open_sinks(config, format, &metrics, &health).await?;
    let dead_letters = match dead_letter_url(config, live)? {
        Some(url) => Some(open_dead_letters(config, &url, &metrics).await?),
        None => None,
    };
    let exchange = run_exchange::open(config, &kafka_properties(config), &metrics, &health).await?;
    // Shared memory has its own; positions are the group's.
    let state = if exchange.is_some() { None } else { run_state::open(config).await? };
    let positions = state.as_ref().map(|state| state.image.positions.clone()).unwrap_or_default();
    let sources = open_sources(config, &metrics, &health, &positions).await?;
    let all = sources.iter().chain(exchange.as_ref().map(|exchange| &exchange.source));
    all.for_each(|source| metrics.register_source(&source.name));
    // Held until the run has ended.
    let (state, _lock) = state.map_or((None, None), |state| (Some((state.snapshots, state.image)), state.lock));
    let memory_options = MemoryOptions {
        lateness: Duration::from_millis(config.lateness_ms),
        silence: Duration::from_millis(config.idle_ms),
    };
    // What instances share is numbered by their sets, which must be the same.
    let (reloader, reloads) = match live && exchange.is_none() {
        true => {
            let (reloader, sets) =
                Reloader::new(Arc::clone(&selection), memory_options.clone(), seen, (&metrics, &health));
            (Some(reloader), Some(sets))
        }
        false => (None, None),
    };
    let run = Live {
        set,
        evaluator,
        alert_options: AlertOptions { severity_least: selection.least, ..AlertOptions::new(clock::today()) },
        memory_options,
        sources,
        durable,
        durable_name,
        outboxes,
        dead_letters,
        workers: config.worker_count().get(),
        checkpoint_interval: Duration::from_millis(config.checkpoint_interval_ms),
        state,
        exchange,
        reloads,
        breaker: BreakerOptions {
            harms: config.detections.breaker_harms,
            within: Duration::from_millis(config.detections.breaker_interval_ms),
        },
        metrics,
        health: health.clone(),
        stop: stop.clone(),
    };
    #[expect(clippy::disallowed_methods, reason = "it is aborted as soon as the run has ended")]
    let signals = tokio::spawn(stop_on_signal(stop, health));
    let interval = Duration::from_millis(config.detections.watch_interval_ms);
    #[expect(clippy::disallowed_methods, reason = "it is aborted as soon as the run has ended")]
    let reloading = reloader.map(|reloader| tokio::spawn(reloader.run(interval)));
    let result = run.run().await;
    signals.abort();
    reloading.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(server) = server {
        server.stop().await;
    }
    result.map_err(|error| match error {
        RunError::Source { .. }
        | RunError::Sink { .. }
        | RunError::Overdue { .. }
        | RunError::State(_)
        | RunError::Exchange(_)
        | RunError::Overtaken { .. }
        | RunError::Internal(_) => Failure::environment(error.to_string()),
    })
}

/// Asks sources to stop at the first signal; a second one ends the program at once.
async fn stop_on_signal(stop: Stop, health: Health) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    let mut first = true;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if !first {
            std::process::exit(130);
        }
        first = false;
        tracing::info!("stopping: finishing what is in hand; a second signal ends at once");
        health.draining();
        stop.request();
    }
}

fn is_live(source: &SourceConfig) -> bool {
    source.follow || ["kafka://", "http://", "https://"].iter().any(|scheme| source.url.starts_with(scheme))
}

fn sink_options(config: &Config, format: ConsoleFormat, metrics: &Metrics, stats: &Arc<SinkStats>) -> SinkOptions {
    SinkOptions {
        format,
        kafka_properties: kafka_properties(config),
        kafka_events: Arc::new(metrics.clone()),
        stats: Arc::clone(stats),
        ..SinkOptions::default()
    }
}

fn kafka_properties(config: &Config) -> Vec<(String, String)> {
    config.kafka.properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The first sink and the outboxes of the others.
async fn open_sinks(
    config: &Config,
    format: ConsoleFormat,
    metrics: &Metrics,
    health: &Health,
) -> Result<(String, Box<dyn crate::stage::sink::AlertSink>, Vec<Outbox>), Failure> {
    let mut urls = Vec::new();
    for address in &config.alerts {
        let text = address.read().map_err(|error| Failure::environment(format!("alerts: {error}")))?;
        urls.push(text.parse::<SinkUrl>().map_err(|error| Failure::environment(format!("alerts: {error}")))?);
    }
    if urls.is_empty() {
        urls.push(SinkUrl::Standard);
    }
    let mut durable = None;
    let mut outboxes = Vec::new();
    for (index, url) in urls.iter().enumerate() {
        let name = format!("{}-{}", scheme(url), index + 1);
        let stats = Arc::new(SinkStats::default());
        let options = sink_options(config, format, metrics, &stats);
        let sink = open_alert_sink(url, &options).await.map_err(|error| sink_failure(&name, &error))?;
        watch(metrics, &name, &stats);
        health.sink(&name, index == 0, SinkState::Up);
        if index == 0 {
            durable = Some((name, sink));
        } else {
            outboxes.push(Outbox::start(name, sink, OutboxLimits::default(), options.retry, stats));
        }
    }
    let (name, sink) = durable.expect("there is at least standard output");
    Ok((name, sink, outboxes))
}

fn scheme(url: &SinkUrl) -> &'static str {
    match url {
        SinkUrl::Standard => "stdout",
        SinkUrl::File(_) => "file",
        SinkUrl::Http(_) => "webhook",
        SinkUrl::Kafka(_) => "kafka",
    }
}

fn sink_failure(name: &str, error: &SinkError) -> Failure {
    Failure::environment(format!("sink {name}: {error}"))
}

/// Publishes what a sink counts whenever somebody scrapes.
fn watch(metrics: &Metrics, name: &str, stats: &Arc<SinkStats>) {
    metrics.register_sink(name);
    let (name, stats) = (name.to_owned(), Arc::clone(stats));
    metrics.before_scrape(move |metrics| {
        let counts = stats.read();
        metrics.sink_counted(
            &name,
            SinkTotals {
                delivered: counts.delivered,
                retried: counts.retried,
                failed: counts.rejected,
                dropped: counts.dropped,
                queued: counts.queued,
            },
        );
    });
}

fn dead_letter_url(config: &Config, live: bool) -> Result<Option<SinkUrl>, Failure> {
    let text = match &config.dead_letters {
        Some(address) => address.read().map_err(|error| Failure::environment(format!("dead_letters: {error}")))?,
        None if live => {
            tracing::info!(
                path = DEAD_LETTERS,
                "records that cannot be read are kept here; set --dead-letters to choose"
            );
            DEAD_LETTERS.to_owned()
        }
        None => return Ok(None),
    };
    text.parse().map(Some).map_err(|error| Failure::environment(format!("dead_letters: {error}")))
}

async fn open_dead_letters(
    config: &Config,
    url: &SinkUrl,
    metrics: &Metrics,
) -> Result<Box<dyn crate::stage::sink::DeadLetterSink>, Failure> {
    let stats = Arc::new(SinkStats::default());
    let options = sink_options(config, ConsoleFormat::Json, metrics, &stats);
    watch(metrics, "dead-letters", &stats);
    open_dead_letter_sink(url, &options).await.map_err(|error| sink_failure("dead letters", &error))
}

/// `positions` are where an earlier run's state ends.
async fn open_sources(
    config: &Config,
    metrics: &Metrics,
    health: &Health,
    positions: &Positions,
) -> Result<Vec<LiveSource>, Failure> {
    let mut sources: Vec<LiveSource> = Vec::new();
    for source in &config.sources {
        let mut names = SourceNames::default();
        sources.iter().for_each(|source| drop(names.next(&source.name)));
        let (config, source, positions) = (config.clone(), source.clone(), positions.clone());
        let (metrics, health) = (metrics.clone(), health.clone());
        let resume = move |name: &str| run_state::resume(positions.get(&names.clone().next(name)));
        // Opening may ask brokers, so it has a thread that may block.
        let opened =
            tokio::task::spawn_blocking(move || open_source(&config, &source, &metrics, &health, &resume)).await;
        sources.push(opened.map_err(|error| Failure::environment(format!("opening a source failed: {error}")))??);
    }
    Ok(sources)
}

/// By topic and partition: an offset.
type Offsets = HashMap<(String, i32), i64>;

/// `resume` gives the partitions of a Kafka source of that name where they go on.
fn open_source(
    config: &Config,
    source: &SourceConfig,
    metrics: &Metrics,
    health: &Health,
    resume: &dyn Fn(&str) -> Offsets,
) -> Result<LiveSource, Failure> {
    let url = source.url.as_str();
    let failed = |error: &dyn std::fmt::Display| Failure::environment(format!("source {url}: {error}"));
    let settings = settings(config, source);
    let cluster: Option<Arc<str>> = source.cluster.as_deref().map(Arc::from);
    let live = |source, committer, name: &str| LiveSource { name: name.to_owned(), source, committer, settings };
    if url.starts_with("kafka://") {
        // Not the whole URL: what is wrong about it may be that it holds a secret.
        let address = url.parse::<kafka::Address>();
        let address = address.map_err(|error| Failure::environment(format!("source {error}")))?;
        let failed = |error: &dyn std::fmt::Display| {
            Failure::environment(format!("source {}: {error}", address.topics.join(",")))
        };
        let limits = KafkaLimits {
            records: config.batch.events,
            bytes: config.batch.bytes,
            age: Duration::from_millis(config.batch.age_ms),
        };
        let mut options =
            KafkaOptions::with_limits(&address, &kafka_properties(config), limits).map_err(|error| failed(&error))?;
        if let Some(header) = &source.cluster_header {
            options.clusters.header.clone_from(header);
        }
        if let Some(pattern) = &source.topic_cluster_pattern {
            options.clusters.topic = Some(pattern.0.regex().clone());
        }
        options.clusters.name = cluster.or(options.clusters.name);
        let name = address.topics.join(",");
        options.resume = resume(&name);
        let events = Consuming::new(metrics.clone(), health.clone(), &name);
        let (source, committer) = KafkaSource::open(options, Arc::new(events)).map_err(|error| failed(&error))?;
        return Ok(live(Box::new(source), committer, &name));
    }
    if url.starts_with("http://") || url.starts_with("https://") {
        let mut address: HttpAddress = url.parse().map_err(|error| failed(&error))?;
        address.cluster = cluster.or(address.cluster);
        secure(&mut address, source)?;
        let source = HttpSource::bind(&address).map_err(|error| failed(&error))?;
        let committer = source.committer();
        let name = address.listen.clone();
        return Ok(live(Box::new(source), committer, &name));
    }
    let limits = FileLimits {
        chunk_events: config.batch.events,
        chunk_bytes: config.batch.bytes,
        chunk_age: Duration::from_millis(config.batch.age_ms),
        record_bytes: config.limits.decompressed_bytes,
    };
    if url == "-" {
        return Ok(live(Box::new(FileSource::stdin(limits, cluster)), Arc::new(NoCommit::Ends), "stdin"));
    }
    let path = url.strip_prefix("file://").unwrap_or(url);
    if let Some((scheme, _)) = path.split_once("://") {
        let help = crate::detection::suggest(scheme, ["kafka", "http", "https", "file"]).unwrap_or_default();
        return Err(failed(&format!(
            "`{scheme}` is no kind of source: use a path, `-`, kafka://, http:// or https://; {help}"
        )));
    }
    let files = FileSource::open(path, source.follow, limits, cluster).map_err(|error| failed(&error))?;
    let committer = if source.follow { NoCommit::GoesOn } else { NoCommit::Ends };
    Ok(live(Box::new(files), Arc::new(committer), path))
}

/// What the configuration says about a listener's token and certificate; the address's own options win.
fn secure(address: &mut HttpAddress, source: &SourceConfig) -> Result<(), Failure> {
    match &source.token {
        Some(Secret::File(file)) if address.token_file.is_none() => address.token_file = Some(file.clone()),
        Some(Secret::Env(_)) => {
            return Err(Failure::environment(format!(
                "source {}: a listener's token is read from a file, so that it can be rotated: token = {{ file = \"…\" }}",
                source.url
            )));
        }
        _ => {}
    }
    match (&source.tls_certificate, &source.tls_key) {
        (Some(certificate), Some(key)) if address.tls.is_none() => {
            address.tls = Some((certificate.clone(), key.clone()));
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err(Failure::environment(format!(
                "source {}: tls_certificate and tls_key go together",
                source.url
            )));
        }
        _ => {}
    }
    Ok(())
}

fn settings(config: &Config, source: &SourceConfig) -> SourceSettings {
    SourceSettings {
        format: FormatOptions {
            format: source.format,
            limits: Limits {
                event_bytes: config.limits.event_bytes,
                decompressed_bytes: config.limits.decompressed_bytes,
                depth: config.limits.depth,
                unwrap: config.limits.unwrap,
            },
            cloud: source.cloud.map(Into::into),
            account: source.account.as_deref().map(Arc::from),
            region: source.region.as_deref().map(Arc::from),
        },
        trusted_proxies: source.trusted_proxies.iter().map(|net| net.0).collect(),
    }
}

/// One paragraph about the run, on standard error.
fn report(summary: &Summary) {
    let severities = ["critical", "high", "medium", "low", "informational"];
    let by_severity: Vec<String> = severities
        .into_iter()
        .filter_map(|word| summary.by_severity.get(word).map(|count| format!("{count} {word}")))
        .collect();
    let skipped: u64 = summary.skipped.values().sum();
    let megabytes = summary.bytes as f64 / 1e6;
    let rate = if summary.seconds > 0.0 { summary.events as f64 / summary.seconds } else { 0.0 };
    anstream::eprintln!(
        "{} alerts{}{}{} from {} events ({:.1} MB, {:.0} events/s); {} skipped, {} unreadable, {} truncated",
        summary.alerts,
        if by_severity.is_empty() { String::new() } else { format!(" ({})", by_severity.join(", ")) },
        if summary.updates > 0 { format!(", {} updates of them", summary.updates) } else { String::new() },
        if summary.hidden > 0 { format!(", {} matches hidden by exceptions,", summary.hidden) } else { String::new() },
        summary.events,
        megabytes,
        rate,
        skipped,
        summary.rejected,
        summary.truncated,
    );
    if summary.late > 0 {
        anstream::eprintln!("{} events came too late for detections with memory: see `lateness_ms`", summary.late);
    }
    if summary.failures > 0 {
        anstream::eprintln!("{} evaluations failed: see the log above", summary.failures);
    }
}
