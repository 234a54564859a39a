//! What an instance remembers of the partitions of an exchange that are its own: one memory, one set of open findings
//! and one place of state for each.
//!
//! A **share** lives with its partition. Its place of state is claimed when the partition comes, which fences the owner
//! before ([`Places`]); it goes on from the position of the newest manifest there, and is forgotten when the partition
//! goes. What a share answers is a function of its partition's records, so it does not matter whose it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::keeping::{Covered, Keeping, Written};
use super::lanes::LaneName;
use super::snapshots::Snapshots;
use crate::detection::DetectionSet;
use crate::model::{Finding, LaneId};
use crate::stage::alert::{AlertOptions, AlertStage};
use crate::stage::exchange::{Of, Sent, Tide};
use crate::stage::memory::{HeardOf, Memory, MemoryOptions, Standing};
use crate::state::{Image, StateError, StateStore};
use crate::telemetry::{MemoryGap, Metrics};

/// How long a partition waits for its state before it begins where the group is; the state is then tried again.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(30);
/// Clock by which a lane whose reader is not heard of any more is not current: some tides long.
const SPEECHLESS_US: i64 = 5_000_000;

/// A place of state that was taken over, and what lay there.
type Claimed = (Snapshots, Image);

/// The places of state of all partitions.
#[derive(Debug)]
pub struct Places {
    /// The address under which each partition has a place.
    base: String,
    /// The source's name, under which a manifest has the partition's position.
    source: String,
    interval: Duration,
    runtime: tokio::runtime::Handle,
    claimed: Mutex<HashMap<i32, Claimed>>,
}

impl Places {
    pub fn new(base: &str, source: &str, interval: Duration, runtime: tokio::runtime::Handle) -> Places {
        let (base, source) = (base.trim_end_matches('/').to_owned(), source.to_owned());
        Places { base, source, interval, runtime, claimed: Mutex::default() }
    }

    async fn claim(&self, partition: i32) -> Result<Claimed, StateError> {
        Snapshots::open(StateStore::open(&self.place(partition))?, self.interval).await
    }

    /// The address of one partition's place.
    pub fn place(&self, partition: i32) -> String {
        format!("{}/partition-{partition:04}", self.base)
    }

    /// Takes over the places of partitions that have come; returns where each goes on by its state. For the source's
    /// thread, which may wait.
    pub fn come(self: &Arc<Self>, partitions: &[i32]) -> HashMap<i32, i64> {
        let mut next = HashMap::new();
        let claims: Vec<_> = partitions
            .iter()
            .map(|partition| {
                let (places, partition) = (Arc::clone(self), *partition);
                let claim = async move { tokio::time::timeout(CLAIM_TIMEOUT, places.claim(partition)).await };
                (partition, self.runtime.spawn(claim))
            })
            .collect();
        for (partition, claim) in claims {
            match self.runtime.block_on(claim) {
                Ok(Ok(Ok(claimed))) => {
                    let lane = format!("{}/{partition}", self.source);
                    let position = claimed.1.positions.get(&self.source).and_then(|lanes| lanes.get(&lane));
                    next.extend(position.and_then(|next| Some((partition, i64::try_from(*next).ok()?))));
                    self.claimed().insert(partition, claimed);
                }
                Ok(Ok(Err(error))) => tracing::warn!(partition, %error, "state of a partition cannot be read yet"),
                Ok(Err(_)) => tracing::warn!(partition, "state of a partition takes too long to read"),
                Err(error) => tracing::error!(partition, %error, "reading the state of a partition failed"),
            }
        }
        next
    }

    /// A partition has gone: what was claimed for it is somebody else's.
    pub fn go(&self, partition: i32) {
        self.claimed().remove(&partition);
    }

    async fn take(&self, partition: i32) -> Result<Claimed, StateError> {
        let ready = self.claimed().remove(&partition);
        match ready {
            Some(claimed) => Ok(claimed),
            None => self.claim(partition).await,
        }
    }

    fn claimed(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Claimed>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shares are made of.
#[derive(Debug, Clone)]
pub struct ShareOptions {
    pub set: Arc<DetectionSet>,
    pub memory: MemoryOptions,
    pub alerts: AlertOptions,
    pub metrics: Metrics,
}

/// One partition and all that is remembered of it.
#[derive(Debug)]
pub struct Share {
    pub memory: Memory,
    pub stage: AlertStage,
    keeping: Keeping,
    lane: LaneName,
    /// The first offset that was not taken.
    next: u64,
    /// Whether anything came since the last snapshot.
    moved: bool,
    tides: Tides,
    silence_us: i64,
}

impl Share {
    /// Goes on with a partition, of which `first` is the first record that is here.
    ///
    /// # Errors
    /// Its place of state cannot be had.
    pub async fn open(
        places: &Places,
        options: &ShareOptions,
        (lane, partition, first): (&str, i32, u64),
    ) -> Result<Share, StateError> {
        let (snapshots, image) = places.take(partition).await?;
        let place = snapshots.place().to_owned();
        let (began, clusters) = (image.epoch.is_some(), image.clusters.clone());
        let lane: LaneName = (places.source.clone(), lane.to_owned());
        let mut memory = super::reload::memory_of(&options.set, &options.memory).expect("some detection has a memory");
        let mut stage = AlertStage::new(Arc::clone(&options.set), options.alerts.clone());
        let sources = [places.source.clone()];
        let mut keeping = Keeping::start(snapshots, image, &sources, (Some(&mut memory), &mut stage), &options.metrics);
        let reached = keeping.lanes().reached(&lane);
        if let Some(reached) = reached.filter(|reached| began && *reached < first) {
            let detail = format!("records {reached} to {first} of {} are gone; see {place}", lane.1);
            options.metrics.emit(MemoryGap {
                detection: "exchange",
                cluster: None,
                reason: "expired",
                detail: &detail,
            });
        }
        let mut share = Share {
            memory,
            stage,
            keeping,
            lane,
            next: reached.unwrap_or(first).max(first),
            moved: false,
            tides: Tides::default(),
            silence_us: i64::try_from(options.memory.silence.as_micros()).unwrap_or(i64::MAX),
        };
        for (source, lanes) in clusters.values().flat_map(|clock| &clock.lanes) {
            for lane in lanes.keys() {
                share.number(&(source.clone(), lane.clone()));
            }
        }
        tracing::info!(partition = share.lane.1, next = share.next, "memory of a partition is here");
        Ok(share)
    }

    /// The name of its partition's lane.
    pub fn name(&self) -> &str {
        &self.lane.1
    }

    /// Whether the record of this offset is new to it; it is taken from here on.
    pub fn advance(&mut self, offset: u64) -> bool {
        if offset < self.next {
            return false;
        }
        self.next = offset + 1;
        self.moved = true;
        self.keeping.lanes().reach(&self.lane, self.next);
        true
    }

    /// Takes a record in; answers what has become true by it. `time_ms` is the broker's clock.
    pub fn take(&mut self, sent: &Sent, time_ms: i64) -> Vec<Finding> {
        match sent {
            Sent::Rows(rows) => {
                let again = self.knows(&rows.next);
                match rows.of {
                    Of::Events => self.memory.take_rows(&rows.cluster_id, rows.oldest_us, &rows.kept, again),
                    Of::Alerts => self.memory.take_alerts(&rows.kept),
                }
                if rows.is_last {
                    self.note(&rows.next);
                }
                Vec::new()
            }
            Sent::Tide(tide) => self.rise(tide, time_ms),
        }
    }

    /// Whether everything up to these offsets was taken in before.
    fn knows(&mut self, next: &BTreeMap<String, BTreeMap<String, u64>>) -> bool {
        let lanes = self.keeping.lanes();
        let each = next.iter().flat_map(|(source, of)| of.iter().map(move |(lane, next)| (source, lane, *next)));
        !next.is_empty()
            && each.into_iter().all(|(source, lane, next)| {
                lanes.reached(&(source.clone(), lane.clone())).is_some_and(|reached| next <= reached)
            })
    }

    fn note(&mut self, next: &BTreeMap<String, BTreeMap<String, u64>>) {
        for (source, lanes) in next {
            for (lane, next) in lanes {
                self.keeping.lanes().reach(&(source.clone(), lane.clone()), *next);
            }
        }
    }

    fn rise(&mut self, tide: &Tide, time_ms: i64) -> Vec<Finding> {
        let mut heard = Vec::new();
        let now_us = self.tides.tick(time_ms);
        for one in &tide.lanes {
            let name = (one.source.clone(), one.lane.clone());
            let number = self.number(&name);
            if let Some(next) = one.next {
                self.keeping.lanes().reach(&name, next);
            }
            self.tides.hear(number, one.newest_us, one.current, !one.clusters.is_empty());
            heard.extend(one.clusters.iter().map(|(cluster, (oldest_us, newest_us))| HeardOf {
                lane: (0, number),
                cluster_id: cluster.as_str().into(),
                oldest_us: *oldest_us,
                newest_us: *newest_us,
            }));
        }
        let all = tide.all.iter().flat_map(|(source, lanes)| lanes.iter().map(move |lane| (source, lane)));
        let own = tide.lanes.iter().map(|one| (&one.source, &one.lane));
        let mut numbers: Vec<LaneId> =
            all.chain(own).map(|(source, lane)| self.number(&(source.clone(), lane.clone()))).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let standings: Vec<Standing> =
            numbers.into_iter().map(|lane| self.tides.standing(lane, self.silence_us)).collect();
        self.memory.pass(&heard, &standings, now_us)
    }

    /// The number of a source's lane in here.
    fn number(&mut self, name: &LaneName) -> LaneId {
        if let Some(number) = self.tides.numbers.get(name) {
            return *number;
        }
        let number = LaneId::try_from(self.tides.numbers.len()).unwrap_or(LaneId::MAX);
        self.tides.numbers.insert(name.clone(), number);
        self.keeping.lanes().know(0, number, name.clone());
        self.memory.meet(0, number, name);
        number
    }

    /// Begins a snapshot where one is due; `whole`: where anything has changed.
    pub fn begin(&mut self, lane: LaneId, whole: bool) {
        if !self.keeping.is_writing() && self.moved && (whole || self.keeping.is_due()) {
            self.moved = false;
            self.keeping.begin(
                (Some(&self.memory), &self.stage),
                &[],
                Covered::from([((0, lane), self.next)]),
                BTreeMap::new(),
            );
        }
    }

    /// Whether a snapshot is being written.
    pub fn is_writing(&self) -> bool {
        self.keeping.is_writing()
    }

    /// How the snapshot that is being written ends. Safe to drop while waiting.
    pub async fn written(&mut self) -> (Written, Covered) {
        self.keeping.written().await
    }

    /// The last one failed: what it was to cover waits for the next.
    pub fn unsaved(&mut self) {
        self.moved = true;
    }
}

/// Lanes of sources as a share knows them by their readers' words, and the clock that these come with.
#[derive(Debug, Default)]
struct Tides {
    numbers: HashMap<LaneName, LaneId>,
    lanes: HashMap<LaneId, Spoken>,
    now_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct Spoken {
    newest_us: Option<i64>,
    current: bool,
    /// By the tides' clock: when its reader last said anything, and since when there was nothing, while it was current.
    at_us: i64,
    silent_since_us: i64,
}

impl Tides {
    /// Moves the clock, never back: brokers differ a little.
    fn tick(&mut self, time_ms: i64) -> i64 {
        self.now_us = self.now_us.max(time_ms.saturating_mul(1_000));
        self.now_us
    }

    fn hear(&mut self, lane: LaneId, newest_us: Option<i64>, current: bool, has_news: bool) {
        let now_us = self.now_us;
        let known = self.lanes.entry(lane).or_insert(Spoken {
            newest_us: None,
            current,
            at_us: now_us,
            silent_since_us: now_us,
        });
        let was_silent = known.current && current && !has_news && now_us - known.at_us < SPEECHLESS_US;
        *known = Spoken {
            newest_us: known.newest_us.max(newest_us),
            current,
            at_us: now_us,
            silent_since_us: if was_silent { known.silent_since_us } else { now_us },
        };
    }

    fn standing(&self, lane: LaneId, silence_us: i64) -> Standing {
        let place = (0, lane);
        let Some(known) = self.lanes.get(&lane) else {
            return Standing { lane: place, newest_us: None, current: false, idle: false };
        };
        let current = known.current && self.now_us - known.at_us < SPEECHLESS_US;
        let idle = current && self.now_us - known.silent_since_us >= silence_us;
        Standing { lane: place, newest_us: known.newest_us, current, idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_idle_only_while_its_reader_says_so() {
        let mut tides = Tides::default();
        let silence = 3_000_000;
        let stand = |tides: &Tides| tides.standing(7, silence);
        assert_eq!((stand(&tides).current, stand(&tides).idle), (false, false), "nobody has spoken of it");
        for second in 0..=3 {
            tides.tick(second * 1_000);
            tides.hear(7, (second == 0).then_some(42), true, second == 0);
        }
        assert_eq!((stand(&tides).current, stand(&tides).idle, stand(&tides).newest_us), (true, true, Some(42)));
        tides.tick(9_000);
        assert_eq!((stand(&tides).current, stand(&tides).idle), (false, false), "its reader is gone");
        tides.hear(7, None, true, false);
        assert_eq!((stand(&tides).current, stand(&tides).idle), (true, false), "the next one begins anew");
        tides.tick(10_000);
        tides.hear(7, None, false, false);
        assert!(!stand(&tides).current, "it reads what has gathered");
        assert_eq!(tides.tick(2_000), 10_000_000, "a clock never goes back");
    }
}
