use std::collections::HashMap;

use wasmill_model::{ChangeMode, Descriptor, NodeName, Visibility};

/// What the job file cannot tell.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What each source's connector can do under its options.
    pub sources: HashMap<NodeName, SourceFacts>,
    /// What each stage's plugin says about itself under its config.
    pub stages: HashMap<NodeName, Descriptor>,
    /// What each sink's connector can do under its options.
    pub sinks: HashMap<NodeName, SinkFacts>,
    /// What is left after a crash.
    pub recovery: Recovery,
}

/// What a source can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFacts {
    /// Whether its input ends by itself.
    pub bounded: bool,
    /// Whether reading from a position gives the same events again.
    pub replayable: bool,
}

/// What a sink can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkFacts {
    /// How rows become visible.
    pub visibility: Visibility,
    /// Whether it can show rows at once instead, for a job that asks for no more.
    pub direct: bool,
    /// The most that its rows may do to those before them.
    pub changes: ChangeMode,
    /// How its options make that more, for the author of a job.
    pub more_changes: Option<&'static str>,
}

/// What is left of positions and state after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// Nothing: the job starts again from the beginning.
    Nothing,
    /// Both, as of the last committed epoch.
    LastEpoch,
}
