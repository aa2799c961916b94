//! Another graph for a job that runs: what its epochs say from there on.

use std::sync::{Arc, Mutex, PoisonError};

use wasmill_engine::NodePart;
use wasmill_model::Epoch;
use wasmill_plan::Plan;

use crate::identity::{self, Regraphed};

/// Tells the committer of a running job that the job goes on with another graph. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Graphs(Arc<Mutex<Option<(Epoch, Regraphed)>>>);

impl Graphs {
    /// `new` takes the place of `old` behind an epoch. No epoch of the new one has begun. The first one says the
    /// `number` of the job file, where there is one.
    ///
    /// # Panics
    /// Where `parts` does not fit the new plan: a bug of the caller.
    pub fn go_on(&self, behind: Epoch, old: &Plan, new: &Plan, parts: &[NodePart], number: Option<u64>) {
        let regraphed = identity::decide_regraph(old, new, parts, number);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((behind, regraphed));
    }

    /// What `epoch` has to say, where it is the first of another graph.
    pub(crate) fn take(&self, epoch: Epoch) -> Option<Regraphed> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        next.take_if(|(behind, _)| epoch > *behind).map(|(_, regraphed)| regraphed)
    }
}
