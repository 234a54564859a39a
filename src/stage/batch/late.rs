//! Bodies that are read only where somebody asks for them.
//!
//! While a batch is built, a body costs no more than a look at its kind: which columns can it fill at all? What was left
//! unread is found again by its place in the bytes that the batch keeps.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::Int32Type;
use bytes::Bytes;

use super::body::{self, Request};
use super::builders::Columns;
use crate::json::{Cursor, Raw};
use crate::model::{Column, ColumnSet, EventFields, LateBodies, ReadBodies};

/// Header columns that the reading of bodies depends on.
pub(super) const DEPENDS: [Column; 4] = [Column::Verb, Column::ApiGroup, Column::Resource, Column::Subresource];

/// Where a body lies: in the chunk, or in the batch's own bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub range: Range<usize>,
    pub unwrapped: bool,
}

/// The bodies of one event.
#[derive(Debug, Clone, Default)]
struct Places {
    request: Option<Place>,
    response: Option<Place>,
}

/// What is noted of the bodies of a batch in the making.
#[derive(Debug)]
pub(super) struct Notes {
    shapes: Vec<u16>,
    fillable: Vec<ColumnSet>,
    places: Vec<Places>,
}

impl Notes {
    /// Notes about so many events.
    pub fn new(events: usize) -> Notes {
        Notes { shapes: Vec::with_capacity(events), fillable: Vec::new(), places: Vec::with_capacity(events) }
    }

    /// Notes the next event, which may fill these columns. Bodies that nobody reads need no place.
    pub fn note(&mut self, fillable: ColumnSet, request: Option<Place>, response: Option<Place>) {
        // There are few shapes: one for each kind of object and each way to send it.
        let shape = self.fillable.iter().position(|known| *known == fillable).unwrap_or_else(|| {
            self.fillable.push(fillable);
            self.fillable.len() - 1
        });
        self.shapes.push(shape as u16);
        self.places.push(Places { request, response });
    }

    /// The bodies of the finished batch, whose columns are `header`.
    pub fn finish(self, late: ColumnSet, header: &[(Column, ArrayRef)], chunk: Bytes, unwrapped: Bytes) -> LateBodies {
        let array =
            |column: Column| header.iter().find(|(known, _)| *known == column).map(|(_, array)| Arc::clone(array));
        let depends = DEPENDS.map(|column| array(column).expect("a late need includes what bodies depend on"));
        let reader = Reader { late, depends, places: self.places, chunk, unwrapped };
        LateBodies { shapes: self.shapes, fillable: self.fillable, reader: Arc::new(reader) }
    }
}

/// Reads the bodies of a finished batch.
#[derive(Debug)]
struct Reader {
    late: ColumnSet,
    /// In the order of [`DEPENDS`].
    depends: [ArrayRef; 4],
    places: Vec<Places>,
    chunk: Bytes,
    unwrapped: Bytes,
}

impl Reader {
    fn body(&self, place: Option<&Place>) -> Option<Raw<'_>> {
        let place = place?;
        let bytes = if place.unwrapped { &self.unwrapped } else { &self.chunk };
        Cursor::new(bytes.get(place.range.clone())?).raw().ok()
    }

    fn header(&self, index: usize, row: usize) -> &str {
        text(&self.depends[index], row).unwrap_or_default()
    }
}

impl ReadBodies for Reader {
    fn read(&self, rows: &[(usize, ColumnSet)]) -> Vec<(Column, ArrayRef)> {
        let all = rows.iter().fold(ColumnSet::EMPTY, |all, (_, wanted)| all.union(*wanted)).intersection(self.late);
        let mut columns = Columns::new(all, rows.len());
        for (index, (row, wanted)) in rows.iter().enumerate() {
            let Some(places) = self.places.get(*row) else { continue };
            let fields = EventFields {
                request_object: self.body(places.request.as_ref()),
                response_object: self.body(places.response.as_ref()),
                ..EventFields::default()
            };
            columns.row = index;
            columns.wanted = wanted.intersection(self.late);
            let subresource = self.header(3, *row);
            let request = Request {
                verb: self.header(0, *row),
                api_group: self.header(1, *row),
                resource: self.header(2, *row),
                subresource: !subresource.is_empty() && subresource != "ephemeralcontainers",
            };
            body::fill(&mut columns, &fields, &request);
        }
        columns.finish(rows.len())
    }
}

/// The text of a row of a dictionary column.
fn text(array: &ArrayRef, row: usize) -> Option<&str> {
    let array = array.as_dictionary_opt::<Int32Type>()?;
    let values: &StringArray = array.values().as_string_opt::<i32>()?;
    (row < array.len() && array.is_valid(row)).then(|| values.value(array.keys().value(row) as usize))
}
