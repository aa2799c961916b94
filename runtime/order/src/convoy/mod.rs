//! A sequential convoy: copies of an operator side by side, whose rows leave in the order in which
//! the rows that they come from came in.
//!
//! ```text
//!                     ┌── lane 0 ──┐
//! batch ── router ────┼── lane 1 ──┼──── merge ── rows in the order of the batch
//!          (ticket n) └── lane 2 ──┘     (every lane has sent its part of ticket n)
//! ```
//!
//! Every batch is a *ticket*. Each lane gets its part of it, be it empty, and sends what it made of
//! it as one part, be it empty: the end-of-sequence mark. So rows that a lane filters hold nothing
//! up, and there is no timeout: a lane that hangs is one whose call overruns its deadline.
//!
//! # Crash consistency
//! A barrier goes through every lane, and the merge hands it on once all have sent it: nothing of an
//! epoch is under way when it is cut, so a convoy has no state of its own.

mod merge;
mod router;
#[cfg(test)]
mod tests;

pub use merge::{ConvoyMerge, FromLane, Merged, weave};
pub use router::{Affinity, ConvoyRouter, Moved};
