//! Durable state of stages and, later, topics.
//!
//! A stage's state is keyed by (space, event key, sub-key). [`StateBackend`] is the seam: one
//! behaviour, several backends, tested by one suite. [`MemoryState`] keeps everything in hash
//! tables; the changes of an epoch leave it as one [`ChangeSet`].

mod backend;
mod memory;

pub use backend::{ChangeSet, EntryChange, StateBackend, StateError};
pub use memory::MemoryState;
