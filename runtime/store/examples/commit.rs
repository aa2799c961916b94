//! What an epoch costs on this machine's disk, and how long a recovery takes:
//! `cargo run --release -p wasmill-store --example commit -- [FOLDER]`.
//!
//! Prints one JSON object a line and epoch size, then what recoveries take. Keys have 8 bytes, values 16. The sync is that of the disk; the rest is ours.

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::disallowed_methods, reason = "measures this machine, not the job")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmill_env::RealDisk;
use wasmill_model::NodeName;
use wasmill_store::{EntryChange, EpochRecord, JobStore, MemoryState, StageRecord, StoreError, StoreOptions};

const RECOVERED_KEYS: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("wasmill-commit-{}", std::process::id()));
    for (keys, epochs) in [(1, 500), (1_000, 500), (100_000, 50)] {
        commits(&dir, keys, epochs)?;
        fs::remove_dir_all(&dir)?;
    }
    recovery(&dir)?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn open(dir: &Path) -> Result<(JobStore, wasmill_store::Recovered), StoreError> {
    JobStore::open(Arc::new(RealDisk), dir, StoreOptions::default())
}

fn record(keys: impl Iterator<Item = u64>, epoch: u64) -> Result<EpochRecord, wasmill_model::NameError> {
    let value = |key: u64| [key.to_le_bytes(), epoch.to_le_bytes()].concat().into();
    let entry = |key: u64| EntryChange {
        space: 0,
        key: format!("{key:08}").into_bytes().into(),
        subkey: Box::default(),
        value: Some(value(key)),
        written: i64::MIN,
    };
    let state = keys.map(entry).collect();
    let stage =
        StageRecord { node: NodeName::new("count")?, share: 0, shares: 1, state, timers: Vec::new(), windows: None };
    Ok(EpochRecord { stages: vec![stage], ..EpochRecord::default() })
}

fn commits(dir: &Path, keys: u64, epochs: u64) -> Result<(), Box<dyn std::error::Error>> {
    let (mut store, _) = open(dir)?;
    let (mut times, mut compacting, mut compactions) = (Vec::new(), Duration::ZERO, 0);
    for _ in 0..epochs {
        let epoch = store.epoch().next();
        let record = record(0..keys, epoch.0)?;
        let start = Instant::now();
        store.commit(epoch, &record)?;
        times.push(start.elapsed());
        if store.compaction_due() {
            let start = Instant::now();
            let compaction = store.begin_compaction()?;
            store.finish_compaction(compaction.run()?)?;
            compacting += start.elapsed();
            compactions += 1;
        }
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    let best = times[0];
    println!(
        r#"{{"name":"commit","keys":{keys},"median_micros":{},"best_micros":{},"nanos_per_key":{:.1},"compactions":{compactions},"compacting_micros":{}}}"#,
        median.as_micros(),
        best.as_micros(),
        median.as_nanos() as f64 / keys as f64,
        compacting.as_micros(),
    );
    Ok(())
}

fn recovery(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (mut store, _) = open(dir)?;
    for epoch in 1..=100 {
        store.commit(store.epoch().next(), &record((0..RECOVERED_KEYS).skip(epoch - 1).step_by(100), epoch as u64)?)?;
    }
    drop(store);
    recover(dir, "all of it in the log")?;
    let (mut store, _) = open(dir)?;
    let start = Instant::now();
    let compaction = store.begin_compaction()?;
    store.finish_compaction(compaction.run()?)?;
    println!("{RECOVERED_KEYS} keys: folded in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(store);
    recover(dir, "all of it in the base")?;
    let (mut store, _) = open(dir)?;
    for epoch in 1..=100 {
        store.commit(store.epoch().next(), &record((0..RECOVERED_KEYS).skip(epoch - 1).step_by(100), epoch as u64)?)?;
    }
    drop(store);
    recover(dir, "all of it in the base and once more in the log")
}

fn recover(dir: &Path, what: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let (_, mut recovered) = open(dir)?;
    let opened = start.elapsed();
    let mut state = MemoryState::default();
    for (_, stage) in std::mem::take(&mut recovered.stages) {
        state.load(stage.state.into_iter());
    }
    let loaded = start.elapsed();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{RECOVERED_KEYS} keys, {what}: read in {:.0} ms, and in memory tables after {:.0} ms",
        millis(opened),
        millis(loaded)
    );
    Ok(())
}
