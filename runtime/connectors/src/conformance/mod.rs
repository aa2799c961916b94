//! What every connector has to pass, whatever it connects to.
//!
//! A connector's tests call [`check_source`] and [`check_sink`] with a way to make it. Both panic
//! with what was expected.

mod sink;
mod source;

pub use sink::{SinkCase, check_sink};
pub use source::{SourceCase, check_source};
