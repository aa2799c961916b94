use wasmill_model::{ChangeMode, ErrorKind, Visibility};

/// Why a source or a sink failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ConnectorError {
    kind: ErrorKind,
    message: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ConnectorError {
    /// An error that names the act and the value, such as `cannot open "x.jsonl"`.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Which of several equal parts this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: u16,
    /// At least 1.
    pub of: u16,
}

impl Share {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, of: 1 };
}

/// Whether the input ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// It ends by itself.
    Bounded,
    /// It goes on until the job is stopped.
    Unbounded,
}

/// What a source can do, for the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceCapabilities {
    /// Whether its input ends.
    pub bounds: Bounds,
    /// Whether reading from a position gives the same events again.
    pub replayable: bool,
}

/// What a sink can do, for the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkCapabilities {
    /// How rows become visible.
    pub visibility: Visibility,
    /// The most that its rows may do to those before them: whether it writes what each row is.
    pub changes: ChangeMode,
    /// How its options make that more, for the author of a job.
    pub more_changes: Option<&'static str>,
}

impl SinkCapabilities {
    /// Of a sink whose rows stand for themselves.
    #[must_use]
    pub const fn append(visibility: Visibility) -> Self {
        Self { visibility, changes: ChangeMode::Append, more_changes: None }
    }

    /// Of a sink that writes of each row what it is.
    #[must_use]
    pub const fn retract(visibility: Visibility) -> Self {
        Self { visibility, changes: ChangeMode::Retract, more_changes: None }
    }
}
