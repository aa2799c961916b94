//! Whole jobs with native operators.

mod align;
mod beside;
mod convoy;
mod exchange;
mod faults;
mod interleaving;
mod jobs;
mod marks;
mod ordering;
mod recovery;
mod support;
mod swap;
