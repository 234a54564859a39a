//! `window_start()` and `window_end()`: the window that a query is being run over; and how far the run may go.
//!
//! A plan is prepared once and run for every hop, so none of this can be constants of it. The functions are volatile,
//! which keeps the planner from computing them early, and read what the run put down for its thread: plans have one
//! partition and run on the thread that calls them.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

use super::super::error::bound_error;
use super::FunctionInfo;
use crate::clock::Instant;

/// The functions that only detections with a window have, in the order of the documentation.
pub static WINDOW_FUNCTIONS: &[FunctionInfo] = &[
    FunctionInfo {
        name: "window_start",
        signature: "window_start() -> timestamp",
        doc: "The first moment of the window that the query runs over; events of this moment belong to it. Only in a detection with a `window`.",
        example: "event_time < window_start() + INTERVAL '1 minute'",
    },
    FunctionInfo {
        name: "window_end",
        signature: "window_end() -> timestamp",
        doc: "The end of the window that the query runs over; events of this moment belong to the next. Only in a detection with a `window`.",
        example: "event_time >= window_end() - INTERVAL '1 minute'",
    },
];

/// The time that a window covers: from `start_us` up to, but without, `end_us`. Microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start_us: i64,
    pub end_us: i64,
}

/// One run of a window's query.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql) struct Run {
    pub(in crate::sql) span: Span,
    /// When it is to be over.
    pub(in crate::sql) until: Instant,
    /// How many rows may still come out of scans and joins.
    pub(in crate::sql) rows: usize,
}

thread_local! {
    static RUN: Cell<Option<Run>> = const { Cell::new(None) };
}

/// While it lives, queries on this thread run as this.
#[derive(Debug)]
pub(in crate::sql) struct Within(Option<Run>);

impl Within {
    pub(in crate::sql) fn new(run: Run) -> Within {
        Within(RUN.replace(Some(run)))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        RUN.set(self.0);
    }
}

/// Whether the name is one of [`WINDOW_FUNCTIONS`].
pub(in crate::sql) fn is_window_function(name: &str) -> bool {
    WINDOW_FUNCTIONS.iter().any(|info| info.name == name)
}

pub(in crate::sql) fn functions() -> Vec<Arc<ScalarUDF>> {
    [Asked::Start, Asked::End].into_iter().map(|asked| Arc::new(function(asked))).collect()
}

/// A condition that is true for every row, and fails where the run has gone on for too long or made too many rows. No
/// query can name it.
pub(in crate::sql) fn within_bounds() -> Expr {
    function(Asked::Bounds).call(Vec::new())
}

fn function(asked: Asked) -> ScalarUDF {
    ScalarUDF::new_from_impl(OfRun { asked, signature: Signature::nullary(Volatility::Volatile) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    Start,
    End,
    Bounds,
}

/// Something about the run.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfRun {
    asked: Asked,
    signature: Signature,
}

impl ScalarUDFImpl for OfRun {
    fn name(&self) -> &str {
        match self.asked {
            Asked::Start => "window_start",
            Asked::End => "window_end",
            Asked::Bounds => "within_bounds",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(match self.asked {
            Asked::Bounds => DataType::Boolean,
            _ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        })
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(mut run) = RUN.get() else {
            return datafusion::common::exec_err!("{} is asked for outside of a window", self.name());
        };
        let time = |us| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
        Ok(ColumnarValue::Scalar(match self.asked {
            Asked::Start => time(run.span.start_us),
            Asked::End => time(run.span.end_us),
            Asked::Bounds => {
                let Some(rows) = run.rows.checked_sub(call.number_rows) else {
                    let help = "put what its parts have in common into the join, or count instead";
                    return Err(bound_error("the query makes too many rows", Some(help)));
                };
                if run.until.remaining().is_zero() {
                    return Err(bound_error("the query takes too long", None));
                }
                run.rows = rows;
                RUN.set(Some(run));
                ScalarValue::Boolean(Some(true))
            }
        }))
    }
}
