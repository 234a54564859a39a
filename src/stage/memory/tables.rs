//! What memories are saved as: named Arrow tables, and the columns that they have in common.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field as ArrowField, Float64Type, Int32Type, Int64Type, Schema};

use super::{Entry, Kept, Key, kept_rows};
use crate::model::KeptRows;

/// Columns that a table of entries has besides those of `audit`.
const ARRIVAL: &str = "arrival_ms";
const COMPUTED: &str = "computed";

/// A table of columns that have no nulls.
pub fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<ArrowField> =
        columns.iter().map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one table have one length")
}

/// Keys as a column.
pub fn keys<'a>(keys: impl Iterator<Item = &'a Key>) -> ArrayRef {
    let mut builder = arrow::array::FixedSizeBinaryBuilder::new(16);
    keys.for_each(|key| builder.append_value(key).expect("a key has 16 bytes"));
    Arc::new(builder.finish())
}

/// The table of a name.
pub fn named<'a>(tables: &'a [(String, RecordBatch)], name: &str) -> Result<&'a RecordBatch, String> {
    let found = tables.iter().find(|(known, _)| known == name);
    found.map(|(_, table)| table).ok_or_else(|| format!("table {name} is missing"))
}

fn column<'a>(table: &'a RecordBatch, name: &str, kind: &DataType) -> Result<&'a ArrayRef, String> {
    let column = table.column_by_name(name).filter(|column| column.data_type() == kind && column.null_count() == 0);
    column.ok_or_else(|| format!("column {name} is not as expected"))
}

/// The column `key`.
pub fn read_keys(table: &RecordBatch) -> Result<Vec<Key>, String> {
    let array = column(table, "key", &DataType::FixedSizeBinary(16))?;
    let array = array.as_any().downcast_ref::<FixedSizeBinaryArray>().ok_or("column key is not as expected")?;
    (0..array.len()).map(|row| Key::try_from(array.value(row)).map_err(|error| error.to_string())).collect()
}

/// A column of 32-bit integers.
pub fn ints(table: &RecordBatch, name: &str) -> Result<Vec<i32>, String> {
    Ok(column(table, name, &DataType::Int32)?.as_primitive::<Int32Type>().values().to_vec())
}

/// A column of 64-bit integers.
pub fn ints64(table: &RecordBatch, name: &str) -> Result<Vec<i64>, String> {
    Ok(column(table, name, &DataType::Int64)?.as_primitive::<Int64Type>().values().to_vec())
}

/// A column of texts.
pub fn texts(table: &RecordBatch, name: &str) -> Result<Vec<String>, String> {
    let array: &StringArray = column(table, name, &DataType::Utf8)?.as_string();
    Ok(array.iter().flatten().map(str::to_owned).collect())
}

/// Entries as a table: the kept columns of their events, with what was computed.
pub fn entries_table(entries: &[Entry]) -> RecordBatch {
    let KeptRows { rows, arrival_ms } = kept_rows(entries);
    let computed = entries.iter().map(|entry| {
        let pairs = entry.computed().iter().map(|(name, value)| (name.to_string(), value.clone()));
        Some(serde_json::Value::Object(pairs.collect()).to_string())
    });
    let computed: StringArray = computed.collect();
    let schema = rows.schema();
    let mut columns: Vec<(&str, ArrayRef)> = schema
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, array)| (field.name().as_str(), Arc::clone(array)))
        .collect();
    columns.push((ARRIVAL, Arc::new(Int64Array::from(arrival_ms))));
    columns.push((COMPUTED, Arc::new(computed)));
    table(columns)
}

/// The entries of a table, in its order.
///
/// # Errors
/// Names the column that is not as expected.
pub fn entries_of(table: &RecordBatch) -> Result<Vec<Entry>, String> {
    let arrival = table.column_by_name(ARRIVAL).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let arrival_ms = arrival.ok_or("column arrival_ms is missing")?.iter().collect();
    let computed = texts(table, COMPUTED)?;
    let schema = table.schema();
    let names = schema.fields().iter().enumerate();
    let own = names.filter(|(_, field)| ![ARRIVAL, COMPUTED].contains(&field.name().as_str())).map(|(index, _)| index);
    let rows = table.project(&own.collect::<Vec<_>>()).map_err(|error| error.to_string())?;
    let kept = Arc::new(Kept::new(KeptRows { rows, arrival_ms }));
    let entry = |(row, text): (usize, String)| {
        let computed: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(|error| format!("column computed: {error}"))?;
        let computed = computed.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
        Ok(Entry::new(&kept, row, kept.event_us(row).unwrap_or_default(), computed))
    };
    computed.into_iter().enumerate().map(entry).collect()
}

/// Texts as a column.
pub fn text_column<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// 64-bit integers as a column.
pub fn int_column(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Numbers as a column.
pub fn float_column(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// A column of numbers.
pub fn floats(table: &RecordBatch, name: &str) -> Result<Vec<f64>, String> {
    Ok(column(table, name, &DataType::Float64)?.as_primitive::<Float64Type>().values().to_vec())
}

/// A value that a text of a table holds as JSON.
pub fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("'{text}' is not as expected: {error}"))
}
