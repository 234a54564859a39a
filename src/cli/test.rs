//! `kubetide test`: the tests in detection files, and how much of a query they hold fast.

mod report;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anstream::{eprintln, println};

use super::exit::Failure;
use super::pack::load_pack;
use super::watched::Files;
use crate::clock::Instant;
use crate::detection::{Detection, DetectionSet};
use crate::flow::mutants::{Survey, Surveyor};
use crate::flow::replay::{CaseResult, hidden, run_cases};
use crate::stage::alert::ExceptionCount;

/// Run the tests of detections
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Detection files or directories (default: the shipped pack)
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only detections whose id contains this
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// Also change each query one piece at a time, and show the changes that no test notices
    #[arg(long)]
    mutants: bool,
    /// Stay, and test again what changes
    #[arg(long)]
    watch: bool,
    /// How results look
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Show passing tests, and the changes that the files explain, too
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Human,
    Json,
    Junit,
}

/// Results of one detection.
struct Tested {
    detection: Arc<Detection>,
    cases: Vec<CaseResult>,
    /// Where changes were asked for.
    survey: Option<Survey>,
    /// What the exceptions that came with it hide in its tests.
    exceptions: Vec<ExceptionCount>,
}

impl Tested {
    fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.differences.is_empty()).count()
    }
}

/// Exit code 0 where all pass, 1 where a test fails or a change goes unnoticed.
///
/// # Errors
/// Exit code 2 where files are wrong or nothing is selected, 3 where a path cannot be read.
pub fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    if args.watch { watch::run(args) } else { round(args, None) }
}

/// Tests once: all that is selected, or what these changed files concern.
fn round(args: &TestArgs, changed: Option<&Files>) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let set = load_pack(args.paths.is_empty(), &args.paths)?;
    let named = |detection: &Detection| args.id.as_ref().is_none_or(|part| detection.id.contains(part.as_str()));
    let mut selected: Vec<Arc<Detection>> =
        set.detections.iter().filter(|detection| named(detection)).cloned().collect();
    if let Some(changed) = changed {
        watch::narrow(&mut selected, changed);
    }
    let tests: usize = selected.iter().map(|detection| detection.tests.len()).sum();
    if tests == 0 {
        return Err(Failure::rules("no test is selected: check the paths and --id"));
    }
    let tested = test_all(&set, &selected, args.mutants)?;
    match args.format {
        Format::Human => report::human(&tested, args.verbose),
        Format::Json => println!("{}", report::json(&tested)),
        Format::Junit => println!("{}", report::junit(&tested)),
    }
    let failed: usize = tested.iter().map(Tested::failed).sum();
    let seconds = started.elapsed_seconds();
    eprintln!("{} passed, {failed} failed ({} detections, {seconds:.1} s)", tests - failed, tested.len());
    if let Some(line) = report::exceptions_line(&tested) {
        eprintln!("{line}");
    }
    let surveys = || tested.iter().filter_map(|tested| tested.survey.as_ref());
    let unnoticed: usize = surveys().map(|survey| survey.unexplained().count()).sum();
    if args.mutants {
        eprintln!("{}", report::mutants_line(surveys()));
    }
    Ok(ExitCode::from(u8::from(failed + unnoticed > 0)))
}

fn test_all(set: &DetectionSet, selected: &[Arc<Detection>], mutants: bool) -> Result<Vec<Tested>, Failure> {
    let mut surveyor = Surveyor::new(set);
    let mut tested = Vec::with_capacity(selected.len());
    for detection in selected {
        let wrong = |error| Failure::rules(format!("{}: {error}", detection.file));
        let cases = run_cases(set, detection).map_err(wrong)?;
        let survey = mutants.then(|| surveyor.survey(detection)).transpose().map_err(wrong)?;
        let exceptions = hidden(set, detection).map_err(wrong)?;
        tested.push(Tested { detection: Arc::clone(detection), cases, survey, exceptions });
    }
    Ok(tested)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: &str = "  - name: another verb\n    events: [{sample: pod-create, set: {verb: get}}]\n    \
                         expect: {alerts: 0}\n";

    fn detection(expected: u32, more: &str) -> String {
        format!(
            "id: d\ntitle: T\nseverity: low\nstatus: stable\nattack: [TA0002/T1609]\ndescription: D\n\
             sql: SELECT * FROM audit WHERE verb = 'create'\nentity: [cluster]\nsummary: S\ntests:\n  \
             - name: fires\n    events: [{{sample: pod-create}}]\n    expect: {{alerts: {expected}}}\n{more}"
        )
    }

    /// The exit code over one file with this text.
    fn code(text: &str, mutants: bool) -> Result<ExitCode, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("d.yaml");
        std::fs::write(&path, text).expect("written");
        let paths = vec![path];
        let args = TestArgs { paths, id: None, mutants, watch: false, format: Format::Json, verbose: false };
        run(&args).map_err(|failure| format!("{:?}", failure.exit_code()))
    }

    #[test]
    fn failing_unnoticed_and_wrong_have_exit_codes_of_their_own() {
        let (ok, findings) = (Ok(ExitCode::SUCCESS), Ok(ExitCode::from(1)));
        let shown = |result: Result<ExitCode, String>| format!("{result:?}");
        assert_eq!(shown(code(&detection(1, ""), false)), shown(ok.clone()));
        assert_eq!(shown(code(&detection(2, ""), false)), shown(findings.clone()));
        assert_eq!(shown(code(&detection(1, ""), true)), shown(findings), "nothing needs the condition");
        assert_eq!(shown(code(&detection(1, QUIET), true)), shown(ok.clone()));
        let explained = "mutants:\n  - {sql: verb = 'create', reason: R}\n";
        assert_eq!(shown(code(&detection(1, explained), true)), shown(ok));
        let wrong = shown(Err(format!("{:?}", ExitCode::from(2))));
        assert_eq!(shown(code("id: d\n", false)), wrong);
        let untested = detection(1, "").split("tests:").next().expect("a first part").to_owned();
        assert_eq!(shown(code(&untested, false)), wrong, "an empty selection is an error");
    }

    #[test]
    fn what_exceptions_hide_in_the_tests_is_counted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("exceptions")).expect("made");
        std::fs::write(folder.path().join("d.yaml"), detection(1, QUIET)).expect("written");
        let entry = |expires: &str| {
            format!("- {{detection: d, sql: user_name LIKE '%', reason: R, owner: ops, expires: {expires}}}\n")
        };
        let text = [entry("2999-12-31"), entry("2020-01-01")].concat();
        std::fs::write(folder.path().join("exceptions/e.yaml"), text).expect("written");
        let set = load_pack(false, &[folder.path().to_owned()]).unwrap_or_else(|_| panic!("loads"));
        let tested = test_all(&set, &set.detections, false).unwrap_or_else(|_| panic!("runs"));
        let told: Vec<(bool, u64)> =
            tested[0].exceptions.iter().map(|exception| (exception.expired, exception.hidden)).collect();
        assert_eq!(told, [(false, 1), (true, 0)]);
        assert_eq!(tested[0].failed(), 0, "a detection's own tests are not about a site's exceptions");
        let line = report::exceptions_line(&tested).expect("there are some");
        assert_eq!(line, "exceptions: 1 hide 1 matches of the tests, 1 have expired");
    }
}
