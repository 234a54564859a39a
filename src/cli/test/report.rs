//! What `kubetide test` writes.

use anstream::println;
use serde_json::json;

use super::Tested;
use crate::cli::diagnostics::escape_xml;
use crate::detection::Detection;
use crate::flow::mutants::{Survey, Survivor};
use crate::flow::replay::CaseResult;
use crate::stage::alert::ExceptionCount;

/// Failing tests and unnoticed changes; with `verbose` also what is fine.
pub(super) fn human(tested: &[Tested], verbose: bool) {
    let (red, green, reset) =
        (anstyle::AnsiColor::Red.render_fg(), anstyle::AnsiColor::Green.render_fg(), anstyle::Reset);
    let yellow = anstyle::AnsiColor::Yellow.render_fg();
    for Tested { detection, cases, survey, exceptions } in tested {
        for case in cases {
            if case.differences.is_empty() {
                if verbose {
                    println!("{green}pass{reset} {} :: {}", detection.file, case.name);
                }
                continue;
            }
            println!("{red}FAIL{reset} {} :: {}", detection.file, case.name);
            for difference in &case.differences {
                println!("     {difference}");
            }
        }
        if let Some(survey) = survey {
            print_survey(detection, survey, verbose);
        }
        for exception in exceptions {
            println!("{yellow}except{reset} {} :: {}", detection.file, excepted(exception));
        }
    }
}

/// By condition, what was done to it and which test would notice.
fn print_survey(detection: &Detection, survey: &Survey, verbose: bool) {
    let (red, yellow, reset) =
        (anstyle::AnsiColor::Red.render_fg(), anstyle::AnsiColor::Yellow.render_fg(), anstyle::Reset);
    if let Some(why) = survey.skipped {
        println!("{yellow}skip{reset} {} :: no query was changed: {why}", detection.file);
    }
    let shown: Vec<&Survivor> =
        survey.survivors.iter().filter(|survivor| verbose || survivor.reason.is_none()).collect();
    if !shown.is_empty() {
        let unnoticed = survey.unexplained().count();
        println!(
            "{red}MUTANTS{reset} {}: no test notices {unnoticed} of {} changes of the query",
            detection.file, survey.tried
        );
    }
    let mut condition = "";
    for survivor in shown {
        if survivor.condition != condition {
            condition = &survivor.condition;
            println!("     {condition}");
        }
        match &survivor.reason {
            Some(reason) => println!("       {}: explained: {reason}", survivor.change),
            None => println!("       {}: {}", survivor.change, survivor.hint()),
        }
    }
    for unused in &survey.unused {
        println!("{yellow}unused{reset} {}: the explanation of `{unused}` is not needed any more", detection.file);
    }
}

/// What one exception does in the tests of its detection.
fn excepted(exception: &ExceptionCount) -> String {
    let ExceptionCount { file, owner, expires, hidden, .. } = exception;
    match exception.expired {
        true => format!("{file}: expired on {expires} and hides nothing; {owner} renews it or takes it out"),
        false => format!("{file}: hides {hidden} matches of its tests; {owner} answers for it until {expires}"),
    }
}

/// One line over all exceptions, where there are any.
pub(super) fn exceptions_line(tested: &[Tested]) -> Option<String> {
    let all: Vec<&ExceptionCount> = tested.iter().flat_map(|tested| &tested.exceptions).collect();
    let hidden: u64 = all.iter().map(|exception| exception.hidden).sum();
    let expired = all.iter().filter(|exception| exception.expired).count();
    (!all.is_empty()).then(|| {
        format!("exceptions: {} hide {hidden} matches of the tests, {expired} have expired", all.len() - expired)
    })
}

/// One line over all detections.
pub(super) fn mutants_line<'a>(surveys: impl Iterator<Item = &'a Survey>) -> String {
    let (mut tried, mut survivors, mut unexplained, mut skipped) = (0, 0, 0, 0);
    for survey in surveys {
        tried += survey.tried;
        survivors += survey.survivors.len();
        unexplained += survey.unexplained().count();
        skipped += usize::from(survey.skipped.is_some());
    }
    let explained = survivors - unexplained;
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} detections skipped") };
    format!("mutants: {tried} tried, {unexplained} unnoticed, {explained} explained{skipped}")
}

/// Everything, for programs.
pub(super) fn json(tested: &[Tested]) -> serde_json::Value {
    let case = |case: &CaseResult| {
        let differences: Vec<String> = case.differences.iter().map(ToString::to_string).collect();
        json!({ "name": case.name, "passed": differences.is_empty(), "differences": differences })
    };
    let detection = |tested: &Tested| {
        let cases: Vec<serde_json::Value> = tested.cases.iter().map(case).collect();
        let mut entry = json!({ "id": &*tested.detection.id, "file": &*tested.detection.file, "tests": cases });
        if !tested.exceptions.is_empty() {
            entry["exceptions"] = tested.exceptions.iter().map(exception_json).collect();
        }
        if let Some(survey) = &tested.survey {
            entry["mutants"] = survey_json(survey);
        }
        entry
    };
    let detections: Vec<serde_json::Value> = tested.iter().map(detection).collect();
    json!({ "detections": detections })
}

fn exception_json(exception: &ExceptionCount) -> serde_json::Value {
    let ExceptionCount { file, owner, expires, expired, hidden, .. } = exception;
    json!({ "file": &**file, "owner": owner, "expires": expires.to_string(), "expired": expired, "hidden": hidden })
}

fn survey_json(survey: &Survey) -> serde_json::Value {
    let survivor = |survivor: &Survivor| {
        json!({
            "sql": survivor.condition,
            "change": survivor.change,
            "matches": if survivor.wider { "more" } else { "fewer" },
            "hint": survivor.hint(),
            "reason": survivor.reason,
        })
    };
    let survivors: Vec<serde_json::Value> = survey.survivors.iter().map(survivor).collect();
    json!({
        "tried": survey.tried,
        "survivors": survivors,
        "unused_explanations": survey.unused,
        "skipped": survey.skipped,
    })
}

/// For the test reports of CI systems; an unnoticed change is a failing test.
pub(super) fn junit(tested: &[Tested]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"kubetide test\">\n");
    for tested in tested {
        let id = escape_xml(&tested.detection.id);
        let file = escape_xml(&tested.detection.file);
        let unnoticed: Vec<&Survivor> = tested.survey.iter().flat_map(Survey::unexplained).collect();
        let (tests, failures) = (tested.cases.len() + unnoticed.len(), tested.failed() + unnoticed.len());
        out.push_str(&format!("  <testsuite name=\"{id}\" tests=\"{tests}\" failures=\"{failures}\">\n"));
        let mut add = |name: &str, messages: &[String]| {
            let name = escape_xml(name);
            out.push_str(&format!("    <testcase name=\"{name}\" classname=\"{id}\" file=\"{file}\">"));
            for message in messages {
                out.push_str(&format!("<failure message=\"{}\"/>", escape_xml(message)));
            }
            out.push_str("</testcase>\n");
        };
        for case in &tested.cases {
            add(&case.name, &case.differences.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
        for survivor in unnoticed {
            add(&format!("{}: {}", survivor.condition, survivor.change), &[survivor.hint().to_owned()]);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>");
    out
}
