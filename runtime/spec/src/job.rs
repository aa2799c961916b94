use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use serde::Serialize;
use wasmill_model::{JobName, NodeName, PluginDigest, WindowSpec};
use wasmill_scan::Pointer;

use crate::{ByteSize, Diagnostic, Document, OrderSpec, Period, Span};

/// A job as its file has it, valid as far as the file alone can tell: names exist and are unique,
/// inputs lead to nodes, nothing goes in a circle, every number is in its range.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The job.
    pub name: JobName,
    /// What every path must give at least; without it each path gives what it can.
    pub delivery: Option<Delivery>,
    /// When epochs commit.
    pub epoch: EpochSpec,
    /// Where stages have their state.
    pub state: StateSpec,
    /// How long a row may wait for its batch to fill.
    pub latency_goal: Period,
    /// Accumulators of open windows that a task may hold; `None`: as many as by default.
    pub accumulators_max: Option<u64>,
    /// Where rejected rows go, as the job file names it.
    pub dead_letters: Option<String>,
    /// Where rows come from, in the order of the file.
    pub sources: IndexMap<NodeName, SourceSpec>,
    /// What happens to them, in the order of the file.
    pub stages: IndexMap<NodeName, StageSpec>,
    /// Where rows go, in the order of the file.
    pub sinks: IndexMap<NodeName, SinkSpec>,
    /// What the author should know although the job can run.
    pub warnings: Vec<Diagnostic>,
    pub(crate) document: Document,
}

/// What a path promises over a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// A row may be lost; its effect is never there twice.
    AtMostOnce,
    /// No row is lost; its effect may be there twice.
    AtLeastOnce,
    /// No row is lost and no effect is there twice.
    ExactlyOnce,
}

/// When an epoch commits: at whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochSpec {
    /// This long after the last one.
    pub interval: Period,
    /// This many bytes after the last one.
    pub bytes: ByteSize,
}

/// Where stages have their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateSpec {
    /// All of it in memory.
    Memory,
    /// On disk, with so many bytes of memory for what is in use.
    Disk {
        /// Bytes for entries, blocks, indexes and compactions together.
        cache: ByteSize,
    },
}

/// A source.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// Which connector reads.
    pub connector: String,
    /// Where in the JSON value the key is; without it the connector's key stands.
    pub key: Option<Pointer>,
    /// Where in the JSON value the event time is; without it the connector's time stands.
    pub time: Option<TimeSpec>,
    /// How the watermark follows the events.
    pub watermark: WatermarkSpec,
    /// How many tasks read; partitions are dealt over them.
    pub parallelism: u16,
    /// What happens to rows that come faster than the job takes them.
    pub backpressure: Backpressure,
    /// The sequence that its rows get their numbers from.
    pub sequence: Option<SequenceSpec>,
    /// Everything else in the table: what the connector wants to know.
    pub options: toml::Table,
}

/// A sequence that gives rows numbers, each number once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceSpec {
    /// Its name, under which other sources and jobs may use it too.
    pub name: NodeName,
    /// The key of a row's JSON object that the number becomes.
    pub field: String,
}

/// What happens to rows that come faster than the job takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backpressure {
    /// What gives way.
    pub policy: Policy,
    /// How much may wait in memory; in the ingest topic of a source that has one.
    pub bytes: ByteSize,
    /// How much may wait on disk, with [`Policy::Spill`].
    pub disk: ByteSize,
}

impl Default for Backpressure {
    fn default() -> Self {
        Self { policy: Policy::Block, bytes: ByteSize::from_bytes(64 << 20), disk: ByteSize::from_bytes(1 << 30) }
    }
}

/// What gives way when too much waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Whoever sends waits, or is told to come again.
    Block,
    /// Rows that have waited longest are dropped and counted.
    DropOldest,
    /// Rows that come are dropped and counted.
    DropNewest,
    /// Rows wait on disk; when that is full, too, as `block`.
    Spill,
}

/// Where an event time is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeSpec {
    /// A place in the JSON value.
    pub field: Pointer,
    /// How to read what is there.
    pub unit: TimeUnit,
}

/// How an event time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since the Unix epoch, whole or with a fraction.
    Seconds,
    /// Milliseconds since the Unix epoch.
    Millis,
    /// Microseconds since the Unix epoch.
    Micros,
    /// Nanoseconds since the Unix epoch, cut to microseconds.
    Nanos,
    /// A string as RFC 3339 has it.
    Rfc3339,
}

/// How a watermark follows the events of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatermarkSpec {
    /// How far behind the latest event another may come and still be on time.
    pub bound: Period,
    /// A partition that is silent for this long holds the watermark back no more.
    pub idle: Option<Period>,
    /// Where in the JSON value a row says that it marks the watermark: then those rows alone move it.
    pub punctuated: Option<Pointer>,
    /// Event times further ahead of the wall clock than this do not move the watermark.
    pub skew: Option<Period>,
    /// The sources that it keeps pace with.
    pub align: Option<AlignSpec>,
    /// The source whose watermarks it has in place of its own.
    pub from: Option<NodeName>,
}

/// Sources that wait for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlignSpec {
    /// How far this one may be ahead of the slowest.
    pub within: Period,
    /// Those that name the same group; without a name, those that have none.
    pub group: Option<String>,
}

/// A stage.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// What it does.
    pub plugin: PluginRef,
    /// What comes in.
    pub inputs: Vec<InputSpec>,
    /// How many tasks share its keys.
    pub parallelism: u16,
    /// Whether its copies hand on their rows in the order in which these came in.
    pub ordered: Option<Ordered>,
    /// The windows of an aggregate.
    pub window: Option<WindowSpec>,
    /// What the plugin's `open` gets; `null` where the file has none.
    pub config: serde_json::Value,
    /// What an instance may use.
    pub limits: LimitsSpec,
    /// How far its failures may go.
    pub faults: FaultPolicy,
}

/// A stage whose copies share its rows and keep their order: a sequential convoy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ordered {
    /// Places in the JSON value that make the class of a row: rows of one class go to one copy. None:
    /// the key does.
    pub split: Vec<Pointer>,
}

/// What a stage does about its plugin when a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultPolicy {
    /// So many rows, timers or panes may fail one after the other, and go to the dead letters; the
    /// next one that fails before any has succeeded fails the job.
    pub in_a_row_max: u64,
    /// A call that asks to be tried again is, so many times; then it has failed.
    pub retries_max: u32,
    /// The wait before the first time; each is twice the one before.
    pub backoff: Duration,
}

impl Default for FaultPolicy {
    fn default() -> Self {
        Self { in_a_row_max: 100, retries_max: 5, backoff: Duration::from_millis(100) }
    }
}

/// What one instance of a plugin may use; the host's default where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LimitsSpec {
    /// Linear memory.
    pub memory: Option<ByteSize>,
    /// Time of one call.
    pub call: Option<Period>,
}

/// Which plugin a stage runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PluginRef {
    /// A file, relative to the job file; see [`JobSpec::resolve`].
    Path(String),
    /// A plugin of the standard library, `std:NAME`.
    Standard(String),
    /// Known by its bytes, `sha256:HEX`.
    Digest(PluginDigest),
}

/// A sink.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// Which connector writes.
    pub connector: String,
    /// What comes in; every input leads to port 0.
    pub inputs: Vec<InputSpec>,
    /// How many tasks write.
    pub parallelism: u16,
    /// Everything else in the table: what the connector wants to know.
    pub options: toml::Table,
}

/// One way into a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The node that rows come from.
    pub from: NodeName,
    /// The output port they leave by.
    pub output: PortRef,
    /// The input port they enter by.
    pub port: PortRef,
    /// The key that rows get on the way; without it they keep theirs.
    pub key: Option<NewKey>,
    /// The order that they are put into.
    pub order: Option<OrderSpec>,
    /// Where the file says so.
    pub span: Span,
}

/// The key that rows get on their way into a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewKey {
    /// What stands at a place in the JSON value.
    At(Pointer),
    /// The empty key, one for all rows: `key = false`.
    Empty,
}

impl fmt::Display for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(pointer) => pointer.fmt(f),
            Self::Empty => f.write_str("none"),
        }
    }
}

/// A port as a job file names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PortRef {
    /// By number, from 0. The default port is 0.
    Number(u16),
    /// By the name that the plugin gives it.
    Name(String),
}

/// A node of any kind.
#[derive(Debug, Clone, Copy)]
pub enum NodeSpec<'a> {
    /// A source.
    Source(&'a SourceSpec),
    /// A stage.
    Stage(&'a StageSpec),
    /// A sink.
    Sink(&'a SinkSpec),
}

impl JobSpec {
    /// The node of a name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<NodeSpec<'_>> {
        (self.sources.get(name).map(NodeSpec::Source))
            .or_else(|| self.stages.get(name).map(NodeSpec::Stage))
            .or_else(|| self.sinks.get(name).map(NodeSpec::Sink))
    }

    /// Every node: sources, stages, sinks, each in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, NodeSpec<'_>)> {
        let sources = self.sources.iter().map(|(name, node)| (name, NodeSpec::Source(node)));
        let stages = self.stages.iter().map(|(name, node)| (name, NodeSpec::Stage(node)));
        let sinks = self.sinks.iter().map(|(name, node)| (name, NodeSpec::Sink(node)));
        sources.chain(stages).chain(sinks)
    }

    /// A path as the job file has it, seen from where the job file is.
    #[must_use]
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        let file = Path::new(&self.document.source().name);
        file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Where the value at a path of keys stands, such as `["source", "sensors", "path"]`, or the
    /// nearest table around it. Elements of lists go by their place.
    #[must_use]
    pub fn locate(&self, path: &[&str]) -> Span {
        self.document.locate(path)
    }

    /// An error at a path of keys, as [`JobSpec::locate`] has it.
    #[must_use]
    pub fn error(&self, path: &[&str], message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.document.source(), self.locate(path), message)
    }

    /// A warning at a path of keys, as [`JobSpec::locate`] has it.
    #[must_use]
    pub fn warning(&self, path: &[&str], message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.document.source(), self.locate(path), message)
    }

    /// An error at a place in the `config` of a stage, given as a JSON pointer such as
    /// `/fields/0`.
    #[must_use]
    pub fn config_error(&self, stage: &NodeName, pointer: &str, message: impl Into<String>) -> Diagnostic {
        let tokens: Vec<String> =
            pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
        let mut path = vec!["stage", stage.as_str(), "config"];
        path.extend(tokens.iter().map(String::as_str));
        self.error(&path, message)
    }

    /// The file.
    #[must_use]
    pub fn document(&self) -> &Document {
        &self.document
    }
}

impl<'a> NodeSpec<'a> {
    /// The table it stands in: `source`, `stage` or `sink`.
    #[must_use]
    pub fn section(self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Stage(_) => "stage",
            Self::Sink(_) => "sink",
        }
    }

    /// What comes in.
    #[must_use]
    pub fn inputs(self) -> &'a [InputSpec] {
        match self {
            Self::Source(_) => &[],
            Self::Stage(stage) => &stage.inputs,
            Self::Sink(sink) => &sink.inputs,
        }
    }

    /// How many tasks.
    #[must_use]
    pub fn parallelism(self) -> u16 {
        match self {
            Self::Source(source) => source.parallelism,
            Self::Stage(stage) => stage.parallelism,
            Self::Sink(sink) => sink.parallelism,
        }
    }
}

impl Delivery {
    /// Every value with its name in a job file.
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("at-most-once", Self::AtMostOnce), ("at-least-once", Self::AtLeastOnce), ("exactly-once", Self::ExactlyOnce)];
}

impl Policy {
    /// Every value with its name in a job file.
    pub(crate) const NAMES: [(&str, Self); 4] = [
        ("block", Self::Block),
        ("drop-oldest", Self::DropOldest),
        ("drop-newest", Self::DropNewest),
        ("spill", Self::Spill),
    ];
}

impl TimeUnit {
    /// Every value with its name in a job file.
    pub(crate) const NAMES: [(&str, Self); 5] = [
        ("s", Self::Seconds),
        ("ms", Self::Millis),
        ("us", Self::Micros),
        ("ns", Self::Nanos),
        ("rfc3339", Self::Rfc3339),
    ];
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> &'static str {
    names.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name)
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, self))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, self))
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&Self::NAMES, self))
    }
}

impl PortRef {
    /// The port that is meant where none is named.
    pub const DEFAULT: Self = Self::Number(0);
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Standard(name) => write!(f, "std:{name}"),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}
