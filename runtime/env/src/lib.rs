//! The world outside the process as parts: a real one for production, a simulated one for tests.
//!
//! Constructors take these parts; nothing reads a clock through a global.

mod clock;

pub use clock::{Clock, RealClock, SimulatedClock};
