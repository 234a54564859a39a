//! Where made-up events go.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};

use crate::kafka::{Address, Error, Monitor, Properties, Silent, reach};

/// Reports that may be owed before the oldest is waited for.
const REPORTS_MAX: usize = 20_000;
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// An open output.
pub(super) enum Output {
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
    Zstd(Box<zstd::Encoder<'static, BufWriter<File>>>),
    Kafka(Box<Topic>),
}

impl Output {
    /// Opens what the address names. Blocks for some seconds where a broker does not answer.
    pub fn open(address: &str) -> anyhow::Result<Output> {
        if address == "-" {
            return Ok(Output::Plain(BufWriter::with_capacity(1 << 20, Box::new(std::io::stdout()))));
        }
        if address.starts_with("kafka://") {
            return Ok(Output::Kafka(Box::new(Topic::open(&address.parse()?)?)));
        }
        if let Some((scheme, _)) = address.split_once("://") {
            anyhow::bail!("`{scheme}://` is not supported: write to `-`, a path or kafka://host:port/topic");
        }
        let file = File::create(address)?;
        Ok(match address.rsplit_once('.') {
            Some((_, "gz")) => Output::Gzip(Box::new(GzEncoder::new(BufWriter::new(file), Compression::fast()))),
            Some((_, "zst")) => Output::Zstd(Box::new(zstd::Encoder::new(BufWriter::new(file), 3)?)),
            _ => Output::Plain(BufWriter::with_capacity(1 << 20, Box::new(file))),
        })
    }

    pub fn is_kafka(&self) -> bool {
        matches!(self, Output::Kafka(_))
    }

    /// One record: a line, or a message that names its cluster in a header.
    pub fn send(&mut self, record: &[u8], cluster: &str) -> anyhow::Result<()> {
        match self {
            Output::Plain(out) => line(out, record),
            Output::Gzip(out) => line(out, record),
            Output::Zstd(out) => line(out, record),
            Output::Kafka(topic) => topic.send(record, cluster),
        }
    }

    /// Lets others see what was sent, as far as that needs no compressed block to end.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        if let Output::Plain(out) = self {
            out.flush()?;
        }
        Ok(())
    }

    /// Ends the output; nothing may be sent after it.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Output::Plain(out) => out.flush()?,
            Output::Gzip(out) => {
                out.try_finish()?;
                out.get_mut().flush()?;
            }
            Output::Zstd(out) => {
                out.do_finish()?;
                out.get_mut().flush()?;
            }
            Output::Kafka(topic) => topic.settle()?,
        }
        Ok(())
    }
}

fn line(out: &mut impl Write, record: &[u8]) -> anyhow::Result<()> {
    out.write_all(record)?;
    Ok(out.write_all(b"\n")?)
}

/// Whether an error only says that nobody reads the pipe any more.
pub(super) fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A producer and the reports that it owes.
pub(super) struct Topic {
    producer: FutureProducer<Monitor>,
    name: String,
    brokers: String,
    reports: VecDeque<DeliveryFuture>,
    runtime: tokio::runtime::Runtime,
}

impl Topic {
    fn open(address: &Address) -> anyhow::Result<Topic> {
        let [name] = address.topics.as_slice() else {
            anyhow::bail!("events go to one topic, and the address names {}", address.topics.len());
        };
        let mut properties = Properties::new(&address.brokers, &address.options)?;
        properties.set_default("compression.type", "zstd");
        properties.set_default("linger.ms", "20");
        properties.set_default("batch.size", "524288");
        properties.set_default("queue.buffering.max.kbytes", "65536");
        let monitor = Monitor::new(&address.brokers, Arc::new(Silent));
        let producer: FutureProducer<Monitor> =
            properties.to_config().create_with_context(monitor.clone()).map_err(Error::of_creation)?;
        reach(producer.client(), &monitor, std::slice::from_ref(name), || ())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (name, brokers) = (name.clone(), address.brokers.clone());
        Ok(Topic { producer, name, brokers, reports: VecDeque::new(), runtime })
    }

    fn send(&mut self, value: &[u8], cluster: &str) -> anyhow::Result<()> {
        let name = self.name.clone();
        let headers = OwnedHeaders::new().insert(Header { key: "cluster", value: Some(cluster) });
        // Without a key, so that the partitions share the load.
        let mut record: FutureRecord<'_, (), [u8]> = FutureRecord::to(&name).payload(value).headers(headers);
        loop {
            let (error, back) = match self.producer.send_result(record) {
                Ok(report) => {
                    self.reports.push_back(report);
                    break;
                }
                Err(refusal) => refusal,
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if self.reports.is_empty() => std::thread::sleep(FULL_PAUSE),
                Some(RDKafkaErrorCode::QueueFull) => self.await_report()?,
                _ => return Err(self.failed(&error)),
            }
            record = back;
        }
        if self.reports.len() > REPORTS_MAX {
            self.await_report()?;
        }
        Ok(())
    }

    /// Waits for every report.
    fn settle(&mut self) -> anyhow::Result<()> {
        while !self.reports.is_empty() {
            self.await_report()?;
        }
        Ok(())
    }

    fn await_report(&mut self) -> anyhow::Result<()> {
        let Some(oldest) = self.reports.pop_front() else { return Ok(()) };
        match self.runtime.block_on(oldest) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(self.failed(&error)),
            Err(_) => anyhow::bail!("the kafka producer went away before it reported"),
        }
    }

    fn failed(&self, error: &KafkaError) -> anyhow::Error {
        match Error::of_run(error, &self.brokers) {
            Some(error) => error.into(),
            None => anyhow::anyhow!("topic `{}` on {} does not take records: {error}", self.name, self.brokers),
        }
    }
}
