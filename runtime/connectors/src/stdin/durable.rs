//! Standard input through the log of what was taken in: what was read survives a crash.

use std::sync::Arc;

use tokio::sync::oneshot;
use wasmill_contract::{
    BatchLimit, Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{PartitionId, Position};

use super::StreamFactory;
use crate::ingest::{self, Intake, Piece, Receivers, Settings};

/// Bytes and rows that are taken in together.
const LIMIT: BatchLimit = BatchLimit { rows: 4_096, bytes: 1 << 20 };

pub(super) struct DurableFactory {
    stream: StreamFactory,
    settings: Settings,
}

impl DurableFactory {
    pub(super) fn new(stream: StreamFactory, settings: Settings) -> Self {
        Self { stream, settings }
    }
}

impl SourceFactory for DurableFactory {
    fn capabilities(&self) -> SourceCapabilities {
        SourceCapabilities { bounds: Bounds::Bounded, replayable: true }
    }

    fn waits_on_disk(&self) -> bool {
        true
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        self.stream.partitions()
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let Some((partition, from)) = assigned.into_iter().next() else { return Ok(ingest::nothing()) };
            let (intake, taken) = ingest::open(self.settings.clone(), from, Arc::clone(&clock)).await?;
            let stream = self.stream.open(vec![(partition, None)], clock).await?;
            let (stop, stopped) = oneshot::channel();
            let done = tokio::spawn(async move {
                tokio::select! {
                    () = take(stream, intake) => {}
                    _ = stopped => {}
                }
            });
            Ok(Box::new(taken.with_receivers(Receivers { stop, done, location: None })) as Box<dyn Source>)
        })
    }
}

/// Takes in what the stream gives, to its end.
async fn take(mut stream: Box<dyn Source>, intake: Intake) {
    loop {
        let piece = match stream.next(LIMIT).await {
            Ok(SourceEvent::Rows(batch)) => Piece::Rows(batch.with_lineage(None), None),
            Ok(SourceEvent::Malformed { bytes, reason, .. }) => Piece::Bad { bytes, reason },
            Ok(SourceEvent::PartitionEnd(_)) => continue,
            Ok(SourceEvent::End) => return,
            Err(error) => return intake.fail(error),
        };
        if intake.put(piece).await.is_err() {
            return;
        }
    }
}
