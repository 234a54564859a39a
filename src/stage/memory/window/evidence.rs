//! Which events a row of an answer stands for.

use std::collections::{BTreeMap, HashMap, VecDeque};

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use arrow::record_batch::RecordBatch;
use serde_json::Value;

use super::ring::{Chunk, equal, hashes};
use crate::model::{Column, KeptRows, cell};

/// Most events that a finding carries as evidence; the newest are kept.
const EVIDENCE_MAX: usize = 1000;

/// One key of an answer.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) values: Vec<Value>,
    /// Its rows in the answer.
    pub(super) rows: Vec<usize>,
    /// The newest events that it stands for: place of the chunk, row.
    pub(super) evidence: VecDeque<(usize, usize)>,
    pub(super) events: u64,
}

/// The keys of an answer, made of the outputs at these places, in a fixed order, each with its rows in a fixed order.
pub(super) fn found(key: &[usize], answer: &RecordBatch) -> BTreeMap<String, Found> {
    let mut keys: BTreeMap<String, Found> = BTreeMap::new();
    let mut texts = Vec::with_capacity(answer.num_rows());
    for row in 0..answer.num_rows() {
        let values: Vec<Value> = answer.columns().iter().map(|column| cell(column, row)).collect();
        let own: Vec<Value> = key.iter().filter_map(|place| values.get(*place).cloned()).collect();
        texts.push(Value::from(values).to_string());
        let identity = Value::from(own.clone()).to_string();
        let found = keys.entry(identity).or_insert_with(|| Found {
            values: own,
            rows: Vec::new(),
            evidence: VecDeque::new(),
            events: 0,
        });
        found.rows.push(row);
    }
    for found in keys.values_mut() {
        found.rows.sort_by(|left, right| texts.get(*left).cmp(&texts.get(*right)));
    }
    keys
}

/// The outputs of a side.
fn outputs<'a>(side: &[(usize, Column)], answer: &'a RecordBatch) -> Vec<&'a ArrayRef> {
    side.iter().filter_map(|(output, _)| answer.columns().get(*output)).collect()
}

/// By row of an answer: a number for the events that it stands for.
pub(super) fn groups(sides: &[Vec<(usize, Column)>], answer: &RecordBatch) -> Vec<u64> {
    let columns: Vec<&ArrayRef> = sides.iter().flat_map(|side| outputs(side, answer)).collect();
    hashes(&columns, answer.num_rows())
}

/// Finds the events of each key. By row of the answer: the number after that of the newest event that it stands for.
pub(super) fn evidence(
    sides: &[Vec<(usize, Column)>],
    answer: &RecordBatch,
    chunks: &[&Chunk],
    found: &mut BTreeMap<String, Found>,
) -> Vec<u64> {
    let mut found: Vec<&mut Found> = found.values_mut().collect();
    if sides.is_empty() {
        for (place, chunk) in chunks.iter().enumerate() {
            (0..chunk.rows.num_rows()).for_each(|row| found.iter_mut().for_each(|key| key.add(place, row)));
        }
        return vec![chunks.last().map_or(0, |chunk| chunk.first + chunk.rows.num_rows() as u64); answer.num_rows()];
    }
    let mut owners = vec![0; answer.num_rows()];
    for (index, key) in found.iter().enumerate() {
        for row in &key.rows {
            if let Some(owner) = owners.get_mut(*row) {
                *owner = index;
            }
        }
    }
    let mut sides: Vec<Side<'_>> = sides.iter().map(|side| Side::new(side, answer, &owners)).collect();
    for (place, chunk) in chunks.iter().enumerate() {
        let hashed: Vec<(Vec<&ArrayRef>, Vec<u64>)> = sides.iter().map(|side| side.hashes(&chunk.rows)).collect();
        for row in 0..chunk.rows.num_rows() {
            for (side, (columns, hashes)) in sides.iter_mut().zip(&hashed) {
                let hash = hashes.get(row).copied().unwrap_or_default();
                side.hits(hash, columns, row, chunk.first + row as u64 + 1, |owner| {
                    if let Some(key) = found.get_mut(owner) {
                        key.add(place, row);
                    }
                });
            }
        }
    }
    let newest = |row: usize| sides.iter().map(|side| side.next(row)).max().unwrap_or_default();
    (0..answer.num_rows()).map(newest).collect()
}

/// The rows of an answer, found by what their events have in common.
struct Side<'a> {
    places: &'a [(usize, Column)],
    outputs: Vec<&'a ArrayRef>,
    groups: Vec<Group>,
    /// By hash: groups.
    by_hash: HashMap<u64, Vec<usize>>,
    /// By row of the answer: its group.
    of_row: Vec<usize>,
}

/// Rows of an answer that have the same key and stand for the same events.
struct Group {
    owner: usize,
    /// One of them.
    row: usize,
    /// The number after that of the newest event.
    next: u64,
}

impl<'a> Side<'a> {
    fn new(places: &'a [(usize, Column)], answer: &'a RecordBatch, owners: &[usize]) -> Side<'a> {
        let outputs = outputs(places, answer);
        let mut side = Side {
            places,
            outputs,
            groups: Vec::new(),
            by_hash: HashMap::new(),
            of_row: Vec::with_capacity(owners.len()),
        };
        let hashes = hashes(&side.outputs, answer.num_rows());
        for (row, (hash, owner)) in hashes.into_iter().zip(owners).enumerate() {
            let same = side.by_hash.get(&hash).into_iter().flatten().copied().find(|group| {
                side.groups.get(*group).is_some_and(|group| {
                    group.owner == *owner && side.outputs.iter().all(|output| equal(output, row, output, group.row))
                })
            });
            let group = same.unwrap_or_else(|| {
                side.groups.push(Group { owner: *owner, row, next: 0 });
                side.by_hash.entry(hash).or_default().push(side.groups.len() - 1);
                side.groups.len() - 1
            });
            side.of_row.push(group);
        }
        side
    }

    /// The columns of a chunk that are compared, and the numbers of its rows.
    fn hashes<'c>(&self, rows: &'c RecordBatch) -> (Vec<&'c ArrayRef>, Vec<u64>) {
        let columns: Vec<&ArrayRef> =
            self.places.iter().filter_map(|(_, column)| rows.column_by_name(column.name())).collect();
        let hashes = hashes(&columns, rows.num_rows());
        (columns, hashes)
    }

    /// Notes an event, by the columns of its row, for the groups that stand for it, and names their keys.
    fn hits(&mut self, hash: u64, columns: &[&ArrayRef], row: usize, next: u64, mut hit: impl FnMut(usize)) {
        for group in self.by_hash.get(&hash).into_iter().flatten() {
            let Some(group) = self.groups.get_mut(*group) else { continue };
            if columns.iter().zip(&self.outputs).all(|(column, output)| equal(column, row, output, group.row)) {
                group.next = next;
                hit(group.owner);
            }
        }
    }

    fn next(&self, row: usize) -> u64 {
        self.of_row.get(row).and_then(|group| self.groups.get(*group)).map_or(0, |group| group.next)
    }
}

impl Found {
    fn add(&mut self, chunk: usize, row: usize) {
        if self.evidence.back() == Some(&(chunk, row)) {
            return;
        }
        if self.evidence.len() >= EVIDENCE_MAX {
            self.evidence.pop_front();
        }
        self.evidence.push_back((chunk, row));
        self.events += 1;
    }
}

/// Rows of chunks as one batch.
pub(super) fn gathered(chunks: &[&Chunk], places: &VecDeque<(usize, usize)>) -> Option<KeptRows> {
    let places: Vec<(usize, usize)> = places.iter().copied().collect();
    let schema = chunks.first().filter(|_| !places.is_empty())?.rows.schema();
    let columns = (0..schema.fields().len()).map(|column| {
        let arrays: Vec<&dyn Array> = chunks.iter().map(|chunk| chunk.rows.column(column).as_ref()).collect();
        interleave(&arrays, &places)
    });
    let columns: Result<Vec<ArrayRef>, _> = columns.collect();
    let rows = columns.and_then(|columns| RecordBatch::try_new(schema, columns));
    let arrival_ms = places.iter().map(|(chunk, row)| {
        let arrival_ms = &chunks.get(*chunk)?.arrival_ms;
        arrival_ms.is_valid(*row).then(|| arrival_ms.value(*row))
    });
    Some(KeptRows { arrival_ms: arrival_ms.collect(), rows: rows.expect("chunks of one ring have the same columns") })
}
