use std::fmt;

use serde::Serialize;

use crate::error::Error;
use crate::ladder::{Decision, Facts, Packages, Passed, Step, TARGET, decide};
use crate::probe::{self, Search};

/// What the ladder finds on this machine, for `wasmill doctor`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What is here.
    pub facts: Facts,
    /// What a build would do next, and why not something earlier.
    pub decision: Decision,
}

/// Looks, and changes nothing.
///
/// # Errors
/// A variable holds what it cannot hold.
pub fn diagnose(search: &Search) -> Result<Report, Error> {
    let facts = probe::all(search, &[])?;
    let decision = decide(&facts);
    Ok(Report { facts, decision })
}

impl Report {
    /// Whether a plugin can be compiled now, or after a step that a build takes by itself.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.decision.step != Step::Fail
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decision.step {
            Step::Use(choice) => writeln!(f, "{choice}")?,
            Step::AddTarget(toolchain) => {
                writeln!(f, "plugin toolchain: a build would run rustup target add {TARGET} --toolchain {toolchain}")?;
            }
            Step::InstallPackages { .. } => {
                writeln!(f, "plugin toolchain: a build would install Debian's rustc-web, rust-web-src and lld-19")?;
            }
            Step::Fail => writeln!(f, "plugin toolchain: none; try rustup target add {TARGET}")?,
        }
        for Passed { rung, reason } in &self.decision.passed {
            writeln!(f, "  not {rung}: {reason}")?;
        }
        for compiler in &self.facts.compilers {
            let has = |yes: bool| if yes { "yes" } else { "no" };
            writeln!(
                f,
                "  rustc {} at {}: {TARGET} {}, library source {}",
                compiler.version,
                compiler.rustc.display(),
                has(compiler.target),
                has(compiler.library)
            )?;
        }
        for linker in &self.facts.linkers {
            writeln!(f, "  linker {}", linker.display())?;
        }
        let packages = match self.facts.packages {
            Packages::Absent => "no apt-get",
            Packages::Root => "apt-get as root",
            Packages::Sudo => "apt-get through sudo",
            Packages::NoRight => "apt-get without the right to use it",
        };
        write!(f, "  rustup {}, {packages}", if self.facts.rustup { "present" } else { "absent" })
    }
}
