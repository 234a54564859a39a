//! Cuts kept rows into what goes to different partitions, or into different records.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt64Array};
use arrow::compute::take_record_batch;

use crate::model::{Column, KeptMatches, KeptRows, Match};

/// Rows by their cluster, in their order; rows without one belong nowhere.
pub fn by_cluster(kept: &KeptMatches) -> BTreeMap<Arc<str>, KeptMatches> {
    let column = kept.rows.rows.column_by_name(Column::ClusterId.info().name);
    let Some(names) = column.and_then(|array| array.as_string_opt::<i32>()) else { return BTreeMap::new() };
    let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for row in (0..names.len()).filter(|row| names.is_valid(*row)) {
        places.entry(names.value(row)).or_default().push(row);
    }
    if let Some((name, rows)) = places.first_key_value().filter(|(_, rows)| rows.len() == names.len()) {
        debug_assert_eq!(rows.len(), kept.rows.rows.num_rows());
        return BTreeMap::from([(Arc::from(*name), kept.clone())]);
    }
    places.into_iter().map(|(name, rows)| (Arc::from(name), pick(kept, &rows))).collect()
}

/// The first and the second half of the rows; `None` where there is only one.
pub fn halves(kept: &KeptMatches) -> Option<[KeptMatches; 2]> {
    let count = kept.rows.rows.num_rows();
    let cut = count / 2;
    (count > 1).then(|| [0..cut, cut..count].map(|range| pick(kept, &range.collect::<Vec<_>>())))
}

/// These rows and what keeps them.
fn pick(kept: &KeptMatches, rows: &[usize]) -> KeptMatches {
    let indices: UInt64Array = rows.iter().map(|row| *row as u64).collect();
    let batch = take_record_batch(&kept.rows.rows, &indices).expect("the rows are there");
    let arrival_ms = rows.iter().map(|row| kept.rows.arrival_ms.get(*row).copied().flatten()).collect();
    let place = |found: &Match| Some(Match { row: rows.binary_search(&found.row).ok()?, ..found.clone() });
    KeptMatches { rows: KeptRows { rows: batch, arrival_ms }, matches: kept.matches.iter().filter_map(place).collect() }
}
