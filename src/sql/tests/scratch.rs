//! Queries answered the plain way, as something to compare with: DataFusion as it comes, planned anew for each table.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use serde_json::Value;

use super::super::Span;
use super::super::session::block_on;
use crate::model::cell;

/// A session with nothing but DataFusion's defaults.
#[derive(Default)]
pub(crate) struct Scratch(SessionContext);

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl Scratch {
    /// The rows of the answer over the table `audit` that has just these rows, as values, in no order.
    pub(crate) fn answer(&self, sql: &str, rows: &RecordBatch, span: Span) -> Vec<Vec<Value>> {
        let time = |us: i64| format!("arrow_cast({us}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
        let sql = sql.replace("window_start()", &time(span.start_us)).replace("window_end()", &time(span.end_us));
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).expect("a table of one batch");
        self.0.deregister_table("audit").expect("a table or none");
        self.0.register_table("audit", Arc::new(table)).expect("a name that is free");
        let batches = block_on(async { self.0.sql(&sql).await?.collect().await }).expect("the test's own query runs");
        let values = |batch: &RecordBatch, row: usize| batch.columns().iter().map(|column| cell(column, row)).collect();
        batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| values(batch, row))).collect()
    }
}
