use super::super::fixture::{Dice, entry, run};
use super::*;

const HOUR: i64 = DAY_US / 24;

fn memory(extra: &str) -> Anomaly {
    let text = format!(
        r#"{{"features": ["verb", "namespace"], "per": ["user_name"], "peers": ["team"], "learn": "7d", "threshold": 10{extra}}}"#
    );
    let spec: AnomalySpec = serde_json::from_str(&text).expect("well-formed");
    spec.check().expect("sound");
    Anomaly::new(&spec, 0, "c".into(), 0, DAY_US)
}

fn event(at_us: i64, user: &str, team: &str, verb: &str, namespace: &str, code: i64) -> Entry {
    entry(
        at_us,
        &[("user_name", user), ("verb", verb), ("namespace", namespace)],
        code,
        &[("team", json!(["everybody", team]))],
    )
}

/// Two teams of five for so many days: `web` gets in `shop`, `ops` execs everywhere.
fn teams(days: i64) -> Vec<Entry> {
    let mut dice = Dice(11);
    let mut events = Vec::new();
    for day in 0..days {
        for user in 0..5 {
            let mut now = day * DAY_US + (8 + user) * HOUR;
            for _ in 0..10 {
                now += 1 + dice.below(60_000_000) as i64;
                events.push(event(now, &format!("web{user}"), "web", "get", "shop", 200));
                let namespace = ["shop", "bank", "mail"][dice.below(3) as usize];
                let verb = if dice.chance(0.3) { "exec" } else { "get" };
                events.push(event(now + 1, &format!("ops{user}"), "ops", verb, namespace, 200));
            }
        }
    }
    events.sort_by_key(|event| event.event_us);
    events
}

fn score(found: &[Finding]) -> f64 {
    let computed = found.first().and_then(|one| one.computed.iter().find(|(name, _)| &**name == "score"));
    computed.and_then(|(_, score)| score.as_f64()).unwrap_or(0.0)
}

fn after(last: Entry) -> Vec<Finding> {
    let mut events = teams(10);
    events.push(last);
    run(&mut memory(""), &events)
}

#[test]
fn new_to_the_actor_and_its_peers_fires_and_says_why() {
    let found = after(event(10 * DAY_US, "web1", "web", "exec", "bank", 200));
    assert_eq!(found.len(), 1);
    let text = |name: &str| found[0].computed.iter().find(|(given, _)| &**given == name).expect("it").1.to_string();
    assert!(text("reasons").contains("verb 'exec'"), "{}", text("reasons"));
    assert!(text("reasons").contains("on 0.0 of its own 7."), "ten days, faded: {}", text("reasons"));
    assert!(text("usual").contains("own verb: get") && text("usual").contains("own namespace: shop"));
    assert_eq!(found[0].identity, [Value::from("web1"), Value::from("1970-01-11T00:00:00Z")]);
}

#[test]
fn new_to_the_actor_but_usual_for_its_peers_is_quiet() {
    assert!(after(event(10 * DAY_US, "ops1", "ops", "exec", "bank", 200)).is_empty());
    assert!(after(event(10 * DAY_US, "ops9", "ops", "exec", "bank", 200)).is_empty(), "a new colleague");
    assert_eq!(after(event(10 * DAY_US, "web9", "web", "exec", "bank", 200)).len(), 1, "a new colleague who does else");
}

#[test]
fn more_evidence_against_it_gives_more_bits() {
    let at = |days: i64| {
        let mut events = teams(days);
        events.push(event(days * DAY_US, "web1", "web", "exec", "bank", 200));
        score(&run(&mut memory(""), &events))
    };
    let (few, more, most) = (at(9), at(12), at(40));
    assert!(few > 10.0 && more > few && most > more, "{few} {more} {most}");
}

#[test]
fn stationary_populations_stay_quiet() {
    assert_eq!(run(&mut memory(""), &teams(40)).len(), 0);
}

#[test]
fn the_first_week_only_learns() {
    let mut events = teams(6);
    events.push(event(6 * DAY_US, "web1", "web", "exec", "bank", 200));
    assert!(run(&mut memory(""), &events).is_empty());
}

#[test]
fn refused_requests_are_judged_but_teach_nothing() {
    let mut events = teams(10);
    for day in 10..13 {
        events.push(event(day * DAY_US, "web1", "web", "exec", "bank", 403));
    }
    assert_eq!(run(&mut memory(""), &events).len(), 3);
    let mut events = teams(10);
    for day in 10..15 {
        events.push(event(day * DAY_US, "web1", "web", "exec", "bank", 200));
    }
    assert!(run(&mut memory(""), &events).len() < 5, "what it did becomes its habit");
}

#[test]
fn habits_fade() {
    let mut events = teams(10);
    events.insert(0, event(0, "web1", "web", "exec", "bank", 200));
    let soon =
        run(&mut memory(""), &[events.clone(), vec![event(10 * DAY_US, "web1", "web", "exec", "bank", 200)]].concat());
    let mut later = teams(70);
    later.insert(0, event(0, "web1", "web", "exec", "bank", 200));
    later.push(event(70 * DAY_US, "web1", "web", "exec", "bank", 200));
    let later = run(&mut memory(""), &later);
    assert_eq!((soon.len(), later.len()), (0, 1), "a day ten days ago counts, one seventy days ago does not");
}

#[test]
fn a_new_place_says_nothing_until_it_is_two_days_old() {
    let place = |from: i64| {
        let mut events = teams(10);
        events.push(event(from, "ops1", "ops", "get", "fresh", 200));
        events.push(event(10 * DAY_US + 1, "web1", "web", "get", "fresh", 200));
        events.sort_by_key(|event| event.event_us);
        run(&mut memory(r#", "places": ["namespace"], "cap": 9"#), &events).len()
    };
    assert_eq!(place(10 * DAY_US), 0);
    let text = r#"{"features": ["namespace"], "per": ["user_name"], "peers": ["team"], "places": ["namespace"], "learn": "7d", "threshold": 8}"#;
    let spec: AnomalySpec = serde_json::from_str(text).expect("well-formed");
    let mut old = teams(10);
    old.push(event(7 * DAY_US, "ops1", "ops", "get", "fresh", 200));
    old.push(event(10 * DAY_US + 1, "web1", "web", "get", "fresh", 200));
    old.sort_by_key(|event| event.event_us);
    assert_eq!(run(&mut Anomaly::new(&spec, 0, "c".into(), 0, DAY_US), &old).len(), 1);
}

#[test]
fn a_cap_keeps_one_oddity_from_firing_alone() {
    let mut events = teams(10);
    events.push(event(10 * DAY_US, "web1", "web", "patch", "shop", 200));
    assert_eq!(run(&mut memory(""), &events).len(), 1);
    assert_eq!(run(&mut memory(r#", "cap": 9"#), &events).len(), 0);
}

#[test]
fn what_is_not_asked_for_teaches_only() {
    let text = r#"{"features": ["verb", "namespace"], "per": ["user_name"], "peers": ["team"], "when": "watched", "learn": "7d", "threshold": 10}"#;
    let spec: AnomalySpec = serde_json::from_str(text).expect("well-formed");
    let last = |watched: Value| {
        let mut events = teams(10);
        let texts = [("user_name", "web1"), ("verb", "exec"), ("namespace", "bank")];
        events.push(entry(10 * DAY_US, &texts, 200, &[("team", json!(["everybody", "web"])), ("watched", watched)]));
        run(&mut Anomaly::new(&spec, 0, "c".into(), 0, DAY_US), &events).len()
    };
    assert_eq!((last(true.into()), last(false.into()), last(Value::Null)), (1, 0, 0));
}

#[test]
fn being_away_is_a_feature() {
    let text =
        r#"{"features": ["verb", "idle"], "per": ["user_name"], "peers": ["team"], "learn": "7d", "threshold": 12}"#;
    let spec: AnomalySpec = serde_json::from_str(text).expect("well-formed");
    let away = |days: i64| {
        let mut events: Vec<Entry> = teams(30);
        events
            .retain(|event| event.text(crate::model::Column::UserName) != Some("web1") || event.event_us < 10 * DAY_US);
        events.push(event((10 + days) * DAY_US, "web1", "web", "list", "shop", 200));
        events.sort_by_key(|event| event.event_us);
        run(&mut Anomaly::new(&spec, 0, "c".into(), 0, DAY_US), &events).iter().map(score_of).fold(0.0, f64::max)
    };
    let score_of_day = away(0);
    assert!(away(12) > score_of_day + 3.0, "{} {score_of_day}", away(12));
}

fn score_of(finding: &Finding) -> f64 {
    score(std::slice::from_ref(finding))
}

#[test]
fn restoring_in_the_middle_changes_nothing() {
    let mut events = teams(10);
    events.push(event(10 * DAY_US, "web1", "web", "exec", "bank", 200));
    events.push(event(11 * DAY_US, "web2", "web", "exec", "mail", 200));
    let all =
        |found: &[Finding]| found.iter().map(|one| (one.identity.clone(), one.computed.clone())).collect::<Vec<_>>();
    let whole = all(&run(&mut memory(""), &events));
    assert!(!whole.is_empty());
    for cut in [1, 100, events.len() / 2, events.len() - 2, events.len() - 1] {
        let mut first = memory("");
        let mut parts = run(&mut first, &events[..cut]);
        let saved = first.save();
        let mut second = memory("");
        second.restore(&saved).expect("its own tables");
        assert_eq!((second.size(), second.save()), (first.size(), saved));
        parts.extend(run(&mut second, &events[cut..]));
        assert_eq!(all(&parts), whole, "cut at {cut}");
    }
}

#[test]
fn a_table_that_is_not_its_own_changes_nothing() {
    let mut memory = memory("");
    run(&mut memory, &teams(2));
    let mut tables = memory.save();
    tables.retain(|(name, _)| name != "values");
    let before = memory.size();
    assert!(memory.restore(&tables).is_err_and(|error| error.contains("values is missing")));
    assert_eq!(memory.size(), before);
}

#[test]
fn without_room_it_learns_no_more_and_says_so() {
    let mut memory = Anomaly { values_max: 10, ..memory("") };
    run(&mut memory, &teams(3));
    let size = memory.size();
    assert!(size.shed > 0 && memory.known.values < 10 + 4, "{size:?} {}", memory.known.values);
}
