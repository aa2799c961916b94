//! Write Wasmill operators in Rust.
//!
//! An operator is a struct, an `impl` of [`Operator`] (or of [`Aggregate`] for a stage with a
//! window), and one macro line. What crosses between host and plugin is columns, bitmaps and
//! batches of state; none of that shows here.
//!
//! ```
//! use wasmill_sdk::prelude::*;
//!
//! /// Lets events above a limit through.
//! struct Above { limit: u64 }
//!
//! impl Operator for Above {
//!     type Config = u64;
//!
//!     fn open(limit: u64, _: &mut Setup) -> Result<Self, ConfigError> {
//!         Ok(Self { limit })
//!     }
//!
//!     fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
//!         if event.json().u64("price")? > self.limit {
//!             ctx.forward();
//!         }
//!         Ok(())
//!     }
//! }
//!
//! wasmill_sdk::operator!(Above);
//!
//! let mut test = wasmill_sdk::testing::Tester::<Above>::new("10");
//! test.send_all([("k", r#"{"price": 5}"#), ("k", r#"{"price": 50}"#), ("k", "what?")]);
//! assert_eq!(test.values(), [r#"{"price": 50}"#]);
//! assert_eq!(test.rejected()[0].reason, "not JSON at byte 0: expected an object");
//! ```
//!
//! For a plain function there is less to write: [`filter!`], [`map!`] and [`flat_map!`].
//!
//! # What leaves
//! The SDK picks the smallest form that says it: events that are only forwarded or dropped cost a
//! bit each, one new value for every event costs its bytes, and only other results name for each
//! row where it comes from.
//!
//! # State
//! [`Value`], [`Map`] and [`List`] belong to the key of the event at hand. They are kept in memory
//! and written before every cut; an event that is rejected leaves no trace in them. See
//! [`codec`] for what the bytes look like. A space whose bytes change their meaning gets a higher
//! version, and a [`migrate`](SpaceBuilder::migrate) for each older one that it takes over.
//!
//! # A panic
//! goes to the job's log and costs the instance: the host goes on from the last cut without the
//! events that caused it. Report what is wrong with an event as a [`Reject`] instead.

mod aggregate;
mod append;
#[doc(hidden)]
#[allow(missing_docs, unreachable_pub, reason = "generated; its documentation is the WIT file")]
pub mod bindings;
pub mod codec;
mod column;
mod columns;
mod config;
mod context;
mod driver;
mod duration;
mod event;
#[doc(hidden)]
pub mod export;
mod host;
pub mod json;
pub mod log;
pub mod metrics;
mod migration;
mod operator;
mod output;
mod reject;
mod simple;
mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod timers;

pub use aggregate::{Aggregate, Pane, Results};
pub use append::append;
pub use bindings::wasmill::operator::types::Clock;
pub use codec::{Codec, CodecError, Json, MapKey};
pub use column::Rows;
pub use columns::Columns;
pub use config::ConfigError;
pub use context::{Context, Port, PortRef, RowBuilder};
pub use duration::duration;
pub use event::{Event, Events, Timer};
pub use operator::{Operator, Setup, SpaceBuilder};
pub use reject::{Failure, Reject};
#[doc(hidden)]
pub use simple::Emit;
pub use state::{List, Map, Value};
pub use {serde, serde_json};

/// What most operators need: `use wasmill_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Aggregate, Clock, Columns, ConfigError, Context, Event, Failure, Json, List, Map, Operator, Pane, Reject,
        Results, Setup, Timer, Value,
    };
}
