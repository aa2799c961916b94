//! What every [`StateBackend`] does, as tests: `state_backend_suite!(MemoryState::default())` in a
//! test module runs all of it against a fresh, empty backend each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use wasmill_model::{Clock, Column, ColumnBuilder, Migrated, SpaceDescriptor, Timestamp, Ttl, key_group};

use crate::{Change, ChangeSet, StateBackend, StateError, WALK_ENTRIES_MAX, Walk};

/// One test for every case of the suite, on backends that the expression makes.
#[macro_export]
macro_rules! state_backend_suite {
    ($make:expr) => {
        $crate::state_backend_suite!($make; absent_entries_have_no_bit_and_no_bytes, reads_see_earlier_writes,
            later_rows_of_one_call_win, an_empty_value_exists, scan_goes_by_subkey_from_the_start_given,
            undo_takes_back_to_the_last_mark, undo_of_a_first_write_leaves_no_change, changes_come_once,
            revert_takes_back_to_the_last_changes, revert_takes_back_the_clock,
            entries_and_bytes_are_exact, wrong_calls_change_nothing, an_entry_expires_at_its_last_write_plus_lifetime,
            expired_entries_leave_as_deletions, a_group_moves_as_a_whole,
            a_walk_meets_every_entry_once, what_a_walk_rewrites_keeps_its_lifetime, behaves_as_the_model);
    };
    ($make:expr; $($case:ident),*) => {
        $(#[test]
        fn $case() {
            $crate::suite::$case(&|| Box::new($make));
        })*
    };
}

/// Makes fresh, empty backends.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn StateBackend>;

fn space(ttl: Option<Ttl>) -> SpaceDescriptor {
    SpaceDescriptor { name: "space".into(), schema_version: 1, ttl }
}

fn two_spaces(make: Make<'_>) -> Box<dyn StateBackend> {
    let mut state = make();
    state.declare(&[space(None), space(None)]);
    state
}

fn column(rows: &[&str]) -> Column {
    rows.iter().collect()
}

fn put(state: &mut dyn StateBackend, space: u16, entries: &[(&str, &str, &str)]) {
    let keys = entries.iter().map(|entry| entry.0).collect();
    let subkeys = entries.iter().map(|entry| entry.1).collect();
    let values = entries.iter().map(|entry| entry.2).collect();
    state.put_many(space, &keys, &subkeys, &values).expect("a valid put");
}

fn get(state: &mut dyn StateBackend, space: u16, entries: &[(&str, &str)]) -> Vec<Option<String>> {
    let keys = entries.iter().map(|entry| entry.0).collect();
    let subkeys = entries.iter().map(|entry| entry.1).collect();
    let mut values = ColumnBuilder::default();
    let found = state.get_many(space, &keys, &subkeys, &mut values).expect("a valid get");
    let values = values.finish();
    assert_eq!((found.len(), values.len()), (entries.len(), entries.len()));
    let value = |row| String::from_utf8(values.row(row).to_vec()).expect("test values are text");
    (0..entries.len())
        .map(|row| {
            assert!(found.get(row) || values.row(row).is_empty(), "an absent entry has an empty row");
            found.get(row).then(|| value(row))
        })
        .collect()
}

fn some(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn change(space: u16, key: &'static str, subkey: &'static str, value: Option<&'static str>) -> Change<'static> {
    Change { space, key: key.as_bytes(), subkey: subkey.as_bytes(), value: value.map(str::as_bytes), written: i64::MIN }
}

pub fn absent_entries_have_no_bit_and_no_bytes(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 0, &[("a", "s", "1")]);
    assert_eq!(get(&mut *state, 0, &[("a", ""), ("a", "s"), ("a", "t"), ("b", "s")]), [None, some("1"), None, None]);
    assert_eq!(get(&mut *state, 1, &[("a", "s")]), [None]);
    assert_eq!(get(&mut *state, 1, &[]), []);
}

pub fn reads_see_earlier_writes(make: Make<'_>) {
    let mut state = two_spaces(make);
    let long = "x".repeat(1_000);
    for value in ["", "1", &long, "2", "a value of some thirty characters"] {
        put(&mut *state, 0, &[("a", "", value), ("a", "s", value)]);
        assert_eq!(get(&mut *state, 0, &[("a", ""), ("a", "s")]), [some(value), some(value)]);
    }
    state.delete_many(0, &column(&["a", "none"]), &Column::default()).expect("a valid delete");
    assert_eq!(get(&mut *state, 0, &[("a", "")]), [None]);
    let mut values = ColumnBuilder::default();
    values.push(b"before");
    let keys = column(&["a", "a"]);
    state.get_many(0, &keys, &column(&["s", "t"]), &mut values).expect("a valid get");
    assert_eq!(values.finish(), column(&["before", "a value of some thirty characters", ""]));
}

pub fn later_rows_of_one_call_win(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 0, &[("a", "", "1"), ("b", "", "2"), ("a", "", "3")]);
    assert_eq!(get(&mut *state, 0, &[("a", ""), ("b", ""), ("a", "")]), [some("3"), some("2"), some("3")]);
}

pub fn an_empty_value_exists(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 0, &[("", "", "")]);
    assert_eq!(get(&mut *state, 0, &[("", "")]), [some("")]);
    assert_eq!((state.entries(), state.bytes()), (1, 0));
    assert_eq!(state.take_changes().sorted(), [change(0, "", "", Some(""))]);
}

pub fn scan_goes_by_subkey_from_the_start_given(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 0, &[("k", "b", "2"), ("k", "", "0"), ("k", "c", "3"), ("k", "a", "1"), ("l", "a", "9")]);
    let mut scan = |start: &[u8], limit| state.scan(0, b"k", start, limit).expect("a valid scan");
    assert_eq!(scan(b"", 9), (column(&["", "a", "b", "c"]), column(&["0", "1", "2", "3"])));
    assert_eq!(scan(b"b", 9), (column(&["b", "c"]), column(&["2", "3"])));
    assert_eq!(scan(b"aa", 1), (column(&["b"]), column(&["2"])));
    assert_eq!(scan(b"", 2), (column(&["", "a"]), column(&["0", "1"])));
    assert_eq!(scan(b"", 0), (Column::default(), Column::default()));
    assert_eq!(state.scan(0, b"none", b"", 9), Ok((Column::default(), Column::default())));
}

pub fn undo_takes_back_to_the_last_mark(make: Make<'_>) {
    let mut state = two_spaces(make);
    let long = "x".repeat(100);
    put(&mut *state, 0, &[("a", "", "1"), ("a", "s", &long), ("b", "", "2")]);
    state.mark();
    put(&mut *state, 0, &[("a", "", &long), ("a", "s", "short"), ("c", "", "new"), ("c", "s", "new")]);
    put(&mut *state, 0, &[("a", "", "again")]);
    state.delete_many(0, &column(&["b"]), &Column::default()).expect("a valid delete");
    for _ in 0..2 {
        state.undo();
        let seen = get(&mut *state, 0, &[("a", ""), ("a", "s"), ("b", ""), ("c", ""), ("c", "s")]);
        assert_eq!(seen, [some("1"), some(&long), some("2"), None, None]);
        assert_eq!((state.entries(), state.bytes()), (3, 106));
    }
    put(&mut *state, 0, &[("a", "", "4")]);
    state.undo();
    assert_eq!(get(&mut *state, 0, &[("a", "")]), [some("1")]);
    put(&mut *state, 0, &[("a", "", "5")]);
    state.mark();
    state.undo();
    assert_eq!(get(&mut *state, 0, &[("a", "")]), [some("5")]);
}

pub fn undo_of_a_first_write_leaves_no_change(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 0, &[("a", "", "1")]);
    state.take_changes();
    state.mark();
    put(&mut *state, 1, &[("a", "", "1"), ("b", "s", "2")]);
    put(&mut *state, 0, &[("a", "", "2")]);
    state.undo();
    assert_eq!(state.take_changes().sorted(), []);
    put(&mut *state, 0, &[("a", "", "3")]);
    assert_eq!(state.take_changes().sorted(), [change(0, "a", "", Some("3"))]);
}

pub fn revert_takes_back_to_the_last_changes(make: Make<'_>) {
    let mut state = two_spaces(make);
    let long = "x".repeat(100);
    put(&mut *state, 0, &[("a", "", "1"), ("b", "s", &long)]);
    state.take_changes();
    for _ in 0..2 {
        for value in ["2", "", &long] {
            state.mark();
            put(&mut *state, 0, &[("a", "", value), ("c", "s", value), ("b", "s", value)]);
            put(&mut *state, 1, &[("a", "", value)]);
        }
        state.mark();
        state.delete_many(0, &column(&["a", "c"]), &column(&["", "s"])).expect("a valid delete");
        state.revert();
        let seen = get(&mut *state, 0, &[("a", ""), ("b", "s"), ("c", "s")]);
        assert_eq!(seen, [some("1"), some(&long), None]);
        assert_eq!(get(&mut *state, 1, &[("a", "")]), [None]);
        assert_eq!((state.entries(), state.bytes()), (2, 104));
        state.undo();
        assert_eq!(get(&mut *state, 0, &[("a", "")]), [some("1")]);
    }
    assert_eq!(state.take_changes().sorted(), []);
    put(&mut *state, 0, &[("a", "", "3")]);
    assert_eq!(state.take_changes().sorted(), [change(0, "a", "", Some("3"))]);
}

pub fn revert_takes_back_the_clock(make: Make<'_>) {
    let mut state = make();
    state.declare(&[space(Some(Ttl { clock: Clock::Event, micros: 10 }))]);
    state.advance(Timestamp(100), Timestamp::MIN);
    put(&mut *state, 0, &[("a", "", "1")]);
    state.take_changes();
    state.advance(Timestamp(110), Timestamp::MIN);
    state.mark();
    put(&mut *state, 0, &[("b", "", "2")]);
    assert_eq!(get(&mut *state, 0, &[("a", "")]), [None]);
    state.revert();
    state.advance(Timestamp(109), Timestamp::MIN);
    assert_eq!(get(&mut *state, 0, &[("a", ""), ("b", "")]), [some("1"), None]);
    assert_eq!(state.take_changes().sorted(), []);
    for _ in 0..100 {
        state.advance(Timestamp(110), Timestamp::MIN);
    }
    assert_eq!(get(&mut *state, 0, &[("a", "")]), [None]);
    assert_eq!(state.take_changes().sorted(), [change(0, "a", "", None)]);
}

pub fn changes_come_once(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 1, &[("b", "", "1"), ("a", "t", "2"), ("a", "s", "3"), ("b", "", "4")]);
    put(&mut *state, 0, &[("c", "", "5"), ("ab", "", "6")]);
    state.delete_many(1, &column(&["a", "never there"]), &column(&["t", ""])).expect("a valid delete");
    let changes = [
        change(0, "ab", "", Some("6")),
        change(0, "c", "", Some("5")),
        change(1, "a", "s", Some("3")),
        change(1, "a", "t", None),
        change(1, "b", "", Some("4")),
    ];
    assert_eq!(state.take_changes().sorted(), changes);
    assert_eq!(state.take_changes().sorted(), []);
    state.delete_many(1, &column(&["a"]), &column(&["s"])).expect("a valid delete");
    assert_eq!(state.take_changes().sorted(), [change(1, "a", "s", None)]);
    assert_eq!(get(&mut *state, 1, &[("a", "s"), ("b", "")]), [None, some("4")]);
}

pub fn entries_and_bytes_are_exact(make: Make<'_>) {
    let mut state = two_spaces(make);
    put(&mut *state, 0, &[("key", "", "1234"), ("key", "sub", "12"), ("key", "sub", "1")]);
    put(&mut *state, 1, &[("key", "sub", "")]);
    assert_eq!((state.entries(), state.bytes()), (3, 7 + 7 + 6));
    state.delete_many(0, &column(&["key", "key"]), &Column::default()).expect("a valid delete");
    assert_eq!((state.entries(), state.bytes()), (2, 13));
}

pub fn wrong_calls_change_nothing(make: Make<'_>) {
    let mut state = two_spaces(make);
    let (two, three) = (column(&["a", "b"]), column(&["1", "2", "3"]));
    let unknown = StateError::UnknownSpace { space: 2, declared: 2 };
    assert_eq!(state.put_many(2, &two, &two, &two), Err(unknown.clone()));
    assert_eq!(state.scan(2, b"a", b"", 1), Err(unknown));
    let count = |what| StateError::RowCount { what, got: 3, want: 2 };
    assert_eq!(state.put_many(0, &two, &two, &three), Err(count("values")));
    assert_eq!(state.put_many(0, &two, &three, &two), Err(count("subkeys")));
    assert_eq!(state.delete_many(0, &two, &three), Err(count("subkeys")));
    assert_eq!(state.get_many(0, &two, &three, &mut ColumnBuilder::default()), Err(count("subkeys")));
    assert_eq!((state.entries(), state.take_changes().sorted()), (0, vec![]));
}

pub fn an_entry_expires_at_its_last_write_plus_lifetime(make: Make<'_>) {
    for clock in [Clock::Event, Clock::Processing] {
        let mut state = make();
        state.declare(&[space(Some(Ttl { clock, micros: 10 })), space(None)]);
        let advance = |state: &mut dyn StateBackend, now| match clock {
            Clock::Event => state.advance(Timestamp(now), Timestamp::MIN),
            Clock::Processing => state.advance(Timestamp::MIN, Timestamp(now)),
        };
        advance(&mut *state, 100);
        put(&mut *state, 0, &[("a", "", "1"), ("a", "s", "2"), ("b", "", "3")]);
        put(&mut *state, 1, &[("a", "", "for ever")]);
        advance(&mut *state, 109);
        put(&mut *state, 0, &[("b", "", "4")]);
        assert_eq!(get(&mut *state, 0, &[("a", ""), ("a", "s"), ("b", "")]), [some("1"), some("2"), some("4")]);
        advance(&mut *state, 110);
        assert_eq!(get(&mut *state, 0, &[("a", ""), ("a", "s"), ("b", "")]), [None, None, some("4")]);
        assert_eq!(state.scan(0, b"a", b"", 9), Ok((Column::default(), Column::default())));
        advance(&mut *state, 119);
        assert_eq!(get(&mut *state, 0, &[("b", "")]), [None]);
        assert_eq!(get(&mut *state, 1, &[("a", "")]), [some("for ever")]);
    }
}

pub fn expired_entries_leave_as_deletions(make: Make<'_>) {
    let mut state = make();
    state.declare(&[space(Some(Ttl { clock: Clock::Event, micros: 10 }))]);
    state.advance(Timestamp(0), Timestamp(0));
    put(&mut *state, 0, &[("a", "", "1"), ("b", "", "2")]);
    state.take_changes();
    state.advance(Timestamp(5), Timestamp(0));
    put(&mut *state, 0, &[("b", "", "3")]);
    state.take_changes();
    for _ in 0..100 {
        state.advance(Timestamp(10), Timestamp(0));
    }
    assert_eq!(state.take_changes().sorted(), [change(0, "a", "", None)]);
    assert_eq!((state.entries(), state.bytes()), (1, 2));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Put(u16, Vec<(u8, u8, Vec<u8>)>),
    Delete(u16, Vec<(u8, u8)>),
    Read(u16, u8, u8, u32),
    Advance(i64),
    Mark,
    Undo,
    Revert,
    Checkpoint,
    Take,
}

/// Where a backend gives at all.
pub fn a_group_moves_as_a_whole(make: Make<'_>) {
    let (mut from, mut to) = (two_spaces(make), two_spaces(make));
    let all = [("a", "", "1"), ("a", "x", "2"), ("b", "", "3"), ("c", "y", "4")];
    put(&mut *from, 0, &all);
    put(&mut *from, 1, &[("a", "z", "5")]);
    from.take_changes();
    let Some(given) = from.give(key_group(b"a")) else { return };
    let moved = |key: &str| key_group(key.as_bytes()) == key_group(b"a");
    assert_eq!(given.len(), all.iter().filter(|(key, ..)| moved(key)).count() + 1);
    assert_eq!(from.entries() as usize, all.len() + 1 - given.len());
    to.adopt(given);
    for (key, subkey, value) in all {
        let (here, there) = if moved(key) { (None, some(value)) } else { (some(value), None) };
        assert_eq!(get(&mut *from, 0, &[(key, subkey)]), [here], "{key}");
        assert_eq!(get(&mut *to, 0, &[(key, subkey)]), [there], "{key}");
    }
    assert_eq!(get(&mut *to, 1, &[("a", "z")]), [some("5")]);
    assert!(from.take_changes().is_empty() && to.take_changes().is_empty(), "no change says so");
    // Neither can be taken back.
    put(&mut *to, 0, &[("a", "x", "6")]);
    to.revert();
    from.revert();
    assert_eq!(get(&mut *to, 0, &[("a", "x")]), [some("2")]);
    assert_eq!(get(&mut *from, 0, &[("a", "x")]), [None]);
    // And back again.
    let back = to.give(key_group(b"a")).expect("it gave before");
    from.adopt(back);
    assert_eq!((to.entries(), to.bytes(), from.entries()), (0, 0, all.len() as u64 + 1));
    assert_eq!(get(&mut *from, 0, &[("a", "x"), ("a", "")]), [some("2"), some("1")]);
}

fn step() -> impl Strategy<Value = Step> {
    // Few names, so that histories meet; a number is a name of that many bytes.
    let names = || (prop_oneof![0..4_u8, 22..24_u8], 0..4_u8);
    let value = prop_oneof![prop::collection::vec(any::<u8>(), 0..4), prop::collection::vec(any::<u8>(), 20..60)];
    let entry = (names(), value).prop_map(|((key, subkey), value)| (key, subkey, value));
    prop_oneof![
        4 => (0..2_u16, prop::collection::vec(entry, 0..6)).prop_map(|(space, entries)| Step::Put(space, entries)),
        2 => (0..2_u16, prop::collection::vec(names(), 0..4)).prop_map(|(space, names)| Step::Delete(space, names)),
        2 => (0..2_u16, names(), 0..5_u32).prop_map(|(s, (key, start), limit)| Step::Read(s, key, start, limit)),
        1 => (0..8_i64).prop_map(Step::Advance),
        2 => Just(Step::Mark),
        1 => Just(Step::Undo),
        1 => Just(Step::Revert),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Take),
    ]
}

fn name(length: u8) -> Vec<u8> {
    vec![b'n'; usize::from(length)]
}

/// Space, key, sub-key.
type Place = (u16, Vec<u8>, Vec<u8>);
/// Values and when they were written.
type Entries = BTreeMap<Place, (Vec<u8>, i64)>;

/// The second space lives this long.
const LIFETIME: i64 = 10;

/// The naive model: a sorted map, and copies of it for undo and revert.
#[derive(Debug, Default)]
struct Model {
    now: i64,
    entries: Entries,
    touched: BTreeSet<Place>,
    marked: Option<(Entries, BTreeSet<Place>)>,
    /// As of the last changes.
    cut: (Entries, i64),
    /// What somebody has who applies every set of changes.
    replica: BTreeMap<Place, Vec<u8>>,
}

impl Model {
    fn alive(&self, space: u16, written: i64) -> bool {
        space == 0 || written + LIFETIME > self.now
    }

    fn get(&self, space: u16, key: &[u8], subkey: &[u8]) -> Option<&Vec<u8>> {
        let (value, written) = self.entries.get(&(space, key.to_vec(), subkey.to_vec()))?;
        self.alive(space, *written).then_some(value)
    }

    fn scan(&self, space: u16, key: &[u8], start: &[u8], limit: u32) -> (Column, Column) {
        let of_key = self.entries.iter().filter(|((s, k, subkey), (_, written))| {
            *s == space && k == key && subkey.as_slice() >= start && self.alive(space, *written)
        });
        let seen: Vec<_> = of_key.take(limit as usize).collect();
        (seen.iter().map(|entry| &entry.0.2).collect(), seen.iter().map(|entry| &entry.1.0).collect())
    }
}

/// Any history of calls looks as it does on a sorted map with copies for undo.
/// Walks over space 0: entries with an odd last byte go, the others get a mark.
fn rewrite_all(state: &mut dyn StateBackend) -> usize {
    let (mut walk, mut met) = (Walk::default(), 0);
    while !walk.is_over() {
        let entries = state.walk(0, &mut walk).expect("the space is declared");
        assert!(entries.keys.len() <= WALK_ENTRIES_MAX);
        met += entries.keys.len();
        let mut migrated = Migrated::default();
        let mut values = ColumnBuilder::default();
        for (row, value) in (0..).zip(entries.values.iter()) {
            assert!(!value.ends_with(b"!"), "an entry came twice");
            values.push(&[value, b"!"].concat());
            if value.last().is_some_and(|last| last % 2 == 1) {
                migrated.dropped.push(row);
            }
        }
        migrated.values = values.finish();
        state.rewrite(0, &entries, &migrated).expect("the space is declared");
    }
    met
}

pub fn a_walk_meets_every_entry_once(make: Make<'_>) {
    let mut state = two_spaces(make);
    let names: Vec<String> = (0..2 * WALK_ENTRIES_MAX + 7).map(|name| format!("{name:05}")).collect();
    let of = |names: &[String]| -> Column { names.iter().collect() };
    let (early, late) = names.split_at(WALK_ENTRIES_MAX + 3);
    for (some, subkey) in [(early, ""), (late, "s")] {
        let subkeys = some.iter().map(|_| subkey).collect();
        state.put_many(0, &of(some), &subkeys, &of(some)).expect("a valid put");
        state.take_changes();
        state.mark();
    }
    put(&mut *state, 1, &[("00000", "", "other")]);
    put(&mut *state, 0, &[("00000", "", "00100"), ("fresh", "", "8")]);
    state.delete_many(0, &column(&["00002"]), &Column::default()).expect("a valid delete");
    state.take_changes();
    state.mark();
    assert_eq!(rewrite_all(&mut *state), names.len());
    let seen = |state: &mut dyn StateBackend| {
        let wanted = [("00000", ""), ("00001", ""), ("00002", ""), ("00004", ""), ("fresh", "")];
        let last = names.last().map(|name| (name.as_str(), "s")).expect("names");
        get(state, 0, &[&wanted[..], &[last]].concat())
    };
    let last = some(&format!("{}!", names[names.len() - 1])).filter(|last| last.as_bytes()[4] % 2 == 0);
    assert_eq!(seen(&mut *state), [some("00100!"), None, None, some("00004!"), some("8!"), last]);
    assert_eq!(get(&mut *state, 1, &[("00000", "")]), [some("other")]);
    // All of it can be taken back.
    state.revert();
    let before = some(&names[names.len() - 1]);
    assert_eq!(seen(&mut *state), [some("00100"), some("00001"), None, some("00004"), some("8"), before]);
    assert_eq!(rewrite_all(&mut *state), names.len());
    assert_eq!(state.take_changes().len(), names.len());
}

pub fn what_a_walk_rewrites_keeps_its_lifetime(make: Make<'_>) {
    let mut state = make();
    state.declare(&[space(Some(Ttl { clock: Clock::Event, micros: 10 }))]);
    state.advance(Timestamp(100), Timestamp(0));
    put(&mut *state, 0, &[("a", "", "2")]);
    state.take_changes();
    state.mark();
    state.advance(Timestamp(105), Timestamp(0));
    put(&mut *state, 0, &[("b", "", "2")]);
    assert_eq!(rewrite_all(&mut *state), 2);
    state.advance(Timestamp(110), Timestamp(0));
    assert_eq!(get(&mut *state, 0, &[("a", ""), ("b", "")]), [None, some("2!")]);
}

pub fn behaves_as_the_model(make: Make<'_>) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let history = prop::collection::vec(step(), 1..60);
    runner.run(&history, |steps| run(make, steps)).expect("every history fits the model");
}

fn run(make: Make<'_>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut state = make();
    let ttl = Ttl { clock: Clock::Event, micros: LIFETIME as u64 };
    state.declare(&[space(None), space(Some(ttl))]);
    state.advance(Timestamp(0), Timestamp(0));
    state.take_changes();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put(space, entries) => {
                let keys: Column = entries.iter().map(|entry| name(entry.0)).collect();
                let subkeys: Column = entries.iter().map(|entry| name(entry.1)).collect();
                let values: Column = entries.iter().map(|entry| &entry.2).collect();
                prop_assert_eq!(state.put_many(space, &keys, &subkeys, &values), Ok(()));
                for (key, subkey, value) in entries {
                    let place = (space, name(key), name(subkey));
                    model.touched.insert(place.clone());
                    model.entries.insert(place, (value, model.now));
                }
            }
            Step::Delete(space, names) => {
                let keys: Column = names.iter().map(|names| name(names.0)).collect();
                let subkeys: Column = names.iter().map(|names| name(names.1)).collect();
                prop_assert_eq!(state.delete_many(space, &keys, &subkeys), Ok(()));
                for (key, subkey) in names {
                    let place = (space, name(key), name(subkey));
                    if let Some((_, written)) = model.entries.remove(&place)
                        && model.alive(space, written)
                    {
                        model.touched.insert(place);
                    }
                }
            }
            Step::Read(space, key, start, limit) => {
                let (key, start) = (name(key), name(start));
                prop_assert_eq!(state.scan(space, &key, &start, limit), Ok(model.scan(space, &key, &start, limit)));
            }
            Step::Advance(by) => {
                // As between calls: what was before the clock moved is not undone.
                model.now += by;
                state.advance(Timestamp(model.now), Timestamp(0));
                state.mark();
                model.marked = Some((model.entries.clone(), model.touched.clone()));
            }
            Step::Mark => {
                state.mark();
                model.marked = Some((model.entries.clone(), model.touched.clone()));
            }
            Step::Undo => {
                state.undo();
                if let Some((entries, touched)) = model.marked.clone() {
                    (model.entries, model.touched) = (entries, touched);
                }
            }
            Step::Revert => {
                state.revert();
                (model.entries, model.now) = model.cut.clone();
                model.touched.clear();
                model.marked = model.marked.is_some().then(|| (model.entries.clone(), model.touched.clone()));
            }
            Step::Take | Step::Checkpoint => {
                let changes = if matches!(step, Step::Take) { state.take_changes() } else { state.checkpoint() };
                take(changes, &mut model)?;
                model.cut = (model.entries.clone(), model.now);
                model.marked = model.marked.is_some().then(|| (model.entries.clone(), model.touched.clone()));
            }
        }
        check(&mut *state, &model)?;
    }
    take(state.take_changes(), &mut model)
}

fn check(state: &mut dyn StateBackend, model: &Model) -> Result<(), TestCaseError> {
    for space in 0..2 {
        let names = (0..4).chain(22..24).flat_map(|key| (0..4).map(move |subkey| (key, subkey)));
        let (keys, subkeys): (Vec<_>, Vec<_>) = names.map(|(key, subkey)| (name(key), name(subkey))).unzip();
        let mut values = ColumnBuilder::default();
        let found = state.get_many(space, &keys.iter().collect(), &subkeys.iter().collect(), &mut values);
        let (found, values) = (found.expect("a valid get"), values.finish());
        for (row, (key, subkey)) in keys.iter().zip(&subkeys).enumerate() {
            let want = model.get(space, key, subkey);
            prop_assert_eq!(found.get(row).then(|| values.row(row)), want.map(Vec::as_slice));
        }
    }
    // Expired entries count until they are removed, at the latest when the model has forgotten them.
    let alive = model.entries.iter().filter(|((space, ..), (_, written))| model.alive(*space, *written));
    let bytes =
        |((_, key, subkey), (value, _)): (&Place, &(Vec<u8>, i64))| (key.len() + subkey.len() + value.len()) as u64;
    let (fewest, least) = alive.fold((0, 0), |(count, sum), entry| (count + 1, sum + bytes(entry)));
    let (most, largest) = (model.entries.len() as u64, model.entries.iter().map(bytes).sum::<u64>());
    prop_assert!((fewest..=most).contains(&state.entries()), "{} entries", state.entries());
    prop_assert!((least..=largest).contains(&state.bytes()), "{} bytes", state.bytes());
    Ok(())
}

/// Every change is one of an entry that was touched or has expired, and whoever applies all
/// changes has what is alive, and nothing else that still lives.
fn take(changes: ChangeSet, model: &mut Model) -> Result<(), TestCaseError> {
    let changes = changes.sorted();
    let name = |change: &Change<'_>| (change.space, change.key.to_vec(), change.subkey.to_vec());
    let once = changes.windows(2).all(|pair| name(&pair[0]) < name(&pair[1]));
    prop_assert!(once, "an entry has two changes");
    let mut seen = BTreeSet::new();
    for Change { space, key, subkey, value, .. } in changes {
        let place = (space, key.to_vec(), subkey.to_vec());
        let expired = space == 1 && value.is_none() && model.get(space, key, subkey).is_none();
        prop_assert!(model.touched.contains(&place) || expired, "{:?} was not touched", place);
        match value {
            Some(value) => model.replica.insert(place.clone(), value.to_vec()),
            None => model.replica.remove(&place),
        };
        seen.insert(place);
    }
    for place in std::mem::take(&mut model.touched) {
        prop_assert!(seen.contains(&place), "the change of {:?} is missing", place);
    }
    for ((space, key, subkey), (value, written)) in &model.entries {
        if model.alive(*space, *written) {
            prop_assert_eq!(model.replica.get(&(*space, key.clone(), subkey.clone())), Some(value));
        }
    }
    for place in model.replica.keys() {
        prop_assert!(model.entries.contains_key(place), "{:?} is gone and has not left", place);
    }
    Ok(())
}
