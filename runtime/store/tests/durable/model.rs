//! A store against a naive model, with commits, compactions and reopening in any order.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use wasmill_env::{RealDisk, SimulatedDisk};
use wasmill_model::{Epoch, ErrorKind};
use wasmill_store::{Compaction, JobStore, LetterId, Recovered, RecoveredStage, StoreError, StoreOptions};

use crate::common::{Chance, Model, record, sorted};

const DIR: &str = "/jobs/one";

#[derive(Debug, Clone)]
enum Step {
    Commit(u64),
    Reopen,
    Kill,
    BeginCompaction,
    FinishCompaction,
    DropLetter(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any::<u64>().prop_map(Step::Commit),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        2 => Just(Step::BeginCompaction),
        2 => Just(Step::FinishCompaction),
        1 => (0..20_u64).prop_map(Step::DropLetter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn store_gives_back_what_the_model_holds(
        steps in prop::collection::vec(step(), 1..60),
        bytes_max in prop_oneof![Just(1_u64), Just(3_000), Just(1 << 20)],
        state_cache_bytes in prop_oneof![Just(None), Just(Some(10_000_u64))],
    ) {
        let options = StoreOptions { compaction_bytes_max: bytes_max, state_cache_bytes, ..StoreOptions::default() };
        let mut disk = SimulatedDisk::default();
        let open = |disk: &SimulatedDisk| JobStore::open(Arc::new(disk.clone()), Path::new(DIR), options).expect("opens");
        let (mut store, _) = open(&disk);
        let mut model = Model::default();
        let mut compaction: Option<Compaction> = None;
        for step in steps {
            match step {
                Step::Commit(seed) => {
                    let record = record(&mut Chance(seed), &model);
                    store.commit(model.epoch.next(), &record).expect("commits");
                    model.apply(model.epoch.next(), &record);
                }
                Step::Reopen | Step::Kill => {
                    compaction = None;
                    if matches!(step, Step::Kill) {
                        disk = disk.killed();
                        drop(store);
                    } else {
                        store.close().expect("closes");
                    }
                    prop_assert_eq!(sorted(everything(&disk, options)), model.recovered());
                    (store, _) = open(&disk);
                }
                Step::BeginCompaction => {
                    if compaction.is_some() {
                        let refused = matches!(store.begin_compaction(), Err(StoreError::Compacting { .. }));
                        prop_assert!(refused);
                    }
                    // One that is given up leaves nothing behind.
                    drop(compaction.take());
                    compaction = Some(store.begin_compaction().expect("begins"));
                }
                Step::FinishCompaction => {
                    if let Some(compaction) = compaction.take() {
                        store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
                    }
                }
                Step::DropLetter(id) => {
                    store.drop_letters(&[LetterId(id)]).expect("drops");
                    model.letters.remove(&LetterId(id));
                    model.replays.remove(&LetterId(id));
                }
            }
            let letters: Vec<_> = model.letters.clone().into_iter().collect();
            prop_assert_eq!(store.letters(LetterId(0), usize::MAX).expect("lists"), letters.clone());
            let some: Vec<_> = letters.into_iter().filter(|(id, _)| id.0 >= 2).take(2).collect();
            prop_assert_eq!(store.letters(LetterId(2), 2).expect("lists"), some);
        }
        drop(store);
        prop_assert_eq!(sorted(everything(&disk.killed(), options)), model.recovered());
    }
}

/// Opens a store as a job does, and says all it holds, with state that stays on disk.
fn everything(disk: &SimulatedDisk, options: StoreOptions) -> Recovered {
    let open = |options| JobStore::open(Arc::new(disk.clone()), Path::new(DIR), options).expect("opens");
    let (_, recovered) = open(options);
    let (_, with_state) = open(StoreOptions { state_cache_bytes: None, ..options });
    let but_state = |recovered: &Recovered| {
        let mut recovered = recovered.clone();
        recovered.stages.values_mut().for_each(|stage| stage.state.clear());
        recovered.stages.retain(|_, stage| *stage != RecoveredStage::default());
        recovered
    };
    assert_eq!(but_state(&recovered), but_state(&with_state));
    with_state
}

#[test]
fn store_works_on_a_real_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("jobs/one");
    let open = || JobStore::open(Arc::new(RealDisk), &folder, StoreOptions::default());
    let (mut store, mut chance, mut model) = (open().expect("opens").0, Chance(1), Model::default());
    assert!(matches!(open(), Err(StoreError::InUse { .. })));
    for number in 0..20 {
        let record = record(&mut chance, &model);
        store.commit(model.epoch.next(), &record).expect("commits");
        model.apply(model.epoch.next(), &record);
        if number == 10 {
            let compaction = store.begin_compaction().expect("begins");
            store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
        }
    }
    drop(store);
    assert_eq!(sorted(open().expect("opens").1), model.recovered());
}

#[test]
fn commits_go_on_while_a_compaction_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || JobStore::open(Arc::new(RealDisk), dir.path(), StoreOptions::default()).expect("opens");
    let ((mut store, _), mut chance, mut model) = (open(), Chance(2), Model::default());
    let mut commit = |store: &mut JobStore, model: &mut Model| {
        let record = record(&mut chance, model);
        store.commit(model.epoch.next(), &record).expect("commits");
        model.apply(model.epoch.next(), &record);
    };
    for _ in 0..5 {
        for _ in 0..5 {
            commit(&mut store, &mut model);
        }
        let compaction = store.begin_compaction().expect("begins");
        let running = std::thread::spawn(move || compaction.run());
        while !running.is_finished() {
            commit(&mut store, &mut model);
        }
        store.finish_compaction(running.join().expect("ends").expect("runs")).expect("finishes");
    }
    drop(store);
    assert_eq!(sorted(open().1), model.recovered());
}

#[test]
fn export_is_a_whole_job_in_one_file() {
    let disk = SimulatedDisk::default();
    let open = |dir: &str| JobStore::open(Arc::new(disk.clone()), Path::new(dir), StoreOptions::default());
    let (mut store, mut chance, mut model) = (open(DIR).expect("opens").0, Chance(3), Model::default());
    for _ in 0..10 {
        let record = record(&mut chance, &model);
        store.commit(model.epoch.next(), &record).expect("commits");
        model.apply(model.epoch.next(), &record);
    }
    let file = Path::new("/jobs/savepoint");
    store.begin_compaction().expect("begins").export(file).expect("exports");
    let (summary, wanted) = (JobStore::inspect(&disk, file).expect("inspects"), model.recovered());
    assert_eq!((summary.epoch, summary.meta, summary.sinks), (wanted.epoch, wanted.meta, wanted.sinks));
    assert_eq!((summary.positions, summary.dead_letters), (wanted.positions, wanted.dead_letters));
    for (node, stage) in &wanted.stages {
        let counted = &summary.stages[node];
        let state: u64 = counted.spaces.values().map(|held| held.entries).sum();
        let counts = (state, counted.timers.entries, counted.panes.entries);
        assert_eq!(counts, (stage.state.len() as u64, stage.timers.len() as u64, stage.panes.len() as u64));
    }
    let import = |dir: &str| JobStore::import(&disk, file, Path::new(dir), 7);
    import("/jobs/two").expect("imports");
    let restored_at = |dir: &str| JobStore::restored_at(&disk, Path::new(dir)).expect("reads");
    assert_eq!((restored_at("/jobs/two"), restored_at(DIR)), (Some(7), None));
    assert!(matches!(import("/jobs/two"), Err(StoreError::NotEmpty { .. })));
    let (mut two, recovered) = open("/jobs/two").expect("opens");
    assert_eq!(sorted(recovered), model.recovered());
    two.commit(model.epoch.next(), &record(&mut chance, &model)).expect("commits");
}

#[test]
fn epochs_out_of_order_are_refused_and_change_nothing() {
    let disk = SimulatedDisk::default();
    let (mut store, _) = JobStore::open(Arc::new(disk), Path::new(DIR), StoreOptions::default()).expect("opens");
    let record = record(&mut Chance(1), &Model::default());
    for epoch in [0, 2] {
        let error = store.commit(Epoch(epoch), &record).expect_err("not the next one");
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
    store.commit(Epoch(1), &record).expect("commits");
}

#[test]
fn log_is_due_for_compaction_once_it_is_larger_than_the_base() {
    let options = StoreOptions { log_bytes_max: 20_000, ..StoreOptions::default() };
    let disk = SimulatedDisk::default();
    let (mut store, _) = JobStore::open(Arc::new(disk), Path::new(DIR), options).expect("opens");
    let (mut chance, mut model, mut compactions) = (Chance(1), Model::default(), 0);
    while compactions < 5 {
        let record = record(&mut chance, &model);
        store.commit(model.epoch.next(), &record).expect("commits");
        model.apply(model.epoch.next(), &record);
        assert!(store.compaction_due() == (store.log_bytes() > 20_000) || compactions > 0);
        if store.compaction_due() {
            let compaction = store.begin_compaction().expect("begins");
            store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
            assert!(!store.compaction_due());
            compactions += 1;
        }
    }
}

#[test]
fn stage_is_dealt_to_another_number_of_shares_by_key() {
    let (mut chance, mut model) = (Chance(5), Model::default());
    for _ in 0..20 {
        let record = record(&mut chance, &model);
        model.apply(model.epoch.next(), &record);
    }
    let (node, mut stage) = model.recovered().stages.pop_first().expect("a stage");
    let even = stage.progress[0].2;
    stage.progress = vec![(0, 2, even), (1, 2, even)];
    let split = stage.clone().split(&node, 3).expect("deals");
    assert_eq!(split.iter().map(|part| part.state.len()).sum::<usize>(), stage.state.len());
    let of_share = stage.held.iter().filter(|held| held.name[0] == 0).count();
    let dealt: usize = split.iter().map(|part| part.held.len()).sum();
    assert_eq!(dealt, stage.held.len() + 2 * of_share, "every share gets what belongs to none of the keys");
    assert!(split.iter().zip(0..).all(|(part, share)| part.progress == [(share, 3, even)]));
    stage.progress[1].2.panes += 1;
    assert!(matches!(stage.clone().split(&node, 3), Err(StoreError::UnevenWindows { .. })));
    assert_eq!(stage.clone().split(&node, 2).expect("as it was")[1].progress, [stage.progress[1]]);
}
