//! The `wasmill` binary: wires everything, prints for people.
//!
//! A command reads its files, asks the crates below, and says what came out: results on standard
//! output, everything else on standard error, exit code 0 (done), 1 (done, came out badly) or
//! 2 (cannot be done: the command line, a job file or a named file is wrong).

mod allocator;
mod assemble;
mod commands;
mod control;
mod data_dir;
mod dead_letters;
mod failure;
mod first_output;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[path = "../../../tests/support/fuzz.rs"]
mod fuzz_driver;
mod golden;
mod kept_plugins;
mod oci;
mod overrides;
mod plugins;
mod progress;
mod remote;
mod serve;
mod std_plugins;
mod summary;
mod supervise;
mod template;
mod terminal;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use wasmill_env::RealClock;

use crate::commands::Cli;

/// Batches are allocated and freed by the megabyte: an allocator that keeps such pages halves what
/// a job costs.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Everything that is measured from the start of the process counts from here.
    let clock = Arc::new(RealClock::default());
    commands::run(Cli::parse(), clock)
}
