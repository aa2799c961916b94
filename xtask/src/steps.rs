//! Progress for people: numbered steps, the time of each, and how to repeat the one that failed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Prints a line of progress. It goes to standard error, so that results can be piped.
#[expect(clippy::print_stderr, reason = "a command for people")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

#[expect(clippy::disallowed_methods, reason = "the clock of these commands is never simulated")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The steps of one command.
pub(crate) struct Steps {
    root: PathBuf,
    total: usize,
    took: Vec<(String, Duration)>,
}

impl Steps {
    pub(crate) fn new(root: &Path, total: usize) -> Self {
        Self { root: root.to_owned(), total, took: Vec::new() }
    }

    /// Runs a closure as the next step. `rerun` is the command that repeats it alone.
    pub(crate) fn act<T>(
        &mut self,
        name: &str,
        rerun: &str,
        act: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let number = self.took.len() + 1;
        say(&format!("[{number}/{}] {name}", self.total));
        let start = now();
        let result = act();
        let took = start.elapsed();
        self.took.push((name.to_owned(), took));
        let seconds = took.as_secs_f64();
        match &result {
            Ok(_) => say(&format!("[{number}/{}] {name}: done in {seconds:.1} s", self.total)),
            Err(_) => say(&format!("[{number}/{}] {name}: failed after {seconds:.1} s; rerun: {rerun}", self.total)),
        }
        result
    }

    /// Runs a program as the next step; its output is shown as it comes.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        let text = shown(&self.root, command);
        self.act(name, &text, || run(command))
    }

    /// Prints the time of every step.
    pub(crate) fn summary(&self) {
        let total: Duration = self.took.iter().map(|(_, took)| took).sum();
        say(&format!("{} steps in {:.1} s", self.took.len(), total.as_secs_f64()));
        for (name, took) in &self.took {
            say(&format!("  {:>7.1} s  {name}", took.as_secs_f64()));
        }
    }
}

/// Runs a program to its end; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}

/// Cargo, in a folder of the repository.
pub(crate) fn cargo(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir).args(arguments);
    command
}

/// The command as one would type it at the root.
fn shown(root: &Path, command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let quote = if argument.is_empty() || argument.contains(char::is_whitespace) { "'" } else { "" };
        line.extend([" ", quote, &argument, quote]);
    }
    match command.get_current_dir().and_then(|dir| dir.strip_prefix(root).ok()) {
        Some(dir) if !dir.as_os_str().is_empty() => format!("(cd {} && {line})", dir.display()),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_shown_as_typed_at_the_root() {
        let root = Path::new("/r");
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["test", "-p", "a b"]).current_dir("/r/plugins");
        assert_eq!(shown(root, &command), "(cd plugins && cargo test -p 'a b')");
        command.current_dir("/r");
        assert_eq!(shown(root, &command), "cargo test -p 'a b'");
    }

    #[test]
    fn failed_program_is_an_error_with_its_status() {
        let mut steps = Steps::new(Path::new("/"), 1);
        let error = steps.run("fails", Command::new("sh").args(["-c", "exit 7"])).expect_err("it fails");
        assert!(error.to_string().contains('7'), "{error}");
    }
}
