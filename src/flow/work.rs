//! One chunk through format, batch and evaluate.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use ipnet::IpNet;

use crate::clock::Instant;
use crate::model::{
    BatchCounts, Chunk, Column, DeadLetter, EventBatch, EventSink as _, Heard, KeptMatches, KeptRows, Lane, LaneId,
    Match, MatchedRows, Need, Position, RawRecord, RejectReason,
};
use crate::stage::batch::BatchBuilder;
use crate::stage::evaluate::{Evaluator, Failure, Hit};
use crate::stage::exchange::{self, Numbers, Sent};
use crate::stage::format::{FormatOptions, Formats, native};
use crate::stage::memory;

/// What a worker has to know about a source.
#[derive(Debug, Clone, Default)]
pub struct SourceSettings {
    pub format: FormatOptions,
    /// Addresses that may stand behind the client's in `sourceIPs`.
    pub trusted_proxies: Arc<[IpNet]>,
}

/// What came of one chunk.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By lane: the first offset that this chunk does not cover.
    pub next: BTreeMap<LaneId, u64>,
    /// The source's lanes, by id.
    pub lanes: Arc<[Lane]>,
    /// In order; one part, unless the chunk had to be taken apart.
    pub matched: Vec<MatchedRows>,
    /// What detections with memory keep; in order.
    pub kept: Vec<KeptMatches>,
    /// How far the chunk's lanes have come; empty without detections with memory.
    pub heard: Vec<Heard>,
    /// Lanes that end with this chunk.
    pub ended: Vec<LaneId>,
    /// What the records of an exchange say; in order.
    pub exchanged: Vec<Exchanged>,
    pub dead_letters: Vec<DeadLetter>,
    pub counts: BatchCounts,
    pub failures: Vec<Failure>,
    pub decode_seconds: f64,
    pub evaluate_seconds: f64,
}

/// One record of an exchange.
#[derive(Debug)]
pub struct Exchanged {
    pub position: Position,
    /// The broker's clock, milliseconds since the epoch.
    pub time_ms: i64,
    /// `None` where it could not be read, and is a dead letter.
    pub sent: Option<Sent>,
}

impl Outcome {
    /// Adds what came of records that follow.
    fn append(&mut self, mut other: Outcome) {
        self.next.append(&mut other.next);
        self.matched.append(&mut other.matched);
        self.kept.append(&mut other.kept);
        self.heard.append(&mut other.heard);
        self.exchanged.append(&mut other.exchanged);
        self.dead_letters.append(&mut other.dead_letters);
        self.failures.append(&mut other.failures);
        self.counts.add(&other.counts);
        self.decode_seconds += other.decode_seconds;
        self.evaluate_seconds += other.evaluate_seconds;
    }
}

/// The outcome of a record on which a stage panicked.
fn lost(chunk: &Chunk, record: &RawRecord) -> Outcome {
    let bytes = chunk.bytes.slice(record.range.clone());
    let mut outcome = Outcome::default();
    outcome.next.insert(record.position.lane, record.position.offset + 1);
    outcome.counts.records = 1;
    outcome.counts.bytes = bytes.len() as u64;
    outcome.dead_letters.push(DeadLetter {
        lane: Arc::clone(&chunk.lane(record).name),
        offset: record.position.offset,
        index: 0,
        reason: RejectReason::Malformed.as_str(),
        detail: "reading this record made the program panic; please report it".to_owned(),
        bytes,
    });
    outcome
}

/// Takes chunks through the stages that need no order. One for each thread.
#[derive(Debug)]
pub struct Worker {
    evaluator: Arc<Evaluator>,
    sources: Vec<(Formats, SourceSettings)>,
    everything: Arc<Need>,
    /// What detections with memory keep of their rows; `None` where there are none.
    kept: Option<Arc<Need>>,
    /// Number of the source that is an exchange, and detections as its records name them.
    exchange: Option<(usize, Arc<Numbers>)>,
}

impl Worker {
    /// `kept` is what detections with memory keep of their rows, where there are such detections.
    pub fn new(evaluator: Arc<Evaluator>, sources: &[SourceSettings], kept: Option<Arc<Need>>) -> Worker {
        let sources = sources.iter().map(|source| (Formats::new(source.format.clone()), source.clone())).collect();
        Worker { evaluator, sources, everything: Arc::new(Need::everything()), kept, exchange: None }
    }

    /// The source of this number is an exchange.
    pub fn with_exchange(self, exchange: Option<(usize, Arc<Numbers>)>) -> Worker {
        Worker { exchange, ..self }
    }

    /// Goes on with what a set of detections reads and keeps, where that is another than before.
    pub fn follow(&mut self, evaluator: &Arc<Evaluator>, kept: Option<&Arc<Need>>) {
        if !Arc::ptr_eq(&self.evaluator, evaluator) {
            (self.evaluator, self.kept) = (Arc::clone(evaluator), kept.cloned());
        }
    }

    /// Decodes and evaluates a chunk of the source of this index.
    ///
    /// A record on which the decoder panics becomes a dead letter and does not touch its neighbours.
    pub fn work(&mut self, source: usize, chunk: &Chunk) -> Outcome {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work_whole(source, chunk)));
        let mut outcome = worked.unwrap_or_else(|_| self.one_by_one(source, chunk));
        outcome.ended.clone_from(&chunk.ended);
        outcome.lanes = Arc::clone(&chunk.lanes);
        outcome
    }

    fn one_by_one(&mut self, source: usize, chunk: &Chunk) -> Outcome {
        let mut whole = Outcome::default();
        for record in &chunk.records {
            // What a panic left half done is not used again.
            let (formats, settings) = &mut self.sources[source];
            *formats = Formats::new(settings.format.clone());
            let single = Chunk { records: vec![record.clone()], ..chunk.clone() };
            let part = catch_unwind(AssertUnwindSafe(|| self.work_whole(source, &single)));
            whole.append(part.unwrap_or_else(|_| lost(&single, record)));
        }
        whole
    }

    fn work_whole(&mut self, source: usize, chunk: &Chunk) -> Outcome {
        if let Some((_, numbers)) = self.exchange.as_ref().filter(|(exchange, _)| *exchange == source) {
            return unpacked(chunk, numbers);
        }
        let started = Instant::now();
        let mut batch = self.decode(source, chunk);
        let decode_seconds = started.elapsed_seconds();
        let started = Instant::now();
        let found = self.evaluator.evaluate(&batch);
        let mut failures = found.failures;
        let detections = self.evaluator.detections();
        let (remember, at_once): (Vec<Hit>, Vec<Hit>) =
            found.hits.iter().partition(|hit| detections[hit.detection].memory.is_some());
        let trusted = &self.sources[source].1.trusted_proxies;
        let mut again = |need: &Arc<Need>, hits: &[Hit]| {
            if hits.is_empty() {
                return None;
            }
            let (again, more) = self.again(&batch, need, trusted, chunk, hits);
            failures.extend(more);
            again
        };
        let matched = again(&self.everything, &at_once).map(|again| again.in_full(&batch));
        let (mut kept, mut heard) = (None, Vec::new());
        if let Some(need) = &self.kept {
            heard = heard_of(&batch);
            kept = again(need, &remember).map(|again| again.in_part(&batch, need));
        }
        let mut next = BTreeMap::new();
        for record in &chunk.records {
            next.insert(record.position.lane, record.position.offset + 1);
        }
        Outcome {
            next,
            lanes: Arc::clone(&chunk.lanes),
            matched: matched.into_iter().collect(),
            kept: kept.into_iter().collect(),
            heard,
            ended: Vec::new(),
            exchanged: Vec::new(),
            dead_letters: std::mem::take(&mut batch.dead_letters),
            counts: batch.counts,
            failures,
            decode_seconds,
            evaluate_seconds: started.elapsed_seconds(),
        }
    }

    /// Decodes what the detections read.
    pub fn decode(&mut self, source: usize, chunk: &Chunk) -> EventBatch {
        let (formats, settings) = &mut self.sources[source];
        let need = Arc::clone(self.evaluator.need());
        decode(formats, need, Arc::clone(&settings.trusted_proxies), chunk)
    }

    /// Decodes the rows that were hit for another need, and settles what matched.
    fn again(
        &self,
        batch: &EventBatch,
        need: &Arc<Need>,
        trusted_proxies: &Arc<[IpNet]>,
        chunk: &Chunk,
        hits: &[Hit],
    ) -> (Option<Again>, Vec<Failure>) {
        let mut picked: Vec<usize> = hits.iter().map(|hit| hit.row).collect();
        picked.dedup();
        let place: BTreeMap<usize, usize> = picked.iter().enumerate().map(|(place, row)| (*row, place)).collect();
        let plain = match decode_rows(batch, need, Arc::clone(trusted_proxies), chunk, &picked).plain() {
            Ok(plain) if plain.num_rows() == picked.len() => plain,
            other => {
                let message = match other {
                    Ok(_) => "an event could not be read a second time".to_owned(),
                    Err(error) => error.to_string(),
                };
                let failure =
                    |hit: &Hit| Failure { detection: hit.detection, message: message.clone(), harmful: false };
                return (None, hits.iter().map(failure).collect());
            }
        };
        let (matches, failures) = self.evaluator.confirm(hits, &plain, |row| place[&row]);
        ((!matches.is_empty()).then_some(Again { picked, rows: plain, matches }), failures)
    }
}

/// Reads the records of an exchange.
fn unpacked(chunk: &Chunk, numbers: &Numbers) -> Outcome {
    let started = Instant::now();
    let mut outcome = Outcome::default();
    for record in &chunk.records {
        let sent = exchange::decode(chunk.payload(record), numbers);
        if let Err(reason) = &sent {
            outcome.dead_letters.push(DeadLetter {
                lane: Arc::clone(&chunk.lane(record).name),
                offset: record.position.offset,
                index: 0,
                reason: RejectReason::UnknownFormat.as_str(),
                detail: format!("a record of the exchange cannot be read: {reason}"),
                bytes: chunk.bytes.slice(record.range.clone()),
            });
        }
        outcome.next.insert(record.position.lane, record.position.offset + 1);
        outcome.counts.records += 1;
        outcome.counts.bytes += record.range.len() as u64;
        let time_ms = record.time_ms.unwrap_or_default();
        outcome.exchanged.push(Exchanged { position: record.position, time_ms, sent: sent.ok() });
    }
    outcome.decode_seconds = started.elapsed_seconds();
    outcome
}

/// Rows of a batch that were decoded a second time, and what matched of them.
struct Again {
    /// Their places in the batch.
    picked: Vec<usize>,
    /// All columns of the table; those that were not asked for are null.
    rows: RecordBatch,
    /// At least one.
    matches: Vec<Match>,
}

impl Again {
    /// With the events' texts, where all columns were asked for.
    fn in_full(self, batch: &EventBatch) -> MatchedRows {
        MatchedRows {
            texts: self.picked.iter().map(|row| batch.text(*row)).collect(),
            positions: self.picked.iter().map(|row| batch.rows[*row].position).collect(),
            arrival_ms: self.arrival_ms(batch),
            rows: self.rows,
            matches: self.matches,
        }
    }

    /// Cut to the columns that were asked for.
    fn in_part(self, batch: &EventBatch, need: &Need) -> KeptMatches {
        let columns: Vec<usize> = need.columns.iter().map(|column| column as usize).collect();
        let rows = self.rows.project(&columns).expect("every column is in the table");
        KeptMatches { rows: KeptRows { rows, arrival_ms: self.arrival_ms(batch) }, matches: self.matches }
    }

    fn arrival_ms(&self, batch: &EventBatch) -> Vec<Option<i64>> {
        self.picked.iter().map(|row| batch.rows[*row].arrival_ms).collect()
    }
}

fn decode_rows(
    batch: &EventBatch,
    need: &Arc<Need>,
    trusted_proxies: Arc<[IpNet]>,
    chunk: &Chunk,
    rows: &[usize],
) -> EventBatch {
    let mut builder = BatchBuilder::new(Arc::clone(need), trusted_proxies, chunk, rows.len());
    for &row in rows {
        let source = &batch.rows[row];
        let text = batch.text(row);
        builder.place(source.position, source.arrival_ms);
        builder.event(&fields_of(&text), &source.context);
    }
    builder.finish()
}

/// How far the lanes of a batch have come.
fn heard_of(batch: &EventBatch) -> Vec<Heard> {
    let times = batch.column(Column::EventTime).and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let clusters = batch.column(Column::ClusterId).and_then(|array| array.as_dictionary_opt::<Int32Type>());
    let (Some(times), Some(clusters)) = (times, clusters) else { return Vec::new() };
    let Some(names) = clusters.values().as_string_opt::<i32>() else { return Vec::new() };
    memory::heard(batch.rows.iter().enumerate().filter_map(|(row, source)| {
        let known = times.is_valid(row) && clusters.is_valid(row);
        let name = known.then(|| names.value(clusters.keys().value(row) as usize))?;
        Some((source.position.lane, name, times.value(row), source.arrival_ms))
    }))
}

/// The fields of an event that was read before.
fn fields_of(text: &[u8]) -> crate::model::EventFields<'_> {
    let walked = native::walk(text);
    let mut fields = walked.fields;
    fields.cut = matches!(walked.ending, native::Ending::Damaged(_));
    fields.text = text;
    fields
}

/// Takes the records of a chunk through format and batch.
pub fn decode(formats: &mut Formats, need: Arc<Need>, trusted_proxies: Arc<[IpNet]>, chunk: &Chunk) -> EventBatch {
    let mut builder = BatchBuilder::new(need, trusted_proxies, chunk, chunk.records.len());
    for record in &chunk.records {
        let lane = chunk.lane(record);
        builder.start_record(record, &lane.name);
        formats.decode(chunk.payload(record), record, lane, &mut builder);
    }
    builder.finish()
}

/// The matches of an outcome by detection, for counting.
pub fn matches_by_detection(matches: &[Match]) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    matches.iter().for_each(|found| *counts.entry(found.detection).or_insert(0) += 1);
    counts
}

/// A chunk of records that are all at hand, of one lane.
pub fn chunk_of(records: &[impl AsRef<[u8]>], lane: crate::model::Lane) -> Chunk {
    let mut bytes = Vec::new();
    let mut raw = Vec::with_capacity(records.len());
    for (offset, record) in records.iter().enumerate() {
        let start = bytes.len();
        bytes.extend_from_slice(record.as_ref());
        raw.push(crate::model::RawRecord {
            position: Position { lane: 0, offset: offset as u64 },
            range: start..bytes.len(),
            time_ms: None,
            cluster: None,
        });
    }
    Chunk { bytes: bytes.into(), records: raw, lanes: Arc::from([lane]), ended: Vec::new() }
}
