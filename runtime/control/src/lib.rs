//! Jobs that outlive their process.
//!
//! [`open`] takes a state directory, for one process at a time, and says what a job goes on from;
//! its [`StoreCommitter`] makes the job's epochs durable there. The engine does the rest: it deals
//! what was recovered to its tasks. What a job is, and whether it may go on from what another build
//! of it has left, is decided by [`mod@identity`].
//!
//! [`mod@service`] runs jobs of many tenants, and is asked by HTTP.

pub mod apply;
pub mod beside;
mod committer;
pub mod compatibility;
mod error;
mod graphs;
pub mod identity;
pub mod letters;
pub mod local;
mod open;
pub mod records;
mod savepoints;
pub mod service;
pub mod topics;
pub mod why;

pub use committer::StoreCommitter;
pub use error::ControlError;
pub use graphs::Graphs;
pub use identity::Dropped;
pub use open::{Opened, Taken, take};
pub use savepoints::{Savepoint, Savepoints};
