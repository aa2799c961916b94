use std::sync::Arc;
use wasmill_contract::{Aggregate, StageCut};
use wasmill_model::{Batch, NodeName};
use crate::{error::JobError, metrics::NodeMetrics, operator_slot::{Moment, Produced}};
pub(crate) struct Windows;
impl Windows { pub(crate) fn new(_: wasmill_model::WindowShape) -> Self { Self } }
pub(crate) struct WindowSlot;
impl WindowSlot {
    pub(crate) fn new(_: NodeName, _: Box<dyn Aggregate>, _: Windows, _: Arc<NodeMetrics>) -> Self { Self }
    pub(crate) async fn process(&mut self, _: &Batch, _: Moment) -> Result<Produced, JobError> { Ok(Produced::default()) }
    pub(crate) async fn fire(&mut self, _: Moment) -> Result<Option<Produced>, JobError> { Ok(None) }
    pub(crate) fn cut(&mut self, _: u16) -> StageCut { unimplemented!() }
}
