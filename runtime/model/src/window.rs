use serde::{Deserialize, Serialize};

/// How events are put into windows. Time in microseconds; windows of time are `[start, end)` and
/// those of a fixed length are aligned to the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowShape {
    /// Windows side by side.
    Tumbling {
        /// Length, more than 0.
        size_micros: i64,
    },
    /// Windows that overlap.
    Sliding {
        /// Length, more than 0.
        size_micros: i64,
        /// From one start to the next, more than 0 and at most the length.
        slide_micros: i64,
    },
    /// Per key, events that follow each other by less than a gap.
    Session {
        /// A key that is silent for this long begins another session. More than 0.
        gap_micros: i64,
    },
    /// Per key, a number of events in the order in which they come.
    Count {
        /// Events of a window, more than 0.
        rows: u32,
        /// Events from one window to the next, more than 0 and at most `rows`.
        every: u32,
    },
    /// Per key, all events there are.
    Global,
}

/// Windows and when they fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    /// Which windows.
    pub shape: WindowShape,
    /// When they fire, besides at their end.
    pub firing: Firing,
}

impl From<WindowShape> for WindowSpec {
    fn from(shape: WindowShape) -> Self {
        Self { shape, firing: Firing::default() }
    }
}

impl WindowSpec {
    /// Whether a window may fire more than once.
    #[must_use]
    pub fn corrects(&self) -> bool {
        self.firing.early.is_some() || self.firing.lateness_micros > 0
    }
}

/// When a window fires besides at its end, and what it then gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Firing {
    /// Before its end; `None`: not at all.
    pub early: Option<Trigger>,
    /// How far the watermark may be behind a window's end while events still go into it.
    pub lateness_micros: i64,
    /// When late events make a window fire again; `None`: each one does.
    pub late: Option<Trigger>,
    /// What it gives when it fires more than once.
    pub panes: PaneMode,
}

/// When a window fires although its end has not come, or has passed. At the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trigger {
    /// So many events have come since it last fired. More than 0.
    pub rows: Option<u32>,
    /// The watermark passes a multiple of this, with an event since the window last fired.
    pub every_micros: Option<i64>,
    /// The wall clock does.
    pub wall_micros: Option<i64>,
}

/// What a window gives each time that it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaneMode {
    /// What came since it last fired.
    Discard,
    /// Everything: a result replaces the one before.
    #[default]
    Accumulate,
    /// Everything, behind a retraction of each result that it replaces.
    Retract,
}

/// What a row of a pane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaneKind {
    /// The window fired before its end.
    Early,
    /// The window fired at its end.
    OnTime,
    /// The window had fired at its end, and an event came late.
    Correction,
    /// An earlier row, which counts no more.
    Retraction,
}

impl PaneKind {
    /// Its name in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::OnTime => "on-time",
            Self::Correction => "correction",
            Self::Retraction => "retraction",
        }
    }
}

/// How the rows of a stream change those before them, from what asks least of a reader to what
/// asks most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeMode {
    /// Not at all: every row stands for itself.
    #[default]
    Append,
    /// A row replaces the one of the same key and time.
    Upsert,
    /// A row may be a retraction, which takes an earlier one back.
    Retract,
}

impl ChangeMode {
    /// Its name in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Upsert => "upsert",
            Self::Retract => "retract",
        }
    }
}
