//! Open findings as tables, so that a restart goes on with them: the next event of one adds to it instead of opening it
//! again.
//!
//! Three tables: `findings`, in order of the ends of their buckets; `requests`, each with the row of its finding;
//! `clusters` with their newest event times. Detections stand by id, as their numbers change with the set. What has
//! gathered for an update is not kept: save after a flush.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Int64Type, UInt32Type, UInt64Type};

use super::{Finding, Suppression};
use crate::stage::alert::identity::{FindingId, RequestId};
use crate::stage::alert::tables::{Columns, id, ids};

impl Suppression {
    /// What is remembered, as named tables. `name` is the id of a detection.
    pub fn save<'a>(&self, name: impl Fn(usize) -> Option<&'a str>) -> Vec<(String, RecordBatch)> {
        let open: Vec<(i64, FindingId, &Finding, &str)> = self
            .by_end
            .iter()
            .filter_map(|(end_us, id)| {
                let finding = self.open.get(id)?;
                Some((*end_us, *id, finding, name(finding.detection)?))
            })
            .collect();
        let ints = |value: &dyn Fn(&Finding) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(open.iter().map(|(_, _, finding, _)| value(finding))))
        };
        let findings: Vec<(&str, ArrayRef)> = vec![
            ("finding", ids(open.iter().map(|(_, id, _, _)| id.bytes()))),
            ("detection", Arc::new(StringArray::from_iter_values(open.iter().map(|(_, _, _, name)| name)))),
            (
                "habitual",
                Arc::new(open.iter().map(|(_, _, finding, _)| Some(finding.habitual)).collect::<BooleanArray>()),
            ),
            ("cluster", Arc::new(UInt64Array::from_iter_values(open.iter().map(|(_, _, finding, _)| finding.cluster)))),
            ("end_us", Arc::new(Int64Array::from_iter_values(open.iter().map(|(end_us, ..)| *end_us)))),
            ("created_us", ints(&|finding| finding.created_us)),
            ("first_us", ints(&|finding| finding.first_us)),
            ("last_us", ints(&|finding| finding.last_us)),
            ("count", Arc::new(UInt64Array::from_iter_values(open.iter().map(|(_, _, finding, _)| finding.count)))),
            ("opened_by", ids(open.iter().map(|(_, _, finding, _)| finding.opened_by.to_le_bytes()))),
        ];
        let requests: Vec<(u32, RequestId)> = (0..)
            .zip(&open)
            .flat_map(|(row, (_, _, finding, _))| {
                // In a fixed order, so that what did not change gives the same bytes.
                let mut requests: Vec<RequestId> = finding.requests.iter().copied().collect();
                requests.sort_unstable();
                requests.into_iter().map(move |request| (row, request))
            })
            .collect();
        let requests: Vec<(&str, ArrayRef)> = vec![
            ("row", Arc::new(UInt32Array::from_iter_values(requests.iter().map(|(row, _)| *row)))),
            ("request", ids(requests.iter().map(|(_, request)| request.to_le_bytes()))),
        ];
        let newest: BTreeMap<u64, i64> = self.newest.iter().map(|(cluster, newest)| (*cluster, *newest)).collect();
        let clusters: Vec<(&str, ArrayRef)> = vec![
            ("cluster", Arc::new(UInt64Array::from_iter_values(newest.keys().copied()))),
            ("newest_us", Arc::new(Int64Array::from_iter_values(newest.values().copied()))),
        ];
        [("findings", findings), ("requests", requests), ("clusters", clusters)]
            .map(|(name, columns)| {
                let table = RecordBatch::try_from_iter(columns).expect("columns of one table have the same length");
                (name.to_owned(), table)
            })
            .into()
    }

    /// Takes back what [`Suppression::save`] gave, in place of what is remembered. Findings of detections that are not
    /// there any more (`index` knows no number) are forgotten.
    ///
    /// # Errors
    /// Says which table or column is not as expected; nothing is remembered then.
    pub fn restore(
        &mut self,
        tables: &[(String, RecordBatch)],
        index: impl Fn(&str) -> Option<usize>,
    ) -> Result<(), String> {
        *self = Suppression::new(self.limits.clone());
        let restored = read(tables, index);
        let (findings, newest) = restored?;
        self.newest = newest;
        for (end_us, id, finding) in findings {
            self.requests += finding.requests.len();
            self.by_end.insert((end_us, id));
            self.open.insert(id, finding);
        }
        Ok(())
    }
}

type Restored = (Vec<(i64, FindingId, Finding)>, HashMap<u64, i64>);

fn read(tables: &[(String, RecordBatch)], index: impl Fn(&str) -> Option<usize>) -> Result<Restored, String> {
    let findings = Columns::of(tables, "findings")?;
    let detections = findings.column("detection")?;
    let detections = detections.as_string_opt::<i32>().ok_or("findings.detection is no text")?;
    let habitual = findings.column("habitual")?.as_boolean_opt().ok_or("findings.habitual is no boolean")?;
    let (ids, opened_by) = (findings.ids("finding")?, findings.ids("opened_by")?);
    let ints = |name| findings.numbers::<Int64Type>(name);
    let (end, created, first, last) = (ints("end_us")?, ints("created_us")?, ints("first_us")?, ints("last_us")?);
    let (clusters, counts) = (findings.numbers::<UInt64Type>("cluster")?, findings.numbers::<UInt64Type>("count")?);
    let mut requests = requests_of(tables)?;
    let mut found = Vec::with_capacity(ids.len());
    for row in 0..ids.len() {
        let Some(detection) = index(detections.value(row)) else { continue };
        let finding = Finding {
            detection,
            habitual: habitual.value(row),
            cluster: clusters.value(row),
            created_us: created.value(row),
            first_us: first.value(row),
            last_us: last.value(row),
            count: counts.value(row),
            opened_by: RequestId::from_le_bytes(id(opened_by, row)),
            requests: requests.remove(&row).unwrap_or_default(),
            pending: None,
        };
        found.push((end.value(row), FindingId::of(id(ids, row)), finding));
    }
    let clusters = Columns::of(tables, "clusters")?;
    let (names, newest) = (clusters.numbers::<UInt64Type>("cluster")?, clusters.numbers::<Int64Type>("newest_us")?);
    Ok((found, names.values().iter().copied().zip(newest.values().iter().copied()).collect()))
}

/// Requests by the row of their finding.
fn requests_of(tables: &[(String, RecordBatch)]) -> Result<HashMap<usize, HashSet<RequestId>>, String> {
    let requests = Columns::of(tables, "requests")?;
    let (rows, ids) = (requests.numbers::<UInt32Type>("row")?, requests.ids("request")?);
    let mut found: HashMap<usize, HashSet<RequestId>> = HashMap::new();
    for (place, row) in rows.values().iter().enumerate() {
        found.entry(*row as usize).or_default().insert(RequestId::from_le_bytes(id(ids, place)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Place, Related, Seen};
    use super::*;
    use crate::stage::alert::identity;

    const HOUR_US: i64 = 3_600_000_000;
    const NAMES: [&str; 2] = ["a", "b"];

    fn place(name: &str, detection: usize, request: u8, event_us: i64) -> Place {
        Place {
            finding: identity::finding(name, identity::Scope::Request(name)),
            detection,
            habitual: detection == 1,
            cluster: 7,
            end_us: HOUR_US,
            related: Related { audit_id: "id".into(), request: u128::from(request), event_us },
        }
    }

    fn name(detection: usize) -> Option<&'static str> {
        NAMES.get(detection).copied()
    }

    /// Two findings, one of them with further requests.
    fn filled() -> Suppression {
        let mut suppression = Suppression::new(Limits::default());
        assert_eq!(suppression.see(place("x", 0, 1, 100)), Seen::First);
        assert_eq!(suppression.see(place("y", 1, 2, 50)), Seen::First);
        for request in 3..=9 {
            let seen = suppression.see(place("x", 0, request, 100 + i64::from(request)));
            assert!(matches!(seen, Seen::Further { .. }));
        }
        assert_eq!(suppression.flush().len(), 1);
        suppression
    }

    fn restored(tables: &[(String, RecordBatch)], names: &'static [&'static str]) -> Suppression {
        let mut suppression = Suppression::new(Limits::default());
        let index = |name: &str| names.iter().position(|known| *known == name);
        suppression.restore(tables, index).expect("it was saved so");
        suppression
    }

    #[test]
    fn a_finding_goes_on_where_it_was() {
        let mut suppression = restored(&filled().save(name), &NAMES);
        assert_eq!(suppression.open(), 2);
        assert_eq!(suppression.see(place("x", 0, 1, 100)), Seen::Duplicate, "the request that opened it");
        assert_eq!(suppression.see(place("x", 0, 5, 105)), Seen::Duplicate, "a further request");
        assert!(matches!(suppression.see(place("x", 0, 20, 900)), Seen::Further { .. }));
        let update = suppression.flush().remove(0);
        assert_eq!((update.count, update.created_us, update.first_us, update.last_us), (9, 100, 100, 900));
        assert_eq!(suppression.see(place("z", 0, 30, 100)), Seen::First);
    }

    #[test]
    fn what_is_saved_again_is_the_same_to_the_last_row() {
        let tables = filled().save(name);
        assert_eq!(restored(&tables, &NAMES).save(name), tables);
        assert_eq!(filled().save(name), tables, "in a fixed order");
        let empty = Suppression::new(Limits::default()).save(name);
        assert_eq!(restored(&empty, &NAMES).save(name), empty);
    }

    #[test]
    fn detections_are_found_by_id_though_their_numbers_change() {
        let tables = filled().save(name);
        let mut suppression = restored(&tables, &["new", "b"]);
        assert_eq!(suppression.open(), 1, "findings of a detection that is gone are forgotten");
        assert!(matches!(suppression.see(place("y", 1, 40, 60)), Seen::Further { .. }));
        let update = suppression.flush().remove(0);
        assert_eq!((update.detection, update.habitual), (1, true));
        let mut moved = restored(&tables, &["b", "new", "a"]);
        moved.see(place("x", 2, 40, 60));
        assert_eq!(moved.flush().remove(0).detection, 2);
    }

    #[test]
    fn bounds_and_grace_hold_for_what_was_restored() {
        let mut suppression = restored(&filled().save(name), &NAMES);
        suppression.see(place("late", 0, 50, 100 * HOUR_US));
        suppression.evict();
        assert_eq!((suppression.open(), suppression.evicted()), (0, 3));
        assert_eq!(suppression.requests, 0);
    }

    #[test]
    fn tables_that_are_not_as_saved_are_told_and_nothing_is_half_restored() {
        let good = filled().save(name);
        for (at, table) in ["findings", "requests", "clusters"].into_iter().enumerate() {
            let mut missing = good.clone();
            missing.remove(at);
            let mut wrong = good.clone();
            wrong[at].1 =
                RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as _)]).expect("a table");
            for tables in [missing, wrong] {
                let mut suppression = filled();
                let error = suppression.restore(&tables, |_| Some(0)).expect_err("not as saved");
                assert!(error.contains(table), "{error}");
                assert_eq!(suppression.open(), 0);
            }
        }
    }
}
