//! Time and order: watermarks, barrier alignment, ordering buffers, timers, windows.
//!
//! Everything here is synchronous and pure: facts in, decisions out. There is no clock, no channel
//! and no guest; the engine observes, asks, and does what it is told. Sources feed
//! [`BoundedDisorder`]; every task has [`InputWatermarks`] and an [`Alignment`] over its inputs;
//! readers that wait for each other share a [`Pace`];
//! an input that the job file orders has a [`TimeBuffer`] or a [`SequenceBuffer`]; a stage with timers
//! has [`Timers`], a windowed stage [`Windows`]. A [`ConvoyRouter`] deals rows to the lanes of a convoy,
//! a [`ConvoyMerge`] puts together what these make of them.

mod alignment;
mod buffer;
mod convoy;
mod error;
mod pace;
mod timers;
mod watermark;
mod window;

pub use alignment::{Alignment, Barrier};
pub use buffer::{
    AqKSlack, Gap, GoneRow, HeldRows, Numbered, Place, Quality, SavedSequence, SequenceBuffer, SequenceSettings, Slack,
    StoredRow, TimeBuffer,
};
pub use convoy::{Affinity, ConvoyMerge, ConvoyRouter, FromLane, Merged, Moved, weave};
pub use error::OrderError;
pub use pace::Pace;
pub use timers::{TimerEntry, Timers};
pub use watermark::{BoundedDisorder, Disorder, InputProgress, InputWatermarks, NO_MARK, PartitionProgress, Standing};
pub use window::{
    ASSIGNED_BYTES_MAX, Assignment, Fired, KeyedWindows, OpenWindow, PaneEntry, PaneFact, PaneRows, SlicedWindows,
    Stored, WindowChanges, WindowProgress, Windows,
};
