//! The table `audit` as DataFusion sees it: a schema to plan against, and a leaf that reads the rows of one execution.
//!
//! Rows do not live in the table. They travel in the task context of an execution ([`Rows`]), so one prepared plan can
//! run on several threads at once, each over its own event.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};

use super::canonical::has_subquery;
use crate::model::AUDIT_SCHEMA;

/// The name of the table of events.
pub(super) const AUDIT: &str = "audit";
/// The name of the table of alerts, which only a window sees.
pub(super) const ALERTS: &str = "alerts";

/// The rows that one execution sees: of each batch either all columns of the table, or those that the plan reads.
#[derive(Debug)]
pub(super) struct Rows(pub(super) Vec<RecordBatch>);

impl Rows {
    /// The columns of a schema, by name where not all are there.
    fn read(batch: &RecordBatch, projection: Option<&[usize]>, schema: &SchemaRef) -> Result<RecordBatch> {
        if batch.num_columns() == AUDIT_SCHEMA.fields().len() {
            return match projection {
                Some(columns) => Ok(batch.project(columns)?),
                None => Ok(batch.clone()),
            };
        }
        let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => Ok(Arc::clone(column)),
            None => datafusion::common::exec_err!("the rows lack the column {}", field.name()),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}

/// A table of this schema.
#[derive(Debug)]
pub(super) struct Table(pub(super) SchemaRef);

impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    // The trait is declared through a macro of a crate that nothing else here needs; this is what it expands to.
    fn scan<'life0, 'life1, 'life2, 'life3, 'async_trait>(
        &'life0 self,
        _session: &'life1 dyn Session,
        projection: Option<&'life2 Vec<usize>>,
        _filters: &'life3 [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<dyn ExecutionPlan>>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let scan: Arc<dyn ExecutionPlan> = Arc::new(AuditScan::new(&self.0, projection.cloned())?);
            Ok(scan)
        })
    }

    /// Filters are not applied here, only seen: they tell which rows are worth running a plan for.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match has_subquery(filter) {
            true => TableProviderFilterPushDown::Unsupported,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(answer).collect())
    }
}

/// Reads the [`Rows`] of the task context, which are of this schema as they are.
pub(super) fn state_scan(schema: SchemaRef) -> Arc<dyn ExecutionPlan> {
    Arc::new(AuditScan::of(Read::AsIs, schema))
}

/// How rows are read.
#[derive(Debug)]
enum Read {
    /// As rows of the table, by the places of columns; `None`: all of them.
    Table(Option<Vec<usize>>),
    /// With the columns that they have.
    AsIs,
}

/// Reads the [`Rows`] of the task context.
#[derive(Debug)]
struct AuditScan {
    read: Read,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl AuditScan {
    fn new(table: &SchemaRef, projection: Option<Vec<usize>>) -> Result<Self> {
        let schema = match &projection {
            Some(columns) => Arc::new(table.project(columns)?),
            None => Arc::clone(table),
        };
        Ok(AuditScan::of(Read::Table(projection), schema))
    }

    fn of(read: Read, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        AuditScan { read, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for AuditScan {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditScan")
    }
}

impl ExecutionPlan for AuditScan {
    fn name(&self) -> &'static str {
        "AuditScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(rows) = context.session_config().get_extension::<Rows>() else {
            return datafusion::common::internal_err!("the plan runs without rows");
        };
        let read = |batch: &RecordBatch| match &self.read {
            Read::Table(projection) => Rows::read(batch, projection.as_deref(), &self.schema),
            Read::AsIs => Ok(batch.clone()),
        };
        let batches: Vec<RecordBatch> = rows.0.iter().map(read).collect::<Result<_>>()?;
        Ok(Box::pin(MemoryStream::try_new(batches, Arc::clone(&self.schema), None)?))
    }
}
