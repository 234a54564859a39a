//! What the order of arrival, repeats and lateness may and may not change.

mod apart;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray};
use serde_json::{Value, json};

use super::*;
use crate::detection::{SourceFile, load};
use crate::model::{COLUMNS, KeptRows, Match};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// One event that a step of the only detection keeps.
#[derive(Debug, Clone)]
struct Row {
    step: usize,
    us: i64,
    id: u64,
    request: u64,
    stage: &'static str,
    user: &'static str,
    name: String,
    code: i64,
    dry_run: bool,
}

fn row(step: usize, us: i64, id: u64, user: &'static str, name: &str) -> Row {
    Row { step, us, id, request: id, stage: "ResponseComplete", user, name: name.into(), code: 200, dry_run: false }
}

fn memory(kind: &str) -> Memory {
    let text = format!(
        "id: d\ntitle: t\nseverity: high\nstatus: stable\nattack: [TA0006/T1552.007]\ndescription: d\nentity: [user_name]\n\
         suppress: 1h\nsummary: s\n{kind}"
    );
    let file = SourceFile { path: "credential-access/d.yaml".into(), text: text.into(), support: false };
    let loaded = load(&[file]);
    assert!(loaded.set.detections.len() == 1, "{:?}", loaded.diagnostics);
    Memory::new(&loaded.set.detections, ColumnSet::EMPTY, &MemoryOptions::default()).expect("it has a memory")
}

fn first_seen() -> Memory {
    memory("sql: SELECT * FROM audit\nfirst_seen: {of: [name], per: [user_name], learn: 1d, settle: 1h, forget: 10d}\n")
}

fn sequence(more: &str) -> Memory {
    let step = "sql: SELECT * FROM audit WHERE verb = 'get'";
    memory(&format!(
        "sequence:\n  by: [user_name]\n  within: 10m\n{more}  steps:\n    - {step}\n    - {step}\n    - {step}\n"
    ))
}

fn absent() -> Memory {
    let step = "sql: SELECT * FROM audit WHERE verb = 'get'";
    memory(&format!(
        "sequence:\n  by: [user_name]\n  within: 10m\n  steps:\n    - {step}\n    - {{{step}, absent: true}}\n"
    ))
}

/// The rows as what a worker keeps of one chunk.
fn kept(memory: &Memory, rows: &[Row]) -> KeptMatches {
    let text = |value: fn(&Row) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(value(row))).collect::<StringArray>())
    };
    let columns: Vec<(&str, ArrayRef)> = memory
        .need()
        .columns
        .iter()
        .map(|column| {
            let array: ArrayRef = match column {
                Column::EventTime => {
                    let times: TimestampMicrosecondArray = rows.iter().map(|row| Some(row.us)).collect();
                    Arc::new(times.with_timezone("UTC"))
                }
                Column::EventId => text(|row| format!("{:032x}", row.id)),
                Column::RequestId => text(|row| format!("{:032x}", row.request)),
                Column::Stage => text(|row| row.stage.into()),
                Column::UserName => text(|row| row.user.into()),
                Column::Name => text(|row| row.name.clone()),
                Column::ClusterId => text(|_| "prod".into()),
                Column::ResponseCode => Arc::new(rows.iter().map(|row| Some(row.code)).collect::<Int64Array>()),
                Column::DryRun => Arc::new(rows.iter().map(|row| Some(row.dry_run)).collect::<BooleanArray>()),
                other => arrow::array::new_null_array(&other.info().kind.data_type(), rows.len()),
            };
            (COLUMNS[column as usize].name, array)
        })
        .collect();
    let matches = rows
        .iter()
        .enumerate()
        .map(|(index, row)| Match { detection: 0, step: row.step, row: index, computed: Vec::new() })
        .collect();
    let rows = KeptRows { rows: tables::table(columns), arrival_ms: vec![None; rows.len()] };
    KeptMatches { rows, matches }
}

/// Gives the rows to a memory, chunk by chunk over one lane.
fn give(memory: &mut Memory, chunks: &[&[Row]]) -> Vec<Finding> {
    let mut found = Vec::new();
    for rows in chunks {
        let heard = heard(rows.iter().map(|row| (0, "prod", row.us, None)));
        let kept = kept(memory, rows);
        found.extend(memory.take(0, (&heard, &[kept], &[]), 0));
    }
    found
}

fn identities(found: &[Finding]) -> Vec<Value> {
    found.iter().map(|finding| Value::from(finding.identity.clone())).collect()
}

/// All that is found in these chunks.
fn all(mut memory: Memory, chunks: &[&[Row]]) -> Vec<Value> {
    let mut found = give(&mut memory, chunks);
    found.extend(memory.finish());
    identities(&found)
}

#[test]
fn the_new_is_told_once_and_only_after_learning() {
    let rows = [
        row(0, 0, 1, "jane", "a"),
        row(0, 2 * DAY, 2, "jane", "a"),
        row(0, 2 * DAY + 1, 3, "jane", "b"),
        row(0, 2 * DAY + 2, 4, "jane", "b"),
        row(0, 2 * DAY + 3, 5, "john", "b"),
        row(0, 2 * DAY + 2 * HOUR, 6, "john", "a"),
        row(0, 9 * DAY, 7, "jane", "c"),
        row(0, 13 * DAY, 8, "jane", "a"),
        row(0, 30 * DAY, 9, "jane", "d"),
    ];
    let found = all(first_seen(), &[&rows]);
    let day = |day| time_text_of(day * DAY);
    assert_eq!(
        found,
        [
            json!(["jane", "b", day(2)]),
            // john's first hour only teaches
            json!(["john", "a", day(2)]),
            json!(["jane", "c", day(9)]),
            // forgotten after ten days; and who was away for so long settles in again
            json!(["jane", "a", day(13)]),
        ]
    );
}

fn time_text_of(us: i64) -> String {
    crate::model::time_text(us)
}

#[test]
fn what_is_refused_or_a_dry_run_does_not_teach() {
    let old = |change: fn(&mut Row)| {
        let mut first = row(0, 2 * DAY, 1, "jane", "a");
        change(&mut first);
        let rows = [row(0, 0, 9, "jane", "x"), first, row(0, 3 * DAY, 2, "jane", "a")];
        all(first_seen(), &[&rows]).len()
    };
    assert_eq!(old(|_| ()), 1);
    assert_eq!(old(|row| row.code = 403), 2);
    assert_eq!(old(|row| row.dry_run = true), 2);
}

#[test]
fn order_batching_and_repeats_change_nothing() {
    let rows: Vec<Row> = (0..200_u64)
        .map(|n| {
            let user = ["jane", "john", "kim"][(n % 3) as usize];
            row((n / 3 * 7 % 3) as usize, (n as i64) * 20 * SECOND, n, user, &format!("s{}", n * n % 11))
        })
        .collect();
    let in_order = all(sequence(""), &[&rows]);
    assert!(in_order.len() > 5, "the test finds something to compare: {}", in_order.len());
    let mut mixed = rows.clone();
    // Neighbours within the lateness change places, and some come twice.
    mixed.chunks_mut(3).for_each(<[Row]>::reverse);
    mixed.extend_from_slice(&rows[190..]);
    for size in [1, 2, 7, 64] {
        let chunks: Vec<&[Row]> = mixed.chunks(size).collect();
        assert_eq!(all(sequence(""), &chunks), in_order, "chunks of {size}");
    }
}

#[test]
fn what_the_watermark_has_passed_is_late_and_counted() {
    let mut memory = sequence("");
    let early = [row(0, 0, 1, "jane", "a"), row(0, 10 * 60 * SECOND, 2, "kim", "a")];
    give(&mut memory, &[&early, &[row(1, SECOND, 3, "jane", "a")]]);
    let counts = memory.counts();
    assert_eq!((counts.kept, counts.late, counts.duplicates), (2, 1, 0));
}

#[test]
fn a_lane_that_lags_holds_the_watermark_until_it_ends() {
    let mut memory = sequence("");
    let heard = |lane, us| Heard { lane, cluster_id: "prod".into(), oldest_us: us, newest_us: us };
    memory.take(0, (&[heard(0, 0), heard(1, 0)], &[], &[]), 0);
    memory.take(0, (&[heard(0, DAY)], &[], &[]), 0);
    assert_eq!(memory.watermarks().next().expect("a cluster").1, -60 * SECOND);
    memory.take(0, (&[], &[], &[1]), 0);
    memory.take(0, (&[heard(0, DAY)], &[], &[]), 0);
    assert_eq!(memory.watermarks().next().expect("a cluster").1, DAY - 60 * SECOND);
}

#[test]
fn a_clock_that_runs_ahead_does_not_move_the_watermark() {
    let rows = [(0, "prod", DAY, Some(HOUR / 1000)), (0, "prod", HOUR, Some(HOUR / 1000))];
    assert_eq!(heard(rows.into_iter())[0].newest_us, HOUR);
}

#[test]
fn steps_follow_each_other_in_time() {
    let steps = |times: [i64; 3]| -> Vec<Row> {
        times.iter().enumerate().map(|(step, s)| row(step, s * SECOND, step as u64 + 1, "jane", "a")).collect()
    };
    let hits = |times| all(sequence(""), &[&steps(times)]).len();
    assert_eq!(hits([0, 10, 20]), 1);
    assert_eq!(hits([0, 300, 600]), 1, "within is inclusive");
    assert_eq!(hits([0, 300, 601]), 0);
    assert_eq!(hits([0, 20, 10]), 0);
    assert_eq!(hits([0, 0, 10]), 0, "the same moment is no order");
    let mut other = steps([0, 10, 20]);
    other[1].user = "john";
    assert_eq!(all(sequence(""), &[&other]).len(), 0);
}

#[test]
fn a_later_start_saves_a_sequence_and_until_ends_it() {
    let s = |step, seconds, id| row(step, seconds * SECOND, id, "jane", "a");
    let rows = [s(0, 0, 1), s(0, 500, 2), s(1, 550, 3), s(2, 700, 4)];
    assert_eq!(all(sequence(""), &[&rows]).len(), 1);
    let until = "  until: SELECT * FROM audit WHERE verb = 'delete'\n";
    let rows = [s(0, 0, 1), s(1, 10, 2), s(3, 15, 3), s(2, 20, 4)];
    assert_eq!(all(sequence(until), &[&rows]).len(), 0);
    let rows = [s(0, 0, 1), s(1, 10, 2), s(2, 20, 4), s(3, 25, 3)];
    assert_eq!(all(sequence(until), &[&rows]).len(), 1);
}

#[test]
fn one_event_is_never_two_steps_and_a_request_counts_once() {
    let same = [row(0, 0, 1, "jane", "a"), row(1, 0, 1, "jane", "a"), row(2, 0, 1, "jane", "a")];
    let mut memory = sequence("");
    let mut kept = kept(&memory, &same[..1]);
    kept.matches = (0..3).map(|step| Match { detection: 0, step, row: 0, computed: Vec::new() }).collect();
    let heard = heard([(0, "prod", 0, None)].into_iter());
    let mut found = memory.take(0, (&heard, &[kept], &[]), 0);
    found.extend(memory.finish());
    assert!(found.is_empty());

    let start = |stage, seconds, id| Row { stage, request: 7, ..row(0, seconds * SECOND, id, "jane", "a") };
    let rows = [
        start("ResponseStarted", 0, 1),
        start("ResponseComplete", 3000, 2),
        row(1, 3010 * SECOND, 3, "jane", "a"),
        row(2, 3020 * SECOND, 4, "jane", "a"),
    ];
    assert_eq!(all(sequence(""), &[&rows]).len(), 0, "the end of a session is not its start");
}

#[test]
fn what_does_not_follow_is_found_when_its_time_is_over() {
    let rows = [row(0, 0, 1, "jane", "a"), row(0, 0, 2, "john", "a"), row(1, 60 * SECOND, 3, "john", "a")];
    let mut memory = absent();
    let mut found = give(&mut memory, &[&rows, &[row(5, 600 * SECOND, 4, "kim", "a")]]);
    assert!(found.is_empty(), "the watermark is not there yet");
    found.extend(give(&mut memory, &[&[row(5, 661 * SECOND, 5, "kim", "a")]]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].identity[0], "jane");
    assert_eq!(found[0].at_us, 600 * SECOND);
}

#[test]
fn what_is_saved_and_put_back_goes_on_as_if_nothing_had_happened() {
    let rows: Vec<Row> = (0..120_u64)
        .map(|n| {
            row(
                (n % 3) as usize,
                (n as i64) * 3 * HOUR / 10,
                n,
                ["jane", "john"][(n / 3 % 2) as usize],
                &format!("s{}", n % 7),
            )
        })
        .collect();
    for make in [first_seen as fn() -> Memory, || sequence(""), absent] {
        let whole = all(make(), &[&rows]);
        for cut in [1, 40, 77] {
            let mut before = make();
            let mut found = give(&mut before, &[&rows[..cut], &[]]);
            let mut after = make();
            let (meanings, names) = (before.meanings(), ("file".to_owned(), "lane".to_owned()));
            let image = before.save(&meanings, &|_, _| Some(names.clone()));
            assert_eq!(after.restore(&image, &meanings), []);
            after.meet(0, 0, &names);
            found.extend(give(&mut after, &[&rows[cut..]]));
            found.extend(after.finish());
            assert_eq!(identities(&found), whole, "cut at {cut}");
        }
    }
}

#[test]
fn a_silent_lane_is_idle_and_with_all_silent_the_clock_goes_on() {
    let mut memory = sequence("");
    let heard = |lane, us| Heard { lane, cluster_id: "prod".into(), oldest_us: us, newest_us: us };
    let watermark = |memory: &Memory| memory.watermarks().next().expect("a cluster").1;
    memory.take(0, (&[heard(0, 0), heard(1, 0)], &[], &[]), 0);
    memory.take(0, (&[heard(0, HOUR)], &[], &[]), 50 * SECOND);
    memory.idle(59 * SECOND);
    assert_eq!(watermark(&memory), -60 * SECOND, "nobody was silent for a minute");
    memory.idle(60 * SECOND);
    assert_eq!(watermark(&memory), HOUR - 60 * SECOND);
    memory.idle(170 * SECOND);
    assert_eq!(watermark(&memory), HOUR + 60 * SECOND, "two minutes after the last event, less the lateness");
}

#[test]
fn a_lane_of_an_earlier_run_is_waited_for_until_it_is_idle() {
    let heard = |lane, us| Heard { lane, cluster_id: "prod".into(), oldest_us: us, newest_us: us };
    let watermark = |memory: &Memory| memory.watermarks().next().expect("a cluster").1;
    let mut before = sequence("");
    before.take(0, (&[heard(0, 0), heard(1, 0)], &[], &[]), 0);
    let meanings = before.meanings();
    let name = |lane: LaneId| ("kafka".to_owned(), format!("audit/{lane}"));
    let image = before.save(&meanings, &|_, lane| Some(name(lane)));

    let mut after = sequence("");
    assert_eq!(after.restore(&image, &meanings), []);
    after.meet(0, 7, &name(0));
    after.take(0, (&[heard(7, HOUR)], &[], &[]), 0);
    assert_eq!(watermark(&after), -60 * SECOND, "the other one may have older events");
    after.idle(10 * SECOND);
    after.idle(69 * SECOND);
    assert_eq!(watermark(&after), -60 * SECOND, "it is not silent for a minute yet");
    after.take(0, (&[heard(7, HOUR)], &[], &[]), 69 * SECOND);
    after.idle(70 * SECOND);
    assert_eq!(watermark(&after), HOUR - 60 * SECOND);
}
