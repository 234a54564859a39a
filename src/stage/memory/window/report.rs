//! What `kubetide explain` says about a window.

use std::fmt;

use super::WindowRule;
use crate::model::{Column, ColumnSet};

/// How a window's query is answered. Both give the same answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluator {
    /// The query runs over all rows of the window.
    Ring,
    /// Each pane is aggregated once; the query puts the panes together.
    Panes,
}

/// What is kept for a detection with a window, and how it is evaluated.
#[derive(Debug, Clone)]
pub struct WindowReport {
    pub evaluator: Evaluator,
    /// Seconds.
    pub size_s: i64,
    /// Seconds.
    pub every_s: i64,
    /// Whether it fires before its hop.
    pub early: bool,
    /// Events that a group needs before the query runs over it, and what the events of a group have in common.
    pub floor: Option<(u64, Vec<Column>)>,
    /// Whether it is evaluated at every hop, because the answer depends on where the window lies.
    pub moves: bool,
    /// Conditions that an event must pass to be kept; none: all are kept.
    pub candidates: Vec<String>,
    /// Columns that are kept of each event.
    pub columns: ColumnSet,
    /// Outputs that tell findings apart.
    pub key: Vec<String>,
    /// What the events that are evidence have in common with a row of the answer; none: all events of the window are.
    pub evidence: Vec<Vec<Column>>,
    /// Most events that are held for one cluster.
    pub rows_max: u64,
}

impl WindowReport {
    pub(super) fn new(rule: &WindowRule) -> WindowReport {
        let plan = &rule.plan;
        let floor = plan.groups.as_ref().filter(|groups| groups.at_least > 1);
        WindowReport {
            evaluator: rule.evaluator,
            size_s: rule.size_us / 1_000_000,
            every_s: rule.every_us / 1_000_000,
            early: rule.early,
            floor: floor.map(|groups| (groups.at_least, groups.by.clone())),
            moves: plan.moves,
            candidates: plan.candidates.iter().flatten().map(|conjunct| conjunct.text.clone()).collect(),
            columns: rule.columns,
            key: rule.key.iter().filter_map(|place| plan.output.get(*place).cloned()).collect(),
            evidence: plan.sides.iter().map(|side| side.iter().map(|(_, column)| *column).collect()).collect(),
            rows_max: rule.rows_max,
        }
    }
}

fn names(columns: impl IntoIterator<Item = Column>) -> String {
    columns.into_iter().map(Column::name).collect::<Vec<_>>().join(", ")
}

/// One line for each thing, without an end of line after the last.
impl fmt::Display for WindowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window     {} s, every {} s", self.size_s, self.every_s)?;
        writeln!(f, "{}", if self.early { ", told as soon as it is true" } else { "" })?;
        let how = match self.evaluator {
            Evaluator::Ring => "ring: the query runs over the events of the window",
            Evaluator::Panes => "panes: each event is aggregated once, the answer is put together out of panes",
        };
        writeln!(f, "evaluator  {how}")?;
        match &self.floor {
            Some((rows, by)) if by.is_empty() => writeln!(f, "floor      it runs where the window has {rows} events")?,
            Some((rows, by)) => {
                let by = names(by.iter().copied());
                writeln!(f, "floor      it runs over events that share {by} with at least {} others", rows - 1)?;
            }
            None if self.moves => {
                writeln!(f, "floor      none: it runs at every hop, as it asks where the window lies")?
            }
            None => writeln!(f, "floor      none: it runs at every hop at which an event came or went")?,
        }
        match self.candidates.as_slice() {
            [] => writeln!(f, "keeps      every event")?,
            conditions => writeln!(f, "keeps      events with {}", conditions.join(" and "))?,
        }
        writeln!(f, "columns    {}", names(self.columns.iter()))?;
        writeln!(f, "at most    {} events a cluster", self.rows_max)?;
        match self.key.as_slice() {
            [] => writeln!(f, "key        none: one finding at a time for each cluster")?,
            key => writeln!(f, "key        {}", key.join(", "))?,
        }
        match self.evidence.as_slice() {
            [] => write!(f, "evidence   all events of the window"),
            sides => {
                let sides: Vec<String> = sides.iter().map(|side| names(side.iter().copied())).collect();
                write!(f, "evidence   events with the same {}", sides.join("; or the same "))
            }
        }
    }
}
