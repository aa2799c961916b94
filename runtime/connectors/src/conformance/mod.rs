//! What every connector has to pass, whatever it connects to.
//!
//! A connector's tests call [`check_source`], [`check_intake`] and [`check_sink`] with a way to make
//! it. All panic with what was expected.

mod intake;
mod sink;
mod source;

pub use intake::{IntakeCase, Sent, check_intake};
pub use sink::{SinkCase, check_sink};
pub use source::{SourceCase, check_source, check_source_ahead};
