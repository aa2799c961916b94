//! Durable state of stages, and topics.
//!
//! A stage's state is keyed by (space, event key, sub-key). [`StateBackend`] is the seam: one
//! behaviour, several backends, tested by one suite. [`MemoryState`] keeps everything in hash
//! tables, [`DiskState`] what is in use, and reads the rest from the store's sorted files. The
//! changes of an epoch leave either as one [`ChangeSet`].
//!
//! [`Topics`] are logs of records, shared by jobs, other processes and people.
//!
//! A [`Sequence`] gives out numbers, each once.
//!
//! [`JobStore`] makes the epochs of a job durable: one atomic write holds the changes of all its
//! stages, the positions of its sources, the handles of its sinks and its rejected rows.

mod backend;
mod batch_bytes;
mod compact;
mod disk;
mod durable;
mod fork;
mod memory;
mod sequence;
mod states;
#[doc(hidden)]
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod topic;

pub use backend::{
    Change, ChangeSet, EntryChange, READ_BYTES_MAX, StateBackend, StateError, WALK_BYTES_MAX, WALK_ENTRIES_MAX, Walk,
};
pub use batch_bytes::{decode_batch, encode_batch};
pub use disk::DiskState;
pub use durable::{
    Compacted, Compaction, EpochRecord, Held, HeldRecord, JobStore, LetterId, LetterRecord, PaneRecord, PositionRecord,
    ProgressRecord, Recovered, RecoveredStage, SinkRecord, StageRecord, StageSummary, StateFiles, StoreError,
    StoreOptions, Summary, TimerRecord, WindowRecord,
};
pub use fork::{Fork, Viewed};
pub use memory::MemoryState;
pub use sequence::{SEQUENCE_COUNT_MAX, Sequence, SequenceError, Sequences};
pub use states::StageStates;
pub use topic::{
    Append, AppendHook, Appended, Compacted as TopicCompacted, Fetched, GroupMember, PartitionStats, Producer,
    ReadLimit, Topic, TopicConfig, TopicError, Topics, assigned,
};
