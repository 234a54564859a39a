//! Events to Arrow columns: only those that somebody reads, straight from the event's text.
//!
//! A [`BatchBuilder`] is an [`EventSink`]: format hands it the spans of an event, and it appends one value to each needed
//! column. Spans that come again and again (a user, an outcome, a list of addresses) are looked up by their bytes and
//! not read again. A body is read only where a loaded detection can match the event's resource and verb; where the need
//! says so, not even then, but when somebody asks the finished batch for it.

mod body;
mod builders;
mod csr;
mod header;
mod identity;
mod late;
mod object;
mod patch;
mod pod;
mod time;

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use hashbrown::HashMap;
use ipnet::IpNet;

pub use builders::dictionary_values;
use builders::{Columns, NULL};
use header::{Header, HeaderCaches};
use late::Place;

use crate::json::Raw;
use crate::model::{
    BatchCounts, Chunk, Cloud, Column, ColumnSet, DeadLetter, EventBatch, EventContext, EventFields, EventSink,
    FORETOLD, Need, Position, RawRecord, RejectReason, Row, SkipReason,
};

/// Builds one [`EventBatch`].
#[derive(Debug)]
pub struct BatchBuilder {
    need: Arc<Need>,
    trusted_proxies: Arc<[IpNet]>,
    columns: Columns,
    caches: HeaderCaches,
    /// By the row's keys for resource and verb: the columns of bodies that somebody reads.
    wanted: HashMap<(i32, i32), ColumnSet>,
    /// What bodies are like that are read later.
    notes: Option<late::Notes>,
    rows: Vec<Row>,
    chunk: Bytes,
    unwrapped: Vec<u8>,
    lane: Arc<str>,
    position: Position,
    arrival_ms: Option<i64>,
    dead_letters: Vec<DeadLetter>,
    counts: BatchCounts,
}

impl BatchBuilder {
    /// A builder for about so many events of `chunk`. `trusted_proxies` are the addresses that may stand behind the
    /// client's in `sourceIPs`.
    pub fn new(need: Arc<Need>, trusted_proxies: Arc<[IpNet]>, chunk: &Chunk, events: usize) -> BatchBuilder {
        let notes = (!need.late.is_empty()).then(|| late::Notes::new(events));
        let mut columns = need.columns;
        if notes.is_some() {
            columns = columns.without(ColumnSet::bodies()).union(late::DEPENDS.into_iter().collect());
        }
        BatchBuilder {
            columns: Columns::new(columns, events),
            notes,
            need,
            trusted_proxies,
            caches: HeaderCaches::default(),
            wanted: HashMap::new(),
            rows: Vec::with_capacity(events),
            chunk: chunk.bytes.clone(),
            unwrapped: Vec::new(),
            lane: Arc::from(""),
            position: Position { lane: 0, offset: 0 },
            arrival_ms: None,
            dead_letters: Vec::new(),
            counts: BatchCounts::default(),
        }
    }

    /// Names the record that the following calls are about.
    pub fn start_record(&mut self, record: &RawRecord, lane: &Arc<str>) {
        if !Arc::ptr_eq(&self.lane, lane) {
            self.lane = Arc::clone(lane);
        }
        self.place(record.position, record.time_ms);
        self.counts.records += 1;
        self.counts.bytes += record.range.len() as u64;
    }

    /// Says where the following events are from, without counting a record: for events that are read a second time.
    pub fn place(&mut self, position: Position, arrival_ms: Option<i64>) {
        self.position = position;
        self.arrival_ms = arrival_ms;
    }

    /// The finished batch.
    pub fn finish(self) -> EventBatch {
        let rows = self.rows.len();
        let finished = self.columns.finish(rows);
        let unwrapped = Bytes::from(self.unwrapped);
        let late =
            self.notes.map(|notes| notes.finish(self.need.late, &finished, self.chunk.clone(), unwrapped.clone()));
        let fields: Vec<Field> = finished
            .iter()
            .map(|(column, array)| Field::new(column.name(), arrow::array::Array::data_type(array).clone(), true))
            .collect();
        let arrays = finished.into_iter().map(|(_, array)| array).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let columns = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .expect("every column was padded to the number of rows");
        EventBatch {
            columns,
            rows: self.rows,
            chunk: self.chunk,
            unwrapped,
            dead_letters: self.dead_letters,
            counts: self.counts,
            late,
        }
    }

    /// Where a body of an event lies whose own text was kept at `text`.
    fn body_place(
        &mut self,
        body: Option<Raw<'_>>,
        event: &[u8],
        kept: &(std::ops::Range<usize>, bool),
    ) -> Option<Place> {
        let bytes = body?.bytes();
        let (whole, part) = (event.as_ptr_range(), bytes.as_ptr_range());
        if whole.start <= part.start && part.end <= whole.end {
            let start = kept.0.start + (part.start as usize - whole.start as usize);
            return Some(Place { range: start..start + bytes.len(), unwrapped: kept.1 });
        }
        let (range, unwrapped) = self.keep(bytes);
        Some(Place { range, unwrapped })
    }

    /// Keeps the event's text: a range of the chunk where it lies there, else a copy.
    fn keep(&mut self, text: &[u8]) -> (std::ops::Range<usize>, bool) {
        let chunk = self.chunk.as_ptr_range();
        let span = text.as_ptr_range();
        if chunk.start <= span.start && span.end <= chunk.end {
            let start = span.start as usize - chunk.start as usize;
            return (start..start + text.len(), false);
        }
        let start = self.unwrapped.len();
        self.unwrapped.extend_from_slice(text);
        (start..self.unwrapped.len(), true)
    }

    /// The columns that somebody reads of the bodies of this row's event.
    fn wanted(&mut self, resource: &str, verb: &str) -> ColumnSet {
        let keys = (self.columns.key_of_row(Column::Resource), self.columns.key_of_row(Column::Verb));
        let (Some(resource_key), Some(verb_key)) = keys else { return self.need.bodies.wanted(resource, verb) };
        let wanted = self.wanted.entry((resource_key, verb_key));
        *wanted.or_insert_with(|| self.need.bodies.wanted(resource, verb))
    }
}

impl EventSink for BatchBuilder {
    fn event(&mut self, fields: &EventFields<'_>, context: &EventContext) {
        let kept = self.keep(fields.text);
        self.columns.row = self.rows.len();
        let cloud = Cloud::ALL.iter().position(|cloud| *cloud == context.origin.cloud).unwrap_or(0);
        self.counts.events[cloud] += 1;
        let mut header = Header {
            columns: &mut self.columns,
            caches: &mut self.caches,
            trusted_proxies: &self.trusted_proxies,
            arrival_ms: self.arrival_ms,
        };
        let (request, truncated) = header.fill(fields, context);
        self.counts.truncated += u64::from(truncated);
        let (resource, verb) = (request.resource(), request.verb());
        let exec = if request.runs() { FORETOLD.into_iter().collect() } else { ColumnSet::EMPTY };
        let has_body = fields.request_object.is_some() || fields.response_object.is_some();
        let wanted = if has_body { self.wanted(&resource, &verb) } else { ColumnSet::EMPTY };
        if !wanted.is_empty() {
            let api_group = request.api_group();
            let subresource = request.subresource();
            let request = body::Request { verb: &verb, api_group: &api_group, resource: &resource, subresource };
            if self.notes.is_none() {
                self.columns.wanted = wanted;
                body::fill(&mut self.columns, fields, &request);
            } else {
                let fillable = body::fillable(fields, &request).intersection(self.need.late).union(exec);
                let asked = self.body_place(fields.request_object, fields.text, &kept);
                let answered = self.body_place(fields.response_object, fields.text, &kept);
                if let Some(notes) = &mut self.notes {
                    notes.note(fillable, asked, answered);
                }
            }
        } else if let Some(notes) = &mut self.notes {
            notes.note(exec, None, None);
        }
        let (text, unwrapped) = kept;
        let row =
            Row { text, unwrapped, position: self.position, context: context.clone(), arrival_ms: self.arrival_ms };
        self.rows.push(row);
    }

    fn skip(&mut self, reason: SkipReason) {
        let index = SkipReason::ALL.iter().position(|known| *known == reason).unwrap_or(0);
        self.counts.skipped[index] += 1;
    }

    fn reject(&mut self, reason: RejectReason, detail: String, index: u32, bytes: &[u8]) {
        self.dead_letters.push(DeadLetter {
            lane: Arc::clone(&self.lane),
            offset: self.position.offset,
            index,
            reason: reason.as_str(),
            detail,
            bytes: Bytes::copy_from_slice(bytes),
        });
    }
}

/// Whether a column whose key this is has a value.
fn is_set(key: i32) -> bool {
    key != NULL
}

#[cfg(test)]
mod tests;
