//! What is wrong with a SQL text, where, and how to mend it.
//!
//! DataFusion reports errors in several shapes: positions inside the parser's message, diagnostics with spans, or plain
//! sentences. Whatever the shape, authors get a short message, a position within their text where one can be found, and
//! a suggestion. Our own functions and checks mark their messages, so that wrapping on the way up is cut off again.

use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;

use crate::model::COLUMNS;

/// A mistake in a SQL text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What is wrong: a fragment in lower case.
    pub message: String,
    /// Line within the SQL text, from 1.
    pub line: Option<u32>,
    /// Column within the line, in characters, from 1.
    pub column: Option<u32>,
    /// How to mend it.
    pub help: Option<String>,
    /// A run of it went beyond a bound of time, rows or memory, or panicked: it harms others, which a value that cannot
    /// be cast does not.
    pub harmful: bool,
}

/// A place in the SQL text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Place {
    /// `None` for the parser's "nowhere".
    pub(super) fn new(line: u64, column: u64) -> Option<Self> {
        match (u32::try_from(line), u32::try_from(column)) {
            (Ok(line), Ok(column)) if line > 0 && column > 0 => Some(Place { line, column }),
            _ => None,
        }
    }
}

impl SqlError {
    /// A mistake that has no place.
    pub(super) fn new(message: impl Into<String>) -> Self {
        SqlError { message: message.into(), line: None, column: None, help: None, harmful: false }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn harmful(mut self) -> Self {
        self.harmful = true;
        self
    }

    pub(super) fn at(mut self, place: Option<Place>) -> Self {
        if let Some(place) = place {
            (self.line, self.column) = (Some(place.line), Some(place.column));
        }
        self
    }
}

// --- our own messages on their way through DataFusion ----------------------------------------------------------------

const OPEN: char = '\u{2}';
const CLOSE: char = '\u{3}';
/// Between a message and its help.
pub(super) const HELP: char = '\u{1e}';

/// An error whose message reaches the author as it is, however often it is wrapped.
pub(super) fn own_error(message: &str, help: Option<&str>) -> DataFusionError {
    DataFusionError::Plan(own_text(message, help))
}

/// The same of a run that went beyond a bound.
pub(super) fn bound_error(message: &str, help: Option<&str>) -> DataFusionError {
    DataFusionError::ResourcesExhausted(own_text(message, help))
}

fn own_text(message: &str, help: Option<&str>) -> String {
    let help = match help {
        Some(help) if !message.contains(HELP) => format!("{HELP}{help}"),
        _ => String::new(),
    };
    format!("{OPEN}{message}{help}{CLOSE}")
}

/// Message and help of an error made by [`own_error`].
fn own_message(text: &str) -> Option<SqlError> {
    let (_, rest) = text.split_once(OPEN)?;
    let (own, _) = rest.split_once(CLOSE)?;
    Some(match own.split_once(HELP) {
        Some((message, help)) => SqlError::new(message).help(help),
        None => SqlError::new(own),
    })
}

/// What is told about a run that failed.
pub(super) fn from_run(error: &DataFusionError) -> SqlError {
    let told = own_message(&error.strip_backtrace()).unwrap_or_else(|| SqlError::new(error.strip_backtrace()));
    let exhausted = error.iter().any(|one| matches!(one.find_root(), DataFusionError::ResourcesExhausted(_)));
    if exhausted { told.harmful() } else { told }
}

// --- from DataFusion -------------------------------------------------------------------------------------------------

/// What the author is told about an error of DataFusion; `functions` are all names that a query may call.
pub(super) fn from_datafusion(error: &DataFusionError, functions: &[String]) -> SqlError {
    // Several errors at once are told one by one: the first is often the cause of the rest.
    let error = error.iter().next().unwrap_or(error);
    let text = error.strip_backtrace();
    if let Some(own) = own_message(&text) {
        return own;
    }
    let told = match (error.diagnostic(), error.find_root()) {
        (_, DataFusionError::SchemaError(schema, _)) => from_schema(schema),
        (Some(diagnostic), _) => Some(from_diagnostic(diagnostic, functions)),
        _ => None,
    };
    let place = error.diagnostic().and_then(span_of);
    match told {
        Some(told) => told.at(place),
        None => from_text(&error.find_root().strip_backtrace()).at(place),
    }
}

fn span_of(diagnostic: &Diagnostic) -> Option<Place> {
    let start = diagnostic.span?.start;
    Place::new(start.line, start.column)
}

fn from_schema(error: &SchemaError) -> Option<SqlError> {
    match error {
        SchemaError::FieldNotFound { field, .. } => {
            let name = field.name();
            if let Some(refused) = refused(name) {
                return Some(refused);
            }
            let told = SqlError::new(format!("unknown column `{name}`"));
            Some(match closest(name, COLUMNS.iter().map(|info| info.name)) {
                Some(found) => told.help(format!("did you mean `{found}`?")),
                None => told.help("`kubetide schema table` lists the columns; text is written in single quotes"),
            })
        }
        SchemaError::AmbiguousReference { field } => {
            let told = SqlError::new(format!("column `{}` is in more than one table", field.name()));
            Some(told.help("write the table's alias before it"))
        }
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            Some(two_outputs(name))
        }
    }
}

fn two_outputs(name: &str) -> SqlError {
    SqlError::new(format!("two outputs are called `{name}`")).help("give one of them another name with AS")
}

fn from_diagnostic(diagnostic: &Diagnostic, functions: &[String]) -> SqlError {
    let message = diagnostic.message.as_str();
    if let Some(name) = quoted(message, "Invalid function '") {
        return unknown_function(name, functions);
    }
    if let Some(table) = quoted(message, "table '") {
        return SqlError::new(format!("unknown table `{table}`")).help("an event detection reads the table `audit`");
    }
    if message == "expressions have incompatible types" {
        let types: Vec<String> =
            diagnostic.notes.iter().filter_map(|note| note.message.strip_prefix("has type ")).map(plain).collect();
        let told = SqlError::new(format!("these types do not go together: {}", types.join(" and ")));
        let lists = types.iter().any(|kind| kind.starts_with("list of"));
        return if lists { told.help("for a list use any_in(list, value) or any_like(list, pattern)") } else { told };
    }
    let told = from_text(message);
    let helps = diagnostic.helps.iter().map(|help| &help.message);
    match helps.chain(diagnostic.notes.iter().map(|note| &note.message)).next() {
        Some(help) if told.help.is_none() => told.help(fragment(help)),
        _ => told,
    }
}

/// Functions that people reach for and that detections cannot have, with what to do instead.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["now", "current_timestamp", "current_date", "current_time", "today", "localtimestamp", "getdate"],
        "a detection must give the same answer whenever it runs: compare with `event_time` or `request_time`",
    ),
    (&["random", "rand", "uuid", "gen_random_uuid"], "a detection must give the same answer whenever it runs"),
    (
        &["generate_series", "range", "repeat", "lpad", "rpad", "array_repeat", "array_resize"],
        "it could make a row of any size; it is not available",
    ),
    (
        &["read_csv", "read_json", "read_parquet", "read_text", "pg_sleep", "sleep", "load_extension"],
        "a detection sees the event only; keep lists in `detections/lists` and use `reference('name')`",
    ),
    (
        &["array_any_match", "array_filter", "array_transform", "any_match", "list_filter", "list_any_match"],
        "there are no lambdas: use `any_container`, the `rbac_` functions or the flat lists such as `images`",
    ),
    (&["regexp_matches", "regexp_extract", "rlike"], "use `regexp_like(text, 'pattern')` or `text ~ 'pattern'`"),
    (&["json_extract", "json_value", "get_json_object"], "use `json_get_str(column, 'key', …)` or `column->>'key'`"),
];

fn refused(name: &str) -> Option<SqlError> {
    let (_, why) = REFUSED.iter().find(|(names, _)| names.contains(&name))?;
    Some(SqlError::new(format!("function `{name}` is not available")).help(*why))
}

fn unknown_function(name: &str, functions: &[String]) -> SqlError {
    if let Some(refused) = refused(name) {
        return refused;
    }
    let told = SqlError::new(format!("unknown function `{name}`"));
    match closest(name, functions.iter().map(String::as_str)) {
        Some(found) => told.help(format!("did you mean `{found}`?")),
        None => told.help("`kubetide schema functions` lists the functions"),
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('\'').next()
}

/// A plain sentence: without prefixes, with a position if it holds one.
fn from_text(text: &str) -> SqlError {
    let (text, place) = take_place(text);
    if text.contains("RecursionLimitExceeded") || text.contains("recursion limit exceeded") {
        return SqlError::new("the query is nested too deeply").help("use fewer parentheses and subqueries").at(place);
    }
    let text = plain(strip_prefixes(&text));
    if text.starts_with("Physical plan does not support logical expression") {
        return SqlError::new("a subquery of this form is not supported")
            .help("for the elements of a list: SELECT … FROM (SELECT *, unnest(list) AS item FROM audit) WHERE …");
    }
    if let Some(rest) = text.strip_prefix("Cannot create filter with non-boolean predicate ") {
        let rest = rest.replace(" returning ", " is of type ");
        return SqlError::new(format!("the condition must be true or false: {rest}")).at(place);
    }
    if let Some(name) = quoted(&text, "table function '") {
        return SqlError::new(format!("table function `{name}` is not available"))
            .help("an event detection reads the table `audit`");
    }
    if let Some((_, rest)) = text.split_once("regex parse error:") {
        let why = rest.lines().filter_map(|line| line.trim().strip_prefix("error: ")).next().unwrap_or("not valid");
        return SqlError::new(format!("the regular expression is wrong: {why}")).at(place);
    }
    if let Some((_, rest)) = text.split_once("unique expression names but the expression \"") {
        let name = rest.split('"').next().unwrap_or_default();
        return two_outputs(name.rsplit('.').next().unwrap_or(name)).at(place);
    }
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    // The rest of the lines is candidate signatures and hints about settings that authors do not have.
    let message = match first.split_once(" No function matches the given name and argument types") {
        Some(("", after)) => format!("no function matches{after}"),
        Some((before, _)) => before.to_owned(),
        None => first.to_owned(),
    };
    let message = message.split(" You might need to add explicit type casts").next().unwrap_or_default();
    SqlError::new(fragment(message)).at(place)
}

/// Takes `at Line: 2, Column: 7` off the end of a parser's message.
fn take_place(text: &str) -> (String, Option<Place>) {
    let Some((before, after)) = text.split_once(" at Line: ") else { return (text.to_owned(), None) };
    let mut numbers = after.split(|character: char| !character.is_ascii_digit()).filter_map(|n| n.parse().ok());
    let place = match (numbers.next(), numbers.next()) {
        (Some(line), Some(column)) => Place::new(line, column),
        _ => None,
    };
    (before.to_owned(), place)
}

const PREFIXES: &[&str] = &[
    "Error during planning: ",
    "SQL error: ",
    "sql parser error: ",
    "ParserError(\"",
    "TokenizerError(\"",
    "Schema error: ",
    "Execution error: ",
    "External error: ",
    "This feature is not implemented: ",
    "Arrow error: ",
    "Cast error: ",
    "Compute error: ",
    "Invalid argument error: ",
    "Parser error: ",
    "Optimizer rule 'simplify_expressions' failed",
    "type_coercion",
    "caused by",
    "Internal error: ",
];

fn strip_prefixes(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest.trim_start();
    }
    text.trim_end_matches("\")")
}

/// The text with types as authors know them, and columns without the only table that there is.
fn plain(text: &str) -> String {
    let mut text = text.replace("audit.", "").replace("Utf8View", "Utf8").replace("LargeUtf8", "Utf8");
    for (arrow, sql) in [
        ("Utf8", "text"),
        ("Int64", "integer"),
        ("Int32", "integer"),
        ("Boolean", "boolean"),
        ("Float64", "number"),
        ("Timestamp(Microsecond, Some(\"UTC\"))", "timestamp"),
        ("Timestamp(µs, \"UTC\")", "timestamp"),
        ("List(text)", "list of text"),
        ("List(integer)", "list of integer"),
    ] {
        text = text.replace(arrow, sql);
    }
    text
}

/// A sentence as a fragment: lower case at the start unless it is a name, no full stop.
pub(super) fn fragment(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// The name that was probably meant.
pub(super) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&name, candidate), candidate))
        .filter(|(likeness, candidate)| *likeness >= 0.6 || (name.len() > 3 && candidate.starts_with(&name)))
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
