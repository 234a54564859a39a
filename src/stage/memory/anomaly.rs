//! How surprising an event is for whoever did it, from what it and its peers did on earlier days.
//!
//! A habit is counted in days: of the days on which a key was active at all, on how many did it do this? So a program
//! with a million requests and a person with ten are judged alike. Days fade with a half-life. The probability of a
//! value is estimated along a chain, from all to few: everybody in the cluster, then each group that the key belongs
//! to, the larger first, then the key itself. Each link sees `n` of its `N` days with the value, and believes the link
//! before it as much as so many days more:
//!
//! ```text
//! p = (n + strength · p_before) / (N + strength)
//! ```
//!
//! which is the mean of a Beta distribution, known as Laplace's or Bayesian smoothing with back-off. A feature's
//! surprise is `−log2 p`, in bits, and the score is the sum over features: as if they were independent. So what is new
//! for the key but usual for its peers stays low, and what nobody did is high. An event is judged before it is learnt,
//! and only requests that did something are learnt.

mod population;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use self::population::{Faded, Population};
use super::tables::{float_column, floats, int_column, ints64, named, parsed, table, text_column, texts};
use super::{Entry, Field, Key, Recall, Size, identity_in, kept_rows, key_of, with};
use crate::detection::{AnomalySpec, IDLE};
use crate::model::Finding;

const DAY_US: i64 = 86_400_000_000;
/// What is believed of a value before anything is known.
const PRIOR: f64 = 0.05;
/// How many days of its own outweigh what is believed of its peers.
const OWN_STRENGTH: f64 = 1.0;
/// How many days of a group, or of everybody, outweigh what is believed before them.
const GROUP_STRENGTH: f64 = 2.0;
/// Most groups of one event that are looked at.
const GROUPS_MAX: usize = 16;
/// Most values that are remembered for one detection in one cluster.
pub const VALUES_MAX: u64 = 500_000;
/// Most bytes of a value that are remembered.
const VALUE_BYTES_MAX: usize = 256;
/// Below this many days a habit is forgotten.
const FORGOTTEN: f64 = 0.1;
/// How many usual values an alert names for a feature.
const USUAL_MAX: usize = 3;

#[derive(Debug)]
struct Feature {
    field: Field,
    /// Says nothing while new to everybody.
    place: bool,
    /// Computed here, from the time since the key's last event.
    idle: bool,
}

/// Who did something before, by its key.
#[derive(Debug)]
struct Actor {
    name: Vec<Value>,
    last_us: i64,
    habits: Population,
}

/// Name of a group: which peers column it came from, and its value.
type Group = (usize, Box<str>);

/// A feature of one event and how surprising it is.
#[derive(Debug)]
struct Judged {
    feature: usize,
    value: Box<str>,
    bits: f64,
    own_days: f64,
    peers: f64,
}

/// The memory of an `anomaly` detection in one cluster.
#[derive(Debug)]
pub struct Anomaly {
    detection: usize,
    cluster_id: Arc<str>,
    features: Vec<Feature>,
    per: Vec<Field>,
    peers: Vec<Field>,
    /// Which events are judged.
    when: Option<Field>,
    learn_us: i64,
    threshold: f64,
    cap: f64,
    bucket_us: i64,
    /// What is left of a day after one more.
    fade: f64,
    values_max: u64,
    /// Event time at which the cluster was first heard of.
    born_us: i64,
    tidied: i64,
    known: Known,
    shed: u64,
}

/// All that is remembered.
#[derive(Debug, Default)]
struct Known {
    everybody: Population,
    groups: HashMap<Group, Population>,
    actors: HashMap<Key, Actor>,
    /// How many values all of these have.
    values: u64,
}

impl Anomaly {
    /// The memory of the detection of this index in its set, empty. Findings about one key are one as long as they
    /// fall into the same stretch of `suppress_us`; at 0 each request is one. `born_us` is the event time at which the
    /// cluster was first heard of.
    pub fn new(spec: &AnomalySpec, detection: usize, cluster_id: Arc<str>, born_us: i64, suppress_us: i64) -> Anomaly {
        let feature =
            |name: &String| Feature { field: Field::new(name), place: spec.places.contains(name), idle: name == IDLE };
        let half_life_days = spec.half_life.us() as f64 / DAY_US as f64;
        Anomaly {
            detection,
            cluster_id,
            features: spec.features.iter().map(feature).collect(),
            per: spec.per.iter().map(|name| Field::new(name)).collect(),
            peers: spec.peers.iter().map(|name| Field::new(name)).collect(),
            when: spec.when.as_deref().map(Field::new),
            learn_us: spec.learn.us(),
            threshold: spec.threshold,
            cap: spec.cap.unwrap_or(f64::INFINITY),
            bucket_us: suppress_us,
            fade: (-1.0 / half_life_days).exp2(),
            values_max: VALUES_MAX,
            born_us,
            tidied: i64::MIN,
            known: Known::default(),
            shed: 0,
        }
    }

    /// The values of the features of an event, as they are remembered; `None` does not count.
    fn values_of(&self, entry: &Entry, actor: Option<&Actor>) -> Vec<Option<Box<str>>> {
        let value = |feature: &Feature| {
            if feature.idle {
                return actor.map(|actor| idle(entry.event_us - actor.last_us).into());
            }
            text_of(&entry.value(&feature.field))
        };
        self.features.iter().map(value).collect()
    }

    /// The groups of an event, each once, in the order of the columns.
    fn groups_of(&self, entry: &Entry) -> Vec<Group> {
        let mut groups = Vec::new();
        for (column, field) in self.peers.iter().enumerate() {
            let value = entry.value(field);
            let items = value.as_array().map_or(std::slice::from_ref(&value), Vec::as_slice);
            for name in items.iter().filter_map(text_of) {
                let group = (column, name);
                if groups.len() < GROUPS_MAX && !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
        groups
    }

    fn judge(
        &self,
        values: &[Option<Box<str>>],
        groups: &[Group],
        actor: Option<&Actor>,
        day: i64,
    ) -> (f64, Vec<Judged>) {
        let mut chain: Vec<(f64, &Group, &Population)> = Vec::new();
        for group in groups {
            if let Some(population) = self.known.groups.get(group) {
                chain.push((population.days.at(day, self.fade), group, population));
            }
        }
        chain.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let mut judged = Vec::new();
        for (feature, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let known = self.known.everybody.value(feature, value);
            let new_place = known.is_none_or(|known| known.since + 1 >= day);
            if self.features.get(feature).is_some_and(|feature| feature.place) && new_place {
                continue;
            }
            let mut p = self.known.everybody.smooth(feature, value, day, self.fade, PRIOR, GROUP_STRENGTH);
            for (_, _, population) in &chain {
                p = population.smooth(feature, value, day, self.fade, p, GROUP_STRENGTH);
            }
            let peers = p;
            let mut own_days = 0.0;
            if let Some(actor) = actor {
                p = actor.habits.smooth(feature, value, day, self.fade, p, OWN_STRENGTH);
                own_days = actor.habits.value(feature, value).map_or(0.0, |known| known.at(day, self.fade));
            }
            let bits = (-p.log2()).max(0.0).min(self.cap);
            judged.push(Judged { feature, value: value.clone(), bits, own_days, peers });
        }
        let score = judged.iter().map(|judged| judged.bits).sum();
        (score, judged)
    }

    fn learn(&mut self, values: &[Option<Box<str>>], groups: Vec<Group>, key: Key, name: Vec<Value>, at_us: i64) {
        let (day, fade) = (at_us.div_euclid(DAY_US), self.fade);
        if self.known.values >= self.values_max && self.tidied < day {
            self.tidy(day);
        }
        let fresh = || Actor { name, last_us: at_us, habits: Population::default() };
        let actor = self.known.actors.entry(key).or_insert_with(fresh);
        actor.last_us = at_us;
        if actor.habits.days.amount == 0.0 || actor.habits.days.day != day {
            actor.habits.days.add(day, fade);
            self.known.everybody.days.add(day, fade);
            for group in &groups {
                self.known.groups.entry(group.clone()).or_default().days.add(day, fade);
            }
        }
        for (feature, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let known = actor.habits.value(feature, value);
            if known.is_some_and(|known| known.day == day) {
                continue;
            }
            if known.is_none() && self.known.values >= self.values_max {
                self.shed += 1;
                continue;
            }
            let mut fresh = u64::from(actor.habits.add(feature, value, day, fade));
            fresh += u64::from(self.known.everybody.add(feature, value, day, fade));
            for group in &groups {
                if let Some(population) = self.known.groups.get_mut(group) {
                    fresh += u64::from(population.add(feature, value, day, fade));
                }
            }
            self.known.values += fresh;
        }
    }

    /// Forgets what faded away, at most once a day.
    fn tidy(&mut self, day: i64) {
        let fade = self.fade;
        self.tidied = day;
        self.known.everybody.tidy(day, fade, FORGOTTEN);
        for population in self.known.groups.values_mut() {
            population.tidy(day, fade, FORGOTTEN);
        }
        for actor in self.known.actors.values_mut() {
            actor.habits.tidy(day, fade, FORGOTTEN);
        }
        self.known.groups.retain(|_, population| population.days.at(day, fade) >= FORGOTTEN);
        self.known.actors.retain(|_, actor| actor.habits.days.at(day, fade) >= FORGOTTEN);
        self.known.values = self.known.count();
    }

    /// What an alert says beside the score, the most surprising first.
    fn explain(&self, mut judged: Vec<Judged>, actor: Option<&Actor>, groups: &[Group], day: i64) -> (Value, Value) {
        judged.sort_by(|a, b| b.bits.total_cmp(&a.bits).then_with(|| a.feature.cmp(&b.feature)));
        let own = actor.map_or(0.0, |actor| actor.habits.days.at(day, self.fade));
        let mut reasons = Vec::new();
        let mut usual = Vec::new();
        for one in judged {
            let Some(feature) = self.features.get(one.feature) else { continue };
            let name = &feature.field.name;
            reasons.push(format!(
                "{name} '{}': {:.1} bits, on {:.1} of its own {own:.1} days and {} of its peers' days",
                one.value,
                one.bits,
                one.own_days,
                percent(one.peers),
            ));
            let habits = actor.map(|actor| &actor.habits).filter(|habits| habits.days.amount > 0.0);
            let mut known =
                habits.map(|habits| habits.usual(one.feature, day, self.fade, USUAL_MAX)).unwrap_or_default();
            let mut whose = "own";
            if known.is_empty() {
                let smallest = groups.iter().filter_map(|group| self.known.groups.get(group));
                let smallest = smallest.min_by(|a, b| a.days.at(day, self.fade).total_cmp(&b.days.at(day, self.fade)));
                let peers = smallest.unwrap_or(&self.known.everybody);
                (known, whose) = (peers.usual(one.feature, day, self.fade, USUAL_MAX), "peers'");
            }
            usual.push(format!(
                "{whose} {name}: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ));
        }
        (reasons.into(), usual.into())
    }
}

impl Known {
    fn count(&self) -> u64 {
        let groups: u64 = self.groups.values().map(Population::len).sum();
        let actors: u64 = self.actors.values().map(|actor| actor.habits.len()).sum();
        self.everybody.len() + groups + actors
    }

    /// Kind, name, time of the last event and habits of everything remembered, in an order of its own.
    fn populations(&self) -> Vec<(&'static str, String, i64, &Population)> {
        let mut all = vec![("all", "[]".to_owned(), 0, &self.everybody)];
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(group, _)| *group);
        for ((column, name), population) in groups {
            all.push(("group", json!([column, name]).to_string(), 0, population));
        }
        let mut actors: Vec<_> = self.actors.iter().collect();
        actors.sort_by_key(|(key, _)| *key);
        for (_, actor) in actors {
            all.push(("actor", json!(actor.name).to_string(), actor.last_us, &actor.habits));
        }
        all
    }

    fn population(&mut self, kind: &str, name: &str, last_us: i64) -> Result<&mut Population, String> {
        match kind {
            "all" => Ok(&mut self.everybody),
            "group" => Ok(self.groups.entry(parsed(name)?).or_default()),
            _ => {
                let name: Vec<Value> = parsed(name)?;
                let key = key_of(&name);
                let fresh = || Actor { name, last_us, habits: Population::default() };
                Ok(&mut self.actors.entry(key).or_insert_with(fresh).habits)
            }
        }
    }

    fn read(tables: &[(String, RecordBatch)], features: usize) -> Result<Known, String> {
        let mut known = Known::default();
        let populations = named(tables, "populations")?;
        let (kinds, names) = (texts(populations, "kind")?, texts(populations, "name")?);
        let (amounts, days) = (floats(populations, "amount")?, ints64(populations, "day")?);
        let (sinces, lasts) = (ints64(populations, "since")?, ints64(populations, "last_us")?);
        for row in 0..populations.num_rows() {
            let days = Faded { amount: amounts[row], day: days[row], since: sinces[row] };
            known.population(&kinds[row], &names[row], lasts[row])?.days = days;
        }
        let values = named(tables, "values")?;
        let (owners, places) = (ints64(values, "population")?, ints64(values, "feature")?);
        let (names_of, amounts) = (texts(values, "value")?, floats(values, "amount")?);
        let (days, sinces) = (ints64(values, "day")?, ints64(values, "since")?);
        for row in 0..values.num_rows() {
            let owner = usize::try_from(owners[row]).ok().filter(|owner| *owner < kinds.len());
            let feature = usize::try_from(places[row]).ok().filter(|feature| *feature < features);
            let (Some(owner), Some(feature)) = (owner, feature) else {
                return Err(format!("table values: row {row} belongs to nothing"));
            };
            let days = Faded { amount: amounts[row], day: days[row], since: sinces[row] };
            known.population(&kinds[owner], &names[owner], lasts[owner])?.put(feature, &names_of[row], days);
        }
        known.values = known.count();
        Ok(known)
    }
}

impl Recall for Anomaly {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let (key, name) = entry.key(&self.per);
        let actor = self.known.actors.get(&key);
        let values = self.values_of(entry, actor);
        let groups = self.groups_of(entry);
        let day = entry.event_us.div_euclid(DAY_US);
        let watched = self.when.as_ref().is_none_or(|when| entry.value(when) == Value::Bool(true));
        if watched && entry.event_us - self.born_us >= self.learn_us && values.iter().any(Option::is_some) {
            let (score, judged) = self.judge(&values, &groups, actor, day);
            if score >= self.threshold {
                let (reasons, usual) = self.explain(judged, actor, &groups, day);
                out.push(Finding {
                    detection: self.detection,
                    cluster_id: Arc::clone(&self.cluster_id),
                    identity: identity_in(&name, entry, self.bucket_us),
                    at_us: entry.event_us,
                    computed: with(entry, [("score", rounded(score)), ("reasons", reasons), ("usual", usual)]),
                    evidence: kept_rows(std::slice::from_ref(entry)),
                });
            }
        }
        if entry.succeeded() {
            self.learn(&values, groups, key, name, entry.event_us);
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let all = self.known.populations();
        let values: Vec<_> = all
            .iter()
            .enumerate()
            .flat_map(|(owner, (_, _, _, population))| {
                population
                    .values()
                    .into_iter()
                    .map(move |(feature, value, known)| (owner as i64, feature as i64, value, known))
            })
            .collect();
        let populations = table(vec![
            ("kind", text_column(all.iter().map(|one| one.0))),
            ("name", text_column(all.iter().map(|one| &one.1))),
            ("last_us", int_column(all.iter().map(|one| one.2))),
            ("amount", float_column(all.iter().map(|one| one.3.days.amount))),
            ("day", int_column(all.iter().map(|one| one.3.days.day))),
            ("since", int_column(all.iter().map(|one| one.3.days.since))),
        ]);
        let values = table(vec![
            ("population", int_column(values.iter().map(|one| one.0))),
            ("feature", int_column(values.iter().map(|one| one.1))),
            ("value", text_column(values.iter().map(|one| one.2))),
            ("amount", float_column(values.iter().map(|one| one.3.amount))),
            ("day", int_column(values.iter().map(|one| one.3.day))),
            ("since", int_column(values.iter().map(|one| one.3.since))),
        ]);
        vec![("populations".to_owned(), populations), ("values".to_owned(), values)]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        self.known = Known::read(tables, self.features.len())?;
        Ok(())
    }

    fn size(&self) -> Size {
        // A value is a short text and three numbers in a hash table.
        let bytes = self.known.values * 96 + self.known.actors.len() as u64 * 256;
        Size { rows: 0, keys: self.known.actors.len() as u64, bytes, shed: self.shed }
    }
}

/// A value as it is remembered; null does not count.
fn text_of(value: &Value) -> Option<Box<str>> {
    let mut text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut end = text.len().min(VALUE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    Some(text.into())
}

/// How long a key was away, roughly.
fn idle(us: i64) -> &'static str {
    match us.div_euclid(DAY_US) {
        ..1 => "under a day",
        1..7 => "days",
        7..30 => "a week or more",
        _ => "a month or more",
    }
}

fn percent(p: f64) -> String {
    match p * 100.0 {
        percent if percent < 0.1 => "under 0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

/// A number with one digit after the point.
pub(super) fn rounded(number: f64) -> Value {
    json!((number * 10.0).round() / 10.0)
}
