//! Alerts as rows of the table `alerts`: what was told of the event that raised each, and what the alert says.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Array, ListBuilder, StringArray, StringBuilder, TimestampMicrosecondArray, new_null_array,
};

use arrow::record_batch::RecordBatch;

use super::tables::table;
use crate::model::{ALERTS_SCHEMA, Alert, Column, ColumnSet, KeptRows};

/// A row of alerts with all columns of the table; those that are not kept are null.
pub fn whole(rows: &KeptRows) -> RecordBatch {
    let columns = ALERTS_SCHEMA.fields().iter().map(|field| match rows.rows.column_by_name(field.name()) {
        Some(array) => Arc::clone(array),
        None => new_null_array(field.data_type(), rows.rows.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(&ALERTS_SCHEMA), columns.collect()).expect("columns have the types of the table")
}

/// The row of an alert; `None` where its event is not known.
///
/// Its time is that of the alert, its identity the finding's uid: an alert counts once, however often it is told.
pub fn row(alert: &Alert, columns: ColumnSet) -> Option<KeptRows> {
    let subject = alert.subject.as_ref()?;
    let columns = columns.iter().map(|column| {
        let own = own(alert, column);
        let known = || subject.rows.column_by_name(column.name()).map(Arc::clone);
        let array = own.or_else(known).unwrap_or_else(|| new_null_array(&column.info().kind.data_type(), 1));
        (column.name(), array)
    });
    Some(KeptRows { rows: table(columns.collect()), arrival_ms: vec![None] })
}

/// What the alert says itself.
fn own(alert: &Alert, column: Column) -> Option<ArrayRef> {
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let halves = alert.attack.iter().filter_map(|id| id.split_once('/'));
    Some(match column {
        Column::EventTime => Arc::new(TimestampMicrosecondArray::from(vec![alert.at_us]).with_timezone("UTC")),
        Column::EventId | Column::RequestId | Column::AlertUid => text(&alert.uid),
        Column::Detection => text(&alert.detection),
        Column::AlertSeverity => Arc::new(Int64Array::from(vec![i64::from(alert.severity.ocsf_id())])),
        Column::Tactic => Arc::new(StringArray::from(vec![halves.map(|(tactic, _)| tactic).next()])),
        Column::Tactics => texts(halves.map(|(tactic, _)| tactic)),
        Column::Techniques => texts(halves.map(|(_, technique)| technique)),
        _ => return None,
    })
}

/// A list of one row, each text once.
fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> ArrayRef {
    let mut once: Vec<&str> = texts.collect();
    once.sort_unstable();
    once.dedup();
    let mut list = ListBuilder::new(StringBuilder::new());
    list.append_value(once.into_iter().map(Some));
    Arc::new(list.finish())
}
