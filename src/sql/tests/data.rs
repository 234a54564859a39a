//! Runs `tests/sql/*.slt`: lines of `expression => value`, where the value may be `error: part of the message`.

use std::fs;
use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::super::FUNCTIONS;
use super::{evaluate, planner};

#[test]
fn expressions_give_what_their_files_say() {
    let planner = planner();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut wrong = Vec::new();
    let mut lines = 0;
    for entry in fs::read_dir(&folder).expect("tests/sql is part of the repository") {
        let path = entry.expect("the folder can be read").path();
        let text = fs::read_to_string(&path).expect("the file can be read");
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            lines += 1;
            let (sql, expected) = line.rsplit_once(" => ").unwrap_or((line, "?"));
            let found = shown(&planner, sql);
            let fits = match (expected.strip_prefix("error: "), found.strip_prefix("error: ")) {
                (Some(expected), Some(found)) => found.contains(expected),
                _ => found == expected,
            };
            if !fits {
                let file = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                wrong.push(format!("{file}:{}: {sql} => {found} instead of {expected}", index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(lines > 100, "only {lines} expressions");
}

fn shown(planner: &super::Planner, sql: &str) -> String {
    match evaluate(planner, sql) {
        Ok(array) => {
            let options = FormatOptions::default().with_null("NULL");
            let shown = ArrayFormatter::try_new(&array, &options).expect("every value can be shown");
            shown.value(0).to_string()
        }
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn every_example_of_the_documentation_evaluates() {
    let planner = planner();
    for info in FUNCTIONS {
        assert!(info.example.contains(info.name), "the example of {} uses it", info.name);
        evaluate(&planner, info.example).unwrap_or_else(|error| panic!("{}: {error}", info.example));
    }
}

#[test]
fn every_function_is_documented_and_every_documented_function_exists() {
    let planner = planner();
    let known = planner.function_names();
    for info in FUNCTIONS {
        assert!(known.iter().any(|name| name == info.name), "{}", info.name);
        assert!(info.signature.starts_with(info.name), "{}", info.signature);
    }
    let ours = super::super::functions::all(&super::Lists::default());
    assert_eq!(
        ours.iter().map(|udf| udf.name()).collect::<Vec<_>>(),
        FUNCTIONS.iter().map(|i| i.name).collect::<Vec<_>>()
    );
}
