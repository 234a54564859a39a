//! Over real sockets, with a pipeline that commits when the test lets it.
#![allow(clippy::disallowed_methods, reason = "tests start what they wait for")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use reqwest::{Client, RequestBuilder};

use super::*;
use crate::stage::source::{Message, Outlet, intakes};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn event_list() -> Vec<u8> {
    std::fs::read(fixture("webhook-eventlist.json")).expect("the fixture")
}

/// A running source. Its pipeline is the test.
struct Running {
    url: String,
    stop: Stop,
    committer: Arc<dyn Committer>,
    counts: Arc<HttpCounts>,
    client: Client,
    source: Option<JoinHandle<Result<(), SourceError>>>,
}

impl Running {
    fn start(options: &str, capacity: usize) -> (Running, Outlet) {
        Running::bind(&format!("http://127.0.0.1:0/audit{options}"), capacity)
    }

    fn bind(address: &str, capacity: usize) -> (Running, Outlet) {
        let source = HttpSource::bind(&address.parse().expect("an address")).expect("bound");
        let scheme = address.split(':').next().expect("a scheme");
        let url = format!("{scheme}://{}/audit", source.local_addr().expect("bound"));
        let (mut intakes, outlet) = intakes(1, capacity);
        let (stop, committer, counts) = (Stop::default(), source.committer(), source.counts());
        let intake = intakes.pop().expect("one");
        let stopped = stop.clone();
        let client = Client::builder().no_proxy().build().expect("a client");
        let source = std::thread::spawn(move || Box::new(source).run(intake, stopped));
        (Running { url, stop, committer, counts, client, source: Some(source) }, outlet)
    }

    fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client.post(format!("{}?timeout=30s", self.url)).body(body)
    }

    async fn stop(&mut self) {
        self.stop.request();
        if let Some(source) = self.source.take() {
            // Clients on this thread have their part in closing connections.
            while !source.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            source.join().expect("no panic").expect("it ends well");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// A pipeline that commits what it gets at each checkpoint; gives the chunks and the number of checkpoints.
fn pipeline(mut outlet: Outlet, committer: Arc<dyn Committer>, pause: Duration) -> mpsc::Receiver<Vec<Chunk>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Message::Checkpoint { done, .. }) = outlet.control.blocking_recv() {
            std::thread::sleep(pause);
            let mut chunks = Vec::new();
            while let Ok(Message::Chunk { chunk, .. }) = outlet.work.try_recv() {
                chunks.push(chunk);
            }
            let next = chunks.iter().flat_map(|chunk| &chunk.records).map(|record| record.position.offset + 1).max();
            if let Some(offset) = next {
                committer.commit(&[Position { lane: 0, offset }]).expect("committed");
            }
            tell.send(chunks).unwrap_or_default();
            done.send(()).unwrap_or_default();
        }
    });
    told
}

async fn answer(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("text"))
}

#[tokio::test]
async fn an_event_list_is_accepted_when_it_is_durable() {
    let (mut source, outlet) = Running::start("?cluster=prod", 8);
    let chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::ZERO);
    let body = event_list();
    assert_eq!(answer(source.post(body.clone())).await, (200, String::new()));
    let chunk = chunks.recv().expect("a checkpoint").pop().expect("a chunk");
    assert_eq!(chunk.records.len(), 1);
    assert_eq!(chunk.payload(&chunk.records[0]), body);
    let lane = chunk.lane(&chunk.records[0]);
    assert_eq!(lane.cluster.as_deref(), Some("prod"));
    assert!(chunk.records[0].time_ms.is_some() && chunk.records[0].cluster.is_none());
    source.stop().await;
    assert_eq!(source.counts.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn nothing_is_accepted_before_it_is_durable() {
    let (source, mut outlet) = Running::start("", 8);
    let waiting = tokio::spawn(answer(source.post("{}")));
    let Some(Message::Checkpoint { done, .. }) = outlet.control.recv().await else { panic!("a request") };
    assert!(matches!(outlet.work.try_recv(), Ok(Message::Chunk { .. })));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    source.committer.commit(&[Position { lane: 0, offset: 1 }]).expect("committed");
    assert_eq!(waiting.await.expect("no panic").0, 200);
    drop(done);
}

#[tokio::test]
async fn what_is_not_durable_in_time_is_to_be_sent_again() {
    let (source, _outlet) = Running::start("", 8);
    let request = source.client.post(format!("{}?timeout=300ms", source.url)).body("{}");
    let (status, text) = answer(request).await;
    assert_eq!(status, 503);
    assert!(text.contains("send it again"), "{text}");
}

#[tokio::test]
async fn many_requests_share_few_checkpoints() {
    let (source, outlet) = Running::start("", 100);
    let chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::from_millis(100));
    let requests: Vec<_> = (0..40).map(|_| tokio::spawn(answer(source.post(event_list())))).collect();
    for request in requests {
        assert_eq!(request.await.expect("no panic").0, 200);
    }
    let checkpoints: Vec<Vec<Chunk>> = chunks.try_iter().collect();
    let offsets: Vec<u64> =
        checkpoints.iter().flatten().flat_map(|chunk| &chunk.records).map(|record| record.position.offset).collect();
    assert_eq!(offsets, (0..40).collect::<Vec<u64>>());
    assert!(checkpoints.len() < 20, "{} checkpoints", checkpoints.len());
}

#[tokio::test]
async fn lines_become_records_of_their_own() {
    let (source, outlet) = Running::start("", 8);
    let chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::ZERO);
    assert_eq!(answer(source.post("{\"a\":1}\n\n{\"a\":2}\r\n")).await.0, 200);
    let chunk = chunks.recv().expect("a checkpoint").pop().expect("a chunk");
    let payloads: Vec<&[u8]> = chunk.records.iter().map(|record| chunk.payload(record)).collect();
    assert_eq!(payloads, [&b"{\"a\":1}"[..], b"{\"a\":2}\r"]);
}

#[tokio::test]
async fn compressed_bodies_are_inflated_up_to_the_limit() {
    let (source, outlet) = Running::start("?limit=100kB", 8);
    let chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::ZERO);
    let body = event_list();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    assert_eq!(answer(source.post(gzip(&body)).header("content-encoding", "gzip")).await.0, 200);
    let zstd = zstd::stream::encode_all(&body[..], 1).expect("memory");
    assert_eq!(answer(source.post(zstd).header("content-encoding", "zstd")).await.0, 200);
    for chunk in chunks.try_iter().flatten() {
        assert_eq!(chunk.bytes, body);
    }
    let bomb = gzip(&vec![b' '; 5 << 20]);
    assert!(bomb.len() < 100_000);
    let (status, text) = answer(source.post(bomb).header("content-encoding", "gzip")).await;
    assert_eq!(status, 413);
    assert!(text.contains("larger than 100000 bytes"), "{text}");
}

#[tokio::test]
async fn refusals_say_why() {
    let (source, _outlet) = Running::start("?limit=1kB", 8);
    let large = vec![b'x'; 2_000];
    let chunked = reqwest::Body::from(large.clone());
    for (request, status, part) in [
        (source.post(large), 413, "larger than 1000 bytes"),
        (source.post(chunked), 413, "larger than 1000 bytes"),
        (source.post(""), 400, "body is empty"),
        (source.post(" \n"), 400, "body is empty"),
        (source.post("{}").header("content-encoding", "gzip"), 400, "does not inflate"),
        (source.post("{}").header("content-encoding", "br"), 415, "content-encoding br is not understood"),
        (source.post("x").header("content-type", "application/vnd.kubernetes.protobuf"), 415, "protobuf"),
        (source.client.get(&source.url), 405, "POST an EventList"),
        (source.client.post(format!("{}s", source.url)), 404, "/audit/<cluster>"),
    ] {
        let (got, text) = answer(request).await;
        assert!(got == status && text.contains(part), "{got}: {text}");
    }
    assert_eq!(source.counts.refused.load(Ordering::Relaxed), 9);
}

#[tokio::test]
async fn a_full_pipeline_says_come_back() {
    let (source, mut outlet) = Running::start("", 1);
    let waiting = tokio::spawn(answer(source.post("{}")));
    let Some(Message::Checkpoint { done, .. }) = outlet.control.recv().await else { panic!("a request") };
    let response = source.post("{}").send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &HeaderValue::from_static("1")));
    assert!(matches!(outlet.work.try_recv(), Ok(Message::Chunk { .. })));
    done.send(()).expect("somebody waits");
    assert_eq!(waiting.await.expect("no panic").0, 200);
}

#[tokio::test]
async fn bodies_share_a_bounded_memory() {
    let (source, mut outlet) = Running::start("?limit=100kB", 8);
    let large = vec![b'7'; 99_000];
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(answer(source.post(large.clone())))).collect();
    for _ in 0..3 {
        outlet.work.recv().await.expect("a chunk");
    }
    assert_eq!(answer(source.post(large)).await.0, 429);
    source.committer.commit(&[Position { lane: 0, offset: 3 }]).expect("committed");
    for request in waiting {
        assert_eq!(request.await.expect("no panic").0, 200);
    }
}

#[tokio::test]
async fn senders_show_their_token_which_may_be_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "right\n").expect("written");
    let (source, outlet) = Running::start(&format!("?token_file={}", file.display()), 8);
    let _chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::ZERO);
    for request in
        [source.post("{}"), source.post("{}").bearer_auth("wrong"), source.post("{}").basic_auth("right", Some(""))]
    {
        assert_eq!(answer(request).await.0, 401);
    }
    assert_eq!(answer(source.post("{}").bearer_auth("right")).await.0, 200);
    std::fs::write(&file, "fresh\n").expect("written");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(answer(source.post("{}").bearer_auth("fresh")).await.0, 200);
    assert_eq!(answer(source.post("{}").bearer_auth("right")).await.0, 401);
    assert_eq!(source.counts.unauthorized.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_path_names_the_cluster() {
    let (source, outlet) = Running::start("", 8);
    let chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::ZERO);
    assert_eq!(answer(source.client.post(format!("{}/prod-eu?timeout=30s", source.url)).body("{}")).await.0, 200);
    let chunk = chunks.recv().expect("a checkpoint").pop().expect("a chunk");
    assert_eq!(chunk.records[0].cluster.as_deref(), Some("prod-eu"));
}

#[tokio::test]
async fn a_stop_lets_requests_under_way_finish() {
    let (mut source, mut outlet) = Running::start("", 8);
    let waiting = tokio::spawn(answer(source.post("{}")));
    let Some(Message::Checkpoint { done, .. }) = outlet.control.recv().await else { panic!("a request") };
    source.stop.request();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = source.post("{}").send().await;
    assert!(refused.is_err(), "it takes in nothing more");
    done.send(()).expect("somebody waits");
    assert_eq!(waiting.await.expect("no panic").0, 200);
    source.stop().await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_given_files() {
    let (cert, key) = (fixture("localhost.crt"), fixture("localhost.key"));
    let address = format!("https://127.0.0.1:0/audit?cert={}&key={}", cert.display(), key.display());
    let (mut source, outlet) = Running::bind(&address, 8);
    let _chunks = pipeline(outlet, Arc::clone(&source.committer), Duration::ZERO);
    let pem = std::fs::read(&cert).expect("the fixture");
    let trusted = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let client = Client::builder().no_proxy().tls_certs_only([trusted]).build().expect("a client");
    assert_eq!(answer(client.post(format!("{}?timeout=30s", source.url)).body(event_list())).await.0, 200);
    let plain = source.url.replace("https:", "http:");
    assert!(source.client.post(plain).body("{}").send().await.is_err());
    source.stop().await;
}

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    std::fs::copy(fixture("localhost.crt"), &cert).expect("copied");
    std::fs::copy(fixture("localhost.key"), &key).expect("copied");
    let mut tls = Tls::read(&cert, &key).expect("a certificate");
    let acceptor = tls.config.get_inner();
    tls.renew();
    assert!(Arc::ptr_eq(&acceptor, &tls.config.get_inner()), "nothing has changed");
    let touch = |path: &Path, text: &[u8], seconds: u64| {
        std::fs::write(path, text).expect("written");
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).expect("touched");
    };
    touch(&cert, b"half written", 1_000);
    tls.renew();
    assert!(Arc::ptr_eq(&acceptor, &tls.config.get_inner()), "the old one still works");
    touch(&cert, &std::fs::read(fixture("localhost.crt")).expect("the fixture"), 2_000);
    tls.renew();
    assert!(!Arc::ptr_eq(&acceptor, &tls.config.get_inner()));
}

#[test]
fn a_certificate_that_is_none_is_explained() {
    let key = fixture("localhost.key");
    let address = format!("https://127.0.0.1:0/audit?cert={0}&key={0}", key.display());
    let error = HttpSource::bind(&address.parse().expect("an address")).expect_err("no certificate").to_string();
    assert!(error.contains("cannot use certificate"), "{error}");
}

#[test]
fn an_address_in_use_is_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: HttpAddress = format!("http://{}/", taken.local_addr().expect("bound")).parse().expect("an address");
    assert!(HttpSource::bind(&address).expect_err("taken").to_string().contains("is it in use?"));
}
