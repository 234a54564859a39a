use super::super::fixture::{Dice, entry, run};
use super::*;

const MINUTE: i64 = 60_000_000;

fn silence() -> Silence {
    let spec: SilenceSpec = serde_json::from_str(r#"{"learn": "1d", "least": "15m"}"#).expect("well-formed");
    Silence::new(&spec, 0, "c".into())
}

/// A pulse every 7 to 13 minutes for three days, but for a gap of so many minutes after two days.
fn pulse(gap: i64) -> Vec<Entry> {
    let mut dice = Dice(7);
    let (mut now, mut events) = (0, Vec::new());
    while now < 3 * DAY_US {
        events.push(entry(now, &[("user_name", "pulse")], 200, &[]));
        let jump = now < 2 * DAY_US && now + 13 * MINUTE >= 2 * DAY_US;
        now += if jump { gap * MINUTE } else { (7 * MINUTE) + dice.below(360) as i64 * 1_000_000 };
    }
    events
}

#[test]
fn an_outage_is_told_once_when_it_is_over() {
    let told = run(&mut silence(), &pulse(40));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].evidence.rows.num_rows(), 2, "the events around it");
    let value = |name: &str| told[0].computed.iter().find(|(given, _)| &**given == name).expect("it").1.clone();
    assert_eq!(value("quiet_minutes"), json!(40.0));
    assert!(value("limit_minutes").as_f64().is_some_and(|limit| limit > 20.0 && limit < 27.0));
}

#[test]
fn usual_gaps_are_quiet_and_a_first_day_only_learns() {
    assert!(run(&mut silence(), &pulse(20)).is_empty());
    let early = [0, 10, 20, 200, 210].map(|minute| entry(minute * MINUTE, &[], 200, &[]));
    assert!(run(&mut silence(), &early).is_empty());
}

#[test]
fn a_silence_that_was_told_is_not_learnt() {
    let mut events = pulse(40);
    let last = events.last().expect("some").event_us;
    events.push(entry(last + 60 * MINUTE, &[("user_name", "pulse")], 200, &[]));
    assert_eq!(run(&mut silence(), &events).len(), 2);
}

#[test]
fn restoring_before_and_within_the_gap_changes_nothing() {
    let events = pulse(40);
    let whole = run(&mut silence(), &events);
    let gap = events.windows(2).position(|two| two[1].event_us - two[0].event_us == 40 * MINUTE).expect("a gap");
    for cut in [1, gap - 5, gap + 1, gap + 2] {
        let mut first = silence();
        let mut told = run(&mut first, &events[..cut]);
        let mut second = silence();
        second.restore(&first.save()).expect("its own tables");
        told.extend(run(&mut second, &events[cut..]));
        let all = |found: &[Finding]| {
            found.iter().map(|one| (one.identity.clone(), one.computed.clone())).collect::<Vec<_>>()
        };
        assert_eq!(all(&told), all(&whole), "cut at {cut}");
    }
}

#[test]
fn each_key_has_its_own_pulse() {
    let spec: SilenceSpec =
        serde_json::from_str(r#"{"per": ["user_name"], "learn": "1d", "least": "15m"}"#).expect("well-formed");
    let mut memory = Silence::new(&spec, 0, "c".into());
    let steady = (0..400).map(|n| entry(n * 10 * MINUTE, &[("user_name", "steady")], 200, &[]));
    let stops = (0..200).map(|n| entry(n * 10 * MINUTE + 1, &[("user_name", "stops")], 200, &[]));
    let mut events: Vec<Entry> = steady.chain(stops).collect();
    events.sort_by_key(|event| event.event_us);
    events.push(entry(4_000 * MINUTE, &[("user_name", "stops")], 200, &[]));
    events.push(entry(4_001 * MINUTE, &[("user_name", "steady")], 200, &[]));
    let told = run(&mut memory, &events);
    assert_eq!(told.len(), 2, "when it is too long, and with its end: {told:?}");
    assert!(told.iter().all(|one| one.identity == told[0].identity && one.at_us == told[0].at_us));
    assert_eq!(told[0].identity[0], Value::from("stops"));
    assert_eq!((told[0].evidence.rows.num_rows(), told[1].evidence.rows.num_rows()), (1, 2));
    for cut in [100, 399, 405, 500] {
        let mut first = Silence::new(&spec, 0, "c".into());
        let mut parts = run(&mut first, &events[..cut]);
        let mut second = Silence::new(&spec, 0, "c".into());
        second.restore(&first.save()).expect("its own tables");
        parts.extend(run(&mut second, &events[cut..]));
        assert_eq!(parts.len(), 2, "cut at {cut}");
    }
}
