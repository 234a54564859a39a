//! `kubetide new`: a detection drawn from one event.
//!
//! The event is decoded as everywhere, what is telling about it becomes the query, and the event itself, without its
//! secrets, becomes the first test. The near misses beside it differ in one thing each. What is printed has been linted
//! and its tests have run.

mod traits;

use std::fmt::Write as _;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use self::traits::Sketch;
use super::exit::Failure;
use super::yaml;
use crate::clock;
use crate::detection::{Detection, DetectionSet, SourceFile, files, load};
use crate::flow::replay::run_cases;
use crate::flow::work::{SourceSettings, Worker, chunk_of, decode};
use crate::model::{Column, Lane, Need};
use crate::stage::alert::{AlertOptions, AlertSpec, AlertStage, cell};
use crate::stage::evaluate::Evaluator;
use crate::stage::format::{FormatOptions, Formats};

/// Draw up a detection from an event, with its first tests
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// A file of records in any supported format, one a line or a single one; `-` is standard input
    #[arg(value_name = "EVENTFILE")]
    event: String,
    /// Which of the file's events
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    number: u64,
    /// Id of the detection (default: made from what the event did)
    #[arg(long)]
    id: Option<String>,
}

/// Prints the detection's file; exit code 1 where a test of it does not hold.
///
/// # Errors
/// Exit code 2 where the input holds no such event, 3 where it cannot be read.
pub fn run(args: &NewArgs) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    let read = if args.event == "-" {
        std::io::stdin().read_to_end(&mut text)
    } else {
        std::fs::File::open(&args.event).and_then(|mut file| file.read_to_end(&mut text))
    };
    read.map_err(|error| Failure::environment(format!("cannot read {}: {error}", args.event)))?;
    let event = find(&text, args.number).map_err(Failure::rules)?;
    let drawn = draw(&event, args.id.as_deref()).map_err(Failure::rules)?;
    {
        use std::io::Write as _;
        // A reader that went away needs no answer.
        let _ = std::io::stdout().write_all(drawn.text.as_bytes());
    }
    for problem in &drawn.problems {
        anstream::eprintln!("{problem}");
    }
    anstream::eprintln!("save it as {}.yaml, then `kubetide lint` and `kubetide test` it", drawn.id);
    Ok(ExitCode::from(u8::from(!drawn.problems.is_empty())))
}

/// One decoded event.
struct Event {
    /// Every column, one row.
    row: RecordBatch,
    /// In its canonical form.
    text: bytes::Bytes,
}

impl Event {
    fn value(&self, column: Column) -> Value {
        cell(&self.row, column, 0)
    }

    fn text(&self, column: Column) -> Option<String> {
        self.value(column).as_str().map(str::to_owned)
    }

    fn number(&self, column: Column) -> Option<i64> {
        self.value(column).as_i64()
    }

    fn flag(&self, column: Column) -> bool {
        self.value(column) == json!(true)
    }

    fn list(&self, column: Column) -> Vec<String> {
        let items = self.value(column);
        items.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }
}

/// The event of this number, counted from 1 over all records.
fn find(text: &[u8], number: u64) -> Result<Event, String> {
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let records: Vec<&[u8]> = if whole {
        vec![text]
    } else {
        text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).collect()
    };
    let lane = Lane { name: "event".into(), fallback_cluster: "cluster".into(), cluster: None };
    let mut formats = Formats::new(FormatOptions::default());
    let need = Arc::new(Need::everything());
    let mut seen = 0;
    let mut reason = None;
    for record in &records {
        let chunk = chunk_of(std::slice::from_ref(record), lane.clone());
        let batch = decode(&mut formats, Arc::clone(&need), Arc::from([]), &chunk);
        reason = reason.or_else(|| batch.dead_letters.first().map(|letter| letter.detail.clone()));
        let rows = batch.rows.len() as u64;
        if let Some(row) = (number - 1).checked_sub(seen).filter(|row| *row < rows) {
            let row = usize::try_from(row).map_err(|error| error.to_string())?;
            let all = batch.plain().map_err(|error| error.to_string())?;
            return Ok(Event { row: all.slice(row, 1), text: batch.text(row) });
        }
        seen += rows;
    }
    Err(match (seen, reason) {
        (0, Some(reason)) => format!("the input holds no audit event: {reason}"),
        (0, None) => "the input holds no audit event that is evaluated; `RequestReceived` is not".to_owned(),
        (seen, _) => format!("the input holds {seen} events, so there is no event {number}"),
    })
}

/// A detection as its file.
struct Drawn {
    id: String,
    text: String,
    /// Tests that do not hold.
    problems: Vec<String>,
}

fn draw(event: &Event, id: Option<&str>) -> Result<Drawn, String> {
    let mut sketch = Sketch::of(event);
    if let Some(id) = id {
        sketch.id = id.to_owned();
    }
    let bare = file(&sketch, "");
    let (set, detection) = loaded(&sketch.id, &bare)?;
    let shown = redacted(&set, &detection, &event.text)?;
    let text = file(&sketch, &tests(&sketch, event, &shown));
    let (set, detection) = loaded(&sketch.id, &text)?;
    let results = run_cases(&set, &detection).map_err(|error| error.message)?;
    let failed = results.iter().filter(|case| !case.differences.is_empty());
    let problems = failed.map(|case| format!("test '{}' does not hold: {:?}", case.name, case.differences)).collect();
    Ok(Drawn { id: sketch.id, text, problems })
}

fn loaded(id: &str, text: &str) -> Result<(DetectionSet, Arc<Detection>), String> {
    let mut sources = files::shipped_support();
    sources.push(SourceFile { path: format!("{id}.yaml").into(), text: text.into(), support: false });
    let loaded = load(&sources);
    match loaded.set.detections.first().cloned() {
        Some(detection) => Ok((loaded.set, detection)),
        None => {
            let reasons: Vec<String> = loaded.diagnostics.into_iter().map(|found| found.message).collect();
            Err(format!("no detection can be drawn from this event: {}", reasons.join("; ")))
        }
    }
}

/// The event without its secrets: what an alert of the detection shows as evidence.
fn redacted(set: &DetectionSet, detection: &Arc<Detection>, text: &[u8]) -> Result<Value, String> {
    const EVIDENCE_BYTES_MAX: usize = 512 << 10;
    let evaluator = Evaluator::new(std::slice::from_ref(detection), &set.planner).map_err(|error| error.message)?;
    let lane = Lane { name: "event".into(), fallback_cluster: "cluster".into(), cluster: None };
    let outcome =
        Worker::new(Arc::new(evaluator), &[SourceSettings::default()], None).work(0, &chunk_of(&[text], lane));
    let options = AlertOptions { evidence_bytes_max: EVIDENCE_BYTES_MAX, ..AlertOptions::new(clock::today()) };
    let mut stage = AlertStage::with_specs(vec![AlertSpec::of(detection)], Vec::new(), options);
    let alert = outcome.matched.iter().flat_map(|matched| stage.accept(matched)).next();
    let alert = alert.ok_or("the query drawn from the event does not match it; please report this")?;
    let finding: Value = serde_json::from_slice(&alert.ocsf).map_err(|error| error.to_string())?;
    let mut shown = match finding.pointer("/evidences/0/data") {
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|error| error.to_string())?,
        Some(data) => data.clone(),
        None => return Err("the alert shows no evidence; please report this".to_owned()),
    };
    for body in ["/requestObject/metadata", "/responseObject/metadata"] {
        if let Some(Value::Object(metadata)) = shown.pointer_mut(body) {
            metadata.remove("managedFields");
        }
    }
    Ok(shown)
}

/// The file; `tests` is the text of its tests.
fn file(sketch: &Sketch, tests: &str) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "id: {}", sketch.id);
    let _ = writeln!(out, "title: {}", yaml::scalar(&sketch.title));
    let _ = writeln!(out, "severity: {}", if sketch.refused { "low" } else { "medium" });
    let _ = writeln!(out, "status: experimental");
    let _ = writeln!(out, "attack: [{}]", sketch.attack);
    let _ = writeln!(out, "description: >-\n{}", yaml::wrapped(&sketch.description(), "  "));
    let _ = writeln!(out, "triage: |\n{}", TRIAGE.map(|step| yaml::wrapped(step, "  ")).join("\n"));
    let _ =
        writeln!(out, "false_positives:\n  - people and controllers whose job this is, at times when it is planned");
    let _ = writeln!(out, "sql: |\n  SELECT * FROM audit\n  WHERE {}", sketch.conditions.join("\n    AND "));
    let _ = writeln!(out, "entity: [{}]", sketch.entity.join(", "));
    let _ = writeln!(out, "suppress: 1h");
    let _ = writeln!(out, "summary: {}", yaml::scalar(&sketch.summary));
    out.push_str(tests);
    out
}

const TRIAGE: [&str; 3] = [
    "1. Ask the user in the alert whether they did this, and why. Check that client and address are the usual ones.",
    "2. Look at what the same user and the same address did in the hour before and after.",
    "3. If nobody can explain it, undo the change, and revoke the credentials that were used.",
];

/// The event that fires, and two that differ from it in one thing and stay quiet.
fn tests(sketch: &Sketch, event: &Event, shown: &Value) -> String {
    let mut out = String::from("tests:\n  - name: the event that this was drawn from\n    events:\n      -");
    yaml::block(shown, 8, &mut out);
    let fields: Vec<String> = [Column::UserName, Column::Verb, Column::Resource]
        .into_iter()
        .filter_map(|column| Some(format!("{}: {}", column.name(), yaml::scalar(&event.text(column)?))))
        .collect();
    let _ = write!(out, "\n    expect: {{alerts: 1, fields: {{{}}}}}\n", fields.join(", "));
    for (name, near) in near_misses(sketch, event, shown).into_iter().take(2) {
        let _ = write!(out, "  - name: {name}\n    events:\n      - {}\n", yaml::flow(&near));
        let _ = writeln!(out, "    expect: {{alerts: 0}}");
    }
    out
}

fn near_misses(sketch: &Sketch, event: &Event, shown: &Value) -> Vec<(&'static str, Value)> {
    let mut misses = Vec::new();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut near = shown.clone();
        change(&mut near);
        near
    };
    if sketch.refused {
        let allowed = |near: &mut Value| near["responseStatus"] = json!({ "metadata": {}, "code": 200 });
        misses.push(("allowed", changed(&allowed)));
    } else if event.number(Column::ResponseCode).is_some() {
        let status = json!({ "metadata": {}, "status": "Failure", "reason": "Forbidden", "code": 403 });
        misses.push(("refused", changed(&|near| near["responseStatus"] = status.clone())));
    }
    if sketch.excludes_dry_runs {
        let uri = event.text(Column::Uri).unwrap_or_default();
        let separator = if uri.contains('?') { '&' } else { '?' };
        let uri = format!("{uri}{separator}dryRun=All");
        misses.push(("dry run", changed(&|near| near["requestURI"] = json!(uri))));
    }
    match event.text(Column::Resource) {
        Some(resource) => {
            let mut target = shown.get("objectRef").filter(|target| target.is_object()).cloned().unwrap_or(json!({}));
            target["resource"] = json!(resource);
            target["apiGroup"] = json!("example.com");
            misses.push(("a custom resource of the same name", changed(&|near| near["objectRef"] = target.clone())));
        }
        None => misses.push(("another path", changed(&|near| near["requestURI"] = json!("/readyz")))),
    }
    misses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::{Envelope, lint};
    use crate::generate::wire::{WireFormat, wrap};

    fn check(record: &[u8], name: &str) -> String {
        let event = find(record, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
        let drawn = draw(&event, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(drawn.problems.is_empty(), "{name}: {:?}\n{}", drawn.problems, drawn.text);
        let mut sources = files::shipped_support();
        let path = format!("{}.yaml", drawn.id);
        sources.push(SourceFile { path: path.into(), text: drawn.text.as_str().into(), support: false });
        let loaded = load(&sources);
        let mut found = lint(&loaded, clock::today());
        found.extend(loaded.diagnostics);
        found.retain(|diagnostic| !diagnostic.file.contains('/'));
        assert!(found.is_empty(), "{name}: {found:#?}\n{}", drawn.text);
        drawn.text
    }

    #[test]
    fn every_sample_gives_a_detection_that_lints_and_whose_tests_hold() {
        let set = load(&files::shipped_support()).set;
        assert!(set.samples.len() >= 30);
        for (name, sample) in &set.samples {
            check(sample.to_string().as_bytes(), name);
            check(format!("{sample:#}").as_bytes(), name);
        }
    }

    #[test]
    fn an_event_in_a_clouds_envelope_is_read_as_well() {
        let set = load(&files::shipped_support()).set;
        for cloud in [Envelope::Eks, Envelope::Aks, Envelope::Gke] {
            let name = format!("{cloud:?}").to_lowercase();
            let wire = WireFormat::from_name(&name).expect("a known format");
            for sample in ["pod-create", "secret-get", "exec"] {
                let event = set.samples[sample].to_string();
                for record in wrap(wire, &[event.as_bytes()], "test") {
                    check(&record, &format!("{sample} as {name}"));
                }
            }
        }
    }

    #[test]
    fn what_makes_a_workload_dangerous_is_in_the_query_and_no_secret_in_the_test() {
        let mut event = load(&files::shipped_support()).set.samples["pod-create"].clone();
        let body = json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "hostPID": true,
                "volumes": [{"name": "root", "hostPath": {"path": "/etc/../"}}],
                "containers": [{
                    "name": "web", "image": "nginx", "securityContext": {"privileged": true},
                    "env": [{"name": "API_TOKEN", "value": "s3cr3t-value"}],
                }],
            },
        });
        event["requestObject"] = body.clone();
        event["responseObject"] = body;
        let text = check(event.to_string().as_bytes(), "pod");
        for wanted in ["(privileged OR host_pid OR any_in(host_paths, '/'))", "dry_run IS NOT TRUE", "TA0004/T1611"] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert!(!text.contains("s3cr3t"), "{text}");
    }

    #[test]
    fn the_event_is_chosen_by_its_number() {
        let set = load(&files::shipped_support()).set;
        let lines = format!("{}\n\n{}\n", set.samples["pod-create"], set.samples["secret-get"]);
        let resource = |number| find(lines.as_bytes(), number).map(|event| event.text(Column::Resource));
        assert_eq!(resource(2), Ok(Some("secrets".to_owned())));
        assert!(resource(3).is_err_and(|error| error.contains("2 events")));
        assert!(find(b"hello", 1).is_err_and(|error| error.contains("no audit event")));
        assert!(find(b"", 1).is_err());
    }
}
