//! A site's exceptions: predicates that hide matches of a detection.
//!
//! A match is hidden where a predicate is true; null and false leave it. An exception that has expired hides nothing
//! any more, and one that fails hides nothing for the row that it failed on: whoever relies on an exception hears more
//! alerts then, never fewer. What a row's predicate yields depends on that row alone, whichever rows it arrived with.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::record_batch::RecordBatch;
use chrono::NaiveDate;
use datafusion::physical_expr::PhysicalExpr;

use crate::detection::Exception;

/// One exception, with its predicate over `AUDIT_SCHEMA`.
#[derive(Debug, Clone)]
pub struct ExceptionSpec {
    /// Id of the detection whose matches it hides.
    pub detection: Arc<str>,
    pub predicate: Arc<dyn PhysicalExpr>,
    pub reason: String,
    pub owner: String,
    /// Last day on which it holds.
    pub expires: NaiveDate,
    pub file: Arc<str>,
}

impl ExceptionSpec {
    /// What this stage needs of a loaded exception.
    pub fn of(exception: &Exception) -> ExceptionSpec {
        ExceptionSpec {
            detection: Arc::clone(&exception.detection),
            predicate: Arc::clone(&exception.predicate.expr),
            reason: exception.reason.clone(),
            owner: exception.owner.clone(),
            expires: exception.expires,
            file: Arc::clone(&exception.file),
        }
    }
}

/// What has become of one exception since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExceptionCount {
    pub detection: Arc<str>,
    pub file: Arc<str>,
    pub owner: String,
    pub reason: String,
    pub expires: NaiveDate,
    /// It was over when the program started and hides nothing.
    pub expired: bool,
    /// Matches that its predicate was true for.
    pub hidden: u64,
    /// Matches that its predicate failed on, and the first message.
    pub errors: u64,
    pub error: Option<String>,
}

/// All exceptions, by the detection that they are about.
#[derive(Debug)]
pub struct Exceptions {
    predicates: Vec<Arc<dyn PhysicalExpr>>,
    /// Same order as `predicates`.
    counts: Vec<ExceptionCount>,
    /// By detection: indices of the exceptions that hold.
    by_detection: Vec<Vec<usize>>,
}

impl Exceptions {
    /// `detections` are the ids in the order of the set; an exception about none of them hides nothing.
    pub fn new(exceptions: Vec<ExceptionSpec>, detections: &[Arc<str>], today: NaiveDate) -> Exceptions {
        let mut by_detection = vec![Vec::new(); detections.len()];
        let (mut predicates, mut counts) = (Vec::new(), Vec::new());
        for (index, exception) in exceptions.into_iter().enumerate() {
            let expired = exception.expires < today;
            let detection = detections.iter().position(|id| *id == exception.detection);
            if let Some(list) = detection.filter(|_| !expired).and_then(|detection| by_detection.get_mut(detection)) {
                list.push(index);
            }
            predicates.push(exception.predicate);
            counts.push(ExceptionCount {
                detection: exception.detection,
                file: exception.file,
                owner: exception.owner,
                reason: exception.reason,
                expires: exception.expires,
                expired,
                hidden: 0,
                errors: 0,
                error: None,
            });
        }
        Exceptions { predicates, counts, by_detection }
    }

    /// Every exception with its counts, expired ones too.
    pub fn counts(&self) -> &[ExceptionCount] {
        &self.counts
    }

    /// Begins with a new batch.
    pub fn batch<'a>(&'a mut self, rows: &'a RecordBatch) -> Batch<'a> {
        let verdicts = vec![None; self.predicates.len()];
        Batch { exceptions: self, rows, verdicts }
    }
}

/// Exceptions over the rows of one batch; each predicate runs when it is first needed.
pub struct Batch<'a> {
    exceptions: &'a mut Exceptions,
    rows: &'a RecordBatch,
    verdicts: Vec<Option<Verdict>>,
}

#[derive(Debug, Clone)]
enum Verdict {
    Rows(BooleanArray),
    /// It failed on some row: every row is asked by itself.
    Single,
}

impl Batch<'_> {
    /// Whether an exception hides this row from the detection. Every exception that does is counted.
    pub fn hides(&mut self, detection: usize, row: usize) -> bool {
        let indices = self.exceptions.by_detection.get(detection).cloned().unwrap_or_default();
        let mut hidden = false;
        for index in indices {
            let verdict = self.verdict(index, row);
            let Some(count) = self.exceptions.counts.get_mut(index) else { continue };
            match verdict {
                Ok(true) => {
                    count.hidden += 1;
                    hidden = true;
                }
                Ok(false) => {}
                Err(error) => {
                    count.errors += 1;
                    count.error.get_or_insert(error);
                }
            }
        }
        hidden
    }

    fn verdict(&mut self, index: usize, row: usize) -> Result<bool, String> {
        let Some(predicate) = self.exceptions.predicates.get(index) else { return Ok(false) };
        let Some(verdict) = self.verdicts.get_mut(index) else { return Ok(false) };
        let verdict = verdict.get_or_insert_with(|| match evaluate(predicate.as_ref(), self.rows) {
            Ok(truths) => Verdict::Rows(truths),
            Err(_) => Verdict::Single,
        });
        match verdict {
            Verdict::Rows(truths) => Ok(is_true(truths, row)),
            Verdict::Single => Ok(is_true(&evaluate(predicate.as_ref(), &self.rows.slice(row, 1))?, 0)),
        }
    }
}

fn is_true(truths: &BooleanArray, row: usize) -> bool {
    row < truths.len() && truths.is_valid(row) && truths.value(row)
}

/// A predicate's truths, or why there are none. A panic in a kernel is one row's problem, not the program's.
fn evaluate(predicate: &dyn PhysicalExpr, rows: &RecordBatch) -> Result<BooleanArray, String> {
    let evaluated =
        catch_unwind(AssertUnwindSafe(|| predicate.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()))));
    let array = match evaluated {
        Ok(result) => result.map_err(|error| error.to_string())?,
        Err(_) => return Err("the predicate panicked".into()),
    };
    let truths =
        array.as_boolean_opt().ok_or_else(|| format!("the predicate gives {}, no boolean", array.data_type()))?;
    Ok(truths.clone())
}
