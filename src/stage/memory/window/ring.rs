//! The events of the last windows, pane by pane.
//!
//! A pane is the time from one hop to the next. Its events are kept as batches of the columns that are read, each closed
//! once; what falls out of the window goes as a whole pane.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::{concat_batches, filter_record_batch, interleave};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::super::{Entry, Kept};
use crate::model::{Column, ColumnSet, cell, plain_schema};
use crate::sql::Span;

/// Most rows of a batch: an open pane lets go of the chunks that its events came in after so many.
const CHUNK_ROWS: usize = 4096;

/// Rows that were closed together.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) rows: RecordBatch,
    pub(super) arrival_ms: Int64Array,
    /// The number of the first row, counted over all rows that were ever held.
    pub(super) first: u64,
    /// By row: which group it belongs to, empty where groups are not counted.
    groups: Vec<u64>,
}

impl Chunk {
    fn bytes(&self) -> u64 {
        (self.rows.get_array_memory_size() + self.arrival_ms.get_array_memory_size() + self.groups.len() * 8) as u64
    }
}

/// The rows between two hops.
#[derive(Debug)]
pub(super) struct Pane {
    /// Its rows are before this time.
    pub(super) end_us: i64,
    pub(super) chunks: Vec<Chunk>,
    /// What its rows come to, once that was asked for.
    state: Option<State>,
}

/// What the rows of a pane come to: a row for each group, none where no row passes; and the numbers of the groups.
#[derive(Debug)]
struct State {
    rows: Option<RecordBatch>,
    groups: Vec<u64>,
}

impl State {
    fn bytes(&self) -> u64 {
        (self.rows.as_ref().map_or(0, RecordBatch::get_array_memory_size) + self.groups.len() * 8) as u64
    }
}

impl Pane {
    fn new(end_us: i64) -> Pane {
        Pane { end_us, chunks: Vec::new(), state: None }
    }

    /// Joins its chunks where they are many and small.
    fn merge(&mut self, schema: &SchemaRef) {
        if self.chunks.len() < 2 || self.rows() >= (self.chunks.len() * CHUNK_ROWS / 2) as u64 {
            return;
        }
        let rows = concat_batches(schema, self.chunks.iter().map(|chunk| &chunk.rows));
        let chunks = std::mem::take(&mut self.chunks);
        let arrival_ms = chunks.iter().flat_map(|chunk| chunk.arrival_ms.iter()).collect();
        let groups = chunks.iter().flat_map(|chunk| &chunk.groups).copied().collect();
        let first = chunks.first().map_or(0, |chunk| chunk.first);
        let rows = rows.expect("chunks of one ring have the same columns");
        self.chunks.push(Chunk { rows, arrival_ms, first, groups });
    }

    fn bytes(&self) -> u64 {
        let state = self.state.as_ref().map_or(0, State::bytes);
        self.chunks.iter().map(Chunk::bytes).sum::<u64>() + state
    }

    fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows.num_rows() as u64).sum()
    }
}

/// How many held rows each group has; which groups have enough to matter.
#[derive(Debug)]
struct Counts {
    by: Vec<Column>,
    at_least: u64,
    /// By hash of the group: two groups that share one only make each other matter too early.
    rows: HashMap<u64, u64>,
    enough: usize,
    /// Rows that are not in a chunk yet, by group, where that is asked for.
    open: HashMap<u64, u64>,
}

impl Counts {
    fn add(&mut self, group: u64) {
        let rows = self.rows.entry(group).or_default();
        *rows += 1;
        self.enough += usize::from(*rows == self.at_least);
    }

    fn remove(&mut self, group: u64) {
        let Some(rows) = self.rows.get_mut(&group) else { return };
        self.enough -= usize::from(*rows == self.at_least);
        *rows -= 1;
        if *rows == 0 {
            self.rows.remove(&group);
        }
    }

    fn matters(&self, group: u64) -> bool {
        self.rows.get(&group).is_some_and(|rows| *rows >= self.at_least)
    }
}

/// The rows that are held.
#[derive(Debug)]
pub(super) struct Ring {
    schema: SchemaRef,
    panes: VecDeque<Pane>,
    /// Rows of the newest pane that are not in a chunk yet.
    open: Vec<Entry>,
    /// The number that the next row gets.
    next: u64,
    rows: u64,
    bytes: u64,
    counts: Option<Counts>,
}

impl Ring {
    /// An empty one that keeps these columns. With `groups`, it knows which groups have enough rows.
    pub(super) fn new(columns: ColumnSet, groups: Option<(&[Column], u64)>) -> Ring {
        let counts = groups.map(|(by, at_least)| Counts {
            by: by.to_vec(),
            at_least,
            rows: HashMap::new(),
            enough: 0,
            open: HashMap::new(),
        });
        let schema = plain_schema(columns);
        Ring { schema, panes: VecDeque::new(), open: Vec::new(), next: 0, rows: 0, bytes: 0, counts }
    }

    /// Adds a row to the pane that ends at `end_us`, which is the newest or newer.
    ///
    /// # Errors
    /// Where the rows of a chunk that is closed by it cannot be kept; they are lost.
    pub(super) fn push(&mut self, end_us: i64, entry: Entry) -> Result<(), String> {
        let mut closed = Ok(());
        if self.newest_end().is_none_or(|newest| newest < end_us) {
            closed = self.close();
            self.merge_newest();
            self.panes.push_back(Pane::new(end_us));
        } else if self.open.len() >= CHUNK_ROWS {
            closed = self.close();
        }
        self.open.push(entry);
        self.next += 1;
        self.rows += 1;
        closed
    }

    /// Joins the chunks of the newest pane, which gets no more rows.
    fn merge_newest(&mut self) {
        if let Some(pane) = self.panes.back_mut() {
            self.bytes -= pane.bytes();
            pane.merge(&self.schema);
            self.bytes += pane.bytes();
        }
    }

    /// The group of the row that was pushed last, and how many rows of it are held. Only where this is asked for every
    /// row that is pushed.
    pub(super) fn newest_group(&mut self) -> Option<(u64, u64)> {
        let (kept, row) = self.open.last()?.place();
        let counts = self.counts.as_mut()?;
        let columns = counts.by.iter().map(|column| kept.batch().column_by_name(column.name()));
        let columns: Vec<&ArrayRef> = columns.collect::<Option<_>>()?;
        let group = columns.iter().fold(0, |hash, column| mixed(hash, column, row));
        let open = counts.open.entry(group).or_default();
        *open += 1;
        Some((group, *open + counts.rows.get(&group).copied().unwrap_or_default()))
    }

    /// Puts the open rows into a chunk.
    ///
    /// # Errors
    /// Where they lack a column; they are lost.
    pub(super) fn close(&mut self) -> Result<(), String> {
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        let compacted = compact(&self.schema, &open);
        let (rows, arrival_ms) = compacted.inspect_err(|_| self.rows -= open.len() as u64)?;
        self.add(Chunk { rows, arrival_ms, first: self.next - open.len() as u64, groups: Vec::new() });
        Ok(())
    }

    /// Adds a chunk to the newest pane, its rows being counted already.
    fn add(&mut self, mut chunk: Chunk) {
        if let Some(counts) = &mut self.counts {
            counts.open.clear();
            let columns: Vec<&ArrayRef> =
                counts.by.iter().filter_map(|column| chunk.rows.column_by_name(column.name())).collect();
            chunk.groups = hashes(&columns, chunk.rows.num_rows());
            chunk.groups.iter().for_each(|group| counts.add(*group));
        }
        self.bytes += chunk.bytes();
        if let Some(pane) = self.panes.back_mut() {
            pane.chunks.push(chunk);
        }
    }

    /// Lets go of panes that end at `end_us` or before.
    pub(super) fn expire(&mut self, end_us: i64) {
        while self.panes.front().is_some_and(|pane| pane.end_us <= end_us) {
            self.drop_oldest();
        }
    }

    /// Lets go of the oldest pane; how many rows it had.
    pub(super) fn drop_oldest(&mut self) -> u64 {
        let Some(pane) = self.panes.pop_front() else { return 0 };
        let mut dropped = pane.rows();
        self.bytes -= pane.bytes();
        for chunk in &pane.chunks {
            if let Some(counts) = &mut self.counts {
                chunk.groups.iter().for_each(|group| counts.remove(*group));
            }
        }
        if self.panes.is_empty() {
            dropped += self.open.len() as u64;
            self.open.clear();
        }
        self.rows -= dropped;
        dropped
    }

    /// The end of the oldest pane.
    pub(super) fn oldest_end(&self) -> Option<i64> {
        self.panes.front().map(|pane| pane.end_us)
    }

    /// The end of the newest pane.
    pub(super) fn newest_end(&self) -> Option<i64> {
        self.panes.back().map(|pane| pane.end_us)
    }

    /// The end of the oldest pane that ends after this time.
    pub(super) fn end_after(&self, us: i64) -> Option<i64> {
        let after = self.panes.partition_point(|pane| pane.end_us <= us);
        self.panes.get(after).map(|pane| pane.end_us)
    }

    /// The chunks of the panes that end after the span's start, and at its end or before.
    pub(super) fn chunks(&self, span: Span) -> impl Iterator<Item = &Chunk> {
        let after = self.panes.partition_point(|pane| pane.end_us <= span.start_us);
        let panes = self.panes.range(after..).take_while(move |pane| pane.end_us <= span.end_us);
        panes.flat_map(|pane| &pane.chunks)
    }

    /// The rows of those panes that belong to a group.
    pub(super) fn of_group(&self, span: Span, group: u64) -> Vec<RecordBatch> {
        self.chunks(span).filter_map(|chunk| matching(&chunk.rows, &chunk.groups, |found| found == group)).collect()
    }

    /// What the rows of each of those panes come to, of groups that can matter to the query. What is not known yet is
    /// computed.
    ///
    /// # Errors
    /// Those of `compute`.
    pub(super) fn states(
        &mut self,
        span: Span,
        compute: impl Fn(&[RecordBatch]) -> Result<Option<RecordBatch>, String>,
    ) -> Result<Vec<RecordBatch>, String> {
        let Some(counts) = self.counts.as_ref().filter(|counts| counts.enough > 0) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let after = self.panes.partition_point(|pane| pane.end_us <= span.start_us);
        for pane in self.panes.range_mut(after..).take_while(|pane| pane.end_us <= span.end_us) {
            let state = match &mut pane.state {
                Some(state) => state,
                None => {
                    let batches: Vec<RecordBatch> = pane.chunks.iter().map(|chunk| chunk.rows.clone()).collect();
                    let rows = compute(&batches)?;
                    let columns = rows.iter().flat_map(|rows| rows.columns().iter().take(counts.by.len()));
                    let columns: Vec<&ArrayRef> = columns.collect();
                    let groups = hashes(&columns, rows.as_ref().map_or(0, RecordBatch::num_rows));
                    let state = pane.state.insert(State { rows, groups });
                    self.bytes += state.bytes();
                    state
                }
            };
            let rows = state.rows.as_ref();
            found.extend(rows.and_then(|rows| matching(rows, &state.groups, |group| counts.matters(group))));
        }
        Ok(found)
    }

    /// Forgets what panes come to: the query may say something else about the same rows now.
    pub(super) fn forget_states(&mut self) {
        for pane in &mut self.panes {
            self.bytes -= pane.state.take().map_or(0, |state| state.bytes());
        }
    }

    /// The rows of those panes that can matter to the query.
    pub(super) fn batches(&self, span: Span) -> Vec<RecordBatch> {
        let chunks = self.chunks(span);
        match &self.counts {
            Some(counts) if counts.at_least > 1 => {
                if counts.enough == 0 {
                    return Vec::new();
                }
                chunks.filter_map(|chunk| matching(&chunk.rows, &chunk.groups, |group| counts.matters(group))).collect()
            }
            _ => chunks.map(|chunk| chunk.rows.clone()).collect(),
        }
    }

    /// Rows that are held.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of what is held, the open rows estimated.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + (self.open.len() * std::mem::size_of::<Entry>()) as u64
    }

    /// The number that the next row will get.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn panes(&self) -> impl Iterator<Item = &Pane> {
        self.panes.iter()
    }

    /// The open rows as they would be closed.
    ///
    /// # Errors
    /// Where they lack a column.
    pub(super) fn open(&self) -> Result<(RecordBatch, Int64Array), String> {
        compact(&self.schema, &self.open)
    }

    /// Puts back what was held: chunks with the end of their pane, in order, then the open rows.
    ///
    /// # Errors
    /// Where columns are missing or of another type.
    pub(super) fn restore(&mut self, chunks: Vec<(i64, Chunk)>, open: Option<(i64, Vec<Entry>)>) -> Result<(), String> {
        for (end_us, mut chunk) in chunks {
            chunk.rows = read(&self.schema, &chunk.rows)?;
            if self.newest_end().is_none_or(|newest| newest < end_us) {
                self.panes.push_back(Pane::new(end_us));
            }
            self.rows += chunk.rows.num_rows() as u64;
            self.next = chunk.first + chunk.rows.num_rows() as u64;
            self.add(chunk);
        }
        if let Some((end_us, entries)) = open {
            compact(&self.schema, &entries)?;
            for entry in entries {
                self.push(end_us, entry)?;
            }
        }
        Ok(())
    }

    /// Sets the number of the next row, where all rows that had one are gone.
    pub(super) fn resume(&mut self, next: u64) {
        self.next = next;
    }
}

impl Chunk {
    /// Rows as they were saved.
    pub(super) fn new(rows: RecordBatch, arrival_ms: Int64Array, first: u64) -> Chunk {
        Chunk { rows, arrival_ms, first, groups: Vec::new() }
    }
}

/// The rows whose group passes, `None` if there are none.
fn matching(rows: &RecordBatch, groups: &[u64], passes: impl Fn(u64) -> bool) -> Option<RecordBatch> {
    let mask: BooleanArray = groups.iter().map(|group| Some(passes(*group))).collect();
    match mask.true_count() {
        0 => None,
        all if all == mask.len() => Some(rows.clone()),
        _ => Some(filter_record_batch(rows, &mask).expect("there is one answer for each row")),
    }
}

/// The rows of entries as one batch of these columns that shares nothing with their chunks, and when they arrived.
fn compact(schema: &SchemaRef, entries: &[Entry]) -> Result<(RecordBatch, Int64Array), String> {
    let mut chunks: Vec<&Arc<Kept>> = Vec::new();
    let mut known: HashMap<*const Kept, usize> = HashMap::new();
    let mut places = Vec::with_capacity(entries.len());
    for entry in entries {
        let (kept, row) = entry.place();
        let chunk = *known.entry(Arc::as_ptr(kept)).or_insert_with(|| {
            chunks.push(kept);
            chunks.len() - 1
        });
        places.push((chunk, row));
    }
    let arrival_ms = places.iter().map(|(chunk, row)| chunks.get(*chunk)?.arrival_ms(*row)).collect();
    let batches: Result<Vec<RecordBatch>, String> = chunks.iter().map(|kept| read(schema, kept.batch())).collect();
    let batches = batches?;
    let columns: Result<Vec<ArrayRef>, _> = (0..schema.fields().len())
        .map(|column| {
            let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
            if arrays.is_empty() {
                return Ok(arrow::array::new_empty_array(schema.field(column).data_type()));
            }
            interleave(&arrays, &places)
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(entries.len()));
    let rows = columns.and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options));
    Ok((rows.map_err(|error| format!("the rows cannot be kept: {error}"))?, arrival_ms))
}

/// The columns of a schema out of a batch.
fn read(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, String> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => Err(format!("the column {} is of type {}", field.name(), column.data_type())),
        None => Err(format!("the column {} was not kept", field.name())),
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| error.to_string())
}

/// For each row a number that equal values share, nulls being equal. The same from run to run.
pub(super) fn hashes(columns: &[&ArrayRef], rows: usize) -> Vec<u64> {
    let mut all = vec![0_u64; rows];
    for column in columns {
        for (row, hash) in all.iter_mut().enumerate() {
            *hash = mixed(*hash, column, row);
        }
    }
    all
}

/// The number of some columns of a row and one more.
fn mixed(hash: u64, column: &ArrayRef, row: usize) -> u64 {
    (hash.rotate_left(5) ^ hash_of(column, row)).wrapping_mul(0x517c_c1b7_2722_0a95)
}

fn hash_of(column: &ArrayRef, row: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    if row >= column.len() || column.is_null(row) {
        return hasher.finish();
    }
    match column.data_type() {
        DataType::Utf8 => hasher.write(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Utf8View => hasher.write(column.as_string_view().value(row).as_bytes()),
        DataType::Int64 => hasher.write_i64(column.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            hasher.write_i64(column.as_primitive::<TimestampMicrosecondType>().value(row));
        }
        // Slow, and rare: lists and booleans.
        _ => hasher.write(cell(column, row).to_string().as_bytes()),
    }
    hasher.write_u8(1);
    hasher.finish()
}

/// Whether the values at two places are equal, nulls being equal.
pub(super) fn equal(left: &ArrayRef, left_row: usize, right: &ArrayRef, right_row: usize) -> bool {
    if let (DataType::Utf8, DataType::Utf8) = (left.data_type(), right.data_type()) {
        let text =
            |array: &ArrayRef, row: usize| array.is_valid(row).then(|| array.as_string::<i32>().value(row).len());
        if text(left, left_row) != text(right, right_row) {
            return false;
        }
    }
    cell(left, left_row) == cell(right, right_row)
}
