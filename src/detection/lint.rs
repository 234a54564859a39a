//! What loads and runs, but should be better: warnings about tests, documentation and queries that surprise.

use std::collections::HashSet;

use chrono::NaiveDate;

use super::diagnostic::{Code, Diagnostic, Span};
use super::file::{Status, Use};
use super::lint_sql::{Facts, Place};
use super::pack::{Detection, Document, Loaded};
use super::yaml::{self, Step};
use crate::sql::Shape;

/// Columns that some cloud never delivers, and which.
const NOT_EVERYWHERE: &[(&str, &str)] = &[
    ("user_groups", "GKE does not deliver it"),
    ("user_extra", "GKE does not deliver it"),
    ("user_uid", "GKE does not deliver it"),
    ("credential_id", "GKE does not deliver it"),
    ("dry_run", "GKE does not deliver the query string"),
    ("exec_command", "GKE delivers it only where it is labelled"),
    ("exec_container", "GKE does not deliver the query string"),
    ("region", "EKS and AKS do not deliver it"),
    ("impersonated_user", "it is null without impersonation"),
    ("impersonated_groups", "it is null without impersonation"),
    ("subresource", "it is null where there is none"),
    ("service_account", "it is null for anybody else"),
    ("owner_kind", "it is null where there is none"),
    ("owner_name", "it is null where there is none"),
    ("response_reason", "it is null for successes"),
];

/// Columns so long that searching them costs more than everything else a detection does.
const LONG: &[&str] = &["object", "request_object", "response_object", "old_object", "uri"];

/// Columns of which one, compared for equality, leaves few events to search.
const SELECTIVE: &[&str] = &["resource", "verb", "subresource", "response_code"];

/// Columns of which one tells an attempt from a success.
const OUTCOME: &[&str] = &["response_code", "stage", "dry_run", "decision", "response_reason"];

/// Warnings about everything that is loaded. `today` decides which exceptions have expired.
pub fn lint(loaded: &Loaded, today: NaiveDate) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for detection in &loaded.set.detections {
        if let Some(document) = loaded.documents.get(&detection.file) {
            Linter { detection, document, found: &mut found }.run();
        }
    }
    for exception in loaded.set.exceptions.iter().filter(|exception| exception.expired(today)) {
        if let Some(document) = loaded.documents.get(&exception.file) {
            let message = format!("the exception for {} expired on {}", exception.detection, exception.expires);
            found.push(
                document
                    .report(Code::Expired, exception.span, message)
                    .help(format!("remove it, or ask {} whether it still holds", exception.owner)),
            );
        }
    }
    found.sort_by(|left, right| (&left.file, left.span).cmp(&(&right.file, right.span)));
    found
}

struct Linter<'a> {
    detection: &'a Detection,
    document: &'a Document,
    found: &'a mut Vec<Diagnostic>,
}

impl Linter<'_> {
    fn run(&mut self) {
        self.tests();
        self.documentation();
        self.query();
    }

    fn report(&mut self, code: Code, span: Span, message: impl Into<String>, help: &str) {
        self.found.push(self.document.report(code, span, message).help(help));
    }

    fn tests(&mut self) {
        let tests = &self.detection.tests;
        let firing = tests.iter().filter(|case| case.expect.alerts > 0).count();
        let quiet = tests.len() - firing;
        let span = self.document.key("tests");
        if firing == 0 {
            self.report(Code::FewFiring, span, "no test fires", "add one whose events are the behaviour itself");
        }
        if quiet < 2 {
            let message = format!("{quiet} test{} stay{} quiet", plural(quiet != 1), plural(quiet == 1));
            let help =
                "add look-alikes that must not fire: a refused request, an update, another resource; at least two";
            self.report(Code::FewQuiet, span, message, help);
        }
        let mut names = HashSet::new();
        for (index, case) in tests.iter().enumerate() {
            if !names.insert(case.name.trim()) {
                let span = self.document.place(&[Step::Key("tests"), Step::Index(index), Step::Key("name")]);
                let message = format!("two tests are named '{}'", case.name.trim());
                self.report(Code::DuplicateTest, span, message, "a name says how this test differs from the others");
            }
        }
    }

    fn documentation(&mut self) {
        if self.detection.triage.trim().is_empty() {
            let help = "say what to look at and what to do, for whoever is woken";
            self.report(Code::NoTriage, self.document.key("triage"), "there is no triage", help);
        }
        if self.detection.false_positives.is_empty() {
            let help = "name who does this for good reasons";
            let span = self.document.key("false_positives");
            self.report(Code::NoFalsePositives, span, "no false positives are named", help);
        }
    }

    fn query(&mut self) {
        let facts = Facts::of(&self.detection.sql);
        let sql = self.document.place(&[Step::Key("sql")]);
        let key = self.document.key("sql");
        if matches!(self.detection.plan.shape, Shape::General { .. }) {
            let help = "a single SELECT with WHERE over audit runs together with all others; this one runs alone, \
                        on every batch";
            self.report(Code::General, key, "the query is more than a filter", help);
        }
        for (column, why) in NOT_EVERYWHERE {
            if let Some(place) = facts.negated.get(*column) {
                let message =
                    format!("a negation over '{column}' is null where the column is, and null is no match: {why}");
                let help = "write (…) IS NOT TRUE for the condition without its NOT, or test for null beside it";
                self.report(Code::SilentNegation, self.at(sql, *place), message, help);
            }
        }
        let selective = SELECTIVE.iter().any(|column| facts.equalities.contains_key(*column));
        for column in LONG {
            if let (false, Some(place)) = (selective, facts.searched.get(*column)) {
                let message = format!("every event's '{column}' is searched");
                let help = "narrow it first: compare resource or verb with what you look for";
                self.report(Code::DearLike, self.at(sql, *place), message, help);
            }
        }
        if let (Some(place), false) = (facts.equalities.get("resource"), facts.columns.contains_key("api_group")) {
            let help = "a custom resource may have the same name: add api_group = '' for core, or the group's name";
            self.report(Code::ResourceWithoutGroup, self.at(sql, *place), "'resource' without 'api_group'", help);
        }
        let outcome = OUTCOME.iter().any(|column| facts.columns.contains_key(*column));
        if self.detection.status == Status::Stable && !outcome && !self.any_outcome() {
            let help = "add response_code BETWEEN 200 AND 299 (and dry_run IS NOT TRUE) for successes, or \
                        response_code IS NOT NULL where attempts count";
            self.report(Code::AttemptOrSuccess, key, "does it want attempts or successes?", help);
        }
        let objects = self.detection.uses.iter().any(|place| matches!(place, Use::Posture | Use::Admission));
        if objects && !self.detection.plan.columns.any_body() {
            let help = "these uses ask what the object is like: read a column of its body, or leave uses at [alert]";
            let message = "posture and admission look at objects, the query does not";
            self.report(Code::UsesWithoutBody, self.document.key("uses"), message, help);
        }
    }

    /// Whether the question for attempts or successes makes no sense: alerts have no outcome, and silence is about
    /// everything that comes.
    fn any_outcome(&self) -> bool {
        let silence = matches!(&self.detection.memory, Some(memory) if memory.key() == "silence");
        self.detection.reads_alerts() || silence
    }

    fn at(&self, scalar: Span, place: Place) -> Span {
        Span { length: place.length, ..yaml::locate(&self.document.text, scalar, place.line, place.column) }
    }
}

fn plural(many: bool) -> &'static str {
    if many { "s" } else { "" }
}
