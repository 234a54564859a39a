//! The registry and one method for each thing that is counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Encoder, GaugeVec, IntCounter, Registry, TextEncoder};

use super::catalogue::Series;
use super::events::Event;
use super::throttle::Throttle;
use crate::clock::{self, Instant};
use crate::model::{AUDIT_SCHEMA_VERSION, Activity, Cloud, RejectReason, Severity, SkipReason};

/// What is running, for `/version` and `kubetide_build_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// Version of the program.
    pub version: &'static str,
    /// Version of the `audit` table.
    pub audit_schema: &'static str,
}

impl BuildInfo {
    /// Of this binary.
    pub const CURRENT: BuildInfo = BuildInfo { version: env!("CARGO_PKG_VERSION"), audit_schema: AUDIT_SCHEMA_VERSION };
}

/// How far a Kafka partition is; what is not known has no series.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PartitionProgress {
    /// Next offset to fetch.
    pub position: Option<i64>,
    /// First offset that is not committed.
    pub committed: Option<i64>,
    /// Offset after the last record.
    pub end: Option<i64>,
    /// Age of the newest record handled while more are waiting, 0 when caught up, in seconds.
    pub lag_seconds: Option<f64>,
}

/// What became of matches that made no alert of their own, counted from the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AbsorbedTotals {
    /// Added to an open finding.
    pub suppressed: u64,
    /// Another stage or delivery of a request that its finding had already.
    pub duplicates: u64,
    /// Hidden by exceptions.
    pub hidden: u64,
    /// Findings remembered now.
    pub open: u64,
    /// Findings forgotten: over, or for want of room.
    pub evicted: u64,
}

/// What a sink counted from the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkTotals {
    /// Alerts or dead letters taken.
    pub delivered: u64,
    /// Attempts that failed and were repeated.
    pub retried: u64,
    /// Refused for good.
    pub failed: u64,
    /// Lost because the outbox was full.
    pub dropped: u64,
    /// Waiting now.
    pub queued: u64,
}

type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

struct Inner {
    registry: Registry,
    series: Series,
    throttle: Throttle,
    hooks: Mutex<Vec<Hook>>,
    started: Instant,
    /// Milliseconds after `started`, plus one; 0 is never.
    last_poll: AtomicU64,
    last_checkpoint: AtomicU64,
}

/// All metrics of the process. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// A registry of its own with every series whose labels are known, at zero.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let series = Series::register(&registry);
        register_process(&registry);
        let metrics = Metrics {
            inner: Arc::new(Inner {
                registry,
                series,
                throttle: Throttle::default(),
                hooks: Mutex::default(),
                started: Instant::now(),
                last_poll: AtomicU64::new(0),
                last_checkpoint: AtomicU64::new(0),
            }),
        };
        metrics.show_known_labels();
        metrics
    }

    fn show_known_labels(&self) {
        let series = self.series();
        for cloud in Cloud::ALL {
            series.events_decoded.with_label_values(&[cloud.as_str()]);
        }
        for reason in SkipReason::ALL {
            series.events_skipped.with_label_values(&[reason.as_str()]);
        }
        for reason in RejectReason::ALL {
            series.events_rejected.with_label_values(&[reason.as_str()]);
            series.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for event in ["assigned", "revoked", "lost"] {
            series.rebalances.with_label_values(&[event]);
        }
        for cause in ["expired", "truncated"] {
            series.gap_offsets.with_label_values(&[cause]);
        }
        for outcome in ["suppressed", "duplicate", "hidden"] {
            series.matches_absorbed.with_label_values(&[outcome]);
        }
        for outcome in ["kept", "duplicate", "late"] {
            series.memory_events.with_label_values(&[outcome]);
        }
        for kind in ["rows", "tide"] {
            series.exchange_records.with_label_values(&[kind]);
            series.exchange_bytes.with_label_values(&[kind]);
        }
        for family in [&series.exchange_refused, &series.exchange_unknown] {
            family.with_label_values::<&str>(&[]);
        }
        for outcome in ["ok", "failed"] {
            series.checkpoints.with_label_values(&[outcome]);
        }
        for outcome in ["ok", "failed"] {
            series.snapshots.with_label_values(&[outcome]);
        }
        for outcome in ["ok", "failed"] {
            series.reloads.with_label_values(&[outcome]);
        }
        for from in ["event_time", "broker_time"] {
            series.alert_latency.with_label_values(&[from]);
        }
        for gauge in [
            &series.assigned_partitions,
            &series.paused,
            &series.findings_open,
            &series.memory_waiting,
            &series.exchange_partitions,
            &series.watermark,
            &series.generation,
            &series.reload_failing,
            &series.exceptions_loaded,
            &series.exceptions_expired,
        ] {
            gauge.with_label_values::<&str>(&[]).set(0.0);
        }
        let build = BuildInfo::CURRENT;
        series.build_info.with_label_values(&[build.version, build.audit_schema]).set(1.0);
    }

    pub(super) fn series(&self) -> &Series {
        &self.inner.series
    }

    pub(super) fn throttle(&self) -> &Throttle {
        &self.inner.throttle
    }

    /// Counts and logs what happened.
    pub fn emit(&self, event: impl Event) {
        event.emit(self);
    }

    /// Calls `hook` before every scrape, to take over what others count by themselves. It must not render or add hooks,
    /// and should hold no [`Metrics`] of its own, as that would keep them alive for ever.
    pub fn before_scrape(&self, hook: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// The exposition format, version 0.0.4, with totals and ages brought up to now.
    pub fn render(&self) -> String {
        // Held for the whole scrape: two at once would both add what is missing from a total.
        let hooks = self.inner.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.iter().for_each(|hook| hook(self));
        let series = self.series();
        series.checkpoint_age.with_label_values::<&str>(&[]).set(self.checkpoint_age_seconds());
        if let Some(age) = self.age_of(&self.inner.last_poll) {
            series.poll_age.with_label_values::<&str>(&[]).set(age);
        }
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.inner.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => {
                tracing::error!(event = "metrics_render_failed", %error, "metrics cannot be written");
                String::new()
            }
        }
    }

    // Known names: called once at the start so that the series exist.

    /// Makes the series of detections exist at zero. Detections that are gone after a reload keep theirs.
    pub fn register_detections<'a>(&self, detections: impl IntoIterator<Item = (&'a str, Severity)>) {
        let series = self.series();
        for (id, severity) in detections {
            series.detection_matches.with_label_values(&[id, severity.as_str()]);
            series.detection_errors.with_label_values(&[id]);
            series.alerts_hidden.with_label_values(&[id]);
            for activity in [Activity::Create, Activity::Update] {
                series.alerts.with_label_values(&[id, activity_label(activity)]);
            }
        }
    }

    /// The status of each detection that is loaded.
    pub fn detections_loaded(&self, statuses: impl IntoIterator<Item = &'static str>) {
        let family = &self.series().detections_loaded;
        // What no detection has any more is at zero again.
        family.reset();
        statuses.into_iter().for_each(|status| family.with_label_values(&[status]).inc());
    }

    /// The detections that are not evaluated; all others are.
    pub fn quarantined<'a>(&self, detections: impl IntoIterator<Item = &'a str>) {
        let family = &self.series().quarantined;
        family.reset();
        detections.into_iter().for_each(|id| family.with_label_values(&[id]).set(1.0));
    }

    /// The number of the set of detections in force.
    pub fn generation(&self, number: u64) {
        self.series().generation.with_label_values::<&str>(&[]).set(number as f64);
    }

    /// Makes the series of a source exist at zero. The name is the configured one, without credentials or query.
    pub fn register_source(&self, source: &str) {
        let series = self.series();
        for family in [&series.source_records, &series.source_bytes, &series.source_errors] {
            family.with_label_values(&[source]);
        }
    }

    /// Makes the series of a sink exist at zero. The name must hold no credentials.
    pub fn register_sink(&self, sink: &str) {
        let series = self.series();
        for outcome in ["ok", "retry", "failed"] {
            series.sink_requests.with_label_values(&[sink, outcome]);
        }
        series.sink_latency.with_label_values(&[sink]);
        series.sink_queue_depth.with_label_values(&[sink]).set(0.0);
        series.sink_dropped.with_label_values(&[sink]);
    }

    // Source

    /// Records arrived, with the bytes of them all.
    pub fn records_received(&self, source: &str, records: u64, bytes: u64) {
        let series = self.series();
        series.source_records.with_label_values(&[source]).inc_by(records);
        series.source_bytes.with_label_values(&[source]).inc_by(bytes);
    }

    /// How far a partition is. Values that are `None` lose their series.
    pub fn partition_progressed(&self, topic: &str, partition: i32, progress: PartitionProgress) {
        let series = self.series();
        let partition = partition.to_string();
        let labels = [topic, partition.as_str()];
        let lag = progress.end.zip(progress.position).map(|(end, position)| (end - position).max(0) as f64);
        set_or_remove(&series.lag_records, &labels, lag);
        set_or_remove(&series.lag_seconds, &labels, progress.lag_seconds);
        set_or_remove(&series.position_offset, &labels, progress.position.map(|offset| offset as f64));
        set_or_remove(&series.committed_offset, &labels, progress.committed.map(|offset| offset as f64));
        set_or_remove(&series.end_offset, &labels, progress.end.map(|offset| offset as f64));
    }

    /// Another process reads the partition now: its series go.
    pub fn partition_released(&self, topic: &str, partition: i32) {
        self.partition_progressed(topic, partition, PartitionProgress::default());
    }

    /// Records read from a partition, with the bytes of their values.
    pub fn partition_read(&self, topic: &str, partition: i32, records: u64, bytes: u64) {
        let series = self.series();
        let partition = partition.to_string();
        let labels = [topic, partition.as_str()];
        series.kafka_records.with_label_values(&labels).inc_by(records);
        series.kafka_bytes.with_label_values(&labels).inc_by(bytes);
    }

    /// The group moved partitions (`assigned`, `revoked`, `lost`); so many are held now.
    pub fn partitions_moved(&self, event: &'static str, assigned: usize) {
        let series = self.series();
        series.rebalances.with_label_values(&[event]).inc();
        series.assigned_partitions.with_label_values::<&str>(&[]).set(assigned as f64);
    }

    /// Reading is held up because the pipeline is full, or goes on.
    pub fn kafka_paused(&self, paused: bool) {
        self.series().paused.with_label_values::<&str>(&[]).set(f64::from(u8::from(paused)));
    }

    /// Offsets that will never be read (`expired`, `truncated`).
    pub fn gap_found(&self, cause: &'static str, offsets: u64) {
        self.series().gap_offsets.with_label_values(&[cause]).inc_by(offsets);
    }

    /// The broker refused a commit.
    pub fn commit_failed(&self) {
        self.series().commit_errors.with_label_values::<&str>(&[]).inc();
    }

    /// The Kafka client reported an error, by its own code.
    pub fn kafka_failed(&self, code: &str) {
        self.series().kafka_errors.with_label_values(&[code]).inc();
    }

    /// The consumer polled.
    pub fn kafka_polled(&self) {
        self.touch(&self.inner.last_poll);
    }

    // Decode and evaluate

    /// Events decoded and evaluated.
    pub fn events_decoded(&self, cloud: Cloud, events: u64) {
        self.series().events_decoded.with_label_values(&[cloud.as_str()]).inc_by(events);
    }

    /// Elements that are rightly not evaluated.
    pub fn events_skipped(&self, reason: SkipReason, events: u64) {
        self.series().events_skipped.with_label_values(&[reason.as_str()]).inc_by(events);
    }

    /// Elements that could not be read.
    pub fn events_rejected(&self, reason: RejectReason, events: u64) {
        self.series().events_rejected.with_label_values(&[reason.as_str()]).inc_by(events);
    }

    /// Events that arrived cut.
    pub fn events_truncated(&self, events: u64) {
        self.series().events_truncated.with_label_values::<&str>(&[]).inc_by(events);
    }

    /// Delays between events and their arrival, in seconds; negative ones (a clock ahead of ours) count as zero.
    pub fn events_delayed(&self, delays: impl IntoIterator<Item = f64>) {
        let local = self.series().event_time_delay.with_label_values::<&str>(&[]).local();
        delays.into_iter().for_each(|delay| local.observe(delay.max(0.0)));
        local.flush();
    }

    /// A batch of so many rows was decoded in so many seconds.
    pub fn batch_decoded(&self, rows: usize, seconds: f64) {
        let series = self.series();
        series.batch_rows.with_label_values::<&str>(&[]).observe(rows as f64);
        series.decode_seconds.with_label_values::<&str>(&[]).observe(seconds);
    }

    /// Every detection ran over a batch.
    pub fn batch_evaluated(&self, seconds: f64) {
        self.series().evaluate_seconds.with_label_values::<&str>(&[]).observe(seconds);
    }

    /// A detection matched events.
    pub fn detection_matched(&self, detection: &str, severity: Severity, events: u64) {
        let series = self.series();
        series.detection_matches.with_label_values(&[detection, severity.as_str()]).inc_by(events);
        series.last_match.with_label_values(&[detection]).set(clock::now_ms() as f64 / 1_000.0);
    }

    // Alert and sink

    /// An alert was made. Latency is measured to now, from the event's time and, where known, from the broker's.
    pub fn alert_emitted(&self, detection: &str, activity: Activity, event_time_us: i64, broker_ms: Option<i64>) {
        let series = self.series();
        series.alerts.with_label_values(&[detection, activity_label(activity)]).inc();
        let now_us = clock::now_us();
        let observe = |from: &str, then_us: i64| {
            let seconds = now_us.saturating_sub(then_us).max(0) as f64 / 1e6;
            series.alert_latency.with_label_values(&[from]).observe(seconds);
        };
        observe("event_time", event_time_us);
        if let Some(broker_ms) = broker_ms {
            observe("broker_time", broker_ms.saturating_mul(1_000));
        }
    }

    /// An exception kept matches of a detection from becoming alerts.
    pub fn alerts_hidden(&self, detection: &str, matches: u64) {
        self.series().alerts_hidden.with_label_values(&[detection]).inc_by(matches);
    }

    /// The stage's totals so far, for a scrape hook.
    pub fn matches_absorbed(&self, totals: AbsorbedTotals) {
        let series = self.series();
        let AbsorbedTotals { suppressed, duplicates, hidden, open, evicted } = totals;
        for (outcome, total) in [("suppressed", suppressed), ("duplicate", duplicates), ("hidden", hidden)] {
            raise(&series.matches_absorbed.with_label_values(&[outcome]), total);
        }
        series.findings_open.with_label_values::<&str>(&[]).set(open as f64);
        raise(&series.findings_evicted.with_label_values::<&str>(&[]), evicted);
    }

    /// What became of the events of detections with memory so far, and how many wait for the watermark now.
    pub fn memory_counted(&self, kept: u64, duplicates: u64, late: u64, waiting: u64) {
        let series = self.series();
        for (outcome, total) in [("kept", kept), ("duplicate", duplicates), ("late", late)] {
            raise(&series.memory_events.with_label_values(&[outcome]), total);
        }
        series.memory_waiting.with_label_values::<&str>(&[]).set(waiting as f64);
    }

    /// A record goes to the other instances: `rows` or `tide`.
    pub fn exchange_sent(&self, kind: &'static str, bytes: u64) {
        self.series().exchange_records.with_label_values(&[kind]).inc();
        self.series().exchange_bytes.with_label_values(&[kind]).inc_by(bytes);
    }

    /// How many partitions of the exchange are remembered here.
    pub fn exchange_assigned(&self, partitions: usize) {
        self.series().exchange_partitions.with_label_values::<&str>(&[]).set(partitions as f64);
    }

    /// How much the memory of a detection holds now, and what it has dropped so far.
    pub fn memory_holds(&self, detection: &str, rows: u64, keys: u64, bytes: u64, shed: u64) {
        let series = self.series();
        series.memory_rows.with_label_values(&[detection]).set(rows as f64);
        series.memory_keys.with_label_values(&[detection]).set(keys as f64);
        series.memory_bytes.with_label_values(&[detection]).set(bytes as f64);
        raise(&series.memory_shed.with_label_values(&[detection]), shed);
    }

    /// A detection is gone, and with it what it remembered.
    pub fn memory_forgotten(&self, detection: &str) {
        let series = self.series();
        for family in [&series.memory_rows, &series.memory_keys, &series.memory_bytes] {
            set_or_remove(family, &[detection], None);
        }
    }

    /// The oldest watermark, microseconds since the epoch.
    pub fn watermark(&self, us: i64) {
        self.series().watermark.with_label_values::<&str>(&[]).set(us as f64 / 1e6);
    }

    /// A sink took a delivery that lasted so many seconds, retries included.
    pub fn sink_answered(&self, sink: &str, seconds: f64) {
        self.series().sink_latency.with_label_values(&[sink]).observe(seconds);
    }

    /// A sink's totals so far, for a scrape hook.
    pub fn sink_counted(&self, sink: &str, totals: SinkTotals) {
        let series = self.series();
        let SinkTotals { delivered, retried, failed, dropped, queued } = totals;
        for (outcome, total) in [("ok", delivered), ("retry", retried), ("failed", failed)] {
            raise(&series.sink_requests.with_label_values(&[sink, outcome]), total);
        }
        raise(&series.sink_dropped.with_label_values(&[sink]), dropped);
        series.sink_queue_depth.with_label_values(&[sink]).set(queued as f64);
    }

    // Ages

    pub(super) fn checkpointed(&self) {
        self.touch(&self.inner.last_checkpoint);
    }

    /// Seconds since the last good checkpoint, or since the start where there was none.
    pub fn checkpoint_age_seconds(&self) -> f64 {
        self.age_of(&self.inner.last_checkpoint).unwrap_or_else(|| self.inner.started.elapsed_seconds())
    }

    fn touch(&self, moment: &AtomicU64) {
        let millis = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        moment.store(millis + 1, Ordering::Relaxed);
    }

    fn age_of(&self, moment: &AtomicU64) -> Option<f64> {
        let millis = moment.load(Ordering::Relaxed).checked_sub(1)?;
        Some((self.inner.started.elapsed_seconds() - millis as f64 / 1_000.0).max(0.0))
    }
}

fn activity_label(activity: Activity) -> &'static str {
    match activity {
        Activity::Create => "create",
        Activity::Update => "update",
    }
}

/// Brings a counter up to a total that is kept elsewhere. Totals do not fall.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn set_or_remove(family: &GaugeVec, labels: &[&str], value: Option<f64>) {
    match value {
        Some(value) => family.with_label_values(labels).set(value),
        // Removing what does not exist is an error that means nothing here.
        None => drop(family.remove_label_values(labels)),
    }
}

#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) {
    let collector = prometheus::process_collector::ProcessCollector::for_self();
    if let Err(error) = registry.register(Box::new(collector)) {
        tracing::warn!(event = "process_metrics_unavailable", %error, "process metrics are left out");
    }
}

#[cfg(not(target_os = "linux"))]
fn register_process(_: &Registry) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|found| found == line)
    }

    #[test]
    fn known_series_exist_at_zero() {
        let metrics = Metrics::new();
        metrics.register_detections([("exec-into-pod", Severity::High)]);
        metrics.register_sink("stdout");
        metrics.register_source("audit.log");
        let text = metrics.render();
        for line in [
            "kubetide_events_decoded_total{cloud=\"aks\"} 0",
            "kubetide_events_skipped_total{reason=\"stage\"} 0",
            "kubetide_events_rejected_total{reason=\"not_json\"} 0",
            "kubetide_dead_letters_total{reason=\"too_large\"} 0",
            "kubetide_events_truncated_total 0",
            "kubetide_detection_matches_total{detection=\"exec-into-pod\",severity=\"high\"} 0",
            "kubetide_detection_errors_total{detection=\"exec-into-pod\"} 0",
            "kubetide_alerts_total{activity=\"update\",detection=\"exec-into-pod\"} 0",
            "kubetide_sink_requests_total{outcome=\"failed\",sink=\"stdout\"} 0",
            "kubetide_sink_dropped_total{sink=\"stdout\"} 0",
            "kubetide_source_records_total{source=\"audit.log\"} 0",
            "kubetide_kafka_rebalances_total{event=\"lost\"} 0",
            "kubetide_kafka_commit_errors_total 0",
            "kubetide_checkpoints_total{outcome=\"failed\"} 0",
            "kubetide_alert_latency_seconds_count{from=\"broker_time\"} 0",
            "kubetide_exceptions_expired 0",
        ] {
            assert!(has(&text, line), "no line {line} in\n{text}");
        }
        assert!(text.contains("kubetide_build_info{audit_schema="));
        assert!(text.contains("kubetide_checkpoint_age_seconds "));
        assert!(cfg!(not(target_os = "linux")) || text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn what_happened_is_counted() {
        let metrics = Metrics::new();
        metrics.records_received("audit.log", 3, 1_000);
        metrics.events_decoded(Cloud::Eks, 2);
        metrics.batch_decoded(2, 0.001);
        metrics.batch_evaluated(0.002);
        metrics.events_delayed([0.5, -3.0]);
        metrics.detection_matched("exec-into-pod", Severity::High, 2);
        metrics.alert_emitted("exec-into-pod", Activity::Create, clock::now_us() - 2_000_000, None);
        metrics.sink_answered("stdout", 0.01);
        metrics.partitions_moved("assigned", 4);
        metrics.gap_found("expired", 12);
        metrics.commit_failed();
        metrics.kafka_failed("AllBrokersDown");
        metrics.partition_read("audit", 0, 5, 900);
        let text = metrics.render();
        for line in [
            "kubetide_source_bytes_total{source=\"audit.log\"} 1000",
            "kubetide_events_decoded_total{cloud=\"eks\"} 2",
            "kubetide_batch_rows_sum 2",
            "kubetide_batch_evaluate_seconds_count 1",
            "kubetide_event_time_delay_seconds_count 2",
            "kubetide_event_time_delay_seconds_sum 0.5",
            "kubetide_detection_matches_total{detection=\"exec-into-pod\",severity=\"high\"} 2",
            "kubetide_alerts_total{activity=\"create\",detection=\"exec-into-pod\"} 1",
            "kubetide_alert_latency_seconds_bucket{from=\"event_time\",le=\"1\"} 0",
            "kubetide_alert_latency_seconds_bucket{from=\"event_time\",le=\"30\"} 1",
            "kubetide_alert_latency_seconds_count{from=\"broker_time\"} 0",
            "kubetide_sink_latency_seconds_count{sink=\"stdout\"} 1",
            "kubetide_kafka_rebalances_total{event=\"assigned\"} 1",
            "kubetide_kafka_assigned_partitions 4",
            "kubetide_kafka_gap_offsets_total{cause=\"expired\"} 12",
            "kubetide_kafka_commit_errors_total 1",
            "kubetide_kafka_errors_total{code=\"AllBrokersDown\"} 1",
            "kubetide_kafka_consumer_bytes_total{partition=\"0\",topic=\"audit\"} 900",
        ] {
            assert!(has(&text, line), "no line {line} in\n{text}");
        }
    }

    #[test]
    fn totals_counted_elsewhere_are_taken_over_at_every_scrape() {
        let metrics = Metrics::new();
        metrics.register_sink("hook");
        let delivered = Arc::new(AtomicU64::new(3));
        let seen = Arc::clone(&delivered);
        metrics.before_scrape(move |metrics| {
            let totals = SinkTotals { delivered: seen.load(Ordering::Relaxed), queued: 7, ..Default::default() };
            metrics.sink_counted("hook", totals);
            metrics.matches_absorbed(AbsorbedTotals { suppressed: 2, open: 1, ..Default::default() });
        });
        assert!(has(&metrics.render(), "kubetide_sink_requests_total{outcome=\"ok\",sink=\"hook\"} 3"));
        delivered.store(5, Ordering::Relaxed);
        let text = metrics.render();
        for line in [
            "kubetide_sink_requests_total{outcome=\"ok\",sink=\"hook\"} 5",
            "kubetide_sink_queue_depth{sink=\"hook\"} 7",
            "kubetide_matches_absorbed_total{outcome=\"suppressed\"} 2",
            "kubetide_findings_open 1",
        ] {
            assert!(has(&text, line), "no line {line} in\n{text}");
        }
    }

    #[test]
    fn unknown_lag_is_absent_and_released_partitions_vanish() {
        let metrics = Metrics::new();
        metrics.partition_progressed("audit", 3, PartitionProgress { position: Some(10), ..Default::default() });
        assert!(!metrics.render().contains("lag_records{"));
        let progress =
            PartitionProgress { position: Some(10), end: Some(25), lag_seconds: Some(1.5), committed: Some(8) };
        metrics.partition_progressed("audit", 3, progress);
        let text = metrics.render();
        assert!(has(&text, "kubetide_kafka_consumer_lag_records{partition=\"3\",topic=\"audit\"} 15"), "{text}");
        assert!(has(&text, "kubetide_kafka_consumer_lag_seconds{partition=\"3\",topic=\"audit\"} 1.5"));
        metrics.partition_released("audit", 3);
        assert!(!metrics.render().contains("partition=\"3\""));
    }

    #[test]
    fn ages_start_with_the_first_happening() {
        let metrics = Metrics::new();
        assert!(!metrics.render().contains("kubetide_kafka_poll_age_seconds "), "no Kafka, no age");
        metrics.kafka_polled();
        assert!(metrics.render().contains("kubetide_kafka_poll_age_seconds 0"));
    }
}
