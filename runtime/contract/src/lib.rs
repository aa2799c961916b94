//! The contract between the engine and what it drives: sources, operators, sinks, the committer.
//!
//! `engine`, `wasm` and `connectors` know this crate and not each other. Calls are made once per
//! batch, so every asynchronous one returns a boxed future.
//!
//! # Life of an epoch
//! The coordinator sends barrier *n* into the sources. A task that has barrier *n* on all inputs
//! calls [`Operator::flush`] and [`Sink::prepare`], and hands a [`Cut`] to the [`Committer`]. When
//! all cuts of *n* are durable, sinks get [`Sink::commit`] and sources [`Source::acknowledge`].

mod committer;
mod connector;
mod context;
mod operator;
mod records;
mod sink;
mod source;

/// A boxed future, as every asynchronous call of the contract returns.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub use committer::{
    CommitError, Committer, Cut, DeadLetter, MemoryCommitter, SinkCut, SourceCut, StageCut, StagePlugin,
};
pub use connector::{Bounds, ConnectorError, Share, SinkCapabilities, SourceCapabilities};
pub use context::{LogLine, MetricUpdate, OperatorContext, TimerChange};
pub use operator::{Aggregate, OpenError, Operator, OperatorError, OperatorFactory};
pub use records::{epoch_record, letter_records, pane_entry, timer_entry, window_progress};
pub use sink::{Sink, SinkFactory, SinkHandle};
pub use source::{BatchLimit, Bell, Source, SourceCounts, SourceEvent, SourceFactory, SourcePartition};
