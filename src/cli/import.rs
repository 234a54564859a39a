//! `kubetide import`: rules of others as detections.
//!
//! The files are the user's. Each rule becomes one detection with the same meaning over the `audit` table, or it is
//! refused with every field and operator that could not be said and why; nothing is converted in half. What is written
//! has been loaded, so `kubetide lint` finds no error in it; tests and triage are the reader's to add, and the status is
//! experimental until then.

mod attack;
mod compare;
mod condition;
mod draft;
mod expr;
mod falco;
mod falco_condition;
mod fields;
mod grammar;
mod sigma;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use self::draft::{Draft, draft, slug};
use self::expr::Expr;
use super::exit::Failure;
use crate::detection::{Level, SourceFile, files, load};
use crate::model::Severity;

/// Convert rules of others into detections
///
/// Exit code 0: every rule about Kubernetes audit logs was converted; 1: some were not, and are listed with the reason;
/// 2: a file cannot be read as such rules, or there is none.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Whose rules: Sigma's (logsource kubernetes/audit) or Falco's (source k8s_audit)
    #[arg(value_enum, value_name = "FORMAT")]
    from: From,
    /// A file of rules, or a directory of them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Write each detection to DIR/<tactic>/<id>.yaml (default: print them)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace files that are there already and differ
    #[arg(long, requires = "out")]
    force: bool,
    /// How the report looks
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum From {
    Sigma,
    Falco,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Human,
    /// One object a rule, with the detection's text
    Json,
}

/// A rule, read but for its ATT&CK places.
#[derive(Debug)]
struct Rule {
    /// Whose it is: the first word of its id here.
    prefix: &'static str,
    title: String,
    /// Its own id.
    uid: Option<String>,
    author: Option<String>,
    /// What is known of its licence.
    licence: Option<String>,
    severity: Severity,
    tags: Vec<String>,
    description: String,
    false_positives: Vec<String>,
    references: Vec<String>,
    condition: Expr,
    /// As detections write it.
    summary: Option<String>,
    notes: Vec<String>,
}

/// Something in a rule that cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// Where in the rule: keys, field and operator.
    place: String,
    reason: String,
}

/// All of a rule's, each once.
#[derive(Debug, Default)]
struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, place: impl Into<String>, reason: impl Into<String>) {
        let problem = Problem { place: place.into(), reason: reason.into() };
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Why there is no detection of a rule.
#[derive(Debug)]
enum Refusal {
    /// Parts of it cannot be said.
    Problems(Vec<Problem>),
    /// It is about something else, or switched off.
    Skipped(String),
    /// The file is not what it should be.
    Unreadable(String),
}

#[derive(Debug)]
struct Imported {
    file: Arc<str>,
    name: String,
    outcome: Result<Box<Rule>, Refusal>,
}

impl Imported {
    fn unreadable(file: &SourceFile, reason: &str) -> Imported {
        let outcome = Err(Refusal::Unreadable(reason.to_owned()));
        Imported { file: Arc::clone(&file.path), name: String::new(), outcome }
    }
}

/// A rule's end: its detection, or why there is none.
#[derive(Debug)]
struct Done {
    file: Arc<str>,
    name: String,
    result: Result<Draft, Refusal>,
    /// Where it was written.
    path: Option<PathBuf>,
}

/// Converts, writes, reports.
///
/// # Errors
/// Exit code 2 where no file holds a rule, 3 where a path cannot be read or written.
pub fn run(args: &ImportArgs) -> Result<ExitCode, Failure> {
    let read = files::read(&args.paths);
    for unreadable in &read.diagnostics {
        anstream::eprintln!("{}", unreadable.message);
    }
    if read.unreadable_path {
        return Err(Failure::environment("a path that was named cannot be read"));
    }
    let mut done = convert(args.from, &read.files);
    if done.is_empty() && read.diagnostics.is_empty() {
        return Err(Failure::rules("the paths hold no rule: .yml and .yaml files are read"));
    }
    if let Some(folder) = &args.out {
        for one in &mut done {
            one.path = write(folder, one, args.force)?;
        }
    }
    let text = match (args.format, &args.out) {
        (Format::Json, _) => done.iter().map(|one| format!("{}\n", json_line(one))).collect(),
        (Format::Human, Some(_)) => String::new(),
        (Format::Human, None) => {
            let texts: Vec<&str> =
                done.iter().filter_map(|one| Some(one.result.as_ref().ok()?.text.as_str())).collect();
            texts.join("---\n")
        }
    };
    // A reader that went away needs no answer.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if args.format == Format::Human {
        report(&done, args.out.is_some());
    }
    let counts = Counts::of(&done);
    anstream::eprintln!("{counts}");
    let unreadable = !read.diagnostics.is_empty() || counts.unreadable > 0 || counts.converted + counts.refused == 0;
    Ok(ExitCode::from(if unreadable { 2 } else { u8::from(counts.refused > 0) }))
}

/// Every rule of the files. What was made of them is loaded, to be sure that each is a detection.
fn convert(from: From, sources: &[SourceFile]) -> Vec<Done> {
    let imported = match from {
        From::Sigma => sigma::import(sources),
        From::Falco => falco::import(sources),
    };
    let mut ids = BTreeSet::new();
    let finished = imported.into_iter().map(|Imported { file, name, outcome }| {
        let result = outcome.map(|rule| {
            let base = slug(rule.prefix, &rule.title);
            let mut id = base.clone();
            let mut number = 2;
            while !ids.insert(id.clone()) {
                id = format!("{base}-{number}");
                number += 1;
            }
            draft(&rule, &file, id)
        });
        Done { file, name, result, path: None }
    });
    let mut done: Vec<Done> = finished.collect();
    refuse_what_does_not_load(&mut done);
    done
}

fn refuse_what_does_not_load(done: &mut [Done]) {
    let mut sources = files::shipped_support();
    let drafts: Vec<&Draft> = done.iter().filter_map(|one| one.result.as_ref().ok()).collect();
    if drafts.is_empty() {
        return;
    }
    sources.extend(drafts.into_iter().map(|draft| SourceFile {
        path: file_name(draft).into(),
        text: draft.text.as_str().into(),
        support: false,
    }));
    let wrong = load(&sources).diagnostics;
    for one in done {
        let Ok(draft) = &one.result else { continue };
        let name = file_name(draft);
        let errors = wrong.iter().filter(|found| found.level == Level::Error && *found.file == *name);
        let place = "the detection made of it";
        let problems: Vec<Problem> =
            errors.map(|found| Problem { place: place.to_owned(), reason: found.message.clone() }).collect();
        if !problems.is_empty() {
            one.result = Err(Refusal::Problems(problems));
        }
    }
}

fn file_name(draft: &Draft) -> String {
    format!("{}.yaml", draft.id)
}

/// Writes a detection where detections of its tactic live. Nothing that is there and differs is replaced unasked.
fn write(folder: &Path, done: &Done, force: bool) -> Result<Option<PathBuf>, Failure> {
    let Ok(draft) = &done.result else { return Ok(None) };
    let mut path = folder.to_path_buf();
    path.extend(draft.folder);
    let failed =
        |path: &Path, error: std::io::Error| Failure::environment(format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
    path.push(file_name(draft));
    match std::fs::read(&path) {
        Ok(known) if known == draft.text.as_bytes() => {}
        Ok(_) if !force => {
            return Err(Failure::environment(format!(
                "{} is there already and differs; --force replaces it",
                path.display()
            )));
        }
        _ => std::fs::write(&path, &draft.text).map_err(|error| failed(&path, error))?,
    }
    Ok(Some(path))
}

fn json_line(done: &Done) -> Json {
    let mut line = json!({ "file": &*done.file, "rule": done.name });
    let more = match &done.result {
        Ok(draft) => json!({
            "outcome": "converted",
            "id": draft.id,
            "path": done.path.as_ref().map(|path| path.display().to_string()),
            "notes": draft.notes,
            "detection": draft.text,
        }),
        Err(Refusal::Problems(problems)) => {
            let problems: Vec<Json> =
                problems.iter().map(|one| json!({ "at": one.place, "reason": one.reason })).collect();
            json!({ "outcome": "refused", "problems": problems })
        }
        Err(Refusal::Skipped(reason)) => json!({ "outcome": "skipped", "reason": reason }),
        Err(Refusal::Unreadable(reason)) => json!({ "outcome": "unreadable", "reason": reason }),
    };
    if let (Some(line), Json::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    line
}

/// What became of each rule, for people: on standard output, unless the detections stand there.
fn report(done: &[Done], to_stdout: bool) {
    let mut out = String::new();
    for one in done {
        let _ = match &one.result {
            Ok(draft) => {
                let path = one.path.as_ref().map_or_else(|| draft.id.clone(), |path| path.display().to_string());
                let _ = writeln!(out, "converted   {}: {path}", one.name);
                draft.notes.iter().try_for_each(|note| writeln!(out, "            note: {note}"))
            }
            Err(Refusal::Problems(problems)) => {
                let _ = writeln!(out, "refused     {}  ({})", one.name, one.file);
                problems.iter().try_for_each(|one| writeln!(out, "            {}: {}", one.place, one.reason))
            }
            Err(Refusal::Skipped(reason)) => writeln!(out, "skipped     {}: {reason}", one.name),
            Err(Refusal::Unreadable(reason)) => writeln!(out, "unreadable  {}: {reason}", one.file),
        };
    }
    let _ = if to_stdout {
        anstream::stdout().write_all(out.as_bytes())
    } else {
        anstream::stderr().write_all(out.as_bytes())
    };
}

/// How many rules came to which end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    converted: usize,
    refused: usize,
    skipped: usize,
    unreadable: usize,
}

impl Counts {
    fn of(done: &[Done]) -> Counts {
        let mut counts = Counts::default();
        for one in done {
            match &one.result {
                Ok(_) => counts.converted += 1,
                Err(Refusal::Problems(_)) => counts.refused += 1,
                Err(Refusal::Skipped(_)) => counts.skipped += 1,
                Err(Refusal::Unreadable(_)) => counts.unreadable += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { converted, refused, skipped, unreadable } = self;
        write!(f, "{converted} converted, {refused} refused, {skipped} skipped")?;
        if *unreadable > 0 { write!(f, ", {unreadable} files unreadable") } else { Ok(()) }
    }
}

/// The documents of a YAML file. Words such as `on` and `y` are texts: rules have them as names and values.
fn documents(text: &str) -> Result<Vec<Json>, String> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: 200, max_nodes: 200_000 },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.without_snippet().to_string())
}

/// A text, or the texts of a list; numbers and flags as they are written.
fn texts(value: &Json) -> Vec<String> {
    let one = |value: &Json| match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Json::Array(items) => items.iter().filter_map(one).collect(),
        single => one(single).into_iter().collect(),
    }
}
