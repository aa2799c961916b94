//! Topics: partitioned logs of records, shared by jobs, other processes and people.
//!
//! A topic has a fixed number of partitions. A record of a partition has an offset, which rises by one,
//! a time, a key, a value and headers. [`Topic::append`] returns once the records are durable;
//! a [`Producer`] that appends the same records again is told so, and nothing is doubled. Readers see
//! records that are durable, whole appends at a time, and need no lock.
//!
//! The bytes are drawn in `docs/formats.md`. Every file goes through [`wasmill_env::Disk`], so that
//! crashes at any point can be tested. Several processes may use one folder of topics.

mod config;
mod error;
mod frame;
mod group;
mod log;
mod maintain;
mod partition;
mod record;
mod segment;
mod shared;

pub use config::TopicConfig;
pub use error::TopicError;
pub use group::{GroupMember, assigned};
pub use maintain::Compacted;
pub use partition::{Append, Appended, Fetched, PartitionStats, ReadLimit};
pub use record::Producer;
pub use shared::{AppendHook, Topic, Topics};
