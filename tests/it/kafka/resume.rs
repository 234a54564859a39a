//! A source that goes on where the state of an earlier run ends, wherever its group is.

use super::*;

/// Reads to the end, with partitions going on at these offsets; offsets that came out, by partition.
fn read_from(broker: &Broker, topic: &str, group: &str, resume: &[(i32, i64)]) -> (BTreeMap<i32, Vec<u64>>, Arc<Told>) {
    let url = url(broker, topic, &format!("group={group}&until=end"));
    let resume = resume.iter().map(|(partition, next)| ((topic.to_owned(), *partition), *next)).collect();
    let run = Run::open_at(&url, Behaviour::default(), resume).unwrap_or_else(|error| panic!("{url}: {error}"));
    let told = Arc::clone(&run.told);
    let mut offsets: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for got in run.join() {
        let partition = got.lane.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number");
        offsets.entry(partition).or_default().push(got.offset);
    }
    (offsets, told)
}

#[test]
fn partitions_go_on_where_the_state_ends_before_or_behind_the_group() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("resume", 3, &[]);
    let group = unique("group");
    broker.produce(&topic, &numbered(3, 20));
    // A group that knows nothing: a run whose state reaches further than its commits.
    let (first, _) = read_from(broker, &topic, &group, &[(0, 12), (1, 20)]);
    assert_eq!(first, BTreeMap::from([(0, (12..20).collect()), (2, (0..20).collect())]));
    assert_eq!(broker.committed(&group, &topic, 3), [20, 20, 20], "the group comes to know what the state has");
    // A group that is ahead: it has read what this state has not seen.
    let (second, _) = read_from(broker, &topic, &group, &[(0, 5), (2, 18)]);
    assert_eq!(second, BTreeMap::from([(0, (5..20).collect()), (2, (18..20).collect())]));
    assert_eq!(broker.committed(&group, &topic, 3), [20, 20, 20], "commits never go back");
}

#[test]
fn a_state_that_is_ahead_of_the_topic_is_a_gap_and_everything_is_read() {
    let broker = broker_or_return!(broker::plain());
    let topic = broker.topic("resume-gap", 1, &[]);
    broker.produce(&topic, &numbered(1, 10));
    let url = url(broker, &topic, &format!("group={}", unique("group")));
    let resume = HashMap::from([((topic.clone(), 0), 500)]);
    let run = Run::open_at(&url, Behaviour::default(), resume).unwrap_or_else(|error| panic!("{url}: {error}"));
    run.wait_for(10);
    assert_eq!(run.told.gaps.lock().expect("no panic")[..], [(10, 500, "truncated")]);
    assert_every_lane_is_whole(&run.stop(), &topic, 1, 10);
}
