//! `kubetide test`: the tests in detection files.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anstream::println;
use serde_json::json;

use super::diagnostics::escape_xml;
use super::exit::Failure;
use super::pack::load_pack;
use crate::clock::Instant;
use crate::detection::{Detection, DetectionSet};
use crate::flow::replay::{CaseResult, Difference, run_cases};

/// Run the tests of detections
#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Detection files or directories (default: the shipped pack)
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only detections whose id contains this
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// How results look
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Show passing tests too
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
}

/// Exit code 0 where all pass, 1 where one fails.
///
/// # Errors
/// Exit code 2 where files are wrong or nothing is selected, 3 where a path cannot be read.
pub fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let set = load_pack(args.paths.is_empty(), &args.paths)?;
    let selected: Vec<Arc<Detection>> = set
        .detections
        .iter()
        .filter(|detection| args.id.as_ref().is_none_or(|part| detection.id.contains(part.as_str())))
        .cloned()
        .collect();
    let tests: usize = selected.iter().map(|detection| detection.tests.len()).sum();
    if tests == 0 {
        return Err(Failure::rules("no test is selected: check the paths and --id"));
    }
    let tested = test_all(&set, &selected)?;
    let failed = tested.iter().flat_map(|tested| &tested.cases).filter(|case| !case.differences.is_empty()).count();
    match args.format {
        Format::Human => human(&tested, args.verbose),
        Format::Json => println!("{}", json_report(&tested)),
        Format::Junit => println!("{}", junit(&tested)),
    }
    anstream::eprintln!(
        "{} passed, {failed} failed ({} detections, {:.1} s)",
        tests - failed,
        tested.len(),
        started.elapsed_seconds()
    );
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn test_all(set: &DetectionSet, selected: &[Arc<Detection>]) -> Result<Vec<Tested>, Failure> {
    let test = |detection: &Arc<Detection>| {
        let cases =
            run_cases(set, detection).map_err(|error| Failure::rules(format!("{}: {error}", detection.file)))?;
        Ok(Tested { detection: Arc::clone(detection), cases })
    };
    selected.iter().map(test).collect()
}

fn human(tested: &[Tested], verbose: bool) {
    let (red, green, reset) =
        (anstyle::AnsiColor::Red.render_fg(), anstyle::AnsiColor::Green.render_fg(), anstyle::Reset);
    for Tested { detection, cases } in tested {
        for case in cases {
            if case.differences.is_empty() {
                if verbose {
                    println!("{green}pass{reset} {} :: {}", detection.file, case.name);
                }
                continue;
            }
            println!("{red}FAIL{reset} {} :: {}", detection.file, case.name);
            for difference in &case.differences {
                println!("     {}", text(difference));
            }
        }
    }
}

fn text(difference: &Difference) -> String {
    match difference {
        Difference::Alerts { expected, actual } => format!("alerts: expected {expected}, got {actual}"),
        Difference::Field { column, expected, actual } => format!("{column}: expected {expected}, got {actual}"),
        Difference::Failed(message) => message.clone(),
    }
}

fn json_report(tested: &[Tested]) -> serde_json::Value {
    let cases = |tested: &Tested| -> Vec<serde_json::Value> {
        let case = |case: &CaseResult| {
            let differences: Vec<String> = case.differences.iter().map(text).collect();
            json!({ "name": case.name, "passed": differences.is_empty(), "differences": differences })
        };
        tested.cases.iter().map(case).collect()
    };
    let detections: Vec<serde_json::Value> = tested
        .iter()
        .map(|tested| json!({ "id": &*tested.detection.id, "file": &*tested.detection.file, "tests": cases(tested) }))
        .collect();
    json!({ "detections": detections })
}

fn junit(tested: &[Tested]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"kubetide test\">\n");
    for Tested { detection, cases } in tested {
        let failures = cases.iter().filter(|case| !case.differences.is_empty()).count();
        let id = escape_xml(&detection.id);
        out.push_str(&format!("  <testsuite name=\"{id}\" tests=\"{}\" failures=\"{failures}\">\n", cases.len()));
        for case in cases {
            let name = escape_xml(&case.name);
            let file = escape_xml(&detection.file);
            out.push_str(&format!("    <testcase name=\"{name}\" classname=\"{id}\" file=\"{file}\">"));
            for difference in &case.differences {
                out.push_str(&format!("<failure message=\"{}\"/>", escape_xml(&text(difference))));
            }
            out.push_str("</testcase>\n");
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>");
    out
}
