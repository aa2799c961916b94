use wasmill_contract::{Share, Sink, SinkCut};
use wasmill_env::kill_point;
use wasmill_model::{Batch, Epoch, NodeName};

use crate::error::JobError;

/// A sink in a task.
pub(crate) struct SinkSlot {
    name: NodeName,
    sink: Box<dyn Sink>,
}

impl SinkSlot {
    pub(crate) fn new(name: NodeName, sink: Box<dyn Sink>) -> Self {
        Self { name, sink }
    }

    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<(), JobError> {
        self.sink.write(batch).await.map_err(|cause| JobError::Sink { node: self.name.clone(), cause })
    }

    pub(crate) async fn cut(&mut self, share: Share, epoch: Epoch) -> Result<SinkCut, JobError> {
        kill_point("sink-prepare");
        let handle =
            self.sink.prepare(epoch).await.map_err(|cause| JobError::Sink { node: self.name.clone(), cause })?;
        kill_point("sink-prepared");
        Ok(SinkCut { node: self.name.clone(), share, handle })
    }

    pub(crate) async fn commit(&mut self, epoch: Epoch, last: bool) -> Result<(), JobError> {
        kill_point("sink-commit");
        let done = self.sink.commit(epoch, last).await;
        kill_point("sink-committed");
        done.map_err(|cause| JobError::Sink { node: self.name.clone(), cause })
    }
}
