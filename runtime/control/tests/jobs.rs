//! Jobs over a state directory: what is durable, what is refused, and that the log stays short.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wasmill_contract::{
    Aggregate, BoxFuture, Committer, Cut, DeadLetter, OpenError, Operator, OperatorContext, OperatorError,
    OperatorFactory, Share, StageCut,
};
use wasmill_control::{ControlError, Dropped, Opened};
use wasmill_engine::NodePart;
use wasmill_env::{Disk, Fault, SimulatedDisk};
use wasmill_model::{
    BatchBuilder, Column, ColumnBuilder, ColumnSet, Descriptor, Epoch, ErrorKind, Firing, JobName, LetterKind,
    LetterSubject, NodeName, PaneMode, PluginDigest, SpaceDescriptor, Timestamp, Trigger, WindowShape, WindowSpec,
};
use wasmill_plan::FaultPolicy;
use wasmill_plan::{Chain, Edge, Node, NodeKind, Plan};
use wasmill_store::{ChangeSet, EntryChange, LetterId, StoreError, StoreOptions};

const DIR: &str = "state";
const NO_WINDOW: Option<WindowShape> = None;

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

/// A plugin that is only described.
struct Described(Descriptor, PluginDigest);

impl OperatorFactory for Described {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn digest(&self) -> PluginDigest {
        self.1
    }

    fn open(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        Box::pin(async {
            Err(Box::new(OpenError { cause: OperatorError::Instance("only described".into()), context }))
        })
    }

    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        Box::pin(async {
            Err(Box::new(OpenError { cause: OperatorError::Instance("only described".into()), context }))
        })
    }
}

fn stage(digest: u8, spaces: &[(&str, u32)]) -> NodePart {
    described(digest, spaces, false)
}

fn described(digest: u8, spaces: &[(&str, u32)], aggregate: bool) -> NodePart {
    let space =
        |&(name, schema_version): &(&str, u32)| SpaceDescriptor { name: name.into(), schema_version, ttl: None };
    let descriptor = Descriptor {
        name: "count".into(),
        version: "1.0.0".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        spaces: spaces.iter().map(space).collect(),
        columns: ColumnSet::default(),
        watermarks: false,
        timed: false,
        aggregate,
        migrates: false,
    };
    NodePart::Stage(Arc::new(Described(descriptor, PluginDigest([digest; 32]))))
}

/// A job of one stage, named so.
fn plan<W: Into<WindowSpec>>(job: &str, stage: &str, window: Option<W>) -> Plan {
    Plan {
        job: JobName::new(job).expect("a name"),
        nodes: vec![Node {
            name: name(stage),
            kind: NodeKind::Stage { window: window.map(Into::into), faults: FaultPolicy::default() },
            chain: 0,
        }],
        edges: Vec::<Edge>::new(),
        chains: vec![Chain { nodes: vec![0], parallelism: 1, convoy: None }],
        orders: std::collections::BTreeMap::new(),
    }
}

fn take(disk: &Arc<SimulatedDisk>, plan: &Plan, part: NodePart) -> Result<Opened, ControlError> {
    take_or_drop(disk, plan, part, Dropped::Refuse)
}

fn take_or_drop(
    disk: &Arc<SimulatedDisk>,
    plan: &Plan,
    part: NodePart,
    dropped: Dropped,
) -> Result<Opened, ControlError> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    let options = StoreOptions { log_bytes_max: 4 << 10, ..StoreOptions::default() };
    wasmill_control::take(disk, Path::new(DIR), options)?.open(plan, &[part], &BTreeMap::new(), dropped)
}

fn counted(key: &str, value: &str) -> Cut {
    let entry = EntryChange {
        space: 0,
        key: key.as_bytes().into(),
        subkey: Box::default(),
        value: Some(value.as_bytes().into()),
        written: i64::MIN,
    };
    let state = ChangeSet::from_iter([entry]);
    let share = Share::WHOLE;
    Cut {
        stages: vec![StageCut { node: name("count"), share, state, timers: Vec::new(), windows: None, plugin: None }],
        ..Cut::default()
    }
}

/// The state directory after `epochs` epochs of the stage `count` with the space `seen`.
async fn committed(epochs: u64) -> Arc<SimulatedDisk> {
    let disk = Arc::new(SimulatedDisk::default());
    let mut opened =
        take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("an empty directory");
    assert_eq!((opened.recovered.epoch, opened.finished), (Epoch(0), false));
    for epoch in 1..=epochs {
        let cut = counted("a", &epoch.to_string());
        opened.committer.commit(Epoch(epoch), vec![cut]).await.expect("a disk without faults");
    }
    disk
}

#[tokio::test]
async fn what_was_committed_is_there_again() {
    let disk = committed(3).await;
    let opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("its own state");
    assert_eq!((opened.recovered.epoch, opened.finished), (Epoch(3), false));
    let held = &opened.recovered.stages[&name("count")].state;
    assert_eq!(held.iter().map(|entry| entry.value.as_deref()).collect::<Vec<_>>(), [Some(&b"3"[..])]);
}

#[tokio::test]
async fn a_job_that_was_stopped_goes_on_and_one_that_has_finished_does_not() {
    let disk = committed(1).await;
    for (complete, finished) in [(false, false), (true, true)] {
        let part = stage(1, &[("seen", 1)]);
        let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), part).expect("its own state");
        assert!(!opened.finished);
        opened.committer.close(complete).await.expect("a disk without faults");
        let again = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("its own state");
        assert_eq!(again.finished, finished);
    }
}

#[tokio::test]
async fn a_directory_is_one_process_and_one_job() {
    let disk = committed(1).await;
    let part = || stage(1, &[("seen", 1)]);
    let held = take(&disk, &plan("job", "count", NO_WINDOW), part()).expect("its own state");
    let error = take(&disk, &plan("job", "count", NO_WINDOW), part()).expect_err("somebody has it");
    assert!(matches!(error, ControlError::Store(StoreError::InUse { .. })), "{error}");
    drop(held);
    let error = take(&disk, &plan("other", "count", NO_WINDOW), part()).expect_err("another job");
    let text = error.to_string();
    assert_eq!(text, "the state is that of job \"job\", not of \"other\": name another directory, or start anew");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_changed_job_goes_on_only_where_its_state_fits() {
    let disk = committed(1).await;
    let refused = |stage_name: &str, window, part| {
        take(&disk, &plan("job", stage_name, window), part).expect_err("it does not fit").to_string()
    };
    let zeros = "01".repeat(32);
    assert_eq!(
        refused("count", NO_WINDOW, stage(2, &[("seen", 2), ("more", 1)])),
        format!(
            "stage \"count\" cannot go on: its state was kept in \"seen\" (schema 1), and its plugin now declares \
             \"seen\" (schema 2), \"more\" (schema 1); use the plugin sha256:{zeros} that wrote it, or drop spaces \
             that are only missing with --allow-dropped"
        )
    );
    assert_eq!(
        refused("renamed", NO_WINDOW, stage(1, &[("seen", 1)])),
        "the state has stage \"count\", which the job lacks: put it back under that name, or drop it with \
         --allow-dropped"
    );
    assert_eq!(
        refused("count", Some(WindowShape::Tumbling { size_micros: 5 }), stage(1, &[("seen", 1)])),
        "stage \"count\" cannot go on: it had no windows and now has windows \"tumbling 5us\"; give it the windows it \
         had, or start anew"
    );
    // Another build of the plugin that keeps its state in the same way.
    let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(2, &[("seen", 1)])).expect("it fits");
    opened.committer.commit(Epoch(2), vec![]).await.expect("a disk without faults");
    drop(opened);
    let opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(2, &[("seen", 1)])).expect("it fits");
    let fact = String::from_utf8_lossy(&opened.recovered.meta["stage.count"]).into_owned();
    assert!(fact.contains(&"02".repeat(32)), "{fact}");
}

#[tokio::test]
async fn windows_go_on_only_with_their_triggers_and_the_version_of_their_accumulators() {
    let disk = Arc::new(SimulatedDisk::default());
    let shape = WindowShape::Session { gap_micros: 30_000_000 };
    let early = Some(Trigger { rows: Some(100), ..Trigger::default() });
    let firing = Firing { early, lateness_micros: 60_000_000, panes: PaneMode::Retract, ..Firing::default() };
    let windows = |firing| plan("job", "count", Some(WindowSpec { shape, firing }));
    let mut opened = take(&disk, &windows(firing), described(1, &[], true)).expect("an empty directory");
    opened.committer.commit(Epoch(1), vec![]).await.expect("a disk without faults");
    drop(opened);
    let refused = |plan: &Plan, part| take(&disk, plan, part).expect_err("it does not fit").to_string();
    assert_eq!(
        refused(&windows(Firing::default()), described(1, &[], true)),
        "stage \"count\" cannot go on: it had windows \"sessions, gap 30s, early after 100 events, lateness 1m, \
         retracting\" and now has windows \"sessions, gap 30s\"; give it the windows it had, or start anew"
    );
    assert_eq!(
        refused(&windows(firing), described(2, &[("accumulator", 2)], true)),
        format!(
            "stage \"count\" cannot go on: its state was kept in \"accumulator\" (schema 1), and its plugin now \
             declares \"accumulator\" (schema 2); use the plugin sha256:{} that wrote it, or drop spaces that are \
             only missing with --allow-dropped",
            "01".repeat(32)
        )
    );
    // Another build, with the same accumulators.
    for part in [described(2, &[], true), described(3, &[("accumulator", 1)], true)] {
        take(&disk, &windows(firing), part).expect("it fits");
    }
}

/// What a stage of this name finds under key `a`, space by space.
fn held(opened: &Opened, stage: &str, spaces: &[(&str, u32)]) -> Vec<Option<String>> {
    let space =
        |&(name, schema_version): &(&str, u32)| SpaceDescriptor { name: name.into(), schema_version, ttl: None };
    let spaces: Vec<_> = spaces.iter().map(space).collect();
    let (node, held) = (name(stage), opened.recovered.stages.get(&name(stage)).cloned().unwrap_or_default().state);
    let mut state = opened.states.open(&node, (0, 1), opened.recovered.epoch, &spaces, held);
    let mut of_space = |place: usize| {
        let (key, mut values) = ([b"a"].into_iter().collect(), ColumnBuilder::default());
        let found = state.get_many(place as u16, &key, &Column::default(), &mut values).expect("a valid get");
        found.get(0).then(|| String::from_utf8_lossy(values.finish().row(0)).into_owned())
    };
    (0..spaces.len()).map(&mut of_space).collect()
}

#[tokio::test]
async fn spaces_are_matched_by_name_and_what_is_new_starts_empty() {
    let disk = committed(1).await;
    let one = Some("1".to_owned());
    let spaces = [("more", 1), ("seen", 1)];
    let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(2, &spaces)).expect("it fits");
    assert_eq!(held(&opened, "count", &spaces), [None, one.clone()]);
    // The first place is the new space now.
    opened.committer.commit(Epoch(2), vec![counted("a", "new")]).await.expect("a disk without faults");
    drop(opened);
    let spaces = [("seen", 1), ("more", 1)];
    let opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &spaces)).expect("it fits");
    assert_eq!(held(&opened, "count", &spaces), [one, Some("new".to_owned())]);
}

#[tokio::test]
async fn what_is_dropped_is_gone_for_good() {
    let disk = committed(1).await;
    let without = |dropped| take_or_drop(&disk, &plan("job", "count", NO_WINDOW), stage(2, &[]), dropped);
    assert!(matches!(without(Dropped::Refuse), Err(ControlError::SpacesChanged { .. })));
    let mut opened = without(Dropped::Forget).expect("it may");
    opened.committer.commit(Epoch(2), vec![]).await.expect("a disk without faults");
    drop(opened);
    let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("it fits");
    assert_eq!(held(&opened, "count", &[("seen", 1)]), [None], "the space is another one of the same name");
    opened.committer.commit(Epoch(3), vec![counted("a", "3")]).await.expect("a disk without faults");
    drop(opened);
    let other = plan("job", "other", NO_WINDOW);
    let mut opened = take_or_drop(&disk, &other, stage(1, &[]), Dropped::Forget).expect("it may");
    assert!(opened.recovered.stages.is_empty());
    opened.committer.commit(Epoch(4), vec![]).await.expect("a disk without faults");
    drop(opened);
    let added = plan("job", "count", NO_WINDOW);
    let opened = take_or_drop(&disk, &added, stage(1, &[("seen", 1)]), Dropped::Forget).expect("it starts empty");
    assert_eq!(held(&opened, "count", &[("seen", 1)]), [None]);
}

#[tokio::test]
async fn state_moves_between_memory_and_disk() {
    let disk = committed(3).await;
    let three = [Some("3".to_owned())];
    for options in [StoreOptions::on_disk(1 << 20), StoreOptions::default(), StoreOptions::on_disk(1 << 20)] {
        let part = stage(1, &[("seen", 1)]);
        let disk: Arc<dyn Disk> = Arc::clone(&disk) as Arc<dyn Disk>;
        let job = plan("job", "count", NO_WINDOW);
        let opened = (wasmill_control::take(disk, Path::new(DIR), options).expect("a directory"))
            .open(&job, &[part], &BTreeMap::new(), Dropped::Refuse)
            .expect("its own state");
        assert_eq!(held(&opened, "count", &[("seen", 1)]), three);
    }
}

#[tokio::test]
async fn after_a_failed_epoch_nothing_is_committed() {
    let disk = committed(1).await;
    let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("its own state");
    disk.fail_at(1, Fault::Io, 1);
    let error = opened.committer.commit(Epoch(2), vec![counted("a", "2")]).await.expect_err("a broken disk");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let error = opened.committer.commit(Epoch(2), vec![counted("a", "2")]).await.expect_err("still");
    assert!(error.reason.contains("start the job again"), "{error}");
}

#[tokio::test]
async fn rejected_rows_belong_to_their_epoch() {
    let disk = committed(1).await;
    let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("its own state");
    let mut rows = BatchBuilder::default();
    rows.push(Timestamp(7), b"k", b"v");
    let letter = DeadLetter {
        node: name("count"),
        digest: None,
        kind: LetterKind::Rejected,
        subject: LetterSubject::default(),
        rows: rows.finish(0),
        reasons: vec!["too small".into()],
        stack: vec![],
    };
    let cut = Cut { dead_letters: vec![letter], ..Cut::default() };
    opened.committer.commit(Epoch(2), vec![cut]).await.expect("a disk without faults");
    drop(opened);
    let opened = take(&disk, &plan("job", "count", NO_WINDOW), stage(1, &[("seen", 1)])).expect("its own state");
    let letters = opened.committer.letters(LetterId(0), 10).expect("readable");
    let (_, letter) = &letters[0];
    assert_eq!(
        (letters.len(), letter.epoch, letter.reason.as_str(), &letter.value[..]),
        (1, Epoch(2), "too small", &b"v"[..])
    );
}

#[tokio::test]
async fn the_log_stays_short_while_a_job_runs() {
    let disk = Arc::new(SimulatedDisk::default());
    let part = || stage(1, &[("seen", 1)]);
    let mut opened = take(&disk, &plan("job", "count", NO_WINDOW), part()).expect("an empty directory");
    for epoch in 1..=2_000 {
        let cut = counted("a", &epoch.to_string());
        opened.committer.commit(Epoch(epoch), vec![cut]).await.expect("a disk without faults");
    }
    opened.committer.close(false).await.expect("a disk without faults");
    let bytes: usize = disk.files().values().map(Vec::len).sum();
    // 2,000 epochs of 100 bytes and more, of which one entry is left.
    assert!(bytes < 100_000, "{bytes} bytes");
    let opened = take(&disk, &plan("job", "count", NO_WINDOW), part()).expect("its own state");
    assert_eq!(opened.recovered.stages[&name("count")].state[0].value.as_deref(), Some(&b"2000"[..]));
}
