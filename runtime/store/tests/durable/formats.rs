//! Files that an older Wasmill wrote must be read for good.
//!
//! `tests/fixtures/v*` hold a base with epochs 1 and 2 and a log with epochs 3 and 4 and an edit. A
//! version is frozen with its release: changed bytes need a new version and a new folder, made by
//! `WASMILL_WRITE_FIXTURES=1 cargo test -p wasmill-store formats`.
//!
//! Version 1 knew no kinds of rejected rows, no stacks, and no replays; version 2 no ordering buffers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_env::{RealDisk, SimulatedDisk};
use wasmill_model::{Clock, Epoch, ErrorKind, LetterKind, LetterSubject, PartitionId, PluginDigest, Position};
use wasmill_store::{
    ChangeSet, EntryChange, EpochRecord, HeldRecord, JobStore, LetterId, LetterRecord, PaneRecord, PositionRecord,
    ProgressRecord, Recovered, RecoveredStage, SinkRecord, StageRecord, StoreError, StoreOptions, TimerRecord,
    WindowRecord,
};

use crate::common::node;

pub(crate) const DIR: &str = "/job";

/// What is written now.
const VERSION: u32 = 3;

fn fixtures(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

fn position(offset: &[u8]) -> PositionRecord {
    PositionRecord { node: node("sensors"), partition: PartitionId(300), position: Position(offset.into()) }
}

fn entry(space: u16, key: &[u8], subkey: &[u8], value: Option<&[u8]>) -> EntryChange {
    EntryChange { space, key: key.into(), subkey: subkey.into(), value: value.map(Into::into), written: i64::MIN }
}

fn timer(clock: Clock, key: &[u8], tag: &[u8], set: Option<(i64, u64)>) -> TimerRecord {
    TimerRecord { clock, key: key.into(), tag: tag.into(), set }
}

fn pane(slice: i64, key: &[u8], order: u32, accumulator: &[u8]) -> PaneRecord {
    PaneRecord { slice, key: key.into(), order, accumulator: accumulator.into() }
}

fn sink(handle: &[u8]) -> SinkRecord {
    SinkRecord { node: node("counts"), share: 0, shares: 1, handle: handle.into() }
}

fn letter() -> LetterRecord {
    LetterRecord {
        epoch: Epoch(1),
        node: node("classify"),
        digest: Some(PluginDigest([0xab; 32])),
        kind: LetterKind::Trap,
        subject: LetterSubject::Row { port: 1 },
        reason: "no length".into(),
        stack: vec!["length".into(), "classify".into()],
        time: -1,
        key: b"bridge-7".into(),
        value: b"{}".into(),
        origin: Some(position(b"offset 17")),
    }
}

fn timer_letter() -> LetterRecord {
    LetterRecord { kind: LetterKind::Timeout, subject: LetterSubject::Timer(Clock::Processing), ..letter() }
}

fn stage(state: Vec<EntryChange>, timers: Vec<TimerRecord>, windows: Option<WindowRecord>) -> StageRecord {
    StageRecord { node: node("classify"), share: 0, shares: 1, state: ChangeSet::from_iter(state), timers, windows }
}

fn windows(next_window: i128, dropped: Vec<i64>, entries: Vec<PaneRecord>) -> Option<WindowRecord> {
    Some(WindowRecord { progress: ProgressRecord { next_window, panes: 1 }, dropped, gone: Vec::new(), entries })
}

fn held(port: u16, key: &[u8], name: &[u8], value: Option<&[u8]>) -> HeldRecord {
    HeldRecord { node: node("classify"), port, key: key.into(), name: name.into(), value: value.map(Into::into) }
}

fn epochs() -> [EpochRecord; 4] {
    let first = stage(
        vec![entry(0, b"bridge-7", b"", Some(b"41")), entry(1, b"bridge-7", b"north", Some(&[7; 300]))],
        vec![timer(Clock::Event, b"bridge-7", b"close", Some((-60_000_000, 0)))],
        windows(-2, vec![], vec![pane(-60_000_000, b"car", 0, b"12"), pane(0, b"car", 0, b"1"), pane(0, b"", 1, b"")]),
    );
    let second = stage(vec![], vec![timer(Clock::Processing, b"", b"", Some((1_700_000_000_000_000, 1)))], None);
    let third = stage(
        vec![entry(0, b"bridge-7", b"", Some(b"42")), entry(1, b"bridge-7", b"north", None)],
        vec![timer(Clock::Event, b"bridge-7", b"close", None)],
        windows(i128::from(i64::MAX) + 1, vec![-60_000_000], vec![pane(0, b"car", 0, b"2")]),
    );
    let meta = |value: Option<&[u8]>| BTreeMap::from([("plan".to_owned(), value.map(Into::into))]);
    [
        EpochRecord {
            removed: vec![],
            meta: meta(Some(b"\x01\x02")),
            positions: vec![position(b"offset 16")],
            stages: vec![first],
            sinks: vec![sink(b"1"), SinkRecord { node: node("old"), ..sink(b"0") }],
            dead_letters: vec![letter()],
            ..EpochRecord::default()
        },
        EpochRecord {
            stages: vec![second],
            held: vec![held(1, b"car", &[2, 0], Some(b"row")), held(0, b"", &[0, 0, 0], Some(b"share"))],
            dead_letters: vec![letter(), timer_letter()],
            replays: vec![LetterId(0)],
            ..EpochRecord::default()
        },
        EpochRecord {
            positions: vec![position(b"offset 99")],
            stages: vec![third],
            held: vec![held(1, b"car", &[2, 0], None), held(1, b"car", &[2, 1], Some(b"next"))],
            ..EpochRecord::default()
        },
        EpochRecord { removed: vec![node("old")], sinks: vec![sink(b"2")], ..EpochRecord::default() },
    ]
}

fn expected() -> Recovered {
    let stage = RecoveredStage {
        state: vec![entry(0, b"bridge-7", b"", Some(b"42"))],
        timers: vec![timer(Clock::Processing, b"", b"", Some((1_700_000_000_000_000, 1)))],
        progress: vec![(0, 1, ProgressRecord { next_window: i128::from(i64::MAX) + 1, panes: 1 })],
        panes: vec![pane(0, b"", 1, b""), pane(0, b"car", 0, b"2")],
        held: vec![held(0, b"", &[0, 0, 0], Some(b"share")), held(1, b"car", &[2, 1], Some(b"next"))],
    };
    Recovered {
        epoch: Epoch(4),
        meta: BTreeMap::from([("plan".to_owned(), b"\x01\x02".to_vec())]),
        positions: vec![position(b"offset 99")],
        stages: BTreeMap::from([(node("classify"), stage)]),
        sinks: vec![sink(b"2")],
        dead_letters: 2,
        replays: vec![(LetterId(1), LetterRecord { epoch: Epoch(2), ..letter() })],
    }
}

fn written() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    // State that stays on disk makes layers.
    let open = JobStore::open(Arc::new(disk.clone()), Path::new(DIR), StoreOptions::on_disk(1 << 20));
    let (mut store, _) = open.expect("opens");
    for (number, record) in (1..).zip(&epochs()) {
        store.commit(Epoch(number), record).expect("commits");
        if number == 2 || number == 3 {
            let compaction = store.begin_compaction().expect("begins");
            store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
        }
    }
    store.drop_letters(&[LetterId(0)]).expect("drops");
    store.mark_for_replay(&[LetterId(1)]).expect("marks");
    disk
}

/// The fixture of a version, on a disk of its own.
pub(crate) fn stored(version: u32) -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    for file in fs::read_dir(fixtures(version)).expect("the fixture") {
        let file = file.expect("lists");
        disk.put(&Path::new(DIR).join(file.file_name()), fs::read(file.path()).expect("reads"));
    }
    disk
}

fn open(disk: &SimulatedDisk) -> Result<(JobStore, Recovered), StoreError> {
    JobStore::open(Arc::new(disk.clone()), Path::new(DIR), StoreOptions::default())
}

/// What versions without ordering buffers hold.
fn without_held() -> Recovered {
    let mut recovered = expected();
    recovered.stages.values_mut().for_each(|stage| stage.held.clear());
    recovered
}

#[test]
fn files_of_version_1_are_read() {
    let (store, recovered) = open(&stored(1)).expect("opens");
    assert_eq!(recovered, Recovered { dead_letters: 1, replays: vec![], ..without_held() });
    let (kind, subject, stack) = Default::default();
    let kept = LetterRecord { epoch: Epoch(2), kind, subject, stack, ..letter() };
    assert_eq!(store.letters(LetterId(0), 10).expect("lists"), [(LetterId(1), kept)]);
}

#[test]
fn files_of_version_1_go_on_as_version_3() {
    let disk = stored(1);
    let (mut store, _) = open(&disk).expect("opens");
    let record = EpochRecord { dead_letters: vec![letter()], ..EpochRecord::default() };
    store.commit(Epoch(5), &record).expect("commits");
    let compaction = store.begin_compaction().expect("begins");
    store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
    drop(store);
    let (store, recovered) = open(&disk).expect("opens");
    assert_eq!((recovered.epoch, recovered.stages), (Epoch(5), without_held().stages));
    let kinds = store.letters(LetterId(0), 10).expect("lists").into_iter().map(|(_, letter)| letter.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [LetterKind::Rejected, LetterKind::Trap]);
}

#[test]
fn files_of_version_2_are_read() {
    let (store, recovered) = open(&stored(2)).expect("opens");
    assert_eq!(recovered, without_held());
    let kept = [letter(), timer_letter()].map(|letter| LetterRecord { epoch: Epoch(2), ..letter });
    let [row, timer] = kept.map(Some);
    let letters = store.letters(LetterId(0), 10).expect("lists");
    assert_eq!(letters.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(letters.into_iter().map(|(_, letter)| Some(letter)).collect::<Vec<_>>(), [row, timer.clone()]);
    let some = store.letters_by_id(&[LetterId(0), LetterId(2), LetterId(9)].into()).expect("lists");
    assert_eq!(some, [(LetterId(2), timer.expect("a letter"))]);
}

#[test]
fn files_of_version_3_are_read() {
    let (store, recovered) = open(&stored(3)).expect("opens");
    assert_eq!(recovered, expected());
    let kept = [letter(), timer_letter()].map(|letter| LetterRecord { epoch: Epoch(2), ..letter });
    let [row, timer] = kept.map(Some);
    let letters = store.letters(LetterId(0), 10).expect("lists");
    assert_eq!(letters.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(letters.into_iter().map(|(_, letter)| Some(letter)).collect::<Vec<_>>(), [row, timer.clone()]);
    let some = store.letters_by_id(&[LetterId(0), LetterId(2), LetterId(9)].into()).expect("lists");
    assert_eq!(some, [(LetterId(2), timer.expect("a letter"))]);
}

#[test]
fn files_of_version_3_are_what_is_written() {
    let disk = written();
    if std::env::var_os("WASMILL_WRITE_FIXTURES").is_some() {
        fs::create_dir_all(fixtures(VERSION)).expect("a folder");
        for (path, bytes) in disk.files() {
            fs::write(fixtures(VERSION).join(path.file_name().expect("a name")), bytes).expect("writes");
        }
    }
    assert!(disk.files() == stored(VERSION).files(), "bytes on disk have changed: that takes a new version");
}

#[test]
fn files_of_a_newer_version_are_refused_as_such() {
    let disk = stored(VERSION);
    let path = Path::new(DIR).join("base-0000000000000002");
    let mut bytes = disk.files()[&path].clone();
    bytes[8] = 4;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..24]);
    bytes[24..32].copy_from_slice(&checksum.to_le_bytes());
    disk.put(&path, bytes);
    let error = open(&disk).expect_err("a newer version");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "/job/base-0000000000000002 has format version 4, this program reads up to 3: use a newer one"
    );
}

#[test]
fn error_of_damage_names_file_and_place() {
    let disk = stored(VERSION);
    disk.flip_bit(&Path::new(DIR).join("log-0000000000000004"), 8 * 40).expect("a bit");
    let error = open(&disk).expect_err("damaged");
    let text = "/job/log-0000000000000004 is damaged at byte 32: the checksum of the frame's header does not match, \
                and another follows at ";
    assert!(error.to_string().starts_with(text), "{error}");
}

#[test]
fn fixture_on_a_real_disk_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(fixtures(VERSION)).expect("the fixture") {
        let file = file.expect("lists");
        fs::copy(file.path(), dir.path().join(file.file_name())).expect("copies");
    }
    let open = || JobStore::open(Arc::new(RealDisk), dir.path(), StoreOptions::default());
    let (mut store, _) = open().expect("opens");
    store.commit(Epoch(5), &EpochRecord { sinks: vec![sink(b"3")], ..EpochRecord::default() }).expect("commits");
    drop(store);
    assert_eq!(open().expect("opens").1.sinks, [sink(b"3")]);
}
