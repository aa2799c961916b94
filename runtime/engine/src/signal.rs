use wasmill_model::{Batch, Epoch, Timestamp};

/// What travels between nodes, in order.
#[derive(Debug, Clone)]
pub(crate) enum Signal {
    /// Events for an input port.
    Rows(Batch),
    /// No event with a time of at most this follows. An idle sender holds nothing back until it
    /// speaks again.
    Watermark { time: Timestamp, idle: bool },
    /// Everything before belongs to the epoch.
    Barrier(Barrier),
}

/// The mark between two epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The epoch that ends here.
    pub(crate) epoch: Epoch,
    /// Nothing follows, ever.
    pub(crate) last: bool,
}
