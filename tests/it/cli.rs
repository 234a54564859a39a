//! The command line from outside: exit codes, what stands on which stream, and that the same input gives the same
//! findings however it arrives.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};

use kubetide::generate::wire::{WireFormat, wrap};
use serde_json::Value;

use crate::support::process::{alerts, command};
use crate::support::site::{Site, found, gzip, lines, requests, secret_request, secret_requests, text, uids};

/// A site with the log in it.
fn site_with_log() -> Site {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    site
}

#[test]
fn help_goes_to_stdout_and_mistakes_in_arguments_end_with_3() {
    let site = Site::new();
    let help = site.run("--help").expect_code(0);
    assert!(help.stdout.contains("Usage:") && help.stderr.is_empty());
    assert!(site.run("--version").expect_code(0).stdout.starts_with("kubetide "));
    let typo = site.run("explian secret-request").expect_code(3);
    typo.expect_stderr(&["unrecognized subcommand 'explian'", "'explain'"]);
    let typo = site.run("run audit.log --formt json").expect_code(3);
    typo.expect_stderr(&["unexpected argument '--formt'", "'--format'"]);
    assert!(typo.stdout.is_empty());
}

#[test]
fn a_source_that_is_not_there_ends_with_3() {
    let site = Site::new();
    for name in ["missing.log", "missing/*.log"] {
        let ended = site.evaluate(&format!("{name} --format json")).expect_code(3);
        ended.expect_stderr(&["nothing to read at", name]);
        assert!(ended.stdout.is_empty());
    }
    site.evaluate("").expect_code(3).expect_stderr(&["nothing to read", "name a source"]);
}

#[test]
fn a_wrong_detection_file_shows_every_mistake_with_its_place_and_ends_with_2() {
    let site = site_with_log();
    let good = site.read("secret-request.yaml");
    let bad = good.replace("id: secret-request", "id: bad").replace("severity:", "severty:");
    site.write("bad.yaml", bad.replace("title: A secret was asked for", "title: [1]"));
    site.write("worse.yaml", good.replace("id: secret-request", "id: worse").replace("resource =", "resorce ="));
    for line in ["run audit.log --detections bad.yaml --detections worse.yaml", "lint bad.yaml worse.yaml"] {
        let ended = site.run(line).expect_code(2);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for part in [
            "bad.yaml:3:1",
            "unknown key 'severty'",
            "did you mean 'severity'",
            "bad.yaml:2:8",
            "worse.yaml:9:",
            "resource",
        ] {
            assert!(said.contains(part), "{line}: {part} is not in\n{said}");
        }
    }
    let json = site.run("lint bad.yaml --format json").expect_code(2).alerts();
    assert!(json.iter().any(|line| line["line"] == 3 && line["level"] == "error"), "{json:?}");
    site.run("run audit.log --detections missing.yaml").expect_code(3).expect_stderr(&["missing.yaml"]);
}

#[test]
fn lint_checks_what_the_configuration_names() {
    let site = Site::new();
    site.write(
        "own/bad.yaml",
        site.read("secret-request.yaml").replace("id: secret-request", "id: bad").replace("sql:", "sqll:"),
    );
    site.write("kubetide.toml", "[detections]\npaths = [\"own\"]\n");
    let ended = site.run("lint --config kubetide.toml").expect_code(2);
    assert!(ended.stdout.contains("own/bad.yaml") && ended.stdout.contains("'sqll'"), "{}", ended.stdout);
    site.write("wrong.toml", "detektions = 1\n");
    site.run("lint --config wrong.toml").expect_code(3).expect_stderr(&["did you mean `detections`"]);
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_read_or_written_is_told_once() {
    let site = site_with_log();
    // The first page of a process's memory can be opened and not read.
    let ended = site.evaluate("/proc/self/mem --format json").expect_code(3);
    assert_eq!(ended.stderr.matches("could not be read").count(), 1, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("/proc/self/mem").count(), 2, "as the source and as the file: {}", ended.stderr);
    let ended = site.evaluate("audit.log --alerts /dev/full").expect_code(3);
    assert_eq!(ended.stderr.matches("/dev/full").count(), 1, "{}", ended.stderr);
}

#[test]
fn import_converts_what_lint_accepts_and_tells_what_it_cannot() {
    let site = Site::new();
    let rule = |title: &str, item: &str| {
        format!(
            "title: {title}\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n  s: {{{item}}}\n  condition: s\nlevel: low\n"
        )
    };
    site.write("good.yml", rule("Secrets read", "verb: get, objectRef.resource: secrets"));
    site.write("bad/bad.yml", rule("Command", "CommandLine: x"));
    site.write("bad/windows.yml", "title: W\nlogsource: {product: windows}\n");
    let report = site.run("import sigma good.yml --out made").expect_code(0);
    let path = "made/credential-access/sigma-secrets-read.yaml";
    assert!(report.stdout.contains("Secrets read") && site.path(path).exists(), "{}", report.stdout);
    site.run("lint made").expect_code(0);
    // The same again is no difference; a reader's change is not overwritten unasked.
    site.run("import sigma good.yml --out made").expect_code(0);
    site.write(path, "changed");
    site.run("import sigma good.yml --out made").expect_code(3).expect_stderr(&["differs", "--force"]);
    site.run("import sigma good.yml --out made --force").expect_code(0);
    let refused = site.run("import sigma good.yml bad --format json").expect_code(1);
    let lines = refused.alerts();
    let outcomes: BTreeSet<&str> = lines.iter().filter_map(|line| line["outcome"].as_str()).collect();
    assert_eq!(outcomes, BTreeSet::from(["converted", "refused", "skipped"]));
    refused.expect_stderr(&["1 converted, 1 refused, 1 skipped"]);
    let printed = site.run("import sigma good.yml bad").expect_code(1);
    assert!(
        printed.stdout.contains("SELECT * FROM audit") && !printed.stdout.contains("refused"),
        "{}",
        printed.stdout
    );
    printed.expect_stderr(&["refused", "CommandLine", "no field"]);
    site.write("broken.yml", "a: [");
    site.run("import falco broken.yml").expect_code(2).expect_stderr(&["unreadable"]);
    site.run("import sigma bad/windows.yml").expect_code(2);
    site.run("import sigma missing.yml").expect_code(3);
}

#[test]
fn a_typo_in_the_configuration_ends_with_3_and_a_suggestion() {
    let site = site_with_log();
    site.write("kubetide.toml", "[batch]\nevnts = 10\n");
    for line in ["run audit.log --config kubetide.toml", "config check --config kubetide.toml"] {
        let ended = site.run(line).expect_code(3);
        ended.expect_stderr(&["kubetide.toml:2:1", "unknown key `evnts`", "did you mean `events`?"]);
    }
    site.run("run audit.log --set batch.age_m=5").expect_code(3).expect_stderr(&["did you mean `age_ms`?"]);
    let mut run = command(&site.path(""), &["run", "audit.log"]);
    let ended = run.env("KUBETIDE_BATCH__EVNTS", "10").output().expect("it runs");
    assert_eq!(ended.status.code(), Some(3));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("KUBETIDE_BATCH__EVNTS") && said.contains("did you mean"), "{said}");
}

#[test]
fn json_is_all_that_stands_on_standard_output() {
    let site = Site::new();
    let mut input = text(lines());
    input.extend_from_slice(b"no audit event\n\x00\xff\xfe\n");
    site.write("audit.log", input);
    let ended = site.evaluate("audit.log --format json").expect_code(0);
    assert_eq!(requests(&ended.alerts()), secret_requests(lines()));
    ended.expect_stderr(&["alerts", "2 unreadable", "record could not be read"]);
    let quiet = site.evaluate("audit.log --format json --quiet").expect_code(0);
    assert!(!quiet.stderr.contains("unreadable"), "no summary: {}", quiet.stderr);
    let human = site.evaluate("audit.log").expect_code(0);
    assert!(human.stdout.contains("secret-request") && !human.stdout.contains('{'), "{}", human.stdout);
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_run_quietly() {
    let site = site_with_log();
    let args = ["run", "audit.log", "--format", "json", "--no-shipped", "--detections", "secret-request.yaml"];
    let mut child = command(&site.path(""), &args).spawn().expect("it starts");
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut first).expect("an alert");
    assert_eq!(alerts(&first).len(), 1);
    drop(stdout);
    let ended = child.wait_with_output().expect("our child");
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.is_empty(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn an_unreadable_file_among_good_ones_hides_nothing_and_ends_with_3() {
    let site = Site::new();
    let (first, second) = lines().split_at(1_500);
    site.write("logs/a.log", text(first));
    let whole = gzip(&text(&lines()[..100]));
    site.write("logs/b.gz", &whole[..whole.len() / 2]);
    site.write("logs/c.log", text(second));
    let ended = site.evaluate("logs --format json").expect_code(3);
    assert!(requests(&ended.alerts()).is_superset(&secret_requests(lines())));
    ended.expect_stderr(&["1 of 3 files could not be read", "b.gz"]);
}

#[test]
fn every_way_to_hand_over_a_log_gives_the_same_findings() {
    let site = site_with_log();
    let plain = text(lines());
    site.write("packed/audit.log", gzip(&plain));
    site.write("pressed/audit.log", zstd::encode_all(&plain[..], 1).expect("in memory"));
    site.write("folder/audit.log", &plain);
    let all = uids(&site.evaluate("audit.log --format json").expect_code(0).alerts());
    assert!(all.len() >= 5, "{} findings", all.len());
    for source in ["packed/audit.log", "pressed/audit.log", "folder", "fold*/*.log"] {
        assert_eq!(uids(&site.evaluate(&format!("{source} --format json")).expect_code(0).alerts()), all, "{source}");
    }
    let line = "run - --cluster audit --format json --no-shipped --detections secret-request.yaml";
    assert_eq!(uids(&site.run_with_input(line, &plain).expect_code(0).alerts()), all, "standard input");
}

/// The shipped pack, with suppression and updates.
#[test]
fn findings_do_not_depend_on_workers_or_on_the_order_of_runs() {
    let site = site_with_log();
    let (first, second) = lines().split_at(1_500);
    site.write("one/audit.log", text(first));
    site.write("two/audit.log", text(second));
    let run = |line: &str| site.run(&format!("run {line} --format json --quiet")).expect_code(0).alerts();
    let all = run("audit.log --workers 1");
    assert!(all.iter().any(|alert| alert["activity_id"] == 2), "some findings are updated");
    let ids = |alerts: &[Value]| (uids(alerts), found(alerts));
    assert_eq!(ids(&run("audit.log --workers 4 --set batch.events=100")), ids(&all), "with four workers");
    // What remembers needs to see both parts in one run.
    let set = kubetide::detection::load(&kubetide::detection::files::shipped()).set;
    let at_once = |alerts: Vec<Value>| -> Vec<Value> {
        let by_itself = |alert: &Value| {
            let id = alert["finding_info"]["analytic"]["uid"].as_str().unwrap_or_default();
            set.get(id).is_some_and(|detection| detection.memory.is_none())
        };
        alerts.into_iter().filter(by_itself).collect()
    };
    let parts = at_once([run("two/audit.log"), run("one/audit.log")].concat());
    assert_eq!(ids(&parts), ids(&at_once(all)), "in two runs, the later part first");
}

#[test]
fn clouds_wrappers_change_nothing_about_what_is_found() {
    let site = site_with_log();
    let native = site.run("run audit.log --format json --quiet").expect_code(0).alerts();
    for (name, wire) in [("eks", WireFormat::Eks), ("aks", WireFormat::Aks)] {
        let batches = lines().chunks(40).flat_map(|batch| {
            let batch: Vec<&[u8]> = batch.iter().map(String::as_bytes).collect();
            wrap(wire, &batch, "shop")
        });
        site.write(name, batches.flat_map(|batch| [batch, b"\n".to_vec()].concat()).collect::<Vec<u8>>());
        let wrapped = site.run(&format!("run {name} --format json --quiet")).expect_code(0).alerts();
        assert_eq!(found(&wrapped), found(&native), "{name}");
        assert!(wrapped.iter().all(|alert| alert["unmapped"]["provider"] == name), "{name}");
    }
}

#[test]
fn alerts_go_to_every_sink_and_then_not_to_standard_output() {
    let site = site_with_log();
    let ended = site.evaluate("audit.log --alerts first.ndjson --alerts second.ndjson --quiet").expect_code(0);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    assert_eq!(requests(&alerts(&site.read("first.ndjson"))), secret_requests(lines()));
    assert_eq!(site.read("first.ndjson"), site.read("second.ndjson"));
    let wrong = site.evaluate("audit.log --alerts kafak://a:1/b").expect_code(3);
    wrong.expect_stderr(&["did you mean `kafka`"]);
    let missing = site.evaluate("audit.log --alerts missing/alerts.ndjson").expect_code(3);
    missing.expect_stderr(&["missing", "create it first"]);
}

#[test]
fn dead_letters_hold_the_original_bytes_with_reason_and_position() {
    let site = Site::new();
    let binary: &[u8] = b"\x01\x00\xff binary";
    let parts: [(&[u8], &str); 3] =
        [(b"no json at all", "not_json"), (br#"{"kind":"Pod","spec":{}}"#, "unknown_format"), (binary, "not_json")];
    let mut input = Vec::new();
    let mut offsets = Vec::new();
    for (n, (garbage, _)) in parts.iter().enumerate() {
        input.extend_from_slice(format!("{}\n", secret_request(&format!("good-{n}"))).as_bytes());
        offsets.push(input.len() as u64);
        input.extend_from_slice(garbage);
        input.push(b'\n');
    }
    input.extend_from_slice(secret_request("good-3").as_bytes());
    site.write("audit.log", &input);
    let ended = site.evaluate("audit.log --format json --dead-letters dead.ndjson").expect_code(0);
    let good: BTreeSet<String> = (0..4).map(|n| format!("good-{n}")).collect();
    assert_eq!(requests(&ended.alerts()), good);
    let letters = alerts(&site.read("dead.ndjson"));
    assert_eq!(letters.len(), parts.len(), "{letters:?}");
    for ((letter, (garbage, reason)), offset) in letters.iter().zip(parts).zip(offsets) {
        assert_eq!(letter["lane"], "audit.log");
        assert_eq!(letter["offset"], offset);
        assert_eq!(letter["size"], garbage.len());
        assert_eq!(letter["reason"], reason, "{letter}");
        assert!(letter["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        let original = match letter["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                letter["base64"].as_str().expect("text or base64"),
            )
            .expect("base64"),
        };
        assert_eq!(original, garbage);
        assert_eq!(letter["blake3"], blake3::hash(garbage).to_hex().as_str());
    }
}

#[test]
fn exceptions_and_a_least_severity_leave_findings_out() {
    let site = site_with_log();
    let all = site.evaluate("audit.log --format json --quiet").expect_code(0).alerts();
    let users: Vec<&str> =
        all.iter().filter_map(|alert| alert["evidences"][0]["actor"]["user"]["name"].as_str()).collect();
    let known = *users.first().expect("somebody");
    let exception = format!(
        "- detection: secret-request\n  sql: user_name = '{known}'\n  reason: they run the vault\n  owner: platform\n  \
         expires: 2999-01-01\n"
    );
    site.write("known.yaml", exception);
    let rest = site.evaluate("audit.log --format json --quiet --exceptions known.yaml").expect_code(0).alerts();
    let others = users.iter().filter(|user| **user != known).count();
    assert_eq!(rest.len(), others);
    let ended = site.evaluate("audit.log --min-severity high").expect_code(2);
    ended.expect_stderr(&["no detection is left to run", "severity at least high"]);
}

#[test]
fn detections_are_tested_linted_and_explained() {
    let site = Site::new();
    site.run("test secret-request.yaml").expect_code(0);
    let json: Value = serde_json::from_str(&site.run("test secret-request.yaml --format json").expect_code(0).stdout)
        .expect("one document");
    assert_eq!(json["detections"][0]["tests"].as_array().map(Vec::len), Some(3), "{json}");
    let wrong = site.read("secret-request.yaml").replace("expect: {alerts: 1}", "expect: {alerts: 2}");
    site.write("failing/secret-request.yaml", wrong);
    let ended = site.run("test failing").expect_code(1);
    assert!(ended.stdout.contains("a secret is read"), "{}", ended.stdout);
    site.run("test failing --format junit").expect_code(1);
    site.run("test missing.yaml").expect_code(3).expect_stderr(&["missing.yaml"]);
    site.run("lint secret-request.yaml").expect_code(0).expect_stderr(&["1 detections: 0 errors"]);
    let explained = site.run("explain secret-request --detections secret-request.yaml").expect_code(0).stdout;
    for part in ["routed by", "secrets", "reads", "cost"] {
        assert!(explained.contains(part), "{part} is not in\n{explained}");
    }
    let typo = site.run("explain secret-requst --detections secret-request.yaml").expect_code(2);
    typo.expect_stderr(&["there is no detection `secret-requst`", "secret-request"]);
}

#[test]
fn the_shipped_pack_passes_its_own_tests_without_a_warning() {
    let site = Site::new();
    site.run("test").expect_code(0);
    site.run("lint --deny-warnings").expect_code(0);
}

#[test]
fn contracts_settings_and_completions_are_printed() {
    let site = Site::new();
    for (topic, part) in [
        ("table", "| `verb` |"),
        ("functions", "any_like"),
        ("detection", "\"severity\""),
        ("alert", "\"finding_info\""),
    ] {
        let text = site.run(&format!("schema {topic}")).expect_code(0).stdout;
        assert!(text.contains(part), "schema {topic} lacks {part}");
    }
    site.write("kubetide.toml", "[batch]\nevents = 10\n");
    let shown = site.run("config show --origin --config kubetide.toml --set workers=3").expect_code(0).stdout;
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("batch.events = 10").ends_with("# kubetide.toml:2"), "{shown}");
    assert!(line("workers = 3").contains("# flag --set"), "{shown}");
    assert!(line("batch.age_ms").ends_with("# default"), "{shown}");
    assert!(site.run("config keys").expect_code(0).stdout.contains("KUBETIDE_BATCH__AGE_MS"));
    site.run("config check --config kubetide.toml").expect_code(0);
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef kubetide"), ("fish", "complete -c kubetide")] {
        let script = site.run(&format!("completions {shell}")).expect_code(0).stdout;
        assert!(script.contains(part), "{shell}");
    }
}
