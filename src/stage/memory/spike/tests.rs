use super::super::fixture::{Dice, entry, run};
use super::*;

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn spike(of: &str) -> Spike {
    let text = format!(
        r#"{{"per": ["user_name"], "of": [{of}], "peers": ["team"], "every": "1h", "learn": "7d", "floor": 10}}"#
    );
    let spec: SpikeSpec = serde_json::from_str(&text).expect("well-formed");
    Spike::new(&spec, 0, "c".into(), 0, HOUR)
}

fn event(at_us: i64, user: &str, name: &str, code: i64) -> Entry {
    entry(at_us, &[("user_name", user), ("name", name)], code, &[("team", json!(["all", "team-a"]))])
}

/// So many days of a user with `0..2 × mean` events in each of eight hours.
fn habit(dice: &mut Dice, user: &str, mean: u64, days: i64) -> Vec<Entry> {
    let mut events = Vec::new();
    for hour in (0..days).flat_map(|day| (9..17).map(move |hour| day * 24 + hour)) {
        for n in 0..dice.below(2 * mean + 1) {
            events.push(event(hour * HOUR + n as i64 * MINUTE / 4, user, &format!("x{}", dice.below(50)), 200));
        }
    }
    events
}

fn burst(at_us: i64, user: &str, count: i64, code: i64) -> Vec<Entry> {
    (0..count).map(|n| event(at_us + n * MINUTE, user, &format!("y{n}"), code)).collect()
}

fn told(events: Vec<Entry>) -> Vec<Finding> {
    let mut events = events;
    events.sort_by_key(|event| event.event_us);
    run(&mut spike(""), &events)
}

#[test]
fn a_burst_is_one_finding_that_says_what_is_usual() {
    let mut events = habit(&mut Dice(1), "ann", 3, 10);
    events.extend(burst(10 * DAY + 10 * HOUR + 40 * MINUTE, "ann", 40, 200));
    let found = told(events);
    assert!(found.len() > 5, "told again as it grows: {}", found.len());
    assert!(found.iter().all(|one| one.identity == found[0].identity), "across the hour, too");
    let computed: HashMap<_, _> = found[0].computed.iter().map(|(name, value)| (name.as_ref(), value)).collect();
    assert!(computed["usual"].as_f64().is_some_and(|usual| (2.0..=4.0).contains(&usual)));
    assert!(computed["reasons"].as_str().is_some_and(|text| text.contains("its own")));
}

#[test]
fn stationary_populations_stay_quiet() {
    for (mean, users) in [(1, 20), (3, 20), (10, 6), (40, 2)] {
        let mut events = Vec::new();
        for user in 0..users {
            events.extend(habit(&mut Dice(user), &format!("u{user}"), mean, 21));
        }
        assert!(events.len() > 1_000);
        assert_eq!(told(events).len(), 0, "mean {mean}");
    }
}

#[test]
fn who_has_no_past_is_held_against_its_peers() {
    let peers =
        |mean| (0..5).flat_map(move |user| habit(&mut Dice(user), &format!("u{user}"), mean, 10)).collect::<Vec<_>>();
    let mut calm = peers(2);
    calm.extend(burst(10 * DAY, "new", 30, 200));
    let found = told(calm);
    assert!(!found.is_empty());
    assert!(
        found[0]
            .computed
            .iter()
            .any(|(_, value)| value.as_str().is_some_and(|text| text.contains("of team-a") || text.contains("of all")))
    );
    let mut busy = peers(30);
    busy.extend(burst(10 * DAY, "new", 30, 200));
    assert!(told(busy).is_empty(), "its peers do as much");
}

#[test]
fn the_first_week_only_learns_and_refused_requests_teach_nothing() {
    let mut events = habit(&mut Dice(1), "ann", 3, 5);
    events.extend(burst(5 * DAY + 10 * HOUR, "ann", 40, 200));
    assert!(told(events).is_empty());
    let mut events = habit(&mut Dice(1), "ann", 3, 8);
    for day in 0..8 {
        events.extend(burst(day * DAY + 20 * HOUR, "ann", 40, 403));
    }
    let before = told(events.clone()).len();
    events.extend(burst(8 * DAY + 10 * HOUR, "ann", 40, 200));
    assert!(told(events).len() > before);
}

#[test]
fn distinct_combinations_are_counted_once() {
    let mut events = habit(&mut Dice(1), "ann", 3, 8);
    events.extend((0..50).map(|n| event(8 * DAY + 10 * HOUR + n * MINUTE, "ann", "same", 200)));
    assert!(run(&mut spike("\"name\""), &events).is_empty());
    events.extend(burst(8 * DAY + 14 * HOUR, "ann", 40, 200));
    assert!(!run(&mut spike("\"name\""), &events).is_empty());
}

#[test]
fn what_was_told_teaches_no_more_than_the_limit() {
    let mut events = habit(&mut Dice(1), "ann", 3, 8);
    for day in 8..12 {
        events.extend(burst(day * DAY + 10 * HOUR, "ann", 55, 200));
    }
    let found = told(events);
    let days: HashSet<i64> = found.iter().map(|one| one.at_us / DAY).collect();
    assert_eq!(days.len(), 4, "each day's burst is told");
}

#[test]
fn restoring_in_the_middle_changes_nothing() {
    for of in ["", "\"name\""] {
        let mut events = habit(&mut Dice(1), "ann", 3, 9);
        events.extend(habit(&mut Dice(2), "bob", 3, 9));
        events.extend(burst(9 * DAY + 10 * HOUR, "ann", 40, 200));
        events.extend(burst(9 * DAY + 10 * HOUR, "new", 40, 200));
        events.sort_by_key(|event| event.event_us);
        let whole = run(&mut spike(of), &events);
        assert!(whole.len() > 2);
        for cut in [50, events.len() / 2, events.len() - 60, events.len() - 20, events.len() - 1] {
            let mut first = spike(of);
            let mut parts = run(&mut first, &events[..cut]);
            let mut second = spike(of);
            second.restore(&first.save()).expect("its own tables");
            parts.extend(run(&mut second, &events[cut..]));
            let all = |found: &[Finding]| {
                found.iter().map(|one| (one.identity.clone(), one.at_us, one.computed.clone())).collect::<Vec<_>>()
            };
            assert_eq!(all(&parts), all(&whole), "cut at {cut}");
        }
    }
}

#[test]
fn without_room_it_says_so() {
    let mut memory = Spike { keys_max: 1, ..spike("") };
    let events = [event(0, "a", "x", 200), event(1, "b", "x", 200)];
    run(&mut memory, &events);
    assert_eq!((memory.size().keys, memory.size().shed), (1, 1));
}
