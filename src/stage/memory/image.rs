//! All memories of a run as tables, and back.
//!
//! The image is what the state keeps: for every cluster its clock, the rows that wait for the watermark, and the tables
//! of each detection's memory. Names stand for lanes and detections, so that it fits a later run in which both have
//! other numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::timeline::{LaneKey, Memories as _, Names, Timeline};
use super::{Bound, Memory, OF_ALERTS, Size};
use crate::model::LaneId;

/// What a run remembers.
#[derive(Debug, Clone, Default)]
pub struct MemoryImage {
    /// By the cluster's key.
    pub clusters: BTreeMap<String, ClusterImage>,
}

/// What a run remembers of one cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterImage {
    /// Event time at which the cluster was first heard of, microseconds since the epoch.
    pub born_us: i64,
    /// What is older can only come late; `None` before there was one.
    pub watermark_us: Option<i64>,
    /// Newest event time by source and lane.
    pub lanes: BTreeMap<(String, String), i64>,
    /// Rows that wait for the watermark.
    pub waiting: Vec<(String, RecordBatch)>,
    pub held: u64,
    pub memories: Vec<MemoryPart>,
}

/// The memory of one detection in one cluster.
#[derive(Debug, Clone)]
pub struct MemoryPart {
    /// The detection's id.
    pub detection: Arc<str>,
    /// The key in its file: `sequence`, `first_seen`.
    pub kind: &'static str,
    /// What its memory means.
    pub fingerprint: String,
    pub size: Size,
    pub bound: Bound,
    pub tables: Vec<(String, RecordBatch)>,
}

/// A memory whose tables do not fit: it begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The detection's id; `None` for the rows that wait.
    pub detection: Option<Arc<str>>,
    pub cluster: String,
    pub reason: String,
}

/// By number of a detection: id and, with a memory, its meaning. Made once, as it takes parsing all queries.
pub type Meanings = Vec<(Arc<str>, Option<String>)>;

impl Memory {
    /// Ids and meanings of all detections, by number.
    pub fn meanings(&self) -> Meanings {
        let of = self.kinds.detections.iter();
        of.map(|detection| (Arc::clone(&detection.id), detection.state_fingerprint())).collect()
    }

    /// Everything that is remembered; `lane` gives the names of a source and its lane.
    pub fn save(&self, meanings: &Meanings, lane: &dyn Fn(usize, LaneId) -> Option<(String, String)>) -> MemoryImage {
        let names = Names { known: meanings };
        let one = |timeline: &Timeline| {
            let memories = timeline.recalls().filter_map(|(detection, recall)| {
                let (id, meaning) = meanings.get(detection)?;
                Some(MemoryPart {
                    detection: Arc::clone(id),
                    kind: self.kinds.detections.get(detection)?.memory.as_ref()?.key(),
                    fingerprint: meaning.clone()?,
                    size: recall.size(),
                    bound: recall.bound(),
                    tables: recall.save(),
                })
            });
            let watermark_us = Some(timeline.watermark_us()).filter(|us| *us != i64::MIN);
            ClusterImage {
                born_us: timeline.born_us(),
                watermark_us,
                lanes: timeline.lanes(|(source, id)| lane(source, id)),
                waiting: timeline.save(names),
                held: timeline.held() as u64,
                memories: memories.collect(),
            }
        };
        let clusters = self.timelines.iter().map(|(cluster, timeline)| (cluster.to_string(), one(timeline)));
        MemoryImage { clusters: clusters.collect() }
    }

    /// Takes back what [`Memory::save`] gave, before anything else is taken in. What does not fit begins anew and is
    /// returned.
    pub fn restore(&mut self, image: &MemoryImage, meanings: &Meanings) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        for (name, cluster) in &image.clusters {
            let key: Arc<str> = name.as_str().into();
            let cluster_id: Arc<str> = name.strip_prefix(OF_ALERTS).unwrap_or(name).into();
            let mut timeline = Timeline::new(Arc::clone(&cluster_id), cluster.born_us);
            timeline.resume(cluster.watermark_us, cluster.lanes.clone());
            if !cluster.waiting.is_empty()
                && let Err(reason) = timeline.restore(&cluster.waiting, Names { known: meanings })
            {
                unfit.push(Unfit { detection: None, cluster: name.clone(), reason });
            }
            for part in &cluster.memories {
                let number = meanings.iter().position(|(id, _)| *id == part.detection);
                let made = number.and_then(|n| Some((n, self.kinds.make(n, &cluster_id, timeline.begins_us(n))?)));
                let Some((number, mut recall)) = made else { continue };
                match recall.restore(&part.tables) {
                    Ok(()) => timeline.put(number, recall),
                    Err(reason) => {
                        let detection = Some(Arc::clone(&part.detection));
                        unfit.push(Unfit { detection, cluster: name.clone(), reason });
                    }
                }
            }
            self.timelines.insert(key, timeline);
        }
        unfit
    }

    /// A lane is read for the first time in this run.
    pub fn meet(&mut self, source: usize, lane: LaneId, names: &(String, String)) {
        self.timelines.values_mut().for_each(|timeline| timeline.meet((source, lane), names));
    }

    /// Leaves only lanes that are still read here, and those of an earlier run that still may be: others hold no
    /// watermark back.
    pub fn retain_lanes(&mut self, is_read: &dyn Fn(LaneKey) -> bool, is_awaited: &dyn Fn(&str, &str) -> bool) {
        self.timelines.values_mut().for_each(|timeline| timeline.retain_lanes(is_read, is_awaited));
    }
}
