//! Runs a plan: tasks, queues between them, barriers through them, epochs over them.
//!
//! The engine knows plugins, connectors and storage only through `wasmill-contract`; tests run it
//! with native operators and a simulated clock. What it decides (order, windows, watermarks,
//! alignment) stands in `wasmill-order`; here it is acted on.
//!
//! # Ordering
//! Rows, watermarks and barriers travel in one ordered stream of [`signal::Signal`]s. A watermark
//! never overtakes a row, and a row never overtakes a barrier.
//!
//! # Faults
//! A call of a plugin that fails is taken apart until the rows are known that it fails on: those
//! go to the dead letters, all others go on once, in order ([`operator_slot`], [`window_slot`]).
//!
//! # Bounds
//! Every queue is bounded in rows and bytes ([`queue`]); a full one stops its sender, up to the
//! source.

mod batching;
mod chain;
mod convoy;
mod coordinator;
mod distribution;
mod error;
mod exchange;
mod extract;
mod facts;
mod faults;
mod history;
mod job;
mod marks;
mod metrics;
mod migration;
mod operator_slot;
mod ordering;
mod outcome;
mod pace;
mod queue;
mod replay;
mod shadow;
mod signal;
mod sink_slot;
mod source_head;
mod spill;
mod swap;
mod tap;
mod task;
mod trial;
mod window_slot;
mod wiring;

pub use distribution::Spread;
pub use error::JobError;
pub use facts::{
    BufferFacts, HeadFacts, InputFacts, JobFacts, LateRow, Reading, SourceFacts, TaskFacts, Waits, WindowFacts,
};
pub use job::{JobHandle, JobParts, JobRemote, JobSettings, NodePart, start};
pub use metrics::{JobMetrics, LatencySnapshot, NodeMetrics, NodeSnapshot, OrderingSnapshot};
pub use shadow::{DIFFERENCES_MAX, Difference, DifferenceKind, ShadowCounts, ShadowReport, ShownRow, Way};
pub use swap::{Beside, KeyShare, SwapError, Swapped};
pub use tap::Tap;
pub use trial::{StageTrial, TrialOutput};
