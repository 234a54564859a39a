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
use super::tables::{Reader, Writer};
use super::{Entry, Field, Key, Recall, Size, identity_in, kept_rows};
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
const VALUES_MAX: u64 = 500_000;
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
    learn_us: i64,
    threshold: f64,
    cap: f64,
    bucket_us: i64,
    /// What is left of a day after one more.
    fade: f64,
    values_max: u64,
    first_us: Option<i64>,
    tidied: i64,
    everybody: Population,
    groups: HashMap<Group, Population>,
    actors: HashMap<Key, Actor>,
    values: u64,
    shed: u64,
}

impl Anomaly {
    /// The memory of the detection of this index in its set, empty. Findings about one key are one as long as they
    /// fall into the same stretch of `suppress_us`; at 0 each request is one.
    pub fn new(spec: &AnomalySpec, detection: usize, cluster_id: Arc<str>, suppress_us: i64) -> Anomaly {
        let feature =
            |name: &String| Feature { field: Field::new(name), place: spec.places.contains(name), idle: name == IDLE };
        let half_life_days = spec.half_life.us() as f64 / DAY_US as f64;
        Anomaly {
            detection,
            cluster_id,
            features: spec.features.iter().map(feature).collect(),
            per: spec.per.iter().map(|name| Field::new(name)).collect(),
            peers: spec.peers.iter().map(|name| Field::new(name)).collect(),
            learn_us: spec.learn.us(),
            threshold: spec.threshold,
            cap: spec.cap.unwrap_or(f64::INFINITY),
            bucket_us: suppress_us,
            fade: (-1.0 / half_life_days).exp2(),
            values_max: VALUES_MAX,
            first_us: None,
            tidied: i64::MIN,
            everybody: Population::default(),
            groups: HashMap::new(),
            actors: HashMap::new(),
            values: 0,
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
            if let Some(population) = self.groups.get(group) {
                chain.push((population.days.at(day, self.fade), group, population));
            }
        }
        chain.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let mut judged = Vec::new();
        for (feature, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let known = self.everybody.value(feature, value);
            let new_place = known.is_none_or(|known| known.since + 1 >= day);
            if self.features.get(feature).is_some_and(|feature| feature.place) && new_place {
                continue;
            }
            let mut p = self.everybody.smooth(feature, value, day, self.fade, PRIOR, GROUP_STRENGTH);
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
        if self.values >= self.values_max && self.tidied < day {
            self.tidy(day);
        }
        let fresh = || Actor { name, last_us: at_us, habits: Population::default() };
        let actor = self.actors.entry(key).or_insert_with(fresh);
        actor.last_us = at_us;
        if actor.habits.days.amount == 0.0 || actor.habits.days.day != day {
            actor.habits.days.add(day, fade);
            self.everybody.days.add(day, fade);
            for group in &groups {
                self.groups.entry(group.clone()).or_default().days.add(day, fade);
            }
        }
        for (feature, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let known = actor.habits.value(feature, value);
            if known.is_some_and(|known| known.day == day) {
                continue;
            }
            if known.is_none() && self.values >= self.values_max {
                self.shed += 1;
                continue;
            }
            let mut fresh = u64::from(actor.habits.add(feature, value, day, fade));
            fresh += u64::from(self.everybody.add(feature, value, day, fade));
            for group in &groups {
                if let Some(population) = self.groups.get_mut(group) {
                    fresh += u64::from(population.add(feature, value, day, fade));
                }
            }
            self.values += fresh;
        }
    }

    /// Forgets what faded away, at most once a day.
    fn tidy(&mut self, day: i64) {
        let fade = self.fade;
        self.tidied = day;
        self.everybody.tidy(day, fade, FORGOTTEN);
        for population in self.groups.values_mut() {
            population.tidy(day, fade, FORGOTTEN);
        }
        for actor in self.actors.values_mut() {
            actor.habits.tidy(day, fade, FORGOTTEN);
        }
        self.groups.retain(|_, population| population.days.at(day, fade) >= FORGOTTEN);
        self.actors.retain(|_, actor| actor.habits.days.at(day, fade) >= FORGOTTEN);
        self.values = self.count();
    }

    fn count(&self) -> u64 {
        let groups: u64 = self.groups.values().map(Population::len).sum();
        let actors: u64 = self.actors.values().map(|actor| actor.habits.len()).sum();
        self.everybody.len() + groups + actors
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
                let smallest = groups.iter().filter_map(|group| self.groups.get(group));
                let smallest = smallest.min_by(|a, b| a.days.at(day, self.fade).total_cmp(&b.days.at(day, self.fade)));
                let peers = smallest.unwrap_or(&self.everybody);
                (known, whose) = (peers.usual(one.feature, day, self.fade, USUAL_MAX), "peers'");
            }
            usual.push(format!(
                "{whose} {name}: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ));
        }
        (reasons.into(), usual.into())
    }

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

    fn put_population(&mut self, kind: &str, name: &str, last_us: i64) -> Result<&mut Population, String> {
        let wrong = || format!("table 'populations': '{name}' is no name");
        match kind {
            "all" => Ok(&mut self.everybody),
            "group" => {
                let (column, name): (usize, Box<str>) = serde_json::from_str(name).map_err(|_| wrong())?;
                Ok(self.groups.entry((column, name)).or_default())
            }
            _ => {
                let name: Vec<Value> = serde_json::from_str(name).map_err(|_| wrong())?;
                let fresh = || Actor { name: name.clone(), last_us, habits: Population::default() };
                Ok(&mut self.actors.entry(super::key_of(&name)).or_insert_with(fresh).habits)
            }
        }
    }

    fn put_back(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        let clock = Reader::open(tables, "clock")?;
        self.first_us = clock.ints("first_us")?.first().copied();
        let populations = Reader::open(tables, "populations")?;
        let (kinds, names) = (populations.texts("kind")?, populations.texts("name")?);
        let (amounts, days) = (populations.floats("amount")?, populations.ints("day")?);
        let (sinces, lasts) = (populations.ints("since")?, populations.ints("last_us")?);
        for row in 0..populations.rows() {
            let days = Faded { amount: amounts[row], day: days[row], since: sinces[row] };
            self.put_population(kinds[row], names[row], lasts[row])?.days = days;
        }
        let values = Reader::open(tables, "values")?;
        let (owners, features) = (values.ints("population")?, values.ints("feature")?);
        let (texts, amounts) = (values.texts("value")?, values.floats("amount")?);
        let (days, sinces) = (values.ints("day")?, values.ints("since")?);
        for row in 0..values.rows() {
            let owner = usize::try_from(owners[row]).ok().filter(|owner| *owner < kinds.len());
            let feature = usize::try_from(features[row]).ok().filter(|feature| *feature < self.features.len());
            let (Some(owner), Some(feature)) = (owner, feature) else {
                return Err(format!("table 'values': row {row} belongs to nothing"));
            };
            let known = Faded { amount: amounts[row], day: days[row], since: sinces[row] };
            self.put_population(kinds[owner], names[owner], lasts[owner])?.put(feature, texts[row], known);
        }
        self.values = self.count();
        Ok(())
    }

    fn empty(&mut self) {
        self.first_us = None;
        self.everybody = Population::default();
        self.groups.clear();
        self.actors.clear();
        self.values = 0;
    }
}

impl Recall for Anomaly {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let first_us = *self.first_us.get_or_insert(entry.event_us);
        let (key, name) = entry.key(&self.per);
        let actor = self.actors.get(&key);
        let values = self.values_of(entry, actor);
        let groups = self.groups_of(entry);
        let day = entry.event_us.div_euclid(DAY_US);
        if entry.event_us - first_us >= self.learn_us && values.iter().any(Option::is_some) {
            let (score, judged) = self.judge(&values, &groups, actor, day);
            if score >= self.threshold {
                let (reasons, usual) = self.explain(judged, actor, &groups, day);
                out.push(Finding {
                    detection: self.detection,
                    cluster_id: Arc::clone(&self.cluster_id),
                    identity: identity_in(&name, entry, self.bucket_us),
                    at_us: entry.event_us,
                    computed: vec![
                        ("score".into(), rounded(score)),
                        ("reasons".into(), reasons),
                        ("usual".into(), usual),
                    ],
                    evidence: kept_rows(std::slice::from_ref(entry)),
                });
            }
        }
        if entry.succeeded() {
            self.learn(&values, groups, key, name, entry.event_us);
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let all = self.populations();
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
        let populations = Writer::default()
            .texts("kind", all.iter().map(|one| one.0))
            .texts("name", all.iter().map(|one| &one.1))
            .ints("last_us", all.iter().map(|one| one.2))
            .floats("amount", all.iter().map(|one| one.3.days.amount))
            .ints("day", all.iter().map(|one| one.3.days.day))
            .ints("since", all.iter().map(|one| one.3.days.since));
        let values = Writer::default()
            .ints("population", values.iter().map(|one| one.0))
            .ints("feature", values.iter().map(|one| one.1))
            .texts("value", values.iter().map(|one| one.2))
            .floats("amount", values.iter().map(|one| one.3.amount))
            .ints("day", values.iter().map(|one| one.3.day))
            .ints("since", values.iter().map(|one| one.3.since));
        vec![
            ("clock".to_owned(), Writer::default().ints("first_us", self.first_us).table()),
            ("populations".to_owned(), populations.table()),
            ("values".to_owned(), values.table()),
        ]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        self.empty();
        let done = self.put_back(tables);
        if done.is_err() {
            self.empty();
        }
        done
    }

    fn size(&self) -> Size {
        // A value is a short text and three numbers in a hash table.
        let bytes = self.values * 96 + self.actors.len() as u64 * 256;
        Size { rows: 0, keys: self.actors.len() as u64, bytes, shed: self.shed }
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
