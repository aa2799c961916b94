use serde::{Deserialize, Serialize};

/// How event time is cut into windows `[start, end)`, aligned to the Unix epoch. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowShape {
    /// Windows side by side.
    Tumbling {
        /// Length, more than 0.
        size_micros: i64,
    },
    /// Windows that overlap.
    Sliding {
        /// Length, more than 0.
        size_micros: i64,
        /// From one start to the next, more than 0 and at most the length.
        slide_micros: i64,
    },
}
