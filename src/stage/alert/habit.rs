//! Who does what by habit.
//!
//! Some behaviour is an attack when a stranger shows it and a day's work when its owner does: forwarding a port,
//! listing secrets for a backup. A detection with the key `habit` tells of everybody at its own severity, until the
//! same was seen on an earlier day: by the same actor, or by enough others of the cluster. Then it tells at low
//! severity, and so it does of one more in a crowd, earlier day or not. Nothing is hidden, so that whoever looks still
//! finds it.
//!
//! An earlier day, not an earlier event: what an attacker repeats within hours is no habit. A crowd is told of before it
//! is one.

mod saved;

use std::collections::HashMap;

use serde_json::Value;

use super::identity::{self, FindingId, Scope};

/// What was seen for so long is a habit.
const HABIT_US: i64 = 20 * 3600 * 1_000_000;
/// So many more than make a habit for everybody are a crowd, though they began only now.
const CROWD: usize = 2;
/// Actors remembered, of all detections and clusters; then those not seen for longest are forgotten.
const ACTORS_MAX: usize = 500_000;

/// What a detection calls a habit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HabitRule {
    /// So many others with the habit make it one for everybody; `None`: only one's own counts.
    pub others: Option<usize>,
    /// A habit that was not shown for so long is over.
    pub forget_us: i64,
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    first_us: i64,
    last_us: i64,
}

/// All habits.
#[derive(Debug, Default)]
pub struct Habits {
    /// By detection and cluster, then by actor.
    actors: HashMap<FindingId, HashMap<FindingId, Shown>>,
    count: usize,
}

impl Habits {
    /// Whether it is a habit that an actor does what the detection is about, at this time; notes that it did.
    pub fn see(&mut self, detection: &str, rule: &HabitRule, cluster: Option<&str>, actor: &[Value], us: i64) -> bool {
        let scope = |entity| Scope::Bucket { cluster_id: cluster, entity, start_us: 0, length_us: 0 };
        let place = identity::finding(detection, scope(&[]));
        let own = identity::finding(detection, scope(actor));
        self.shrink(us);
        let actors = self.actors.entry(place).or_default();
        let old = |shown: &Shown| {
            shown.first_us.saturating_add(HABIT_US) <= us && shown.last_us.saturating_add(rule.forget_us) >= us
        };
        let known = actors.get(&own).is_some_and(old);
        let usual = known
            || rule.others.is_some_and(|least| {
                let others = || actors.iter().filter(|(actor, _)| **actor != own).map(|(_, shown)| shown);
                let habits = others().filter(|shown| old(shown)).take(least).count();
                habits >= least || others().take(least + CROWD).count() >= least + CROWD
            });
        let forgotten = |shown: &Shown| shown.last_us.saturating_add(rule.forget_us) < us;
        match actors.get_mut(&own) {
            Some(shown) if !forgotten(shown) => {
                shown.first_us = shown.first_us.min(us);
                shown.last_us = shown.last_us.max(us);
            }
            Some(shown) => *shown = Shown { first_us: us, last_us: us },
            None => {
                actors.insert(own, Shown { first_us: us, last_us: us });
                self.count += 1;
            }
        }
        usual
    }

    /// Makes room, half of it at once, so that this is rare.
    fn shrink(&mut self, now_us: i64) {
        if self.count < ACTORS_MAX {
            return;
        }
        let mut last: Vec<i64> = self.actors.values().flat_map(HashMap::values).map(|shown| shown.last_us).collect();
        let middle = last.len() / 2;
        let oldest = *last.select_nth_unstable(middle).1;
        let oldest = oldest.min(now_us);
        self.actors.values_mut().for_each(|actors| actors.retain(|_, shown| shown.last_us > oldest));
        self.actors.retain(|_, actors| !actors.is_empty());
        self.count = self.actors.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: i64 = 3600 * 1_000_000;

    #[test]
    fn what_was_done_on_an_earlier_day_is_a_habit() {
        let rule = HabitRule { others: None, forget_us: 30 * 24 * HOUR };
        let mut habits = Habits::default();
        let mut see = |who: &str, cluster: &str, hours: i64| {
            habits.see("port-forward", &rule, Some(cluster), &[json!(who)], hours * HOUR)
        };
        assert!(!see("jane", "prod", 0));
        assert!(!see("jane", "prod", 5), "the same day is no habit");
        assert!(see("jane", "prod", 24));
        assert!(!see("jane", "stage", 24), "another cluster");
        assert!(!see("john", "prod", 48), "another actor");
        assert!(!see("jane", "prod", 24 + 31 * 24), "forgotten");
        assert!(see("jane", "prod", 24 + 32 * 24));
    }

    #[test]
    fn enough_others_make_it_usual_for_everybody() {
        let rule = HabitRule { others: Some(2), forget_us: 30 * 24 * HOUR };
        let mut habits = Habits::default();
        let mut see = |who: &str, hours: i64| habits.see("d", &rule, None, &[json!(who)], hours * HOUR);
        assert!(!see("a", 0));
        assert!(!see("b", 1));
        assert!(!see("c", 2), "they only began today");
        assert!(!see("d", 3));
        assert!(see("e", 4), "one more in a crowd");
        assert!(see("f", 30));
    }
}
