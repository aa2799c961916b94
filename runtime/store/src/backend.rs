use std::borrow::Borrow;
use std::collections::BTreeMap;

use wasmill_model::{
    Bitmap, Column, ColumnBuilder, Entries, ErrorKind, KeyGroup, Migrated, SpaceDescriptor, Timestamp,
};

/// Bytes that one read returns at most, so that one call cannot fill the host's memory by naming
/// a large entry many times.
pub const READ_BYTES_MAX: usize = 256 << 20;

/// The state of one stage for one share of the keys.
///
/// # Calls and undo
/// Writes apply at once, so that an operator reads what it wrote. [`StateBackend::mark`] starts a
/// call; [`StateBackend::undo`] takes back everything since the last mark, as if the call had
/// never been made. [`StateBackend::revert`] takes back every call since the last [`ChangeSet`].
///
/// # Invariants
/// - A read between two marks sees exactly the writes so far.
/// - After `undo`, every read and the next [`ChangeSet`] are as at the mark.
/// - An entry whose lifetime has passed is not seen, whether or not it has been removed yet.
pub trait StateBackend: Send {
    /// Declares the spaces. Calls name a space by its place here.
    fn declare(&mut self, spaces: &[SpaceDescriptor]);

    /// Moves the clocks that lifetimes count in.
    fn advance(&mut self, watermark: Timestamp, wall: Timestamp);

    /// Which entries exist, appended to `found` as bits, and one row of `values` for each (empty
    /// where there is none). `keys` and `subkeys` have one row an entry; no `subkeys` at all means
    /// that every sub-key is empty.
    ///
    /// # Errors
    /// Where the space is not declared, the columns differ in length, more than
    /// [`READ_BYTES_MAX`] would be returned, or the backend fails.
    fn get_many(
        &mut self,
        space: u16,
        keys: &Column,
        subkeys: &Column,
        values: &mut ColumnBuilder,
    ) -> Result<Bitmap, StateError>;

    /// Writes entries, in order.
    ///
    /// # Errors
    /// As [`StateBackend::get_many`].
    fn put_many(&mut self, space: u16, keys: &Column, subkeys: &Column, values: &Column) -> Result<(), StateError>;

    /// Deletes entries. One that does not exist is no error.
    ///
    /// # Errors
    /// As [`StateBackend::get_many`].
    fn delete_many(&mut self, space: u16, keys: &Column, subkeys: &Column) -> Result<(), StateError>;

    /// Up to `limit` entries of one key with a sub-key of at least `start`, in byte order:
    /// sub-keys and values.
    ///
    /// # Errors
    /// As [`StateBackend::get_many`].
    fn scan(&mut self, space: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), StateError>;

    /// Goes on with a walk over all entries of a space that are seen, in any order: the next
    /// [`WALK_ENTRIES_MAX`], or fewer that take about [`WALK_BYTES_MAX`]. There may be none although
    /// the walk is not over. Until it is, only [`StateBackend::rewrite`] may write.
    ///
    /// # Errors
    /// Where the space is not declared, or the backend fails.
    fn walk(&mut self, space: u16, walk: &mut Walk) -> Result<Entries, StateError>;

    /// Gives entries of a walk other values, or deletes them. Their lifetime goes on as it was.
    ///
    /// # Errors
    /// As [`StateBackend::get_many`].
    fn rewrite(&mut self, space: u16, entries: &Entries, migrated: &Migrated) -> Result<(), StateError>;

    /// Starts a call: what follows can be undone.
    fn mark(&mut self);

    /// Takes back what was written since the last mark.
    fn undo(&mut self);

    /// Takes back everything since the last [`StateBackend::take_changes`] or
    /// [`StateBackend::checkpoint`], the clocks included: the same calls may be made again, at the
    /// times they were made at. Is a mark, too.
    fn revert(&mut self);

    /// What changed so far in this epoch, as [`StateBackend::take_changes`] gives it, which then has
    /// what changes from here on: both are parts of one cut.
    fn checkpoint(&mut self) -> ChangeSet;

    /// What changed since this or [`StateBackend::checkpoint`] was last called, each entry once with
    /// its latest value, and starts collecting anew. Ends an epoch.
    fn take_changes(&mut self) -> ChangeSet;

    /// Takes the entries of a group of keys out, for another share of the stage: here they are as if
    /// they had never been, and no change says so. Nothing has changed since
    /// [`StateBackend::take_changes`]. `None` where the backend cannot.
    fn give(&mut self, group: KeyGroup) -> Option<Vec<EntryChange>> {
        let _ = group;
        None
    }

    /// Puts in what [`StateBackend::give`] of another share took out, as if it had always been here.
    fn adopt(&mut self, entries: Vec<EntryChange>) {
        assert!(entries.is_empty(), "a backend that gives nothing is given nothing");
    }

    /// Entries that exist. A backend on disk counts exactly what was written since it was opened, and
    /// estimates what was there.
    fn entries(&self) -> u64;

    /// Bytes of keys, sub-keys and values that exist, as [`StateBackend::entries`].
    fn bytes(&self) -> u64;
}

/// Entries that one step of a walk returns.
pub const WALK_ENTRIES_MAX: usize = 1_024;
/// Bytes of entries after which a step of a walk ends.
pub const WALK_BYTES_MAX: usize = 1 << 20;

/// How far a walk over the entries of a space has come: [`StateBackend::walk`].
#[derive(Debug, Default)]
pub struct Walk(pub(crate) WalkPlace);

#[derive(Debug)]
pub(crate) enum WalkPlace {
    /// In memory, by slot.
    Memory(usize),
    /// On disk, by key and sub-key.
    Files(Vec<u8>, Vec<u8>),
    End,
}

impl Default for WalkPlace {
    fn default() -> Self {
        Self::Memory(0)
    }
}

impl Walk {
    /// Whether every entry was returned.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.0, WalkPlace::End)
    }
}

/// The entries of one step of a walk.
#[derive(Debug, Default)]
pub(crate) struct Step {
    keys: ColumnBuilder,
    subkeys: ColumnBuilder,
    values: ColumnBuilder,
}

impl Step {
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.keys.byte_len() + self.subkeys.byte_len() + self.values.byte_len();
        self.keys.len() >= WALK_ENTRIES_MAX || bytes >= WALK_BYTES_MAX
    }

    pub(crate) fn push(&mut self, key: &[u8], subkey: &[u8], value: &[u8]) {
        self.keys.push(key);
        self.subkeys.push(subkey);
        self.values.push(value);
    }

    pub(crate) fn finish(self) -> Entries {
        let Self { keys, subkeys, values } = self;
        Entries { keys: keys.finish(), subkeys: subkeys.finish(), values: values.finish() }
    }
}

/// The changes of one stage's share during one epoch, each entry at most once, in any order.
///
/// All bytes stand in one buffer: a task takes its changes while its rows wait.
#[derive(Debug, Clone, Default)]
pub struct ChangeSet {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where the bytes of a change start, and how many are the key's, the sub-key's and the value's.
#[derive(Debug, Clone, Copy)]
struct Place {
    space: u16,
    exists: bool,
    start: usize,
    key: u32,
    subkey: u32,
    value: u32,
    written: i64,
}

/// One change of a [`ChangeSet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change<'a> {
    /// Place of the space in the descriptor.
    pub space: u16,
    /// The event key.
    pub key: &'a [u8],
    /// The sub-key.
    pub subkey: &'a [u8],
    /// The value, `None` where the entry was deleted.
    pub value: Option<&'a [u8]>,
    /// As [`EntryChange::written`].
    pub written: i64,
}

impl ChangeSet {
    /// An empty one with room for this many changes.
    #[must_use]
    pub fn with_capacity(changes: usize) -> Self {
        Self { bytes: Vec::new(), places: Vec::with_capacity(changes) }
    }

    /// Gives every space another number.
    pub fn renumber(&mut self, number: impl Fn(u16) -> u16) {
        self.places.iter_mut().for_each(|place| place.space = number(place.space));
    }

    /// Adds the change of an entry that has none yet.
    #[inline]
    pub fn push(&mut self, change: Change<'_>) {
        let Change { space, key, subkey, value, written } = change;
        let start = self.bytes.len();
        let bytes = value.unwrap_or_default();
        self.bytes.reserve(key.len() + subkey.len() + bytes.len());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(subkey);
        self.bytes.extend_from_slice(bytes);
        // No part is longer than a batch, whose bytes are counted in 32 bits.
        let [key, subkey, value_len] = [key, subkey, bytes].map(|part| part.len() as u32);
        self.places.push(Place { space, exists: value.is_some(), start, key, subkey, value: value_len, written });
    }

    /// How many entries have changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The changes as they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Change<'_>> {
        self.places.iter().map(|place| self.at(place))
    }

    /// The changes by space, key and sub-key.
    #[must_use]
    pub fn sorted(&self) -> Vec<Change<'_>> {
        let mut changes: Vec<_> = self.iter().collect();
        changes.sort_unstable();
        changes
    }

    /// With later changes of the same epoch: of two changes of one entry the later one counts.
    #[must_use]
    pub fn and_then(self, later: Self) -> Self {
        if self.is_empty() || later.is_empty() {
            return if self.is_empty() { later } else { self };
        }
        let all = self.iter().chain(later.iter());
        let latest: BTreeMap<_, _> = all.map(|change| ((change.space, change.key, change.subkey), change)).collect();
        let mut both = Self::with_capacity(latest.len());
        latest.into_values().for_each(|change| both.push(change));
        both
    }

    fn at(&self, place: &Place) -> Change<'_> {
        let (key, rest) = self.bytes[place.start..].split_at(place.key as usize);
        let (subkey, rest) = rest.split_at(place.subkey as usize);
        let value = place.exists.then(|| &rest[..place.value as usize]);
        Change { space: place.space, key, subkey, value, written: place.written }
    }
}

/// Equal where the same entries have the same changes, in whatever order.
impl PartialEq for ChangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl Eq for ChangeSet {}

impl<E: Borrow<EntryChange>> FromIterator<E> for ChangeSet {
    fn from_iter<I: IntoIterator<Item = E>>(changes: I) -> Self {
        let mut set = Self::default();
        changes.into_iter().for_each(|change| set.push(change.borrow().as_change()));
        set
    }
}

/// A [`Change`] with bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryChange {
    /// Place of the space in the descriptor.
    pub space: u16,
    /// The event key.
    pub key: Box<[u8]>,
    /// The sub-key.
    pub subkey: Box<[u8]>,
    /// The value, `None` where the entry was deleted.
    pub value: Option<Box<[u8]>>,
    /// When it was written by the clock that its lifetime counts in, microseconds since the Unix
    /// epoch; [`i64::MIN`] where it has no lifetime or that clock was not told yet.
    pub written: i64,
}

impl EntryChange {
    /// The change itself.
    #[must_use]
    pub fn as_change(&self) -> Change<'_> {
        let value = self.value.as_deref();
        Change { space: self.space, key: &self.key, subkey: &self.subkey, value, written: self.written }
    }
}

/// Why a state call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The space was not declared.
    #[error("state space {space} is not declared, the plugin declares {declared}")]
    UnknownSpace {
        /// The space asked for.
        space: u16,
        /// How many are declared.
        declared: usize,
    },
    /// Columns that belong together differ in length.
    #[error("{what} has {got} rows where there are {want} keys")]
    RowCount {
        /// Which column.
        what: &'static str,
        /// Its rows.
        got: usize,
        /// Rows of the keys.
        want: usize,
    },
    /// A read would return too much at once.
    #[error("one read of state returns at most {limit} bytes: ask for fewer entries at a time")]
    ReadTooLarge {
        /// The most that is returned.
        limit: usize,
    },
    /// State on disk cannot be read: nothing of the call counts, and no operator is to blame.
    #[error("cannot read state on disk: {reason}")]
    Unreadable {
        /// What the store says.
        reason: String,
        /// Who has to act.
        kind: ErrorKind,
    },
}

impl StateError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSpace { .. } | Self::RowCount { .. } | Self::ReadTooLarge { .. } => ErrorKind::Plugin,
            Self::Unreadable { kind, .. } => *kind,
        }
    }
}
