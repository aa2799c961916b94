//! Durable state of stages and, later, topics.
//!
//! A stage's state is keyed by (space, event key, sub-key). [`StateBackend`] is the seam: one
//! behaviour, several backends, tested by one suite. [`MemoryState`] keeps everything in hash
//! tables; the changes of an epoch leave it as one [`ChangeSet`].

mod backend;
mod compact;
mod memory;
#[doc(hidden)]
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use backend::{ChangeSet, EntryChange, READ_BYTES_MAX, StateBackend, StateError};
pub use memory::MemoryState;
