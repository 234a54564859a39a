//! A run whose memory is shared between the instances of a group: what is kept goes out to the partitions of an
//! exchange, and what comes in from those that are ours is remembered here.
//!
//! Positions of the sources are committed when sinks and the exchange have everything; those of the exchange with the
//! snapshot of their share. So nothing is ever only in the memory of one process.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::sync::Arc;

use super::{LiveSource, RunError, Sequencer};
use crate::flow::exchange::Exchange;
use crate::flow::keeping::{self, Covered, Written};
use crate::flow::shares::{Places, Share, ShareOptions};
use crate::flow::work::{Exchanged, Outcome};
use crate::kafka::InternalTopic;
use crate::model::{Alert, Finding, LaneId, Position};
use crate::stage::alert::AlertCounts;
use crate::stage::exchange::Sent;
use crate::stage::memory::{MemoryCounts, Size};
use crate::state::StateError;
use crate::telemetry::{DetectionFailed, ExchangeUnknown};

/// What an exchange consists of.
#[allow(missing_debug_implementations, reason = "trait objects of other modules")]
pub struct Sharing {
    pub topic: InternalTopic,
    /// Reads the same topic.
    pub source: LiveSource,
    pub places: Arc<Places>,
}

/// An exchange that runs.
#[derive(Debug)]
pub(super) struct Shared {
    out: Exchange,
    /// Number of the source that reads the exchange.
    source: usize,
    places: Arc<Places>,
    options: ShareOptions,
    shares: BTreeMap<LaneId, Share>,
    /// What shares that have gone had counted.
    gone: (MemoryCounts, AlertCounts),
}

impl Shared {
    pub(super) fn new(out: Exchange, source: usize, places: Arc<Places>, options: ShareOptions) -> Shared {
        Shared { out, source, places, options, shares: BTreeMap::new(), gone: Default::default() }
    }

    pub(super) fn out(&self) -> &Exchange {
        &self.out
    }

    pub(super) fn source(&self) -> usize {
        self.source
    }

    /// The next snapshot of a share that ends; never where none is written. Safe to drop while waiting.
    async fn written(&mut self) -> (LaneId, Written, Covered) {
        std::future::poll_fn(|context| {
            for (lane, share) in self.shares.iter_mut().filter(|(_, share)| share.is_writing()) {
                let written = std::pin::pin!(share.written());
                if let std::task::Poll::Ready((written, covered)) = written.poll(context) {
                    return std::task::Poll::Ready((*lane, written, covered));
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// A partition has gone, and with it what was remembered.
    fn forget(&mut self, lane: LaneId) {
        let Some(share) = self.shares.remove(&lane) else { return };
        let (memory, alerts) = (share.memory.counts(), share.stage.counts());
        add_memory(&mut self.gone.0, &memory);
        add_alerts(&mut self.gone.1, &alerts);
    }
}

/// How the next snapshot of a share ends; never without an exchange.
pub(super) async fn share_written(shared: &mut Option<Shared>) -> (LaneId, Written, Covered) {
    match shared {
        Some(shared) => shared.written().await,
        None => std::future::pending().await,
    }
}

impl Sequencer {
    /// [`Sequencer::take`] with an exchange.
    pub(super) async fn take_shared(&mut self, source: usize, mut outcome: Outcome) -> Result<(), RunError> {
        self.count(source, &outcome);
        self.dead(&outcome.dead_letters).await?;
        if self.shared.as_ref().is_some_and(|shared| shared.source == source) {
            for one in std::mem::take(&mut outcome.exchanged) {
                let lane = outcome.lanes.get(one.position.lane as usize).map(|lane| Arc::clone(&lane.name));
                self.remember_for_all(&lane.unwrap_or_default(), one).await?;
            }
            let Some(shared) = &mut self.shared else { return Ok(()) };
            for lane in &outcome.ended {
                shared.forget(*lane);
                let name = outcome.lanes.get(*lane as usize);
                name.and_then(|lane| partition(&lane.name)).inspect(|partition| shared.places.go(*partition));
            }
            return Ok(());
        }
        for (lane, offset) in &outcome.next {
            self.pending.insert((source, *lane), *offset);
        }
        let mut at_once = Vec::new();
        for matched in &outcome.matched {
            let alerts = self.stage.accept(matched);
            self.deliver(&alerts).await?;
            at_once.extend(alerts);
        }
        outcome.kept.iter_mut().for_each(|kept| self.stage.admit(kept));
        let Some(shared) = &mut self.shared else { return Ok(()) };
        shared.out.pass_on(source, &outcome, &at_once).await.map_err(RunError::Exchange)
    }

    /// One record of a partition that is ours.
    async fn remember_for_all(&mut self, lane: &str, one: Exchanged) -> Result<(), RunError> {
        let Some(shared) = &mut self.shared else { return Ok(()) };
        let Position { lane: number, offset } = one.position;
        // Taken out, as what it finds is delivered by all of us.
        let mut share = match shared.shares.remove(&number) {
            Some(share) => share,
            None => {
                let Some(partition) = partition(lane) else { return Ok(()) };
                let share = Share::open(&shared.places, &shared.options, (lane, partition, offset)).await;
                share.map_err(RunError::State)?
            }
        };
        let result = self.with_share(&mut share, offset, one).await;
        if let Some(shared) = &mut self.shared {
            shared.shares.insert(number, share);
        }
        result
    }

    async fn with_share(&mut self, share: &mut Share, offset: u64, one: Exchanged) -> Result<(), RunError> {
        if !share.advance(offset) {
            return Ok(());
        }
        let Some(sent) = one.sent else { return Ok(()) };
        if let Sent::Rows(rows) = &sent
            && rows.unknown > 0
        {
            self.metrics.emit(ExchangeUnknown { cluster: &rows.cluster_id, matches: rows.unknown });
        }
        let findings = share.take(&sent, one.time_ms);
        let alerts = self.tell_of_share(share, &findings).await?;
        let correlated = share.memory.correlate(&alerts);
        for (detection, error) in share.memory.failures() {
            self.metrics.emit(DetectionFailed { detection: &self.set.detections[detection].id, error: &error });
            self.summary.failures += 1;
        }
        self.tell_of_share(share, &correlated).await?;
        Ok(())
    }

    async fn tell_of_share(&mut self, share: &mut Share, findings: &[Finding]) -> Result<Vec<Alert>, RunError> {
        self.tell_by(findings, |_, finding| share.stage.remember(finding)).await
    }

    /// Tells the others how far we are. `is_idle`: nothing waits to be taken in.
    pub(super) async fn tide(&mut self, is_idle: bool) -> Result<(), RunError> {
        let Some(shared) = &mut self.shared else { return Ok(()) };
        let is_idle = is_idle && self.held.is_empty();
        shared.out.tide(&self.committers, is_idle).await.map_err(RunError::Exchange)
    }

    /// The updates that have gathered in shares, and whatever was sent is stored.
    pub(super) async fn flush_shared(&mut self) -> Result<(), RunError> {
        let Some(shared) = &mut self.shared else { return Ok(()) };
        shared.out.settle().await.map_err(RunError::Exchange)?;
        let updates: Vec<Alert> = shared.shares.values_mut().flat_map(|share| share.stage.flush()).collect();
        self.deliver(&updates).await
    }

    /// Begins the snapshots that are due; `whole` waits for one of everything so far. To be called after a flush.
    pub(super) async fn keep_shares(&mut self, whole: bool) -> Result<(), RunError> {
        if whole {
            self.await_shares().await?;
        }
        let Some(shared) = &mut self.shared else { return Ok(()) };
        for (lane, share) in &mut shared.shares {
            share.begin(*lane, whole);
        }
        if whole {
            self.await_shares().await?;
        }
        Ok(())
    }

    async fn await_shares(&mut self) -> Result<(), RunError> {
        while let Some(shared) = self.shared.as_mut().filter(|one| one.shares.values().any(Share::is_writing)) {
            let (lane, written, covered) = shared.written().await;
            self.settle_share(lane, &written, covered)?;
        }
        Ok(())
    }

    /// A snapshot of a share is durable, and so its position may be committed; or it is not, and the next one is tried.
    ///
    /// # Errors
    /// The partition is ours by the group and somebody else's by its state: only a new start can tell.
    pub(super) fn settle_share(&mut self, lane: LaneId, written: &Written, covered: Covered) -> Result<(), RunError> {
        keeping::tell(written, &self.metrics);
        let Some(shared) = &mut self.shared else { return Ok(()) };
        match &written.result {
            Ok(_) => {
                self.unsaved = None;
                let source = shared.source;
                self.commit(covered.into_iter().map(|((_, lane), next)| ((source, lane), next)).collect())
            }
            Err(error @ StateError::Fenced { .. }) => {
                let name = shared.shares.get(&lane).map(|share| share.name().to_owned()).unwrap_or_default();
                shared.forget(lane);
                let committer = self.committers.get(shared.source);
                if committer.is_some_and(|committer| committer.holds(&name) == Some(false)) {
                    tracing::info!(partition = name, "the memory of a partition has a new owner");
                    return Ok(());
                }
                Err(RunError::Overtaken { partition: name, reason: error.to_string() })
            }
            Err(error) => {
                self.health.checkpoint_failed(error.to_string());
                tracing::debug!(%error, "a share is not saved");
                if let Some(share) = shared.shares.get_mut(&lane) {
                    share.unsaved();
                }
                Ok(())
            }
        }
    }

    /// What the alert stages of this run have counted.
    pub(super) fn alert_counts(&self) -> AlertCounts {
        let mut counts = self.stage.counts();
        if let Some(shared) = &self.shared {
            add_alerts(&mut counts, &AlertCounts { open: 0, ..shared.gone.1.clone() });
            shared.shares.values().for_each(|share| add_alerts(&mut counts, &share.stage.counts()));
        }
        counts
    }

    /// Publishes what the shares hold.
    pub(super) fn tell_shares(&mut self) {
        let Some(shared) = &self.shared else { return };
        let mut counts = MemoryCounts { held: 0, ..shared.gone.0 };
        let mut sizes: BTreeMap<usize, Size> = BTreeMap::new();
        for share in shared.shares.values() {
            add_memory(&mut counts, &share.memory.counts());
            for (detection, size) in share.memory.sizes() {
                let sum = sizes.entry(detection).or_default();
                (sum.rows, sum.keys) = (sum.rows + size.rows, sum.keys + size.keys);
                (sum.bytes, sum.shed) = (sum.bytes + size.bytes, sum.shed + size.shed);
            }
        }
        for (index, detection) in self.set.detections.iter().enumerate().filter(|(_, one)| one.memory.is_some()) {
            let size = sizes.get(&index).copied().unwrap_or_default();
            self.metrics.memory_holds(&detection.id, size.rows, size.keys, size.bytes, size.shed);
        }
        let watermarks = shared.shares.values().flat_map(|share| share.memory.watermarks());
        let known = watermarks.map(|(_, us)| us).filter(|us| ![i64::MIN, i64::MAX].contains(us));
        if let Some(oldest) = known.min() {
            self.metrics.watermark(oldest);
        }
        self.count_memory(counts);
    }
}

/// The number of a partition in the name of its lane.
fn partition(lane: &str) -> Option<i32> {
    lane.rsplit_once('/')?.1.parse().ok()
}

fn add_memory(sum: &mut MemoryCounts, more: &MemoryCounts) {
    sum.kept += more.kept;
    sum.duplicates += more.duplicates;
    sum.late += more.late;
    sum.held += more.held;
}

fn add_alerts(sum: &mut AlertCounts, more: &AlertCounts) {
    sum.created += more.created;
    sum.updated += more.updated;
    sum.suppressed += more.suppressed;
    sum.duplicates += more.duplicates;
    sum.hidden += more.hidden;
    sum.evicted += more.evicted;
    sum.open += more.open;
}
