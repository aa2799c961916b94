//! Crashes and faults at every operation of random workloads.
//!
//! A workload runs until the operation at which the fault comes. What the store then gives back
//! must be what was acknowledged, or that and the one write that was on its way, entirely.

use std::collections::BTreeSet;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::sync::Arc;

use wasmill_env::{Disk, Fault, RealDisk, SimulatedDisk};
use wasmill_model::{Epoch, ErrorKind};
use wasmill_store::{EpochRecord, JobStore, LetterId, Recovered, StoreError, StoreOptions};

use crate::common::{Chance, Model, record, sorted};

const DIR: &str = "/jobs/one";
const STEPS: u64 = 14;
const WORKLOADS: u64 = 12;
const CRASHES_PER_STOP: u64 = 5;
const STATES_MIN: u64 = 10_000;

/// So small that compactions spill.
const IN_MEMORY: StoreOptions =
    StoreOptions { compaction_bytes_max: 2_000, log_bytes_max: 16 << 20, state_cache_bytes: None };
const ON_DISK: StoreOptions = StoreOptions { state_cache_bytes: Some(10_000), ..IN_MEMORY };

fn open(disk: &SimulatedDisk) -> Result<(JobStore, Recovered), StoreError> {
    open_as(disk, IN_MEMORY)
}

/// Opens a store, and says everything it holds.
fn open_as(disk: &SimulatedDisk, options: StoreOptions) -> Result<(JobStore, Recovered), StoreError> {
    let open = |options| JobStore::open(Arc::new(disk.clone()), Path::new(DIR), options);
    if options.state_cache_bytes.is_some() {
        // This folds the log; the next reads what came of it.
        drop(open(options)?);
        let recovered = open(IN_MEMORY)?.1;
        return Ok((open(options)?.0, recovered));
    }
    open(options)
}

/// Every other workload has its state on disk.
fn options(seed: u64) -> StoreOptions {
    if seed.is_multiple_of(2) { IN_MEMORY } else { ON_DISK }
}

/// How far a workload came.
#[derive(Debug, Default, Clone)]
struct Progress {
    acknowledged: Model,
    /// What holds if the last write is there although it was not acknowledged.
    on_its_way: Option<Model>,
}

impl Progress {
    fn allows(&self, recovered: &Recovered) -> bool {
        let is = |model: &Model| model.recovered() == *recovered;
        is(&self.acknowledged) || self.on_its_way.as_ref().is_some_and(is)
    }
}

/// Runs until something fails that a job does not survive.
fn run(disk: &SimulatedDisk, seed: u64, progress: &mut Progress) -> Result<(), StoreError> {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let options = options(seed);
    let (mut store, _) = open_as(disk, options)?;
    let mut compaction = None;
    for step in 0..STEPS {
        match if step == 0 { 0 } else { chance.below(10) } {
            0..5 => {
                let record = record(&mut chance, &progress.acknowledged);
                let epoch = progress.acknowledged.epoch.next();
                let mut after = progress.acknowledged.clone();
                after.apply(epoch, &record);
                progress.on_its_way = Some(after);
                let committed = store.commit(epoch, &record);
                if committed.is_err() {
                    let again = store.commit(epoch, &record);
                    assert!(matches!(again, Err(StoreError::Poisoned { .. })), "a failed store goes on: {again:?}");
                }
                committed?;
            }
            5 => {
                let mut after = progress.acknowledged.clone();
                let ids: Vec<LetterId> = after.letters.keys().copied().take(2).collect();
                after.letters.retain(|id, _| !ids.contains(id));
                after.replays.retain(|id| !ids.contains(id));
                progress.on_its_way = Some(after);
                store.drop_letters(&ids)?;
            }
            6 => {
                drop(compaction.take());
                compaction = Some(store.begin_compaction()?);
            }
            7 | 8 => {
                // One that runs late folds what was there before; one that fails is left.
                let begun = match compaction.take() {
                    Some(begun) => begun,
                    None => store.begin_compaction()?,
                };
                if let Ok(compacted) = begun.run() {
                    store.finish_compaction(compacted)?;
                }
            }
            _ => {
                compaction = None;
                store.close()?;
                let recovered;
                (store, recovered) = open_as(disk, options)?;
                assert_eq!(sorted(recovered), progress.acknowledged.recovered());
            }
        }
        if let Some(after) = progress.on_its_way.take() {
            progress.acknowledged = after;
        }
    }
    Ok(())
}

/// Opens what a crash left, crashing again now and then, and goes on.
fn check(disk: &SimulatedDisk, options: StoreOptions, progress: &Progress, seed: u64, what: &str) {
    let mut chance = Chance(seed);
    let mut disk = disk.clone();
    let open = |disk: &SimulatedDisk| open_as(disk, options);
    if chance.below(3) == 0 {
        disk.fail_at(1 + chance.below(40), Fault::Stop, seed);
        let opened = open(&disk).map(|(_, recovered)| sorted(recovered));
        disk = disk.crashed(seed ^ 1);
        if let Ok(first) = opened {
            let second = sorted(open(&disk).unwrap_or_else(|error| panic!("{what}, opened twice: {error}")).1);
            assert_eq!(first, second, "{what}: what was recovered once is gone after a second crash");
            disk = disk.crashed(seed ^ 2);
        }
    }
    let (mut store, recovered) = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let recovered = sorted(recovered);
    assert!(progress.allows(&recovered), "{what}: recovered {recovered:#?}\nof {progress:#?}");
    let mut model = if recovered == progress.acknowledged.recovered() {
        progress.acknowledged.clone()
    } else {
        progress.on_its_way.clone().expect("the other one allowed")
    };
    assert_eq!(store.letters(LetterId(0), usize::MAX).expect("lists").len(), model.letters.len());
    // Nothing of an epoch that did not come to be may show in the ones that follow.
    let record = record(&mut chance, &model);
    store.commit(recovered.epoch.next(), &record).expect("commits");
    model.apply(recovered.epoch.next(), &record);
    let (_, recovered) = open(&disk.crashed(seed ^ 3)).unwrap_or_else(|error| panic!("{what}, later: {error}"));
    assert_eq!(sorted(recovered), model.recovered(), "{what}, later");
}

#[test]
fn every_crash_leaves_whole_epochs_and_all_that_were_acknowledged() {
    let mut states = 0;
    for workload in 0..WORKLOADS {
        let disk = SimulatedDisk::default();
        run(&disk, workload, &mut Progress::default()).expect("nothing fails");
        for operation in 1..=disk.operations() {
            for fault in [Fault::Stop, Fault::Io, Fault::Full] {
                let disk = SimulatedDisk::default();
                disk.fail_at(operation, fault, operation);
                let mut progress = Progress::default();
                // Where it stops is in the progress.
                let _stopped = run(&disk, workload, &mut progress);
                let crashes = if fault == Fault::Stop { CRASHES_PER_STOP } else { 2 };
                for crash in 0..crashes {
                    let what = format!("workload {workload}, operation {operation}, {fault:?}, crash {crash}");
                    let seed = workload << 40 | operation << 20 | crash;
                    check(&disk.crashed(seed), options(workload), &progress, seed, &what);
                    states += 1;
                }
                if fault != Fault::Stop {
                    let what = format!("workload {workload}, operation {operation}, {fault:?}, killed");
                    check(&disk.killed(), options(workload), &progress, operation, &what);
                    states += 1;
                }
            }
        }
    }
    assert!(states >= STATES_MIN, "only {states} states");
}

#[test]
fn savepoint_is_whole_or_not_there_and_so_is_what_is_made_of_it() {
    let file = Path::new("/jobs/savepoint");
    let of_file = Path::new("/jobs/two");
    let disk = SimulatedDisk::default();
    let (mut store, model, _) = grown(&disk);
    let compaction = store.begin_compaction().expect("begins");
    let before = disk.operations();
    compaction.export(file).expect("exports");
    JobStore::import(&disk, file, of_file, 7).expect("imports");
    for operation in 1..=disk.operations() - before {
        let disk = SimulatedDisk::default();
        let (mut store, ..) = grown(&disk);
        let compaction = store.begin_compaction().expect("begins");
        disk.fail_at(operation, Fault::Stop, operation);
        let exported = compaction.export(file);
        let imported = JobStore::import(&disk, file, of_file, 7);
        for seed in 0..10 {
            let disk = disk.crashed(operation << 20 | seed);
            let there = disk.files().contains_key(file);
            assert!(there || exported.is_err(), "operation {operation}, seed {seed}: the savepoint is gone");
            if there && imported.is_err() {
                // What an import left half done is no job; another import makes it one.
                match JobStore::import(&disk, file, of_file, 7) {
                    Ok(()) | Err(StoreError::NotEmpty { .. }) => {}
                    Err(error) => panic!("operation {operation}, seed {seed}: {error}"),
                }
            }
            if there || imported.is_ok() {
                let opened = JobStore::open(Arc::new(disk), of_file, StoreOptions::default());
                assert_eq!(sorted(opened.expect("opens").1), model.recovered(), "operation {operation}, seed {seed}");
            }
        }
    }
}

#[test]
fn full_disk_leaves_the_last_epoch() {
    let disk = SimulatedDisk::default();
    let (mut store, _) = open(&disk).expect("opens");
    let (mut chance, mut model) = (Chance(9), Model::default());
    for _ in 0..3 {
        let record = record(&mut chance, &model);
        store.commit(model.epoch.next(), &record).expect("commits");
        model.apply(model.epoch.next(), &record);
    }
    disk.fail_at(1, Fault::Full, 1);
    let error = store.commit(Epoch(4), &record(&mut chance, &model)).expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::Full);
    drop(store);
    let (mut store, recovered) = open(&disk).expect("opens");
    assert_eq!(sorted(recovered), model.recovered());
    store.commit(Epoch(4), &record(&mut chance, &model)).expect("there is room again");
}

/// A store with a base, a layer where state stays on disk, and two segments, and what it held one
/// epoch before.
fn grown(disk: &SimulatedDisk) -> (JobStore, Model, Model) {
    grown_as(disk, IN_MEMORY)
}

fn grown_as(disk: &SimulatedDisk, options: StoreOptions) -> (JobStore, Model, Model) {
    let (mut store, _) = open_as(disk, options).expect("opens");
    let (mut chance, mut model, mut before) = (Chance(12), Model::default(), Model::default());
    for number in 0..7 {
        let record = record(&mut chance, &model);
        before = model.clone();
        store.commit(model.epoch.next(), &record).expect("commits");
        model.apply(model.epoch.next(), &record);
        if number == 2 || (number == 3 && options == ON_DISK) {
            let compaction = store.begin_compaction().expect("begins");
            store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
        }
        if number == 4 {
            drop(store.begin_compaction().expect("begins"));
        }
    }
    (store, model, before)
}

/// Whether what is opened after a bit is turned over is `model`, for each bit of each file.
fn flip_every_bit(disk: &SimulatedDisk, mut judge: impl FnMut(&Path, usize, Result<Recovered, StoreError>)) {
    for (path, bytes) in disk.files() {
        for bit in 0..bytes.len() * 8 {
            let disk = disk.killed();
            disk.flip_bit(&path, bit).expect("a bit");
            judge(&path, bit, open(&disk).map(|(_, recovered)| sorted(recovered)));
        }
    }
}

#[test]
fn a_segment_whose_name_was_never_synced_holds_what_is_acknowledged() {
    for nth in 1..20 {
        let disk = SimulatedDisk::default();
        disk.fail_at(nth, Fault::Stop, nth);
        drop(open(&disk));
        let disk = disk.killed();
        let (mut store, _) = open(&disk).expect("opens what was begun");
        store.commit(Epoch(1), &EpochRecord::default()).expect("commits");
        for seed in 0..20 {
            let (_, recovered) = open(&disk.crashed(seed)).expect("opens");
            assert_eq!(recovered.epoch, Epoch(1), "operation {nth}, seed {seed}");
        }
    }
}

#[test]
fn opening_a_store_that_was_closed_makes_no_file() {
    let made = |close: bool| {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || JobStore::open(Arc::new(RealDisk), dir.path(), IN_MEMORY).expect("opens").0;
        let files = || {
            let entries = std::fs::read_dir(dir.path()).expect("a folder").map(|entry| entry.expect("an entry"));
            entries.map(|entry| (entry.file_name(), entry.ino())).collect::<BTreeSet<_>>()
        };
        let mut store = open();
        store.commit(Epoch(1), &EpochRecord::default()).expect("commits");
        if close {
            store.close().expect("closes");
        } else {
            drop(store);
        }
        let before = files();
        drop(open());
        files().difference(&before).count()
    };
    assert_eq!(made(true), 0);
    assert_eq!(made(false), 1, "the last frame of one that was killed is written again");
}

#[test]
fn every_flipped_bit_of_a_closed_store_is_seen() {
    for options in [IN_MEMORY, ON_DISK] {
        let disk = SimulatedDisk::default();
        let (store, ..) = grown_as(&disk, options);
        store.close().expect("closes");
        let layers = disk.files().keys().filter(|path| path.to_string_lossy().contains("layer-")).count();
        assert_eq!(layers, usize::from(options == ON_DISK));
        let mut bits = 0;
        flip_every_bit(&disk, |path, bit, opened| match opened {
            Err(StoreError::Corrupt { path: named, .. }) => {
                assert_eq!(named, path, "bit {bit}");
                bits += 1;
            }
            other => panic!("bit {bit} of {}: {other:?}", path.display()),
        });
        assert!(bits > 10_000, "{bits} bits");
    }
}

#[test]
fn flipped_bit_of_a_killed_store_is_seen_or_costs_the_last_epoch() {
    let disk = SimulatedDisk::default();
    let (store, _, before) = grown(&disk);
    drop(store);
    let last = Path::new(DIR).join("log-0000000000000006");
    flip_every_bit(&disk, |path, bit, opened| match opened {
        Err(StoreError::Corrupt { path: named, .. }) => assert_eq!(named, path, "bit {bit}"),
        Ok(recovered) => {
            assert!(path == last && recovered == before.recovered(), "bit {bit} of {}", path.display());
        }
        other => panic!("bit {bit} of {}: {other:?}", path.display()),
    });
}

#[test]
fn missing_segment_is_seen() {
    let disk = SimulatedDisk::default();
    drop(grown(&disk).0);
    let missing = Path::new(DIR).join("log-0000000000000004");
    disk.remove(&missing).expect("a segment");
    assert_eq!(open(&disk).expect_err("epochs are missing").kind(), ErrorKind::Corrupt);
}
