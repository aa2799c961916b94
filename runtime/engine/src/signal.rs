use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use wasmill_model::{Batch, Epoch, KeyGroup, Timestamp};

use crate::operator_slot::Given;

/// What travels between nodes, in order.
#[derive(Debug, Clone)]
pub(crate) enum Signal {
    /// Events for an input port.
    Rows(Batch),
    /// What belongs to one ticket of a convoy: rows for a lane, or what the lane made of them.
    Part {
        /// Which ticket.
        ticket: u64,
        /// The rows, with their places. None: the lane has nothing to do, or made nothing of it.
        batches: Vec<Batch>,
    },
    /// No event with a time of at most this follows. An idle sender holds nothing back until it
    /// speaks again.
    Watermark { time: Timestamp, idle: bool },
    /// Everything before belongs to the epoch.
    Barrier(Barrier),
    /// Between two epochs, to a lane: what it keeps of some keys moves to another lane.
    Give(KeyGroup, mpsc::Sender<Given>),
    /// To that other lane.
    Take(Arc<Mutex<mpsc::Receiver<Given>>>),
}

/// The mark between two epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The epoch that ends here.
    pub(crate) epoch: Epoch,
    /// Nothing follows, ever.
    pub(crate) last: bool,
}
