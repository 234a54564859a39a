//! `kubetide run` over Kafka, as a process of its own against a real broker: whatever happens to it, what it finds is
//! what a run over a file of the same records finds.

/// Skips the test where there is no broker; `support/broker.rs` has said so, or failed.
macro_rules! broker_or_return {
    ($broker:expr) => {
        match $broker {
            Some(broker) => broker,
            None => return,
        }
    };
}

mod corpus;
mod findings;
mod process;
mod shared;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use self::corpus::{PARTITIONS, at_once, dealt, expected};
use self::findings::Findings;
use self::process::Process;
use crate::support::broker::{self, Broker, Record, unique};

/// How long the harness waits for anything before it calls it hung. No test asserts a time: builds of tests are slow, and
/// so are machines that build and test at once.
const PATIENCE: Duration = Duration::from_secs(300);
/// Kills in the middle of work that the proof wants.
const KILLS: usize = 8;
/// Parts in which the input arrives during the proof.
const SLICES: usize = 16;

/// A topic to read, a topic for alerts and a group.
struct Place {
    topic: String,
    alerts: String,
    group: String,
    /// Options that every address of this broker needs.
    access: String,
    address: String,
}

impl Place {
    fn new(broker: &Broker, access: &str) -> Place {
        Place {
            topic: broker.topic("audit", PARTITIONS, &[]),
            alerts: broker.topic("alerts", 2, &[]),
            group: unique("group"),
            access: access.to_owned(),
            address: broker.address.clone(),
        }
    }

    /// Members that die are missed after two seconds, and small batches let a kill find something half done.
    fn run(&self, more: &[&str], query: &str) -> Process {
        let Place { topic, alerts, group, access, address } = self;
        let source = format!(
            "kafka://{address}/{topic}?group={group}&session.timeout.ms=2000&heartbeat.interval.ms=300{query}{access}"
        );
        let sink = format!("kafka://{address}/{alerts}?{}", access.trim_start_matches('&'));
        let mut arguments = vec![source.as_str(), "--alerts", sink.trim_end_matches('?'), "--http", "127.0.0.1:0"];
        arguments.extend(["--set", "checkpoint_interval_ms=200", "--set", "batch.events=25"]);
        if !more.contains(&"--no-shipped") {
            arguments.extend(at_once());
        }
        arguments.extend(more);
        Process::run(&arguments)
    }

    /// Records of the topic that the group has committed.
    fn committed(&self, broker: &Broker) -> i64 {
        broker.committed(&self.group, &self.topic, PARTITIONS).iter().map(|&next| next.max(0)).sum()
    }

    #[track_caller]
    fn assert_complete(&self, broker: &Broker) -> Vec<Record> {
        assert_eq!(self.committed(broker), dealt().len() as i64, "every record is committed");
        let records = broker.read_all(&self.alerts);
        let found = Findings::of(records.iter().map(|record| record.value.as_deref().expect("a value")));
        found.same_as(&expected().0).unwrap_or_else(|difference| panic!("{difference}"));
        records
    }
}

/// Produces the whole log bit by bit while `work` goes on, or at once what is left when it is over.
fn while_it_arrives<T>(broker: &Broker, topic: &str, work: impl FnOnce() -> T) -> T {
    let hurry = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for some in dealt().chunks(60) {
                broker.produce(topic, some);
                if !hurry.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(30));
                }
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        hurry.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_process_killed_at_random_moments_finds_what_a_run_over_a_file_finds() {
    let broker = broker_or_return!(broker::plain());
    let expected = &expected().0;
    expected.assert_every_loss_shows();
    let place = Place::new(broker, "");
    let all = dealt();
    let mut slices = all.chunks(all.len().div_ceil(SLICES));
    let mut random = StdRng::seed_from_u64(20_261_124);
    let (mut produced, mut kills, mut rounds) = (0, 0, 0);
    while kills < KILLS {
        rounds += 1;
        let slice = slices.next().unwrap_or_else(|| panic!("only {kills} of {rounds} kills came in the middle"));
        broker.produce(&place.topic, slice);
        produced += slice.len() as i64;
        let mut process = place.run(&[], "");
        if random.random_ratio(3, 4) {
            process.until("a record", |p| p.metric("kubetide_source_records_total").is_some_and(|n| n > 0.0));
            std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        } else {
            // Perhaps it is planning still, or joining its group.
            std::thread::sleep(Duration::from_millis(random.random_range(0..8_000)));
        }
        process.kill();
        kills += usize::from(place.committed(broker) < produced);
    }
    slices.for_each(|slice| broker.produce(&place.topic, slice));
    place.run(&[], "&until=end").wait().assert_success();
    let emissions = place.assert_complete(broker);
    let creates = emissions.iter().filter(|record| record.headers["ce_type"].ends_with(".create")).count();
    println!("{kills} kills in {rounds} rounds, {} findings, {creates} told as new", expected.0.len());
    assert!(creates >= expected.0.len());
    // And the same with what was really read: without any one finding it is not the same.
    let found = Findings::of(emissions.iter().filter_map(|record| record.value.as_deref()));
    found.assert_every_loss_shows();
}

#[test]
fn sigterm_during_load_ends_cleanly_and_a_restart_goes_on() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let first = while_it_arrives(broker, &place.topic, || {
        let mut process = place.run(&[], "");
        process.until("a commit", |_| place.committed(broker) > 0);
        process.terminate();
        process.wait()
    });
    first.assert_success();
    let committed = place.committed(broker);
    assert!(committed > 0 && committed < dealt().len() as i64, "{committed}: not in the middle of the load");
    let second = place.run(&[], "&until=end").wait();
    second.assert_success();
    place.assert_complete(broker);
    let (together, all) = (first.events() + second.events(), expected().1);
    println!("{} + {} events evaluated of {all}", first.events(), second.events());
    assert!(together >= all && together <= all + all / 20, "{together} events evaluated of {all}");
}

#[test]
fn two_instances_share_a_topic_and_one_survives() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let (mut survivor, mut victim) = (place.run(&[], ""), place.run(&[], ""));
    let share = |process: &Process| process.metric("kubetide_kafka_assigned_partitions") == Some(2.0);
    survivor.until("half of the partitions", share);
    victim.until("half of the partitions", share);
    while_it_arrives(broker, &place.topic, || {
        victim.until("a record", |p| p.metric("kubetide_source_records_total").is_some_and(|n| n > 50.0));
        victim.kill();
    });
    survivor.until("all partitions", |p| p.metric("kubetide_kafka_assigned_partitions") == Some(4.0));
    survivor.until("the end", |_| place.committed(broker) == dealt().len() as i64);
    survivor.terminate();
    survivor.wait().assert_success();
    place.assert_complete(broker);
}

#[test]
fn a_broker_that_restarts_in_the_middle_of_a_run_is_waited_for() {
    let broker = broker_or_return!(broker::secured());
    let password = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(password.path(), "audit-secret").expect("writable");
    let place = Place::new(&broker, &access(&broker, password.path()));
    let all = dealt();
    let (before, after) = all.split_at(all.len() / 2);
    broker.produce(&place.topic, before);
    let mut process = place.run(&[], "");
    process.until("a commit", |_| place.committed(&broker) > 0);
    broker.kill();
    std::thread::sleep(Duration::from_secs(3));
    broker.start_again();
    broker.produce(&place.topic, after);
    process.until("the end", |_| place.committed(&broker) == all.len() as i64);
    assert_eq!(process.get("/readyz").expect("it listens").0, 200);
    process.terminate();
    process.wait().assert_success();
    place.assert_complete(&broker);
}

#[test]
fn a_stop_is_not_held_up_by_a_broker_that_is_away() {
    let broker = broker_or_return!(broker::secured());
    let password = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(password.path(), "audit-secret").expect("writable");
    let place = Place::new(&broker, &access(&broker, password.path()));
    broker.produce(&place.topic, &dealt());
    let mut process = place.run(&[], "");
    process.until("a commit", |_| place.committed(&broker) > 0);
    broker.kill();
    std::thread::sleep(Duration::from_secs(1));
    process.terminate();
    // The broker comes back only when it has ended, so that nothing but itself can end it.
    let ended = process.wait();
    broker.start_again();
    if ended.status.code() == Some(0) {
        // Only where the group had lost the partitions before the stop, so that nothing was in hand.
        assert!(ended.log.contains(r#""event":"lost""#), "{}", ended.log);
    } else {
        assert_eq!(ended.status.code(), Some(3), "{}", ended.log);
        assert!(ended.log.contains("is read again by the next run"), "{}", ended.log);
    }
    place.run(&[], "&until=end").wait().assert_success();
    place.assert_complete(&broker);
}

fn access(broker: &Broker, password: &std::path::Path) -> String {
    let (password, authority) = (password.display(), broker.authority());
    format!("&sasl.username=audit&sasl.password.file={password}&ssl.ca.location={authority}")
}

/// One detection is enough where nothing is to be found, and is planned in a moment.
const ONE: &str = r#"
id: pod-deleted
title: Pod deleted
severity: low
status: stable
attack: [TA0040/T1485]
description: A pod was deleted.
triage: Ask who did it.
false_positives: [controllers]
sql: SELECT * FROM audit WHERE verb = 'delete' AND resource = 'pods'
entity: [cluster, namespace, name]
suppress: 1h
summary: "{user_name} deleted {namespace}/{name}"
tests: []
"#;

#[track_caller]
fn assert_fails(source: &str, alerts: &str, dead_letters: &str, part: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let one = folder.path().join("impact/pod-deleted.yaml");
    std::fs::create_dir(folder.path().join("impact")).expect("a folder");
    std::fs::write(&one, ONE).expect("writable");
    let detections = one.display().to_string();
    let mut arguments = vec![source, "--alerts", alerts, "--dead-letters", dead_letters, "--http", "off"];
    arguments.extend(["--no-shipped", "--detections", &detections]);
    let ended = Process::run(&arguments).wait();
    assert_eq!(ended.status.code(), Some(3), "{}", ended.log);
    let errors: Vec<&str> = ended.log.lines().filter(|line| line.to_lowercase().contains("error")).collect();
    assert!(errors.len() == 1 && errors[0].contains(part), "{part}: {}", ended.log);
    assert!(!ended.log.contains("hunter2"), "{}", ended.log);
    assert_eq!(ended.output, "");
}

#[test]
fn what_cannot_be_used_is_one_clear_error_at_start() {
    let broker = broker_or_return!(broker::plain());
    let (topic, dead) = (broker.topic("kube-audit", 1, &[]), "dead.ndjson");
    let at = |topic: &str| format!("kafka://{}/{topic}", broker.address);
    let good = at(&topic);
    let missing = at(&topic.replace("audit", "adit"));
    assert_fails(&missing, "-", dead, &format!("did you mean `{topic}`"));
    assert_fails(&good, &missing, dead, "does not exist");
    assert_fails(&good, "-", &missing, "does not exist");
    assert_fails("kafka://127.0.0.1:1/audit", "-", dead, "no broker answers at 127.0.0.1:1");
    assert_fails(&format!("{good}?sasl.password=hunter2"), "-", dead, "sasl.password.file=PATH");
    assert_fails(&good.replace("//", "//me:hunter2@"), "-", dead, "credentials do not belong");
    assert_fails(&format!("{good}?grop=a"), "-", dead, "did you mean `group`");
}

#[test]
fn a_wrong_password_is_one_clear_error_at_start() {
    let broker = broker_or_return!(broker::secured());
    let topic = broker.topic("secured", 1, &[]);
    let password = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(password.path(), "wrong").expect("writable");
    let url = format!("kafka://{}/{topic}?until=end{}", broker.address, access(&broker, password.path()));
    assert_fails(&url, "-", "dead.ndjson", "refuses the credentials");
    assert_fails("-", &url.replace("until=end&", ""), "dead.ndjson", "refuses the credentials");
}

#[test]
fn what_cannot_be_read_becomes_dead_letters_while_the_rest_goes_on() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    let dead = broker.topic("dead", 1, &[]);
    let garbage: [(&[u8], &str); 4] = [
        (b"\xff\xfe\x00 nothing that we know", "not_json"),
        (b"plain text", "not_json"),
        (br#"{"hello": "world"}"#, "unknown_format"),
        (&[0x1f, 0x8b, 8, 0, 1, 2, 3], "undecodable"),
    ];
    let mut records = dealt();
    for (n, (bytes, _)) in garbage.iter().enumerate() {
        records.insert(n * 200, Record::to(n as i32, *bytes));
    }
    broker.produce(&place.topic, &records);
    let letters = format!("kafka://{}/{dead}", broker.address);
    let mut process = place.run(&["--dead-letters", &letters], "");
    process.until("the end", |_| place.committed(broker) == records.len() as i64);
    let found = Findings::of(broker.read_all(&place.alerts).iter().filter_map(|record| record.value.as_deref()));
    found.same_as(&expected().0).unwrap_or_else(|difference| panic!("{difference}"));
    let stored: BTreeMap<Vec<u8>, BTreeMap<String, String>> =
        broker.read_all(&dead).into_iter().map(|r| (r.value.expect("a value"), r.headers)).collect();
    assert_eq!(stored.len(), garbage.len());
    for (n, (bytes, reason)) in garbage.iter().enumerate() {
        let headers = &stored[*bytes];
        assert_eq!(headers["reason"], *reason, "{headers:?}");
        assert_eq!(headers["lane"], format!("{}/{n}", place.topic));
        assert_eq!(headers["size"], bytes.len().to_string());
    }
    assert_eq!(process.metric("kubetide_dead_letters_total"), Some(4.0));
    process.terminate();
    process.wait().assert_success();
}

#[test]
fn operators_see_readiness_lag_and_counts() {
    let broker = broker_or_return!(broker::plain());
    let place = Place::new(broker, "");
    broker.produce(&place.topic, &dealt());
    let mut process = place.run(&[], "");
    process.until("readiness", |p| p.get("/readyz").is_some_and(|(status, _)| status == 200));
    process.until("the lag", |p| p.metric("kubetide_kafka_consumer_lag_records").is_some());
    process.until("the end", |_| place.committed(broker) == dealt().len() as i64);
    process.until("no lag", |p| p.metric("kubetide_kafka_consumer_lag_records") == Some(0.0));
    let (findings, events) = expected();
    for (metric, least) in [
        ("kubetide_source_records_total", dealt().len()),
        ("kubetide_kafka_consumer_records_total", dealt().len()),
        ("kubetide_events_decoded_total", *events as usize),
        ("kubetide_alerts_total", findings.0.len()),
        ("kubetide_checkpoints_total", 1),
        ("kubetide_kafka_assigned_partitions", 4),
    ] {
        let value = process.metric(metric).unwrap_or_else(|| panic!("no {metric}"));
        assert!(value >= least as f64, "{metric} is {value}");
    }
    for metric in ["kubetide_kafka_consumer_lag_seconds", "kubetide_events_rejected_total", "kubetide_kafka_paused"] {
        assert_eq!(process.metric(metric), Some(0.0), "{metric}");
    }
    assert_eq!(process.metric("kubetide_kafka_consumer_committed_offset"), Some(dealt().len() as f64));
    process.terminate();
    process.wait().assert_success();
}
