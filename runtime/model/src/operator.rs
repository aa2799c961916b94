use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Bitmap, Column};

/// The SHA-256 of a plugin's bytes: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginDigest(pub [u8; 32]);

impl fmt::Display for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no digest of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADigest;

impl fmt::Display for NotADigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest is \"sha256:\" and 64 hexadecimal digits")
    }
}

impl std::error::Error for NotADigest {}

impl FromStr for PluginDigest {
    type Err = NotADigest;

    /// As [`PluginDigest`] is displayed; capital digits are read, too.
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hex = text.strip_prefix("sha256:").ok_or(NotADigest)?.as_bytes();
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() {
            return Err(NotADigest);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let (high, low) = (value(pair[0]).ok_or(NotADigest)?, value(pair[1]).ok_or(NotADigest)?);
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

/// Which time a timer or a lifetime counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// The watermark of the stage.
    Event,
    /// The wall clock of the host.
    Processing,
}

/// The columns a plugin reads; the others do not cross the boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ColumnSet {
    /// Event times.
    pub times: bool,
    /// Keys.
    pub keys: bool,
    /// Values.
    pub values: bool,
}

impl ColumnSet {
    /// Every column.
    pub const ALL: Self = Self { times: true, keys: true, values: true };
}

/// How long an entry of state lives after it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ttl {
    /// The clock it counts in.
    pub clock: Clock,
    /// Microseconds.
    pub micros: u64,
}

/// A named part of a stage's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceDescriptor {
    /// Its name, unique within the plugin.
    pub name: String,
    /// Raised whenever the bytes of an entry change their meaning.
    pub schema_version: u32,
    /// How long an entry lives, for ever without it.
    pub ttl: Option<Ttl>,
}

/// What a plugin says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// Names of the input ports; port 0 is the default.
    pub inputs: Vec<String>,
    /// Names of the output ports; port 0 is the default.
    pub outputs: Vec<String>,
    /// Parts of the state; calls name them by place.
    pub spaces: Vec<SpaceDescriptor>,
    /// Columns that the plugin reads.
    pub columns: ColumnSet,
    /// Whether it wants to hear of every watermark.
    pub watermarks: bool,
    /// Whether it exports `timed`.
    pub timed: bool,
    /// Whether it is an aggregate, for a stage with a window, instead of an operator.
    pub aggregate: bool,
    /// Whether it exports `migration`.
    pub migrates: bool,
}

/// A space whose entries another version of the plugin has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceMigration {
    /// Its place in the descriptor.
    pub space: u16,
    /// The schema version of the entries.
    pub from_version: u32,
}

impl Descriptor {
    /// The spaces in which entries of `old` have another schema than its own.
    #[must_use]
    pub fn migrations_from(&self, old: &[SpaceDescriptor]) -> Vec<SpaceMigration> {
        let places = (0..).zip(&self.spaces);
        let changed = places.filter_map(|(space, now)| {
            let then = old.iter().find(|then| then.name == now.name)?;
            let from_version = then.schema_version;
            (from_version != now.schema_version).then_some(SpaceMigration { space, from_version })
        });
        changed.collect()
    }
}

/// Entries of one space, side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// Event keys.
    pub keys: Column,
    /// Sub-keys.
    pub subkeys: Column,
    /// Values.
    pub values: Column,
}

/// What becomes of entries of an older schema version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrated {
    /// The new value of each.
    pub values: Column,
    /// Places of the entries that go, in rising order.
    pub dropped: Vec<u32>,
}

/// What goes out of one port. Rows that the same call rejects never go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Every input row as it was.
    Unchanged,
    /// The input rows whose bit is set.
    Keep(Bitmap),
    /// One new value for every input row.
    Values(Column),
    /// Anything else.
    Rows(Rows),
}

/// New rows, each with the input row it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Microseconds since the Unix epoch; empty: every row takes the time of its origin.
    pub times: Vec<i64>,
    /// Keys; without rows: every row takes the key of its origin.
    pub keys: Column,
    /// Values.
    pub values: Column,
    /// The input row of each row.
    pub origins: Vec<u32>,
}

/// An output and the port it leaves by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emission {
    /// The output port.
    pub port: u16,
    /// What leaves.
    pub output: Output,
}

/// A row for the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The input row.
    pub row: u32,
    /// Why, in the plugin's words.
    pub reason: String,
}

/// The result of one call of an operator. Checked against the input before it gets here: rows
/// exist, rejected rows rise strictly, columns fit, ports are declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// In the order of delivery.
    pub emissions: Vec<Emission>,
    /// In rising order of rows.
    pub rejected: Vec<Rejected>,
}

/// Timers that are due, in the order of their times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firings {
    /// When each was due, microseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// The event key of each.
    pub keys: Column,
    /// The tag of each.
    pub tags: Column,
}

/// The result of folding a batch into accumulators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The accumulators, in the order given.
    pub accumulators: Column,
    /// Rows that were not added, in rising order.
    pub rejected: Vec<Rejected>,
}

/// Panes that fire: window bounds `[start, end)` in microseconds and the event key of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaneBatch {
    /// First microsecond of each window.
    pub starts: Vec<i64>,
    /// First microsecond behind each window.
    pub ends: Vec<i64>,
    /// Event keys.
    pub keys: Column,
}

/// Result rows of panes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Results {
    /// The rows.
    pub values: Column,
    /// The pane of each row; empty: one row for every pane, in order.
    pub panes: Vec<u32>,
}

/// A failure that a plugin reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The same call may succeed later.
    Retry(String),
    /// The same call fails always.
    Fatal(String),
}

/// How much a log line of a plugin matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// For the author.
    Debug,
    /// For whoever looks.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}
