//! The bytes of a record: a mark with the version, half of the BLAKE3 of all that follows, the length of a head in JSON,
//! the head, and for rows an Arrow IPC stream of them. Damage is found by the hash: readers of Arrow panic on some of it.
//!
//! Rows come from other versions of the program, too: detections stand by id and meaning, columns by name, and whatever
//! is not as expected is an error that names it, never a guess.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Int64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Known, Numbers, Of, Rows, Sent, Tide};
use crate::model::{Column, KeptMatches, KeptRows, Match, first_half};

/// What every record begins with; the last byte is the version.
const MARK: [u8; 4] = *b"KTX1";
/// Column of the rows that is not the table's.
const ARRIVAL: &str = "arrival_ms";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Head {
    Rows(RowsHead),
    Tide(Tide),
}

type Computed = Vec<(Arc<str>, Value)>;

#[derive(Serialize, Deserialize)]
struct RowsHead {
    of: Of,
    cluster: Arc<str>,
    oldest_us: i64,
    next: BTreeMap<String, BTreeMap<String, u64>>,
    is_last: bool,
    /// Id and meaning of each detection that `matches` names by its place here.
    detections: Vec<(Arc<str>, String)>,
    /// Row, detection, step and what the SELECT list computed.
    matches: Vec<(usize, usize, usize, Computed)>,
}

/// A tide as a record.
pub fn encode_tide(tide: &Tide) -> Vec<u8> {
    framed(&Head::Tide(tide.clone()), &[])
}

/// Rows as a record.
///
/// # Errors
/// A column has no form in Arrow IPC: a fault of the program.
pub fn encode_rows(rows: &Rows, known: &Known) -> Result<Vec<u8>, String> {
    let mut detections: Vec<(Arc<str>, String)> = Vec::new();
    let mut matches = Vec::with_capacity(rows.kept.matches.len());
    for found in &rows.kept.matches {
        let Some((id, Some(meaning))) = known.get(found.detection) else { continue };
        let place = detections.iter().position(|(known, _)| known == id).unwrap_or_else(|| {
            detections.push((Arc::clone(id), meaning.clone()));
            detections.len() - 1
        });
        matches.push((found.row, place, found.step, found.computed.clone()));
    }
    let head = RowsHead {
        of: rows.of,
        cluster: Arc::clone(&rows.cluster_id),
        oldest_us: rows.oldest_us,
        next: rows.next.clone(),
        is_last: rows.is_last,
        detections,
        matches,
    };
    let batch = with_arrival(&rows.kept.rows).map_err(|error| error.to_string())?;
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).map_err(|error| error.to_string())?;
    writer.write(&batch).map_err(|error| error.to_string())?;
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    Ok(framed(&Head::Rows(head), &bytes))
}

fn framed(head: &Head, rest: &[u8]) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("names and numbers have a form in JSON");
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let content = [&length.to_le_bytes()[..], &head, rest].concat();
    [&MARK[..], &first_half(blake3::hash(&content)), &content].concat()
}

fn with_arrival(rows: &KeptRows) -> Result<RecordBatch, arrow::error::ArrowError> {
    let arrival: ArrayRef = Arc::new(Int64Array::from(rows.arrival_ms.clone()));
    let field = Arc::new(Field::new(ARRIVAL, arrival.data_type().clone(), true));
    let schema = rows.rows.schema();
    let fields = schema.fields().iter().cloned().chain([field]);
    let columns = rows.rows.columns().iter().cloned().chain([arrival]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
}

/// Reads a record.
///
/// # Errors
/// What is not as expected.
pub fn decode(bytes: &[u8], numbers: &Numbers) -> Result<Sent, String> {
    let rest = bytes.strip_prefix(&MARK).ok_or_else(|| match bytes.strip_prefix(&MARK[..3]) {
        Some(_) => "it is of another version of this form".to_owned(),
        None => "it is not a record of an exchange".to_owned(),
    })?;
    let (hash, rest) = rest.split_first_chunk::<16>().ok_or("it ends in its mark")?;
    if first_half(blake3::hash(rest)) != *hash {
        return Err("it is damaged: its hash does not fit".to_owned());
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("it ends in its head")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (head, rest) = rest.split_at_checked(length).ok_or("it ends in its head")?;
    match serde_json::from_slice(head).map_err(|error| format!("its head: {error}"))? {
        Head::Tide(tide) if rest.is_empty() => Ok(Sent::Tide(tide)),
        Head::Tide(_) => Err("a tide has no rows".to_owned()),
        Head::Rows(head) => rows_of(head, rest, numbers).map(|rows| Sent::Rows(Box::new(rows))),
    }
}

fn rows_of(head: RowsHead, bytes: &[u8], numbers: &Numbers) -> Result<Rows, String> {
    let rows = kept_rows(bytes)?;
    let count = rows.rows.num_rows();
    let place = |(id, meaning): &(Arc<str>, String)| numbers.get(&(Arc::clone(id), meaning.clone())).copied();
    let places: Vec<Option<usize>> = head.detections.iter().map(place).collect();
    let (mut matches, mut unknown) = (Vec::with_capacity(head.matches.len()), 0);
    for (row, detection, step, computed) in head.matches {
        if row >= count {
            return Err(format!("a match is of row {row} and there are {count}"));
        }
        match places.get(detection).ok_or("a match names no detection")? {
            Some(detection) => matches.push(Match { detection: *detection, step, row, computed }),
            None => unknown += 1,
        }
    }
    matches.sort_by_key(|found| found.row);
    let kept = KeptMatches { rows, matches };
    let RowsHead { of, cluster, oldest_us, next, is_last, .. } = head;
    Ok(Rows { of, cluster_id: cluster, oldest_us, next, is_last, kept, unknown })
}

fn kept_rows(bytes: &[u8]) -> Result<KeptRows, String> {
    let told = |error: arrow::error::ArrowError| format!("its rows: {error}");
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(told)?;
    let batch = reader.next().ok_or("it has no rows")?.map_err(told)?;
    if reader.next().is_some() {
        return Err("it has more rows than one record should".to_owned());
    }
    let arrival = batch.column_by_name(ARRIVAL).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let arrival_ms = arrival.ok_or("column arrival_ms is missing")?.iter().collect();
    let mut places = Vec::with_capacity(batch.num_columns());
    for (place, field) in batch.schema_ref().fields().iter().enumerate() {
        if field.name() == ARRIVAL {
            continue;
        }
        let column = Column::by_name(field.name()).ok_or_else(|| format!("column {} is unknown", field.name()))?;
        if column.info().kind.data_type() != *field.data_type() {
            return Err(format!("column {} is not as expected", field.name()));
        }
        places.push(place);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = batch.schema_ref().project(&places).map_err(told)?;
    let columns = places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
    let rows = RecordBatch::try_new_with_options(Arc::new(schema), columns, &options).map_err(told)?;
    Ok(KeptRows { rows, arrival_ms })
}
