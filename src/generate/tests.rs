use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn events(options: GeneratorOptions, count: usize) -> Vec<Value> {
    Generator::new(options)
        .take(count)
        .map(|event| {
            serde_json::from_slice(&event)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&event)))
        })
        .collect()
}

#[test]
fn equal_options_give_equal_bytes() {
    let make = |seed| Generator::new(GeneratorOptions { seed, ..GeneratorOptions::default() }).take(300);
    assert!(make(7).eq(make(7)));
    assert!(!make(7).eq(make(8)));
}

#[test]
fn every_event_is_an_audit_event_of_some_kind() {
    let events = events(GeneratorOptions::default(), 4_000);
    let mut kinds = BTreeSet::new();
    for event in &events {
        assert_eq!(event["apiVersion"], "audit.k8s.io/v1");
        assert_eq!(event["stage"], "ResponseComplete");
        assert!(event["user"]["username"].is_string(), "{event}");
        assert!(event["responseStatus"]["code"].is_u64(), "{event}");
        let uri = event["requestURI"].as_str().unwrap_or_default();
        assert!(uri.starts_with('/') && !uri.contains("//"), "{uri}");
        let part = |key: &str| event["objectRef"][key].as_str().unwrap_or_default().to_owned();
        kinds.insert((event["verb"].as_str().map(str::to_owned), part("resource"), part("subresource")));
    }
    assert!(kinds.len() >= 35, "{}", kinds.len());
}

#[test]
fn sizes_are_those_of_a_real_log() {
    let mut sizes: Vec<usize> =
        Generator::new(GeneratorOptions::default()).take(20_000).map(|event| event.len()).collect();
    sizes.sort_unstable();
    let mean = sizes.iter().sum::<usize>() / sizes.len();
    let p99 = sizes[sizes.len() * 99 / 100];
    let largest = sizes[sizes.len() - 1];
    assert!((2_300..4_000).contains(&mean), "mean {mean}");
    assert!((12_000..32_000).contains(&p99), "p99 {p99}");
    assert!((150_000..330_000).contains(&largest), "largest {largest}");
}

#[test]
fn attacks_come_as_often_and_in_the_kinds_asked_for() {
    let mut generator = Generator::new(GeneratorOptions { attack_share: 0.05, ..GeneratorOptions::default() });
    let mut out = Vec::new();
    let made: Vec<Attack> = (0..6_000)
        .filter_map(|_| {
            out.clear();
            generator.write_next(&mut out).attack
        })
        .collect();
    assert!((200..400).contains(&made.len()), "{}", made.len());
    assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), Attack::ALL.len());
    let none = GeneratorOptions { attacks: Vec::new(), attack_share: 1.0, ..GeneratorOptions::default() };
    let mut quiet = Generator::new(none);
    assert!((0..200).all(|_| quiet.write_next(&mut out).attack.is_none()));
}

#[test]
fn names_of_attacks_are_read_back() {
    for attack in Attack::ALL {
        assert_eq!(Attack::from_name(attack.as_str()), Some(attack));
    }
    assert_eq!(Attack::from_name("nothing"), None);
}

#[test]
fn stages_of_a_request_share_its_id() {
    let events = events(GeneratorOptions { all_stages: true, ..GeneratorOptions::default() }, 2_000);
    let mut open: Option<&Value> = None;
    let mut started = 0;
    for event in &events {
        match event["stage"].as_str() {
            Some("RequestReceived") => {
                assert!(event.get("responseStatus").is_none() && event.get("requestObject").is_none());
                open = Some(&event["auditID"]);
            }
            Some(stage) => {
                assert_eq!(open, Some(&event["auditID"]));
                started += usize::from(stage == "ResponseStarted");
            }
            None => panic!("no stage: {event}"),
        }
    }
    assert!(started > 20, "{started}");
}

#[test]
fn time_passes_at_the_rate_asked_for() {
    let mut generator = Generator::new(GeneratorOptions { rate: 1_000.0, ..GeneratorOptions::default() });
    let mut out = Vec::new();
    let first = generator.write_next(&mut out).time_us;
    let last = (0..5_000).map(|_| generator.write_next(&mut out).time_us).last().unwrap_or(first);
    assert!((4_000_000..6_000_000).contains(&(last - first)), "{}", last - first);
}

#[test]
fn requests_are_spread_over_clusters() {
    let mut generator = Generator::new(GeneratorOptions { clusters: 3, ..GeneratorOptions::default() });
    let mut out = Vec::new();
    let clusters: BTreeSet<usize> = (0..100).map(|_| generator.write_next(&mut out).cluster).collect();
    assert_eq!(clusters, BTreeSet::from([0, 1, 2]));
}
