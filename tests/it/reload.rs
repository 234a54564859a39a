//! Detections of a run change while events flow: added, broken, mended, taken away.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::process::{Running, alerts, free_address, http, post};
use crate::support::site::{Site, found, secret_request};

const OTHER: &str = r#"id: secret-by-get
title: A secret was read
severity: low
status: stable
attack: [TA0006/T1552.007]
description: Somebody read a secret.
sql: SELECT * FROM audit WHERE resource = 'secrets' AND verb = 'get'
entity: [cluster, user_name]
suppress: 0
summary: "{user_name} read {namespace}/{name}"
tests:
  - name: a secret is read
    events: [{sample: secret-get}]
    expect: {alerts: 1}
"#;

/// A run that watches a folder of detections, with its listener and its pages.
struct Watched {
    site: Site,
    running: Running,
    listener: SocketAddr,
    pages: SocketAddr,
}

impl Watched {
    fn start() -> Watched {
        let (site, listener, pages) = (Site::new(), free_address(), free_address());
        site.write("more/notes.txt", "no detection yet");
        site.write("kubetide.toml", "[detections]\nwatch_interval_ms = 50\n");
        let line = format!(
            "http://{listener}/audit --config kubetide.toml --http {pages} --alerts alerts.ndjson --detections more"
        );
        let mut running = site.start(&line);
        running.wait_for_port(listener);
        Watched { site, running, listener, pages }
    }

    fn ready(&self) -> Value {
        let (status, text) = http(self.pages, "GET /readyz HTTP/1.1", b"");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    fn wait_for(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let pages = self.pages;
        let ready = || serde_json::from_str(&http(pages, "GET /readyz HTTP/1.1", b"").1).unwrap_or_default();
        self.running.wait_until(what, || condition(&ready()));
        self.ready()
    }

    /// Sends an event that both detections are about, and tells which of them found it.
    fn found(&self, id: &str) -> Vec<String> {
        assert_eq!(post(self.listener, "/audit", secret_request(id).as_bytes()).0, 200);
        let all = found(&alerts(&self.site.read("alerts.ndjson")));
        all.into_iter().filter(|(_, requests)| requests.contains(id)).map(|(detection, _)| detection).collect()
    }

    fn metric(&self, line: &str) -> bool {
        http(self.pages, "GET /metrics HTTP/1.1", b"").1.lines().any(|found| found == line)
    }
}

#[test]
fn detections_are_added_broken_mended_and_taken_away_while_events_flow() {
    let mut run = Watched::start();
    assert_eq!(run.found("a"), ["secret-request"]);
    assert_eq!(run.ready()["generation"], 1);

    run.site.write("more/credential-access/secret-by-get.yaml", OTHER);
    run.wait_for("the new set is in force", |ready| ready["generation"] == 2);
    assert_eq!(run.found("b"), ["secret-by-get", "secret-request"]);

    for (broken, place) in [
        (OTHER.replace("verb = 'get'", "verbs = 'get'"), "secret-by-get.yaml:7:"),
        (OTHER.replace("{alerts: 1}", "{alerts: 2}"), "test 'a secret is read' fails: alerts: expected 2, got 1"),
        ("id: [".to_owned(), "secret-by-get.yaml:1:"),
    ] {
        run.site.write("more/credential-access/secret-by-get.yaml", &broken);
        let says = |ready: &Value| ready["reload"]["errors"][0].as_str().is_some_and(|error| error.contains(place));
        let ready = run.wait_for(place, says);
        assert_eq!((&ready["generation"], &ready["reload"]["state"]), (&2.into(), &"failed".into()));
        assert!(run.metric("kubetide_reload_failing 1"));
        assert_eq!(run.found(place), ["secret-by-get", "secret-request"], "what was loaded before stays in force");
    }
    assert!(run.running.stderr().contains("reload_failed"), "{}", run.running.stderr());

    run.site.write(
        "more/credential-access/secret-by-get.yaml",
        OTHER.replace("verb = 'get'", "verb = 'list'").replace("{alerts: 1}", "{alerts: 0}"),
    );
    let ready = run.wait_for("the mended set is in force", |ready| ready["generation"] == 3);
    assert_eq!(ready["reload"]["state"], "settled");
    assert!(run.metric("kubetide_reload_failing 0") && run.metric("kubetide_detections_generation 3"));
    assert_eq!(run.found("c"), ["secret-request"]);

    run.running.hang_up();
    run.wait_for("a set is loaded though nothing has changed", |ready| ready["generation"] == 4);
    std::fs::remove_file(run.site.path("more/credential-access/secret-by-get.yaml")).expect("it was there");
    let ready = run.wait_for("the file is gone", |ready| ready["generation"] == 5);
    assert_eq!(ready["detections"], 1);
    assert_eq!(run.found("d"), ["secret-request"]);
    run.running.terminate();
    run.running.wait().expect_code(0);
}

#[test]
fn an_exception_that_is_written_hides_from_then_on() {
    let mut run = Watched::start();
    assert_eq!(run.found("a"), ["secret-request"]);
    let exception = "- detection: secret-request\n  sql: user_name IS NOT NULL\n  reason: known\n  owner: me\n  expires: 2999-01-01\n";
    run.site.write("more/exceptions/known.yaml", exception);
    run.wait_for("it is in force", |ready| ready["generation"] == 2);
    assert_eq!(run.found("b"), Vec::<String>::new());
    assert!(run.metric("kubetide_exceptions_loaded 1"));
}
