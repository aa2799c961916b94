//! When the first row reached a sink: how long a job takes to start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch};

/// Monotonic nanoseconds of the first row that a sink has taken; 0 before.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstOutput(Arc<AtomicU64>);

impl FirstOutput {
    /// `factory`, watched.
    pub(crate) fn watch(&self, factory: Arc<dyn SinkFactory>) -> Arc<dyn SinkFactory> {
        Arc::new(Watched { factory, first: self.clone() })
    }

    /// When it was, if it was.
    pub(crate) fn nanos(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&nanos| nanos > 0)
    }
}

struct Watched {
    factory: Arc<dyn SinkFactory>,
    first: FirstOutput,
}

impl SinkFactory for Watched {
    fn capabilities(&self) -> SinkCapabilities {
        self.factory.capabilities()
    }

    fn open(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        Box::pin(async move {
            let sink = self.factory.open(share, recovered, Arc::clone(&clock)).await?;
            Ok(self.watched(sink, clock))
        })
    }

    fn has_direct(&self) -> bool {
        self.factory.has_direct()
    }

    fn open_direct(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        Box::pin(async move {
            let sink = self.factory.open_direct(share, recovered, Arc::clone(&clock)).await?;
            Ok(self.watched(sink, clock))
        })
    }
}

impl Watched {
    fn watched(&self, sink: Box<dyn Sink>, clock: Arc<dyn Clock>) -> Box<dyn Sink> {
        Box::new(WatchedSink { sink, first: self.first.clone(), clock, seen: false })
    }
}

struct WatchedSink {
    sink: Box<dyn Sink>,
    first: FirstOutput,
    clock: Arc<dyn Clock>,
    seen: bool,
}

impl Sink for WatchedSink {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        if self.seen {
            return self.sink.write(batch);
        }
        Box::pin(async move {
            self.sink.write(batch).await?;
            self.seen = true;
            let now = self.clock.monotonic_nanos().max(1);
            // The task that was first keeps its place.
            let _earlier = self.first.0.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            Ok(())
        })
    }

    fn prepare(&mut self, epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        self.sink.prepare(epoch)
    }

    fn commit(&mut self, epoch: Epoch, last: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        self.sink.commit(epoch, last)
    }

    fn location(&self) -> Option<String> {
        self.sink.location()
    }
}
