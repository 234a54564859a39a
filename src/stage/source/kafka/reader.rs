//! The loop of a Kafka source: poll, collect, hand on, and answer the group between two polls.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};

use super::chunks::Builder;
use super::commits;
use super::context::{Change, Client};
use super::failed;
use super::lag::LagMeter;
use super::options::KafkaOptions;
use crate::clock::Instant;
use crate::kafka::Error;
use crate::model::{Chunk, Lane, LaneId, Position};
use crate::stage::source::{Intake, SourceError, Stop, TrySend};

/// Records taken in one go before anything else is looked at.
const BURST: usize = 256;
/// Longest wait for a record, and so the longest a stop request goes unseen.
const IDLE: Duration = Duration::from_millis(250);
/// How often a full pipeline is tried again while the partitions are paused.
const RETRY: Duration = Duration::from_millis(20);
/// How long a full pipeline is waited for before partitions are paused: a pause throws away what was prefetched, so
/// a pipeline that is merely slower than Kafka should not cause one.
const PATIENCE: Duration = Duration::from_millis(250);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Names of clusters that are remembered; more would be an attack or a misconfiguration.
const CLUSTERS_MAX: usize = 4_096;
/// How long one question to the pipeline waits, where a stop is to be noticed in between.
const SLICE: Duration = Duration::from_secs(1);
/// How long the broker may take to store the last positions of a run that ended by itself.
const SETTLE: Duration = Duration::from_secs(10);

/// One partition, as the loop sees it.
pub(super) struct Part {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Whether its records are wanted now.
    pub(super) owned: bool,
    /// Next offset to read; `None` until the first record after "from the beginning".
    pub(super) next: Option<i64>,
    /// Where the run is to end.
    pub(super) end: Option<i64>,
    pub(super) done: bool,
    /// Whether the library said that some partition of this number is at its end.
    pub(super) eof: bool,
    pub(super) heard: Instant,
}

pub(super) struct Reader {
    pub(super) consumer: Arc<Client>,
    pub(super) options: KafkaOptions,
    pub(super) ends: HashMap<(String, i32), i64>,
    pub(super) intake: Intake,
    pub(super) stop: Stop,
    /// By lane.
    pub(super) parts: Vec<Part>,
    /// Lanes by topic and partition.
    index: Vec<(Arc<str>, Vec<Option<LaneId>>)>,
    lanes: Arc<[Lane]>,
    pub(super) builder: Builder,
    /// Chunks that the pipeline has not taken yet.
    pub(super) ready: VecDeque<Chunk>,
    /// What we paused, and so what we may resume.
    pub(super) paused: Option<TopicPartitionList>,
    /// Whether the group ever gave us an assignment.
    pub(super) joined: bool,
    /// The pipeline has gone.
    pub(super) closed: bool,
    clusters: HashMap<Box<[u8]>, Arc<str>>,
    kept_house: Instant,
}

impl Reader {
    pub(super) fn new(
        consumer: Arc<Client>,
        options: KafkaOptions,
        ends: HashMap<(String, i32), i64>,
        intake: Intake,
        stop: Stop,
    ) -> Reader {
        Reader {
            builder: Builder::new(options.limits),
            consumer,
            options,
            ends,
            intake,
            stop,
            parts: Vec::new(),
            index: Vec::new(),
            lanes: Arc::from([]),
            ready: VecDeque::new(),
            paused: None,
            joined: false,
            closed: false,
            clusters: HashMap::new(),
            kept_house: Instant::now(),
        }
    }

    /// Reads until stopped, at the end, or failed; then drains and leaves the group.
    pub(super) fn run(mut self) -> Result<(), SourceError> {
        let consumer = Arc::clone(&self.consumer);
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        let subscribed = consumer.subscribe(&topics);
        subscribed.map_err(|error| SourceError::external(format!("cannot subscribe to {topics:?}: {error}")))?;
        let thread = commits::start(&consumer);
        thread.map_err(|error| SourceError::external(format!("no thread for committing: {error}")))?;
        let meter = LagMeter::start(&consumer, self.options.lag_every);
        let outcome = self.read(&consumer);
        if outcome.is_ok() {
            self.finish(&consumer);
        }
        drop(meter);
        self.leave(&consumer);
        outcome
    }

    fn read(&mut self, consumer: &Client) -> Result<(), SourceError> {
        while !self.stop.requested() && !self.closed && !self.is_done() {
            self.poll(consumer, self.time_to_wait())?;
            while let Some(change) = consumer.context().next_change() {
                match change {
                    Change::Assign(partitions) => self.take_on(consumer, partitions),
                    Change::Revoke(partitions) => self.let_go(consumer, &partitions)?,
                }
            }
            if self.builder.is_due() {
                self.close_chunk();
            }
            self.hand_on(consumer);
            self.keep_house(consumer);
        }
        Ok(())
    }

    fn time_to_wait(&self) -> Duration {
        let longest = if self.ready.is_empty() { IDLE } else { RETRY };
        self.builder.time_left().map_or(longest, |left| left.min(longest))
    }

    /// Takes what is there, waiting at most `wait` for the first record.
    pub(super) fn poll(&mut self, consumer: &Client, wait: Duration) -> Result<(), SourceError> {
        let mut wait = wait;
        for _ in 0..BURST {
            match consumer.poll(wait) {
                Some(Ok(message)) => self.take(&message),
                Some(Err(error)) => self.hear(consumer, &error)?,
                None => return Ok(()),
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let offset = message.offset();
        let Some(lane) = self.find(message.topic(), message.partition()) else { return };
        let Some(part) = self.parts.get_mut(lane as usize) else { return };
        // A record can come twice after a pause, and once more after its partition was taken away.
        if !part.owned || part.next.is_some_and(|next| offset < next) {
            return;
        }
        part.next = Some(offset + 1);
        if let Some(end) = part.end {
            part.heard = Instant::now();
            part.done |= offset + 1 >= end;
            if offset >= end {
                return;
            }
        }
        let payload = message.payload().unwrap_or_default();
        if self.builder.is_full_for(payload.len()) {
            self.close_chunk();
        }
        let position = Position { lane, offset: u64::try_from(offset).unwrap_or_default() };
        let cluster = self.cluster(message);
        self.builder.push(position, payload, message.timestamp().to_millis(), cluster);
        if self.builder.is_full() {
            self.close_chunk();
        }
    }

    /// The cluster that the record itself names.
    fn cluster(&mut self, message: &BorrowedMessage<'_>) -> Option<Arc<str>> {
        let options = &self.options.clusters;
        let by_header = message.headers().and_then(|headers| {
            headers.iter().find(|header| header.key == options.header).and_then(|header| header.value)
        });
        let by_key = || message.key().filter(|_| options.key);
        let name = by_header.or_else(by_key).filter(|name| !name.is_empty())?;
        if let Some(known) = self.clusters.get(name) {
            return Some(Arc::clone(known));
        }
        let text: Arc<str> = std::str::from_utf8(name).ok()?.into();
        if self.clusters.len() >= CLUSTERS_MAX {
            self.clusters.clear();
        }
        self.clusters.insert(name.into(), Arc::clone(&text));
        Some(text)
    }

    /// Errors that the library cannot mend end the run; the monitor has already logged the others.
    fn hear(&mut self, consumer: &Client, error: &KafkaError) -> Result<(), SourceError> {
        if let KafkaError::PartitionEOF(partition) = error {
            self.note_end(*partition);
            return Ok(());
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
            self.recover(consumer);
            return Ok(());
        }
        match Error::of_run(error, consumer.context().monitor.brokers()) {
            Some(fatal) => Err(failed(fatal)),
            None => Ok(()),
        }
    }

    /// Closes the chunk that is being filled and puts it up for the pipeline.
    pub(super) fn close_chunk(&mut self) {
        self.ready.extend(self.builder.close(&self.lanes));
    }

    /// Hands chunks to the pipeline; pauses the partitions when it stays full, resumes them when it is not.
    fn hand_on(&mut self, consumer: &Client) {
        self.offer();
        if self.paused.is_none() {
            let since = Instant::now();
            let mut nap = Duration::from_millis(1);
            while !self.ready.is_empty() && !self.closed && since.elapsed() < PATIENCE {
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_millis(10));
                self.offer();
            }
            if !self.ready.is_empty() && !self.closed {
                self.pause(consumer);
            }
        } else if self.ready.is_empty() {
            self.resume(consumer);
        }
    }

    /// Hands on as many chunks as the pipeline takes now.
    pub(super) fn offer(&mut self) {
        while let Some(chunk) = self.ready.pop_front() {
            let account = Account::of(&chunk);
            // Before it goes: the pipeline may be done with it before this thread runs again.
            self.note_sending(&account);
            match self.intake.try_send(chunk) {
                Ok(()) => self.count_sent(&account),
                Err(TrySend::Full(chunk)) => return self.ready.push_front(chunk),
                Err(TrySend::Closed) => self.closed = true,
            }
        }
    }

    fn note_sending(&self, account: &Account) {
        for (lane, sum) in account.lanes() {
            self.consumer.context().ledger.sent(lane, sum.next, sum.time_ms);
        }
    }

    fn count_sent(&self, account: &Account) {
        let monitor = &self.consumer.context().monitor;
        for (lane, sum) in account.lanes() {
            let Some(part) = self.parts.get(lane as usize) else { continue };
            monitor.events().records_read(&part.topic, part.partition, sum.records, sum.bytes);
        }
        monitor.reached();
    }

    fn pause(&mut self, consumer: &Client) {
        let Ok(assigned) = consumer.assignment() else { return };
        if let Err(error) = consumer.pause(&assigned) {
            tracing::warn!(%error, "cannot pause partitions");
            return;
        }
        tracing::debug!(partitions = assigned.count(), "pipeline is full, partitions paused");
        self.paused = Some(assigned);
        consumer.context().monitor.events().paused(true);
    }

    /// Resumes what we paused and still have: resuming anything else would rewind it.
    fn resume(&mut self, consumer: &Client) {
        let Some(paused) = self.paused.take() else { return };
        let mut list = TopicPartitionList::with_capacity(paused.count());
        for element in paused.elements() {
            let lane = self.find(element.topic(), element.partition());
            if lane.and_then(|lane| self.parts.get(lane as usize)).is_some_and(|part| part.owned) {
                list.add_partition(element.topic(), element.partition());
            }
        }
        if let Err(error) = consumer.resume(&list) {
            tracing::warn!(%error, "cannot resume partitions");
        }
        consumer.context().monitor.events().paused(false);
    }

    fn keep_house(&mut self, consumer: &Client) {
        if self.kept_house.elapsed() < HOUSEKEEPING {
            return;
        }
        self.kept_house = Instant::now();
        consumer.context().monitor.events().polled();
        if self.options.until_end {
            self.check_tails();
        }
    }

    /// What is left to do when reading has ended: deliver and commit everything.
    fn finish(&mut self, consumer: &Client) {
        for part in &mut self.parts {
            part.owned = false;
        }
        let limit = if self.stop.requested() { Some(self.options.drain) } else { None };
        if !self.closed && !self.drain(consumer, limit) {
            tracing::warn!("not everything that was read is delivered and committed; it will be read again");
        }
    }

    /// Hands on, has delivered and committed everything that was read, within `limit`; without a limit it takes as
    /// long as the sinks take, unless a stop is requested. Whether it came to the end.
    pub(super) fn drain(&mut self, consumer: &Client, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| Instant::now().after(limit));
        let expired = |reader: &Reader| match deadline {
            Some(deadline) => deadline.remaining().is_zero(),
            None => reader.stop.requested(),
        };
        self.close_chunk();
        while !self.ready.is_empty() {
            self.offer();
            if self.closed || (!self.ready.is_empty() && expired(self)) {
                return false;
            }
            if !self.ready.is_empty() && self.poll(consumer, RETRY).is_err() {
                return false;
            }
        }
        loop {
            let slice = deadline.map_or(SLICE, Instant::remaining);
            let asked = Instant::now();
            if self.intake.checkpoint(slice) {
                break;
            }
            // A refusal long before the time is up means that nobody is there to answer.
            let gone = asked.elapsed() < slice / 2;
            if gone || expired(self) || self.poll(consumer, Duration::ZERO).is_err() {
                return false;
            }
        }
        self.settle(consumer, deadline.unwrap_or_else(|| Instant::now().after(SETTLE)))
    }

    /// Waits for the broker's word that it stored what was acknowledged.
    fn settle(&mut self, consumer: &Client, deadline: Instant) -> bool {
        let ledger = Arc::clone(&consumer.context().ledger);
        while !ledger.is_settled() {
            if deadline.remaining().is_zero() {
                return false;
            }
            if self.poll(consumer, RETRY).is_err() {
                return false;
            }
        }
        true
    }

    /// Lets the group know that we go. The consumer closes when its last handle is dropped, here.
    fn leave(self, consumer: &Client) {
        let callbacks = consumer.context();
        callbacks.ledger.close();
        callbacks.close();
        while let Some(change) = callbacks.next_change() {
            match change {
                Change::Assign(partitions) => super::context::answer(consumer, &partitions, true),
                Change::Revoke(partitions) => super::context::answer(consumer, &partitions, false),
            }
        }
    }

    /// All lanes so far.
    pub(super) fn lanes(&self) -> Arc<[Lane]> {
        Arc::clone(&self.lanes)
    }

    /// The lane of a partition, if it ever was ours.
    pub(super) fn find(&self, topic: &str, partition: i32) -> Option<LaneId> {
        let (_, lanes) = self.index.iter().find(|(name, _)| &**name == topic)?;
        *lanes.get(usize::try_from(partition).ok()?)?
    }

    /// The lane of a partition, a new one where it is seen for the first time.
    pub(super) fn lane(&mut self, topic: &str, partition: i32) -> LaneId {
        if let Some(lane) = self.find(topic, partition) {
            return lane;
        }
        let lane = self.consumer.context().ledger.add(topic, partition);
        let topic: Arc<str> = topic.into();
        let at = self.index.iter().position(|(name, _)| *name == topic).unwrap_or_else(|| {
            self.index.push((Arc::clone(&topic), Vec::new()));
            self.index.len() - 1
        });
        if let (Some((_, lanes)), Ok(slot)) = (self.index.get_mut(at), usize::try_from(partition)) {
            lanes.resize(lanes.len().max(slot + 1), None);
            lanes.splice(slot..=slot, [Some(lane)]);
        }
        let new = self.options.clusters.lane(&topic, partition);
        self.lanes = self.lanes.iter().cloned().chain([new]).collect();
        self.parts.push(Part {
            topic,
            partition,
            owned: false,
            next: None,
            end: None,
            done: false,
            eof: false,
            heard: Instant::now(),
        });
        lane
    }
}

/// What a chunk brings to each lane.
struct Account(Vec<Sum>);

#[derive(Clone, Default)]
struct Sum {
    records: u64,
    bytes: u64,
    next: i64,
    time_ms: Option<i64>,
}

impl Account {
    fn of(chunk: &Chunk) -> Account {
        let mut sums = vec![Sum::default(); chunk.lanes.len()];
        for record in &chunk.records {
            let Some(sum) = sums.get_mut(record.position.lane as usize) else { continue };
            sum.records += 1;
            sum.bytes += record.range.len() as u64;
            sum.next = i64::try_from(record.position.offset).unwrap_or(i64::MAX).saturating_add(1);
            sum.time_ms = record.time_ms.or(sum.time_ms);
        }
        Account(sums)
    }

    /// Lanes that the chunk has records of.
    fn lanes(&self) -> impl Iterator<Item = (LaneId, &Sum)> {
        (0..).zip(&self.0).filter(|(_, sum)| sum.records > 0)
    }
}
