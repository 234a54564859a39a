//! What fires as long as it is unusual: a combination that was not seen on earlier days.
//!
//! There is no learning period: on the first day everything is unusual and fires, and what is still done on the next
//! days is usual. Only requests that did something make a combination usual.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::tables::{Reader, Writer};
use super::{Entry, Field, Key, Recall, Size, identity_in, kept_rows};
use crate::detection::UnusualSpec;
use crate::model::Finding;

const DAY_US: i64 = 86_400_000_000;
/// Most combinations that are remembered for one detection in one cluster.
const KEYS_MAX: usize = 1_000_000;

#[derive(Debug, Clone, PartialEq)]
struct Habit {
    /// On how many days before `day` it was seen, since it was last forgotten.
    earlier: i64,
    /// The last day on which it was seen.
    day: i64,
}

/// The memory of an `unusual` detection in one cluster.
#[derive(Debug)]
pub struct Unusual {
    detection: usize,
    cluster_id: Arc<str>,
    of: Vec<Field>,
    days: i64,
    forget_days: i64,
    bucket_us: i64,
    keys_max: usize,
    tidied: i64,
    habits: HashMap<Key, Habit>,
    shed: u64,
}

impl Unusual {
    /// The memory of the detection of this index in its set, empty. Findings about one combination are one as long as
    /// they fall into the same stretch of `suppress_us`; at 0 each request is one.
    pub fn new(spec: &UnusualSpec, detection: usize, cluster_id: Arc<str>, suppress_us: i64) -> Unusual {
        Unusual {
            detection,
            cluster_id,
            of: spec.of.iter().map(|name| Field::new(name)).collect(),
            days: i64::from(spec.days),
            forget_days: spec.forget.us() / DAY_US,
            bucket_us: suppress_us,
            keys_max: KEYS_MAX,
            tidied: i64::MIN,
            habits: HashMap::new(),
            shed: 0,
        }
    }

    fn learn(&mut self, key: Key, day: i64) {
        if self.habits.len() >= self.keys_max && self.tidied < day {
            self.tidied = day;
            let forget_days = self.forget_days;
            self.habits.retain(|_, habit| day - habit.day <= forget_days);
        }
        if self.habits.len() >= self.keys_max && !self.habits.contains_key(&key) {
            self.shed += 1;
            return;
        }
        let habit = self.habits.entry(key).or_insert(Habit { earlier: 0, day });
        if habit.day < day {
            habit.earlier = if day - habit.day > self.forget_days { 0 } else { habit.earlier + 1 };
            habit.day = day;
        }
    }
}

impl Recall for Unusual {
    fn see(&mut self, _step: usize, entry: &Entry, out: &mut Vec<Finding>) {
        let (key, name) = entry.key(&self.of);
        let day = entry.event_us.div_euclid(DAY_US);
        let earlier = self.habits.get(&key).map_or(0, |habit| match day - habit.day {
            0 => habit.earlier,
            away if away > self.forget_days => 0,
            _ => habit.earlier + 1,
        });
        if earlier < self.days {
            out.push(Finding {
                detection: self.detection,
                cluster_id: Arc::clone(&self.cluster_id),
                identity: identity_in(&name, entry, self.bucket_us),
                at_us: entry.event_us,
                computed: vec![("usual".into(), json!(format!("seen on {earlier} earlier days")))],
                evidence: kept_rows(std::slice::from_ref(entry)),
            });
        }
        if entry.succeeded() {
            self.learn(key, day);
        }
    }

    fn save(&self) -> Vec<(String, RecordBatch)> {
        let mut habits: Vec<_> = self.habits.iter().collect();
        habits.sort_by_key(|(key, _)| *key);
        let hex = |key: &Key| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let table = Writer::default()
            .texts("key", habits.iter().map(|(key, _)| hex(key)))
            .ints("earlier", habits.iter().map(|(_, habit)| habit.earlier))
            .ints("day", habits.iter().map(|(_, habit)| habit.day));
        vec![("habits".to_owned(), table.table())]
    }

    fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        self.habits.clear();
        let table = Reader::open(tables, "habits")?;
        let (keys, earlier, days) = (table.texts("key")?, table.ints("earlier")?, table.ints("day")?);
        for ((key, earlier), day) in keys.into_iter().zip(earlier).zip(days) {
            let Ok(key) = u128::from_str_radix(key, 16) else {
                self.habits.clear();
                return Err(format!("table 'habits': '{key}' is no key"));
            };
            self.habits.insert(key.to_be_bytes(), Habit { earlier, day });
        }
        Ok(())
    }

    fn size(&self) -> Size {
        let keys = self.habits.len() as u64;
        Size { rows: 0, keys, bytes: keys * 48, shed: self.shed }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::fixture::{entry, run};
    use super::super::key_of;
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn unusual(days: u32) -> Unusual {
        let text = format!(r#"{{"of": ["user_name"], "days": {days}, "forget": "5d"}}"#);
        let spec: UnusualSpec = serde_json::from_str(&text).expect("well-formed");
        Unusual::new(&spec, 3, "c".into(), DAY_US)
    }

    fn days_told(memory: &mut Unusual, hours: &[(i64, i64)]) -> Vec<i64> {
        let events: Vec<Entry> =
            hours.iter().map(|(hour, code)| entry(hour * HOUR, &[("user_name", "ann")], *code, &[])).collect();
        run(memory, &events).iter().map(|finding| finding.at_us / HOUR).collect()
    }

    #[test]
    fn the_first_days_fire_and_what_goes_on_is_usual() {
        assert_eq!(days_told(&mut unusual(1), &[(1, 200), (5, 200), (25, 200), (49, 200)]), [1, 5]);
        assert_eq!(days_told(&mut unusual(2), &[(1, 200), (25, 200), (49, 200), (73, 200)]), [1, 25]);
    }

    #[test]
    fn refused_requests_fire_but_make_nothing_usual_and_absence_forgets() {
        assert_eq!(days_told(&mut unusual(1), &[(1, 403), (25, 403), (49, 200), (73, 403)]), [1, 25, 49]);
        assert_eq!(days_told(&mut unusual(1), &[(1, 200), (6 * 24, 200), (6 * 24 + 25, 200)]), [1, 144]);
        assert_eq!(days_told(&mut unusual(1), &[(1, 200), (6 * 24 + 1, 200), (7 * 24 + 1, 200)]), [1, 145]);
    }

    #[test]
    fn one_day_of_one_combination_is_one_finding_and_restoring_changes_nothing() {
        let events: Vec<Entry> = (0..90_i64)
            .map(|n| entry(n * 5 * HOUR, &[("user_name", ["ann", "bob", "cem"][(n % 7 % 3) as usize])], 200, &[]))
            .collect();
        let whole = run(&mut unusual(2), &events);
        let mut first = unusual(2);
        let mut parts = run(&mut first, &events[..40]);
        let mut second = unusual(2);
        second.restore(&first.save()).expect("its own tables");
        assert_eq!(second.habits, first.habits);
        parts.extend(run(&mut second, &events[40..]));
        let identities = |found: &[Finding]| found.iter().map(|one| one.identity.clone()).collect::<Vec<_>>();
        assert_eq!(identities(&whole), identities(&parts));
        assert_eq!(whole[0].identity, [Value::from("ann"), Value::from("1970-01-01T00:00:00Z")]);
        assert!(unusual(2).restore(&[]).is_err_and(|error| error.contains("'habits' is missing")));
    }

    #[test]
    fn without_room_it_says_so_and_goes_on() {
        let mut memory = Unusual { keys_max: 1, ..unusual(1) };
        let events: Vec<Entry> =
            ["ann", "bob", "bob"].iter().map(|name| entry(HOUR, &[("user_name", name)], 200, &[])).collect();
        assert_eq!(run(&mut memory, &events).len(), 3);
        assert_eq!(memory.size(), Size { rows: 0, keys: 1, bytes: 48, shed: 2 });
        assert_eq!(key_of(&["ann".into()]), *memory.habits.keys().next().expect("one"));
    }
}
