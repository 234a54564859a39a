//! Rules of the house that no linter knows. Every complaint is `path:line: what to do`, and all come at once.

use std::path::{Path, PathBuf};

/// The parts from the door to the ground; each may use those behind it. Parts on one line do not know each other.
const ORDER: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["config"],
    &["http"],
    &["flow"],
    &["stage"],
    &["detection"],
    &["generate"],
    &["kafka", "sql", "state"],
    &["model"],
    &["json"],
    &["telemetry"],
    &["options", "clock"],
];

/// Uses that go against the order, each with its reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("model", "json", "spans of JSON are what an event is before it is columns"),
    ("telemetry", "model", "reasons and severities are labels"),
];

/// Libraries with one home.
const HOMES: &[(&str, &[&str])] = &[
    ("rdkafka", &["src/kafka/", "src/stage/source/kafka", "src/stage/sink/kafka", "src/cli/generate/output.rs"]),
    ("object_store", &["src/state/"]),
    ("axum", &["src/http/", "src/stage/source/http", "src/stage/sink/webhook/tests.rs"]),
    ("clap", &["src/cli/", "src/main.rs"]),
    ("reqwest", &["src/stage/sink/webhook", "src/stage/sink/url.rs", "src/stage/source/http/tests.rs", "src/http/"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let pattern = root().join(folder).join("**").join(format!("*.{ending}")).display().to_string();
    glob::glob(&pattern).expect("a constant pattern").flatten().collect()
}

fn rank(part: &str) -> Option<usize> {
    ORDER.iter().position(|parts| parts.contains(&part))
}

/// Complaints about one source file.
fn complaints(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let inside: Vec<&str> = path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let own = inside[0];
    let is_test = path.ends_with("tests.rs") || path.contains("/tests/") || path.ends_with("testing.rs");
    for (number, line) in text.lines().enumerate() {
        // What follows is the file's own tests, which may set up what they need.
        if line.starts_with("#[cfg(test)]") || is_test {
            break;
        }
        if let Some(used) = line.trim_start().strip_prefix("use crate::") {
            let mut used = used.split([':', ';', '{', ' ']).filter(|part| !part.is_empty());
            let part = used.next().unwrap_or_default();
            if let (Some(from), Some(to)) = (rank(own), rank(part))
                && (to < from || (to == from && part != own))
                && !ALLOWED.iter().any(|(user, target, _)| *user == own && *target == part)
            {
                found.push(format!(
                    "{path}:{}: `{own}` may not use `{part}`, which stands before or beside it",
                    number + 1
                ));
            }
            let stage = used.next().unwrap_or_default();
            if own == "stage" && part == "stage" && inside.get(1).is_some_and(|own| *own != stage) {
                found.push(format!("{path}:{}: stages meet in `model`: do not use stage::{stage} here", number + 1));
            }
        }
        for (library, homes) in HOMES {
            let uses = line.contains(&format!("use {library}::")) || line.contains(&format!(" {library}::"));
            if uses && !line.trim_start().starts_with("//") && !homes.iter().any(|home| path.starts_with(home)) {
                found.push(format!("{path}:{}: {library} has a home: {}", number + 1, homes[0]));
            }
        }
    }
    if !is_test && !text.starts_with("//!") {
        found.push(format!("{path}:1: begin with a `//!` header that says what the module is for"));
    }
    if text.lines().count() > 800 {
        found.push(format!("{path}:801: more than 800 lines usually hold two ideas: find the second one's name"));
    }
    found
}

#[test]
fn the_source_keeps_its_order() {
    let mut found = Vec::new();
    for file in files("src", "rs") {
        let path = file.strip_prefix(root()).expect("below the root").display().to_string();
        let text = std::fs::read_to_string(&file).expect("readable");
        found.extend(complaints(&path, &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_rules_themselves_work() {
    let told = |path: &str, text: &str| complaints(path, text).len();
    assert_eq!(told("src/model/x.rs", "//! X\nuse crate::model::Y;\nuse crate::json::Raw;\n"), 0);
    assert_eq!(told("src/model/x.rs", "//! X\nuse crate::flow::Y;\n"), 1);
    assert_eq!(told("src/kafka/x.rs", "//! X\nuse crate::sql::Y;\n"), 1);
    assert_eq!(told("src/stage/sink/x.rs", "//! X\nuse crate::stage::source::Y;\n"), 1);
    assert_eq!(
        told("src/stage/sink/x.rs", "//! X\nuse crate::stage::sink::Y;\n#[cfg(test)]\nuse crate::flow::Z;\n"),
        0
    );
    assert_eq!(told("src/flow/x.rs", "//! X\nuse rdkafka::Z;\n"), 1);
    assert_eq!(told("src/flow/x.rs", "use crate::stage::Y;\n"), 1);
    assert_eq!(told("src/flow/x.rs", &format!("//! X\n{}", "\n".repeat(800))), 1);
}

#[test]
fn no_machine_path_stands_in_the_tree() {
    let mut found = Vec::new();
    let folders = [
        ("src", "rs"),
        ("tests/it", "rs"),
        ("detections", "yaml"),
        ("docs", "md"),
        ("benches", "md"),
        ("examples", "md"),
    ];
    for (folder, ending) in folders {
        for file in files(folder, ending) {
            let text = std::fs::read_to_string(&file).expect("readable");
            // Spelled in two halves, so that this file does not complain about itself.
            for path in [concat!("/wo", "rk/"), concat!("../sha", "red")] {
                if text.contains(path) {
                    found.push(format!("{}: names the machine path {path}", file.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
