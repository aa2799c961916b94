//! The world outside the process as parts: a real one for production, a simulated one for tests.
//!
//! Constructors take these parts; nothing reads a clock or a disk through a global.

mod clock;
mod disk;

pub use clock::{Clock, RealClock, SimulatedClock};
pub use disk::{Disk, DiskFile, DiskLock, Fault, RealDisk, SimulatedDisk};
