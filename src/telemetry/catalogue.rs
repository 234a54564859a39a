//! The list of metrics: name, kind, labels and meaning, from which the registry and `schemas/metrics.md` are both made.
//!
//! Names follow Prometheus practice: one prefix, base units, the unit last, `_total` on counters. Labels are words that
//! we choose or the operator configures (detection, sink, topic), never values from events.

use std::fmt::Write as _;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// What a metric measures, in Prometheus terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word used in the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric as documentation and dashboards know it.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// One of the three families, registered.
trait Family: Sized {
    const KIND: Kind;
    fn register(definition: &Definition, buckets: &[f64], registry: &Registry) -> Self;
}

const REGISTERED: &str = "the catalogue's names are valid and unique, which a test holds";

impl Family for IntCounterVec {
    const KIND: Kind = Kind::Counter;
    fn register(definition: &Definition, _: &[f64], registry: &Registry) -> Self {
        let family = IntCounterVec::new(Opts::new(definition.name, definition.help), definition.labels);
        let family = family.expect(REGISTERED);
        registry.register(Box::new(family.clone())).expect(REGISTERED);
        if definition.labels.is_empty() {
            family.with_label_values::<&str>(&[]);
        }
        family
    }
}

impl Family for GaugeVec {
    const KIND: Kind = Kind::Gauge;
    fn register(definition: &Definition, _: &[f64], registry: &Registry) -> Self {
        let family = GaugeVec::new(Opts::new(definition.name, definition.help), definition.labels).expect(REGISTERED);
        registry.register(Box::new(family.clone())).expect(REGISTERED);
        family
    }
}

impl Family for HistogramVec {
    const KIND: Kind = Kind::Histogram;
    fn register(definition: &Definition, buckets: &[f64], registry: &Registry) -> Self {
        let options = HistogramOpts::new(definition.name, definition.help).buckets(buckets.to_vec());
        let family = HistogramVec::new(options, definition.labels).expect(REGISTERED);
        registry.register(Box::new(family.clone())).expect(REGISTERED);
        if definition.labels.is_empty() {
            family.with_label_values::<&str>(&[]);
        }
        family
    }
}

/// Work on one batch or one request: 0.1 ms to 30 s.
const WORK_SECONDS: &[f64] =
    &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From an event to what is made of it: clouds deliver after minutes, a backlog after hours.
const DELAY_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21600.0,
    86400.0,
];
const ROWS: &[f64] = &[1.0, 8.0, 64.0, 256.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 65536.0];
const NONE: &[f64] = &[];

macro_rules! catalogue {
    ($($field:ident: $family:ident $labels:tt $name:literal, $buckets:ident, $help:literal;)*) => {
        /// Every metric of our own, in the order of the reference page. `process_*` comes on top.
        pub static DEFINITIONS: &[Definition] = &[
            $(Definition { name: $name, kind: <$family as Family>::KIND, labels: &$labels, help: $help },)*
        ];

        /// The registered families, one field a metric.
        pub(super) struct Series {
            $(pub $field: $family,)*
        }

        impl Series {
            pub fn register(registry: &Registry) -> Series {
                Series {
                    $($field: {
                        let definition =
                            Definition { name: $name, kind: <$family as Family>::KIND, labels: &$labels, help: $help };
                        <$family as Family>::register(&definition, $buckets, registry)
                    },)*
                }
            }
        }
    };
}

catalogue! {
    source_records: IntCounterVec ["source"] "kubetide_source_records_total", NONE, "Records received, such as Kafka messages, lines or request bodies.";
    source_bytes: IntCounterVec ["source"] "kubetide_source_bytes_total", NONE, "Bytes of the records received, after transport decompression.";
    source_errors: IntCounterVec ["source"] "kubetide_source_errors_total", NONE, "Errors that a source met and reported: an unreadable file, a refused request, a lost connection.";

    kafka_records: IntCounterVec ["topic", "partition"] "kubetide_kafka_consumer_records_total", NONE, "Records read from a partition.";
    kafka_bytes: IntCounterVec ["topic", "partition"] "kubetide_kafka_consumer_bytes_total", NONE, "Bytes of their values.";
    lag_records: GaugeVec ["topic", "partition"] "kubetide_kafka_consumer_lag_records", NONE, "Records between our position and the end of the partition; absent while unknown. Counts this process's partitions only.";
    lag_seconds: GaugeVec ["topic", "partition"] "kubetide_kafka_consumer_lag_seconds", NONE, "How far evaluation is behind: age of the newest record handled while more are waiting, 0 when caught up.";
    position_offset: GaugeVec ["topic", "partition"] "kubetide_kafka_consumer_position_offset", NONE, "Offset of the next record to be fetched.";
    committed_offset: GaugeVec ["topic", "partition"] "kubetide_kafka_consumer_committed_offset", NONE, "Offset of the first record that is not yet delivered and committed.";
    end_offset: GaugeVec ["topic", "partition"] "kubetide_kafka_consumer_end_offset", NONE, "Offset after the partition's last record, as the broker last told.";
    rebalances: IntCounterVec ["event"] "kubetide_kafka_rebalances_total", NONE, "Changes of the consumer group: partitions assigned, revoked, or lost without being asked.";
    assigned_partitions: GaugeVec [] "kubetide_kafka_assigned_partitions", NONE, "Partitions that this process reads now.";
    commit_errors: IntCounterVec [] "kubetide_kafka_commit_errors_total", NONE, "Commits that the broker refused; their records will be read again.";
    kafka_errors: IntCounterVec ["code"] "kubetide_kafka_errors_total", NONE, "Errors that the Kafka client reported, by its own code.";
    gap_offsets: IntCounterVec ["cause"] "kubetide_kafka_gap_offsets_total", NONE, "Offsets that will never be read: expired before we came to them, or truncated by the broker.";
    paused: GaugeVec [] "kubetide_kafka_paused", NONE, "1 while reading is held up because the pipeline is full.";
    poll_age: GaugeVec [] "kubetide_kafka_poll_age_seconds", NONE, "Time since the consumer last polled; absent without Kafka. Above the poll interval the group expels us.";

    events_decoded: IntCounterVec ["cloud"] "kubetide_events_decoded_total", NONE, "Audit events that were evaluated.";
    events_skipped: IntCounterVec ["reason"] "kubetide_events_skipped_total", NONE, "Elements that are rightly not evaluated: another stage, category or product, a health check, an empty value.";
    events_rejected: IntCounterVec ["reason"] "kubetide_events_rejected_total", NONE, "Elements that could not be read; each goes to the dead letters.";
    events_truncated: IntCounterVec [] "kubetide_events_truncated_total", NONE, "Events that arrived cut or without their bodies and were evaluated with what is left.";
    dead_letters: IntCounterVec ["reason"] "kubetide_dead_letters_total", NONE, "Records written to the dead-letter sink.";
    event_time_delay: HistogramVec [] "kubetide_event_time_delay_seconds", DELAY_SECONDS, "Time from an event that some detection matched to its arrival at the transport.";

    batch_rows: HistogramVec [] "kubetide_batch_rows", ROWS, "Events in one batch.";
    decode_seconds: HistogramVec [] "kubetide_batch_decode_seconds", WORK_SECONDS, "Time to decode one batch into columns.";
    evaluate_seconds: HistogramVec [] "kubetide_batch_evaluate_seconds", WORK_SECONDS, "Time to run every detection over one batch.";

    detections_loaded: GaugeVec ["status"] "kubetide_detections_loaded", NONE, "Detections that are loaded, by maturity.";
    generation: GaugeVec [] "kubetide_detections_generation", NONE, "Number of the set of detections in force: one more with every start and every reload.";
    reloads: IntCounterVec ["outcome"] "kubetide_reloads_total", NONE, "Sets of detections that were loaded while events flowed: in force (ok), or refused because something in the files is wrong (failed).";
    reload_failing: GaugeVec [] "kubetide_reload_failing", NONE, "1 while the files of detections, exceptions and lists hold something else than what is in force, because it cannot be used.";
    quarantined: GaugeVec ["detection"] "kubetide_detection_quarantined", NONE, "1 for a detection that is not evaluated because it harmed the others: what it would have found is missed until it is mended.";
    quarantines: IntCounterVec ["detection"] "kubetide_detection_quarantines_total", NONE, "How often a detection was taken out of force because it panicked or went beyond its bounds of time, rows or memory.";
    detection_matches: IntCounterVec ["detection", "severity"] "kubetide_detection_matches_total", NONE, "Events that a detection matched, before exceptions and suppression.";
    detection_errors: IntCounterVec ["detection"] "kubetide_detection_errors_total", NONE, "Batches on which a detection failed; its events in them were not judged by it.";
    last_match: GaugeVec ["detection"] "kubetide_detection_last_match_timestamp_seconds", NONE, "When a detection last matched; absent until it does.";

    alerts: IntCounterVec ["detection", "activity"] "kubetide_alerts_total", NONE, "Alerts emitted: the first telling of a finding (create) and what was added to it later (update).";
    alerts_hidden: IntCounterVec ["detection"] "kubetide_alerts_hidden_total", NONE, "Matches that an exception kept from becoming an alert.";
    matches_absorbed: IntCounterVec ["outcome"] "kubetide_matches_absorbed_total", NONE, "Matches that made no alert of their own: added to an open finding (suppressed), known already (duplicate), or hidden by an exception.";
    findings_open: GaugeVec [] "kubetide_findings_open", NONE, "Findings that later matches can still be added to.";
    findings_evicted: IntCounterVec [] "kubetide_findings_evicted_total", NONE, "Findings forgotten: their window is over, or room was needed.";
    memory_events: IntCounterVec ["outcome"] "kubetide_memory_events_total", NONE, "Events for detections with memory: taken in (kept), there already (duplicate), or come after the watermark had passed their time (late): detections without memory have seen them.";
    memory_waiting: GaugeVec [] "kubetide_memory_waiting_events", NONE, "Events that wait for the watermark.";
    memory_rows: GaugeVec ["detection"] "kubetide_memory_rows", NONE, "Events that the memory of a detection holds, over all clusters.";
    memory_keys: GaugeVec ["detection"] "kubetide_memory_keys", NONE, "Keys that the memory of a detection holds, over all clusters.";
    memory_bytes: GaugeVec ["detection"] "kubetide_memory_bytes", NONE, "Bytes that the memory of a detection holds, as far as they are counted.";
    memory_shed: IntCounterVec ["detection"] "kubetide_memory_shed_total", NONE, "What the memory of a detection has dropped for want of room: each is a gap.";
    watermark: GaugeVec [] "kubetide_watermark_timestamp_seconds", NONE, "The oldest watermark of all clusters: event time up to which detections with memory have seen everything.";
    exchange_records: IntCounterVec ["kind"] "kubetide_exchange_records_total", NONE, "Records sent to the other instances: what memories keep (rows), and how far lanes have come (tide).";
    exchange_bytes: IntCounterVec ["kind"] "kubetide_exchange_bytes_total", NONE, "Bytes of their values, before compression.";
    exchange_refused: IntCounterVec [] "kubetide_exchange_refused_total", NONE, "Records that the exchange's topic refused for their size: no memory has seen their rows.";
    exchange_unknown: IntCounterVec [] "kubetide_exchange_unknown_matches_total", NONE, "Rows that came for a detection which is not loaded here, or has another meaning: instances run different sets.";
    exchange_partitions: GaugeVec [] "kubetide_exchange_partitions", NONE, "Partitions of the exchange that this process remembers.";
    exceptions_loaded: GaugeVec [] "kubetide_exceptions_loaded", NONE, "Exceptions that are in force.";
    exceptions_expired: GaugeVec [] "kubetide_exceptions_expired", NONE, "Exceptions whose expiry date has passed; they hide nothing any more.";
    alert_latency: HistogramVec ["from"] "kubetide_alert_latency_seconds", DELAY_SECONDS, "Time from an event to its alert, by the event's own time and by the broker's append time.";

    sink_requests: IntCounterVec ["sink", "outcome"] "kubetide_sink_requests_total", NONE, "Deliveries: ok (an alert or dead letter taken), retry (an attempt that failed and was repeated), failed (refused for good).";
    sink_latency: HistogramVec ["sink"] "kubetide_sink_latency_seconds", WORK_SECONDS, "Time that one successful delivery took, retries included.";
    sink_queue_depth: GaugeVec ["sink"] "kubetide_sink_queue_depth", NONE, "Alerts waiting for a sink.";
    sink_dropped: IntCounterVec ["sink"] "kubetide_sink_dropped_total", NONE, "Alerts that a sink without durability lost because its outbox was full. The first sink never drops.";

    checkpoints: IntCounterVec ["outcome"] "kubetide_checkpoints_total", NONE, "Checkpoints: everything read before them is delivered and committed (ok), or not (failed).";
    checkpoint_age: GaugeVec [] "kubetide_checkpoint_age_seconds", NONE, "Time since the last good checkpoint, or since the start where there was none.";
    checkpoint_seconds: HistogramVec [] "kubetide_checkpoint_duration_seconds", WORK_SECONDS, "Time that one good checkpoint took.";

    snapshots: IntCounterVec ["outcome"] "kubetide_snapshots_total", NONE, "Snapshots of the state: durable (ok), or not (failed), which leaves the one before in force.";
    snapshot_seconds: HistogramVec [] "kubetide_snapshot_duration_seconds", WORK_SECONDS, "Time that writing one good snapshot took, beside the events.";
    snapshot_bytes: IntCounterVec [] "kubetide_snapshot_written_bytes_total", NONE, "Bytes of tables that snapshots have written; tables that did not change are not written again.";
    state_bytes: GaugeVec [] "kubetide_state_bytes", NONE, "Bytes of all tables of the last good snapshot, as they are stored.";
    state_gaps: IntCounterVec ["detection", "reason"] "kubetide_state_gaps_total", NONE, "Memories of a detection in a cluster that began anew at the start, though something was kept of them: its meaning changed, the SQL engine or the audit table is of another version, or it is damaged.";

    build_info: GaugeVec ["version", "audit_schema"] "kubetide_build_info", NONE, "Always 1; the labels say what is running.";
}

/// The text of `schemas/metrics.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated from the code; `KUBETIDE_BLESS=1 cargo test --lib telemetry` rewrites it.\n\
         Served on `/metrics`. Counters and histograms exist at zero where their labels are known in advance; a gauge \
         whose value is unknown is absent.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for definition in DEFINITIONS {
        let labels = definition.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (name, kind) = (definition.name, definition.kind.as_str());
        let _ = writeln!(text, "| `{name}` | {kind} | {labels} | {} |", definition.help);
    }
    text.push_str(
        "\n`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`, \
         `process_open_fds`, `process_max_fds`, `process_start_time_seconds` and `process_threads` are exported on Linux \
         as other programs export them.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for definition in DEFINITIONS {
            let name = definition.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("kubetide_"), "{name} lacks the prefix");
            assert_eq!(name.ends_with("_total"), definition.kind == Kind::Counter, "{name}: counters end in _total");
            if definition.kind == Kind::Histogram {
                assert!(name.ends_with("_seconds") || name.ends_with("_rows"), "{name} lacks its unit");
            }
            assert!(definition.help.ends_with('.'), "{name}: help is a sentence");
        }
    }

    #[test]
    fn reference_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/metrics.md");
        if std::env::var_os("KUBETIDE_BLESS").is_some() {
            std::fs::write(path, reference()).expect("the page can be written");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == reference(), "schemas/metrics.md is stale: run KUBETIDE_BLESS=1 cargo test --lib telemetry");
    }

    /// Dashboards and alert rules break silently when a metric is renamed, so every name in them must be one of ours.
    #[test]
    fn dashboards_and_rules_name_real_metrics() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let mut known: BTreeSet<String> = BTreeSet::new();
        for definition in DEFINITIONS {
            known.insert(definition.name.to_owned());
            if definition.kind == Kind::Histogram {
                known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", definition.name)));
            }
        }
        let mut seen = 0;
        for file in ["grafana/dashboards/kubetide-pipeline.json", "prometheus/rules/kubetide.yml"] {
            let text = std::fs::read_to_string(folder.join(file)).expect("the file is part of the repository");
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                if word.starts_with("kubetide_") {
                    assert!(known.contains(word), "{file} names {word}, which no metric has");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "only {seen} metrics named: the reader of these files is broken");
    }
}
