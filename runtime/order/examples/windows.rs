//! Nanoseconds per row of windows: `cargo run --release -p wasmill-order --example windows`.

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::disallowed_methods, reason = "measures this machine, not the job")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmill_model::{Batch, Column, Folded, Timestamp, WindowShape};
use wasmill_order::{OrderError, Windows};

const ROWS: usize = 1_000;
const BATCHES: usize = 5_000;

fn main() -> Result<(), OrderError> {
    let tumbling = WindowShape::Tumbling { size_micros: 10_000_000 };
    let sliding = WindowShape::Sliding { size_micros: 10_000_000, slide_micros: 2_000_000 };
    for (name, shape) in [("tumbling 10 s", tumbling), ("sliding 10 s by 2 s", sliding)] {
        for keys in [500, 10_000] {
            measure(name, shape, keys)?;
        }
    }
    Ok(())
}

/// 20 ms of event time a batch: a slide of 2 s holds 100,000 rows.
fn measure(name: &str, shape: WindowShape, keys: u64) -> Result<(), OrderError> {
    let mut windows = Windows::new(shape)?;
    let (mut assign, mut store, mut fire) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut state, mut panes, mut members) = (1_u64, 0, 0);
    for number in 0..BATCHES {
        let time = number as i64 * 20_000;
        let names: Column = (0..ROWS)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % keys
            })
            .map(|key| format!("{:08}", key + 1_000))
            .collect();
        let times = (0..ROWS as i64).map(|row| time + row * 20).collect();
        let batch = Batch::new(Arc::new(times), Arc::new(names), Arc::new(Column::empty_rows(ROWS)), 0);
        let start = Instant::now();
        let assignment = windows.assign(black_box(&batch), Timestamp(0))?;
        assign += start.elapsed();
        let mut counts: Vec<u64> = assignment.accumulators.iter().map(count).collect();
        assignment.groups.iter().for_each(|&group| counts[group as usize] += 1);
        let folded = Folded { accumulators: counts.iter().map(|n| n.to_le_bytes()).collect(), rejected: Vec::new() };
        let start = Instant::now();
        windows.store(&assignment, black_box(&folded))?;
        store += start.elapsed();
        let start = Instant::now();
        while let Some(fired) = windows.fire(Timestamp(time), Timestamp(0), 4_096) {
            panes += fired.panes.starts.len();
            members += fired.accumulators.len();
        }
        fire += start.elapsed();
    }
    let per = |time: Duration, count: usize| time.as_nanos() as f64 / count.max(1) as f64;
    println!(
        "{name}, {keys} keys: assign {:.1} + store {:.1} ns/row, fire {:.1} ns/accumulator ({panes} panes)",
        per(assign, ROWS * BATCHES),
        per(store, ROWS * BATCHES),
        per(fire, members),
    );
    Ok(())
}

fn count(accumulator: &[u8]) -> u64 {
    accumulator.try_into().map_or(0, u64::from_le_bytes)
}
