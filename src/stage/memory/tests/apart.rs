//! Rows and time that come apart: what a keyed partition may and may not release.

use super::*;
use crate::stage::memory::{HeardOf, Standing};

const SILENCE: i64 = 60 * SECOND;

fn heard_in(lane: LaneId, cluster: &str, us: i64) -> HeardOf {
    HeardOf { lane: (0, lane), cluster_id: cluster.into(), oldest_us: us, newest_us: us }
}

/// A lane that is read to its end, and has come so far.
fn stands(lane: LaneId, newest_us: Option<i64>) -> Standing {
    Standing { lane: (0, lane), newest_us, current: true, idle: false }
}

fn watermark(memory: &Memory, cluster: &str) -> i64 {
    memory.watermarks().find(|(name, _)| &***name == cluster).expect("it was heard of").1
}

#[test]
fn a_cluster_waits_for_lanes_of_which_nothing_is_known() {
    let mut memory = sequence("");
    let news = [heard_in(0, "prod", HOUR)];
    memory.pass(&news, &[stands(0, Some(HOUR)), stands(1, None)], 0);
    assert_eq!(watermark(&memory, "prod"), i64::MIN, "the other may have older events");
    memory.pass(&[], &[stands(0, Some(HOUR)), stands(1, Some(HOUR / 2))], SECOND);
    assert_eq!(watermark(&memory, "prod"), HOUR / 2 - 60 * SECOND, "it has come so far with other clusters");
    let idle = Standing { idle: true, ..stands(1, Some(HOUR / 2)) };
    memory.pass(&[], &[stands(0, Some(HOUR)), idle], 2 * SECOND);
    assert_eq!(watermark(&memory, "prod"), HOUR - 60 * SECOND, "it has nothing");
    memory.pass(&[heard_in(0, "prod", 2 * HOUR)], &[stands(0, Some(2 * HOUR))], 3 * SECOND);
    assert_eq!(watermark(&memory, "prod"), 2 * HOUR - 60 * SECOND, "it is not there any more");
}

#[test]
fn a_lane_that_is_behind_or_dead_is_waited_for_however_long() {
    let mut memory = sequence("");
    let news = [heard_in(0, "prod", HOUR), heard_in(1, "prod", 0)];
    let lanes = |current: bool| [stands(0, Some(HOUR)), Standing { current, ..stands(1, Some(0)) }];
    memory.pass(&news, &lanes(false), 0);
    for minute in 1..=60 {
        memory.pass(&[], &lanes(false), minute * 60 * SECOND);
    }
    assert_eq!(watermark(&memory, "prod"), -60 * SECOND);
    memory.pass(&[heard_in(0, "prod", HOUR)], &lanes(true), 3600 * SECOND + SILENCE - SECOND);
    assert_eq!(watermark(&memory, "prod"), -60 * SECOND, "its silence began when it had come to its end");
    memory.pass(&[], &lanes(true), 3600 * SECOND + SILENCE);
    assert_eq!(watermark(&memory, "prod"), HOUR - 60 * SECOND);
}

#[test]
fn clusters_do_not_hold_each_other_up() {
    let mut memory = sequence("");
    let news = [heard_in(0, "prod", HOUR), heard_in(1, "test", 0)];
    memory.pass(&news, &[stands(0, Some(HOUR)), stands(1, Some(0))], 0);
    assert_eq!(watermark(&memory, "prod"), -60 * SECOND, "its lane of which only the other cluster is known");
    memory.pass(&[heard_in(1, "test", HOUR)], &[stands(0, Some(HOUR)), stands(1, Some(HOUR))], SECOND);
    assert_eq!(watermark(&memory, "prod"), HOUR - 60 * SECOND);
    assert_eq!(watermark(&memory, "test"), HOUR - 60 * SECOND);
}

/// The rows of three lanes, and the tides that speak of them.
fn lanes_of(memory: &Memory) -> Vec<Vec<Row>> {
    let rows: Vec<Row> = (0..90)
        .map(|n| row((n % 3) as usize, n as i64 * 20 * SECOND, n, ["jane", "john"][(n / 3 % 2) as usize], "s"))
        .collect();
    assert!(!memory.need().columns.is_empty());
    (0..3).map(|lane| rows.iter().skip(lane).step_by(3).cloned().collect()).collect()
}

#[test]
fn what_is_found_depends_on_neither_order_of_lanes_nor_repeats() {
    let lanes = lanes_of(&sequence(""));
    let whole = {
        let mut all: Vec<Row> = lanes.concat();
        all.sort_by_key(|row| row.us);
        let mut memory = sequence("");
        let mut found = give(&mut memory, &[&all]);
        found.extend(memory.finish());
        identities(&found)
    };
    assert!(whole.len() > 5, "{whole:?}");
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let (mut memory, mut found) = (sequence(""), Vec::new());
        let mut newest: [Option<i64>; 3] = [None; 3];
        let prod: Arc<str> = "prod".into();
        for half in 0..2 {
            for lane in order {
                let rows = &lanes[lane][half * 15..][..15];
                let oldest_us = rows[0].us;
                for again in [false, true] {
                    memory.take_rows(&prod, oldest_us, &kept(&memory, rows), again);
                    newest[lane] = newest[lane].max(rows.last().map(|row| row.us));
                    let news = [HeardOf {
                        newest_us: newest[lane].expect("set above"),
                        ..heard_in(lane as LaneId, "prod", oldest_us)
                    }];
                    let stands: Vec<Standing> = (0..3).map(|lane| stands(lane as LaneId, newest[lane])).collect();
                    found.extend(memory.pass(&news, &stands, 0));
                }
            }
        }
        found.extend(memory.finish());
        assert_eq!(identities(&found), whole, "{order:?}");
        let counts = memory.counts();
        assert_eq!((counts.kept, counts.duplicates, counts.late), (90, 90, 0), "{order:?}");
    }
}

#[test]
fn a_cluster_begins_with_its_oldest_event_whichever_lane_speaks_first() {
    let mut memory = first_seen();
    let prod: Arc<str> = "prod".into();
    memory.take_rows(&prod, HOUR, &kept(&memory, &[row(0, HOUR, 1, "jane", "a")]), false);
    let news = [heard_in(0, "prod", HOUR), heard_in(1, "prod", 0)];
    memory.pass(&news, &[stands(0, Some(HOUR)), stands(1, Some(0))], 0);
    let meanings = memory.meanings();
    let image = memory.save(&meanings, &|_, lane| Some(("audit".to_owned(), lane.to_string())));
    assert_eq!(image.clusters["prod"].born_us, 0);
}
