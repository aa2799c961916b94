//! What time and order cost: one file a measure.

mod buffer;
mod convoy;
mod sliding;

use super::Benchmark;

/// The benchmarks of this group.
pub(super) fn all() -> Vec<Benchmark> {
    vec![buffer::buffer(), convoy::cores(), convoy::cost(), sliding::sliding()]
}
