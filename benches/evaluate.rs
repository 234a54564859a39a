//! Evaluation: N detections over batches, alone and together with the decoding that they need, against merely parsing
//! the same events into trees.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kubetide::flow::work::decode;
use kubetide::stage::evaluate::Evaluator;
use kubetide::stage::format::{FormatOptions, Formats};

const COUNTS: [usize; 4] = [10, 100, 200, 1_000];

fn evaluate(criterion: &mut Criterion) {
    let shipped = common::shipped();
    let synthetic = common::synthetic(1_000);
    for log in common::logs() {
        let evaluators: Vec<(String, Evaluator)> = COUNTS
            .iter()
            .flat_map(|count| {
                let mixed = common::detections(*count, &shipped, &synthetic);
                let made_up = synthetic.detections.iter().take(*count).cloned().collect();
                [(format!("{count} shipped first"), mixed), (format!("{count} synthetic"), made_up)]
            })
            .map(|(name, detections): (String, Vec<_>)| {
                (name, Evaluator::new(&detections, &shipped.planner).expect("the detections are right"))
            })
            .collect();
        for size in [8_192, 1_024] {
            let chunks = log.chunks(size);
            let mut group = criterion.benchmark_group(format!("evaluate/{}/{size}", log.name));
            group.throughput(Throughput::Elements(log.events.len() as u64));
            for (name, evaluator) in &evaluators {
                let mut formats = Formats::new(FormatOptions::default());
                let batches: Vec<_> = chunks
                    .iter()
                    .map(|chunk| decode(&mut formats, Arc::clone(evaluator.need()), Arc::from([]), chunk))
                    .collect();
                group.bench_with_input(BenchmarkId::from_parameter(name), &batches, |bencher, batches| {
                    bencher.iter(|| batches.iter().map(|batch| evaluator.evaluate(batch).hits.len()).sum::<usize>());
                });
            }
            group.finish();
        }
        with_decoding(criterion, &log, &evaluators);
    }
}

/// What more detections cost in the end: they also need more columns and bodies.
fn with_decoding(criterion: &mut Criterion, log: &common::Log, evaluators: &[(String, Evaluator)]) {
    let chunks = log.chunks(8_192);
    let mut group = criterion.benchmark_group(format!("decode and evaluate/{}", log.name));
    group.throughput(Throughput::Elements(log.events.len() as u64));
    group.bench_function("sonic-rs tree", |bencher| {
        bencher.iter(|| {
            for event in &log.events {
                black_box(sonic_rs::from_slice::<sonic_rs::Value>(event).ok());
            }
        });
    });
    for (name, evaluator) in evaluators {
        group.bench_with_input(BenchmarkId::from_parameter(name), evaluator, |bencher, evaluator| {
            let mut formats = Formats::new(FormatOptions::default());
            bencher.iter(|| {
                for chunk in &chunks {
                    let batch = decode(&mut formats, Arc::clone(evaluator.need()), Arc::from([]), chunk);
                    black_box(evaluator.evaluate(&batch));
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = evaluate
}
criterion_main!(benches);
