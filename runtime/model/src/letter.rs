use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Clock;

/// Why something is in the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetterKind {
    /// The plugin refused it in so many words.
    #[default]
    Rejected,
    /// The plugin trapped on it.
    Trap,
    /// The call did not return in time.
    Timeout,
    /// The plugin failed on it, or returned what the contract does not allow.
    Error,
    /// The call went over a limit.
    Limit,
    /// It is no event: it cannot be decoded, or has no readable time.
    Malformed,
}

impl LetterKind {
    /// Every kind, in the order of their numbers on disk.
    pub const ALL: [Self; 6] = [Self::Rejected, Self::Trap, Self::Timeout, Self::Error, Self::Limit, Self::Malformed];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
        }
    }
}

impl fmt::Display for LetterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What it is that the dead-letter queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterSubject {
    /// A row that came in by an input port.
    Row {
        /// The port.
        port: u16,
    },
    /// A timer that was due: its event key, its tag as value, the time it was set for.
    Timer(Clock),
    /// News of the watermark: its time, and nothing else.
    Watermark,
    /// A pane of a window: its event key, its accumulator as value, the last microsecond of the
    /// window. One that failed to merge lists its accumulators one by one.
    Pane,
}

impl LetterSubject {
    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Row { .. } => "row",
            Self::Timer(_) => "timer",
            Self::Watermark => "watermark",
            Self::Pane => "pane",
        }
    }
}

impl Default for LetterSubject {
    fn default() -> Self {
        Self::Row { port: 0 }
    }
}
