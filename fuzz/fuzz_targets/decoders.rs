//! Any bytes as one record.
#![no_main]

use kubetide::model::{EventContext, EventFields, EventSink, Lane, Position, RawRecord, RejectReason, SkipReason};
use kubetide::stage::format::{FormatOptions, Formats};
use libfuzzer_sys::fuzz_target;

/// Counts calls and touches everything that it is handed.
#[derive(Default)]
struct Count(u32);

impl EventSink for Count {
    fn event(&mut self, fields: &EventFields<'_>, context: &EventContext) {
        assert_eq!(context.index, self.0);
        for text in [fields.audit_id, fields.stage, fields.verb, fields.uri, fields.user_agent].into_iter().flatten() {
            std::hint::black_box(text.decode());
        }
        std::hint::black_box((fields.request_object.map(|body| body.kind()), context.origin.cluster_id()));
        self.0 += 1;
    }

    fn skip(&mut self, _: SkipReason) {
        self.0 += 1;
    }

    fn reject(&mut self, _: RejectReason, detail: String, index: u32, _: &[u8]) {
        // A record with very many rejects does not tell each.
        assert!(index >= self.0);
        self.0 = index;
        assert!(!detail.is_empty());
        self.0 += 1;
    }
}

fuzz_target!(|bytes: &[u8]| {
    let lane = Lane { name: "lane".into(), fallback_cluster: "lane".into(), cluster: None };
    let record =
        RawRecord { position: Position { lane: 0, offset: 0 }, range: 0..bytes.len(), time_ms: None, cluster: None };
    let mut count = Count::default();
    Formats::new(FormatOptions::default()).decode(bytes, &record, &lane, &mut count);
    assert!(count.0 > 0);
});
