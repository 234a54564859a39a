//! A memory that is handed rows and time by others, which have read the lanes: one keyed partition of an exchange.
//!
//! What is different from [`Memory::take`]: rows and time come apart, lanes are read elsewhere, and the clock is that of
//! whoever carries both. Time passes only with what all lanes say, so that it does not matter who reads which lane, or
//! whose word arrives first.

use std::sync::Arc;

use super::timeline::{LaneKey, Timeline};
use super::{Memory, OF_ALERTS, alerts};
use crate::model::{Alert, Finding, KeptMatches, Match};

/// How far a lane has come in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardOf {
    pub lane: LaneKey,
    pub cluster_id: Arc<str>,
    pub oldest_us: i64,
    pub newest_us: i64,
}

/// What is known of a lane, whichever clusters it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub lane: LaneKey,
    /// Newest event of any cluster, microseconds since the epoch; `None` where nothing is known yet.
    pub newest_us: Option<i64>,
    /// Its silence means that there is nothing: it is read to its end, or nearly so, by somebody who is alive.
    pub current: bool,
    /// It has said nothing for so long that nobody waits for it.
    pub idle: bool,
}

impl Memory {
    /// Takes rows of one cluster in; `oldest_us` is where the cluster begins if it is new. What comes late from a chunk
    /// that was taken in before (`again`) is a repeat, and nobody has missed it.
    pub fn take_rows(&mut self, cluster_id: &Arc<str>, oldest_us: i64, kept: &KeptMatches, again: bool) {
        self.begin(cluster_id, oldest_us);
        let late = self.counts.late;
        self.keep(kept, "");
        if again {
            self.counts.duplicates += self.counts.late - late;
            self.counts.late = late;
        }
    }

    /// Takes alerts in, as [`Memory::rows_of_alerts`] made them.
    pub fn take_alerts(&mut self, kept: &KeptMatches) {
        self.keep(kept, OF_ALERTS);
    }

    /// Lets time pass: `heard` is what lanes have come to, `lanes` are all that there are, `now_us` is the clock. Answers
    /// what has become true by it; [`Memory::correlate`] is to be called after it.
    ///
    /// A cluster waits for the lanes in which it was heard of, as long as these are not silent; for the others as long as
    /// nothing is known of them, and then as far as they have come with other clusters.
    pub fn pass(&mut self, heard: &[HeardOf], lanes: &[Standing], now_us: i64) -> Vec<Finding> {
        for one in heard {
            self.begin(&one.cluster_id, one.oldest_us);
            if let Some(timeline) = self.timelines.get_mut(&one.cluster_id) {
                timeline.heard(one.lane, one.newest_us, now_us);
            }
        }
        let (lateness_us, silence_us) = (self.lateness_us, self.silence_us);
        let mut out = Vec::new();
        let of_events = self.timelines.iter_mut().filter(|(cluster, _)| !cluster.starts_with(OF_ALERTS));
        for (cluster, timeline) in of_events {
            let mut hold = i64::MAX;
            timeline.retain_lanes(|lane| lanes.iter().any(|one| one.lane == lane), |_, _| false);
            for one in lanes {
                if !one.current {
                    timeline.attend(one.lane, now_us);
                }
                if !timeline.hears(one.lane) && !one.idle {
                    hold = hold.min(one.newest_us.map_or(i64::MIN, |us| us.saturating_sub(lateness_us)));
                }
            }
            let complete = timeline.complete_until(lateness_us);
            let without_idle = timeline.complete_without_idle(lateness_us, silence_us, now_us);
            if let Some(until_us) = complete.max(without_idle) {
                self.alerts_until.insert(Arc::clone(cluster), timeline.watermark_us());
                timeline.advance(until_us.min(hold), &self.kinds, &mut out);
            }
        }
        out
    }

    /// Alerts as rows that detections about alerts keep.
    pub fn rows_of_alerts(&self, alerts: &[Alert]) -> Vec<KeptMatches> {
        if self.correlating.is_empty() {
            return Vec::new();
        }
        let own =
            |alert: &Alert| self.correlating.iter().any(|index| *self.kinds.detections[*index].id == *alert.detection);
        let rows = alerts.iter().filter(|alert| !own(alert)).filter_map(|alert| {
            let rows = alerts::row(alert, self.alert_columns)?;
            let whole = alerts::whole(&rows);
            let each = self.correlating.iter().filter(|index| self.kinds.concerns(**index, &whole));
            let matches = each.map(|detection| Match { detection: *detection, step: 0, row: 0, computed: Vec::new() });
            Some(KeptMatches { rows, matches: matches.collect() })
        });
        rows.collect()
    }

    /// A cluster is heard of. It begins with its oldest event, whose lane may not be the first to say so.
    fn begin(&mut self, cluster_id: &Arc<str>, oldest_us: i64) {
        let new = || Timeline::new(Arc::clone(cluster_id), oldest_us);
        self.timelines.entry(Arc::clone(cluster_id)).or_insert_with(new).begins(oldest_us);
    }
}
