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
fn a_gap_is_told_when_it_is_too_long_and_again_with_its_end() {
    let told = run(&mut silence(), &pulse(40));
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0].identity, told[1].identity);
    assert_eq!(told[0].at_us, told[1].at_us);
    assert_eq!((told[0].evidence.rows.num_rows(), told[1].evidence.rows.num_rows()), (1, 2));
    let minutes =
        |finding: &Finding| finding.computed.iter().find(|(name, _)| &**name == "quiet_minutes").expect("it").1.clone();
    assert_eq!(minutes(&told[1]), json!(40.0));
    assert!(minutes(&told[0]).as_f64().is_some_and(|limit| limit > 20.0 && limit < 27.0));
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
    assert_eq!(run(&mut silence(), &events).len(), 4);
}

#[test]
fn restoring_before_and_within_the_gap_changes_nothing() {
    let events = pulse(40);
    let whole = run(&mut silence(), &events);
    let gap = events.windows(2).position(|two| two[1].event_us - two[0].event_us == 40 * MINUTE).expect("a gap");
    for (cut, woken) in [(gap - 5, false), (gap + 1, false), (gap + 1, true), (gap + 2, false)] {
        let mut first = silence();
        let mut told = run(&mut first, &events[..cut]);
        if woken {
            first.wake(first.due().expect("it goes on"), &mut told);
        }
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
    let told = run(&mut memory, &events);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].identity[0], Value::from("stops"));
}
