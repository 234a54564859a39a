//! The Kafka source and sink against a real broker. See `support/broker.rs` for how to bring one.

/// Skips the test where there is no broker; `support/broker.rs` has said so, or failed.
macro_rules! broker_or_return {
    ($broker:expr) => {
        match $broker {
            Some(broker) => broker,
            None => return,
        }
    };
}

mod resume;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kubetide::clock::Instant;
use kubetide::kafka::{Address, Events};
use kubetide::model::{Activity, Alert, DeadLetter, Position, Severity};
use kubetide::stage::sink::{AlertSink, DeadLetterSink, KafkaDeadLetters, KafkaSink, KafkaTarget, SinkStats, SinkUrl};
use kubetide::stage::source::kafka::{KafkaOptions, KafkaSource};
use kubetide::stage::source::{Committer, Message, Outlet, Source, SourceError, Stop, intakes};

use crate::support::broker::{self, Broker, Record, TIMEOUT, unique};
use crate::support::clouds::Cloud;

/// A record that came out of a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Got {
    lane: String,
    offset: u64,
    value: String,
    cluster: Option<String>,
}

/// What a source told about itself.
#[derive(Default)]
struct Told {
    read: AtomicU64,
    pauses: AtomicU64,
    assigned: AtomicU64,
    gaps: Mutex<Vec<(i64, i64, &'static str)>>,
}

impl Events for Told {
    fn records_read(&self, _: &str, _: i32, records: u64, _: u64) {
        self.read.fetch_add(records, Ordering::SeqCst);
    }
    fn rebalanced(&self, _: &'static str, assigned: usize) {
        self.assigned.store(assigned as u64, Ordering::SeqCst);
    }
    fn gap_found(&self, _: &str, _: i32, from: i64, to: i64, cause: &'static str) {
        self.gaps.lock().expect("no panic").push((from, to, cause));
    }
    fn paused(&self, paused: bool) {
        self.pauses.fetch_add(u64::from(paused), Ordering::SeqCst);
    }
}

/// How the pipeline behind a source behaves.
#[derive(Clone)]
struct Behaviour {
    /// Whether it takes chunks.
    open: Arc<AtomicBool>,
    /// Whether it says what is done.
    commits: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour { open: Arc::new(AtomicBool::new(true)), commits: true }
    }
}

/// A source with the smallest pipeline there is.
struct Run {
    stop: Stop,
    source: JoinHandle<Result<(), SourceError>>,
    pipeline: JoinHandle<()>,
    got: Arc<Mutex<Vec<Got>>>,
    told: Arc<Told>,
}

impl Run {
    fn start(url: &str, behaviour: Behaviour) -> Run {
        Run::open(url, behaviour).unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    fn open(url: &str, behaviour: Behaviour) -> Result<Run, SourceError> {
        Run::open_at(url, behaviour, HashMap::new())
    }

    /// Partitions go on where `resume` says.
    fn open_at(url: &str, behaviour: Behaviour, resume: HashMap<(String, i32), i64>) -> Result<Run, SourceError> {
        let address: Address = url.parse().expect("an address");
        let options =
            KafkaOptions::from_address(&address, &[]).map_err(|e| SourceError::configuration(e.to_string()))?;
        let options = KafkaOptions { resume, ..options };
        let told = Arc::new(Told::default());
        let (source, committer) = KafkaSource::open(options, Arc::clone(&told) as Arc<dyn Events>)?;
        let (mut intakes, outlet) = intakes(1, 2);
        let intake = intakes.remove(0);
        let stop = Stop::default();
        let got = Arc::new(Mutex::new(Vec::new()));
        let asked = stop.clone();
        let source = std::thread::spawn(move || Box::new(source).run(intake, asked));
        let kept = Arc::clone(&got);
        let pipeline = std::thread::spawn(move || pipe(outlet, &*committer, &behaviour, &kept));
        Ok(Run { stop, source, pipeline, got, told })
    }

    /// Waits until so many records came out.
    fn wait_for(&self, count: usize) {
        eventually(&format!("{count} records"), || self.got.lock().expect("no panic").len() >= count);
    }

    /// Waits until the source ends by itself.
    fn join(self) -> Vec<Got> {
        self.source.join().expect("no panic").expect("no error");
        self.pipeline.join().expect("no panic");
        Arc::into_inner(self.got).expect("nobody else has it").into_inner().expect("no panic")
    }

    fn stop(self) -> Vec<Got> {
        self.stop.request();
        self.join()
    }
}

/// Takes chunks in order, says that each is done, and answers checkpoints.
fn pipe(mut outlet: Outlet, committer: &dyn Committer, behaviour: &Behaviour, got: &Mutex<Vec<Got>>) {
    let mut done = 0;
    let mut waiting = Vec::new();
    loop {
        let mut idle = true;
        if behaviour.open.load(Ordering::SeqCst) {
            match outlet.work.try_recv() {
                Ok(Message::Chunk { sequence, chunk, .. }) => {
                    assert_eq!(sequence, done);
                    let mut next = BTreeMap::new();
                    for record in &chunk.records {
                        next.insert(record.position.lane, record.position.offset + 1);
                        got.lock().expect("no panic").push(Got {
                            lane: chunk.lane(record).name.to_string(),
                            offset: record.position.offset,
                            value: String::from_utf8_lossy(chunk.payload(record)).into_owned(),
                            cluster: record.cluster.as_deref().map(str::to_owned),
                        });
                    }
                    let next: Vec<Position> =
                        next.into_iter().map(|(lane, offset)| Position { lane, offset }).collect();
                    if behaviour.commits {
                        committer.commit(&next).expect("never fails");
                    }
                    done += 1;
                    idle = false;
                }
                Ok(Message::Checkpoint { .. }) => unreachable!("checkpoints have a way of their own"),
                Err(tokio::sync::mpsc::error::TryRecvError::Disconnected) => return,
                Err(tokio::sync::mpsc::error::TryRecvError::Empty) => {}
            }
        }
        if let Ok(Message::Checkpoint { before, done }) = outlet.control.try_recv() {
            waiting.push((before, done));
        }
        for (before, answer) in std::mem::take(&mut waiting) {
            if before <= done && behaviour.commits {
                let _gone = answer.send(());
            } else {
                waiting.push((before, answer));
            }
        }
        if idle {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now().after(TIMEOUT);
    while !condition() {
        assert!(!deadline.remaining().is_zero(), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn numbered(partitions: i32, each: usize) -> Vec<Record> {
    (0..each).flat_map(|n| (0..partitions).map(move |p| Record::to(p, format!("{p}:{n}")))).collect()
}

fn url(broker: &Broker, topic: &str, query: &str) -> String {
    format!("kafka://{}/{topic}?{query}", broker.address)
}

fn failure(url: &str) -> SourceError {
    match Run::open(url, Behaviour::default()) {
        Err(error) => error,
        Ok(run) => panic!("{url} can be read: {:?}", run.stop().len()),
    }
}

#[track_caller]
fn assert_every_lane_is_whole(got: &[Got], topic: &str, partitions: i32, each: u64) {
    for partition in 0..partitions {
        let lane = format!("{topic}/{partition}");
        let offsets: Vec<u64> = got.iter().filter(|g| g.lane == lane).map(|g| g.offset).collect();
        assert_eq!(offsets, (0..each).collect::<Vec<_>>(), "{lane}");
    }
    for record in got {
        let partition = record.lane.rsplit('/').next().expect("a name");
        assert_eq!(record.value, format!("{partition}:{}", record.offset));
    }
}

#[test]
fn every_partition_is_read_in_order_and_the_run_ends_at_the_end() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("order", 3, &[]);
    broker.produce(&topic, &numbered(3, 500));
    let group = unique("group");
    let got =
        Run::start(&url(broker, &topic, &format!("group={group}&until=end&chunk_records=64")), Behaviour::default());
    assert_every_lane_is_whole(&got.join(), &topic, 3, 500);
    assert_eq!(broker.committed(&group, &topic, 3), [500, 500, 500]);
}

#[test]
fn an_empty_topic_ends_at_once() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("empty", 2, &[]);
    let got = Run::start(&url(broker, &topic, "until=end"), Behaviour::default()).join();
    assert_eq!(got, []);
}

#[test]
fn restart_goes_on_after_the_last_commit_without_loss_or_repetition() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("restart", 2, &[]);
    let group = unique("group");
    broker.produce(&topic, &numbered(2, 300));
    let run = Run::start(&url(broker, &topic, &format!("group={group}&chunk_records=10")), Behaviour::default());
    run.wait_for(50);
    let first = run.stop();
    let committed: i64 = broker.committed(&group, &topic, 2).iter().map(|&n| n.max(0)).sum();
    assert_eq!(committed, first.len() as i64, "a clean stop commits everything that was handed on");
    let second = Run::start(&url(broker, &topic, &format!("group={group}&until=end")), Behaviour::default()).join();
    assert_every_lane_is_whole(&[first, second].concat(), &topic, 2, 300);
}

#[test]
fn what_was_not_acknowledged_is_read_again() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("again", 1, &[]);
    let group = unique("group");
    broker.produce(&topic, &numbered(1, 20));
    let forgetful = Behaviour { commits: false, ..Behaviour::default() };
    let run = Run::start(&url(broker, &topic, &format!("group={group}&drain_ms=200")), forgetful);
    run.wait_for(20);
    run.stop();
    assert_eq!(broker.committed(&group, &topic, 1), [-1]);
    let got = Run::start(&url(broker, &topic, &format!("group={group}&until=end")), Behaviour::default()).join();
    assert_every_lane_is_whole(&got, &topic, 1, 20);
}

#[test]
fn a_full_pipeline_pauses_the_partitions_and_loses_nothing() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("full", 2, &[]);
    broker.produce(&topic, &numbered(2, 3_000));
    let behaviour = Behaviour::default();
    behaviour.open.store(false, Ordering::SeqCst);
    let query =
        format!("group={}&chunk_records=100&session.timeout.ms=6000&max.poll.interval.ms=6000", unique("group"));
    let run = Run::start(&url(broker, &topic, &query), behaviour.clone());
    eventually("a pause", || run.told.pauses.load(Ordering::SeqCst) > 0);
    let handed_on = run.told.read.load(Ordering::SeqCst);
    assert!(handed_on <= 200, "{handed_on} records for a queue of two chunks of 100");
    // Longer than the group would wait for a member that does not poll.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(run.told.assigned.load(Ordering::SeqCst), 2, "the group keeps us");
    assert_eq!(run.told.read.load(Ordering::SeqCst), handed_on);
    behaviour.open.store(true, Ordering::SeqCst);
    run.wait_for(6_000);
    assert_every_lane_is_whole(&run.stop(), &topic, 2, 3_000);
}

#[test]
fn two_members_share_the_partitions_and_hand_them_over_without_loss_or_repetition() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("share", 4, &[]);
    let query = format!("group={}&chunk_records=20&heartbeat.interval.ms=300", unique("group"));
    let url = url(broker, &topic, &query);
    let stop_producing = AtomicBool::new(false);
    let (all, each) = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let mut each = 0_u64;
            while !stop_producing.load(Ordering::SeqCst) {
                let records: Vec<Record> =
                    (each..each + 50).flat_map(|n| (0..4).map(move |p| Record::to(p, format!("{p}:{n}")))).collect();
                broker.produce(&topic, &records);
                each += 50;
            }
            each
        });
        let first = Run::start(&url, Behaviour::default());
        first.wait_for(200);
        let second = Run::start(&url, Behaviour::default());
        second.wait_for(200);
        eventually("two partitions each", || {
            [&first, &second].iter().all(|run| run.told.assigned.load(Ordering::SeqCst) == 2)
        });
        let mut all = second.stop();
        eventually("all partitions back", || first.told.assigned.load(Ordering::SeqCst) == 4);
        stop_producing.store(true, Ordering::SeqCst);
        let each = producing.join().expect("no panic");
        first.wait_for(4 * each as usize - all.len());
        all.extend(first.stop());
        (all, each)
    });
    all.iter().for_each(|got| assert!(got.offset < each));
    let distinct: BTreeSet<&Got> = all.iter().collect();
    assert_eq!(distinct.len(), 4 * each as usize, "nothing is lost");
    assert_eq!(all.len(), distinct.len(), "what was drained before the hand-over is not read again");
}

#[test]
fn tombstones_and_empty_records_are_passed_and_committed() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("tombstones", 1, &[]);
    let group = unique("group");
    let tombstone = Record { key: Some("k".into()), ..Record::default() };
    broker.produce(&topic, &[tombstone.clone(), Record::to(0, ""), Record::to(0, "x"), tombstone]);
    let got = Run::start(&url(broker, &topic, &format!("group={group}&until=end")), Behaviour::default()).join();
    let values: Vec<&str> = got.iter().map(|g| g.value.as_str()).collect();
    assert_eq!(values, ["", "", "x", ""]);
    assert_eq!(broker.committed(&group, &topic, 1), [4]);
}

#[test]
fn clusters_are_named_by_header_then_key() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("clusters", 1, &[]);
    let keyed = Record { key: Some("from-key".into()), ..Record::to(0, "a") };
    let headed = Record { headers: BTreeMap::from([("cluster".into(), "from-header".into())]), ..keyed.clone() };
    broker.produce(&topic, &[headed, keyed, Record::to(0, "b")]);
    let got = Run::start(&url(broker, &topic, "until=end&cluster_key=true"), Behaviour::default()).join();
    let clusters: Vec<Option<&str>> = got.iter().map(|g| g.cluster.as_deref()).collect();
    assert_eq!(clusters, [Some("from-header"), Some("from-key"), None]);
}

#[test]
fn expired_offsets_are_a_recorded_gap() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("expired", 1, &[]);
    let group = unique("group");
    let query = format!("group={group}&until=end");
    broker.produce(&topic, &numbered(1, 10));
    Run::start(&url(broker, &topic, &query), Behaviour::default()).join();
    broker.produce(&topic, &numbered(1, 90));
    broker.expire(&topic, 0, 50);
    let run = Run::start(&url(broker, &topic, &query), Behaviour::default());
    let told = Arc::clone(&run.told);
    let offsets: Vec<u64> = run.join().iter().map(|g| g.offset).collect();
    assert_eq!(offsets, (50..100).collect::<Vec<_>>());
    assert_eq!(*told.gaps.lock().expect("no panic"), [(10, 50, "expired")]);
}

#[test]
fn a_topic_that_was_made_anew_is_read_from_its_beginning() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("anew", 1, &[]);
    let group = unique("group");
    let query = format!("group={group}&until=end");
    broker.produce(&topic, &numbered(1, 30));
    Run::start(&url(broker, &topic, &query), Behaviour::default()).join();
    broker.delete_topic(&topic);
    std::thread::sleep(Duration::from_secs(2));
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, &numbered(1, 5));
    let run = Run::start(&url(broker, &topic, &query), Behaviour::default());
    let told = Arc::clone(&run.told);
    let got = run.join();
    // The broker forgets a deleted topic's positions some time after the topic.
    if !told.gaps.lock().expect("no panic").is_empty() {
        assert_eq!(*told.gaps.lock().expect("no panic"), [(5, 30, "truncated")]);
    }
    assert_every_lane_is_whole(&got, &topic, 1, 5);
    assert_eq!(broker.committed(&group, &topic, 1), [5]);
}

#[test]
fn a_run_to_the_end_is_not_fooled_by_records_that_nobody_sees() {
    let broker = broker_or_return!(broker::plain());
    let (one, two) = (broker.topic("markers", 1, &[]), broker.topic("markers", 1, &[]));
    broker.produce_transaction(&one, &numbered(1, 3), true);
    broker.produce_transaction(&two, &numbered(1, 4), true);
    broker.produce_transaction(&two, &numbered(1, 2), false);
    for (topics, expected) in [(two.clone(), 4), (format!("{one},{two}"), 7)] {
        let query = format!("until=end&group={}", unique("group"));
        let got = Run::start(&url(broker, &topics, &query), Behaviour::default()).join();
        assert_eq!(got.len(), expected, "{topics}");
    }
}

#[test]
fn a_new_group_can_begin_later() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("later", 1, &[]);
    let group = unique("group");
    broker.produce(&topic, &numbered(1, 10));
    let run = Run::start(&url(broker, &topic, &format!("group={group}&start=latest")), Behaviour::default());
    eventually("the starting point is stored", || broker.committed(&group, &topic, 1) == [10]);
    broker.produce(&topic, &numbered(1, 5));
    run.wait_for(5);
    assert_eq!(run.stop().iter().map(|g| g.offset).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    let future = format!("group={}&until=end&start=2100-01-01T00:00:00Z", unique("group"));
    assert_eq!(Run::start(&url(broker, &topic, &future), Behaviour::default()).join(), []);
    let past = format!("group={}&until=end&start=2001-01-01T00:00:00Z", unique("group"));
    assert_eq!(Run::start(&url(broker, &topic, &past), Behaviour::default()).join().len(), 15);
}

#[test]
fn other_ways_to_be_a_member_work_too() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("members", 2, &[]);
    broker.produce(&topic, &numbered(2, 20));
    for query in [
        "group.protocol=consumer",
        "group.instance.id=zero&session.timeout.ms=2000",
        "partition.assignment.strategy=range",
    ] {
        let query = format!("{query}&until=end&group={}", unique("group"));
        let got = Run::start(&url(broker, &topic, &query), Behaviour::default()).join();
        assert_every_lane_is_whole(&got, &topic, 2, 20);
    }
}

#[test]
fn a_missing_topic_is_one_clear_error() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("kube-audit-events", 1, &[]);
    let error = failure(&url(broker, &topic.replace("audit", "adit"), ""));
    assert!(error.configuration);
    let expected = format!("did you mean `{topic}`");
    assert!(error.message.contains("does not exist") && error.message.contains(&expected), "{error}");
}

#[test]
fn a_broker_that_is_not_there_is_one_clear_error() {
    let unknown = failure("kafka://no-such-host.invalid:9092/audit");
    assert!(unknown.configuration && unknown.message.contains("the host name is unknown"), "{unknown}");
    let silent = failure("kafka://127.0.0.1:1/audit");
    assert!(!silent.configuration && silent.message.contains("no broker answers at 127.0.0.1:1"), "{silent}");
    assert!(silent.message.contains("refused"), "{silent}");
}

#[test]
fn credentials_and_certificates_that_do_not_fit_are_clear_errors() {
    let broker = broker_or_return!(broker::secured());
    let topic = broker.topic("secured", 1, &[]);
    broker.produce(&topic, &numbered(1, 3));
    let folder = tempfile::tempdir().expect("a folder");
    let secret = |text: &str| {
        let path = folder.path().join(text);
        std::fs::write(&path, text).expect("writable");
        path.display().to_string()
    };
    let query = |password: &str, ca: &str| {
        format!("until=end&sasl.username=audit&sasl.password.file={}&ssl.ca.location={ca}", secret(password))
    };
    let good = query("audit-secret", &broker.authority());
    assert_eq!(Run::start(&url(&broker, &topic, &good), Behaviour::default()).join().len(), 3);
    let error = failure(&url(&broker, &topic, &query("wrong", &broker.authority())));
    assert!(error.configuration && error.message.contains("refuses the credentials"), "{error}");
    let error = failure(&url(&broker, &topic, &query("audit-secret", "/etc/ssl/certs/ca-certificates.crt")));
    assert!(error.configuration && error.message.contains("no TLS connection"), "{error}");
    let error = failure(&url(&broker, &topic, "security.protocol=PLAINTEXT"));
    assert!(error.message.contains("security.protocol=SSL or SASL_SSL"), "{error}");
}

#[test]
fn a_broker_that_dies_and_comes_back_is_waited_for() {
    let broker = broker_or_return!(broker::secured());
    let topic = broker.topic("reborn", 2, &[]);
    let group = unique("group");
    broker.produce(&topic, &numbered(2, 50));
    let password = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(password.path(), "audit-secret").expect("writable");
    let query = format!(
        "group={group}&sasl.username=audit&sasl.password.file={}&ssl.ca.location={}",
        password.path().display(),
        broker.authority()
    );
    let run = Run::start(&url(&broker, &topic, &query), Behaviour::default());
    run.wait_for(100);
    eventually("a commit", || broker.committed(&group, &topic, 2) == [50, 50]);
    broker.kill();
    std::thread::sleep(Duration::from_secs(2));
    broker.start_again();
    let more: Vec<Record> = (50..80).flat_map(|n| (0..2).map(move |p| Record::to(p, format!("{p}:{n}")))).collect();
    broker.produce(&topic, &more);
    run.wait_for(160);
    let got = run.stop();
    let distinct: BTreeSet<Got> = got.into_iter().collect();
    assert_every_lane_is_whole(&distinct.into_iter().collect::<Vec<_>>(), &topic, 2, 80);
    assert_eq!(broker.committed(&group, &topic, 2), [80, 80]);
}

#[test]
fn the_wire_forms_of_three_clouds_arrive_as_they_were_produced() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("clouds", 1, &[]);
    let event = |n: usize| {
        serde_json::json!({
            "auditID": n.to_string(), "stage": "ResponseComplete", "verb": "create",
            "objectRef": {"resource": "pods", "namespace": "a", "name": "p", "apiVersion": "v1"},
        })
    };
    let events: Vec<serde_json::Value> = (0..20).map(event).collect();
    let values: Vec<Vec<u8>> = Cloud::ALL.iter().flat_map(|cloud| cloud.wrap("prod", &events)).collect();
    assert_eq!(values.len(), 3 + 3 + 20);
    assert!(values[0].starts_with(&[0x1f, 0x8b]) && values[3].starts_with(b"{\"records\""));
    assert!(String::from_utf8_lossy(&values[6]).contains("io.k8s.core.v1.pods.create"));
    broker.produce(&topic, &values.iter().map(|value| Record::to(0, value.clone())).collect::<Vec<_>>());
    let got = Run::start(&url(broker, &topic, "until=end"), Behaviour::default()).join();
    let expected: Vec<String> = values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    assert_eq!(got.into_iter().map(|g| g.value).collect::<Vec<_>>(), expected);
}

fn alert(uid: &str, ocsf: String) -> Alert {
    Alert {
        uid: uid.into(),
        emission_uid: format!("{uid}-1").into(),
        activity: Activity::Create,
        detection: "privileged-pod".into(),
        severity: Severity::High,
        title: "t".into(),
        summary: "s".into(),
        entity: Vec::new(),
        attack: Vec::new(),
        count: 1,
        at_us: 0,
        subject: None,
        event_time_us: 1_767_225_600_000_000,
        arrival_ms: None,
        ocsf: ocsf.into(),
    }
}

fn letter(bytes: Vec<u8>) -> DeadLetter {
    let detail = "line 1: no closing bracket".to_owned();
    DeadLetter { lane: "audit/3".into(), offset: 7, index: 2, reason: "not_json", detail, bytes: bytes.into() }
}

fn target(broker: &Broker, topic: &str) -> KafkaTarget {
    let url: SinkUrl = format!("kafka://{}/{topic}", broker.address).parse().expect("a sink");
    let SinkUrl::Kafka(target) = url else { panic!("not Kafka") };
    target
}

fn told() -> Arc<dyn Events> {
    Arc::new(Told::default())
}

fn open_sink(broker: &Broker, topic: &str) -> KafkaSink {
    KafkaSink::open(&target(broker, topic), &[], told(), Arc::new(SinkStats::default())).expect("opens")
}

fn open_letters(broker: &Broker, topic: &str) -> KafkaDeadLetters {
    KafkaDeadLetters::open(&target(broker, topic), &[], told(), Arc::new(SinkStats::default())).expect("opens")
}

#[tokio::test]
async fn alerts_arrive_keyed_with_the_headers_of_a_cloud_event() {
    let broker = broker_or_return!(tokio::task::spawn_blocking(broker::plain).await.expect("no panic"));
    let topic = tokio::task::spawn_blocking(|| broker.topic("alerts", 2, &[])).await.expect("no panic");
    let mut sink = open_sink(broker, &topic);
    let alerts: Vec<Alert> = (0..1_000).map(|n| alert(&format!("uid-{}", n % 10), format!("{{\"n\":{n}}}"))).collect();
    sink.deliver(&alerts).await.expect("taken");
    sink.flush().await.expect("stored");
    let records = tokio::task::spawn_blocking(move || broker.read_all(&topic)).await.expect("no panic");
    assert_eq!(records.len(), 1_000);
    let of_one: Vec<&Record> = records.iter().filter(|r| r.key.as_deref() == Some("uid-7")).collect();
    let values: Vec<String> =
        of_one.iter().map(|r| String::from_utf8(r.value.clone().expect("a value")).expect("text")).collect();
    assert_eq!(values, (0..100).map(|n| format!("{{\"n\":{}}}", n * 10 + 7)).collect::<Vec<_>>(), "in order");
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "uid-7-1"),
        ("ce_type", "dev.kubetide.detection_finding.create"),
        ("ce_source", "/kubetide"),
        ("ce_subject", "privileged-pod"),
        ("ce_severity", "high"),
        ("ce_time", "2026-01-01T00:00:00.000000Z"),
        ("content-type", "application/json"),
    ];
    assert_eq!(of_one[0].headers, headers.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[tokio::test]
async fn an_alert_too_large_for_its_topic_loses_its_evidence_and_holds_nothing_up() {
    let broker = broker_or_return!(tokio::task::spawn_blocking(broker::plain).await.expect("no panic"));
    let made = tokio::task::spawn_blocking(|| broker.topic("small", 1, &[("max.message.bytes", "5000")]));
    let topic = made.await.expect("no panic");
    let mut sink = open_sink(broker, &topic);
    // Hard to compress, or the broker would not find them large.
    let noise = |bytes: usize| -> String {
        (0..bytes / 16).map(|n| blake3::hash(&n.to_le_bytes()).to_hex()[..16].to_owned()).collect()
    };
    let evident = alert("evident", format!(r#"{{"kept":1,"evidences":["{}"]}}"#, noise(20_000)));
    let huge = alert("huge", format!(r#"{{"message":"{}"}}"#, noise(20_000)));
    let beyond_the_client = alert("beyond", format!(r#"{{"kept":2,"evidences":["{}"]}}"#, noise(2_000_000)));
    let small = alert("small", "{}".to_owned());
    sink.deliver(&[evident, huge, beyond_the_client, small]).await.expect("taken");
    sink.flush().await.expect("nothing is stuck");
    let stored = tokio::task::spawn_blocking(move || broker.read_all(&topic)).await.expect("no panic");
    let by_key: BTreeMap<String, String> = stored
        .into_iter()
        .map(|r| (r.key.expect("a key"), String::from_utf8(r.value.expect("a value")).expect("text")))
        .collect();
    let expected = [("evident", r#"{"kept":1}"#), ("beyond", r#"{"kept":2}"#), ("small", "{}")];
    assert_eq!(by_key, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[tokio::test]
async fn dead_letters_keep_the_original_bytes_and_are_cut_only_where_they_must() {
    let broker = broker_or_return!(tokio::task::spawn_blocking(broker::plain).await.expect("no panic"));
    let (topic, small) = tokio::task::spawn_blocking(|| {
        (broker.topic("letters", 1, &[]), broker.topic("letters", 1, &[("max.message.bytes", "5000")]))
    })
    .await
    .expect("no panic");
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    let mut letters = open_letters(broker, &topic);
    letters.deliver(&[letter(b"{\"a\":\xff".to_vec()), letter(noise.clone())]).await.expect("taken");
    letters.flush().await.expect("stored");
    let mut cut = open_letters(broker, &small);
    cut.deliver(&[letter(noise.clone())]).await.expect("taken");
    cut.flush().await.expect("stored");
    let (stored, cut) = tokio::task::spawn_blocking(move || (broker.read_all(&topic), broker.read_all(&small)))
        .await
        .expect("no panic");
    assert_eq!(stored[0].value.as_deref(), Some(&b"{\"a\":\xff"[..]));
    assert_eq!(stored[0].key.as_deref(), Some("audit/3"));
    for (key, value) in [("lane", "audit/3"), ("offset", "7"), ("index", "2"), ("reason", "not_json"), ("size", "6")] {
        assert_eq!(stored[0].headers[key], value);
    }
    assert!(!stored[0].headers.contains_key("cut"));
    for record in [&stored[1], &cut[0]] {
        let value = record.value.as_deref().expect("a value");
        assert!(noise.starts_with(value) && value.len() >= 1_024, "{}", value.len());
        assert_eq!(record.headers["cut"], "true");
        assert_eq!(record.headers["size"], noise.len().to_string());
        assert_eq!(record.headers["blake3"], blake3::hash(&noise).to_hex().to_string());
    }
}

#[test]
fn a_sink_without_its_topic_is_one_clear_error() {
    let broker = broker_or_return!(broker::plain());
    let error = KafkaSink::open(&target(broker, "no-such-topic"), &[], told(), Arc::default()).expect_err("no topic");
    assert!(error.message.contains("`no-such-topic` does not exist"), "{error}");
}
