use std::rc::Rc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::bindings::wasmill::operator::types::Clock;
use crate::metrics::{Counter, Gauge, Histogram, Metrics};
use crate::migration::Migration;
use crate::state::{Shared, SpaceInfo};
use crate::{Codec, Columns, ConfigError, Context, Event, Failure, List, Map, MapKey, Reject, Timer, Value};

/// What a stage does with its events.
///
/// ```
/// use wasmill_sdk::prelude::*;
///
/// /// Counts events by key and emits every count.
/// struct Count {
///     seen: Value<u64>,
/// }
///
/// impl Operator for Count {
///     type Config = ();
///
///     fn open(_: (), setup: &mut Setup) -> Result<Self, ConfigError> {
///         Ok(Self { seen: setup.value("seen") })
///     }
///
///     fn event(&mut self, _: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
///         let count = self.seen.update(|count| { *count += 1; *count });
///         ctx.emit(count.to_string());
///         Ok(())
///     }
/// }
///
/// wasmill_sdk::operator!(Count, stateful);
///
/// let mut test = wasmill_sdk::testing::Tester::<Count>::new("");
/// test.send_all([("a", "x"), ("b", "x"), ("a", "x")]);
/// assert_eq!(test.values(), ["1", "1", "2"]);
/// ```
pub trait Operator: Sized + 'static {
    /// The configuration, read from the stage's `config`; `()` for none. Where the job gives none,
    /// it is what an empty object means.
    type Config: DeserializeOwned + 'static;

    /// Names of the input ports, the default first.
    const INPUTS: &'static [&'static str] = &["in"];

    /// Names of the output ports, the default first. [`Setup::outputs`] sets them by configuration.
    const OUTPUTS: &'static [&'static str] = &["out"];

    /// The columns it reads; the others do not cross into the plugin. Keys come by themselves where
    /// there is state.
    const COLUMNS: Columns = Columns::ALL;

    /// Whether it wants [`Operator::watermark`] to be called.
    const WATERMARKS: bool = false;

    /// Makes an instance: checks the configuration and declares state and metrics. The plugin is
    /// described by what this declares, so it does the same for the same configuration.
    ///
    /// # Errors
    /// Where the configuration is wrong.
    fn open(config: Self::Config, setup: &mut Setup) -> Result<Self, ConfigError>;

    /// Handles one event.
    ///
    /// # Errors
    /// Where the event cannot be processed: it goes to the dead-letter queue and leaves no trace in
    /// state, timers and output.
    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject>;

    /// Handles the events of a call: for work that is done once a batch. Without an own one, each
    /// event is handled by [`Operator::event`].
    ///
    /// # Errors
    /// Where the call as a whole fails.
    fn batch(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        ctx.each(|event, ctx| self.event(event, ctx));
        Ok(())
    }

    /// Handles a timer that is due.
    ///
    /// # Errors
    /// As [`Operator::event`].
    fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let _ = (timer, ctx);
        Ok(())
    }

    /// Hears that the watermark has risen, in microseconds since the Unix epoch. There is no key
    /// here and so no state; rows have the time of the watermark unless they have their own.
    ///
    /// # Errors
    /// Where the call fails.
    fn watermark(&mut self, watermark: i64, ctx: &mut Context<'_>) -> Result<(), Failure> {
        let _ = (watermark, ctx);
        Ok(())
    }
}

/// What an operator declares when it is opened.
pub struct Setup {
    pub(crate) shared: Rc<Shared>,
    pub(crate) outputs: Vec<String>,
    pub(crate) metrics: Metrics,
}

impl Setup {
    pub(crate) fn new(shared: Rc<Shared>, outputs: &[&str]) -> Self {
        Self { shared, outputs: outputs.iter().map(|name| (*name).to_owned()).collect(), metrics: Metrics::default() }
    }

    /// One value per event key.
    #[must_use]
    pub fn value<T: Codec>(&mut self, name: &str) -> Value<T> {
        self.space(name).value()
    }

    /// A map per event key.
    #[must_use]
    pub fn map<K: MapKey, V: Codec>(&mut self, name: &str) -> Map<K, V> {
        self.space(name).map()
    }

    /// A list per event key.
    #[must_use]
    pub fn list<T: Codec>(&mut self, name: &str) -> List<T> {
        self.space(name).list()
    }

    /// A part of the state with more to say about it:
    /// `setup.space("seen").version(2).ttl(Clock::Event, hour).value()`.
    pub fn space(&mut self, name: &str) -> SpaceBuilder<'_> {
        let number = self.shared.space_count() as u16;
        let info = SpaceInfo { number, name: name.to_owned(), version: 1, ttl: None };
        SpaceBuilder { shared: &self.shared, info, migrations: Vec::new() }
    }

    /// Names the output ports, the default first, where they depend on the configuration.
    pub fn outputs<I>(&mut self, names: I)
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.outputs = names.into_iter().map(Into::into).collect();
    }

    /// A number that only grows.
    #[must_use]
    pub fn counter(&mut self, name: &str) -> Counter {
        self.metrics.counter(name)
    }

    /// A number that goes up and down.
    #[must_use]
    pub fn gauge(&mut self, name: &str) -> Gauge {
        self.metrics.gauge(name)
    }

    /// The distribution of what is observed.
    #[must_use]
    pub fn histogram(&mut self, name: &str) -> Histogram {
        self.metrics.histogram(name)
    }
}

/// A part of the state on its way to being declared.
#[must_use = "a space is declared by `value`, `map` or `list`"]
pub struct SpaceBuilder<'s> {
    shared: &'s Rc<Shared>,
    info: SpaceInfo,
    migrations: Vec<Migration>,
}

impl SpaceBuilder<'_> {
    /// The version of what the bytes mean, from 1: raised when the type changes.
    pub fn version(mut self, version: u32) -> Self {
        self.info.version = version;
        self
    }

    /// Lets entries vanish this long after they were last written.
    pub fn ttl(mut self, clock: Clock, after: Duration) -> Self {
        self.info.ttl = Some((clock, u64::try_from(after.as_micros()).unwrap_or(u64::MAX)));
        self
    }

    /// Takes over entries that an older version has written: what was read as `Old` is written as
    /// `New`, and `None` drops the entry. Pure. A swap, and a job that goes on from older state, make
    /// use of it; keys and sub-keys stay as they are.
    ///
    /// `setup.space("seen").version(2).migrate(1, |old: u32| Some(u64::from(old))).value()`
    pub fn migrate<Old: Codec, New: Codec>(
        mut self,
        from_version: u32,
        turn: impl Fn(Old) -> Option<New> + 'static,
    ) -> Self {
        self.migrations.push(Migration::new(from_version, turn));
        self
    }

    fn declare<T: Codec>(self) -> (Rc<Shared>, SpaceInfo) {
        self.migrations.iter().for_each(|migration| migration.assert_makes::<T>(&self.info));
        self.shared.add_migrations(self.migrations);
        (self.shared.clone(), self.info)
    }

    /// One value per event key.
    ///
    /// # Panics
    /// Where a migration makes something else.
    #[must_use]
    pub fn value<T: Codec>(self) -> Value<T> {
        let (shared, info) = self.declare::<T>();
        Value::new(&shared, info)
    }

    /// A map per event key.
    ///
    /// # Panics
    /// As [`SpaceBuilder::value`].
    #[must_use]
    pub fn map<K: MapKey, V: Codec>(self) -> Map<K, V> {
        let (shared, info) = self.declare::<V>();
        Map::new(&shared, info)
    }

    /// A list per event key.
    ///
    /// # Panics
    /// As [`SpaceBuilder::value`].
    #[must_use]
    pub fn list<T: Codec>(self) -> List<T> {
        let (shared, info) = self.declare::<T>();
        List::new(&shared, info)
    }
}
