//! Habits as a table, so that a restart does not make strangers of everybody.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;

use super::{Habits, Shown};
use crate::stage::alert::identity::FindingId;
use crate::stage::alert::tables::{Columns, id, ids};

const TABLE: &str = "habits";

impl Habits {
    /// All habits, in a fixed order.
    pub fn save(&self) -> (String, RecordBatch) {
        let all =
            self.actors.iter().flat_map(|(place, actors)| actors.iter().map(move |(who, shown)| (place, who, shown)));
        let mut all: Vec<(&FindingId, &FindingId, &Shown)> = all.collect();
        all.sort_unstable_by_key(|(place, who, _)| (**place, **who));
        let table = RecordBatch::try_from_iter([
            ("place", ids(all.iter().map(|(place, _, _)| place.bytes()))),
            ("actor", ids(all.iter().map(|(_, who, _)| who.bytes()))),
            ("first_us", Arc::new(Int64Array::from_iter_values(all.iter().map(|(_, _, shown)| shown.first_us))) as _),
            ("last_us", Arc::new(Int64Array::from_iter_values(all.iter().map(|(_, _, shown)| shown.last_us))) as _),
        ]);
        (TABLE.to_owned(), table.expect("columns of one table have the same length"))
    }

    /// Takes back what [`Habits::save`] gave, in place of what is known.
    ///
    /// # Errors
    /// Says which column is not as expected; nothing is known then.
    pub fn restore(&mut self, tables: &[(String, RecordBatch)]) -> Result<(), String> {
        *self = Habits::default();
        let table = Columns::of(tables, TABLE)?;
        let (places, actors) = (table.ids("place")?, table.ids("actor")?);
        let (first, last) = (table.numbers::<Int64Type>("first_us")?, table.numbers::<Int64Type>("last_us")?);
        let mut all: HashMap<FindingId, HashMap<FindingId, Shown>> = HashMap::new();
        for (row, (first_us, last_us)) in first.values().iter().zip(last.values()).enumerate() {
            let shown = Shown { first_us: *first_us, last_us: *last_us };
            all.entry(FindingId::of(id(places, row))).or_default().insert(FindingId::of(id(actors, row)), shown);
        }
        self.count = all.values().map(HashMap::len).sum();
        self.actors = all;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::HabitRule;
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn a_habit_outlives_a_restart() {
        let rule = HabitRule { others: None, forget_us: 30 * 24 * HOUR_US };
        let see = |habits: &mut Habits, who: &str, hours: i64| {
            habits.see("d", &rule, Some("prod"), &[json!(who)], hours * HOUR_US)
        };
        let mut habits = Habits::default();
        assert!(!see(&mut habits, "jane", 0) && !see(&mut habits, "joe", 1));
        let saved = habits.save();
        let mut restored = Habits::default();
        restored.restore(std::slice::from_ref(&saved)).expect("it was saved so");
        assert_eq!(restored.save(), saved);
        assert!(see(&mut restored, "jane", 30), "known from before the restart");
        assert!(!see(&mut restored, "jim", 30));
        assert!(restored.restore(&[]).is_err());
        assert!(!see(&mut restored, "jane", 60), "nothing is half restored");
    }
}
