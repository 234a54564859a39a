//! A detection that harms the others is taken out of force, and stays so over a restart; the others tell the same.

use super::state::{ABSENT, EVENTS, FIRST_SEEN, Part, SEQUENCE, Told, WINDOW, live, records, set_of, state, told};
use super::*;

/// Compares everything with everything, five times over: from forty events on that is refused at each hop.
const JOINER: &str = "id: joiner\ntitle: T\nentity: [user_name]\nsuppress: 0\nsummary: S\nsql: |\n  SELECT a.user_name FROM audit a JOIN audit b ON a.event_time < b.event_time JOIN audit c ON b.event_time < c.event_time JOIN audit d ON c.event_time < d.event_time JOIN audit e ON d.event_time < e.event_time GROUP BY a.user_name\nwindow: {size: 10h, every: 20m}\n";

fn with(joiner: &str) -> Arc<DetectionSet> {
    Arc::new(set_of(&[SEQUENCE, ABSENT, FIRST_SEEN, WINDOW, EVENTS, joiner]))
}

fn without_joiner(told: Told) -> Told {
    told.into_iter().filter(|(key, _)| !key.starts_with("joiner")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_joins_the_world_is_cut_off_and_quarantined_until_it_is_mended() {
    let (records, folder) = (records(), tempfile::tempdir().expect("a scratch folder"));
    let plain = MemorySink::default();
    let alone = Arc::new(set_of(&[SEQUENCE, ABSENT, FIRST_SEEN, WINDOW, EVENTS]));
    live(&alone, Part::of(&records, 0, None), &plain, None, folder.path()).run().await.expect("a clean run");

    let sink = MemorySink::default();
    let mut from = 0;
    for until in [Some(300), None] {
        let part = Part::of(&records, from, until);
        let mut run = live(&with(JOINER), part, &sink, Some(state(folder.path()).await), folder.path());
        run.health = Health::new();
        let (metrics, health) = (run.metrics.clone(), run.health.clone());
        run.run().await.expect("a clean run");
        let has = |line: &str| assert!(metrics.render().contains(line), "no {line} in {}", metrics.render());
        has("kubetide_detection_quarantined{detection=\"joiner\"} 1");
        let reason = health.readiness().detail["quarantined"]["joiner"]["reason"].clone();
        assert!(reason.as_str().is_some_and(|reason| reason.contains("pairs of events")), "{reason}");
        if from == 0 {
            has("kubetide_detection_quarantines_total{detection=\"joiner\"} 1");
            has("kubetide_detection_errors_total{detection=\"joiner\"} 3");
        } else {
            let page = metrics.render();
            assert!(!page.contains("kubetide_detection_errors_total{detection=\"joiner\"}"), "not even tried: {page}");
        }
        from = until.unwrap_or(records.len());
    }
    assert_eq!(without_joiner(told(&sink)), told(&plain));

    let (edited, opened) = (with(&JOINER.replace("size: 10h", "size: 20m")), state(folder.path()).await);
    assert!(opened.1.quarantined.contains_key("joiner"));
    let mended = live(&edited, Part::of(&records, records.len(), None), &sink, Some(opened), folder.path());
    let health = mended.health.clone();
    mended.run().await.expect("a clean run");
    assert_eq!(health.readiness().detail["quarantined"], serde_json::json!({}), "another query has another chance");
}
