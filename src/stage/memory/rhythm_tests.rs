use super::super::fixture::{Dice, entry, run};
use super::*;

const SECOND: i64 = 1_000_000;

fn rhythm(irregular: u32) -> Rhythm {
    let text = format!(
        r#"{{"per": ["user_name"], "beats": 12, "shortest": "20s", "longest": "2h", "irregular": {irregular}}}"#
    );
    let spec: RhythmSpec = serde_json::from_str(&text).expect("well-formed");
    Rhythm::new(&spec, 0, "c".into())
}

fn at(times: &[i64]) -> Vec<Entry> {
    times.iter().map(|second| entry(second * SECOND, &[("user_name", "app")], 200, &[])).collect()
}

/// Times of requests at random, once in `mean` seconds, from `from` to `to`.
fn random(dice: &mut Dice, from: i64, to: i64, mean: u64) -> Vec<i64> {
    let mut times = Vec::new();
    let mut now = from;
    loop {
        now += 1 + dice.below(2 * mean) as i64;
        if now >= to {
            return times;
        }
        times.push(now);
    }
}

#[test]
fn a_beacon_after_irregular_requests_fires_once_with_its_interval() {
    let mut times = random(&mut Dice(1), 0, 86_400, 1_800);
    times.extend((0..40).map(|beat| 90_000 + beat * 300 + beat % 3));
    let told = run(&mut rhythm(20), &at(&times));
    assert_eq!(told.len(), 1, "{told:?}");
    let computed: HashMap<_, _> = told[0].computed.iter().map(|(name, value)| (name.as_ref(), value)).collect();
    let interval = computed["interval_seconds"].as_f64().expect("a number");
    assert!((299.0..=302.0).contains(&interval), "{interval}");
    assert_eq!(*computed["beats"], json!(12));
}

#[test]
fn ordinary_requests_between_the_beats_do_not_hide_it() {
    let mut dice = Dice(5);
    let mut times = random(&mut dice, 0, 86_400, 1_800);
    times.extend(random(&mut dice, 90_000, 102_000, 900));
    times.extend((0..40).map(|beat| 90_000 + beat * 300));
    times.sort_unstable();
    assert_eq!(run(&mut rhythm(20), &at(&times)).len(), 1);
}

#[test]
fn what_was_regular_from_the_start_is_no_news() {
    let times: Vec<i64> = (0..500).map(|beat| beat * 300).collect();
    assert!(run(&mut rhythm(20), &at(&times)).is_empty());
    assert_eq!(run(&mut rhythm(0), &at(&times)).len(), 2, "unless any rhythm is asked for: then on each of its days");
}

#[test]
fn chance_alone_makes_no_rhythm() {
    for (seed, mean) in [(1, 5), (2, 30), (3, 60), (4, 300), (5, 1_800)] {
        let times = random(&mut Dice(seed), 0, 30 * 86_400 / 1_800 * mean as i64, mean);
        assert!(times.len() > 1_000 || mean == 1_800, "{}", times.len());
        assert_eq!(run(&mut rhythm(20), &at(&times)).len(), 0, "one in {mean} seconds");
    }
}

#[test]
fn restoring_in_the_middle_changes_nothing() {
    let mut times = random(&mut Dice(9), 0, 86_400, 900);
    times.extend((0..40).map(|beat| 90_000 + beat * 300));
    let events = at(&times);
    for cut in [10, 80, times.len() - 33, times.len() - 5] {
        let mut first = rhythm(20);
        let mut told = run(&mut first, &events[..cut]);
        let mut second = rhythm(20);
        second.restore(&first.save()).expect("its own tables");
        told.extend(run(&mut second, &events[cut..]));
        assert_eq!(told.len(), 1, "cut at {cut}");
    }
}

#[test]
fn a_rhythm_that_pauses_is_not_told_again_the_same_day() {
    let mut times = random(&mut Dice(1), 0, 86_400, 1_800);
    times.extend((0..40).map(|beat| 90_000 + beat * 300));
    times.extend((0..40).map(|beat| 110_000 + beat * 300));
    times.extend((0..40).map(|beat| 300_000 + beat * 300));
    assert_eq!(run(&mut rhythm(20), &at(&times)).len(), 2);
}

#[test]
fn without_room_it_says_so() {
    let mut memory = Rhythm { keys_max: 1, ..rhythm(0) };
    let events: Vec<Entry> = ["a", "b"].iter().map(|name| entry(SECOND, &[("user_name", name)], 200, &[])).collect();
    run(&mut memory, &events);
    assert_eq!((memory.size().keys, memory.size().shed), (1, 1));
}
