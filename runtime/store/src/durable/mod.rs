//! The durable half of a job's epochs: one atomic write each.
//!
//! [`JobStore`] keeps a log with one frame an epoch, and a base, a sorted file, into which the log
//! is folded when it has grown larger than the base. All it does on the hot path is to encode
//! the changes, append them and sync. Nothing is read while a job runs but by a compaction; what
//! was committed is read once, by [`JobStore::open`].
//!
//! Where state stays on disk, the sorted files are also what stages look their state up in
//! ([`StateFiles`]). The log is then folded in small steps: into layers above the base.
//!
//! The bytes are drawn in `docs/formats.md`. Every file goes through [`wasmill_env::Disk`], so that
//! crashes at any point can be tested.

pub(crate) mod base;
pub(crate) mod codec;
mod compaction;
pub(crate) mod encode;
mod error;
mod files;
mod filter;
mod frame;
mod index;
mod layout;
mod log;
mod merge;
mod record;
mod sorted;
mod store;
mod summary;

pub use compaction::{Compacted, Compaction};
pub use error::StoreError;
pub use files::StateFiles;
pub(crate) use files::{Version, Wanted};
pub use record::{
    EpochRecord, HeldRecord, LetterId, LetterRecord, PaneRecord, PositionRecord, ProgressRecord, Recovered,
    RecoveredStage, SinkRecord, StageRecord, TimerRecord, WindowRecord,
};
pub use store::{JobStore, StoreOptions};
pub use summary::{Held, StageSummary, Summary};
