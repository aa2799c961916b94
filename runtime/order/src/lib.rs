//! Time and order: watermarks, barrier alignment, timers, windows.
//!
//! Everything here is synchronous and pure: facts in, decisions out. There is no clock, no channel
//! and no guest; the engine observes, asks, and does what it is told. Sources feed
//! [`BoundedDisorder`]; every task has [`InputWatermarks`] and an [`Alignment`] over its inputs;
//! a stage with timers has [`Timers`], a windowed stage [`Windows`].

mod alignment;
mod error;
mod timers;
mod watermark;

pub use alignment::{Alignment, Barrier};
pub use error::OrderError;
pub use timers::{TimerEntry, Timers};
pub use watermark::{BoundedDisorder, Disorder, InputWatermarks};
