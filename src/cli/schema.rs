//! `kubetide schema`: the contracts that others build on, printed from the code that keeps them.
//!
//! The same texts are checked in under `schemas/`; a test compares, and `KUBETIDE_BLESS=1 cargo test` rewrites them.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value as Json;

use crate::detection::schema;
use crate::model::{AUDIT_SCHEMA_VERSION, COLUMNS, Kind, Level};
use crate::sql::{FUNCTIONS, WINDOW_FUNCTIONS};

/// What can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Topic {
    /// The columns of the table `audit`, as Markdown.
    #[default]
    Table,
    /// The SQL functions beside DataFusion's own, as Markdown.
    Functions,
    /// JSON Schema of a detection file.
    Detection,
    /// JSON Schema of a reference list.
    List,
    /// JSON Schema of a file of exceptions.
    Exceptions,
    /// JSON Schema of an alert: OCSF Detection Finding.
    Alert,
    /// JSON Schema of the configuration file.
    Config,
}

/// Print a contract: the table, functions, or a JSON Schema
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct SchemaArgs {
    /// What to print.
    #[arg(value_enum, default_value_t = Topic::Table)]
    pub topic: Topic,
}

/// Prints one of them to stdout.
pub fn run(args: &SchemaArgs) -> ExitCode {
    use std::io::Write as _;
    // A reader that went away needs no answer.
    let _ = std::io::stdout().write_all(text(args.topic).as_bytes());
    ExitCode::SUCCESS
}

/// The text of one topic.
pub fn text(topic: Topic) -> String {
    match topic {
        Topic::Table => table(),
        Topic::Functions => functions(),
        Topic::Detection => pretty(&schema::DETECTION),
        Topic::List => pretty(&schema::LIST),
        Topic::Exceptions => pretty(&schema::EXCEPTIONS),
        Topic::Config => pretty(&crate::config::schema()),
        Topic::Alert => include_str!("../../schemas/ocsf/detection_finding.schema.json").to_owned(),
    }
}

/// The checked-in files that are made from code: path from the package's root, and text.
pub fn generated() -> Vec<(&'static str, String)> {
    vec![
        ("schemas/audit.md", table()),
        ("schemas/functions.md", functions()),
        ("schemas/detection.schema.json", text(Topic::Detection)),
        ("schemas/list.schema.json", text(Topic::List)),
        ("schemas/exceptions.schema.json", text(Topic::Exceptions)),
    ]
}

fn pretty(schema: &Json) -> String {
    format!("{schema:#}\n")
}

fn table() -> String {
    let mut text = format!(
        "# The `audit` table\n\n\
         Version {AUDIT_SCHEMA_VERSION}. One row for one Kubernetes audit event at one stage. Made from the code by \
         `kubetide schema table`.\n\n\
         Every column can be null, which means unknown: a comparison with it is no match, a negation of it neither.\n\
         *Level* is the lowest audit level at which the column can be known; `Request` columns come out of a body.\n"
    );
    let mut group = "";
    for info in COLUMNS {
        if info.group != group {
            group = info.group;
            let _ = write!(text, "\n## {group}\n\n| column | type | level | meaning |\n|---|---|---|---|\n");
        }
        let level = match info.level {
            Level::Metadata => "Metadata",
            Level::Request => "Request",
        };
        let _ = writeln!(text, "| `{}` | {} | {level} | {} |", info.name, info.kind.sql_name(), cell(info.doc));
    }
    text.push_str("\n## Lists of structs\n");
    for (kind, column) in [
        (Kind::Containers, "containers"),
        (Kind::Volumes, "volumes"),
        (Kind::Subjects, "subjects"),
        (Kind::Rules, "rules"),
    ] {
        let _ = writeln!(text, "\n`{column}`: {}.", struct_fields(kind).join(", "));
    }
    text
}

fn struct_fields(kind: Kind) -> Vec<String> {
    use arrow::datatypes::DataType;
    let DataType::List(item) = kind.data_type() else { return Vec::new() };
    let DataType::Struct(fields) = item.data_type() else { return Vec::new() };
    let plain = |data_type: &DataType| match data_type {
        DataType::Boolean => "boolean",
        DataType::Int32 | DataType::Int64 => "integer",
        DataType::List(_) => "list",
        _ => "text",
    };
    fields.iter().map(|field| format!("`{}` {}", field.name(), plain(field.data_type()))).collect()
}

fn functions() -> String {
    let mut text = String::from(
        "# SQL functions\n\n\
         What detections can call beside the scalar functions of DataFusion and the JSON functions \
         (`json_get_str`, `->>` …). Made from the code by `kubetide schema functions`.\n",
    );
    for function in FUNCTIONS.iter().chain(WINDOW_FUNCTIONS) {
        let (signature, doc, example) = (function.signature, function.doc, function.example);
        let _ = write!(text, "\n## `{}`\n\n`{signature}`\n\n{doc}\n\n```sql\n{example}\n```\n", function.name);
    }
    text
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn generated_files_are_as_checked_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut stale = Vec::new();
        for (path, expected) in generated() {
            let file = root.join(path);
            if std::env::var_os("KUBETIDE_BLESS").is_some() {
                std::fs::write(&file, &expected).expect("a writable checkout");
            } else if std::fs::read_to_string(&file).unwrap_or_default() != expected {
                stale.push(path);
            }
        }
        assert!(
            stale.is_empty(),
            "not what the code says: {stale:?}; refresh with `KUBETIDE_BLESS=1 cargo test --lib cli::schema`"
        );
    }

    #[test]
    fn the_alert_schema_is_the_checked_in_one() {
        let schema: Json = serde_json::from_str(&text(Topic::Alert)).expect("JSON");
        assert!(schema.get("$schema").is_some());
    }
}
