//! Loader and linter over whole files.

use std::sync::Arc;

use super::*;

const GOOD: &str = "\
id: privileged-pod
title: Privileged pod created
severity: high
status: stable
attack: [TA0004/T1611]
description: A privileged container owns its node.
triage: Look at the image.
false_positives: [node agents]
sql: |
  SELECT * FROM audit
  WHERE verb = 'create' AND resource = 'pods' AND api_group = '' AND privileged
    AND response_code = 201
entity: [cluster, namespace, name]
suppress: 1h
summary: \"{user_name} created {namespace}/{name}\"
tests:
  - name: fires
    events: [{sample: pod-create, set: {requestObject: null}}]
    expect: {alerts: 1, fields: {name: web}}
  - name: quiet one
    events: [{sample: pod-create, as: gke}]
    expect: {alerts: 0}
  - name: quiet two
    events: [{kind: Event}]
    expect: {alerts: 0}
";
const PATH: &str = "detections/privilege-escalation/privileged-pod.yaml";

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: text.into(), support: false }
}

fn with_samples(files: Vec<SourceFile>) -> Loaded {
    load(&files.into_iter().chain(files::shipped_support()).collect::<Vec<_>>())
}

/// `line:column code message` of everything that is wrong with the good file after a change.
fn complaints(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    let loaded = with_samples(vec![file(PATH, &GOOD.replacen(from, to, 1))]);
    let mut found = loaded.diagnostics.clone();
    found.extend(lint(&loaded, day("2026-06-01")));
    found.iter().map(shown).collect()
}

fn shown(diagnostic: &Diagnostic) -> String {
    let help = diagnostic.help.as_deref().unwrap_or_default();
    let Span { line, column, .. } = diagnostic.span;
    format!("{line}:{column} {} {} | {help}", diagnostic.code.as_str(), diagnostic.message)
}

fn day(text: &str) -> chrono::NaiveDate {
    text.parse().expect("a date")
}

#[test]
fn a_good_file_loads_without_a_word() {
    assert_eq!(complaints("title", "title"), Vec::<String>::new());
    let loaded = with_samples(vec![file(PATH, GOOD)]);
    let detection = loaded.set.get("privileged-pod").expect("loaded");
    assert_eq!(detection.suppress.as_secs(), 3600);
    assert_eq!(detection.attack[0].to_string(), "TA0004/T1611");
    assert_eq!(detection.uses, [Use::Alert]);
    let event = &loaded.set.events(&detection.tests[0].events[0]).expect("sample exists")[0];
    assert_eq!(event["verb"], "create");
    assert_eq!(event.get("requestObject"), None);
}

#[test]
fn each_mistake_is_named_at_its_place() {
    let cases = [
        ("severity: high", "severty: high", "3:1 KT0003", "did you mean 'severity'"),
        ("severity: high", "severity: hgih", "3:11 KT0007", "did you mean 'high'"),
        ("severity: high\n", "", "1:1 KT0005", "key 'severity' is missing"),
        ("status: stable", "status: stable\nstatus: testing", "5:1 KT0004", "given twice"),
        ("title: Privileged pod created", "title: 12", "2:8 KT0006", "put it in quotes"),
        ("triage: Look at the image.", "triage:", "7:7 KT0006", "leave the key out"),
        ("false_positives: [node agents]", "false_positives: node agents", "8:18 KT0006", "write it as a list"),
        ("suppress: 1h", "suppress: 1w", "14:11 KT0007", "with s, m, h or d"),
        ("suppress: 1h", "suppress: 5", "14:11 KT0007", "cannot be 5"),
        ("entity: [cluster, ", "entity: [clustr, ", "13:10 KT0013", "did you mean 'cluster'"),
        ("entity: [cluster, ", "entity: [containers, ", "13:10 KT0007", "cannot name an entity"),
        ("{user_name} created", "{user_nam} created", "15:12 KT0013", "did you mean 'user_name'"),
        ("{user_name} created", "{user_name created", "15:11 KT0007", "never closed"),
        ("TA0004/T1611", "TA0004/T1661", "5:10 KT0009", "T1611"),
        ("TA0004/T1611", "TA0002/T1610", "5:9 KT0012", "move the file to execution/"),
        ("id: privileged-pod", "id: privileged-pods", "1:5 KT0011", "privileged-pods.yaml"),
        ("id: privileged-pod", "id: Privileged Pod", "1:5 KT0007", "hyphens"),
        ("sample: pod-create, as", "sample: pod-creat, as", "21:23 KT0014", "did you mean 'pod-create'"),
        ("as: gke", "as: gcp", "21:39 KT0007", "eks, aks, gke"),
        ("sample: pod-create, as", "sampl: pod-create, as", "21:34 KT0014", "none is named"),
        ("alerts: 1, ", "alerts: one, ", "19:22 KT0006", "a whole number"),
        ("fields: {name: web}", "fields: {nam: web}", "19:34 KT0013", "did you mean 'name'"),
        ("title: Privileged", "title: [Privileged", "KT0002", ""),
    ];
    for (from, to, place, words) in cases {
        let found = complaints(from, to);
        let hit = found.iter().any(|line| line.contains(place) && line.contains(words));
        assert!(hit, "{to:?} should give {place} {words}, gave {found:#?}");
    }
}

#[test]
fn all_mistakes_of_all_files_come_at_once() {
    let wrong = GOOD.replace("severity: high", "severity: hgih").replace("status: stable", "stauts: stable");
    let loaded = with_samples(vec![
        file(PATH, &wrong),
        file("detections/impact/second.yaml", ": ["),
        file("detections/impact/third.yaml", &GOOD.replace("privileged-pod", "third")),
        file("other/privilege-escalation/privileged-pod.yaml", GOOD),
        file("copy/privilege-escalation/privileged-pod.yaml", GOOD),
    ]);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect();
    assert_eq!(
        codes,
        ["KT0010", "KT0002", "KT0012", "KT0005", "KT0007", "KT0003"],
        "{:#?}",
        loaded.diagnostics.iter().map(shown).collect::<Vec<_>>()
    );
    assert_eq!(loaded.set.detections.len(), 1);
}

#[test]
fn a_wrong_shape_does_not_hide_a_wrong_query_or_place() {
    let wrong = GOOD.replace("severity: high", "severty: high").replace("AND privileged", "AND nope");
    let loaded = with_samples(vec![file(PATH, &wrong.replace("TA0004/T1611", "TA0004/T1661"))]);
    let found: Vec<String> = loaded.diagnostics.iter().map(shown).collect();
    for part in ["KT0003", "KT0005", "KT0008", "KT0009"] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
    }
}

#[test]
fn a_sites_own_folder_may_be_named_as_it_likes() {
    let at = |folder: &str| {
        let loaded = with_samples(vec![file(&format!("{folder}/privileged-pod.yaml"), GOOD)]);
        loaded.diagnostics.iter().map(shown).collect::<Vec<_>>()
    };
    for folder in ["my-detections", "detections", "site/team-a"] {
        assert_eq!(at(folder), Vec::<String>::new(), "{folder}");
    }
    let slip = at("site/privilege-escalaton");
    assert!(slip.len() == 1 && slip[0].contains("KT0110") && slip[0].contains("privilege-escalation"), "{slip:?}");
}

#[test]
fn sql_errors_are_shown_in_the_authors_file() {
    let found = complaints("AND privileged", "AND nope");
    assert!(found.iter().any(|line| line.starts_with("11:70 KT0008")), "{found:#?}");
}

#[test]
fn warnings_say_what_would_be_better() {
    let cases = [
        ("triage: Look at the image.\n", "", "KT0103"),
        ("false_positives: [node agents]\n", "", "KT0104"),
        ("alerts: 1, fields: {name: web}", "alerts: 0", "KT0101"),
        ("name: quiet two", "name: quiet one", "23:11 KT0105"),
        ("    AND response_code = 201\n", "", "KT0108"),
        (" AND api_group = ''", "", "11:29 KT0115"),
        ("response_code = 201", "response_code = 201 AND NOT dry_run", "12:37 KT0107"),
        ("response_code = 201", "response_code = 201 AND subresource <> 'status'", "12:33 KT0107"),
    ];
    for (from, to, expected) in cases {
        let found = complaints(from, to);
        assert!(found.iter().any(|line| line.contains(expected)), "{to:?} should give {expected}, gave {found:#?}");
    }
}

#[test]
fn lists_of_one_name_are_joined_and_exceptions_expire() {
    let list = |value: &str| {
        format!(
            "name: trusted\ndescription: d\nentries:\n  - {{value: {value}, reason: r}}\n  - {{value: same, reason: r}}\n"
        )
    };
    let exceptions = "- detection: privileged-pod\n  sql: name = 'web'\n  reason: known\n  owner: team\n  expires: 2026-05-31\n- detection: privileged-pot\n  sql: name = 'web'\n  reason: known\n  owner: team\n  expires: 2026-13-31\n";
    let loaded = with_samples(vec![
        file("detections/lists/trusted.yaml", &list("a")),
        file("site/lists/trusted.yaml", &list("b")),
        file("site/exceptions/team.yaml", exceptions),
        file(PATH, GOOD),
    ]);
    assert_eq!(loaded.set.lists.get("trusted"), Some(["a", "same", "b"].map(String::from).as_slice()));
    assert_eq!(loaded.set.exceptions.len(), 1);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect();
    assert_eq!(codes, ["KT0112", "KT0015"]);
    let expired = |today: &str| lint(&loaded, day(today)).iter().any(|found| found.code == Code::Expired);
    assert!(!expired("2026-05-31") && expired("2026-06-01"));
}

#[test]
fn a_file_of_any_shape_is_reported_and_never_panics() {
    let texts = [
        "",
        "null",
        "1",
        "[]",
        "{}",
        "- a\n- b\n",
        "a: {b: [",
        "\t",
        "&a [*a]",
        "? {a: 1}\n: b\n",
        "\u{feff}id: x",
        "!!binary aGk=",
    ];
    for text in texts {
        for path in
            ["detections/impact/x.yaml", "detections/lists/x.yaml", "exceptions/x.yaml", "samples/x.json", "x.yml"]
        {
            let loaded = load(&[file(path, text)]);
            assert!(loaded.set.detections.is_empty());
        }
    }
    assert!(Arc::strong_count(&load(&[]).set.planner) == 1);
}

#[test]
fn the_shipped_pack_has_no_findings() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("detections");
    let read = files::read(&[root]);
    let loaded = load(&read.files);
    let mut found = read.diagnostics;
    found.extend(lint(&loaded, day("2026-06-01")));
    found.extend(loaded.diagnostics);
    let texts: Vec<String> = found.iter().map(|one| format!("{}:{}", one.file, shown(one))).collect();
    assert!(texts.is_empty(), "{} findings:\n{}", texts.len(), texts.join("\n"));
}

#[test]
fn no_cut_and_no_stray_character_makes_the_loader_panic() {
    for end in (0..GOOD.len()).step_by(7).filter(|end| GOOD.is_char_boundary(*end)) {
        load(&[file(PATH, &GOOD[..end])]);
    }
    let lines: Vec<&str> = GOOD.lines().collect();
    for index in 0..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(index);
        load(&[file(PATH, &fewer.join("\n"))]);
        for stray in ["\t", "é: [", "&a *a"] {
            let mut more = lines.clone();
            more.insert(index, stray);
            load(&[file(PATH, &more.join("\n"))]);
        }
    }
}

/// Every keyword of a schema, at any depth, but names of properties and definitions.
fn keywords(schema: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    for (key, value) in schema.as_object().into_iter().flatten() {
        found.insert(key.clone());
        match key.as_str() {
            "properties" | "$defs" => {
                value.as_object().into_iter().flatten().for_each(|(_, inner)| keywords(inner, found));
            }
            "default" => {}
            "oneOf" => value.as_array().into_iter().flatten().for_each(|inner| keywords(inner, found)),
            _ => keywords(value, found),
        }
    }
}

#[test]
fn the_checker_understands_every_keyword_that_the_schemas_use() {
    let understood = [
        "$defs",
        "$ref",
        "additionalProperties",
        "const",
        "else",
        "enum",
        "if",
        "items",
        "maximum",
        "maxItems",
        "minItems",
        "minLength",
        "minimum",
        "oneOf",
        "pattern",
        "properties",
        "required",
        "then",
        "type",
    ];
    let silent = ["$schema", "default", "description", "format", "title"];
    for schema in [&*schema::DETECTION, &*schema::LIST, &*schema::EXCEPTIONS] {
        let mut found = std::collections::BTreeSet::new();
        keywords(schema, &mut found);
        found.retain(|key| !understood.contains(&key.as_str()) && !silent.contains(&key.as_str()));
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn an_editor_with_the_schema_agrees_with_the_checker() {
    let validator = jsonschema::validator_for(&schema::DETECTION).expect("a valid schema");
    for (from, to) in [
        ("title", "title"),
        ("severity: high", "severty: high"),
        ("severity: high", "severity: hgih"),
        ("title: Privileged pod created", "title: 12"),
        ("suppress: 1h", "suppress: 1w"),
        ("suppress: 1h", "suppress: 0"),
        ("suppress: 1h", "suppress: 5"),
        ("as: gke", "as: gcp"),
        ("alerts: 1, ", "alerts: -1, "),
        ("attack: [TA0004/T1611]", "attack: []"),
        ("uses", "uses"),
        ("status: stable", "status: stable\nuses: [alert, postur]"),
    ] {
        let text: Arc<str> = GOOD.replacen(from, to, 1).into();
        let path: Arc<str> = PATH.into();
        let root = yaml::parse(&path, &text).expect("valid YAML");
        let mut found = Vec::new();
        shape::check(&schema::DETECTION, &root, &path, &text, &mut found);
        assert_eq!(validator.is_valid(&root.to_json()), found.is_empty(), "{to}: {found:?}");
    }
}
