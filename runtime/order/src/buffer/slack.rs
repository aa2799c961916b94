use super::aq::{AqKSlack, Quality};

/// How long a [`TimeBuffer`](super::TimeBuffer) waits for rows that are late.
///
/// All of them let a row go once the latest row is `K` younger; they differ in `K`. The *delay* of a
/// row is how far it lies behind the latest one that came before it. Microseconds of event time.
#[derive(Debug, Clone, PartialEq)]
pub enum Slack {
    /// `K` is given.
    Fixed {
        /// `K`.
        bound: u64,
    },
    /// `K` is the largest delay so far: K-slack (Babu, Srivastava and Widom, "Exploiting
    /// k-constraints to reduce memory overhead in continuous queries over data streams", TODS 2004)
    /// with the maximum followed, as Mutschler and Philippsen do ("Distributed low-latency
    /// out-of-order event processing for high data rate sensor streams", IPDPS 2013).
    Largest {
        /// The largest delay so far.
        seen: u64,
        /// `K` never passes this.
        most: u64,
    },
    /// `K` is as small as a wanted quality allows.
    Adaptive(Box<AqKSlack>),
    /// The buffer is told how far it may go: by the watermark of its input.
    Watermark,
}

impl Slack {
    /// K-slack, with `K` at most `most`.
    #[must_use]
    pub fn largest(most: u64) -> Self {
        Self::Largest { seen: 0, most }
    }

    /// AQ-K-slack, with `K` at most `most`.
    #[must_use]
    pub fn adaptive(quality: Quality, most: u64) -> Self {
        Self::Adaptive(Box::new(AqKSlack::new(quality, most)))
    }

    /// `K` as it stands.
    #[must_use]
    #[inline]
    pub fn k(&self) -> u64 {
        match self {
            Self::Fixed { bound } => *bound,
            Self::Largest { seen, .. } => *seen,
            Self::Adaptive(adaptive) => adaptive.k(),
            Self::Watermark => u64::MAX,
        }
    }

    /// A row came with this delay, and lies `behind` what has gone on already.
    #[inline]
    pub(crate) fn observe(&mut self, delay: u64, behind: u64) {
        match self {
            Self::Largest { seen, most } => *seen = delay.min(*most).max(*seen),
            Self::Adaptive(adaptive) => adaptive.observe(delay, behind),
            Self::Fixed { .. } | Self::Watermark => {}
        }
    }

    /// What it has learned, for [`Slack::restore`].
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        match self {
            Self::Largest { seen, .. } => seen.to_le_bytes().to_vec(),
            Self::Adaptive(adaptive) => adaptive.save(),
            Self::Fixed { .. } | Self::Watermark => Vec::new(),
        }
    }

    /// Takes in what one like it had learned. `false` where that was another kind: it then learns
    /// anew.
    pub fn restore(&mut self, saved: &[u8]) -> bool {
        match self {
            Self::Largest { seen, most } => match saved.try_into().map(u64::from_le_bytes) {
                Ok(learned) => {
                    *seen = learned.min(*most);
                    true
                }
                Err(_) => false,
            },
            Self::Adaptive(adaptive) => adaptive.restore(saved),
            Self::Fixed { .. } | Self::Watermark => saved.is_empty(),
        }
    }
}
