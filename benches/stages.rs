//! Where an event's nanoseconds go: the stages of a worker one after the other, on one thread.
//!
//!     cargo bench --bench stages
//!
//! Prints CPU nanoseconds of an event for each stage, the best of several rounds in which all stages take turns, and
//! their ratio to a full tree parse of the same bytes by sonic-rs.

mod common;

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::ArrayRef;
use kubetide::flow::work::{SourceSettings, Worker, decode};
use kubetide::model::{Column, ColumnSet, LateBodies, Need, ReadBodies};
use kubetide::stage::evaluate::Evaluator;
use kubetide::stage::format::{FormatOptions, Formats, native};

const ROUNDS: usize = 7;

/// CPU time of this thread.
fn cpu_nanoseconds() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

thread_local! {
    /// Time spent in reading bodies that somebody asked for, and how many rows.
    static LATE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Times what another reader does.
#[derive(Debug)]
struct Timed(Arc<dyn ReadBodies>);

impl ReadBodies for Timed {
    fn read(&self, rows: &[(usize, ColumnSet)]) -> Vec<(Column, ArrayRef)> {
        let started = cpu_nanoseconds();
        let columns = self.0.read(rows);
        let (spent, read) = LATE.get();
        LATE.set((spent + cpu_nanoseconds() - started, read + rows.len() as u64));
        columns
    }
}

fn main() {
    // `cargo bench` hands its own arguments on.
    let shipped = common::shipped();
    let evaluator = Arc::new(Evaluator::new(&shipped.detections, &shipped.planner).expect("the shipped pack is right"));
    let three: ColumnSet = [Column::Verb, Column::Resource, Column::UserName].into_iter().collect();
    let three = Arc::new(Need { columns: three, ..Need::default() });
    for log in common::logs() {
        println!("{}: {} events, {} bytes each", log.name, log.events.len(), log.bytes() / log.events.len() as u64);
        // Chunks of the size that a file is read in.
        let chunks = log.chunks(1_400);
        let mut worker = Worker::new(Arc::clone(&evaluator), &[SourceSettings::default()], None);
        let mut formats = Formats::new(FormatOptions::default());
        let mut best: Vec<(&str, u64)> = Vec::new();
        let mut rows = 0;
        for _ in 0..ROUNDS {
            let mut measured: Vec<(&str, u64)> = Vec::new();
            let mut stage = |name: &'static str, work: &mut dyn FnMut()| {
                let started = cpu_nanoseconds();
                work();
                measured.push((name, cpu_nanoseconds() - started));
            };
            stage("sonic-rs tree", &mut || {
                for event in &log.events {
                    black_box(sonic_rs::from_slice::<sonic_rs::Value>(event).ok());
                }
            });
            stage("walk over the top level", &mut || {
                for event in &log.events {
                    black_box(native::walk(event));
                }
            });
            stage("decode three columns", &mut || {
                for chunk in &chunks {
                    black_box(decode(&mut formats, Arc::clone(&three), Arc::from([]), chunk));
                }
            });
            stage("decode header columns of the shipped pack", &mut || {
                for chunk in &chunks {
                    black_box(decode(&mut formats, Arc::clone(evaluator.need()), Arc::from([]), chunk));
                }
            });
            let batches: Vec<_> = chunks
                .iter()
                .map(|chunk| {
                    let mut batch = decode(&mut formats, Arc::clone(evaluator.need()), Arc::from([]), chunk);
                    batch.late = batch.late.map(|late| LateBodies { reader: Arc::new(Timed(late.reader)), ..late });
                    batch
                })
                .collect();
            LATE.set((0, 0));
            stage("evaluate, with the bodies that it asks for", &mut || {
                for batch in &batches {
                    black_box(evaluator.evaluate(batch));
                }
            });
            let (late, read) = LATE.get();
            rows = read;
            measured.push(("of that: bodies", late));
            let started = cpu_nanoseconds();
            for chunk in &chunks {
                black_box(worker.work(0, chunk));
            }
            measured.push(("a worker as a whole, with matched rows in full", cpu_nanoseconds() - started));
            if best.is_empty() {
                best = measured;
            } else {
                best.iter_mut().zip(measured).for_each(|(best, new)| best.1 = best.1.min(new.1));
            }
        }
        let tree = best[0].1.max(1);
        for (name, nanoseconds) in &best {
            let each = nanoseconds / log.events.len() as u64;
            println!("  {name:48} {each:6} ns an event  {:5.2} x tree", *nanoseconds as f64 / tree as f64);
        }
        println!("  bodies read for {rows} rows (a row may be read twice)");
    }
}
