//! Whole jobs with native operators.

mod convoy;
mod faults;
mod jobs;
mod recovery;
mod support;
