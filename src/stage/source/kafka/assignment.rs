//! Which partitions are ours, where each begins, and what happens when its position is gone.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::context::{Client, answer};
use super::options::Start;
use super::reader::Reader;
use crate::clock::Instant;
use crate::model::{Chunk, LaneId};
use crate::stage::source::SourceError;

/// How long one question to the broker may take while the group waits for us.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 3;
/// Silence after which the end of a partition is looked for where the library gave a sign, or none.
const QUIET: Duration = Duration::from_secs(1);
const SILENT: Duration = Duration::from_secs(5);

impl Reader {
    /// Takes partitions that the group gives us.
    pub(super) fn take_on(&mut self, consumer: &Client, partitions: TopicPartitionList) {
        let (mut list, fresh) = self.starting_points(consumer, partitions);
        let resumed = self.go_on_from_state(&mut list, &fresh);
        let mut lanes = Vec::with_capacity(list.count());
        for element in list.elements() {
            let lane = self.lane(element.topic(), element.partition());
            let next = match element.offset() {
                Offset::Offset(next) => Some(next),
                _ => None,
            };
            let resumed = resumed.get(&(element.topic().to_owned(), element.partition()));
            let is_fresh = resumed.is_none() && fresh.find_partition(element.topic(), element.partition()).is_some();
            let committed = resumed.map_or(next.filter(|_| !is_fresh), |committed| *committed);
            consumer.context().ledger.own(lane, committed, next);
            if resumed.is_some() {
                // Where the state is ahead, it ended between a snapshot and the commit that belongs to it.
                consumer.context().ledger.acknowledge_start(lane);
            }
            self.begin(lane, next);
            lanes.push((lane, is_fresh));
        }
        answer(consumer, &list, true);
        self.joined = true;
        if let Some(paused) = &mut self.paused {
            if let Err(error) = consumer.pause(&list) {
                tracing::warn!(%error, "cannot pause new partitions");
            }
            for element in list.elements() {
                paused.add_partition(element.topic(), element.partition());
            }
        }
        if self.options.start == Start::Latest {
            // Stored at once: whoever gets the partition before the first record is done must not begin later still.
            for (lane, _) in lanes.iter().filter(|(_, fresh)| *fresh) {
                consumer.context().ledger.acknowledge_start(*lane);
            }
        }
        self.tell(consumer, "assigned", list.count());
    }

    /// Gives partitions back, after everything that was read from them is delivered and committed; or forgets them,
    /// where the group has already given them to somebody else.
    pub(super) fn let_go(&mut self, consumer: &Client, partitions: &TopicPartitionList) -> Result<(), SourceError> {
        let lost = consumer.assignment_lost();
        let lanes: Vec<LaneId> =
            partitions.elements().iter().filter_map(|e| self.find(e.topic(), e.partition())).collect();
        for &lane in &lanes {
            if let Some(part) = self.parts.get_mut(lane as usize) {
                part.owned = false;
            }
        }
        if !lost && !lanes.is_empty() && !self.drain(consumer, Some(self.options.drain)) {
            tracing::warn!(
                partitions = lanes.len(),
                "partitions go before all their records are delivered; \
                their next owner reads those again"
            );
        }
        // Where the drain did not get that far, their next owner reads these.
        self.builder.retain(|record| !lanes.contains(&record.position.lane));
        for chunk in &mut self.ready {
            chunk.records.retain(|record| !lanes.contains(&record.position.lane));
        }
        for element in partitions.elements() {
            consumer.context().monitor.events().released(element.topic(), element.partition());
        }
        for &lane in &lanes {
            consumer.context().ledger.disown(lane);
        }
        if self.options.comings.is_some() && !lanes.is_empty() {
            // Behind everything that was handed on of them, and before anything that comes when they are ours again.
            self.close_chunk();
            self.ready.push_back(Chunk { lanes: self.lanes(), ended: lanes.clone(), ..Chunk::default() });
        }
        answer(consumer, partitions, false);
        self.tell(consumer, if lost { "lost" } else { "revoked" }, lanes.len());
        Ok(())
    }

    fn tell(&self, consumer: &Client, event: &'static str, changed: usize) {
        let assigned = self.parts.iter().filter(|part| part.owned).count();
        tracing::info!(event, changed, assigned, "kafka partitions");
        consumer.context().monitor.events().rebalanced(event, assigned);
    }

    /// Prepares a partition for reading from `next`, or from the beginning.
    fn begin(&mut self, lane: LaneId, next: Option<i64>) {
        let until_end = self.options.until_end;
        let Some(part) = self.parts.get_mut(lane as usize) else { return };
        // A partition that was added since is not part of a run that has an end.
        let end = self.ends.get(&(part.topic.to_string(), part.partition)).copied().unwrap_or(0);
        part.owned = true;
        part.next = next;
        part.end = until_end.then_some(end);
        part.done = until_end && (end == 0 || next.is_some_and(|next| next >= end));
        part.eof = false;
        part.heard = Instant::now();
    }

    /// Where each partition begins: at the group's position, else where the options say. The second list holds those
    /// that have no position yet.
    fn starting_points(
        &self,
        consumer: &Client,
        partitions: TopicPartitionList,
    ) -> (TopicPartitionList, TopicPartitionList) {
        let mut fresh = TopicPartitionList::new();
        let asked = (0..ATTEMPTS).find_map(|_| consumer.committed_offsets(partitions.clone(), ANSWER_TIMEOUT).ok());
        let Some(mut list) = asked else {
            // The library keeps asking, and tells us (`recover`) where there is no position.
            tracing::warn!("the group's positions cannot be had yet, going on without");
            let mut list = partitions;
            if let Err(error) = list.set_all_offsets(Offset::Stored) {
                tracing::warn!(%error, "cannot set positions");
            }
            return (list, fresh);
        };
        for element in list.elements() {
            if !matches!(element.offset(), Offset::Offset(_)) && element.error().is_ok() {
                fresh.add_partition(element.topic(), element.partition());
            }
        }
        for (topic, partition, offset) in self.first_offsets(consumer, &fresh) {
            if let Err(error) = list.set_partition_offset(&topic, partition, offset) {
                tracing::warn!(%error, topic, partition, "cannot set a position");
            }
        }
        (list, fresh)
    }

    /// Where partitions begin of which the group has no position.
    fn first_offsets(&self, consumer: &Client, fresh: &TopicPartitionList) -> Vec<(String, i32, Offset)> {
        let mut by_time = None;
        if let Start::At(time_ms) = self.options.start {
            let mut times = fresh.clone();
            if times.set_all_offsets(Offset::Offset(time_ms)).is_ok() {
                by_time = consumer.offsets_for_times(times, ANSWER_TIMEOUT).ok();
            }
        }
        let mut found = Vec::with_capacity(fresh.count());
        for element in fresh.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let end = || match consumer.fetch_watermarks(topic, partition, ANSWER_TIMEOUT) {
                Ok((_, high)) => Offset::Offset(high),
                Err(_) => Offset::End,
            };
            let offset = match (self.options.start, &by_time) {
                (Start::Earliest, _) => Offset::Beginning,
                (Start::Latest, _) => end(),
                (Start::At(_), Some(times)) => match times.find_partition(topic, partition).map(|e| e.offset()) {
                    Some(Offset::Offset(offset)) if offset >= 0 => Offset::Offset(offset),
                    Some(_) => end(),
                    None => Offset::Beginning,
                },
                // Better too much than too little.
                (Start::At(_), None) => Offset::Beginning,
            };
            found.push((topic.to_owned(), partition, offset));
        }
        found
    }

    /// Some partition's position is not on the broker any more. The library does not say which, so all are compared
    /// with what the broker has; the gap is recorded, and the partition goes on from its oldest record.
    pub(super) fn recover(&mut self, consumer: &Client) {
        let reason = consumer.context().monitor.reason();
        let mut list = TopicPartitionList::new();
        let mut whole = TopicPartitionList::new();
        let owned: Vec<usize> =
            (0..self.parts.len()).filter(|&at| self.parts.get(at).is_some_and(|p| p.owned)).collect();
        for at in owned {
            let Some(part) = self.parts.get(at) else { continue };
            let (topic, partition, next) = (part.topic.clone(), part.partition, part.next);
            let lane = u32::try_from(at).unwrap_or(LaneId::MAX);
            let bounds = consumer.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT);
            let start = match (next, bounds) {
                (Some(next), Ok((low, high))) if next < low || next > high => {
                    self.record_gap(consumer, lane, next, (low, high), &reason);
                    Offset::Offset(low)
                }
                (Some(next), _) => {
                    add(&mut whole, &topic, partition, Offset::Offset(next));
                    continue;
                }
                (None, Ok((low, _))) => Offset::Offset(low),
                (None, Err(_)) => Offset::Beginning,
            };
            add(&mut list, &topic, partition, start);
        }
        if list.count() == 0 {
            tracing::warn!(
                reason,
                "a position is refused but within bounds, all partitions start again where they are"
            );
            self.restart(consumer, &whole, &TopicPartitionList::new());
        } else {
            self.restart(consumer, &list, &whole);
        }
    }

    fn record_gap(&mut self, consumer: &Client, lane: LaneId, next: i64, (low, high): (i64, i64), reason: &str) {
        let Some(part) = self.parts.get(lane as usize) else { return };
        let (topic, partition) = (part.topic.clone(), part.partition);
        let (cause, from, to) = if next < low { ("expired", next, low) } else { ("truncated", high, next) };
        tracing::error!(
            topic = &*topic,
            partition,
            from,
            to,
            cause,
            reason,
            "records are gone before they were read; going on with the oldest one"
        );
        consumer.context().monitor.events().gap_found(&topic, partition, from, to, cause);
        consumer.context().ledger.own(lane, None, Some(low));
        consumer.context().ledger.acknowledge_start(lane);
        self.begin(lane, Some(low));
    }

    /// Reads `list` from its offsets, leaving `others` where they are.
    fn restart(&mut self, consumer: &Client, list: &TopicPartitionList, others: &TopicPartitionList) {
        if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            answer(consumer, list, false);
            answer(consumer, list, true);
        } else {
            let mut all = others.clone();
            for element in list.elements() {
                add(&mut all, element.topic(), element.partition(), element.offset());
            }
            answer(consumer, &all, true);
        }
        if self.paused.is_some()
            && let Err(error) = consumer.pause(list)
        {
            tracing::warn!(%error, "cannot pause partitions again");
        }
    }

    /// The library says that a partition of this number is at its end, but not of which topic.
    pub(super) fn note_end(&mut self, partition: i32) {
        let only_topic = self.options.topics.len() == 1;
        for part in self.parts.iter_mut().filter(|part| part.owned && part.partition == partition) {
            part.eof = true;
            part.done |= only_topic;
        }
    }

    /// Whether everything up to the ends is read.
    pub(super) fn is_done(&self) -> bool {
        self.options.until_end && self.joined && self.parts.iter().filter(|part| part.owned).all(|part| part.done)
    }

    /// A partition may end with records that no reader gets to see (transaction markers, aborted or compacted
    /// records). Where one stays quiet short of its end, a second reader looks whether anything is left.
    pub(super) fn check_tails(&mut self) {
        if self.paused.is_some() {
            return;
        }
        let properties = &self.options.properties;
        for part in self.parts.iter_mut().filter(|part| part.owned && !part.done) {
            let quiet = part.heard.elapsed();
            if quiet < QUIET || (!part.eof && quiet < SILENT) {
                continue;
            }
            part.heard = Instant::now();
            let mut config = properties.to_config();
            config.set("enable.partition.eof", "true").remove("group.instance.id");
            let Ok(reader) = config.create::<BaseConsumer>() else { continue };
            let from = part.next.map_or(Offset::Beginning, Offset::Offset);
            part.done = nothing_after(&reader, &part.topic, part.partition, from);
        }
    }
}

fn nothing_after(reader: &BaseConsumer, topic: &str, partition: i32, from: Offset) -> bool {
    let mut list = TopicPartitionList::new();
    add(&mut list, topic, partition, from);
    if reader.assign(&list).is_err() {
        return false;
    }
    let until = Instant::now().after(ANSWER_TIMEOUT);
    while !until.remaining().is_zero() {
        match reader.poll(until.remaining()) {
            Some(Ok(_)) => return false,
            Some(Err(KafkaError::PartitionEOF(_))) => return true,
            Some(Err(_)) | None => {}
        }
    }
    false
}

fn add(list: &mut TopicPartitionList, topic: &str, partition: i32, offset: Offset) {
    if let Err(error) = list.add_partition_offset(topic, partition, offset) {
        tracing::warn!(%error, topic, partition, "cannot name a position");
    }
}
