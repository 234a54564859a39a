//! Where partitions go on that the state of an earlier run has come to know.
//!
//! What a run remembers and the positions that it covers are one thing: going on anywhere else would show records to
//! it twice or never. So they win over the group's positions, in both directions: a group that is behind was cut off
//! between a snapshot and its commit; one that is ahead has read what this state never saw.

use std::collections::HashMap;

use rdkafka::{Offset, TopicPartitionList};

use super::reader::Reader;

impl Reader {
    /// Changes where the partitions of a list begin. Returns those that it changed, each with the group's position;
    /// `fresh` are partitions of which the group has none.
    pub(super) fn go_on_from_state(
        &mut self,
        list: &mut TopicPartitionList,
        fresh: &TopicPartitionList,
    ) -> HashMap<(String, i32), Option<i64>> {
        let mut resumed = HashMap::new();
        let known: Vec<_> =
            list.elements().iter().map(|e| ((e.topic().to_owned(), e.partition()), e.offset())).collect();
        let numbers: Vec<i32> = known.iter().map(|((_, number), _)| *number).collect();
        let mut asked = self.options.comings.as_ref().map(|comings| (comings.0)(&numbers)).unwrap_or_default();
        for (partition, offset) in known {
            let told = self.options.resume.remove(&partition).or_else(|| asked.remove(&partition.1));
            let Some(next) = told else { continue };
            let (topic, number) = &partition;
            let committed = match offset {
                Offset::Offset(offset) if fresh.find_partition(topic, *number).is_none() => Some(offset),
                _ => None,
            };
            if let Err(error) = list.set_partition_offset(topic, *number, Offset::Offset(next)) {
                tracing::warn!(%error, topic, partition = number, "cannot set a position");
                continue;
            }
            if committed != Some(next) {
                tracing::info!(topic, partition = number, next, committed, "partition goes on where the state ends");
            }
            resumed.insert(partition, committed);
        }
        resumed
    }
}
