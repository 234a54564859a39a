//! What a window remembers as tables, and back.
//!
//! - `window`: one row, where it is: the last hop, the number of the next event, what was shed;
//! - `edges`: one row for each key;
//! - `rows-<end of the pane>-<number of the first row>-<how many>`: events that were closed together. They never change,
//!   so a table of the same name has the same content;
//! - `tried`: the groups of the pane that is not closed yet that were asked about early;
//! - `open`: the events of the pane that is not closed yet.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use arrow::record_batch::RecordBatch;

use super::super::{Entry, Kept};
use super::Window;
use super::edges::Edge;
use super::ring::Chunk;
use crate::model::KeptRows;

const WINDOW: &str = "window";
const EDGES: &str = "edges";
const OPEN: &str = "open";
const TRIED: &str = "tried";
const ROWS: &str = "rows-";
const ARRIVAL: &str = "arrival_ms";

/// All tables.
pub(super) fn save(window: &Window) -> Result<Vec<(String, RecordBatch)>, String> {
    let mut tables = vec![(WINDOW.to_owned(), position(window)?), (EDGES.to_owned(), edges(window)?)];
    if !window.tried.is_empty() {
        tables.push((TRIED.to_owned(), tried(window)?));
    }
    for pane in window.ring.panes() {
        for chunk in &pane.chunks {
            let rows = with_arrival(&chunk.rows, &chunk.arrival_ms)?;
            tables.push((format!("{ROWS}{}-{}-{}", pane.end_us, chunk.first, chunk.rows.num_rows()), rows));
        }
    }
    // Rows that lack a column are lost when their pane is closed, and told then.
    if let Ok((open, arrival_ms)) = window.ring.open()
        && open.num_rows() > 0
    {
        tables.push((OPEN.to_owned(), with_arrival(&open, &arrival_ms)?));
    }
    Ok(tables)
}

/// Reads them into a fresh window.
pub(super) fn restore(window: &mut Window, tables: &[(String, RecordBatch)]) -> Result<(), String> {
    let table = |name: &str| tables.iter().find(|(found, _)| found == name).map(|(_, table)| table);
    let here = table(WINDOW).ok_or("the table `window` is missing")?;
    if here.num_rows() != 1 {
        return Err(format!("the table `window` has {} rows instead of one", here.num_rows()));
    }
    let next = numbers(here, "next")?.value(0);
    let done = ints(here, "done_us")?;
    window.done_us = done.is_valid(0).then(|| done.value(0));
    window.shed = numbers(here, "shed")?.value(0);
    restore_edges(window, table(EDGES).ok_or("the table `edges` is missing")?)?;

    if let Some(rows) = table(TRIED) {
        let (groups, again) = (numbers(rows, "group")?, numbers(rows, "again")?);
        window.tried = groups.values().iter().copied().zip(again).collect();
    }
    let mut chunks = Vec::new();
    for (name, rows) in tables {
        let Some(place) = name.strip_prefix(ROWS) else { continue };
        let place = place.rsplit_once('-').and_then(|(place, _)| place.rsplit_once('-'));
        let place = place.and_then(|(end, first)| Some((end.parse().ok()?, first.parse().ok()?)));
        let (end_us, first) = place.ok_or_else(|| format!("the table `{name}` has no pane"))?;
        chunks.push((end_us, Chunk::new(rows.clone(), ints(rows, ARRIVAL)?.clone(), first)));
    }
    chunks.sort_by_key(|(_, chunk)| chunk.first);
    let open = match table(OPEN) {
        Some(rows) => {
            let arrival_ms = ints(rows, ARRIVAL)?.iter().collect();
            let kept = Arc::new(Kept::new(KeptRows { rows: rows.clone(), arrival_ms }));
            let entries: Vec<Entry> = (0..rows.num_rows())
                .map(|row| Entry::new(&kept, row, kept.event_us(row).unwrap_or_default(), [].into()))
                .collect();
            let first = entries.first().ok_or("the table `open` has no row")?;
            Some((window.rule.pane_end(first.event_us), entries))
        }
        None => None,
    };
    window.ring.restore(chunks, open)?;
    window.ring.resume(next);
    if window.rule.early {
        // Rows of an open pane are counted as they come.
        window.ring.close()?;
    }
    Ok(())
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, String> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .map_err(|error| error.to_string())
}

fn position(window: &Window) -> Result<RecordBatch, String> {
    table(vec![
        ("done_us", Arc::new(Int64Array::from(vec![window.done_us]))),
        ("next", Arc::new(UInt64Array::from(vec![window.ring.next()]))),
        ("shed", Arc::new(UInt64Array::from(vec![window.shed]))),
    ])
}

fn edges(window: &Window) -> Result<RecordBatch, String> {
    let all = || window.edges.iter().map(|(_, edge)| edge);
    let told = all().map(|edge| Some(serde_json::to_string(&edge.told).expect("numbers are JSON")));
    table(vec![
        ("key", Arc::new(StringArray::from_iter_values(window.edges.iter().map(|(key, _)| key)))),
        ("at_us", Arc::new(Int64Array::from_iter_values(all().map(|edge| edge.at_us)))),
        ("last_us", Arc::new(Int64Array::from_iter_values(all().map(|edge| edge.last_us)))),
        ("on", Arc::new(all().map(|edge| Some(edge.on)).collect::<BooleanArray>())),
        ("told", Arc::new(told.collect::<StringArray>())),
    ])
}

fn tried(window: &Window) -> Result<RecordBatch, String> {
    table(vec![
        ("group", Arc::new(UInt64Array::from_iter_values(window.tried.keys().copied()))),
        ("again", Arc::new(window.tried.values().copied().collect::<UInt64Array>())),
    ])
}

fn restore_edges(window: &mut Window, rows: &RecordBatch) -> Result<(), String> {
    let (keys, told) = (texts(rows, "key")?, texts(rows, "told")?);
    let (at_us, last_us) = (ints(rows, "at_us")?, ints(rows, "last_us")?);
    let on = column(rows, "on")?.as_boolean_opt().ok_or("the column `on` is not of true and false")?;
    for row in 0..rows.num_rows() {
        let told = serde_json::from_str(told.value(row)).map_err(|error| error.to_string())?;
        let edge = Edge::new(at_us.value(row), last_us.value(row), on.value(row), told);
        window.edges.insert(keys.value(row), edge)?;
    }
    Ok(())
}

fn with_arrival(rows: &RecordBatch, arrival_ms: &Int64Array) -> Result<RecordBatch, String> {
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ARRIVAL, DataType::Int64, true)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(arrival_ms.clone()));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|error| error.to_string())
}

/// A column of a table that has a row.
fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    rows.column_by_name(name).ok_or_else(|| format!("the column `{name}` is missing"))
}

fn ints<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, String> {
    column(rows, name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| format!("the column `{name}` is not of numbers"))
}

fn numbers<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a UInt64Array, String> {
    column(rows, name)?.as_primitive_opt::<UInt64Type>().ok_or_else(|| format!("the column `{name}` is not of numbers"))
}

fn texts<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray, String> {
    column(rows, name)?.as_string_opt::<i32>().ok_or_else(|| format!("the column `{name}` is not of text"))
}
