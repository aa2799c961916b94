use wasmill_model::{Bitmap, Column, ColumnBuilder, ErrorKind, SpaceDescriptor, Timestamp};

/// Bytes that one read returns at most, so that one call cannot fill the host's memory by naming
/// a large entry many times.
pub const READ_BYTES_MAX: usize = 256 << 20;

/// The state of one stage for one share of the keys.
///
/// # Calls and undo
/// Writes apply at once, so that an operator reads what it wrote. [`StateBackend::mark`] starts a
/// call; [`StateBackend::undo`] takes back everything since the last mark, as if the call had
/// never been made.
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

    /// Starts a call: what follows can be undone.
    fn mark(&mut self);

    /// Takes back what was written since the last mark.
    fn undo(&mut self);

    /// What changed since this was last called, each entry once with its latest value, and starts
    /// collecting anew. Part of the cut of an epoch.
    fn take_changes(&mut self) -> ChangeSet;

    /// Entries that exist.
    fn entries(&self) -> u64;

    /// Bytes of keys, sub-keys and values that exist.
    fn bytes(&self) -> u64;
}

/// The changes of one stage's share during one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Each entry at most once.
    pub entries: Vec<EntryChange>,
}

/// The latest value of one entry, or that it is gone.
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
}

impl StateError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownSpace { .. } | Self::RowCount { .. } | Self::ReadTooLarge { .. } => ErrorKind::Plugin,
        }
    }
}
