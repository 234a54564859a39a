//! `window_start()` and `window_end()`: the window that a query is being run over.
//!
//! A plan is prepared once and run for every hop, so the two cannot be constants of it. They are volatile, which keeps
//! the planner from computing them early, and read what the run put down for its thread: plans have one partition and
//! run on the thread that calls them.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::FunctionInfo;

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

thread_local! {
    static SPAN: Cell<Option<Span>> = const { Cell::new(None) };
}

/// While it lives, queries on this thread run over the given window.
#[derive(Debug)]
pub(in crate::sql) struct Within(Option<Span>);

impl Within {
    pub(in crate::sql) fn new(span: Span) -> Within {
        Within(SPAN.replace(Some(span)))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        SPAN.set(self.0);
    }
}

/// Whether the name is one of [`WINDOW_FUNCTIONS`].
pub(in crate::sql) fn is_window_function(name: &str) -> bool {
    WINDOW_FUNCTIONS.iter().any(|info| info.name == name)
}

pub(in crate::sql) fn functions() -> Vec<Arc<ScalarUDF>> {
    let bound =
        |end: bool| ScalarUDF::new_from_impl(Bound { end, signature: Signature::nullary(Volatility::Volatile) });
    vec![Arc::new(bound(false)), Arc::new(bound(true))]
}

/// One end of the window.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bound {
    end: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Bound {
    fn name(&self) -> &str {
        if self.end { "window_end" } else { "window_start" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn invoke_with_args(&self, _call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(span) = SPAN.get() else {
            return datafusion::common::exec_err!("{} is asked for outside of a window", self.name());
        };
        let us = if self.end { span.end_us } else { span.start_us };
        Ok(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()))))
    }
}
