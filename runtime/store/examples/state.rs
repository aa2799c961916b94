//! Nanoseconds per key of state in memory: `cargo run --release -p wasmill-store --example state`.

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::disallowed_methods, reason = "measures this machine, not the job")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use wasmill_model::{Column, ColumnBuilder, SpaceDescriptor};
use wasmill_store::{MemoryState, StateBackend, StateError};

const ROWS: usize = 1_000;
const BATCHES: usize = 5_000;
const BATCHES_PER_EPOCH: usize = 200;

fn main() -> Result<(), StateError> {
    for keys in [1_000, 10_000, 1_000_000] {
        measure(keys)?;
    }
    Ok(())
}

fn measure(keys: u64) -> Result<(), StateError> {
    let mut state = MemoryState::default();
    state.declare(&[SpaceDescriptor { name: "counts".into(), schema_version: 1, ttl: None }]);
    let (mut get, mut put, mut take) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut chance, mut changes) = (1_u64, 0);
    for number in 0..BATCHES {
        let names: Column = (0..ROWS)
            .map(|_| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("{:08}", (chance >> 33) % keys)
            })
            .collect();
        state.mark();
        let start = Instant::now();
        let mut values = ColumnBuilder::with_capacity(ROWS, 8 * ROWS);
        black_box(state.get_many(0, black_box(&names), &Column::default(), &mut values)?);
        get += start.elapsed();
        let next = |value: &[u8]| value.try_into().map_or(1, |value| u64::from_le_bytes(value) + 1);
        let values: Column = values.finish().iter().map(|value| next(value).to_le_bytes()).collect();
        let start = Instant::now();
        state.put_many(0, &names, &Column::default(), black_box(&values))?;
        put += start.elapsed();
        if number % BATCHES_PER_EPOCH == 0 {
            let start = Instant::now();
            changes += black_box(state.take_changes()).len();
            take += start.elapsed();
        }
    }
    let per = |time: Duration, count: usize| time.as_nanos() as f64 / count as f64;
    println!(
        "{keys} keys: get {:.1} ns/key, put {:.1} ns/key, take_changes {:.0} ns/change",
        per(get, ROWS * BATCHES),
        per(put, ROWS * BATCHES),
        per(take, changes),
    );
    Ok(())
}
