//! Runs operators in a plain `cargo test`: no Wasm, no host, the same code paths of the SDK.
//!
//! Events sent together are one call, as in a job. [`Tester::restart`] does what a cut and a swap
//! do: flush, drop the instance, open another on the same state.

mod host;
mod operator;
mod window;

pub use operator::{Row, StateEntry, Tester};
pub use window::{WindowRow, WindowTester};

pub use crate::bindings::wasmill::operator::types::Rejected;
pub use crate::log::Level;

/// Log lines since the last call of this, on this thread.
#[must_use]
pub fn logs() -> Vec<(Level, String)> {
    crate::log::native::take()
}
