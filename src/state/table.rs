//! Tables as bytes: Arrow IPC streams, compressed with zstd, each with its BLAKE3.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use bytes::Bytes;

/// A named table.
pub type Table = (String, RecordBatch);

/// A table's stored form. The same rows give the same bytes, so that a table that did not change is found again by its
/// checksum.
pub(super) fn encode(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), batch.schema_ref(), options)?;
    writer.write(batch)?;
    Ok(Bytes::from(writer.into_inner()?))
}

/// Whether two tables have the same content, as far as that can be told at little cost: columns that are shared are the
/// same, others are compared.
pub(super) fn same(one: &RecordBatch, other: &RecordBatch) -> bool {
    one.num_rows() == other.num_rows()
        && one.schema_ref() == other.schema_ref()
        && one.columns().iter().zip(other.columns()).all(|(one, other)| Arc::ptr_eq(one, other) || one == other)
}

/// Whether most columns live on elsewhere, so that keeping them costs nothing: tables that never change are handed out
/// again and again, others are made for the occasion.
pub(super) fn is_shared(batch: &RecordBatch) -> bool {
    let shared = batch.columns().iter().filter(|column| Arc::strong_count(column) > 1).count();
    shared * 2 > batch.num_columns()
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<RecordBatch, ArrowError> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>()?;
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) => concat_batches(&schema, &batches),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, StringArray, UInt64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn tables_of_any_type_and_none_come_back_as_they_were() {
        let keys = FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [2; 16]].into_iter()).expect("of one length");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("key", Arc::new(keys)),
            ("text", Arc::new(StringArray::from(vec![Some("ü"), None]))),
            ("number", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
            ("count", Arc::new(UInt64Array::from(vec![0, u64::MAX]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("of one length");
        for batch in [batch.clone(), batch.slice(1, 1), batch.slice(0, 0)] {
            let encoded = encode(&batch).expect("it has a stored form");
            assert_eq!(decode(&encoded).expect("whole"), batch);
            assert_eq!(encode(&batch).expect("again"), encoded);
        }
    }

    #[test]
    fn what_is_shared_and_what_is_the_same_is_told_apart() {
        let batch = |values: [i64; 2]| {
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)])
                .expect("a table")
        };
        let one = batch([1, 2]);
        assert!(!is_shared(&one));
        let alias = one.clone();
        assert!(is_shared(&one) && same(&one, &alias) && same(&one, &batch([1, 2])));
        assert!(!same(&one, &batch([1, 3])) && !same(&one, &one.slice(0, 1)));
    }

    #[test]
    fn bytes_that_are_no_table_are_an_error() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).expect("it fits");
        let encoded = encode(&batch).expect("it has a stored form");
        assert!(decode(&[]).is_err());
        assert!(decode(b"not a table at all").is_err());
        assert!(decode(&encoded[..encoded.len() / 2]).is_err());
    }
}
