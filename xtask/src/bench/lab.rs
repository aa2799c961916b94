use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use wait4::Wait4;

/// Where benchmarks work, and how they run programs.
pub(crate) struct Lab {
    /// The repository.
    pub(crate) root: PathBuf,
    /// For inputs and outputs; kept from run to run.
    pub(crate) scratch: PathBuf,
}

/// One run of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Events it went through.
    pub(crate) events: u64,
    /// CPU time, user and system, of the program and of the children it waited for.
    pub(crate) cpu: Duration,
}

impl Sample {
    /// Its speed.
    ///
    /// # Errors
    /// It used no CPU time that could be measured.
    pub(crate) fn events_per_cpu_s(&self) -> anyhow::Result<f64> {
        let seconds = self.cpu.as_secs_f64();
        if seconds <= 0.0 {
            bail!("{} events took no measurable CPU time: take more", self.events);
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        Ok(self.events as f64 / seconds)
    }
}

impl Lab {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), scratch: root.join("target/bench") }
    }

    /// Where a program writes, without what was written there before. Otherwise who writes over a file gets
    /// its warm pages, and who writes a new one beside it, to replace it when done, gets cold ones.
    ///
    /// # Errors
    /// What is there cannot be removed.
    pub(crate) fn output(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.scratch.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(path),
        }
    }

    /// Runs a program that goes through `events` events. Its standard output is thrown away, its
    /// errors are shown.
    ///
    /// # Errors
    /// It does not start, or does not succeed.
    pub(crate) fn run(&self, command: &mut Command, events: u64) -> anyhow::Result<Sample> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.current_dir(&self.root).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        let end = child.wait4().with_context(|| format!("cannot wait for {program}"))?;
        if !end.status.success() {
            bail!("{program} ended with {}", end.status);
        }
        Ok(Sample { events, cpu: end.rusage.utime + end.rusage.stime })
    }
}
