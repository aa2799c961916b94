//! The shapes of `wit/operator.wit` as they cross the boundary: what goes in borrows from the
//! host's columns, what comes out is owned and moves into the model.

use wasmill_model as model;
use wasmtime::component::{ComponentType, Lift, Lower, flags};

/// Names one interface of the package this host speaks.
macro_rules! interface {
    ($name:literal) => {
        concat!("wasmill:operator/", $name, "@0.1.0")
    };
}
pub(crate) use interface;

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct ColumnRef<'a> {
    ends: &'a [u32],
    data: &'a [u8],
}

impl<'a> ColumnRef<'a> {
    const NONE: Self = Self { ends: &[], data: &[] };

    pub(crate) fn of(column: &'a model::Column) -> Self {
        Self { ends: column.ends(), data: column.data() }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct BatchRef<'a> {
    times: &'a [i64],
    keys: ColumnRef<'a>,
    values: ColumnRef<'a>,
}

impl<'a> BatchRef<'a> {
    /// The columns of `batch` that `wanted` names; the others cross empty.
    pub(crate) fn of(batch: &'a model::Batch, wanted: model::ColumnSet) -> Self {
        Self {
            times: if wanted.times { batch.times() } else { &[] },
            keys: if wanted.keys { ColumnRef::of(batch.keys()) } else { ColumnRef::NONE },
            values: if wanted.values { ColumnRef::of(batch.values()) } else { ColumnRef::NONE },
        }
    }
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct FiringsRef<'a> {
    pub(crate) times: &'a [i64],
    pub(crate) keys: ColumnRef<'a>,
    pub(crate) tags: ColumnRef<'a>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct EntriesRef<'a> {
    pub(crate) keys: ColumnRef<'a>,
    pub(crate) subkeys: ColumnRef<'a>,
    pub(crate) values: ColumnRef<'a>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct PanesRef<'a> {
    pub(crate) starts: &'a [i64],
    pub(crate) ends: &'a [i64],
    pub(crate) keys: ColumnRef<'a>,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct Column {
    pub(crate) ends: Vec<u32>,
    pub(crate) data: Vec<u8>,
}

impl Column {
    pub(crate) fn into_model(self) -> Result<model::Column, model::ColumnError> {
        model::Column::from_parts(self.ends, self.data)
    }
}

impl From<model::Column> for Column {
    fn from(column: model::Column) -> Self {
        let (ends, data) = column.into_parts();
        Self { ends, data }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Batch {
    pub(crate) times: Vec<i64>,
    pub(crate) keys: Column,
    pub(crate) values: Column,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Rows {
    pub(crate) batch: Batch,
    pub(crate) origins: Vec<u32>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Output {
    #[component(name = "unchanged")]
    Unchanged,
    #[component(name = "keep")]
    Keep(Vec<u64>),
    #[component(name = "values")]
    Values(Column),
    #[component(name = "rows")]
    Rows(Rows),
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Emission {
    pub(crate) port: u16,
    pub(crate) output: Output,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Rejected {
    pub(crate) row: u32,
    pub(crate) reason: String,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Outcome {
    pub(crate) emissions: Vec<Emission>,
    pub(crate) rejected: Vec<Rejected>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Failure {
    #[component(name = "retry")]
    Retry(String),
    #[component(name = "fatal")]
    Fatal(String),
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Clock {
    #[component(name = "event")]
    Event,
    #[component(name = "processing")]
    Processing,
}

impl From<Clock> for model::Clock {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Event => Self::Event,
            Clock::Processing => Self::Processing,
        }
    }
}

impl From<model::Clock> for Clock {
    fn from(clock: model::Clock) -> Self {
        match clock {
            model::Clock::Event => Self::Event,
            model::Clock::Processing => Self::Processing,
        }
    }
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "made by the lifting code only")]
pub(crate) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<Level> for model::LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::Debug,
            Level::Info => Self::Info,
            Level::Warn => Self::Warn,
            Level::Error => Self::Error,
        }
    }
}

flags! {
    Columns {
        #[component(name = "times")]
        const TIMES;
        #[component(name = "keys")]
        const KEYS;
        #[component(name = "values")]
        const VALUES;
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Ttl {
    pub(crate) clock: Clock,
    pub(crate) micros: u64,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Space {
    pub(crate) name: String,
    #[component(name = "schema-version")]
    pub(crate) schema_version: u32,
    pub(crate) ttl: Option<Ttl>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Descriptor {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) spaces: Vec<Space>,
    pub(crate) columns: Columns,
    pub(crate) watermarks: bool,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Folded {
    pub(crate) accumulators: Column,
    pub(crate) rejected: Vec<Rejected>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Migrated {
    pub(crate) values: Column,
    pub(crate) dropped: Vec<u32>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct Results {
    pub(crate) values: Column,
    pub(crate) panes: Vec<u32>,
}
