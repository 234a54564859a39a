//! The queries of detections that are possible for each row, by signature: see [`super::recall`].

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, AsArray, Int32Array, UInt32Array};
use arrow::datatypes::Int32Type;
use datafusion::scalar::ScalarValue;

use super::bits::Bits;
use super::conjunct::{Answers, REQUEST, Tier};
use super::possible::Known;
use super::recall::{Groups, Recall, Remembered, Verdict};
use super::table::Table;
use super::{Bucket, Evaluator};
use crate::model::{Column, ColumnSet, EventBatch, FORETOLD, plain_rows};

/// A condition that failed, or panicked, on some signature.
struct Failed {
    condition: usize,
}

impl Evaluator {
    /// By query: the rows that pass its conditions over signatures, and whose bodies can be what it wants.
    pub(super) fn possible(&self, batch: &EventBatch, recall: &mut Recall) -> Vec<Vec<u32>> {
        let (rows, verdicts) = loop {
            // Each time round one condition fewer is asked about signatures.
            match self.verdicts(batch, recall) {
                Ok(verdicts) => break verdicts,
                Err(failed) => recall.distrust(failed.condition),
            }
        };
        let mut alive = vec![Vec::new(); self.conjuncts.len()];
        for (row, verdict) in rows.iter().zip(verdicts) {
            recall.list(verdict.list).iter().for_each(|probe| alive[*probe as usize].push(*row));
        }
        alive
    }

    /// The rows for which some query is possible, and what their signatures say.
    fn verdicts(&self, batch: &EventBatch, recall: &mut Recall) -> Result<(Vec<u32>, Vec<Verdict>), Failed> {
        let rows: Vec<u32> = (0..batch.rows.len() as u32).collect();
        let verdicts = self.requests(batch, &rows, recall)?;
        let open = |verdict: &Verdict| !recall.list(verdict.list).is_empty();
        let (rows, verdicts): (Vec<u32>, Vec<Verdict>) =
            rows.into_iter().zip(verdicts).filter(|(_, verdict)| open(verdict)).unzip();
        if self.actor_columns.is_empty() || rows.is_empty() {
            return Ok((rows, verdicts));
        }
        let verdicts = self.actors(batch, &rows, &verdicts, recall)?;
        Ok((rows, verdicts))
    }

    /// What the kind of request says about each row.
    fn requests(&self, batch: &EventBatch, rows: &[u32], recall: &mut Recall) -> Result<Vec<Verdict>, Failed> {
        let shapes = match &batch.late {
            Some(late) => late.shapes.iter().map(|shape| u64::from(*shape)).collect(),
            None => vec![0; rows.len()],
        };
        let groups = Groups::of(batch, &self.request_columns, rows, shapes);
        let fillable = |row: usize| match &batch.late {
            Some(late) => late.fillable[late.shapes[row] as usize],
            None => ColumnSet::all(),
        };
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(groups.first.len());
        let mut unknown: Vec<(usize, u32, Box<[u8]>)> = Vec::new();
        let mut key = Vec::new();
        for (group, first) in groups.first.iter().enumerate() {
            key.clear();
            key.extend_from_slice(&fillable(*first as usize).bits().to_le_bytes());
            groups.spell(*first as usize, &mut key);
            let known = recall.requests.get(&key);
            if known.is_none() {
                unknown.push((group, *first, key.as_slice().into()));
            }
            verdicts.push(known);
        }
        if !unknown.is_empty() {
            let table = Table::of(batch, unknown.iter().map(|(_, row, _)| *row).collect());
            let foretold = self.need.late.union(FORETOLD.into_iter().collect());
            let null: Vec<ColumnSet> =
                unknown.iter().map(|(_, row, _)| foretold.without(fillable(*row as usize))).collect();
            let (distrusted, remembered) = (&recall.distrusted, &mut recall.remembered);
            let lists = self.possible_requests(&table, &null, distrusted, remembered)?;
            for ((group, _, key), list) in unknown.into_iter().zip(lists) {
                let list = recall.number(&list);
                verdicts[group] = Some(recall.requests.put(key, list));
            }
        }
        Ok(spread(&groups, &verdicts))
    }

    /// What the actors say about rows whose requests are known.
    fn actors(
        &self,
        batch: &EventBatch,
        rows: &[u32],
        requests: &[Verdict],
        recall: &mut Recall,
    ) -> Result<Vec<Verdict>, Failed> {
        let numbers = requests.iter().map(|verdict| u64::from(verdict.signature)).collect();
        let groups = Groups::of(batch, &self.actor_columns, rows, numbers);
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(groups.first.len());
        let mut unknown: Vec<(usize, usize, Box<[u8]>)> = Vec::new();
        let mut key = Vec::new();
        for (group, first) in groups.first.iter().enumerate() {
            let first = *first as usize;
            key.clear();
            key.extend_from_slice(&requests[first].signature.to_le_bytes());
            groups.spell(rows[first] as usize, &mut key);
            let known = recall.actors.get(&key);
            if known.is_none() {
                unknown.push((group, first, key.as_slice().into()));
            }
            verdicts.push(known);
        }
        if !unknown.is_empty() {
            let table = Table::of(batch, unknown.iter().map(|(_, first, _)| rows[*first]).collect());
            let mut members: Vec<Option<Bits>> = vec![None; self.conjuncts.len()];
            for (place, (_, first, _)) in unknown.iter().enumerate() {
                for probe in recall.list(requests[*first].list).iter() {
                    let bits = &mut members[*probe as usize];
                    bits.get_or_insert_with(|| Bits::none(table.len())).insert(place);
                }
            }
            let members = members.into_iter().enumerate().filter_map(|(probe, bits)| Some((probe, bits?)));
            let (distrusted, remembered) = (&recall.distrusted, &mut recall.remembered);
            let lists = self.lists(Tier::Actor, &table, members, distrusted, remembered)?;
            for ((group, _, key), list) in unknown.into_iter().zip(lists) {
                let list = recall.number(&list);
                verdicts[group] = Some(recall.actors.put(key, list));
            }
        }
        Ok(spread(&groups, &verdicts))
    }

    /// By row of the table: the queries that its kind of request leaves possible. `null` are the columns that are
    /// foretold to be null.
    fn possible_requests(
        &self,
        table: &Table<'_>,
        null: &[ColumnSet],
        distrusted: &[bool],
        remembered: &mut Remembered,
    ) -> Result<Vec<Vec<u32>>, Failed> {
        let routes = Routes::of(table);
        let mut members = Vec::new();
        for bucket in &self.buckets {
            let routed = routes.rows(bucket, table.len());
            if !routed.is_empty() {
                members.extend(bucket.probes.iter().map(|probe| (*probe, routed.clone())));
            }
        }
        members.sort_unstable_by_key(|(probe, _)| *probe);
        let mut lists = self.lists(Tier::Request, table, members, distrusted, remembered)?;
        for (row, list) in lists.iter_mut().enumerate() {
            let value = |column: &Column| {
                let array = self.request_columns.contains(column).then(|| table.column(*column).ok()).flatten()?;
                let value = plain_rows(array, &UInt32Array::from(vec![row as u32])).ok()?;
                Some((*column, ScalarValue::try_from_array(&value, 0).ok()?))
            };
            let known = Known { null: null[row], values: REQUEST.iter().filter_map(value).collect() };
            list.retain(|probe| {
                let own = self.conjuncts[*probe as usize].iter().map(|condition| &self.conditions[*condition]);
                own.filter(|condition| condition.tier != Tier::Request).all(|condition| condition.may_hold(&known))
            });
        }
        Ok(lists)
    }

    /// By row of the table: the queries of `members` (in ascending order) whose conditions of the tier hold.
    fn lists(
        &self,
        tier: Tier,
        table: &Table<'_>,
        members: impl IntoIterator<Item = (usize, Bits)>,
        distrusted: &[bool],
        remembered: &mut Remembered,
    ) -> Result<Vec<Vec<u32>>, Failed> {
        let mut lists = vec![Vec::new(); table.len()];
        let mut answers = Answers::new(table, self.conditions.len()).remembering(remembered);
        for (probe, mut alive) in members {
            for condition in self.own(probe, tier, distrusted) {
                if alive.is_empty() {
                    break;
                }
                let failed = Cell::new(true);
                let narrowed = catch_unwind(AssertUnwindSafe(|| {
                    failed.set(answers.narrow(condition, &self.conditions[condition], &mut alive).is_err());
                }));
                if narrowed.is_err() || failed.get() {
                    return Err(Failed { condition });
                }
            }
            alive.iter().for_each(|row| lists[row].push(probe as u32));
        }
        Ok(lists)
    }
}

/// The verdict of each row by that of its group.
fn spread(groups: &Groups<'_>, verdicts: &[Option<Verdict>]) -> Vec<Verdict> {
    let known = |group: &u32| verdicts[*group as usize].expect("every group was looked up or worked out");
    groups.of.iter().map(known).collect()
}

/// The rows of a table by resource and verb.
struct Routes {
    resources: Vec<Option<String>>,
    verbs: Vec<Option<String>>,
    /// By resource and verb, null last in both.
    rows: Vec<Vec<u32>>,
}

impl Routes {
    fn of(table: &Table<'_>) -> Routes {
        let column = |column: Column| {
            let array = table.column(column).ok().and_then(|array| array.as_dictionary_opt::<Int32Type>());
            let array = array.expect("resource and verb are decoded always, as dictionaries");
            let values = array.values().as_string::<i32>();
            let names = values.iter().map(|name| name.map(str::to_owned)).chain([None]).collect::<Vec<_>>();
            (array.keys().clone(), names)
        };
        let (resource_keys, resources) = column(Column::Resource);
        let (verb_keys, verbs) = column(Column::Verb);
        let mut rows = vec![Vec::new(); resources.len() * verbs.len()];
        for row in 0..table.len() {
            let key = |keys: &Int32Array, names: usize| {
                if keys.is_null(row) { names - 1 } else { keys.value(row) as usize }
            };
            let place = key(&resource_keys, resources.len()) * verbs.len() + key(&verb_keys, verbs.len());
            rows[place].push(row as u32);
        }
        Routes { resources, verbs, rows }
    }

    fn rows(&self, bucket: &Bucket, rows: usize) -> Bits {
        if bucket.resources.is_none() && bucket.verbs.is_none() {
            return Bits::all(rows);
        }
        let wanted = |names: &[Option<String>], set: &Option<BTreeSet<String>>| -> Vec<usize> {
            let holds = |name: &Option<String>| match (set, name) {
                (None, _) => true,
                (Some(set), Some(name)) => set.contains(name),
                (Some(_), None) => false,
            };
            names.iter().enumerate().filter(|(_, name)| holds(name)).map(|(index, _)| index).collect()
        };
        let verbs = wanted(&self.verbs, &bucket.verbs);
        let mut bits = Bits::none(rows);
        for resource in wanted(&self.resources, &bucket.resources) {
            for verb in &verbs {
                self.rows[resource * self.verbs.len() + verb].iter().for_each(|row| bits.insert(*row as usize));
            }
        }
        bits
    }
}
