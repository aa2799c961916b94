//! From plugin source to plugin component.
//!
//! `wasmill build`, `wasmill doctor` and the repository's own tasks come here to find a compiler
//! for `wasm32-unknown-unknown` (the *ladder*), to run cargo with it, and to turn the core module
//! into a component. Plugins in other languages are [`Project`]s: their tools are installed where
//! they are missing ([`Tools`]), and what wants WASI gets an adapter that wants nothing. What a component may import beyond the operator package, and running it, is
//! left to the `wasm` crate.
//!
//! The ladder is in two halves: [`decide`] takes [`Facts`] and returns the next [`Step`];
//! [`climb`] gathers the facts, does the step, and asks again.

mod adapter;
mod build;
mod cache;
mod climb;
mod component;
mod error;
mod ladder;
mod languages;
mod probe;
mod process;
mod project;
mod report;
mod stamp;
mod tools;

pub use build::{Artifact, BuildOptions, Built, build_rust};
pub use climb::climb;
pub use component::{componentize, write_if_changed};
pub use error::Error;
pub use ladder::{
    Attempt, Choice, Compiler, Decision, Facts, Packages, Passed, Rung, Step, TARGET, Tried, Version, decide,
};
pub use languages::{CLANG_VARIABLE, build_project};
pub use probe::{LINKER_VARIABLE, RUNG_VARIABLE, RUSTC_VARIABLE, Search};
pub use project::{Language, MANIFEST, Project, World};
pub use report::{Report, diagnose};
pub use tools::Tools;
