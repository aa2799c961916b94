//! A sink that counts what it gets and keeps nothing: for measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::Deserialize;
use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, Visibility};

use crate::options::{ConfigError, parse};
use crate::{Connector, SinkEntry, Site};

pub(crate) const CONNECTOR: Connector = Connector {
    name: "blackhole",
    source: None,
    sink: Some(SinkEntry { build, schema: || schemars::schema_for!(BlackholeConfig) }),
};

/// The sink `blackhole` has no options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BlackholeConfig {}

fn build(options: toml::Table, _: &Site) -> Result<Arc<dyn SinkFactory>, ConfigError> {
    let BlackholeConfig {} = parse(options)?;
    Ok(Arc::new(BlackholeFactory::default()))
}

#[derive(Debug, Default)]
struct BlackholeFactory {
    counts: Arc<Counts>,
}

/// What all writers got.
#[derive(Debug, Default)]
struct Counts {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl SinkFactory for BlackholeFactory {
    fn capabilities(&self) -> SinkCapabilities {
        // What leaves no trace is there exactly once.
        SinkCapabilities::retract(Visibility::WithEpoch)
    }

    fn open(
        &self,
        _: Share,
        _: Option<SinkHandle>,
        _: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        let counts = self.counts.clone();
        Box::pin(async move { Ok(Box::new(Blackhole { counts }) as Box<dyn Sink>) })
    }
}

struct Blackhole {
    counts: Arc<Counts>,
}

impl Sink for Blackhole {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        self.counts.rows.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.counts.bytes.fetch_add(batch.values().data().len() as u64, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }

    fn prepare(&mut self, _: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(async { Ok(SinkHandle::default()) })
    }

    fn commit(&mut self, _: Epoch, _: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async { Ok(()) })
    }

    fn location(&self) -> Option<String> {
        let (rows, bytes) = (self.counts.rows.load(Ordering::Relaxed), self.counts.bytes.load(Ordering::Relaxed));
        Some(format!("nowhere ({rows} rows, {bytes} bytes)"))
    }
}
