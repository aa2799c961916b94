//! The words of Wasmill as types: names, times, batches, keys, positions, outcomes of operators.
//!
//! Everything here is plain data. No I/O, no async, no policy: the crates above decide and act.

mod batch;
mod column;
mod error;
mod letter;
mod name;
mod operator;
mod position;
mod time;
mod visibility;
mod window;

pub use batch::{Batch, BatchBuilder, Lineage, Makers};
pub use column::{Bitmap, Column, ColumnBuilder, ColumnError};
pub use error::ErrorKind;
pub use letter::{LetterKind, LetterSubject};
pub use name::{GroupName, JobName, NameError, NodeName, TenantName, TopicName};
pub use operator::{
    Clock, ColumnSet, Descriptor, Emission, Entries, Failure, Firings, Folded, LogLevel, Migrated, NotADigest, Outcome,
    Output, PaneBatch, PluginDigest, Rejected, Results, Rows, SpaceDescriptor, SpaceMigration, Ttl,
};
pub use position::{KEY_GROUPS, KeyGroup, PartitionId, Position, key_group, share_of};
pub use time::{Epoch, Timestamp};
pub use visibility::Visibility;
pub use window::{ChangeMode, Firing, PaneKind, PaneMode, Trigger, WindowShape, WindowSpec};
