//! Aggregates: pure functions over the accumulators of windows, which the host keeps.

use serde::de::DeserializeOwned;

use crate::bindings::exports::wasmill::operator::{aggregate, plugin};
use crate::bindings::wasmill::operator::types::{Batch, Column, Failure, Rejected};
use crate::column::Rows;
use crate::event::Events;
use crate::{Codec, Columns, ConfigError, Event, Reject, config};

/// The space by which the host knows the version of accumulators.
const ACCUMULATOR: &str = "accumulator";

/// What a stage with a window computes.
///
/// ```
/// use wasmill_sdk::prelude::*;
///
/// /// Adds up the field `price`.
/// struct Sum;
///
/// impl Aggregate for Sum {
///     type Config = ();
///     type Accumulator = u64;
///
///     fn open(_: ()) -> Result<Self, ConfigError> {
///         Ok(Self)
///     }
///
///     fn fold(&self, sum: &mut u64, event: Event<'_>) -> Result<(), Reject> {
///         *sum += event.json().u64("price")?;
///         Ok(())
///     }
///
///     fn merge(&self, into: &mut u64, from: u64) {
///         *into += from;
///     }
///
///     fn finish(&self, pane: Pane<'_>, sum: u64, out: &mut Results) {
///         out.emit(format!("{}..{}: {sum}", pane.start(), pane.end()));
///     }
/// }
///
/// wasmill_sdk::aggregate!(Sum);
///
/// let mut test = wasmill_sdk::testing::WindowTester::<Sum>::tumbling("", 10);
/// test.send(3, "k", r#"{"price": 5}"#);
/// test.send(4, "k", r#"{"price": 6}"#);
/// test.watermark(9);
/// assert_eq!(test.values(), ["0..10: 11"]);
/// ```
pub trait Aggregate: Sized + 'static {
    /// The configuration, read from the stage's `config`; `()` for none.
    type Config: DeserializeOwned + 'static;

    /// What is known of a group of events so far. Its bytes are never empty, which is what a new
    /// one is.
    type Accumulator: Codec;

    /// The columns that [`Aggregate::fold`] reads.
    const COLUMNS: Columns = Columns::ALL;

    /// Raised whenever the bytes of an accumulator change their meaning: a job does not go on with
    /// windows that another version has filled.
    const ACCUMULATOR_VERSION: u32 = 1;

    /// Makes an instance.
    ///
    /// # Errors
    /// Where the configuration is wrong.
    fn open(config: Self::Config) -> Result<Self, ConfigError>;

    /// A new accumulator.
    fn start(&self) -> Self::Accumulator
    where
        Self::Accumulator: Default,
    {
        Self::Accumulator::default()
    }

    /// Adds an event.
    ///
    /// # Errors
    /// Where the event cannot be processed: it goes to the dead-letter queue. The accumulator is
    /// not to be changed before that is known.
    fn fold(&self, accumulator: &mut Self::Accumulator, event: Event<'_>) -> Result<(), Reject>;

    /// Adds what another accumulator knows, of events that come after those of `into`.
    fn merge(&self, into: &mut Self::Accumulator, from: Self::Accumulator);

    /// Emits the results of a window that fires: any number of rows.
    fn finish(&self, pane: Pane<'_>, accumulator: Self::Accumulator, out: &mut Results);
}

/// A window that fires, for one key.
#[derive(Debug, Clone, Copy)]
pub struct Pane<'a> {
    start: i64,
    end: i64,
    key: &'a [u8],
}

impl<'a> Pane<'a> {
    /// The first microsecond of the window, since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The first microsecond behind the window, since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The event key.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }
}

/// Result rows of panes. A row has the key of its pane and the last microsecond of its window as
/// its time.
#[derive(Debug, Default)]
pub struct Results {
    values: Column,
    panes: Vec<u32>,
    pane: u32,
}

impl Results {
    /// Emits a value.
    #[inline]
    pub fn emit(&mut self, value: impl AsRef<[u8]>) {
        self.emit_with(|buffer| crate::append(buffer, value.as_ref()));
    }

    /// Emits a value that is written into a buffer: nothing is copied. What the buffer holds
    /// already belongs to other rows.
    #[inline]
    pub fn emit_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.values.data);
        self.values.end();
        self.panes.push(self.pane);
    }
}

/// An open aggregate.
pub struct AggregateDriver<X> {
    aggregate: X,
}

impl<X: Aggregate> AggregateDriver<X>
where
    X::Accumulator: Default,
{
    pub(crate) fn open(text: &[u8]) -> Result<Self, ConfigError> {
        Ok(Self { aggregate: X::open(config::parse(text)?)? })
    }

    fn decode(&self, bytes: &[u8]) -> Result<X::Accumulator, Failure> {
        if bytes.is_empty() {
            return Ok(self.aggregate.start());
        }
        X::Accumulator::decode(bytes).map_err(|error| Failure::Fatal(format!("an accumulator cannot be read: {error}")))
    }

    pub(crate) fn fold(
        &self,
        accumulators: &Column,
        groups: &[u32],
        input: &Batch,
    ) -> Result<aggregate::Folded, Failure> {
        let mut open: Vec<X::Accumulator> =
            Rows::of(accumulators).iter().map(|bytes| self.decode(bytes)).collect::<Result<_, _>>()?;
        let mut rejected = Vec::new();
        for (event, group) in Events::of(0, input).iter().zip(groups) {
            let Some(accumulator) = open.get_mut(*group as usize) else { return Err(no_group(*group, open.len())) };
            if let Err(reject) = self.aggregate.fold(accumulator, event) {
                rejected.push(Rejected { row: event.row(), reason: reject.into_reason() });
            }
        }
        Ok(aggregate::Folded { accumulators: encode(&open), rejected })
    }

    pub(crate) fn merge(&self, accumulators: &Column, groups: &[u32], count: u32) -> Result<Column, Failure> {
        let mut merged: Vec<Option<X::Accumulator>> = vec![None; count as usize];
        for (bytes, group) in Rows::of(accumulators).iter().zip(groups) {
            let from = self.decode(bytes)?;
            match merged.get_mut(*group as usize) {
                Some(Some(into)) => self.aggregate.merge(into, from),
                Some(empty) => *empty = Some(from),
                None => return Err(no_group(*group, count as usize)),
            }
        }
        let merged: Vec<_> = merged.into_iter().map(|one| one.unwrap_or_else(|| self.aggregate.start())).collect();
        Ok(encode(&merged))
    }

    pub(crate) fn finish(
        &self,
        panes: &aggregate::Panes,
        accumulators: &Column,
    ) -> Result<aggregate::Results, Failure> {
        let keys = Rows::of(&panes.keys);
        let mut out = Results::default();
        for (row, bytes) in Rows::of(accumulators).iter().enumerate() {
            let (Some(start), Some(end)) = (panes.starts.get(row), panes.ends.get(row)) else {
                return Err(no_group(row as u32, panes.starts.len()));
            };
            let pane = Pane { start: *start, end: *end, key: keys.get(row) };
            out.pane = row as u32;
            self.aggregate.finish(pane, self.decode(bytes)?, &mut out);
        }
        let count = accumulators.ends.len();
        let one_each = out.panes.len() == count && (0..).zip(&out.panes).all(|(row, pane)| row == *pane);
        Ok(aggregate::Results { values: out.values, panes: if one_each { Vec::new() } else { out.panes } })
    }
}

pub(crate) fn describe<X: Aggregate>(name: &str, version: &str) -> plugin::Descriptor {
    plugin::Descriptor {
        name: name.to_owned(),
        version: version.to_owned(),
        inputs: vec!["in".to_owned()],
        outputs: vec!["out".to_owned()],
        // The first version goes without saying.
        spaces: match X::ACCUMULATOR_VERSION {
            1 => Vec::new(),
            schema_version => vec![plugin::Space { name: ACCUMULATOR.to_owned(), schema_version, ttl: None }],
        },
        columns: X::COLUMNS.into(),
        watermarks: false,
    }
}

fn encode<T: Codec>(accumulators: &[T]) -> Column {
    let mut column = Column::with_capacity(accumulators.len(), accumulators.len() * 8);
    for accumulator in accumulators {
        accumulator.encode(&mut column.data);
        column.end();
    }
    column
}

#[cold]
fn no_group(group: u32, count: usize) -> Failure {
    Failure::Fatal(format!("the host names group {group} of {count}"))
}
