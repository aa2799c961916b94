use wasmill_model::{Epoch, ErrorKind};

/// Why a fact does not fit those before it, or settings make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A barrier came that is not the next one of its input.
    #[error("input {input} sent the barrier of epoch {got} where that of epoch {want} was next")]
    BarrierOrder {
        /// The input.
        input: usize,
        /// Epoch of the barrier.
        got: Epoch,
        /// The epoch that was next.
        want: Epoch,
    },
    /// An input sent something although it is blocked or has ended.
    #[error("input {input} sent {what} {after}")]
    InputClosed {
        /// The input.
        input: usize,
        /// What it sent.
        what: &'static str,
        /// Why it may not.
        after: &'static str,
    },
    /// A task has fewer inputs than that.
    #[error("there is no input {input}: the task has {inputs}")]
    NoSuchInput {
        /// The input named.
        input: usize,
        /// Inputs of the task.
        inputs: usize,
    },
    /// The lanes of a convoy sent different things where they have to send the same.
    #[error("lane {lane} of a convoy sent {got} where lane 0 sent {want}")]
    Lanes {
        /// The lane.
        lane: usize,
        /// What it sent.
        got: String,
        /// What it had to send.
        want: String,
    },
    /// A window that cannot be.
    #[error("a window of {size_micros} us every {slide_micros} us cannot be: {reason}")]
    Window {
        /// Length of the window.
        size_micros: i64,
        /// From one window to the next.
        slide_micros: i64,
        /// What is wrong, and what would be right.
        reason: &'static str,
    },
    /// A fold returned another number of accumulators than it was given.
    #[error("fold returned {got} accumulators where it was given {want}")]
    Accumulators {
        /// How many came.
        got: usize,
        /// How many had to come.
        want: usize,
    },
    /// The accumulators of one batch are too large to cross together.
    #[error("the accumulators that one batch touches pass {limit} bytes: keep less in an accumulator")]
    AssignedTooLarge {
        /// The most that may cross.
        limit: usize,
    },
    /// Open windows hold more than they may.
    #[error(
        "{held} accumulators of open windows are held in one task, {max} may be: raise `accumulators_max` of the job, \
         give the stage more tasks, or windows that end earlier"
    )]
    TooManyAccumulators {
        /// How many there are.
        held: u64,
        /// How many there may be.
        max: u64,
    },
    /// An assignment came back that another has followed.
    #[error("assignment {got} came back where {want} is open")]
    StaleAssignment {
        /// Its number.
        got: u64,
        /// The number of the one that is open.
        want: u64,
    },
    /// State that these windows, or this ordering buffer, cannot have written.
    #[error("what is stored does not fit: {reason}")]
    Stored {
        /// What is wrong.
        reason: &'static str,
    },
}

impl OrderError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::BarrierOrder { .. }
            | Self::InputClosed { .. }
            | Self::NoSuchInput { .. }
            | Self::Lanes { .. }
            | Self::StaleAssignment { .. } => ErrorKind::Internal,
            Self::Window { .. } | Self::TooManyAccumulators { .. } => ErrorKind::Config,
            Self::Accumulators { .. } | Self::AssignedTooLarge { .. } => ErrorKind::Plugin,
            Self::Stored { .. } => ErrorKind::Corrupt,
        }
    }
}
