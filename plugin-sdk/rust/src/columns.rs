use std::ops::BitOr;

use crate::bindings::exports::wasmill::operator::plugin;

/// Columns of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns(u8);

impl Columns {
    pub(crate) const NONE: Self = Self(0);
    /// Event times.
    pub const TIMES: Self = Self(1);
    /// Keys.
    pub const KEYS: Self = Self(2);
    /// Values.
    pub const VALUES: Self = Self(4);
    /// All of them.
    pub const ALL: Self = Self(7);

    /// Both: `|` for constants.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Columns {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl From<Columns> for plugin::Columns {
    fn from(columns: Columns) -> Self {
        let mut flags = Self::empty();
        flags.set(Self::TIMES, columns.has(Columns::TIMES));
        flags.set(Self::KEYS, columns.has(Columns::KEYS));
        flags.set(Self::VALUES, columns.has(Columns::VALUES));
        flags
    }
}
