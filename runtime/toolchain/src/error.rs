use std::path::PathBuf;

use wasmill_model::ErrorKind;

use crate::ladder::{Passed, TARGET};

/// What can go wrong between a plugin's source and its component.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of the ladder has a value it cannot have.
    #[error("{variable}={value} is not valid: {expected}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: String,
    },
    /// No rung of the ladder holds.
    #[error("{}", no_toolchain(.0))]
    NoToolchain(Vec<Passed>),
    /// A program could not be started or waited for.
    #[error("cannot run {program}")]
    Run {
        /// As it was called.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Cargo does not understand the folder.
    #[error("cannot read the cargo package in {dir}")]
    Manifest {
        /// The folder.
        dir: PathBuf,
        /// Cargo's message.
        #[source]
        source: cargo_metadata::Error,
    },
    /// Cargo ran and failed; its messages went to standard error.
    #[error("cargo could not build {dir} for {TARGET} ({status}): its messages stand above")]
    Build {
        /// The folder.
        dir: PathBuf,
        /// Cargo's exit status.
        status: std::process::ExitStatus,
    },
    /// The build made nothing that could be a plugin.
    #[error("{dir} builds no plugin: its Cargo.toml needs [lib] crate-type = [\"cdylib\", \"rlib\"]")]
    NoPlugin {
        /// The folder.
        dir: PathBuf,
    },
    /// A project's manifest, or what it names, is wrong.
    #[error("{path}: {reason}")]
    Project {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A tool of another language is missing and was not installed.
    #[error("{tool} is needed: {reason}\nto install it: {command}")]
    Tool {
        /// Package and version.
        tool: String,
        /// What installs it.
        command: String,
        /// Why it was not installed.
        reason: String,
    },
    /// The compiler of another language failed.
    #[error("the {language} operator in {dir} does not compile ({status}):\n{said}")]
    Compile {
        /// The language.
        language: &'static str,
        /// The project.
        dir: PathBuf,
        /// Exit status of the tool.
        status: std::process::ExitStatus,
        /// All that it said.
        said: String,
    },
    /// The module is not an operator.
    #[error("{name} is not a plugin: {reason}")]
    NotAPlugin {
        /// Package or file.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {act} {path}")]
    File {
        /// "read", "write", "make".
        act: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Who has to act.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Variable { .. }
            | Self::NoToolchain(_)
            | Self::Run { .. }
            | Self::File { .. }
            | Self::Project { .. }
            | Self::Tool { .. } => ErrorKind::Config,
            Self::Manifest { .. }
            | Self::Build { .. }
            | Self::Compile { .. }
            | Self::NoPlugin { .. }
            | Self::NotAPlugin { .. } => ErrorKind::Plugin,
        }
    }
}

fn no_toolchain(passed: &[Passed]) -> String {
    let mut text = format!("no way to compile Rust for {TARGET} on this machine:\n");
    for Passed { rung, reason } in passed {
        text.push_str(&format!("  {rung}: {reason}\n"));
    }
    text.push_str("one of these commands would help:\n");
    text.push_str("  rustup target add wasm32-unknown-unknown\n");
    text.push_str("  rustup component add rust-src\n");
    text.push_str("  apt-get install rustc-web rust-web-src lld-19");
    text
}
