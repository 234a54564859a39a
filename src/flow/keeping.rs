//! What a run keeps: memories, clocks of clusters, open findings and positions, as one snapshot, and back at a start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::lanes::Lanes;
pub use super::snapshots::Written;
use super::snapshots::{Snapshots, versions};
use crate::model::{Lane, LaneId};
use crate::stage::alert::AlertStage;
use crate::stage::memory::{ClusterImage, Meanings, Memory, MemoryImage, MemoryPart, Size};
use crate::stage::source::Committer;
use crate::state::{ClusterClock, Gap, GapReason, Image, Loaded, Part, PartKey, Quarantine, Snapshot, Versions};
use crate::telemetry::{MemoryGap, Metrics, SnapshotDone, SnapshotFailed, StateDamaged, StateRestored};

/// Names of the parts that belong to no single detection. They change when the form of their tables does.
const FINDINGS: &str = "findings";
const FINDINGS_FORM: &str = "findings.1";
const TIMELINE: &str = "timeline";
const TIMELINE_FORM: &str = "timeline.1";

/// Positions by source and lane that a snapshot covers.
pub type Covered = HashMap<(usize, LaneId), u64>;

/// Keeps what outlives a run.
#[derive(Debug)]
pub struct Keeping {
    snapshots: Snapshots,
    lanes: Lanes,
    meanings: Meanings,
    /// Number of the set of detections that runs.
    generation: u64,
    /// What the snapshot that is being written covers.
    covered: Covered,
}

impl Keeping {
    /// Puts back what an earlier run has kept. What cannot be used is told, one gap for each memory.
    pub fn start(
        snapshots: Snapshots,
        mut image: Image,
        sources: &[String],
        (memory, stage): (Option<&mut Memory>, &mut AlertStage),
        metrics: &Metrics,
    ) -> Keeping {
        let place = snapshots.place().to_owned();
        for damage in &image.damages {
            metrics.emit(StateDamaged { place: &place, epoch: damage.epoch, reason: &damage.reason });
        }
        let lanes = Lanes::new(sources, image.positions.clone());
        let now = versions();
        restore_findings(&mut image, stage, &now, metrics);
        let mut memories = 0;
        let meanings = memory.as_ref().map(|memory| memory.meanings()).unwrap_or_default();
        if let Some(memory) = memory {
            let kept = memory_image(&mut image, &meanings, &now, metrics);
            memories = kept.clusters.values().map(|cluster| cluster.memories.len()).sum();
            for unfit in memory.restore(&kept, &meanings) {
                memories -= usize::from(unfit.detection.is_some());
                let (detection, cluster) =
                    (unfit.detection.as_deref().unwrap_or(TIMELINE), Some(unfit.cluster.as_str()));
                metrics.emit(MemoryGap { detection, cluster, reason: "damaged", detail: &unfit.reason });
            }
        }
        for detection in image.left() {
            tracing::info!(detection, "what is kept of this detection is dropped: it is not loaded any more");
        }
        metrics.emit(StateRestored { place: &place, epoch: image.epoch, memories, findings: stage.counts().open });
        // A start is one more set, changed or not.
        let generation = image.generation + 1;
        Keeping { snapshots, lanes, meanings, generation, covered: Covered::new() }
    }

    /// Number of the set of detections that runs.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Another set of detections runs from now on, with memories of these meanings.
    pub fn follow(&mut self, generation: u64, meanings: Meanings) {
        (self.generation, self.meanings) = (generation, meanings);
    }

    /// Notes how far lanes have come; `memory` gets to know those that are met for the first time.
    pub fn advance(
        &mut self,
        source: usize,
        next: &BTreeMap<LaneId, u64>,
        lanes: &[Lane],
        mut memory: Option<&mut Memory>,
    ) {
        for (&lane, &offset) in next {
            if let Some(name) = self.lanes.meet(source, lane, lanes)
                && let Some(memory) = &mut memory
            {
                memory.meet(source, lane, &name);
            }
            self.lanes.advance(source, lane, offset);
        }
    }

    /// The lanes, for whoever is told their names and positions.
    pub fn lanes(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// Leaves in memory's watermarks only lanes that are read here.
    pub fn retain_lanes(&self, memory: &mut Memory, committers: &[Arc<dyn Committer>]) {
        let is_held = |source: usize, lane: &str| committers.get(source).is_none_or(|c| c.holds(lane) != Some(false));
        memory.retain_lanes(
            &|(source, id)| self.lanes.name(source, id).is_none_or(|(_, lane)| is_held(source, &lane)),
            // A source that is not read any more gives nothing to wait for.
            &|source, lane| self.lanes.source(source).is_some_and(|number| is_held(number, lane)),
        );
    }

    /// Whether it is time for a snapshot.
    pub fn is_due(&self) -> bool {
        self.snapshots.is_due()
    }

    /// Whether one is being written.
    pub fn is_writing(&self) -> bool {
        self.snapshots.is_writing()
    }

    /// Takes a snapshot and begins to write it. `covered` are the positions that may be committed when it is durable.
    pub fn begin(
        &mut self,
        (memory, stage): (Option<&Memory>, &AlertStage),
        committers: &[Arc<dyn Committer>],
        covered: Covered,
        quarantined: BTreeMap<String, Quarantine>,
    ) {
        let is_gone = |source: &str, lane: &str| {
            let committer = self.lanes.source(source).and_then(|number| committers.get(number));
            committer.is_some_and(|committer| committer.holds(lane) == Some(false))
        };
        let (generation, positions) = (self.generation, self.lanes.positions(is_gone));
        let mut snapshot = Snapshot { generation, positions, quarantined, ..Snapshot::default() };
        let findings = stage.save();
        let rows = findings.first().map_or(0, |(_, table)| table.num_rows() as u64);
        snapshot.parts.push(Part {
            key: PartKey::shared(FINDINGS, None),
            kind: FINDINGS.to_owned(),
            fingerprint: FINDINGS_FORM.to_owned(),
            needs_engine: false,
            needs_schema: false,
            rows: 0,
            keys: rows,
            tables: findings,
        });
        if let Some(memory) = memory {
            let image = memory.save(&self.meanings, &|source, lane| self.lanes.name(source, lane));
            for (name, cluster) in image.clusters {
                snapshot.clusters.insert(name.clone(), clock_of(&cluster));
                snapshot.parts.extend(parts_of(&name, cluster));
            }
        }
        self.covered = covered;
        self.snapshots.begin(snapshot);
    }

    /// Waits for what is being written and tells how that ended: the positions that may now be committed, or those that
    /// must wait for the next one. Never ends where nothing is written; safe to drop while waiting.
    pub async fn written(&mut self) -> (Written, Covered) {
        let written = self.snapshots.written().await;
        (written, std::mem::take(&mut self.covered))
    }
}

/// Counts and logs what a snapshot came to.
pub fn tell(written: &Written, metrics: &Metrics) {
    match &written.result {
        Ok(done) => metrics.emit(SnapshotDone {
            epoch: done.epoch,
            bytes: done.bytes,
            bytes_written: done.bytes_written,
            seconds: written.seconds,
            unswept: done.unswept.as_deref(),
        }),
        Err(error) => metrics.emit(SnapshotFailed { error: &error.to_string() }),
    }
}

fn restore_findings(image: &mut Image, stage: &mut AlertStage, now: &Versions, metrics: &Metrics) {
    let key = PartKey::shared(FINDINGS, None);
    match image.take(&key, FINDINGS_FORM, now) {
        Loaded::Fresh => {}
        Loaded::Gap(gap) => tell_gap(&gap, metrics),
        Loaded::Restored(tables) => {
            if let Err(reason) = stage.restore(&tables) {
                tell_gap(&Gap { key, reason: GapReason::Damaged(reason) }, metrics);
            }
        }
    }
}

fn tell_gap(gap: &Gap, metrics: &Metrics) {
    let (cluster, detail) = (gap.key.cluster.as_deref(), gap.reason.to_string());
    metrics.emit(MemoryGap { detection: gap.key.name(), cluster, reason: gap.reason.word(), detail: &detail });
}

/// What memories can take back; the rest is told.
fn memory_image(image: &mut Image, meanings: &Meanings, now: &Versions, metrics: &Metrics) -> MemoryImage {
    let mut kept = MemoryImage::default();
    if image.epoch.is_none() {
        // A fresh place gives nothing; one that cannot be read gives a gap for each.
        for (id, meaning) in meanings.iter().filter_map(|(id, meaning)| Some((id, meaning.as_deref()?))) {
            let key = PartKey::shared(id, None);
            if let Loaded::Gap(gap) = image.take(&key, meaning, now) {
                tell_gap(&gap, metrics);
            }
        }
        return kept;
    }
    for (cluster, clock) in image.clusters.clone() {
        let mut one = ClusterImage {
            born_us: clock.born_us,
            watermark_us: clock.watermark_us,
            lanes: flat(&clock),
            ..ClusterImage::default()
        };
        match image.take(&PartKey::shared(TIMELINE, Some(&cluster)), TIMELINE_FORM, now) {
            Loaded::Fresh => {}
            Loaded::Restored(tables) => one.waiting = tables,
            Loaded::Gap(gap) => tell_gap(&gap, metrics),
        }
        for (id, meaning) in meanings {
            let Some(meaning) = meaning else { continue };
            match image.take(&PartKey::detection(id, &cluster), meaning, now) {
                Loaded::Fresh => {}
                Loaded::Gap(gap) => tell_gap(&gap, metrics),
                Loaded::Restored(tables) => one.memories.push(MemoryPart {
                    detection: Arc::clone(id),
                    kind: "",
                    fingerprint: meaning.clone(),
                    size: Size::default(),
                    bound: crate::stage::memory::Bound::default(),
                    tables,
                }),
            }
        }
        kept.clusters.insert(cluster, one);
    }
    kept
}

fn flat(clock: &ClusterClock) -> BTreeMap<(String, String), i64> {
    let lanes = clock.lanes.iter();
    lanes.flat_map(|(source, of)| of.iter().map(|(lane, us)| ((source.clone(), lane.clone()), *us))).collect()
}

fn clock_of(cluster: &ClusterImage) -> ClusterClock {
    let mut lanes: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for ((source, lane), newest_us) in &cluster.lanes {
        lanes.entry(source.clone()).or_default().insert(lane.clone(), *newest_us);
    }
    ClusterClock { born_us: cluster.born_us, watermark_us: cluster.watermark_us, lanes }
}

fn parts_of(name: &str, cluster: ClusterImage) -> Vec<Part> {
    let waiting = Part {
        key: PartKey::shared(TIMELINE, Some(name)),
        kind: TIMELINE.to_owned(),
        fingerprint: TIMELINE_FORM.to_owned(),
        needs_engine: false,
        needs_schema: true,
        rows: cluster.held,
        keys: 0,
        tables: cluster.waiting,
    };
    let memories = cluster.memories.into_iter().map(|memory| Part {
        key: PartKey::detection(&memory.detection, name),
        kind: memory.kind.to_owned(),
        fingerprint: memory.fingerprint,
        needs_engine: memory.bound.engine,
        needs_schema: memory.bound.rows,
        rows: memory.size.rows,
        keys: memory.size.keys,
        tables: memory.tables,
    });
    std::iter::once(waiting).chain(memories).collect()
}

/// What becomes of the snapshot that is being written; never ends where there is none.
pub async fn written(keeping: &mut Option<Keeping>) -> (Written, Covered) {
    match keeping {
        Some(keeping) => keeping.written().await,
        None => std::future::pending().await,
    }
}
