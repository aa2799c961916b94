//! The world outside the process as parts: a real one for production, a simulated one for tests.
//!
//! Constructors take these parts; nothing reads a clock or a disk through a global. [`kill_point`]
//! and [`planted`] are faults for tests of the whole process, and empty in a release.

mod background;
mod clock;
mod disk;
mod sabotage;

pub use background::Background;
pub use clock::{Clock, RealClock, SimulatedClock};
pub use disk::{Disk, DiskFile, DiskLock, Fault, PacedFile, RealDisk, SimulatedDisk, is_full};
pub use sabotage::{
    KILL_POINTS, KILL_VARIABLE, PLANTED_BUGS, PLANTED_VARIABLE, SMALL_VARIABLE, kill_point, planted, small_limits,
};
