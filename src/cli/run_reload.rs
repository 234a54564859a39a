//! Detections, exceptions and lists of a live run are loaded anew: when their files change, and at SIGHUP.
//!
//! All of it happens beside the run. What was loaded before stays in force until a whole set is there that has no error
//! and passes the tests in its files; where it does not, log, metrics and `/readyz` say so until the files are mended.
//! The shipped pack is part of the program and does not change.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::diagnostics::one_line;
use super::pack::{Pack, read_pack};
use super::run::Selection;
use super::watched::{Seen, changes, look};
use crate::flow::reload::Generation;
use crate::flow::replay::run_cases;
use crate::stage::memory::MemoryOptions;
use crate::telemetry::{Health, Metrics, ReloadFailed};

/// Errors that are told one by one.
const ERRORS_MAX: usize = 20;
/// Characters of each.
const ERROR_CHARS_MAX: usize = 500;
/// How many sets may wait for their turn.
const WAITING: usize = 1;

/// Loads sets of detections while a run goes on.
#[derive(Debug)]
pub struct Reloader {
    selection: Arc<Selection>,
    memory: MemoryOptions,
    /// What the files held when they were loaded last, well or not.
    loaded: Seen,
    next: mpsc::Sender<Generation>,
    metrics: Metrics,
    health: Health,
}

/// Errors as lines, and how many there are.
type Refused = (Vec<String>, usize);

impl Reloader {
    /// `before` is what the files held when the set in force was loaded. The sets come out of the other end.
    pub fn new(
        selection: Arc<Selection>,
        memory: MemoryOptions,
        before: Seen,
        (metrics, health): (&Metrics, &Health),
    ) -> (Reloader, mpsc::Receiver<Generation>) {
        let (next, sets) = mpsc::channel(WAITING);
        let (metrics, health) = (metrics.clone(), health.clone());
        (Reloader { selection, memory, loaded: before, next, metrics, health }, sets)
    }

    /// Loads whenever files have changed (looked at each `interval`; never, where that is zero) and at SIGHUP. Ends
    /// with the run.
    pub async fn run(mut self, interval: Duration) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return tracing::warn!(%error, "detections cannot be loaded anew: no signal can be received"),
        };
        let every = if interval.is_zero() { Duration::from_secs(3600) } else { interval };
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        let mut settling: Option<Seen> = None;
        loop {
            tokio::select! {
                _ = hangups.recv() => {
                    tracing::info!(event = "reload_asked", "SIGHUP: loading detections anew");
                    let now = self.look().await;
                    settling = None;
                    self.load(now, true).await;
                }
                _ = ticks.tick(), if !interval.is_zero() => {
                    let now = self.look().await;
                    let changed = changes(&self.loaded, &now);
                    if changed.is_empty() {
                        settling = None;
                    } else if settling.as_ref() == Some(&now) {
                        // Twice the same: nobody is in the middle of writing it.
                        settling = None;
                        let files = changed.iter().map(|path| &**path).collect::<Vec<_>>().join(",");
                        tracing::info!(event = "detections_changed", files, "files have changed: loading detections anew");
                        self.load(now, false).await;
                    } else {
                        settling = Some(now);
                    }
                }
            }
        }
    }

    async fn look(&self) -> Seen {
        let selection = Arc::clone(&self.selection);
        tokio::task::spawn_blocking(move || look(&selection.paths)).await.unwrap_or_default()
    }

    /// `asked` by somebody: what was quarantined has another chance.
    async fn load(&mut self, now: Seen, asked: bool) {
        self.loaded = now;
        let (selection, memory) = (Arc::clone(&self.selection), self.memory.clone());
        let prepared = tokio::task::spawn_blocking(move || prepare(&selection, &memory)).await;
        let prepared = prepared.unwrap_or_else(|_| Err((vec!["loading panicked; please report it".to_owned()], 1)));
        match prepared {
            // The run has ended where nobody takes it.
            Ok(mut generation) => {
                generation.forgiving = asked;
                drop(self.next.send(generation).await);
            }
            Err((errors, count)) => {
                self.health.reload_failed(&errors, count);
                self.metrics.emit(ReloadFailed { errors: &errors, count });
            }
        }
    }
}

/// Loads, checks and tests a set.
fn prepare(selection: &Selection, memory: &MemoryOptions) -> Result<Generation, Refused> {
    let Pack { set, errors, own, .. } = read_pack(selection.shipped, &selection.paths);
    if !errors.is_empty() {
        return Err(refused(errors.iter().map(one_line).collect()));
    }
    let mut failed = Vec::new();
    for detection in set.detections.iter().filter(|detection| own.contains(&detection.file)) {
        match run_cases(&set, detection) {
            Ok(cases) => failed.extend(cases.iter().filter(|case| !case.differences.is_empty()).map(|case| {
                let differences: Vec<String> = case.differences.iter().map(ToString::to_string).collect();
                format!("{}: test '{}' fails: {}", detection.file, case.name, differences.join("; "))
            })),
            Err(error) => failed.push(format!("{}: {error}", detection.file)),
        }
    }
    if !failed.is_empty() {
        return Err(refused(failed));
    }
    let set = selection.select(set).map_err(|error| refused(vec![error]))?;
    Generation::prepare(set, memory).map_err(|error| refused(vec![format!("detections cannot be prepared: {error}")]))
}

fn refused(mut errors: Vec<String>) -> Refused {
    let count = errors.len();
    errors.truncate(ERRORS_MAX);
    for error in &mut errors {
        if let Some((end, _)) = error.char_indices().nth(ERROR_CHARS_MAX) {
            error.truncate(end);
            error.push('…');
        }
    }
    (errors, count)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::detection::Status;
    use crate::model::Severity;

    fn detection(sql: &str, expected: u32) -> String {
        format!(
            "id: d\ntitle: T\nseverity: low\nstatus: stable\nattack: [TA0002/T1609]\ndescription: D\nsql: {sql}\n\
             entity: [cluster]\nsummary: S\ntests:\n  - name: fires\n    events: [{{sample: pod-create}}]\n    \
             expect: {{alerts: {expected}}}\n"
        )
    }

    fn prepared(folder: &Path) -> Result<usize, Refused> {
        let selection = Selection {
            shipped: false,
            paths: vec![folder.to_owned()],
            statuses: vec![Status::Stable],
            least: Severity::Informational,
        };
        prepare(&selection, &MemoryOptions::default()).map(|generation| generation.set.detections.len())
    }

    #[test]
    fn only_a_set_without_errors_that_passes_its_tests_is_taken() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put = |text: &str| std::fs::write(folder.path().join("d.yaml"), text).expect("written");
        put(&detection("SELECT * FROM audit WHERE verb = 'create'", 1));
        assert_eq!(prepared(folder.path()), Ok(1));
        put(&detection("SELECT * FROM audit WHERE verb = 'create'", 2));
        let (errors, count) = prepared(folder.path()).expect_err("its test fails");
        assert_eq!(count, 1);
        assert!(errors[0].ends_with("d.yaml: test 'fires' fails: alerts: expected 2, got 1"), "{errors:?}");
        put(&detection("SELECT * FROM audit WHERE verbs = 'create'", 1));
        let (errors, _) = prepared(folder.path()).expect_err("no such column");
        assert!(errors[0].contains("d.yaml:7:") && errors[0].contains("verbs"), "{errors:?}");
        put(&detection("SELECT * FROM audit WHERE verb = 'create'", 1).replace("stable", "experimental"));
        let (errors, _) = prepared(folder.path()).expect_err("nothing is left to run");
        assert!(errors[0].contains("no detection is left"), "{errors:?}");
    }

    #[test]
    fn what_is_told_of_errors_is_bounded() {
        let (errors, count) = refused((0..50).map(|_| "é".repeat(900)).collect());
        assert_eq!((errors.len(), count, errors[0].chars().count()), (20, 50, 501));
    }
}
