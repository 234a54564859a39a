//! Open findings: which event opens one, which adds to one, which adds nothing.
//!
//! The first event of a finding is told at once. Later events of other requests are gathered and told as updates when
//! the flow flushes, or earlier where gathering more would take too much memory: nothing is ever dropped for want of
//! room. A request counts once for each finding, however often and in however many stages it is delivered.
//!
//! Memory is bounded by [`Limits`]. What is forgotten first is what ended longest ago; if an event of a forgotten
//! finding arrives after all, the finding is created again under the same uid. A restart goes on with what was saved.

mod saved;

use std::collections::{BTreeSet, HashMap, HashSet};

use super::identity::{FindingId, RequestId};
use super::row::Event;

/// Bounds of what is remembered.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open findings.
    pub open_max: usize,
    /// Requests remembered of one finding; further ones are counted each time they are delivered.
    pub requests_of_finding_max: usize,
    /// Requests remembered of all findings.
    pub requests_max: usize,
    /// Events listed in one emission.
    pub listed_max: usize,
    /// Raw events shown in one emission.
    pub shown_max: usize,
    /// Bytes gathered for updates, of all findings.
    pub pending_bytes_max: usize,
    /// How long after the end of its bucket a finding stays open, by the newest event of its cluster.
    pub grace_us: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            open_max: 200_000,
            requests_of_finding_max: 4096,
            requests_max: 1_000_000,
            listed_max: 1000,
            shown_max: 5,
            pending_bytes_max: 32 << 20,
            grace_us: 6 * 3600 * 1_000_000,
        }
    }
}

/// An event that is evidence of a finding, as an emission lists it.
#[derive(Debug, Clone)]
pub struct Related {
    pub audit_id: Box<str>,
    pub request: RequestId,
    pub event_us: i64,
}

/// What one event means for its finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It opens the finding.
    First,
    /// It adds to the finding and may be among the newest.
    Further { shown: bool },
    /// The finding has this request already.
    Duplicate,
}

/// What came for a finding since it was last told about, ready to be told.
#[derive(Debug)]
pub struct Update {
    pub finding: FindingId,
    /// Index of the detection.
    pub detection: usize,
    /// It was a habit when the finding was opened.
    pub habitual: bool,
    /// Events in the finding, all of `related` included.
    pub count: u64,
    pub created_us: i64,
    pub first_us: i64,
    pub last_us: i64,
    /// In order of arrival.
    pub related: Vec<Related>,
    /// The newest first.
    pub events: Vec<Event>,
}

/// Where an event belongs.
#[derive(Debug, Clone)]
pub struct Place {
    pub finding: FindingId,
    pub detection: usize,
    /// The actor, or enough others, did it on an earlier day.
    pub habitual: bool,
    /// Whatever tells clusters apart.
    pub cluster: u64,
    /// End of the finding's bucket.
    pub end_us: i64,
    pub related: Related,
}

#[derive(Debug)]
struct Finding {
    detection: usize,
    habitual: bool,
    cluster: u64,
    created_us: i64,
    first_us: i64,
    last_us: i64,
    count: u64,
    /// Most findings have one request only.
    opened_by: RequestId,
    requests: HashSet<RequestId>,
    pending: Option<Box<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    related: Vec<Related>,
    events: Vec<Event>,
    bytes: usize,
}

/// All open findings.
#[derive(Debug)]
pub struct Suppression {
    limits: Limits,
    open: HashMap<FindingId, Finding>,
    /// Open findings by the end of their buckets.
    by_end: BTreeSet<(i64, FindingId)>,
    /// Findings with something pending, in the order in which it came.
    waiting: Vec<FindingId>,
    /// Newest event time by cluster.
    newest: HashMap<u64, i64>,
    requests: usize,
    pending_bytes: usize,
    evicted: u64,
}

impl Suppression {
    pub fn new(limits: Limits) -> Suppression {
        Suppression {
            limits,
            open: HashMap::new(),
            by_end: BTreeSet::new(),
            waiting: Vec::new(),
            newest: HashMap::new(),
            requests: 0,
            pending_bytes: 0,
            evicted: 0,
        }
    }

    /// Number of open findings.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Findings that were forgotten so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Enters one event. Where it is [`Seen::Further`], hand in the event itself by [`Suppression::show`] if wanted.
    pub fn see(&mut self, place: Place) -> Seen {
        let Place { finding: id, detection, habitual, cluster, end_us, related } = place;
        self.advance(cluster, related.event_us);
        let Some(finding) = self.open.get_mut(&id) else {
            self.by_end.insert((end_us, id));
            self.open.insert(id, Finding::open(detection, habitual, cluster, &related));
            return Seen::First;
        };
        if finding.opened_by == related.request || finding.requests.contains(&related.request) {
            return Seen::Duplicate;
        }
        if finding.requests.len() < self.limits.requests_of_finding_max {
            finding.requests.insert(related.request);
            self.requests += 1;
        }
        finding.count += 1;
        finding.first_us = finding.first_us.min(related.event_us);
        finding.last_us = finding.last_us.max(related.event_us);
        let pending = finding.pending.get_or_insert_with(|| {
            self.waiting.push(id);
            Box::default()
        });
        let bytes = related.audit_id.len() + size_of::<Related>();
        pending.bytes += bytes;
        self.pending_bytes += bytes;
        let shown = pending.wants(related.event_us, related.request, self.limits.shown_max);
        pending.related.push(related);
        Seen::Further { shown }
    }

    /// Adds an event to those that the next update of a finding shows.
    pub fn show(&mut self, id: FindingId, event: Event) {
        let Some(pending) = self.open.get_mut(&id).and_then(|finding| finding.pending.as_mut()) else { return };
        self.pending_bytes -= pending.bytes;
        pending.show(event, self.limits.shown_max);
        self.pending_bytes += pending.bytes;
    }

    /// The update of a finding that must be told now, as no more may be gathered.
    pub fn overflow(&mut self, id: FindingId) -> Option<Update> {
        const EMISSIONS_MAX: usize = 16;
        let full = self.pending_bytes > self.limits.pending_bytes_max;
        let finding = self.open.get(&id)?;
        let related = finding.pending.as_ref()?.related.len();
        if full || related >= self.limits.listed_max * EMISSIONS_MAX { self.take(id) } else { None }
    }

    /// Detections have other numbers from now on; findings of those without one are forgotten.
    pub fn renumber(&mut self, number: impl Fn(usize) -> Option<usize>) {
        let (mut requests, mut pending_bytes) = (0, 0);
        self.open.retain(|_, finding| match number(finding.detection) {
            Some(now) => {
                finding.detection = now;
                requests += finding.requests.len();
                pending_bytes += finding.pending.as_ref().map_or(0, |pending| pending.bytes);
                true
            }
            None => false,
        });
        (self.requests, self.pending_bytes) = (requests, pending_bytes);
        let (open, before) = (&self.open, self.by_end.len());
        self.by_end.retain(|(_, id)| open.contains_key(id));
        self.waiting.retain(|id| open.contains_key(id));
        self.evicted += (before - self.by_end.len()) as u64;
    }

    /// Everything that waits to be told, in the order in which it began to wait.
    pub fn flush(&mut self) -> Vec<Update> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Forgets findings that are over, and as many more as the bounds demand. What they still had to tell is returned.
    pub fn evict(&mut self) -> Vec<Update> {
        const LOOKED_AT_MAX: usize = 10_000;
        let mut told = Vec::new();
        let over = self.newest.values().max().copied().unwrap_or(i64::MIN).saturating_sub(self.limits.grace_us);
        let candidates: Vec<_> =
            self.by_end.iter().take_while(|(end_us, _)| *end_us < over).take(LOOKED_AT_MAX).copied().collect();
        for (end_us, id) in candidates {
            let cluster = self.open.get(&id).map(|finding| finding.cluster);
            let newest = cluster.and_then(|cluster| self.newest.get(&cluster)).copied().unwrap_or(i64::MAX);
            if end_us < newest.saturating_sub(self.limits.grace_us) {
                told.extend(self.forget(end_us, id));
            }
        }
        told.extend(self.shrink());
        told
    }

    /// Keeps to the bounds, whatever the time; some room is made at once, so that this is rare.
    pub fn shrink(&mut self) -> Vec<Update> {
        let mut told = Vec::new();
        if self.open.len() <= self.limits.open_max && self.requests <= self.limits.requests_max {
            return told;
        }
        let (open, requests) = (self.limits.open_max / 16 * 15, self.limits.requests_max / 16 * 15);
        while self.open.len() > open || self.requests > requests {
            let Some((end_us, id)) = self.by_end.first().copied() else { break };
            told.extend(self.forget(end_us, id));
        }
        told
    }

    fn forget(&mut self, end_us: i64, id: FindingId) -> Option<Update> {
        let told = self.take(id);
        self.by_end.remove(&(end_us, id));
        if let Some(finding) = self.open.remove(&id) {
            self.requests -= finding.requests.len();
            self.evicted += 1;
        }
        told
    }

    /// What a finding has to tell, before its time.
    pub fn take(&mut self, id: FindingId) -> Option<Update> {
        let finding = self.open.get_mut(&id)?;
        let pending = finding.pending.take()?;
        self.pending_bytes -= pending.bytes;
        Some(Update {
            finding: id,
            detection: finding.detection,
            habitual: finding.habitual,
            count: finding.count,
            created_us: finding.created_us,
            first_us: finding.first_us,
            last_us: finding.last_us,
            related: pending.related,
            events: pending.events,
        })
    }

    fn advance(&mut self, cluster: u64, event_us: i64) {
        const CLUSTERS_MAX: usize = 4096;
        let cluster = if self.newest.len() < CLUSTERS_MAX || self.newest.contains_key(&cluster) { cluster } else { 0 };
        let newest = self.newest.entry(cluster).or_insert(event_us);
        *newest = event_us.max(*newest);
    }
}

impl Finding {
    fn open(detection: usize, habitual: bool, cluster: u64, related: &Related) -> Finding {
        Finding {
            detection,
            habitual,
            cluster,
            created_us: related.event_us,
            first_us: related.event_us,
            last_us: related.event_us,
            count: 1,
            opened_by: related.request,
            requests: HashSet::new(),
            pending: None,
        }
    }
}

impl Pending {
    /// Whether an event would be among the newest; equal times are told apart by request, not by arrival.
    fn wants(&self, event_us: i64, request: RequestId, shown_max: usize) -> bool {
        let oldest = self.events.last().map(|event| (event.event_us, event.request));
        self.events.len() < shown_max || oldest.is_some_and(|oldest| oldest < (event_us, request))
    }

    fn show(&mut self, event: Event, shown_max: usize) {
        let key = (event.event_us, event.request);
        let at = self.events.partition_point(|other| (other.event_us, other.request) > key);
        self.bytes += event.bytes();
        self.events.insert(at, event);
        while self.events.len() > shown_max {
            self.bytes -= self.events.pop().map_or(0, |event| event.bytes());
        }
    }
}
