//! Decoding: from an event's JSON text to Arrow columns, against merely parsing the same text into a tree.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kubetide::flow::work::decode;
use kubetide::model::{Column, Need};
use kubetide::stage::evaluate::Evaluator;
use kubetide::stage::format::{FormatOptions, Formats};

const BATCH: usize = 8_192;

fn format(criterion: &mut Criterion) {
    let shipped = common::shipped();
    let evaluator = Evaluator::new(&shipped.detections, &shipped.planner).expect("the shipped pack is right");
    let header =
        Need { columns: [Column::Verb, Column::Resource, Column::UserName].into_iter().collect(), ..Need::default() };
    let needs = [
        ("three columns", Arc::new(header)),
        ("columns of the shipped pack", Arc::clone(evaluator.need())),
        ("all columns", Arc::new(Need::everything())),
    ];
    for log in common::logs() {
        let mut group = criterion.benchmark_group(format!("format/{}", log.name));
        group.throughput(Throughput::Bytes(log.bytes()));
        group.bench_function("sonic-rs tree", |bencher| {
            bencher.iter(|| {
                for event in &log.events {
                    black_box(sonic_rs::from_slice::<sonic_rs::Value>(event).ok());
                }
            });
        });
        let chunks = log.chunks(BATCH);
        for (name, need) in &needs {
            group.bench_with_input(BenchmarkId::from_parameter(name), need, |bencher, need| {
                let mut formats = Formats::new(FormatOptions::default());
                bencher.iter(|| {
                    for chunk in &chunks {
                        black_box(decode(&mut formats, Arc::clone(need), Arc::from([]), chunk));
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = format
}
criterion_main!(benches);
