//! A batch of decoded events, and what its reader asks the decoder for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;

use super::{ALERTS_SCHEMA, AUDIT_SCHEMA, Column, ColumnSet, DeadLetter, EventContext, Position, SkipReason};

/// What the readers of a batch need decoded: taken from the plans of the loaded detections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    pub columns: ColumnSet,
    /// The events whose bodies somebody reads; other bodies are skipped unread.
    pub bodies: Bodies,
    /// Columns of bodies that are not built with the batch, but for the rows for which somebody asks [`LateBodies`].
    pub late: ColumnSet,
}

/// Which columns of bodies are read, by resource and verb.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bodies {
    readers: Vec<Reader>,
}

/// Somebody who reads columns of the bodies of some events; `None` stands for any resource or verb.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reader {
    resources: Option<BTreeSet<String>>,
    verbs: Option<BTreeSet<String>>,
    columns: ColumnSet,
}

impl Need {
    /// Every column of every event.
    pub fn everything() -> Need {
        let mut bodies = Bodies::default();
        bodies.add(None, None, ColumnSet::all());
        Need { columns: ColumnSet::all(), bodies, late: ColumnSet::EMPTY }
    }
}

impl Bodies {
    /// Adds a reader of these columns of the bodies of these resources and verbs, where `None` stands for any.
    pub fn add(&mut self, resources: Option<&BTreeSet<String>>, verbs: Option<&BTreeSet<String>>, columns: ColumnSet) {
        let same = |reader: &&mut Reader| reader.resources.as_ref() == resources && reader.verbs.as_ref() == verbs;
        match self.readers.iter_mut().find(same) {
            Some(reader) => reader.columns = reader.columns.union(columns),
            None => {
                self.readers.push(Reader { resources: resources.cloned(), verbs: verbs.cloned(), columns });
            }
        }
    }

    /// The columns that somebody reads of the bodies of such an event; none: the bodies are skipped.
    pub fn wanted(&self, resource: &str, verb: &str) -> ColumnSet {
        let reads = |set: &Option<BTreeSet<String>>, name: &str| set.as_ref().is_none_or(|set| set.contains(name));
        let readers =
            self.readers.iter().filter(|reader| reads(&reader.resources, resource) && reads(&reader.verbs, verb));
        readers.fold(ColumnSet::EMPTY, |all, reader| all.union(reader.columns))
    }
}

/// Reads columns out of bodies for the rows that are asked about.
pub trait ReadBodies: std::fmt::Debug + Send + Sync {
    /// The columns of bodies that are wanted of these rows of the batch, as they are laid out: one entry for each of
    /// `rows`, in their order. Of a row only its own columns are filled in, others may be null.
    fn read(&self, rows: &[(usize, ColumnSet)]) -> Vec<(Column, ArrayRef)>;
}

/// Columns of the header of which a [`LateBodies`] also says whether they may be filled.
pub const FORETOLD: [Column; 2] = [Column::ExecCommand, Column::ExecContainer];

/// The bodies of a batch that were not read yet.
#[derive(Debug, Clone)]
pub struct LateBodies {
    /// By row: what its bodies are like, an index of `fillable`.
    pub shapes: Vec<u16>,
    /// The columns that events of a shape may fill. Every other column of a body is null, and so is every other one of
    /// [`FORETOLD`].
    pub fillable: Vec<ColumnSet>,
    pub reader: Arc<dyn ReadBodies>,
}

/// Where an event's text is: in the chunk that it came in, or in the batch's own bytes where it had to be unwrapped.
#[derive(Debug, Clone)]
pub struct Row {
    pub text: Range<usize>,
    pub unwrapped: bool,
    pub position: Position,
    pub context: EventContext,
    /// Time that the transport gives the record, milliseconds since the epoch.
    pub arrival_ms: Option<i64>,
}

/// What became of the records of a batch; every element of a record is counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchCounts {
    pub records: u64,
    pub bytes: u64,
    /// Events by [`super::Cloud`], in the order of `Cloud::ALL`.
    pub events: [u64; 5],
    /// Skipped elements by [`SkipReason`], in the order of `SkipReason::ALL`.
    pub skipped: [u64; SkipReason::ALL.len()],
    /// Events that were cut or lost their bodies.
    pub truncated: u64,
}

impl BatchCounts {
    /// Adds the counts of other records.
    pub fn add(&mut self, other: &BatchCounts) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.truncated += other.truncated;
        self.events.iter_mut().zip(other.events).for_each(|(sum, more)| *sum += more);
        self.skipped.iter_mut().zip(other.skipped).for_each(|(sum, more)| *sum += more);
    }
}

/// Decoded events: Arrow columns of what somebody reads, and where each row is from.
///
/// Columns whose registry entry says so are dictionaries here; [`EventBatch::plain`] gives them as SQL sees them.
#[derive(Debug, Clone)]
pub struct EventBatch {
    /// The needed columns in table order.
    pub columns: RecordBatch,
    pub rows: Vec<Row>,
    pub chunk: Bytes,
    /// Texts that were unwrapped.
    pub unwrapped: Bytes,
    pub dead_letters: Vec<DeadLetter>,
    pub counts: BatchCounts,
    /// Where the batch was asked for without the columns of bodies.
    pub late: Option<LateBodies>,
}

impl EventBatch {
    /// The JSON text of a row's event. Shares the batch's bytes.
    pub fn text(&self, row: usize) -> Bytes {
        let Some(row) = self.rows.get(row) else { return Bytes::new() };
        let bytes = if row.unwrapped { &self.unwrapped } else { &self.chunk };
        bytes.slice(row.text.clone())
    }

    /// A column as it is laid out, if somebody asked for it.
    pub fn column(&self, column: Column) -> Option<&ArrayRef> {
        self.columns.column_by_name(column.name())
    }

    /// The whole batch in the plain types of [`AUDIT_SCHEMA`]; columns that were not decoded are null. For batches in
    /// which every column was asked for.
    pub fn plain(&self) -> Result<RecordBatch, ArrowError> {
        let columns = AUDIT_SCHEMA.fields().iter().map(|field| match self.columns.column_by_name(field.name()) {
            Some(array) => plain(array),
            None => Ok(arrow::array::new_null_array(field.data_type(), self.rows.len())),
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(&AUDIT_SCHEMA), columns, &options)
    }
}

/// An array in the plain type that SQL sees.
pub fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.as_any_dictionary_opt() {
        // `take` rather than `cast`: it also serves lists.
        Some(dictionary) => take(dictionary.values(), &cast(dictionary.keys(), &DataType::Int32)?, None),
        None => Ok(Arc::clone(array)),
    }
}

/// Some rows of an array in the plain type that SQL sees.
pub fn plain_rows(array: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef, ArrowError> {
    match array.as_any_dictionary_opt() {
        Some(dictionary) => take(dictionary.values(), &take(dictionary.keys(), rows, None)?, None),
        None => take(array, rows, None),
    }
}

/// The schema of a set of columns in plain types, in table order.
pub fn plain_schema(columns: ColumnSet) -> SchemaRef {
    let indices: Vec<usize> = columns.iter().map(|column| column as usize).collect();
    Arc::new(ALERTS_SCHEMA.project(&indices).expect("every column is in that table"))
}
