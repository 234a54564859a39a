//! Against real receivers that are slow, refuse, hang up or are not there.
#![allow(clippy::disallowed_methods, reason = "tests start what they wait for")]

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::stage::sink::samples::{alert, alerts, letter};
use crate::stage::sink::{DeadLetterSink, Outbox, OutboxLimits, WebhookDeadLetters, Whose};

const QUICK: RetryPolicy = RetryPolicy {
    delay_min: Duration::from_millis(1),
    delay_max: Duration::from_millis(20),
    file_patience: Duration::from_millis(20),
};

/// What the receiver answers to one request, and after how long.
#[derive(Clone, Copy)]
struct Step(u16, &'static [(&'static str, &'static str)], Duration);

fn step(status: u16) -> Step {
    Step(status, &[], Duration::ZERO)
}

#[derive(Default)]
struct Log {
    steps: Mutex<std::collections::VecDeque<Step>>,
    seen: Mutex<Vec<(HeaderMap, Bytes)>>,
}

impl Log {
    fn seen(&self) -> Vec<(HeaderMap, Bytes)> {
        self.seen.lock().unwrap().clone()
    }

    fn header(&self, name: &str) -> Vec<String> {
        self.seen().iter().map(|(headers, _)| headers[name].to_str().unwrap().to_owned()).collect()
    }
}

/// Follows the steps, then answers 200 for ever.
struct Receiver {
    log: Arc<Log>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receiver(steps: &[Step]) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let log = Arc::new(Log { steps: Mutex::new(steps.iter().copied().collect()), seen: Mutex::default() });
    Receiver { log: Arc::clone(&log), address, task: tokio::spawn(serve(listener, log)) }
}

async fn serve(listener: TcpListener, log: Arc<Log>) {
    let app = Router::new().fallback(move |request: Request| {
        let log = Arc::clone(&log);
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
            let Step(status, headers, delay) = log.steps.lock().unwrap().pop_front().unwrap_or(step(200));
            log.seen.lock().unwrap().push((head.headers, body));
            tokio::time::sleep(delay).await;
            let mut response = (StatusCode::from_u16(status).expect("a status"), "because").into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            response
        }
    });
    axum::serve(listener, app).await.expect("serving");
}

fn target(address: SocketAddr) -> HttpTarget {
    HttpTarget {
        url: format!("http://{address}/hook?k=v"),
        token_file: None,
        ca_file: None,
        timeout: None,
        concurrency: Some(1),
    }
}

fn open(target: &HttpTarget) -> (WebhookSink, Arc<SinkStats>) {
    let stats = Arc::new(SinkStats::default());
    (WebhookSink::open(target, &WebhookOptions::default(), QUICK, Arc::clone(&stats)).expect("valid"), stats)
}

#[tokio::test]
async fn every_alert_is_posted_once_with_its_key() {
    let receiver = receiver(&[]).await;
    let (mut sink, stats) = open(&HttpTarget { concurrency: Some(4), ..target(receiver.address) });
    sink.deliver(&alerts("f", 20)).await.expect("delivered");
    let mut keys = receiver.log.header("idempotency-key");
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20);
    assert!(keys.contains(&"f7:f7-1".to_owned()));
    assert_eq!(receiver.log.header("content-type").first().map(String::as_str), Some("application/json"));
    assert!(receiver.log.seen().iter().any(|(_, body)| *body == alert("f7").ocsf));
    assert_eq!(stats.read().delivered, 20);
}

#[tokio::test]
async fn emissions_about_one_finding_keep_their_order() {
    // The first is slow: unordered, the second would overtake it.
    let receiver = receiver(&[Step(200, &[], Duration::from_millis(100))]).await;
    let (mut sink, _) = open(&HttpTarget { concurrency: Some(4), ..target(receiver.address) });
    let update = Alert { emission_uid: "f-2".into(), ..alert("f") };
    sink.deliver(&[alert("f"), update]).await.expect("delivered");
    assert_eq!(receiver.log.header("idempotency-key"), ["f:f-1", "f:f-2"]);
}

#[tokio::test]
async fn server_errors_are_repeated_with_the_same_key() {
    let receiver = receiver(&[step(500), step(503), step(408)]).await;
    let (mut sink, stats) = open(&target(receiver.address));
    sink.deliver(&[alert("f")]).await.expect("delivered");
    assert_eq!(receiver.log.header("idempotency-key"), ["f:f-1"; 4]);
    assert_eq!((stats.read().retried, stats.read().delivered), (3, 1));
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let receiver = receiver(&[Step(429, &[("retry-after", "1")], Duration::ZERO)]).await;
    let (mut sink, _) = open(&target(receiver.address));
    let start = crate::clock::Instant::now();
    sink.deliver(&[alert("f")]).await.expect("delivered");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn retry_after_may_be_a_date() {
    let value = HeaderValue::from_static("Tue, 24 Nov 2026 22:11:43 GMT");
    assert_eq!(retry_after(&value, 1_795_558_293_000), Some(Duration::from_secs(10)));
    assert_eq!(retry_after(&value, 1_795_558_393_000), None);
    assert_eq!(retry_after(&HeaderValue::from_static("120"), 0), Some(Duration::from_secs(120)));
    assert_eq!(retry_after(&HeaderValue::from_static("soon"), 0), None);
}

#[tokio::test]
async fn one_rejected_alert_does_not_hold_up_the_others() {
    let receiver = receiver(&[step(400)]).await;
    let (mut sink, stats) = open(&target(receiver.address));
    sink.deliver(&alerts("f", 3)).await.expect("delivered");
    assert_eq!((stats.read().rejected, stats.read().delivered), (1, 2));
}

#[tokio::test]
async fn a_wrong_address_or_token_is_the_users_to_mend() {
    let redirect = Step(302, &[("location", "http://127.0.0.1:1/elsewhere")], Duration::ZERO);
    for (answer, part) in [(step(401), "check the token"), (step(404), "check the address"), (redirect, "redirects")] {
        let receiver = receiver(&[answer]).await;
        let (mut sink, _) = open(&target(receiver.address));
        let error = sink.deliver(&[alert("f")]).await.expect_err("refused");
        assert_eq!((error.whose, error.retry), (Whose::User, false));
        assert!(error.message.contains(part) && !error.message.contains("k=v"), "{error}");
    }
}

#[tokio::test]
async fn a_slow_receiver_is_given_up_and_asked_again() {
    let receiver = receiver(&[Step(200, &[], Duration::from_secs(60))]).await;
    let (mut sink, stats) = open(&HttpTarget { timeout: Some(Duration::from_millis(200)), ..target(receiver.address) });
    sink.deliver(&[alert("f")]).await.expect("delivered");
    assert_eq!((stats.read().retried, receiver.log.seen().len()), (1, 2));
}

#[tokio::test]
async fn a_connection_that_is_hung_up_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let log = Arc::new(Log::default());
    let served = Arc::clone(&log);
    let task = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            // Hangs up in the middle of the request, as a process that dies.
            let read = stream.read(&mut [0; 16]).await;
            drop((read, stream));
        }
        serve(listener, served).await;
    });
    let (mut sink, stats) = open(&target(address));
    sink.deliver(&[alert("f")]).await.expect("delivered");
    assert!(stats.read().retried >= 2);
    assert_eq!(log.seen().len(), 1);
    task.abort();
}

#[tokio::test]
async fn a_receiver_that_is_down_delays_only_its_outbox() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let (sink, stats) = open(&target(address));
    let outbox = Outbox::start("hook", Box::new(sink), OutboxLimits::default(), QUICK, Arc::clone(&stats));
    outbox.push(&alerts("f", 5));
    while stats.read().retried < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((stats.read().queued, stats.read().delivered), (5, 0));
    let log = Arc::new(Log::default());
    let listener = TcpListener::bind(address).await.expect("the port is free again");
    let task = tokio::spawn(serve(listener, Arc::clone(&log)));
    assert_eq!(outbox.close(Duration::from_secs(20)).await, 0);
    assert_eq!(log.seen().len(), 5);
    task.abort();
}

#[tokio::test]
async fn the_token_comes_from_its_file_and_may_be_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "old\n").expect("written");
    let receiver = receiver(&[step(200), step(401)]).await;
    let (mut sink, _) = open(&HttpTarget { token_file: Some(file.clone()), ..target(receiver.address) });
    assert!(!format!("{sink:?}").contains("k=v"));
    sink.deliver(&[alert("f")]).await.expect("delivered");
    std::fs::write(&file, "new\n").expect("written");
    sink.deliver(&[alert("g")]).await.expect("delivered");
    assert_eq!(receiver.log.header("authorization"), ["Bearer old", "Bearer old", "Bearer new"]);
}

#[test]
fn what_cannot_be_used_is_explained_at_the_start() {
    let target =
        |token_file: &str| HttpTarget { token_file: Some(token_file.into()), ..target(([127, 0, 0, 1], 1).into()) };
    let open = |target: &HttpTarget, options: &WebhookOptions| {
        WebhookSink::open(target, options, QUICK, Arc::default()).expect_err("refused").to_string()
    };
    let options = WebhookOptions::default();
    assert!(open(&target("/no/such/token"), &options).contains("cannot read token file `/no/such/token`"));
    assert!(open(&target("/dev/null"), &options).contains("holds no token"));
    let ca = HttpTarget { token_file: None, ca_file: Some("/dev/null".into()), ..target("") };
    assert!(open(&ca, &options).contains("cannot use CA file"));
    let bad = WebhookOptions { headers: vec![("x y".into(), Secret::new("hunter2"))], ..options };
    let error = open(&HttpTarget { token_file: None, ..target("") }, &bad);
    assert!(error.contains("`x y` is not a header") && !error.contains("hunter2"));
    assert!(!format!("{bad:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_rejected_dead_letter_is_an_error() {
    let receiver = receiver(&[step(500), step(200), step(422)]).await;
    let stats = Arc::new(SinkStats::default());
    let mut sink =
        WebhookDeadLetters::open(&target(receiver.address), &WebhookOptions::default(), QUICK, Arc::clone(&stats))
            .expect("valid");
    sink.deliver(&[letter("broken")]).await.expect("delivered");
    let error = sink.deliver(&[letter("broken")]).await.expect_err("rejected");
    assert!(error.message.contains("audit/3 offset 42 index 1") && !error.retry, "{error}");
    assert_eq!(stats.read().delivered, 1);
}
