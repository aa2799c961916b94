//! Counting by key with state on disk against a hash table, and how long a recovery takes:
//! `cargo run --release -p wasmill-store --example counting -- [KEYS] [EVENTS] [CACHE_MIB]`.

#![expect(clippy::print_stdout, reason = "the figures are for people")]
#![expect(clippy::disallowed_methods, reason = "measures this machine, not the job")]

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmill_env::RealDisk;
use wasmill_model::{Column, ColumnBuilder, NodeName, SpaceDescriptor, Timestamp};
use wasmill_store::{
    Compacted, EpochRecord, JobStore, StageRecord, StageStates, StateBackend, StoreError, StoreOptions,
};

const ROWS: u64 = 4_096;
/// About 200 ms of a fast source.
const BATCHES_PER_EPOCH: u64 = 30;

type Running = std::thread::JoinHandle<Result<Compacted, StoreError>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let keys = numbers.next().transpose()?.unwrap_or(10_000_000);
    let events = numbers.next().transpose()?.unwrap_or(30_000_000);
    let cache = numbers.next().transpose()?.unwrap_or(256) << 20;

    let (start, cpu) = (Instant::now(), cpu());
    let mut table: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut chance = 1;
    for _ in 0..events {
        let key = key(&mut chance, keys);
        match table.get_mut(key.as_slice()) {
            Some(count) => *count += 1,
            None => {
                table.insert(key.to_vec(), 1);
            }
        }
    }
    let native = (start.elapsed(), self::cpu() - cpu);
    report("hash table", events, native);
    let want: u64 = table.values().sum();
    black_box(&table);
    drop(table);

    let dir = tempfile::tempdir()?;
    let node = NodeName::new("count")?;
    let options = StoreOptions::on_disk(cache);
    let (mut store, _) = JobStore::open(Arc::new(RealDisk), dir.path(), options)?;
    let (start, cpu) = (Instant::now(), self::cpu());
    let mut state = open(&store, &node, cache);
    let (mut chance, mut running, mut get_time, mut put_time) = (1, None, Duration::ZERO, Duration::ZERO);
    for batch in 1..=events / ROWS {
        let mut names = ColumnBuilder::default();
        (0..ROWS).for_each(|_| names.push(&key(&mut chance, keys)));
        let names = names.finish();
        state.advance(Timestamp::MIN, Timestamp::MIN);
        state.mark();
        let (counted, got, put) = count(&mut *state, &names)?;
        black_box(counted);
        (get_time, put_time) = (get_time + got, put_time + put);
        if batch % BATCHES_PER_EPOCH == 0 {
            let record = record(&node, &mut *state);
            store.commit(store.epoch().next(), &record)?;
            let overdue = store.compaction_overdue();
            if let Some(thread) = running.take_if(|thread: &mut Running| overdue || thread.is_finished()) {
                store.finish_compaction(thread.join().map_err(|_| "a compaction panicked")??)?;
            }
            if running.is_none() && store.compaction_due() {
                let compaction = store.begin_compaction()?;
                running = Some(std::thread::spawn(move || compaction.run()));
            }
        }
    }
    let disk = (start.elapsed(), self::cpu() - cpu);
    report("on disk", events, disk);
    println!(
        "  get {get_time:.1?}, put {put_time:.1?}; {:.1} times the CPU",
        disk.1.as_secs_f64() / native.1.as_secs_f64()
    );
    if let Some(thread) = running.take() {
        store.finish_compaction(thread.join().map_err(|_| "a compaction panicked")??)?;
    }
    let last = record(&node, &mut *state);
    store.commit(store.epoch().next(), &last)?;
    println!("  resident {} MiB, {} MiB on disk, {want} counted", resident_mib(), bytes_of(dir.path())? >> 20);
    drop((state, store));

    let start = Instant::now();
    let (store, _) = JobStore::open(Arc::new(RealDisk), dir.path(), options)?;
    let mut state = open(&store, &node, cache);
    count(&mut *state, &[b"00000001".as_slice()].into_iter().collect())?;
    println!("recovery on disk: first count after {:.0?}", start.elapsed());
    drop((state, store));
    let start = Instant::now();
    let (_store, mut recovered) = JobStore::open(Arc::new(RealDisk), dir.path(), StoreOptions::default())?;
    let held = recovered.stages.remove(&node).unwrap_or_default().state;
    let mut state = StageStates::default().open(&node, (0, 1), recovered.epoch, &spaces(), held);
    count(&mut *state, &[b"00000001".as_slice()].into_iter().collect())?;
    println!("recovery into memory: first count of {} keys after {:.0?}", state.entries(), start.elapsed());
    Ok(())
}

fn spaces() -> [SpaceDescriptor; 1] {
    [SpaceDescriptor { name: "counts".into(), schema_version: 1, ttl: None }]
}

fn open(store: &JobStore, node: &NodeName, cache: u64) -> Box<dyn StateBackend> {
    let files = store.state().map(|files| (Arc::clone(files), cache as usize / 4));
    let states = StageStates { files, ..StageStates::default() };
    states.open(node, (0, 1), store.epoch(), &spaces(), Vec::new())
}

fn record(node: &NodeName, state: &mut dyn StateBackend) -> EpochRecord {
    let (node, state) = (node.clone(), state.take_changes());
    let stage = StageRecord { node, share: 0, shares: 1, state, timers: Vec::new(), windows: None };
    EpochRecord { stages: vec![stage], ..EpochRecord::default() }
}

/// One more for each name, as the SDK counts: names that occur twice are added up in the guest.
fn count(state: &mut dyn StateBackend, names: &Column) -> Result<(usize, Duration, Duration), Box<dyn Error>> {
    let start = Instant::now();
    let mut values = ColumnBuilder::with_capacity(names.len(), 8 * names.len());
    state.get_many(0, names, &Column::default(), &mut values)?;
    let got = start.elapsed();
    let next = |value: &[u8]| value.try_into().map_or(1, |value| u64::from_le_bytes(value) + 1);
    let values: Column = values.finish().iter().map(|value| next(value).to_le_bytes()).collect();
    let start = Instant::now();
    state.put_many(0, names, &Column::default(), &values)?;
    Ok((values.len(), got, start.elapsed()))
}

fn key(chance: &mut u64, keys: u64) -> [u8; 8] {
    *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let mut number = (*chance >> 33) % keys;
    let mut text = *b"00000000";
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    text
}

fn report(what: &str, events: u64, (wall, cpu): (Duration, Duration)) {
    let each = |time: Duration| time.as_nanos() as f64 / events as f64;
    println!("{what}: {:.0} ns an event, {:.0} ns of CPU", each(wall), each(cpu));
}

/// CPU time of all threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

fn bytes_of(dir: &std::path::Path) -> std::io::Result<u64> {
    std::fs::read_dir(dir)?.map(|file| Ok(file?.metadata()?.len())).sum()
}
