//! One event as detections with memory see it: the columns that are kept, and what the SELECT list computed.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{FieldRef, Int64Type, Schema, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde_json::Value;

use crate::model::{ALL_COLUMNS, Column, ColumnInfo, KeptRows, cell, first_half};

/// 128 bits of BLAKE3 over a list of values: what the entries of one key have in common.
pub type Key = [u8; 16];

/// The kept rows of one chunk, with their columns found by name once.
#[derive(Debug)]
pub struct Kept {
    rows: KeptRows,
    /// By [`Column`]: its place in the batch.
    places: Arc<[Option<usize>]>,
}

impl Kept {
    pub fn new(rows: KeptRows) -> Kept {
        let schema = rows.rows.schema_ref();
        let place = |info: &ColumnInfo| schema.fields().find(info.name).map(|(place, _)| place);
        let places = ALL_COLUMNS.iter().map(place).collect();
        Kept { rows, places }
    }

    /// Rows with the same columns as these.
    fn like(&self, rows: KeptRows) -> Kept {
        Kept { rows, places: Arc::clone(&self.places) }
    }

    /// The event time of a row, microseconds since the epoch: where it runs more than five minutes ahead of the
    /// transport's clock, the time of arrival.
    pub fn event_us(&self, row: usize) -> Option<i64> {
        let array = self.array(Column::EventTime, row)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(clamped(array.value(row), self.arrival_ms(row)))
    }

    /// Value of a text column, `None` where it is null or not kept.
    pub fn text(&self, column: Column, row: usize) -> Option<&str> {
        Some(self.array(column, row)?.as_string_opt::<i32>()?.value(row))
    }

    /// The rows as a batch of the columns that were kept.
    pub fn batch(&self) -> &RecordBatch {
        &self.rows.rows
    }

    /// Time that the transport gave the record of a row, milliseconds since the epoch.
    pub fn arrival_ms(&self, row: usize) -> Option<i64> {
        self.rows.arrival_ms.get(row).copied().flatten()
    }

    /// The column of a field, where the chunk has it with that type.
    fn column(&self, field: &FieldRef) -> Option<&ArrayRef> {
        let column = self.batch().column_by_name(field.name())?;
        (column.data_type() == field.data_type()).then_some(column)
    }

    fn array(&self, column: Column, row: usize) -> Option<&ArrayRef> {
        let array = self.rows.rows.columns().get((*self.places.get(column as usize)?)?)?;
        (row < array.len() && array.is_valid(row)).then_some(array)
    }
}

/// A name that a detection uses: what its SELECT list computes under it, else the table's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: Arc<str>,
    pub column: Option<Column>,
}

impl Field {
    pub fn new(name: &str) -> Field {
        Field { name: name.into(), column: Column::by_name(name) }
    }
}

/// One event. Cheap to clone; keeps the rows of its chunk alive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Event time, microseconds since the epoch.
    pub event_us: i64,
    kept: Arc<Kept>,
    row: usize,
    computed: Arc<[(Arc<str>, Value)]>,
}

impl Entry {
    /// The entry of a row of kept rows, with what the detection's SELECT list computed for it.
    ///
    /// `event_us` is the event time to go by, which a clock that runs ahead does not set.
    pub fn new(kept: &Arc<Kept>, row: usize, event_us: i64, computed: Arc<[(Arc<str>, Value)]>) -> Entry {
        Entry { event_us, kept: Arc::clone(kept), row, computed }
    }

    /// Value of a text column, `None` where it is null or not kept.
    pub fn text(&self, column: Column) -> Option<&str> {
        self.kept.text(column, self.row)
    }

    /// Value of an integer column, `None` where it is null or not kept.
    pub fn int(&self, column: Column) -> Option<i64> {
        Some(self.kept.array(column, self.row)?.as_primitive_opt::<Int64Type>()?.value(self.row))
    }

    /// Value of a boolean column, `None` where it is null or not kept.
    pub fn bool(&self, column: Column) -> Option<bool> {
        Some(self.kept.array(column, self.row)?.as_boolean_opt()?.value(self.row))
    }

    /// The value of a name: computed, else the column's; null where neither knows it.
    pub fn value(&self, field: &Field) -> Value {
        if let Some((_, value)) = self.computed.iter().find(|(name, _)| *name == field.name) {
            return value.clone();
        }
        let array = field.column.and_then(|column| self.kept.array(column, self.row));
        array.map_or(Value::Null, |array| cell(array, self.row))
    }

    /// What the SELECT list computed.
    pub fn computed(&self) -> &Arc<[(Arc<str>, Value)]> {
        &self.computed
    }

    /// The values of some names, and the key that stands for them.
    pub fn key(&self, fields: &[Field]) -> (Key, Vec<Value>) {
        let values: Vec<Value> = fields.iter().map(|field| self.value(field)).collect();
        (key_of(&values), values)
    }

    /// The chunk's rows and the row in it.
    pub fn place(&self) -> (&Arc<Kept>, usize) {
        (&self.kept, self.row)
    }

    /// The same, sharing nothing with its chunk: for what is remembered for long.
    pub fn owned(&self) -> Entry {
        let kept = Arc::new(self.kept.like(kept_rows(std::slice::from_ref(self))));
        Entry { event_us: self.event_us, kept, row: 0, computed: Arc::clone(&self.computed) }
    }

    /// Whether the request did something: it was accepted (a code below 400, or none known) and was no dry run.
    pub fn succeeded(&self) -> bool {
        self.int(Column::ResponseCode).is_none_or(|code| code < 400) && self.bool(Column::DryRun) != Some(true)
    }
}

/// The key of a list of values. Framed, so that no two lists share one; null differs from the empty text.
pub fn key_of(values: &[Value]) -> Key {
    let mut hash = blake3::Hasher::new();
    for value in values {
        let (tag, text) = match value {
            Value::Null => (0, String::new()),
            Value::String(text) => (1, text.clone()),
            other => (2, other.to_string()),
        };
        hash.update(&[tag]).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    first_half(hash.finalize())
}

/// The rows of entries as one batch that shares nothing with their chunks, in the given order. A column that only some
/// of the chunks have (what was kept before a restart may have others) is null in the rows of the others.
pub fn kept_rows(entries: &[Entry]) -> KeptRows {
    let arrival_ms = entries.iter().map(|entry| entry.kept.arrival_ms(entry.row)).collect();
    let mut chunks: Vec<&Kept> = Vec::new();
    let mut known: HashMap<*const Kept, usize> = HashMap::new();
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        let chunk = *known.entry(Arc::as_ptr(&entry.kept)).or_insert_with(|| {
            chunks.push(&entry.kept);
            chunks.len() - 1
        });
        places.push((chunk, entry.row));
    }
    let mut fields: Vec<FieldRef> = Vec::new();
    for chunk in &chunks {
        let schema = chunk.batch().schema_ref();
        // Nearly always the chunks of one run, which have the same columns.
        if schema.fields().len() == fields.len() && schema.fields().iter().zip(&fields).all(|(one, other)| one == other)
        {
            continue;
        }
        let new = schema.fields().iter().filter(|field| fields.iter().all(|known| known.name() != field.name()));
        fields.extend(new.cloned().collect::<Vec<_>>());
    }
    let columns = fields.iter().map(|field| {
        let nulls = new_null_array(field.data_type(), 1);
        let found: Vec<Option<&ArrayRef>> = chunks.iter().map(|chunk| chunk.column(field)).collect();
        let arrays: Vec<&dyn Array> = found.iter().map(|array| array.unwrap_or(&nulls).as_ref()).collect();
        if found.iter().all(Option::is_some) {
            return interleave(&arrays, &places);
        }
        let first_if_null = |&(chunk, row): &(usize, usize)| (chunk, if found[chunk].is_some() { row } else { 0 });
        interleave(&arrays, &places.iter().map(first_if_null).collect::<Vec<_>>())
    });
    let columns: Result<Vec<ArrayRef>, _> = columns.collect();
    let nullable = fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let schema = Arc::new(Schema::new(nullable.collect::<Vec<FieldRef>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(entries.len()));
    let rows = columns.and_then(|columns| RecordBatch::try_new_with_options(schema, columns, &options));
    KeptRows { rows: rows.expect("columns of one name have one type and one length"), arrival_ms }
}

/// An event time, or the time of arrival where it runs more than five minutes ahead of that.
pub fn clamped(event_us: i64, arrival_ms: Option<i64>) -> i64 {
    const AHEAD_US: i64 = 5 * 60 * 1_000_000;
    match arrival_ms.map(|ms| ms.saturating_mul(1000)) {
        Some(arrival_us) if event_us > arrival_us.saturating_add(AHEAD_US) => arrival_us,
        _ => event_us,
    }
}
