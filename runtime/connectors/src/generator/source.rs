use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmill_contract::{
    BatchLimit, Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{ErrorKind, PartitionId, Position};
use wasmill_spec::Period;

use super::config::GeneratorConfig;
use super::event::Recipe;
use super::pacer::Pacer;
use crate::Site;
use crate::options::{ConfigError, parse};

const PARTITION: PartitionId = PartitionId(0);
const KEYS_DEFAULT: u64 = 1_000;
/// Events a second of event time where the job sets no rate.
const EVENT_TIME_RATE: u64 = 1_000;
/// 2024-01-01, where event time starts without a rate.
const EVENT_TIME_START: i64 = 1_704_067_200_000_000;
/// Events that come sooner after each other are handed over together: a wake-up costs about as much
/// as making fifty of them.
const WAKE_NANOS_MIN: u64 = 100_000;
/// Waits that are longer begin on the job's clock, and only their end needs precision.
const COARSE_WAIT_NANOS: u64 = 5_000_000;
/// What the job's clock may oversleep.
const COARSE_CLOCK_NANOS: u64 = 2_000_000;
const RATE_MAX: u64 = 100_000_000;
const VALUE_BYTES_MAX: u64 = 1 << 20;
const SECOND_NANOS: u128 = 1_000_000_000;

struct GeneratorFactory {
    recipe: Recipe,
    rate: Option<u64>,
    count: Option<u64>,
}

pub(super) fn build(options: toml::Table, _: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    let config: GeneratorConfig = parse(options)?;
    let rate = config.rate.map(|rate| rate.get());
    if let Some(rate) = rate.filter(|&rate| rate > RATE_MAX) {
        return Err(ConfigError::of("rate", format!("`rate` is at most {RATE_MAX} events a second, not {rate}"))
            .hint("remove it to get as many events as the job takes"));
    }
    let value_bytes = config.value_bytes.map_or(0, |size| size.bytes());
    if value_bytes > VALUE_BYTES_MAX {
        return Err(ConfigError::of("value_bytes", format!("`value_bytes` is at most {VALUE_BYTES_MAX}")));
    }
    let recipe = Recipe {
        keys: config.keys.map_or(KEYS_DEFAULT, |keys| keys.get()),
        distribution: config.distribution,
        disorder_micros: config.disorder.map_or(0, Period::micros).unsigned_abs(),
        seed: config.seed,
        value_bytes: value_bytes as usize,
        rate: rate.unwrap_or(EVENT_TIME_RATE),
    };
    Ok(Arc::new(GeneratorFactory { recipe, rate, count: config.count }))
}

/// Where to go on. JSON, so that people can read what is stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Place {
    /// The next event.
    next: u64,
    /// The event time of event 0, but for disorder.
    start_micros: i64,
}

impl SourceFactory for GeneratorFactory {
    fn capabilities(&self) -> SourceCapabilities {
        let bounds = if self.count.is_some() { Bounds::Bounded } else { Bounds::Unbounded };
        SourceCapabilities { bounds, replayable: true }
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        let partition = SourcePartition { id: PARTITION, name: "generator".to_owned(), size: self.count };
        Box::pin(async move { Ok(vec![partition]) })
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let start_micros = if self.rate.is_some() { clock.wall().0 } else { EVENT_TIME_START };
            let (open, place) = match assigned.into_iter().next() {
                Some((_, Some(position))) => (
                    true,
                    serde_json::from_slice(&position.0).map_err(|error| {
                        ConnectorError::new(ErrorKind::Corrupt, "cannot read the stored position of a generator")
                            .caused_by(error)
                    })?,
                ),
                assigned => (assigned.is_some(), Place { next: 0, start_micros }),
            };
            let pace = match self.rate {
                Some(rate) => Some(Pace {
                    rate,
                    first: place.next,
                    started_nanos: clock.monotonic_nanos(),
                    pacer: Pacer::start()?,
                }),
                None => None,
            };
            let (recipe, count) = (self.recipe.clone(), self.count);
            Ok(Box::new(Generator { recipe, count, clock, open, place, pace }) as Box<dyn Source>)
        })
    }
}

/// When events are due.
struct Pace {
    rate: u64,
    /// The event that is due at `started_nanos`.
    first: u64,
    started_nanos: u64,
    pacer: Pacer,
}

impl Pace {
    /// The monotonic time at which `event` is due.
    fn due_nanos(&self, event: u64) -> u64 {
        let after = u128::from(event.saturating_sub(self.first)) * SECOND_NANOS / u128::from(self.rate);
        self.started_nanos.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// The first event that is not due yet.
    fn next_at(&self, now_nanos: u64) -> u64 {
        let passed = u128::from(now_nanos.saturating_sub(self.started_nanos));
        let events = passed * u128::from(self.rate) / SECOND_NANOS + 1;
        self.first.saturating_add(u64::try_from(events).unwrap_or(u64::MAX))
    }

    /// Waits until `event` and those close behind it are due.
    async fn wait_for(&self, event: u64, clock: &dyn Clock) {
        let until = self.due_nanos(event);
        let left = |clock: &dyn Clock| until.saturating_sub(clock.monotonic_nanos());
        if left(clock) == 0 {
            return;
        }
        if left(clock) > COARSE_WAIT_NANOS {
            clock.sleep_until(until - COARSE_CLOCK_NANOS).await;
        }
        loop {
            let left = left(clock);
            if left == 0 {
                return;
            }
            self.pacer.wait(left.max(WAKE_NANOS_MIN)).await;
        }
    }
}

/// # Cancellation
/// An event is made and counted without waiting in between.
struct Generator {
    recipe: Recipe,
    count: Option<u64>,
    clock: Arc<dyn Clock>,
    /// The partition is assigned and has not ended.
    open: bool,
    place: Place,
    pace: Option<Pace>,
}

impl Source for Generator {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        Box::pin(async move {
            let next = self.place.next;
            let mut rows = self.count.map_or(u64::MAX, |count| count.saturating_sub(next));
            if !self.open {
                return Ok(SourceEvent::End);
            }
            if rows == 0 {
                self.open = false;
                return Ok(SourceEvent::PartitionEnd(PARTITION));
            }
            let mut arrived_nanos = self.clock.monotonic_nanos();
            if let Some(pace) = &self.pace {
                pace.wait_for(next, &*self.clock).await;
                arrived_nanos = pace.due_nanos(next);
                rows = rows.min(pace.next_at(self.clock.monotonic_nanos()).saturating_sub(next)).max(1);
            }
            let rows = rows.min(limit.rows.max(1) as u64);
            let batch = self.recipe.batch(next, rows, limit.bytes.max(1), self.place.start_micros, arrived_nanos);
            self.place.next += batch.len() as u64;
            Ok(SourceEvent::Rows(batch))
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        let place = serde_json::to_vec(&self.place).expect("plain data is written to memory without fail");
        vec![(PARTITION, Position(place))]
    }

    fn progress(&self) -> Option<u64> {
        Some(self.place.next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wasmill_env::{RealClock, SimulatedClock};
    use wasmill_model::{Batch, Timestamp};

    use super::*;
    use crate::conformance::{SourceCase, check_source};

    const LIMIT: BatchLimit = BatchLimit { rows: 4_096, bytes: 1 << 20 };

    fn factory(options: &str) -> Arc<dyn SourceFactory> {
        crate::source("generator", options.parse().expect("valid TOML"), &Site::alone(std::path::Path::new("/")))
            .expect("valid options")
    }

    async fn rows(source: &mut dyn Source) -> Batch {
        match source.next(LIMIT).await {
            Ok(SourceEvent::Rows(batch)) => batch,
            other => panic!("rows were expected, not {other:?}"),
        }
    }

    /// Runs on, and shows the same wall time always.
    struct FixedWall(RealClock);

    impl Clock for FixedWall {
        fn wall(&self) -> Timestamp {
            Timestamp(0)
        }
        fn monotonic_nanos(&self) -> u64 {
            self.0.monotonic_nanos()
        }
        fn sleep_until(&self, deadline_nanos: u64) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.0.sleep_until(deadline_nanos)
        }
    }

    #[tokio::test]
    async fn the_generator_conforms() {
        let clock: Arc<dyn Clock> = Arc::new(FixedWall(RealClock::default()));
        let cases = [
            ("count = 500\nkeys = 10\ndisorder = '10ms'\nvalue_bytes = '80B'", None),
            ("distribution = 'zipf'\nseed = 9", Some(300)),
            ("rate = 100000\ncount = 200", None),
            ("count = 0", None),
        ];
        for (options, rows) in cases {
            check_source(SourceCase { make: &|| factory(options), clock: clock.clone(), rows }).await;
        }
    }

    #[tokio::test]
    async fn events_arrive_when_they_are_due_however_late_the_job_asks() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(1_000_000)));
        let factory = factory("rate = 1000");
        let mut source = factory.open(vec![(PARTITION, None)], clock.clone()).await.expect("opens");
        let first = rows(&mut *source).await;
        assert_eq!((first.len(), first.arrived_nanos(), first.times()[0]), (1, 0, 1_000_000));
        clock.advance(Duration::from_millis(20));
        let late = rows(&mut *source).await;
        assert_eq!((late.len(), late.arrived_nanos()), (20, 1_000_000));
        assert_eq!(late.times()[19], 1_020_000);
    }

    #[tokio::test]
    async fn long_waits_are_on_the_clock_of_the_job() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let mut source = factory("rate = 1").open(vec![(PARTITION, None)], clock.clone()).await.expect("opens");
        rows(&mut *source).await;
        let next = tokio::spawn(async move { rows(&mut *source).await });
        while clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(1));
        let batch = next.await.expect("no panic");
        assert_eq!((batch.len(), batch.arrived_nanos()), (1, 1_000_000_000));
    }
}
