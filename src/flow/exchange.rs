//! What an instance passes on to whoever remembers it: rows and alerts to the partitions of their clusters, and how far
//! its lanes have come to all partitions.
//!
//! **Order.** The rows of a chunk are sent before a tide speaks of them, and a tide is sent only when everything before
//! it is stored. Positions of sources are committed after that, so whatever becomes of an instance, its successor sends
//! again what a tide has not told, and a partition's reader has seen all rows up to what the tides say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::work::Outcome;
use crate::clock::Instant;
use crate::kafka::{Error, InternalTopic};
use crate::model::{Alert, Heard, LaneId, Need};
use crate::stage::exchange::{
    LaneTide, Numbers, Of, RECORD_BYTES, Rows, Tide, by_cluster, encode_rows, encode_tide, halves, numbers,
    partition_of,
};
use crate::stage::memory::{Meanings, Memory};
use crate::stage::source::{Committer, SharedLane};
use crate::telemetry::{ExchangeRefused, Metrics};

/// Time between tides: by so much windows close later than in place.
pub const TIDE_EVERY: Duration = Duration::from_millis(500);
/// A lane that brought something so short a time ago is not held up by whatever waits to be taken in.
const PRESENT: Duration = Duration::from_secs(5);

/// The sending end of an exchange.
#[derive(Debug)]
pub struct Exchange {
    topic: InternalTopic,
    /// Knows what is kept, and remembers nothing.
    memory: Memory,
    meanings: Meanings,
    lanes: BTreeMap<(usize, LaneId), Progress>,
    /// By source: its name in the exchange.
    sources: Vec<String>,
    metrics: Metrics,
}

/// How far a lane of ours has come.
#[derive(Debug)]
struct Progress {
    name: Arc<str>,
    next: u64,
    newest_us: Option<i64>,
    /// When it last brought something.
    at: Instant,
    /// Since the last tide.
    clusters: BTreeMap<String, (i64, i64)>,
}

impl Exchange {
    /// `sources` are the names of all sources but the exchange's own.
    pub fn new(topic: InternalTopic, memory: Memory, sources: Vec<String>, metrics: Metrics) -> Exchange {
        let meanings = memory.meanings();
        Exchange { topic, memory, meanings, lanes: BTreeMap::new(), sources, metrics }
    }

    /// The columns of rows that are kept.
    pub fn need(&self) -> &Arc<Need> {
        self.memory.need()
    }

    /// Detections as records name them.
    pub fn numbers(&self) -> Numbers {
        numbers(&self.meanings)
    }

    /// Passes on what memories keep of one chunk, and the alerts that it gave.
    ///
    /// # Errors
    /// The topic takes nothing any more.
    pub async fn pass_on(&mut self, source: usize, outcome: &Outcome, alerts: &[Alert]) -> Result<(), Error> {
        let next = self.next(source, outcome);
        for kept in outcome.kept.iter().filter(|kept| !kept.matches.is_empty()) {
            for (cluster_id, kept) in by_cluster(kept) {
                let oldest_us = oldest_us(&outcome.heard, &cluster_id);
                let rows =
                    Rows { of: Of::Events, cluster_id, oldest_us, next: next.clone(), is_last: true, kept, unknown: 0 };
                self.send(rows).await?;
            }
        }
        for kept in self.memory.rows_of_alerts(alerts) {
            for (cluster_id, kept) in by_cluster(&kept).into_iter().filter(|(_, kept)| !kept.matches.is_empty()) {
                let oldest_us = oldest_us(&outcome.heard, &cluster_id);
                let next = BTreeMap::new();
                self.send(Rows { of: Of::Alerts, cluster_id, oldest_us, next, is_last: true, kept, unknown: 0 })
                    .await?;
            }
        }
        self.note(source, outcome);
        Ok(())
    }

    /// Where the chunk ends, by names.
    fn next(&self, source: usize, outcome: &Outcome) -> BTreeMap<String, BTreeMap<String, u64>> {
        let Some(name) = self.sources.get(source) else { return BTreeMap::new() };
        let lane = |id: &LaneId| outcome.lanes.get(*id as usize).map(|lane| lane.name.to_string());
        let lanes = outcome.next.iter().filter_map(|(id, next)| Some((lane(id)?, *next)));
        BTreeMap::from([(name.clone(), lanes.collect())])
    }

    fn note(&mut self, source: usize, outcome: &Outcome) {
        for (lane, next) in &outcome.next {
            let Some(name) = outcome.lanes.get(*lane as usize).map(|lane| Arc::clone(&lane.name)) else { continue };
            let new = || Progress { name, next: 0, newest_us: None, at: Instant::now(), clusters: BTreeMap::new() };
            let progress = self.lanes.entry((source, *lane)).or_insert_with(new);
            (progress.next, progress.at) = (*next, Instant::now());
        }
        for heard in &outcome.heard {
            let Some(progress) = self.lanes.get_mut(&(source, heard.lane)) else { continue };
            progress.newest_us = progress.newest_us.max(Some(heard.newest_us));
            let span = (heard.oldest_us, heard.newest_us);
            let known = progress.clusters.entry(heard.cluster_id.to_string()).or_insert(span);
            *known = (known.0.min(span.0), known.1.max(span.1));
        }
    }

    /// Sends rows, in as many records as they need.
    async fn send(&mut self, rows: Rows) -> Result<(), Error> {
        let partition = partition_of(&rows.cluster_id, self.topic.partitions());
        let mut waiting = vec![rows];
        while let Some(mut rows) = waiting.pop() {
            let fault = |reason| Error::Fatal { reason: format!("rows for the exchange have no form: {reason}") };
            let bytes = encode_rows(&rows, &self.meanings).map_err(fault)?;
            if bytes.len() > RECORD_BYTES
                && let Some([first, second]) = halves(&rows.kept)
            {
                // The second half is sent last, and only that ends the chunk.
                let second =
                    Rows { kept: second, cluster_id: Arc::clone(&rows.cluster_id), next: rows.next.clone(), ..rows };
                (rows.kept, rows.is_last) = (first, false);
                waiting.extend([second, rows]);
                continue;
            }
            self.metrics.exchange_sent("rows", bytes.len() as u64);
            self.topic.send(partition, &bytes, &rows.cluster_id).await?;
        }
        Ok(())
    }

    /// Tells every partition how far our lanes have come. `is_idle`: nothing that was read waits to be taken in.
    ///
    /// # Errors
    /// As [`Exchange::settle`].
    pub async fn tide(&mut self, committers: &[Arc<dyn Committer>], is_idle: bool) -> Result<(), Error> {
        self.settle().await?;
        let mut tide = Tide::default();
        for (source, name) in self.sources.iter().enumerate() {
            let Some(committer) = committers.get(source) else { continue };
            let lanes = committer.lanes();
            let is_own = |lane: &str| lanes.iter().any(|one| one.is_own && one.name == lane);
            self.lanes.retain(|(known, _), progress| *known != source || is_own(&progress.name));
            for lane in lanes.iter().filter(|lane| lane.is_own) {
                let progress =
                    self.lanes.iter_mut().find(|((of, _), one)| *of == source && *one.name == *lane.name.as_str());
                tide.lanes.push(lane_tide(name, lane, progress.map(|(_, progress)| progress), is_idle));
            }
            tide.all.insert(name.clone(), lanes.into_iter().map(|lane| lane.name).collect());
        }
        if tide.lanes.is_empty() {
            return Ok(());
        }
        let bytes = encode_tide(&tide);
        let label: Arc<str> = "tide".into();
        for partition in 0..self.topic.partitions() {
            self.metrics.exchange_sent("tide", bytes.len() as u64);
            self.topic.send(partition, &bytes, &label).await?;
        }
        Ok(())
    }

    /// Waits until everything that was sent is stored. What the topic refuses for its size is told as a gap.
    ///
    /// # Errors
    /// Something is not stored: what it came of must not be committed.
    pub async fn settle(&mut self) -> Result<(), Error> {
        for refused in self.topic.settle().await? {
            self.metrics.emit(ExchangeRefused { cluster: &refused.label, bytes: refused.bytes });
        }
        Ok(())
    }
}

fn lane_tide(source: &str, lane: &SharedLane, progress: Option<&mut Progress>, is_idle: bool) -> LaneTide {
    let mut tide = LaneTide {
        source: source.to_owned(),
        lane: lane.name.clone(),
        next: None,
        newest_us: None,
        // What waits here is not known to be of the present.
        current: lane.is_current && is_idle,
        clusters: BTreeMap::new(),
    };
    if let Some(progress) = progress {
        (tide.next, tide.newest_us) = (Some(progress.next), progress.newest_us);
        tide.current = lane.is_current && (is_idle || progress.at.elapsed() < PRESENT);
        tide.clusters = std::mem::take(&mut progress.clusters);
    }
    tide
}

/// Where a cluster begins in a chunk.
fn oldest_us(heard: &[Heard], cluster_id: &str) -> i64 {
    heard.iter().filter(|one| &*one.cluster_id == cluster_id).map(|one| one.oldest_us).min().unwrap_or(i64::MAX)
}
