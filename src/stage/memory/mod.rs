//! Detections with memory: sequences, what was never seen before, and other questions to more than one event.
//!
//! Rows that pass a detection's own conditions are kept, cut to the columns that somebody reads, and put in order: a
//! [`Timeline`] for each cluster holds them back until the watermark has passed, takes out repeats, and then hands them
//! on in order of (event time, event id), each once, one row for each request and step. Every kind of memory is a
//! [`Recall`]: it is shown rows in that order, and is woken at the event times that it asks for. So what it answers is
//! a function of the set of events, not of how they came.

mod alerts;
mod anomaly;
mod apart;
mod entry;
mod first_seen;
mod image;
mod renew;
mod rhythm;
mod sequence;
mod silence;
mod spike;
mod tables;
mod timeline;
mod window;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use serde_json::Value;

use self::anomaly::Anomaly;
pub use self::apart::{HeardOf, Standing};
pub use self::entry::{Entry, Field, Kept, Key, clamped, kept_rows, key_of};
use self::first_seen::FirstSeen;
pub use self::image::{ClusterImage, Meanings, MemoryImage, MemoryPart, Unfit};
pub use self::renew::{Renewed, same_memory};
use self::rhythm::Rhythm;
use self::sequence::Sequence;
use self::silence::Silence;
use self::spike::Spike;
pub use self::timeline::LaneKey;
use self::timeline::{Held, HeldMatch, Memories, Taken, Timeline, number};
pub use self::window::{Evaluator, WindowReport};
use self::window::{Window, WindowRule};
use crate::detection::{Detection, Memory as Kind};
use crate::model::{Alert, Bodies, Column, ColumnSet, Finding, Heard, KeptMatches, LaneId, Need, time_text};

/// The memory of one detection in one cluster.
///
/// Rows and wakings come in order of event time; at the same time, rows come first.
pub trait Recall: std::fmt::Debug + Send {
    /// Takes in a row that passed the conditions of step `step` (0 but for sequences).
    fn see(&mut self, step: usize, entry: &Entry, out: &mut Vec<Finding>);

    /// The next event time, microseconds since the epoch, at which it wants to be woken though no row came. `None`
    /// where nothing can change without a row: at the end of finite input memories are woken until all say so.
    fn due(&self) -> Option<i64> {
        None
    }

    /// Wakes it: all rows up to `at_us` have been seen, none after it.
    fn wake(&mut self, _at_us: i64, _out: &mut Vec<Finding>) {}

    /// What it remembers, as named tables; put back by [`Recall::restore`] into a fresh one of the same detection.
    fn save(&self) -> Vec<(String, RecordBatch)>;

    /// Takes back what [`Recall::save`] gave.
    ///
    /// # Errors
    /// Says which table is not as expected; the memory is then as it was.
    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String>;

    /// The detection's set has followed another: the same question may be planned anew, with other lists.
    fn replan(&mut self, _rule: &Arc<WindowRule>) {}

    /// What went wrong since it was last asked, for people: each is a gap in what the detection saw.
    fn failures(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// How many evaluations went beyond a bound of time, rows or memory, or panicked, since it was last asked.
    fn harm(&mut self) -> u32 {
        0
    }

    /// How much it holds now.
    fn size(&self) -> Size;

    /// What the tables of [`Recall::save`] can be used with.
    fn bound(&self) -> Bound {
        Bound::default()
    }
}

/// What saved tables depend on, beside what the detection asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// They hold rows of the table `audit`.
    pub rows: bool,
    /// They hold what only the same version of the SQL engine understands.
    pub engine: bool,
}

/// How much a memory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Events that are kept.
    pub rows: u64,
    /// Keys that are remembered.
    pub keys: u64,
    /// Bytes of both, as far as they are counted.
    pub bytes: u64,
    /// What was dropped for want of room since the start.
    pub shed: u64,
}

/// What the names of timelines of alerts begin with; no cluster is called so.
const OF_ALERTS: &str = "\u{1}alerts of ";

/// What a SELECT list computed for an event, and what a memory adds to it.
fn with<const N: usize>(entry: &Entry, more: [(&str, Value); N]) -> Vec<(Arc<str>, Value)> {
    let more = more.into_iter().map(|(name, value)| (name.into(), value));
    entry.computed().iter().cloned().chain(more).collect()
}

/// What makes a finding about a key one with others: the key, and the stretch of `bucket_us` that the event falls into;
/// at 0 the event's request.
fn identity_in(name: &[Value], entry: &Entry, bucket_us: i64) -> Vec<Value> {
    let mut identity = name.to_vec();
    identity.push(match bucket_us {
        1.. => time_text(entry.event_us.div_euclid(bucket_us) * bucket_us).into(),
        _ => entry.text(Column::RequestId).map_or_else(|| time_text(entry.event_us).into(), Value::from),
    });
    identity
}

/// What alerts show of an event that is not decoded again: who did what to what, from where, and how it ended.
const SHOWN: [Column; 34] = [
    Column::EventId,
    Column::RequestId,
    Column::AuditId,
    Column::Stage,
    Column::Level,
    Column::EventTime,
    Column::RequestTime,
    Column::Cloud,
    Column::Account,
    Column::Region,
    Column::Cluster,
    Column::ClusterId,
    Column::Verb,
    Column::Uri,
    Column::DryRun,
    Column::ApiGroup,
    Column::ApiVersion,
    Column::Resource,
    Column::Subresource,
    Column::Namespace,
    Column::Name,
    Column::UserAgent,
    Column::SourceIps,
    Column::SourceIp,
    Column::ObjectUid,
    Column::UserName,
    Column::UserUid,
    Column::UserGroups,
    Column::CredentialId,
    Column::ImpersonatedUser,
    Column::ServiceAccount,
    Column::ResponseCode,
    Column::ResponseReason,
    Column::Decision,
];

/// Bounds and settings.
#[derive(Debug, Clone)]
pub struct MemoryOptions {
    /// How far events may be out of order within a lane.
    pub lateness: Duration,
    /// How long a lane must be silent to be idle.
    pub silence: Duration,
}

impl Default for MemoryOptions {
    fn default() -> MemoryOptions {
        MemoryOptions { lateness: Duration::from_secs(60), silence: Duration::from_secs(60) }
    }
}

/// What became of the rows that were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryCounts {
    /// Rows taken in.
    pub kept: u64,
    /// Rows that were there already.
    pub duplicates: u64,
    /// Rows that came after the watermark had passed them: detections without memory saw them, these did not.
    pub late: u64,
    /// Rows that wait for the watermark now.
    pub held: u64,
}

/// All memories of a run.
#[derive(Debug)]
pub struct Memory {
    kinds: Kinds,
    need: Arc<Need>,
    /// Detections about alerts.
    correlating: Vec<usize>,
    /// What is kept of alerts.
    alert_columns: ColumnSet,
    /// By cluster: event time up to which all alerts are here.
    alerts_until: BTreeMap<Arc<str>, i64>,
    lateness_us: i64,
    silence_us: i64,
    timelines: BTreeMap<Arc<str>, Timeline>,
    counts: MemoryCounts,
}

impl Memory {
    /// The memories of a set of detections, of which findings name the index; `None` where none has one. `also` are
    /// columns that somebody else reads of the rows that are kept, such as exceptions.
    pub fn new(detections: &[Arc<Detection>], also: ColumnSet, options: &MemoryOptions) -> Option<Memory> {
        let with_memory = || detections.iter().filter(|detection| detection.memory.is_some());
        with_memory().next()?;
        let shown: ColumnSet = SHOWN.into_iter().collect();
        let of = |alerts: bool| {
            let some = with_memory().filter(move |detection| detection.reads_alerts() == alerts);
            some.fold(shown, |all, detection| all.union(detection.kept_columns()))
        };
        let columns = of(false).union(also);
        let mut bodies = Bodies::default();
        if columns.any_body() {
            bodies.add(None, None, columns);
        }
        Some(Memory {
            kinds: Kinds::new(detections, shown),
            need: Arc::new(Need { columns, bodies, ..Need::default() }),
            correlating: (0..).zip(detections).filter(|(_, one)| one.reads_alerts()).map(|(index, _)| index).collect(),
            alert_columns: of(true).union([Column::AlertUid].into_iter().collect()),
            alerts_until: BTreeMap::new(),
            lateness_us: i64::try_from(options.lateness.as_micros()).unwrap_or(i64::MAX),
            silence_us: i64::try_from(options.silence.as_micros()).unwrap_or(i64::MAX),
            timelines: BTreeMap::new(),
            counts: MemoryCounts::default(),
        })
    }

    /// The columns of rows that are kept.
    pub fn need(&self) -> &Arc<Need> {
        &self.need
    }

    /// Takes in what came of one chunk of a source, and answers what has become true by it, in order of event time.
    ///
    /// `now_us` is a clock of the caller, by which lanes are told to be idle.
    pub fn take(
        &mut self,
        source: usize,
        (heard, kept, ended): (&[Heard], &[KeptMatches], &[LaneId]),
        now_us: i64,
    ) -> Vec<Finding> {
        for one in heard {
            let timeline = self.timelines.entry(Arc::clone(&one.cluster_id));
            let timeline = timeline.or_insert_with(|| Timeline::new(Arc::clone(&one.cluster_id), one.oldest_us));
            timeline.heard((source, one.lane), one.newest_us, now_us);
        }
        kept.iter().for_each(|kept| self.keep(kept, ""));
        let mut out = Vec::new();
        for (cluster, timeline) in &mut self.timelines {
            if let Some(until_us) = timeline.complete_until(self.lateness_us) {
                self.alerts_until.insert(Arc::clone(cluster), timeline.watermark_us());
                timeline.advance(until_us, &self.kinds, &mut out);
            }
            ended.iter().for_each(|lane| timeline.ended((source, *lane)));
        }
        out
    }

    /// Lets lanes that were silent for long hold nothing back any more. To be called when nothing waits to be taken in:
    /// a lane is not idle because its reader is busy.
    pub fn idle(&mut self, now_us: i64) -> Vec<Finding> {
        let mut out = Vec::new();
        for (cluster, timeline) in &mut self.timelines {
            self.alerts_until.insert(Arc::clone(cluster), timeline.watermark_us());
            if let Some(until_us) = timeline.complete_without_idle(self.lateness_us, self.silence_us, now_us) {
                timeline.advance(until_us, &self.kinds, &mut out);
            }
        }
        out
    }

    /// The input is over: every row is released and every window closes.
    pub fn finish(&mut self) -> Vec<Finding> {
        let mut out = Vec::new();
        for (cluster, timeline) in self.timelines.iter_mut().filter(|(cluster, _)| !cluster.starts_with(OF_ALERTS)) {
            timeline.advance(i64::MAX, &self.kinds, &mut out);
            self.alerts_until.insert(Arc::clone(cluster), i64::MAX);
        }
        out
    }

    /// Takes in the alerts that came of events and of findings until now, and answers what has become true by them.
    /// To be called after each of the others, with the alerts of their findings: what is found among alerts up to a
    /// time needs all alerts up to then, and those of findings are as old as the watermark was.
    pub fn correlate(&mut self, alerts: &[Alert]) -> Vec<Finding> {
        let mut out = Vec::new();
        if self.correlating.is_empty() {
            return out;
        }
        let rows = self.rows_of_alerts(alerts);
        rows.iter().for_each(|kept| self.keep(kept, OF_ALERTS));
        for (cluster, until_us) in &self.alerts_until {
            if let Some(timeline) = self.timelines.get_mut(format!("{OF_ALERTS}{cluster}").as_str()) {
                timeline.advance(*until_us, &self.kinds, &mut out);
            }
        }
        out
    }

    /// What became of the rows so far.
    pub fn counts(&self) -> MemoryCounts {
        MemoryCounts { held: self.timelines.values().map(|timeline| timeline.held() as u64).sum(), ..self.counts }
    }

    /// The watermark of each cluster, microseconds since the epoch.
    pub fn watermarks(&self) -> impl Iterator<Item = (&Arc<str>, i64)> {
        let of_events = self.timelines.iter().filter(|(cluster, _)| !cluster.starts_with(OF_ALERTS));
        of_events.map(|(cluster, timeline)| (cluster, timeline.watermark_us()))
    }

    /// What went wrong since somebody last asked: index of the detection, and how.
    pub fn failures(&mut self) -> Vec<(usize, String)> {
        self.timelines.values_mut().flat_map(Timeline::failures).collect()
    }

    /// How often evaluations of a detection harmed the others since somebody last asked, by its index.
    pub fn harm(&mut self) -> BTreeMap<usize, u32> {
        let mut harm = BTreeMap::new();
        for (detection, more) in self.timelines.values_mut().flat_map(Timeline::harm) {
            *harm.entry(detection).or_default() += more;
        }
        harm
    }

    /// Lets go of all that a detection remembers, and shows it nothing any more.
    pub fn quarantine(&mut self, detection: usize) {
        self.kinds.quarantined.insert(detection);
        self.timelines.values_mut().for_each(|timeline| timeline.forget(detection));
    }

    /// How much each detection remembers, over all clusters; by its index.
    pub fn sizes(&self) -> BTreeMap<usize, Size> {
        let mut sizes: BTreeMap<usize, Size> = BTreeMap::new();
        for (detection, recall) in self.timelines.values().flat_map(Timeline::recalls) {
            let (sum, more) = (sizes.entry(detection).or_default(), recall.size());
            sum.rows += more.rows;
            sum.keys += more.keys;
            sum.bytes += more.bytes;
            sum.shed += more.shed;
        }
        sizes
    }

    /// `of` tells the time of alerts from that of events.
    fn keep(&mut self, kept: &KeptMatches, of: &str) {
        let rows = Arc::new(Kept::new(kept.rows.clone()));
        for matches in kept.matches.chunk_by(|left, right| left.row == right.row) {
            let Some(row) = matches.first().map(|found| found.row) else { continue };
            let (Some(event_us), Some(cluster)) = (rows.event_us(row), rows.text(Column::ClusterId, row)) else {
                continue;
            };
            let timeline = match of {
                "" => self.timelines.get_mut(cluster),
                of => {
                    let timeline = self.timelines.entry(format!("{of}{cluster}").into());
                    Some(timeline.or_insert_with(|| Timeline::new(cluster.into(), event_us)))
                }
            };
            let Some(timeline) = timeline else { continue };
            let mut matches: Vec<HeldMatch> = matches.iter().map(HeldMatch::of).collect();
            matches.sort_by_key(|found| (found.detection, std::cmp::Reverse(found.step)));
            let event = rows.text(Column::EventId, row).map_or(0, number);
            match timeline.take(event_us, event, Held { kept: Arc::clone(&rows), row, matches }) {
                Taken::Held => self.counts.kept += 1,
                Taken::Duplicate => self.counts.duplicates += 1,
                Taken::Late => self.counts.late += 1,
            }
        }
    }
}

/// What the memory of a detection keeps and when it answers, a line for each thing; `None` without a memory.
pub fn describe(detections: &[Arc<Detection>], index: usize) -> Option<String> {
    let detection = detections.get(index)?;
    let memory = detection.memory.as_ref()?;
    Some(match memory {
        Kind::Window { .. } => {
            Kinds::new(detections, SHOWN.into_iter().collect()).windows.get(&index)?.report().to_string()
        }
        Kind::Sequence { spec, .. } => {
            let last = if spec.steps.last()?.absent { ", the last of which must not come" } else { "" };
            format!(
                "sequence   {} steps{last} with the same {}, within {} s\nkeeps      for each of them and each step the \
                 latest way there; at most {} ways a cluster",
                spec.steps.len(),
                spec.by.join(", "),
                spec.within.0.as_secs(),
                sequence::WAYS_MAX,
            )
        }
        Kind::Anomaly(spec) => format!(
            "anomaly    {} of {}{}, from {} bits on\nkeeps      the days on which each was seen with each value, half as \
             much after {} s; at most {} values a cluster\nlearns     for {} s after a cluster is first heard of",
            spec.features.join(", "),
            spec.per.join(", "),
            if spec.peers.is_empty() { String::new() } else { format!(" and its {}", spec.peers.join(", ")) },
            spec.threshold,
            spec.half_life.0.as_secs(),
            anomaly::VALUES_MAX,
            spec.learn.0.as_secs(),
        ),
        Kind::Spike(spec) => format!(
            "spike      of {} by {}, at least {} in {} s\nkeeps      for each the counts of its last {} stretches; at most \
             {} a cluster\nlearns     for {} s after a cluster is first heard of",
            if spec.of.is_empty() { "events".to_owned() } else { spec.of.join(", ") },
            spec.per.join(", "),
            spec.floor,
            spec.every.0.as_secs(),
            spike::STRETCHES_MAX,
            spike::KEYS_MAX,
            spec.learn.0.as_secs(),
        ),
        Kind::Silence(spec) => format!(
            "silence    of {}, at least {} s\nkeeps      for each its last event and the longest silence of {} days; at \
             most {} a cluster\nlearns     for {} s after each is first heard of",
            if spec.per.is_empty() { "the cluster".to_owned() } else { spec.per.join(", ") },
            spec.least.0.as_secs(),
            silence::DAYS_MAX,
            silence::KEYS_MAX,
            spec.learn.0.as_secs(),
        ),
        Kind::Rhythm(spec) => format!(
            "rhythm     of {}, {} beats\nkeeps      for each its last events and up to {} intervals; at most {} a cluster",
            spec.per.join(", "),
            spec.beats,
            rhythm::PROPOSALS_MAX,
            rhythm::KEYS_MAX,
        ),
        Kind::FirstSeen(spec) => format!(
            "first seen {}{}\nkeeps      16 bytes of key and 4 of time for each combination, exactly; at most {} a cluster, \
             each until it was away for {} s\nlearns     for {} s after a cluster is first heard of{}",
            spec.of.join(", "),
            if spec.per.is_empty() { String::new() } else { format!(" for {}", spec.per.join(", ")) },
            first_seen::KEYS_MAX,
            spec.forget.0.as_secs(),
            spec.learn.0.as_secs(),
            spec.settle.map_or_else(String::new, |settle| format!(", and {} s of whoever is new", settle.0.as_secs())),
        ),
    })
}

/// How far each lane of a chunk has come, from the event times of all its rows: `rows` are lane, key of the cluster,
/// event time and arrival.
pub fn heard<'a>(rows: impl Iterator<Item = (LaneId, &'a str, i64, Option<i64>)>) -> Vec<Heard> {
    let mut heard: Vec<Heard> = Vec::new();
    for (lane, cluster, event_us, arrival_ms) in rows {
        let event_us = clamped(event_us, arrival_ms);
        match heard.iter_mut().rfind(|one| one.lane == lane && &*one.cluster_id == cluster) {
            Some(one) => {
                one.newest_us = one.newest_us.max(event_us);
                one.oldest_us = one.oldest_us.min(event_us);
            }
            None => heard.push(Heard { lane, cluster_id: cluster.into(), oldest_us: event_us, newest_us: event_us }),
        }
    }
    heard
}

/// Makes memories of detections.
#[derive(Debug)]
struct Kinds {
    detections: Vec<Arc<Detection>>,
    /// Detections that remember nothing any more, by index.
    quarantined: BTreeSet<usize>,
    /// By index of the detection: what its windows have in common.
    windows: BTreeMap<usize, Arc<WindowRule>>,
}

impl Kinds {
    fn new(detections: &[Arc<Detection>], shown: ColumnSet) -> Kinds {
        let mut windows = BTreeMap::new();
        for (index, detection) in detections.iter().enumerate() {
            let Some(Kind::Window { spec, plan }) = &detection.memory else { continue };
            let entity: Vec<Field> = detection.entity.iter().map(|name| Field::new(name)).collect();
            let rule = WindowRule::new(index, Arc::clone(plan), spec, &entity, suppress_us(detection), shown);
            windows.insert(index, Arc::new(rule.expect("the loader has checked the window and its entity")));
        }
        Kinds { detections: detections.to_vec(), quarantined: BTreeSet::new(), windows }
    }
}

impl Kinds {
    /// Whether a window over alerts has to do with an alert.
    fn concerns(&self, index: usize, alert: &RecordBatch) -> bool {
        match self.detections.get(index).and_then(|detection| detection.memory.as_ref()) {
            Some(Kind::Window { plan, .. }) => plan.concerns(alert),
            _ => false,
        }
    }
}

impl Memories for Kinds {
    fn make(&self, index: usize, cluster_id: &Arc<str>, born_us: i64) -> Option<Box<dyn Recall>> {
        let detection = self.detections.get(index).filter(|_| !self.quarantined.contains(&index))?;
        let cluster_id = Arc::clone(cluster_id);
        Some(match detection.memory.as_ref()? {
            Kind::FirstSeen(spec) => Box::new(FirstSeen::new(spec, index, cluster_id, born_us)),
            Kind::Anomaly(spec) => Box::new(Anomaly::new(spec, index, cluster_id, born_us, suppress_us(detection))),
            Kind::Spike(spec) => Box::new(Spike::new(spec, index, cluster_id, born_us, suppress_us(detection))),
            Kind::Silence(spec) => Box::new(Silence::new(spec, index, cluster_id)),
            Kind::Rhythm(spec) => Box::new(Rhythm::new(spec, index, cluster_id)),
            Kind::Sequence { spec, .. } => Box::new(Sequence::new(spec, index, cluster_id, suppress_us(detection))),
            Kind::Window { .. } => Box::new(Window::new(Arc::clone(self.windows.get(&index)?), cluster_id)),
        })
    }
}

fn suppress_us(detection: &Detection) -> i64 {
    i64::try_from(detection.suppress.as_micros()).unwrap_or(i64::MAX)
}
