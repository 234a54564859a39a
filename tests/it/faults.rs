//! Real parts that fail: senders, receivers, disks, signals, and records that nobody should have sent.
//!
//! Throughout, what was acknowledged is never lost, and one bad part does not stop the rest. Kafka's faults are in
//! `kafka.rs` and `kafka_run.rs`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kubetide::generate::wire::{WireFormat, wrap};
use serde_json::{Value, json};

use crate::support::process::{Running, alerts, command, free_address, http, poll, post};
use crate::support::receiver::{Answer, Receiver};
use crate::support::site::{Site, gzip, lines, requests, secret_request, secret_requests, text, uids};

/// A run that receives audit events, once it does.
fn listener(site: &Site, options: &str, more: &str) -> (Running, SocketAddr) {
    let address = free_address();
    let mut running = site.start(&format!("http://{address}/audit{options} --http off --alerts alerts.ndjson {more}"));
    running.wait_for_port(address);
    (running, address)
}

/// An `EventList` as the audit webhook backend posts it.
fn event_list(lines: &[String]) -> Vec<u8> {
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    wrap(WireFormat::EventList, &lines, "shop").remove(0)
}

/// Alerts in a file that another process is writing: its last line may be half there.
fn written(site: &Site, name: &str) -> BTreeSet<String> {
    let text = site.read(name);
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    requests(&alerts(&text[..whole]))
}

#[test]
fn a_webhook_body_is_answered_once_its_alerts_are_in_the_file() {
    let site = Site::new();
    let (running, address) = listener(&site, "", "");
    let mut sent = BTreeSet::new();
    for batch in lines().chunks(500) {
        let (status, text) = post(address, "/audit?timeout=30s", &event_list(batch));
        assert_eq!(status, 200, "{text}");
        sent.extend(secret_requests(batch));
        assert_eq!(written(&site, "alerts.ndjson"), sent, "durable before the answer");
    }
    assert!(sent.len() >= 5, "{} requests for secrets", sent.len());
    let (status, _) =
        post(address, "/audit/prod", format!("{}\n{}\n", secret_request("a"), secret_request("b")).as_bytes());
    assert_eq!(status, 200, "lines are taken too");
    let last = alerts(&site.read("alerts.ndjson")).pop().expect("alerts");
    assert_eq!(last["unmapped"]["cluster"], "prod", "the path names the cluster");
    for name in ["webhook-eventlist.json", "webhook-eventlist-2.json"] {
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire/corpus/cluster").join(name);
        let body = std::fs::read(recorded).expect("a fixture");
        assert_eq!(post(address, "/audit?timeout=30s", &body).0, 200, "{name}, as a real server posted it");
    }
    running.terminate();
    running.wait().expect_code(0);
}

#[test]
fn requests_that_are_not_in_order_are_refused_and_the_others_are_not() {
    let site = Site::new();
    site.write("token", "open sesame\n");
    let (running, address) = listener(&site, "?token_file=token&limit=64KiB", "");
    let authorized = "POST /audit HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer open sesame";
    let wrong = "POST /audit HTTP/1.1\r\nAuthorization: Bearer open";
    let body = secret_request("known");
    assert_eq!(http(address, "POST /audit HTTP/1.1", body.as_bytes()).0, 401);
    assert_eq!(http(address, wrong, body.as_bytes()).0, 401);
    assert_eq!(http(address, "GET /audit HTTP/1.1", b"").0, 405);
    assert_eq!(http(address, "POST /other HTTP/1.1", body.as_bytes()).0, 404);
    assert_eq!(http(address, authorized, b"").0, 400);
    let (status, said) = http(address, authorized, &vec![b' '; 1 << 17]);
    assert!(status == 413 && said.contains("?limit="), "{status} {said}");
    let bomb = gzip(&vec![b' '; 1 << 20]);
    assert!(bomb.len() < 1 << 14);
    assert_eq!(http(address, &format!("{authorized}\r\nContent-Encoding: gzip"), &bomb).0, 413);
    assert_eq!(http(address, &format!("{authorized}\r\nContent-Encoding: br"), &bomb).0, 415);
    assert_eq!(http(address, &format!("{authorized}\r\nContent-Encoding: gzip"), &gzip(body.as_bytes())).0, 200);
    assert_eq!(written(&site, "alerts.ndjson"), BTreeSet::from(["known".to_owned()]));
    running.terminate();
    running.wait().expect_code(0);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = busy.local_addr().expect("bound");
    let ended = site.evaluate(&format!("http://{taken}/audit --http off")).expect_code(3);
    ended.expect_stderr(&["cannot listen on", &taken.to_string(), "is it in use?"]);
}

/// Senders that do not stop while the program does: what they were told is safe, is safe.
fn stopped_under_load(stop: impl FnOnce(Running) -> Option<i32>) -> Option<i32> {
    let site = Site::new();
    let (running, address) = listener(&site, "", "--set checkpoint_interval_ms=100");
    let (acknowledged, over) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let code = std::thread::scope(|scope| {
        for sender in 0..4 {
            let (acknowledged, over) = (&acknowledged, &over);
            scope.spawn(move || send_until_over(address, sender, acknowledged, over));
        }
        let enough = poll(|| acknowledged.lock().expect("no panic").len() >= 200);
        let code = stop(running);
        over.store(true, Ordering::Release);
        assert!(enough, "load was taken in");
        code
    });
    let acknowledged = acknowledged.into_inner().expect("no panic");
    let kept = written(&site, "alerts.ndjson");
    let lost: Vec<&String> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged requests are lost", lost.len(), acknowledged.len());
    code
}

fn send_until_over(address: SocketAddr, sender: usize, acknowledged: &Mutex<BTreeSet<String>>, over: &AtomicBool) {
    for round in 0.. {
        if over.load(Ordering::Acquire) {
            return;
        }
        let ids: Vec<String> = (0..20).map(|n| format!("{sender}-{round}-{n}")).collect();
        let events: Vec<String> = ids.iter().map(|id| secret_request(id)).collect();
        // The connection may break or be refused while the program ends: then nothing was promised.
        let answer = std::panic::catch_unwind(|| post(address, "/audit", &event_list(&events)).0);
        if answer.is_ok_and(|status| status == 200) {
            acknowledged.lock().expect("no panic").extend(ids);
        }
    }
}

#[test]
fn a_stop_under_load_loses_nothing_that_was_acknowledged() {
    let code = stopped_under_load(|running| {
        running.terminate();
        running.wait().code
    });
    assert_eq!(code, Some(0));
}

#[test]
fn a_kill_under_load_loses_nothing_that_was_acknowledged() {
    stopped_under_load(|running| {
        running.kill();
        None
    });
}

#[test]
fn a_followed_file_is_read_on_through_a_rotation_until_the_stop() {
    let site = Site::new();
    let (first, second) = lines().split_at(1_500);
    site.write("audit.log", text(first));
    let mut running = site.start("audit.log --follow --http off --alerts alerts.ndjson --dead-letters dead.ndjson");
    running.wait_until("the first part is read", || written(&site, "alerts.ndjson") == secret_requests(first));
    let mut log = std::fs::File::options().append(true).open(site.path("audit.log")).expect("there");
    log.write_all(&text(second)).expect("writable");
    running.wait_until("it is read on", || written(&site, "alerts.ndjson") == secret_requests(lines()));
    std::fs::rename(site.path("audit.log"), site.path("audit.log.1")).expect("rotated");
    site.write("audit.log", format!("{}\n", secret_request("rotated")));
    running.wait_until("the new file is read", || written(&site, "alerts.ndjson").contains("rotated"));
    running.terminate();
    running.wait().expect_code(0).expect_stderr(&["stopping"]);
    assert_eq!(site.read("dead.ndjson"), "");
}

#[test]
fn a_receiver_that_refuses_is_slow_or_says_nothing_gets_every_alert_in_the_end() {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    let slow = Duration::from_millis(700);
    let answers = [
        Answer(503, Duration::ZERO),
        Answer(200, slow),
        Answer(429, Duration::ZERO),
        Answer(500, slow),
        // Longer than we wait: it takes the alert, and we do not know.
        Answer(200, Duration::from_secs(4)),
        Answer(503, Duration::ZERO),
    ];
    let receiver = Receiver::start(free_address(), &answers);
    let expected = uids(&site.evaluate("audit.log --format json --quiet").expect_code(0).alerts());
    let ended =
        site.evaluate(&format!("audit.log --alerts {}#timeout=2s&concurrency=2", receiver.url())).expect_code(0);
    assert_eq!(uids(&receiver.taken()), expected, "{}", ended.stderr);
    let keys = receiver.keys();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    assert_eq!(distinct.len(), expected.len());
    assert!(keys.len() > distinct.len(), "what was repeated has the key that it had");
}

#[test]
fn a_receiver_that_comes_up_late_gets_every_alert() {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    let address = free_address();
    let running = site.start(&format!("audit.log --alerts http://{address}/hook"));
    assert!(poll(|| running.stderr().contains("repeating until it works")), "{}", running.stderr());
    let receiver = Receiver::start(address, &[]);
    running.wait().expect_code(0);
    assert_eq!(requests(&receiver.taken()), secret_requests(lines()));
}

#[test]
fn a_receiver_that_will_never_take_anything_ends_the_run_with_3() {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    let receiver = Receiver::start(free_address(), &[Answer(401, Duration::ZERO); 64]);
    let ended = site.evaluate(&format!("audit.log --alerts {}", receiver.url())).expect_code(3);
    ended.expect_stderr(&["401", "/hook"]);
    let ended = site.evaluate("audit.log --alerts http://127.0.0.1:1/hook#token_file=missing").expect_code(3);
    ended.expect_stderr(&["missing"]);
}

#[test]
fn a_further_sink_that_is_down_does_not_stop_the_first() {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    let dead = free_address();
    let ended = site.evaluate(&format!("audit.log --alerts alerts.ndjson --alerts http://{dead}/hook")).expect_code(0);
    assert_eq!(written(&site, "alerts.ndjson"), secret_requests(lines()));
    ended.expect_stderr(&["a further sink did not take all alerts in time"]);
}

#[test]
fn standard_output_that_cannot_be_written_ends_the_run_with_3() {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    let args = ["run", "audit.log", "--format", "json", "--no-shipped", "--detections", "secret-request.yaml"];
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device that is full");
    let mut run = command(&site.path(""), &args);
    let ended = run.stdout(full).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(3));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("cannot write to standard output: No space left on device"), "{said}");
}

/// A full disk can be mended while we wait, so the file sink repeats; nothing is committed meanwhile.
#[test]
fn a_full_disk_is_named_and_waited_for() {
    let site = Site::new();
    site.write("audit.log", text(lines()));
    let running = site.start("audit.log --alerts /dev/full");
    assert!(poll(|| running.stderr().contains("cannot write to `/dev/full`: No space left on device")));
    running.kill();
}

/// How an answer's body begins in an event's text.
const BODY: &str = "\"responseObject\":{";

/// Records that nobody should have sent.
fn hostile() -> Vec<Vec<u8>> {
    let with_body = |id: &str, body: String| {
        secret_request(id).replacen("\"kind\"", &format!("\"requestObject\":{body},\"kind\""), 1)
    };
    let huge = secret_request("huge").replacen('{', &format!("{{\"pad\":\"{}\",", "x".repeat(11 << 20)), 1);
    let bomb = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, gzip(&vec![b' '; 20 << 20]));
    let wrap_again = |inside: String, _| json!({"log": inside, "stream": "stdout"}).to_string();
    let broken = json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "verb": 3, "user": "me", "objectRef": 1});
    let texts = [
        format!("{}1{}", "{\"a\":[".repeat(20_000), "]}".repeat(20_000)),
        with_body("deep-cut", "[".repeat(5_000)),
        (0..9).fold(secret_request("wrapped"), wrap_again),
        huge,
        bomb,
        broken.to_string(),
        json!({"kind": "AdmissionReview", "request": {"uid": "1"}}).to_string(),
        json!({"kind": "EventList", "items": [{"no": "event"}, 7, null]}).to_string(),
        json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": {}}).to_string(),
        json!({"kind": "Event", "apiVersion": "v1", "reason": "Scheduled", "message": "a core event"}).to_string(),
        json!({"messageType": "DATA_MESSAGE", "logEvents": "none"}).to_string(),
        json!({"records": [{"category": "kube-audit", "properties": {"log": "{"}}]}).to_string(),
        json!({"protoPayload": {"serviceName": "k8s.io"}}).to_string(),
    ];
    let words = ["", "   \t", "null", "[]", "[1,2,3]", "{}", "{\"kind\":0}", "\"text\""].map(String::from);
    let binary = [(0..=255).filter(|byte| *byte != b'\n').collect(), b"\xff\xfe{\x00\"\x00".to_vec()];
    texts.into_iter().chain(words).map(String::into_bytes).chain(binary).collect()
}

#[test]
fn hostile_records_never_stop_the_rest() {
    let site = Site::new();
    let answered = |line: &&String| line.contains(BODY) && !secret_requests(std::slice::from_ref(*line)).is_empty();
    let secret = lines().iter().find(answered).expect("a secret was answered with its body");
    let (cut_id, cut_at) = (secret_requests(std::slice::from_ref(secret)), secret.find(BODY).expect("a body") + 60);
    // Nobody looks into this body, so that its depth does no harm.
    let deep = format!("\"requestObject\":{}{},\"kind\"", "[".repeat(5_000), "]".repeat(5_000));
    let mut records =
        vec![secret.as_bytes()[..cut_at].to_vec(), secret_request("deep").replace("\"kind\"", &deep).into()];
    let mut good = BTreeSet::from(["deep".to_owned()]);
    for (id, wire) in [("in-eks", WireFormat::Eks), ("in-aks", WireFormat::Aks), ("in-a-list", WireFormat::EventList)] {
        records.extend(wrap(wire, &[secret_request(id).as_bytes()], "shop"));
        good.insert(id.to_owned());
    }
    records.extend(hostile());
    let mut input = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let id = format!("good-{n}");
        input.extend_from_slice(format!("{}\n", secret_request(&id)).as_bytes());
        good.insert(id);
        input.extend_from_slice(record);
        input.push(b'\n');
    }
    input.extend_from_slice(secret_request("last").as_bytes());
    good.insert("last".to_owned());
    site.write("audit.log", &input);
    let ended = site
        .evaluate("audit.log --format json --dead-letters dead.ndjson --set limits.decompressed_bytes=16777216")
        .expect_code(0);
    let found = ended.alerts();
    let missing: Vec<&String> = good.iter().filter(|id| !requests(&found).contains(*id)).collect();
    assert!(missing.is_empty(), "lost {missing:?}\n{}", ended.stderr);
    let salvaged: Vec<&Value> = found.iter().filter(|alert| requests(std::slice::from_ref(alert)) == cut_id).collect();
    assert_eq!(salvaged.len(), 1, "the head of a cut event is read");
    assert_eq!(salvaged[0]["unmapped"]["truncated"], true);
    let letters = alerts(&site.read("dead.ndjson"));
    let reasons: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["reason"].as_str()).collect();
    for reason in ["not_json", "malformed", "unknown_format", "too_large", "too_deep"] {
        assert!(reasons.contains(reason), "{reason} is not among {reasons:?}");
    }
    assert!(letters.iter().all(|letter| letter["detail"].as_str().is_some_and(|detail| !detail.is_empty())));
}
