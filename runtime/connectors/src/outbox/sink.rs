use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::Instrument as _;
use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch};

use super::deliver::{self, Shared};
use super::ledger::Ledger;
use super::{OutboxOptions, Target, Writer, codec, with_pane_headers};
use crate::Site;

struct Outbox {
    shared: Arc<Shared>,
    life: u64,
    options: OutboxOptions,
    location: String,
    delivery: JoinHandle<()>,
}

pub(super) async fn open(
    site: &Site,
    share: Share,
    recovered: Option<SinkHandle>,
    clock: Arc<dyn Clock>,
    options: OutboxOptions,
    location: String,
    mut target: Box<dyn Target>,
) -> Result<Box<dyn Sink>, ConnectorError> {
    let (mut life, mut parcels) = match recovered {
        Some(handle) => codec::decode(&handle)?,
        None => (clock.wall().0.cast_unsigned(), Vec::new()),
    };
    if let Some(restored_at) = site.restored_at.filter(|restored_at| *restored_at > life) {
        // What the savepoint holds belongs to the life before, which may have delivered it meanwhile.
        let before = Writer::new(site, share, life);
        for parcel in parcels.drain(..) {
            deliver::deliver(&mut *target, &before, &parcel, options, &*clock).await?;
        }
        life = restored_at;
    }
    let writer = Writer::new(site, share, life);
    let shared = Arc::new(Shared::new(Ledger::recovered(parcels)));
    let delivery = deliver::run(Arc::clone(&shared), target, writer, options, clock);
    // Its lines belong to the job.
    let delivery = tokio::spawn(delivery.instrument(tracing::Span::current()));
    Ok(Box::new(Outbox { shared, life, options, location, delivery }))
}

impl Outbox {
    /// Waits until no more than so many rows and bytes of durable epochs wait. Cancel safe.
    async fn wait_for(&self, rows: usize, bytes: usize) -> Result<(), ConnectorError> {
        loop {
            let moved = self.shared.moved.notified();
            tokio::pin!(moved);
            // From here on a notification counts, also one that comes before the await.
            moved.as_mut().enable();
            {
                let mut state = self.shared.state();
                state.check()?;
                let waiting = state.ledger.waiting();
                if waiting.0 <= rows && waiting.1 <= bytes {
                    return Ok(());
                }
            }
            moved.await;
        }
    }
}

impl Sink for Outbox {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            self.wait_for(self.options.rows_max, self.options.bytes_max).await?;
            self.shared.state().ledger.write(&with_pane_headers(batch));
            Ok(())
        })
    }

    fn prepare(&mut self, epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(async move {
            let mut state = self.shared.state();
            state.check()?;
            Ok(codec::encode(self.life, state.ledger.prepare(epoch)))
        })
    }

    fn commit(&mut self, epoch: Epoch, last: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async move {
            let more = {
                let mut state = self.shared.state();
                state.check()?;
                state.ledger.commit(epoch)
            };
            if more {
                self.shared.wake.notify_one();
            }
            if last { self.wait_for(0, 0).await } else { Ok(()) }
        })
    }

    fn location(&self) -> Option<String> {
        Some(self.location.clone())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.delivery.abort();
    }
}
