//! Matches become alerts: identity, exceptions, suppression, and the wire form.
//!
//! [`AlertStage::accept`] takes matched rows in order and returns what must be told at once; [`AlertStage::flush`]
//! returns the updates that have gathered, and is called every few seconds and at the end.
//!
//! * A finding's uid is a pure function of content ([`identity`]), so any order, batching or replay of the same events
//!   yields the same set of findings, and every event that is evidence is listed in some emission of its finding.
//! * A match that a site's exception is true for is hidden and counted ([`exceptions`]).
//! * A request counts once for each finding; what repeats about the same entity updates one finding ([`suppression`]).
//! * No secret of an event leaves here ([`redact`], [`scrub`], [`clean`]), and every part of an alert is bounded.
//!
//! The stage keeps everything in memory, under fixed bounds, and reads no clock. [`AlertStage::save`] gives what is to
//! outlive the process.

mod clean;
mod emission;
mod exceptions;
mod habit;
mod identity;
mod ocsf;
mod redact;
mod remembered;
mod renew;
mod row;
mod scrub;
mod spec;
mod summary;
mod suppression;
mod tables;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use chrono::NaiveDate;
use serde_json::Value;

use self::emission::Emission;
use self::exceptions::Exceptions;
use self::habit::Habits;
use self::identity::{FindingId, Scope};
use self::row::{Event, Rows};
use self::suppression::{Place, Related, Seen, Suppression, Update};
use crate::detection::DetectionSet;
use crate::model::{Activity, Alert, Column, Finding, KeptMatches, KeptRows, Match, MatchedRows, Severity};

/// A cell of a matched row as JSON: times as RFC 3339.
pub fn cell(rows: &arrow::array::RecordBatch, column: crate::model::Column, row: usize) -> serde_json::Value {
    row::Rows::new(rows).value(column, row)
}

pub use self::exceptions::{ExceptionCount, ExceptionSpec};
pub use self::ocsf::OCSF_VERSION;
pub use self::spec::{AlertSpec, AttackSpec, FieldSpec};
pub use self::suppression::Limits;

/// What the stage is told besides the detections.
#[derive(Debug, Clone)]
pub struct AlertOptions {
    /// The day by which exceptions have expired or not: that of the start, so that a run does not change under way.
    pub today: NaiveDate,
    /// Bytes of JSON of each raw event in an alert.
    pub evidence_bytes_max: usize,
    pub limits: Limits,
    /// What is told at a lower severity, as habits are, is not told at all.
    pub severity_least: Severity,
    /// Alerts carry the event that raised them, as somebody correlates them.
    pub subjects: bool,
}

impl AlertOptions {
    /// Default bounds.
    pub fn new(today: NaiveDate) -> AlertOptions {
        AlertOptions {
            today,
            evidence_bytes_max: 16 << 10,
            limits: Limits::default(),
            severity_least: Severity::Informational,
            subjects: false,
        }
    }
}

/// What the stage has done since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertCounts {
    /// Emissions that tell of a finding for the first time.
    pub created: u64,
    /// Emissions that add to a finding.
    pub updated: u64,
    /// Matches that added to an open finding instead of making an alert of their own.
    pub suppressed: u64,
    /// Matches whose request their finding had already: another stage, another delivery.
    pub duplicates: u64,
    /// Matches that exceptions have hidden.
    pub hidden: u64,
    /// Findings forgotten: over, or for want of room.
    pub evicted: u64,
    /// Findings remembered now.
    pub open: u64,
    /// Every exception, expired ones too.
    pub exceptions: Vec<ExceptionCount>,
}

/// The stage; one for a whole run, as it sees all matches in order.
#[derive(Debug)]
pub struct AlertStage {
    specs: Vec<AlertSpec>,
    exceptions: Exceptions,
    suppression: Suppression,
    habits: Habits,
    options: AlertOptions,
    counts: AlertCounts,
}

impl AlertStage {
    /// The stage for a set of detections; [`Match::detection`] counts in the set's order.
    pub fn new(set: Arc<DetectionSet>, options: AlertOptions) -> AlertStage {
        let specs = set.detections.iter().map(|detection| AlertSpec::of(detection)).collect();
        AlertStage::with_specs(specs, set.exceptions.iter().map(ExceptionSpec::of).collect(), options)
    }

    /// `specs` in the order that [`Match::detection`] counts in.
    pub fn with_specs(specs: Vec<AlertSpec>, exceptions: Vec<ExceptionSpec>, options: AlertOptions) -> AlertStage {
        let ids: Vec<Arc<str>> = specs.iter().map(|spec| Arc::clone(&spec.id)).collect();
        AlertStage {
            specs,
            exceptions: Exceptions::new(exceptions, &ids, options.today),
            suppression: Suppression::new(options.limits.clone()),
            habits: Habits::default(),
            options,
            counts: AlertCounts::default(),
        }
    }

    /// Takes the matches of one batch; returns what must be told at once, in their order.
    pub fn accept(&mut self, matched: &MatchedRows) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let rows = Rows::new(&matched.rows);
        let mut exceptions = self.exceptions.batch(&matched.rows);
        for found in &matched.matches {
            let Some(spec) = self.specs.get(found.detection).filter(|_| found.row < rows.len()) else { continue };
            if exceptions.hides(found.detection, found.row) {
                self.counts.hidden += 1;
                continue;
            }
            let place = place(spec, &rows, matched, found, &mut self.habits);
            let (id, related, habitual) = (place.finding, place.related.clone(), place.habitual);
            match self.suppression.see(place) {
                Seen::Duplicate => self.counts.duplicates += 1,
                Seen::First => {
                    let event = Event::of(spec, &rows, matched, found);
                    let alert = create(spec, id, related, event, habitual, &self.options);
                    alerts.extend(alert.map(|alert| with_subject(alert, &self.options, matched, found.row)));
                    self.counts.created += 1;
                    for update in self.suppression.shrink() {
                        tell(&self.specs, update, &self.options, &mut self.counts, &mut alerts);
                    }
                }
                Seen::Further { shown } => {
                    self.counts.suppressed += 1;
                    if shown {
                        self.suppression.show(id, Event::of(spec, &rows, matched, found));
                    }
                    if let Some(update) = self.suppression.overflow(id) {
                        tell(&self.specs, update, &self.options, &mut self.counts, &mut alerts);
                    }
                }
            }
        }
        self.loud(alerts)
    }

    /// Leaves of rows that detections with memory keep only those that no exception hides.
    pub fn admit(&mut self, kept: &mut KeptMatches) {
        let (mut exceptions, counts) = (self.exceptions.batch(&kept.rows.rows), &mut self.counts);
        kept.matches.retain(|found| {
            let hidden = exceptions.hides(found.detection, found.row);
            counts.hidden += u64::from(hidden);
            !hidden
        });
    }

    /// Takes a finding of a detection with memory; returns what must be told at once. A finding that is told for the
    /// first time is told with all its events; what is added later is gathered.
    pub fn remember(&mut self, finding: &Finding) -> Vec<Alert> {
        let mut alerts = Vec::new();
        let Some(spec) = self.specs.get(finding.detection) else { return alerts };
        let matched = remembered::matched(finding);
        let rows = Rows::new(&matched.rows);
        let scope = Scope::Remembered { cluster_id: &finding.cluster_id, parts: &finding.identity };
        let id = identity::finding(&spec.id, scope);
        let mut first: Option<(Related, Event, bool)> = None;
        for found in &matched.matches {
            let mut place = place(spec, &rows, &matched, found, &mut self.habits);
            place.finding = id;
            place.end_us = finding.at_us.saturating_add(spec.window_us().unwrap_or(0));
            let (related, habitual) = (place.related.clone(), place.habitual);
            match self.suppression.see(place) {
                Seen::Duplicate => self.counts.duplicates += 1,
                Seen::First => first = Some((related, Event::of(spec, &rows, &matched, found), habitual)),
                Seen::Further { shown } => {
                    self.counts.suppressed += u64::from(first.is_none());
                    if shown {
                        self.suppression.show(id, Event::of(spec, &rows, &matched, found));
                    }
                }
            }
        }
        if let Some((related, event, habitual)) = first {
            let rest = self.suppression.take(id);
            let alert = create_whole(spec, id, finding.at_us, (related, event, habitual), rest, &self.options);
            let last = matched.rows.num_rows().saturating_sub(1);
            alerts.extend(alert.map(|alert| with_subject(alert, &self.options, &matched, last)));
            self.counts.created += 1;
            for update in self.suppression.shrink() {
                tell(&self.specs, update, &self.options, &mut self.counts, &mut alerts);
            }
        } else if let Some(update) = self.suppression.overflow(id) {
            tell(&self.specs, update, &self.options, &mut self.counts, &mut alerts);
        }
        self.loud(alerts)
    }

    fn loud(&self, mut alerts: Vec<Alert>) -> Vec<Alert> {
        alerts.retain(|alert| alert.severity >= self.options.severity_least);
        alerts
    }

    /// The updates that have gathered, oldest first; afterwards nothing is held back.
    pub fn flush(&mut self) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for update in self.suppression.flush() {
            tell(&self.specs, update, &self.options, &mut self.counts, &mut alerts);
        }
        for update in self.suppression.evict() {
            tell(&self.specs, update, &self.options, &mut self.counts, &mut alerts);
        }
        self.loud(alerts)
    }

    /// Open findings and habits as named tables, the findings first. Save after a flush, as what has gathered for updates
    /// is not among them.
    pub fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut tables = self.suppression.save(|detection| self.specs.get(detection).map(|spec| &*spec.id));
        tables.push(self.habits.save());
        tables
    }

    /// Takes back what [`AlertStage::save`] gave, in a stage that has seen nothing yet.
    ///
    /// # Errors
    /// Says which table is not as expected; what is in that one begins anew.
    pub fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let ids: HashMap<&str, usize> = self.specs.iter().enumerate().map(|(index, spec)| (&*spec.id, index)).collect();
        let findings = self.suppression.restore(tables, |id| ids.get(id).copied());
        findings.and(self.habits.restore(tables))
    }

    /// What the stage has done so far.
    pub fn counts(&self) -> AlertCounts {
        AlertCounts {
            evicted: self.suppression.evicted(),
            open: self.suppression.open() as u64,
            exceptions: self.exceptions.counts().to_vec(),
            ..self.counts.clone()
        }
    }
}

/// The alert with the event that raised it, where somebody wants that.
fn with_subject(alert: Alert, options: &AlertOptions, matched: &MatchedRows, row: usize) -> Alert {
    let of_row = || KeptRows {
        rows: matched.rows.slice(row, 1),
        arrival_ms: vec![matched.arrival_ms.get(row).copied().flatten()],
    };
    Alert { subject: options.subjects.then(of_row), ..alert }
}

/// The finding that a match belongs to.
fn place(spec: &AlertSpec, rows: &Rows<'_>, matched: &MatchedRows, found: &Match, habits: &mut Habits) -> Place {
    let row = found.row;
    let event_us = row::event_us(rows, matched, row);
    let request_id = rows.request_id(row);
    let cluster_id = rows.text(Column::ClusterId, row);
    // arrival is no content, so it is no part of an identity
    let request_us =
        rows.time_us(Column::RequestTime, row).or_else(|| rows.time_us(Column::EventTime, row)).unwrap_or_default();
    let (finding, end_us) = match spec.window_us() {
        None => (identity::finding(&spec.id, Scope::Request(request_id)), event_us.max(request_us)),
        Some(length_us) => {
            let start_us = identity::bucket_start(request_us, length_us);
            let entity: Vec<Value> = spec.entity().iter().map(|field| field.value(rows, found)).collect();
            let scope = Scope::Bucket { cluster_id, entity: &entity, start_us, length_us };
            (identity::finding(&spec.id, scope), start_us.saturating_add(length_us))
        }
    };
    let habitual = spec.habit.as_ref().is_some_and(|(fields, rule)| {
        let actor: Vec<Value> = fields.iter().map(|field| field.value(rows, found)).collect();
        habits.see(&spec.id, rule, cluster_id, &actor, request_us)
    });
    Place {
        finding,
        detection: found.detection,
        habitual,
        cluster: identity::cluster(cluster_id),
        end_us,
        related: Related {
            audit_id: row::audit_id(rows, row).into(),
            request: identity::request(request_id),
            event_us,
        },
    }
}

fn create(
    spec: &AlertSpec,
    finding: FindingId,
    related: Related,
    event: Event,
    habitual: bool,
    options: &AlertOptions,
) -> Option<Alert> {
    let event_us = related.event_us;
    let emission = Emission {
        spec,
        finding,
        activity: Activity::Create,
        habitual,
        count: 1,
        created_us: event_us,
        first_us: event_us,
        last_us: event_us,
        related: &[related],
        events: &[event],
    };
    emission::render(&emission, options.evidence_bytes_max)
}

/// The first emission about a finding that has several events from the start.
fn create_whole(
    spec: &AlertSpec,
    finding: FindingId,
    at_us: i64,
    first: (Related, Event, bool),
    rest: Option<Update>,
    options: &AlertOptions,
) -> Option<Alert> {
    let (related, event, habitual) = first;
    let mut last_us = related.event_us;
    let (mut all, mut events) = (vec![related], Vec::new());
    if let Some(update) = rest {
        last_us = last_us.max(update.last_us);
        all.extend(update.related);
        events = update.events;
    }
    events.push(event);
    events.truncate(options.limits.shown_max.max(1));
    let emission = Emission {
        spec,
        finding,
        activity: Activity::Create,
        habitual,
        count: all.len() as u64,
        created_us: at_us,
        first_us: all.iter().map(|one| one.event_us).min().unwrap_or(at_us),
        last_us,
        related: all.get(..options.limits.listed_max).unwrap_or(&all),
        events: &events,
    };
    emission::render(&emission, options.evidence_bytes_max)
}

/// Splits an update into as many emissions as it takes to list every event. All but the last show the newest event
/// only.
fn tell(
    specs: &[AlertSpec],
    update: Update,
    options: &AlertOptions,
    counts: &mut AlertCounts,
    alerts: &mut Vec<Alert>,
) {
    let Some(spec) = specs.get(update.detection) else { return };
    let mut left = update.related.len();
    for related in update.related.chunks(options.limits.listed_max.max(1)) {
        left -= related.len();
        let shown = if left == 0 { update.events.len() } else { 1 };
        let emission = Emission {
            spec,
            finding: update.finding,
            activity: Activity::Update,
            habitual: update.habitual,
            count: update.count - left as u64,
            created_us: update.created_us,
            first_us: update.first_us,
            last_us: update.last_us,
            related,
            events: update.events.get(..shown).unwrap_or(&update.events),
        };
        alerts.extend(emission::render(&emission, options.evidence_bytes_max));
        counts.updated += 1;
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
