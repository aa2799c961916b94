//! Ordering buffers: rows that came in any order leave in one.
//!
//! A buffer decides; it does not hold rows. Whoever has the rows gives each a place of their own
//! (`T`), and gets the places back in the order in which the rows are to go on.
//!
//! [`TimeBuffer`] orders by event time and waits as long as its [`Slack`] says. [`SequenceBuffer`]
//! orders by numbers, and waits for those that are missing. [`HeldRows`] keeps the rows of either.

mod aq;
mod held;
mod sequence;
mod slack;
mod time;

pub use aq::{AqKSlack, Quality};
pub use held::{GoneRow, HeldRows, Place, StoredRow};
pub use sequence::{Gap, Numbered, SavedSequence, SequenceBuffer, SequenceSettings};
pub use slack::Slack;
pub use time::TimeBuffer;
