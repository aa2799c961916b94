//! Keyed state: what the author sees as a value, a map or a list per event key.
//!
//! # How it moves
//! At the start of a call the batch's keys get slots (one hash a row). Values of keys that are not
//! in memory are fetched with one `get-many` a space; maps and lists fetch what they are asked for.
//! Changes stay in memory, marked, and are written with one `put-many` and one `delete-many` a
//! space at `flush`, which the host calls before every cut.
//!
//! # Invariants
//! - Entries of a space with a TTL are written at the end of each call and not kept, as the host
//!   counts their life from the write and alone knows when it ends.
//! - What a rejected row changed is undone from a list, which the next row that changes something
//!   starts anew. An instance whose call fails after rows of
//!   it have changed state refuses every further call, so that the host goes on from the last
//!   flush. State is written only at the end of a call that succeeds.
//! - The cache is bounded by keys and bytes: over that, at the end of a call, everything is written
//!   and keys that were not used lately are forgotten.

mod keys;
mod list;
mod map;
mod value;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub use list::List;
pub use map::Map;
pub use value::Value;

use crate::CodecError;
use crate::bindings::exports::wasmill::operator::migration::{Entries, Migrated};
use crate::bindings::wasmill::operator::types::{Clock, Column, Failure};
use crate::column::Rows;
use crate::host::Host;
use crate::migration::{self, Migration};
use crate::timers::TimerCalls;
use keys::Keys;

/// Keys in memory before the least used are forgotten.
const KEYS_MAX: usize = 32_768;
/// Bytes in memory, roughly, before the least used keys are forgotten.
const BYTES_MAX: usize = 16 << 20;
/// No row is being handled: there is no key.
const NONE: u32 = u32::MAX;

/// A named part of the state, as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceInfo {
    pub(crate) number: u16,
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) ttl: Option<(Clock, u64)>,
}

/// What the runtime asks of every space.
pub(crate) trait Space {
    fn info(&self) -> &SpaceInfo;
    /// Makes the cells of these slots ready; `fresh` are the first use of a slot.
    fn load(&self, shared: &Shared, fresh: &[u32], distinct: &[u32]) -> Result<(), String>;
    /// Takes back what a row has changed. Only the newest row can be asked for.
    fn undo(&self, row: u64);
    /// Writes what has changed.
    fn write(&self, shared: &Shared);
    /// Forgets the cells of these slots, for a space with a TTL.
    fn forget(&self, slots: &[u32]);
    /// Keeps the cells of the slots that stay, which move up.
    fn retain(&self, keep: &[bool]);
    /// Bytes in memory, roughly.
    fn weight(&self) -> usize;
}

/// What the spaces, the timers and the context of one instance share.
pub(crate) struct Shared {
    pub(crate) host: Box<dyn Host>,
    keys: RefCell<Keys>,
    /// The slot of the current row's key.
    slot: Cell<u32>,
    /// The number of the current row among all that this instance has seen: changes that carry
    /// another one are settled.
    row: Cell<u64>,
    /// Whether a row of the current call has changed anything.
    changed: Cell<bool>,
    /// Whether a failed call has left changes behind.
    spent: Cell<bool>,
    /// Entries that changed or came in since the last look at the bounds: weighing costs.
    stirred: Cell<usize>,
    spaces: RefCell<Vec<Rc<dyn Space>>>,
    /// By space.
    migrations: RefCell<Vec<Vec<Migration>>>,
    ttl: Cell<bool>,
    /// What state was found not to be readable during the call.
    fault: RefCell<Option<String>>,
    now: Cell<[Option<i64>; 2]>,
    timers: RefCell<TimerCalls>,
}

impl Shared {
    pub(crate) fn new(host: Box<dyn Host>) -> Rc<Self> {
        Rc::new(Self {
            host,
            keys: RefCell::default(),
            slot: Cell::new(NONE),
            row: Cell::new(0),
            changed: Cell::new(false),
            spent: Cell::new(false),
            stirred: Cell::new(0),
            spaces: RefCell::default(),
            migrations: RefCell::default(),
            ttl: Cell::new(false),
            fault: RefCell::default(),
            now: Cell::new([None; 2]),
            timers: RefCell::default(),
        })
    }

    pub(crate) fn add_space(&self, space: Rc<dyn Space>) {
        self.ttl.set(self.ttl.get() || space.info().ttl.is_some());
        self.spaces.borrow_mut().push(space);
    }

    /// Of the space that is declared next.
    pub(crate) fn add_migrations(&self, migrations: Vec<Migration>) {
        self.migrations.borrow_mut().push(migrations);
    }

    /// See `migration.migrate` of the interface.
    pub(crate) fn migrate(&self, space: u16, from_version: u32, entries: &Entries) -> Result<Migrated, Failure> {
        let (spaces, migrations) = (self.spaces.borrow(), self.migrations.borrow());
        match (spaces.get(usize::from(space)), migrations.get(usize::from(space))) {
            (Some(space), Some(known)) => migration::migrate(space.info(), known, from_version, entries),
            _ => Err(Failure::Fatal(format!("there is no state space {space}"))),
        }
    }

    pub(crate) fn infos(&self) -> Vec<SpaceInfo> {
        self.spaces.borrow().iter().map(|space| space.info().clone()).collect()
    }

    pub(crate) fn space_count(&self) -> usize {
        self.spaces.borrow().len()
    }

    /// Starts a call: the slot of every row's key, with their state at hand.
    pub(crate) fn begin(&self, rows: Rows<'_>) -> Result<Vec<u32>, String> {
        self.now.set([None; 2]);
        self.row.set(self.row.get() + 1);
        let mut slots = Vec::with_capacity(rows.len());
        let mut keys = self.keys.borrow_mut();
        let known = keys.len() as u32;
        slots.extend(rows.iter().map(|key| keys.slot(key)));
        let fresh: Vec<u32> = (known..keys.len() as u32).collect();
        drop(keys);
        let mut distinct = Vec::new();
        if self.ttl.get() {
            distinct.clone_from(&slots);
            distinct.sort_unstable();
            distinct.dedup();
        }
        for space in self.spaces.borrow().iter() {
            space.load(self, &fresh, &distinct)?;
        }
        self.stirred.set(self.stirred.get() + fresh.len());
        Ok(slots)
    }

    /// Ends a call that succeeds.
    pub(crate) fn finish(&self, slots: &[u32]) -> Result<(), String> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.timers.borrow_mut().send(&*self.host);
        if self.ttl.get() {
            for space in self.spaces.borrow().iter().filter(|space| space.info().ttl.is_some()) {
                space.write(self);
                space.forget(slots);
            }
        }
        self.changed.set(false);
        // Weighing walks the cache: only after about as many changes as it has keys.
        let keys = self.keys.borrow().len();
        if keys > KEYS_MAX || self.stirred.get() > 1024 + keys {
            self.stirred.set(0);
            self.bound();
        }
        Ok(())
    }

    fn bound(&self) {
        let spaces = self.spaces.borrow();
        let keys = self.keys.borrow().len();
        let bytes = self.keys.borrow().bytes() + spaces.iter().map(|space| space.weight()).sum::<usize>();
        if keys > KEYS_MAX || bytes > BYTES_MAX {
            spaces.iter().for_each(|space| space.write(self));
            let keep = self.keys.borrow_mut().evict();
            spaces.iter().for_each(|space| space.retain(&keep));
        }
    }

    /// Ends a call that fails. Where rows of it had already counted, their changes cannot be taken
    /// back and the instance is spent.
    pub(crate) fn abandon(&self) {
        self.undo();
        self.leave();
        self.timers.borrow_mut().clear();
        self.fault.take();
        self.spent.set(self.spent.get() || self.changed.get());
    }

    /// # Panics
    /// Where the instance is spent: the host goes on with a fresh one from the last flush.
    pub(crate) fn assert_usable(&self) {
        assert!(!self.spent.get(), "a call failed after it had changed state: this instance cannot go on");
    }

    /// Writes what has changed, before a cut.
    pub(crate) fn flush(&self) {
        self.spaces.borrow().iter().for_each(|space| space.write(self));
    }

    #[inline(always)]
    pub(crate) fn enter(&self, slot: u32) {
        self.slot.set(slot);
        self.row.set(self.row.get() + 1);
    }

    pub(crate) fn leave(&self) {
        self.slot.set(NONE);
        self.row.set(self.row.get() + 1);
    }

    /// Takes back what the current row has changed.
    pub(crate) fn undo(&self) {
        let row = self.row.get();
        self.spaces.borrow().iter().for_each(|space| space.undo(row));
        self.timers.borrow_mut().undo(row);
    }

    /// The slot that state is read and written for.
    #[inline(always)]
    fn slot(&self) -> usize {
        let slot = self.slot.get();
        assert!(slot != NONE, "state and timers belong to the key of an event or a timer, and there is none here");
        slot as usize
    }

    #[inline(always)]
    fn touch(&self) {
        self.changed.set(true);
        self.stirred.set(self.stirred.get() + 1);
    }

    #[cold]
    fn fail(&self, info: &SpaceInfo, error: &CodecError) {
        self.fault.borrow_mut().get_or_insert_with(|| unreadable(info, error));
    }

    pub(crate) fn now(&self, clock: Clock) -> i64 {
        let at = match clock {
            Clock::Event => 0,
            Clock::Processing => 1,
        };
        let mut now = self.now.get();
        *now[at].get_or_insert_with(|| {
            let time = self.host.now(clock);
            let mut all = self.now.get();
            all[at] = Some(time);
            self.now.set(all);
            time
        })
    }

    pub(crate) fn timer(&self, clock: Clock, tag: &[u8], at: Option<i64>) {
        assert!(self.host.stateful(), "{}", crate::host::NOT_STATEFUL);
        let slot = self.slot() as u32;
        self.timers.borrow_mut().add(self.row.get(), clock, self.keys.borrow().get(slot), tag, at);
    }
}

#[cold]
fn unreadable(info: &SpaceInfo, error: &CodecError) -> String {
    format!(
        "an entry of state space `{}` cannot be read: {error}; if its type has changed, raise the version of the space",
        info.name
    )
}

/// A column of empty sub-keys.
fn no_subkeys(rows: usize) -> Column {
    Column { ends: vec![0; rows], data: Vec::new() }
}

/// Moves the items whose flag is set up, in order; items beyond the flags are dropped.
fn retain<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(false));
}
