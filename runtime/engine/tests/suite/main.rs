//! Whole jobs with native operators.

mod faults;
mod jobs;
mod recovery;
mod support;
