//! Whole jobs with native operators.

mod jobs;
mod recovery;
mod support;
