//! From a job file to a valid job, or to everything that is wrong with it.
//!
//! [`parse`] reads TOML into a [`JobSpec`]. It collects errors instead of stopping at the first:
//! each is a [`Diagnostic`] with the place, the text there and a hint. The file stays at hand, so
//! that crates above, which know connectors and plugins, can put their own errors on the right
//! line: [`JobSpec::error`]. [`job_schema`] is the same file for editors.
//!
//! What the file alone cannot tell is left to others: whether a connector knows its options
//! (`connectors`), whether ports exist and delivery is possible (`plan`).

mod check;
mod diagnostic;
mod difference;
mod document;
mod job;
mod keys;
mod order;
mod parse;
mod quantity;
mod read;
mod schema;
mod window;

pub use diagnostic::{Diagnostic, Severity, SourceFile, Span, did_you_mean, listed};
pub use difference::{JobDifference, NodeDifference};
pub use document::{Document, JOB_BYTES_MAX};
pub use job::{
    AlignSpec, Backpressure, Delivery, EpochSpec, FaultPolicy, InputSpec, JobSpec, LimitsSpec, NewKey, NodeSpec,
    Ordered, PluginRef, Policy, PortRef, SequenceSpec, SinkSpec, SourceSpec, StageSpec, StateSpec, TimeSpec, TimeUnit,
    WatermarkSpec,
};
pub use keys::connector_keys;
pub use order::{LATE_PORT, LatePolicy, OrderBy, OrderSpec, SequenceOrder, TimeBound, TimeOrder};
pub use parse::parse;
pub use quantity::{ByteSize, Period, QuantityError};
pub use schema::{ConnectorSchemas, job_schema};
pub use window::parse_case;
