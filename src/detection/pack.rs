//! From texts to a [`DetectionSet`]: everything that runs, checked; and everything that is wrong, each at its place.
//!
//! Files are independent: one that is wrong is reported and left out, the others load. The set is checked as a set too
//! (unique ids, exceptions that name a detection). Nothing here reads a file or the clock: [`super::files`] hands in
//! the texts, the caller hands in the date.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::attack::{Attack, AttackError};
use super::diagnostic::{Code, Diagnostic, Span, nearly, suggest};
use super::file::{AcceptedMutant, Case, DetectionFile, EventSpec, ExceptionsFile, ListFile, Status, Use};
use super::memory::{self, HabitSpec, Memory, SequenceSpec, WindowSpec};
use super::schema;
use super::shape;
use super::summary::Summary;
use super::yaml::{self, Key, Node, Step, Value};
use crate::model::{Column, ColumnSet, Kind, Severity};
use crate::sql::{EventPlan, Lists, Planner, Predicate, Shape, SqlError, WindowPlan};

/// A file's path as the user knows it, and its text.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub path: Arc<str>,
    pub text: Arc<str>,
    /// Lends its lists and samples to the others, is not itself what was asked for.
    pub support: bool,
}

/// A detection that is ready to run.
#[derive(Debug, Clone)]
pub struct Detection {
    pub id: Arc<str>,
    pub title: Arc<str>,
    pub severity: Severity,
    pub status: Status,
    pub attack: Vec<Attack>,
    pub description: String,
    pub triage: String,
    pub false_positives: Vec<String>,
    pub uses: Vec<Use>,
    /// As written; the steps of a sequence one after the other.
    pub sql: String,
    /// Which events it is about. With a memory, those that the memory is shown; of a sequence, its first step.
    pub plan: EventPlan,
    /// `None`: every event is decided by itself.
    pub memory: Option<Memory>,
    /// Columns of the table or of the SELECT list, at least one.
    pub entity: Vec<Arc<str>>,
    /// Zero gives one alert for each event.
    pub suppress: Duration,
    /// Who does it by habit.
    pub habit: Option<HabitSpec>,
    pub summary: Summary,
    pub references: Vec<String>,
    pub tests: Vec<Case>,
    /// Changes of the query that no test needs to notice.
    pub mutants: Vec<AcceptedMutant>,
    /// The path as the user knows it.
    pub file: Arc<str>,
}

impl Detection {
    /// The queries whose events it is shown, in the order of [`Match::step`](crate::model::Match::step).
    pub fn probes(&self) -> impl Iterator<Item = &EventPlan> {
        let further = match &self.memory {
            Some(Memory::Sequence { further, .. }) => further.as_slice(),
            _ => &[],
        };
        std::iter::once(&self.plan).chain(further)
    }

    /// Whether it is about alerts instead of events.
    pub fn reads_alerts(&self) -> bool {
        matches!(&self.memory, Some(Memory::Window { plan, .. }) if plan.alerts)
    }

    /// The columns that its memory reads or shows.
    pub fn kept_columns(&self) -> ColumnSet {
        let planned = self.probes().fold(ColumnSet::EMPTY, |all, probe| all.union(probe.columns));
        let placeholders = self.summary.placeholders().map(|placeholder| &*placeholder.column);
        let own = self.memory.iter().flat_map(Memory::names);
        let habit = self.habit.iter().flat_map(|habit| &habit.per).map(String::as_str);
        let names = self.entity.iter().map(|name| &**name).chain(placeholders).chain(own).chain(habit);
        planned.union(names.filter_map(Column::by_name).collect())
    }
}

/// Matches of one detection that a site accepts.
#[derive(Debug)]
pub struct Exception {
    pub detection: Arc<str>,
    pub predicate: Predicate,
    pub reason: String,
    pub owner: String,
    /// The last day on which it holds.
    pub expires: NaiveDate,
    pub file: Arc<str>,
    /// Where in the file, for a report.
    pub span: Span,
}

impl Exception {
    /// Whether it no longer holds on this day.
    pub fn expired(&self, today: NaiveDate) -> bool {
        today > self.expires
    }
}

/// Everything that is loaded. Detections are in the order of their ids; a match names one by its index.
#[derive(Debug)]
pub struct DetectionSet {
    pub detections: Vec<Arc<Detection>>,
    pub exceptions: Vec<Exception>,
    pub lists: Lists,
    pub planner: Arc<Planner>,
    /// Named canonical events that tests start from.
    pub samples: BTreeMap<String, Json>,
}

impl DetectionSet {
    /// The detection of this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Detection>> {
        self.detections.iter().find(|detection| &*detection.id == id)
    }

    /// Keeps only some detections, and the exceptions that name them.
    pub fn select(mut self, keep: impl Fn(&Detection) -> bool) -> DetectionSet {
        self.detections.retain(|detection| keep(detection));
        let detections = &self.detections;
        self.exceptions.retain(|exception| detections.iter().any(|detection| detection.id == exception.detection));
        self
    }

    /// The JSON records that a test's entry stands for: a wire record as it is, a sample with its changes applied as
    /// often as it says (its envelope is the caller's to add).
    pub fn events(&self, spec: &EventSpec) -> Option<Vec<Json>> {
        match spec {
            EventSpec::Wire(record) => Some(vec![record.clone()]),
            EventSpec::Sample(sample) => memory::events_of(sample, self.samples.get(&sample.sample)?),
        }
    }
}

/// A parsed file, kept for the linter.
#[derive(Debug, Clone)]
pub struct Document {
    pub file: Arc<str>,
    pub text: Arc<str>,
    pub root: Node,
}

impl Document {
    /// A finding at a place of this file, with its text.
    pub fn report(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(code, &self.file, span, message).source(&self.text)
    }

    /// The place of a value, or of the nearest thing around it that exists.
    pub fn place(&self, path: &[Step<'_>]) -> Span {
        self.root.follow(path).span
    }

    /// The place of a top-level key, or of the first key of the file.
    pub fn key(&self, name: &str) -> Span {
        let entries = self.root.entries();
        let found = entries.iter().find(|(key, _)| key.text == name).or(entries.first());
        found.map_or(Span::at(1, 1), |(key, _)| key.span)
    }
}

/// What loading gave.
#[derive(Debug)]
pub struct Loaded {
    pub set: DetectionSet,
    /// In the order of files and places.
    pub diagnostics: Vec<Diagnostic>,
    /// By path, the files of the loaded detections and exceptions.
    pub documents: BTreeMap<Arc<str>, Document>,
}

/// Loads everything that is handed in. Never fails as a whole: what is wrong is among the diagnostics.
pub fn load(files: &[SourceFile]) -> Loaded {
    let mut loader = Loader::default();
    for file in files {
        loader.read(file);
    }
    loader.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Detection,
    List,
    Exceptions,
    Sample,
}

#[derive(Default)]
struct Loader {
    diagnostics: Vec<Diagnostic>,
    detections: Vec<(DetectionFile, Document)>,
    /// Detections whose shape is wrong, so that only parts of them can be checked.
    misshapen: Vec<Document>,
    exceptions: Vec<(ExceptionsFile, Document)>,
    lists: BTreeMap<String, Vec<String>>,
    samples: BTreeMap<String, Json>,
}

impl Loader {
    fn read(&mut self, file: &SourceFile) {
        if file.path.ends_with(".json") {
            return self.sample(file);
        }
        let root = match yaml::parse(&file.path, &file.text) {
            Ok(root) => root,
            Err(diagnostic) => return self.diagnostics.push(*diagnostic),
        };
        let document = Document { file: Arc::clone(&file.path), text: Arc::clone(&file.text), root };
        match kind_of(&document) {
            FileKind::List => self.list(&document),
            FileKind::Detection if !file.support => match self.typed(&schema::DETECTION, &document) {
                Some(parsed) => self.detections.push((parsed, document)),
                None => self.misshapen.push(document),
            },
            FileKind::Exceptions if !file.support => {
                if let Some(parsed) = self.typed(&schema::EXCEPTIONS, &document) {
                    self.exceptions.push((parsed, document));
                }
            }
            _ => {}
        }
    }

    /// Checks a document against the schema of its type; reads it when nothing is wrong.
    fn typed<T: DeserializeOwned>(&mut self, schema: &Json, document: &Document) -> Option<T> {
        let before = self.diagnostics.len();
        shape::check(schema, &document.root, &document.file, &document.text, &mut self.diagnostics);
        if self.diagnostics.len() > before {
            return None;
        }
        match serde_json::from_value(document.root.to_json()) {
            Ok(typed) => Some(typed),
            Err(error) => {
                self.diagnostics.push(document.report(Code::BadValue, Span::at(1, 1), error.to_string()));
                None
            }
        }
    }

    fn sample(&mut self, file: &SourceFile) {
        match serde_json::from_str::<Json>(&file.text) {
            Ok(event) if event.is_object() => {
                self.samples.insert(stem(&file.path).to_owned(), event);
            }
            Ok(_) => self.diagnostics.push(
                Diagnostic::new(Code::Sample, &file.path, Span::at(1, 1), "a sample is one audit event, a JSON object")
                    .source(&file.text),
            ),
            Err(error) => {
                let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
                let span = Span::at(number(error.line()).max(1), number(error.column()).max(1));
                self.diagnostics.push(
                    Diagnostic::new(Code::Syntax, &file.path, span, format!("not valid JSON: {error}"))
                        .source(&file.text),
                );
            }
        }
    }

    fn list(&mut self, document: &Document) {
        let Some(list) = self.typed::<ListFile>(&schema::LIST, document) else { return };
        if list.name != stem(&document.file) {
            self.diagnostics.push(file_name(document, "name", &list.name));
        }
        let mut own: Vec<&str> = Vec::new();
        let values = self.lists.entry(list.name.clone()).or_default();
        for (index, entry) in list.entries.iter().enumerate() {
            if own.contains(&entry.value.as_str()) {
                let span = document.place(&[Step::Key("entries"), Step::Index(index), Step::Key("value")]);
                let message = format!("'{}' is in the list twice", entry.value);
                self.diagnostics.push(document.report(Code::DuplicateEntry, span, message));
            }
            own.push(&entry.value);
            // Another file's list of the same name may hold it already: a site extends, it does not repeat.
            if !values.contains(&entry.value) {
                values.push(entry.value.clone());
            }
        }
    }

    fn finish(mut self) -> Loaded {
        let lists = Lists::new(std::mem::take(&mut self.lists));
        let planner = Arc::new(Planner::new(lists.clone()));
        let mut documents = BTreeMap::new();
        let mut detections: BTreeMap<String, Arc<Detection>> = BTreeMap::new();
        for (file, document) in std::mem::take(&mut self.detections) {
            if let Some(first) = detections.get(&file.id) {
                let span = document.place(&[Step::Key("id")]);
                let message = format!("id '{}' is used by {} already", file.id, first.file);
                self.diagnostics.push(document.report(Code::DuplicateId, span, message).help("ids are unique"));
                continue;
            }
            let check = Check { document: &document, planner: &planner, samples: &self.samples };
            if let Some(detection) = check.detection(file, &mut self.diagnostics) {
                detections.insert(detection.id.to_string(), Arc::new(detection));
            }
            documents.insert(Arc::clone(&document.file), document);
        }
        for document in std::mem::take(&mut self.misshapen) {
            Check { document: &document, planner: &planner, samples: &self.samples }.parts(&mut self.diagnostics);
        }
        let mut exceptions = Vec::new();
        for (file, document) in std::mem::take(&mut self.exceptions) {
            let known = || detections.keys().map(String::as_str);
            read_exceptions(file, &document, &planner, known, &mut exceptions, &mut self.diagnostics);
            documents.insert(Arc::clone(&document.file), document);
        }
        self.diagnostics.sort_by(|left, right| (&left.file, left.span).cmp(&(&right.file, right.span)));
        let detections = detections.into_values().collect();
        let set = DetectionSet { detections, exceptions, lists, planner, samples: self.samples };
        Loaded { set, diagnostics: self.diagnostics, documents }
    }
}

/// What concerns a window: the events that the query's own conditions let through.
pub(super) fn concerned(plan: &WindowPlan) -> EventPlan {
    let conjuncts = plan.candidates.clone().unwrap_or_default();
    let columns = conjuncts.iter().fold(plan.columns, |all, conjunct| all.union(conjunct.columns));
    EventPlan { columns, output: plan.output.clone(), computed: Vec::new(), shape: Shape::Filter { conjuncts } }
}

/// Folders say what a file is; where they do not, its keys do.
fn kind_of(document: &Document) -> FileKind {
    match (folder(&document.file), &document.root.value) {
        (Some("lists"), _) => FileKind::List,
        (Some("exceptions"), _) | (_, Value::List(_)) => FileKind::Exceptions,
        (Some("samples"), _) => FileKind::Sample,
        _ if document.root.get("entries").is_some() && document.root.get("sql").is_none() => FileKind::List,
        _ => FileKind::Detection,
    }
}

fn file_parts(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".")
}

fn folder(path: &str) -> Option<&str> {
    file_parts(path).rev().nth(1)
}

fn stem(path: &str) -> &str {
    let name = file_parts(path).next_back().unwrap_or(path);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn file_name(document: &Document, key: &str, value: &str) -> Diagnostic {
    let message = format!("{key} '{value}' differs from the file's name");
    document
        .report(Code::FileName, document.place(&[Step::Key(key)]), message)
        .help(format!("call the file {value}.yaml, or the {key} '{}'", stem(&document.file)))
}

/// An SQL error at its place in the file.
fn sql_error(document: &Document, path: &[Step<'_>], code: Code, error: SqlError) -> Diagnostic {
    let scalar = document.place(path);
    let span = match (error.line, error.column) {
        (Some(line), column) => {
            let begin = yaml::locate(&document.text, scalar, line, column.unwrap_or(1));
            Span { length: yaml::word_length(&document.text, begin), ..begin }
        }
        (None, _) => scalar,
    };
    document.report(code, span, error.message).maybe_help(error.help)
}

/// What one detection is checked against.
struct Check<'a> {
    document: &'a Document,
    planner: &'a Planner,
    samples: &'a BTreeMap<String, Json>,
}

impl Check<'_> {
    /// Everything beyond the file's shape; the detection where none of it is an error.
    fn detection(&self, mut file: DetectionFile, found: &mut Vec<Diagnostic>) -> Option<Detection> {
        let before = found.len();
        if file.id != stem(&self.document.file) {
            found.push(file_name(self.document, "id", &file.id));
        }
        let attack = self.attack(&file, found);
        self.folder(&file, &attack, found);
        let summary = self.summary(&file, found);
        self.events(&file, found);
        let (plan, memory) = self.plans(&mut file, found);
        // Without a plan only the plainest SELECT list is known.
        let output = plan.as_ref().map(|plan| plan.output.as_slice());
        let plain = file.sql.split_whitespace().take(2).collect::<Vec<_>>().join(" ").eq_ignore_ascii_case("SELECT *");
        if let Some(output) = output.or(plain.then_some(&[])) {
            let alerts = matches!(&memory, Some(Memory::Window { plan, .. }) if plan.alerts);
            let gives = memory.as_ref().map_or(&[][..], Memory::gives);
            let computed: Vec<String> =
                output.iter().cloned().chain(gives.iter().map(|name| (*name).to_owned())).collect();
            self.columns(&file, summary.as_ref(), (&computed, alerts), found);
            self.memory_columns(memory.as_ref(), output, found);
        }
        let warnings_only = found.iter().skip(before).all(|diagnostic| diagnostic.level < super::Level::Error);
        match (warnings_only, plan, summary) {
            (true, Some(plan), Some(summary)) => Some(Detection {
                id: file.id.into(),
                title: file.title.trim().into(),
                severity: file.severity,
                status: file.status,
                attack,
                description: file.description,
                triage: file.triage,
                false_positives: file.false_positives,
                uses: file.uses,
                sql: file.sql,
                plan,
                memory,
                entity: file.entity.into_iter().map(Arc::from).collect(),
                suppress: file.suppress.0,
                habit: file.habit,
                summary,
                references: file.references,
                tests: file.tests,
                mutants: file.mutants,
                file: Arc::clone(&self.document.file),
            }),
            _ => None,
        }
    }

    /// What can be known of a file whose shape is wrong: its ATT&CK places and its query, where they are texts.
    fn parts(&self, found: &mut Vec<Diagnostic>) {
        let root = &self.document.root;
        for (index, place) in root.get("attack").map(Node::items).unwrap_or_default().iter().enumerate() {
            if let Value::Text(text) = &place.value {
                self.attack_place(index, text, found);
            }
        }
        let Some(Value::Text(sql)) = root.get("sql").map(|node| &node.value) else { return };
        if sql.trim().is_empty() || root.get("sequence").is_some() {
            return;
        }
        let planned = match root.get("window") {
            Some(_) => self.planner.plan_window(sql).err(),
            None => self.planner.plan_event(sql).err(),
        };
        found.extend(planned.map(|error| sql_error(self.document, &[Step::Key("sql")], Code::Sql, error)));
    }

    /// The query, or the first of a sequence, and what the detection keeps in mind.
    fn plans(&self, file: &mut DetectionFile, found: &mut Vec<Diagnostic>) -> (Option<EventPlan>, Option<Memory>) {
        if let [first, second, ..] = file.memory_keys()[..] {
            let message = format!("a detection has one kind of memory, but both '{first}' and '{second}' are given");
            let place = self.document.key(second);
            found.push(self.document.report(Code::BadValue, place, message).help("make two detections of it"));
            return (None, None);
        }
        if let Some(spec) = file.sequence.take() {
            return self.sequence(file, spec, found);
        }
        if file.sql.trim().is_empty() {
            let message = "key 'sql' is missing in the document";
            found.push(self.document.report(Code::MissingKey, self.document.key("id"), message));
            return (None, None);
        }
        if let Some(spec) = file.window.take() {
            return self.window(file, spec, found);
        }
        let plan = self.planned(&file.sql, &[Step::Key("sql")], found);
        match file.take_baseline() {
            Ok(Some(memory)) => (plan, Some(memory)),
            Ok(None) => (plan, file.first_seen.take().map(Memory::FirstSeen)),
            Err((key, message)) => {
                found.push(self.document.report(Code::BadValue, self.document.key(key), message));
                (plan, None)
            }
        }
    }

    /// The query over a window; what concerns it are the events that the query's own conditions let through.
    fn window(
        &self,
        file: &DetectionFile,
        spec: WindowSpec,
        found: &mut Vec<Diagnostic>,
    ) -> (Option<EventPlan>, Option<Memory>) {
        if let Err(message) = spec.hop() {
            let place = self.document.place(&[Step::Key("window")]);
            found.push(self.document.report(Code::BadValue, place, message));
        }
        let plan = match self.planner.plan_window(&file.sql) {
            Ok(plan) => Arc::new(plan),
            Err(error) => {
                found.push(sql_error(self.document, &[Step::Key("sql")], Code::Sql, error));
                return (None, None);
            }
        };
        if spec.early
            && let Err(why) = plan.only_rises()
        {
            let place = self.document.place(&[Step::Key("window"), Step::Key("early")]);
            let message = format!("the window cannot fire early: {why}");
            let help = "only what further events cannot make false is told early, such as `count(*) >= 10`";
            found.push(self.document.report(Code::BadValue, place, message).help(help));
        }
        for (index, name) in file.entity.iter().enumerate() {
            let of_cluster = Column::by_name(name).is_some_and(Column::of_cluster);
            let span = self.document.place(&[Step::Key("entity"), Step::Index(index)]);
            if plan.place(name).is_some_and(|place| plan.is_moving(place)) {
                let message = format!("entity '{name}' differs from hop to hop, so every hop would be an alert");
                let help = "name what the alert is about, not when";
                found.push(self.document.report(Code::BadValue, span, message).help(help));
            } else if plan.place(name).is_none() && !of_cluster {
                let message = format!("entity '{name}' is not in the SELECT list of the query");
                let help = "a window's alerts are about what its query gives: add it to SELECT and GROUP BY";
                found.push(self.document.report(Code::UnknownColumn, span, message).help(help));
            }
        }
        let concerned = concerned(&plan);
        (Some(concerned), Some(Memory::Window { spec, plan }))
    }

    fn planned(&self, sql: &str, path: &[Step<'_>], found: &mut Vec<Diagnostic>) -> Option<EventPlan> {
        let planned = self.planner.plan_event(sql);
        planned.map_err(|error| found.push(sql_error(self.document, path, Code::Sql, error))).ok()
    }

    fn sequence(
        &self,
        file: &mut DetectionFile,
        spec: SequenceSpec,
        found: &mut Vec<Diagnostic>,
    ) -> (Option<EventPlan>, Option<Memory>) {
        let mut wrong = |path: &[Step<'_>], message: &str, help: &str| {
            found.push(self.document.report(Code::BadValue, self.document.place(path), message).help(help));
        };
        if !file.sql.trim().is_empty() {
            wrong(&[Step::Key("sql")], "a sequence has a query for each step, none of its own", "remove the key 'sql'");
        }
        let last = spec.steps.len().saturating_sub(1);
        for (index, _) in spec.steps.iter().enumerate().filter(|(index, step)| step.absent && *index != last) {
            let path = [Step::Key("sequence"), Step::Key("steps"), Step::Index(index), Step::Key("absent")];
            wrong(&path, "only the last step can be absent", "put it last, or use 'until'");
        }
        let mut plans = Vec::new();
        for (index, step) in spec.steps.iter().enumerate() {
            let path = [Step::Key("sequence"), Step::Key("steps"), Step::Index(index), Step::Key("sql")];
            plans.extend(self.planned(&step.sql, &path, found));
        }
        let until = spec.until.as_deref();
        plans.extend(until.and_then(|sql| self.planned(sql, &[Step::Key("sequence"), Step::Key("until")], found)));
        if plans.len() < spec.steps.len() + usize::from(until.is_some()) || plans.is_empty() {
            return (None, None);
        }
        let steps = spec.steps.iter().enumerate();
        let texts: Vec<String> =
            steps.map(|(index, step)| format!("-- step {}\n{}", index + 1, step.sql.trim())).collect();
        file.sql = texts.join(";\n\n");
        let first = plans.remove(0);
        (Some(first), Some(Memory::Sequence { spec, further: plans }))
    }

    fn attack(&self, file: &DetectionFile, found: &mut Vec<Diagnostic>) -> Vec<Attack> {
        let places = file.attack.iter().enumerate();
        places.filter_map(|(index, text)| self.attack_place(index, text, found)).collect()
    }

    fn attack_place(&self, index: usize, text: &str, found: &mut Vec<Diagnostic>) -> Option<Attack> {
        let fail = |error: AttackError| {
            let span = self.document.place(&[Step::Key("attack"), Step::Index(index)]);
            found.push(self.document.report(Code::Attack, span, error.message).maybe_help(error.help));
        };
        Attack::parse(text).map_err(fail).ok()
    }

    fn folder(&self, file: &DetectionFile, attack: &[Attack], found: &mut Vec<Diagnostic>) {
        let Some(folder) = folder(&self.document.file) else { return };
        let wanted: Vec<&str> = attack.iter().filter_map(|place| place.tactic.folder.as_deref()).collect();
        let span = self.document.place(&[Step::Key("attack")]);
        if folder == "deprecated" || wanted.contains(&folder) || attack.len() < file.attack.len() {
            return;
        }
        let help = wanted.first().map(|folder| format!("move the file to {folder}/"));
        let diagnostic = match super::attack::MATRIX.tactic_of_folder(folder) {
            Some(tactic) => {
                let message = format!("the file is in {folder}/, but no tactic of the detection is {}", tactic.id);
                self.document.report(Code::Folder, span, message)
            }
            None => {
                // A site's own folders are named as it likes; one that is nearly a tactic's is a slip.
                let tactics = super::attack::MATRIX.tactics.iter().filter_map(|tactic| tactic.folder.as_deref());
                let Some(meant) = nearly(folder, tactics) else { return };
                let message = format!("folder {folder}/ is no tactic, but nearly {meant}/");
                self.document.report(Code::OddFolder, span, message)
            }
        };
        found.push(diagnostic.maybe_help(help));
    }

    fn summary(&self, file: &DetectionFile, found: &mut Vec<Diagnostic>) -> Option<Summary> {
        match Summary::parse(&file.summary) {
            Ok(summary) => Some(summary),
            Err(error) => {
                let span = self.inside("summary", error.offset);
                found.push(
                    self.document
                        .report(Code::BadValue, span, error.message)
                        .help("write {{ and }} for the braces themselves"),
                );
                None
            }
        }
    }

    fn inside(&self, key: &str, offset: usize) -> Span {
        let column = u32::try_from(offset).unwrap_or(u32::MAX - 1) + 1;
        yaml::locate(&self.document.text, self.document.place(&[Step::Key(key)]), 1, column)
    }

    /// `output` are the names that the query gives, and whether it reads `alerts`.
    fn columns(
        &self,
        file: &DetectionFile,
        summary: Option<&Summary>,
        (output, alerts): (&[String], bool),
        found: &mut Vec<Diagnostic>,
    ) {
        let mut check = |name: &str, span: Span| {
            let known = || output.iter().map(String::as_str);
            let in_table = Column::by_name(name).is_some_and(|column| alerts || !column.of_alerts());
            if in_table || known().any(|column| column == name) {
                return;
            }
            let all = crate::model::COLUMNS.iter().map(|info| info.name).chain(known());
            found.push(
                self.document
                    .report(Code::UnknownColumn, span, format!("unknown column '{name}'"))
                    .maybe_help(suggest(name, all).or_else(|| Some("`kubetide schema table` lists them".to_owned()))),
            );
        };
        for (index, name) in file.entity.iter().enumerate() {
            check(name, self.document.place(&[Step::Key("entity"), Step::Index(index)]));
        }
        for (index, name) in file.habit.iter().flat_map(|habit| &habit.per).enumerate() {
            check(name, self.document.place(&[Step::Key("habit"), Step::Key("per"), Step::Index(index)]));
        }
        for placeholder in summary.into_iter().flat_map(Summary::placeholders) {
            let mut span = self.inside("summary", placeholder.offset);
            span.length = u32::try_from(placeholder.column.chars().count()).unwrap_or(1);
            check(&placeholder.column, span);
        }
        for (index, case) in file.tests.iter().enumerate() {
            let path = [Step::Key("tests"), Step::Index(index), Step::Key("expect"), Step::Key("fields")];
            for name in case.expect.fields.keys() {
                let entries = self.document.root.follow(&path).entries();
                let key = entries.iter().find(|(key, _)| key.text == *name);
                check(name, key.map_or(Span::at(1, 1), |(key, _)| key.span));
            }
        }
        for (index, name) in file.entity.iter().enumerate() {
            let kind = Column::by_name(name).map(|column| column.info().kind);
            if matches!(kind, Some(Kind::Containers | Kind::Volumes | Kind::Subjects | Kind::Rules)) {
                let span = self.document.place(&[Step::Key("entity"), Step::Index(index)]);
                let message = format!("column '{name}' is a list of structs and cannot name an entity");
                found.push(self.document.report(Code::BadValue, span, message));
            }
        }
    }

    fn memory_columns(&self, memory: Option<&Memory>, output: &[String], found: &mut Vec<Diagnostic>) {
        let Some(memory) = memory else { return };
        let idle = matches!(memory, Memory::Anomaly(_)).then_some(super::IDLE);
        let known = |name: &str| {
            Column::by_name(name).is_some() || output.iter().any(|column| column == name) || idle == Some(name)
        };
        for (key, names) in memory.name_lists() {
            for (index, name) in names.iter().enumerate().filter(|(_, name)| !known(name)) {
                let path = [Step::Key(memory.key()), Step::Key(key), Step::Index(index)];
                let all = crate::model::COLUMNS.iter().map(|info| info.name).chain(output.iter().map(String::as_str));
                found.push(
                    self.document
                        .report(Code::UnknownColumn, self.document.place(&path), format!("unknown column '{name}'"))
                        .maybe_help(suggest(name, all)),
                );
            }
        }
    }

    fn events(&self, file: &DetectionFile, found: &mut Vec<Diagnostic>) {
        for (case_index, case) in file.tests.iter().enumerate() {
            for (index, event) in case.events.iter().enumerate() {
                let path = [Step::Key("tests"), Step::Index(case_index), Step::Key("events"), Step::Index(index)];
                let node = self.document.root.follow(&path);
                match event {
                    EventSpec::Sample(sample) if !self.samples.contains_key(&sample.sample) => {
                        let span = node.get("sample").map_or(node.span, |name| name.span);
                        let message = format!("there is no sample '{}'", sample.sample);
                        let help = suggest(&sample.sample, self.samples.keys().map(String::as_str));
                        found.push(self.document.report(Code::Sample, span, message).maybe_help(help));
                    }
                    EventSpec::Sample(sample) if memory::events_of(sample, &self.samples[&sample.sample]).is_none() => {
                        let span = node.get("at").map_or(node.span, |at| at.span);
                        let message = "this time cannot be read";
                        let help = "write 2026-01-05T10:00:00Z, or +5m after the sample's own time";
                        found.push(self.document.report(Code::Sample, span, message).help(help));
                    }
                    EventSpec::Wire(_) => {
                        let stray = |key: &Key| key.text == "set" || key.text == "as";
                        if let Some((key, _)) = node.entries().iter().find(|(key, _)| stray(key)) {
                            let message = format!("'{}' changes a sample, but none is named", key.text);
                            found
                                .push(self.document.report(Code::Sample, key.span, message).help("add 'sample: NAME'"));
                        }
                    }
                    EventSpec::Sample(_) => {}
                }
            }
        }
    }
}

fn read_exceptions<'a, I: Iterator<Item = &'a str>>(
    file: ExceptionsFile,
    document: &Document,
    planner: &Planner,
    known: impl Fn() -> I,
    exceptions: &mut Vec<Exception>,
    found: &mut Vec<Diagnostic>,
) {
    for (index, entry) in file.0.into_iter().enumerate() {
        let path = |key| [Step::Index(index), Step::Key(key)];
        let span = document.place(&path("detection"));
        if !known().any(|id| id == entry.detection) {
            let message = format!("no detection '{}' is loaded", entry.detection);
            found.push(
                document.report(Code::UnknownDetection, span, message).maybe_help(suggest(&entry.detection, known())),
            );
        }
        let Ok(expires) = NaiveDate::parse_from_str(&entry.expires, "%Y-%m-%d") else {
            let message = format!("'{}' is no date", entry.expires);
            found.push(document.report(Code::Exception, document.place(&path("expires")), message));
            continue;
        };
        match planner.plan_predicate(&entry.sql) {
            Ok(predicate) => exceptions.push(Exception {
                detection: entry.detection.into(),
                predicate,
                reason: entry.reason,
                owner: entry.owner,
                expires,
                file: Arc::clone(&document.file),
                span,
            }),
            Err(error) => found.push(sql_error(document, &path("sql"), Code::Exception, error)),
        }
    }
}
