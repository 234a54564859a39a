//! A real Kafka broker for tests: started once for the whole run by `tests/kafka/start.sh`, gone when the run is.
//!
//! | variable | effect |
//! |---|---|
//! | `KUBETIDE_TEST_BROKER=host:port` | use this broker; tests that need to restart it or log in are skipped |
//! | `KUBETIDE_REQUIRE_KAFKA=1` | no broker is a failure instead of a skip (CI) |
//! | `KUBETIDE_KAFKA_JARS=DIR` | where the broker's jars are kept (default: `tmp/kafka/jars` of the target folder) |

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use kubetide::clock::{Instant, now_ms};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A running broker.
pub struct Broker {
    /// `host:port`.
    pub address: String,
    secured: bool,
    /// Its folder, where it is ours to stop.
    dir: Option<PathBuf>,
}

/// A record as tests see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
}

impl Record {
    pub fn to(partition: i32, value: impl Into<Vec<u8>>) -> Record {
        Record { partition, value: Some(value.into()), ..Record::default() }
    }
}

/// The plain broker of this run; `None` where there can be none, which the run is told.
pub fn plain() -> Option<&'static Broker> {
    static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
    BROKER
        .get_or_init(|| match std::env::var("KUBETIDE_TEST_BROKER") {
            Ok(address) => Some(Broker { address, secured: false, dir: None }),
            Err(_) => start("plain", false),
        })
        .as_ref()
}

/// A broker that wants TLS and a password, and that may be stopped: one test at a time has it.
pub fn secured() -> Option<std::sync::MutexGuard<'static, Broker>> {
    static BROKER: OnceLock<Option<Mutex<Broker>>> = OnceLock::new();
    let broker = BROKER.get_or_init(|| {
        if std::env::var_os("KUBETIDE_TEST_BROKER").is_some() {
            say("tests that log in or restart the broker are SKIPPED: KUBETIDE_TEST_BROKER is not ours");
            return None;
        }
        start("secured", true).map(Mutex::new)
    });
    broker.as_ref().map(|broker| broker.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn start(name: &str, secured: bool) -> Option<Broker> {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka");
    forget_the_dead(&base);
    let dir = base.join(format!("{name}-{}", std::process::id()));
    let broker = Broker { address: format!("127.0.0.1:{}", free_port()), secured, dir: Some(dir) };
    match broker.run_start() {
        Ok(()) => Some(broker),
        Err(reason) => {
            assert!(
                std::env::var_os("KUBETIDE_REQUIRE_KAFKA").is_none_or(|v| v != "1"),
                "KUBETIDE_REQUIRE_KAFKA=1, but there is no broker: {reason}"
            );
            say(&format!("Kafka tests are SKIPPED, no broker: {reason}"));
            None
        }
    }
}

/// Removes what brokers of runs that are over have left.
fn forget_the_dead(base: &Path) {
    let folders = std::fs::read_dir(base).into_iter().flatten().flatten();
    for folder in folders {
        let name = folder.file_name().to_string_lossy().into_owned();
        let owner = ["plain-", "secured-"].iter().find_map(|prefix| name.strip_prefix(prefix)?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _gone = std::fs::remove_dir_all(folder.path());
        }
    }
}

/// Past the test harness, which hides what passing tests print.
fn say(text: &str) {
    let _written = writeln!(std::io::stderr(), "\n{text}");
}

/// A port whose successor is free too: the broker takes both.
fn free_port() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = first.local_addr().expect("bound").port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka").join(name))
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}-{}", now_ms(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Broker {
    fn run_start(&self) -> Result<(), String> {
        let dir = self.dir.as_ref().ok_or("it is not ours to start")?;
        let jars = std::env::var_os("KUBETIDE_KAFKA_JARS")
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("kafka/jars"), PathBuf::from);
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let mut command = script("start.sh");
        command.arg("--dir").arg(dir).arg("--jars").arg(jars).args(["--port", port]);
        command.args(["--with", &std::process::id().to_string()]);
        if self.secured {
            command.arg("--sasl");
        }
        let output = command.output().map_err(|e| format!("start.sh does not run: {e}"))?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Stops the broker as a crash would.
    pub fn kill(&self) {
        let dir = self.dir.as_ref().expect("ours to stop");
        assert!(script("stop.sh").arg("--dir").arg(dir).arg("--kill").status().expect("runs").success());
    }

    /// Starts it again with the same data on the same port.
    pub fn start_again(&self) {
        self.run_start().expect("it started before");
    }

    /// The certificate authority of a secured broker.
    pub fn authority(&self) -> String {
        self.dir.as_ref().expect("ours").join("tls/ca.pem").display().to_string()
    }

    /// Settings for clients of the tests' own.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        if self.secured {
            config.set("security.protocol", "SASL_SSL").set("sasl.mechanism", "SCRAM-SHA-512");
            config.set("sasl.username", "audit").set("sasl.password", "audit-secret");
            config.set("ssl.ca.location", self.authority());
        }
        config
    }

    /// Makes a topic with a name of its own and returns the name.
    pub fn topic(&self, prefix: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = unique(prefix);
        self.create_topic(&name, partitions, settings);
        name
    }

    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = wait(self.admin().create_topics([&topic], &AdminOptions::new())).expect("broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        // The answer comes before the partition has a leader.
        let consumer: BaseConsumer = self.config().create().expect("a client");
        let deadline = Instant::now().after(TIMEOUT);
        while (0..partitions).any(|p| consumer.fetch_watermarks(name, p, Duration::from_secs(1)).is_err()) {
            assert!(!deadline.remaining().is_zero(), "{name} gets no leader");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn delete_topic(&self, name: &str) {
        let results = wait(self.admin().delete_topics(&[name], &AdminOptions::new())).expect("broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Deletes the records of a partition before `offset`, as retention would.
    pub fn expire(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        wait(self.admin().delete_records(&list, &AdminOptions::new())).expect("broker answers");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("a client")
    }

    /// Stores records, in order within their partitions.
    pub fn produce(&self, topic: &str, records: &[Record]) {
        let producer = self.producer(&[]);
        self.queue(&producer, topic, records);
        producer.flush(TIMEOUT).expect("stored");
    }

    /// Stores records in a transaction, which is then committed or aborted.
    pub fn produce_transaction(&self, topic: &str, records: &[Record], commit: bool) {
        let producer = self.producer(&[("transactional.id", &unique("tx"))]);
        producer.init_transactions(TIMEOUT).expect("transactions");
        producer.begin_transaction().expect("begun");
        self.queue(&producer, topic, records);
        producer.flush(TIMEOUT).expect("stored");
        if commit {
            producer.commit_transaction(TIMEOUT).expect("committed");
        } else {
            producer.abort_transaction(TIMEOUT).expect("aborted");
        }
    }

    fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("compression.type", "zstd");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a producer")
    }

    fn queue(&self, producer: &BaseProducer, topic: &str, records: &[Record]) {
        for record in records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut next: BaseRecord<'_, str, [u8]> =
                BaseRecord::to(topic).partition(record.partition).headers(headers);
            if let Some(key) = &record.key {
                next = next.key(key);
            }
            if let Some(value) = &record.value {
                next = next.payload(value);
            }
            while let Err((error, back)) = producer.send(next) {
                let full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
                assert!(full, "{error}");
                producer.poll(Duration::from_millis(10));
                next = back;
            }
        }
    }

    /// Every record that a careful reader sees now, partition by partition.
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let mut config = self.config();
        config.set("group.id", unique("reader")).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("broker answers");
        let partitions = metadata.topics()[0].partitions().len() as i32;
        let mut records = Vec::new();
        for partition in 0..partitions {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
            consumer.assign(&list).expect("assigned");
            loop {
                match consumer.poll(TIMEOUT) {
                    Some(Ok(message)) => records.push(Record {
                        partition,
                        key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: message.headers().map_or_else(BTreeMap::new, |headers| {
                            let text =
                                |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"")).into_owned();
                            headers.iter().map(|h| (h.key.to_owned(), text(h.value))).collect()
                        }),
                    }),
                    Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => break,
                    Some(Err(error)) => panic!("cannot read {topic}: {error}"),
                    None => panic!("{topic}/{partition} does not come to its end"),
                }
            }
        }
        records
    }

    /// Position of a group in each partition; -1 where it has none.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> Vec<i64> {
        let mut config = self.config();
        config.set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        // A broker that has just started first has to find out who keeps the group.
        let deadline = Instant::now().after(TIMEOUT);
        let list = loop {
            match consumer.committed_offsets(list.clone(), TIMEOUT) {
                Ok(list) => break list,
                Err(error) => assert!(!deadline.remaining().is_zero(), "the broker does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let offset = |offset: Offset| if let Offset::Offset(n) = offset { n } else { -1 };
        list.elements().iter().map(|e| offset(e.offset())).collect()
    }
}

fn wait<T>(future: impl std::future::Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}
