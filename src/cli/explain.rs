//! `kubetide explain`: how a detection is evaluated, and what it costs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anstream::println;
use serde_json::json;

use super::exit::Failure;
use super::pack::load_pack;
use crate::clock::Instant;
use crate::detection::Detection;
use crate::flow::work::{SourceSettings, Worker, chunk_of};
use crate::model::{ColumnSet, Lane};
use crate::stage::evaluate::{DetectionReport, Evaluator};
use crate::stage::memory;

/// Show how a detection is evaluated
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// Id of the detection
    id: String,
    /// Further detections: files or directories (repeatable)
    #[arg(long, value_name = "PATH")]
    detections: Vec<PathBuf>,
    /// Measure the cost on the events of this file instead of on the detection's own tests
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Human,
    Json,
}

/// Cost on sample events.
struct Cost {
    events: usize,
    matches: usize,
    decode_ns: f64,
    evaluate_ns: f64,
}

/// # Errors
/// Exit code 2 where there is no such detection, 3 where a file cannot be read.
pub fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let set = load_pack(true, &args.detections)?;
    let Some(index) = set.detections.iter().position(|detection| *detection.id == *args.id) else {
        let known = set.detections.iter().map(|detection| &*detection.id);
        let help = crate::detection::suggest(&args.id, known).map(|help| format!("; {help}")).unwrap_or_default();
        return Err(Failure::rules(format!("there is no detection `{}`{help}", args.id)));
    };
    let prepare = |detections: &[Arc<Detection>]| {
        Evaluator::new(detections, &set.planner).map_err(|error| Failure::rules(error.to_string()))
    };
    let all = prepare(&set.detections)?;
    let detection = &set.detections[index];
    let alone = Arc::new(prepare(std::slice::from_ref(detection))?);
    let cost = match &args.events {
        Some(path) => {
            let text = std::fs::read(path)
                .map_err(|error| Failure::environment(format!("cannot read {}: {error}", path.display())))?;
            let records: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
            measure(&alone, &records)
        }
        None => {
            let records: Vec<Vec<u8>> = detection
                .tests
                .iter()
                .flat_map(|case| &case.events)
                .filter_map(|spec| set.events(spec))
                .flatten()
                .filter_map(|event| serde_json::to_vec(&event).ok())
                .collect();
            measure(&alone, &records)
        }
    };
    let report = all.explain(index);
    let memory = memory::describe(&set.detections, index);
    match args.format {
        Format::Human => human(detection, &report, memory.as_deref(), &cost),
        Format::Json => println!("{}", as_json(detection, &report, memory.as_deref(), &cost)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Evaluates the records a few times, after once for the caches.
fn measure(evaluator: &Arc<Evaluator>, records: &[impl AsRef<[u8]>]) -> Cost {
    const ROUNDS: u32 = 5;
    let lane = Lane { name: "events".into(), fallback_cluster: "events".into(), cluster: None };
    let chunk = chunk_of(records, lane);
    let mut worker = Worker::new(Arc::clone(evaluator), &[SourceSettings::default()], None);
    let warm = worker.work(0, &chunk);
    let events = warm.counts.events.iter().sum::<u64>() as usize;
    let matches = warm.matched.iter().map(|matched| matched.matches.len()).sum();
    let (mut decode, mut evaluate) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let batch = worker.decode(0, &chunk);
        decode += started.elapsed_seconds();
        let started = Instant::now();
        let hits = evaluator.evaluate(&batch);
        evaluate += started.elapsed_seconds();
        drop(hits);
    }
    let per_event = |seconds: f64| seconds * 1e9 / f64::from(ROUNDS) / (events.max(1) as f64);
    Cost { events, matches, decode_ns: per_event(decode), evaluate_ns: per_event(evaluate) }
}

/// A condition's text with long lists of literals cut short and types left out.
fn shortened(text: &str) -> String {
    let plain = regex::Regex::new(r#"(?:Utf8|Int64|Int32|Boolean)\(("[^"]*"|[^()]*)\)"#).expect("a constant pattern");
    let plain = plain.replace_all(text, "$1");
    let list = regex::Regex::new(r"((?:[^,\[\]]+, ){5})[^\[\]]*\]").expect("a constant pattern");
    list.replace_all(&plain, "$1…]").into_owned()
}

fn names(columns: ColumnSet) -> Vec<&'static str> {
    columns.iter().map(|column| column.name()).collect()
}

fn human(detection: &Detection, report: &DetectionReport, memory: Option<&str>, cost: &Cost) {
    let any =
        |values: &Option<Vec<String>>| values.as_ref().map_or_else(|| "any".to_owned(), |values| values.join(", "));
    println!("{}: {}", detection.id, detection.title);
    println!("  file       {}", detection.file);
    println!("  routed by  resource: {}; verb: {}", any(&report.resources), any(&report.verbs));
    println!("  reads      {}", names(detection.plan.columns).join(", "));
    if report.general {
        println!("  query      more than a filter: a prepared plan runs for each event that could match, by itself");
    }
    println!("  conditions, in order of evaluation:");
    for condition in &report.conditions {
        println!("    {}", shortened(&condition.text));
        println!("      {}, shared by {} detections", condition.how, condition.shared_by);
    }
    if let Some(memory) = memory {
        println!("  memory, of the events that pass:");
        memory.lines().for_each(|line| println!("    {line}"));
    }
    println!(
        "  cost       {:.0} ns an event to evaluate, {:.0} ns to decode what it reads ({} events, {} matches)",
        cost.evaluate_ns, cost.decode_ns, cost.events, cost.matches
    );
}

fn as_json(detection: &Detection, report: &DetectionReport, memory: Option<&str>, cost: &Cost) -> serde_json::Value {
    let conditions: Vec<serde_json::Value> = report
        .conditions
        .iter()
        .map(|condition| {
            json!({ "sql": condition.text, "columns": names(condition.columns), "how": condition.how, "shared_by": condition.shared_by })
        })
        .collect();
    json!({
        "id": &*detection.id,
        "file": &*detection.file,
        "resources": report.resources,
        "verbs": report.verbs,
        "columns": names(detection.plan.columns),
        "general": report.general,
        "memory": memory.map(|memory| memory.lines().collect::<Vec<_>>()),
        "conditions": conditions,
        "cost": {
            "events": cost.events,
            "matches": cost.matches,
            "evaluate_ns_per_event": cost.evaluate_ns,
            "decode_ns_per_event": cost.decode_ns,
        }
    })
}
