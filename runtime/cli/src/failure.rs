//! How a command ends when it does not end well.

use std::error::Error;
use std::io;

use serde_json::{Value, json};
use wasmill_env::is_full;
use wasmill_model::ErrorKind;
use wasmill_spec::{Diagnostic, Severity};

use crate::terminal::Terminal;

/// What was asked for was done, and came out badly.
pub(crate) const FAILED: u8 = 1;
/// What was asked for cannot be done: the command line, a job file or a named file is wrong.
pub(crate) const WRONG: u8 = 2;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A job file is wrong: every finding, warnings among them.
    Job(Vec<Diagnostic>),
    /// Anything else.
    Said {
        /// The exit code.
        code: u8,
        /// What went wrong, with the value.
        message: String,
        /// What to do, one line each.
        hints: Vec<String>,
        /// A disk has no room.
        full: bool,
        /// It may go well another time.
        passing: bool,
    },
    /// The command has printed its result, and the result is bad.
    Reported {
        /// The exit code.
        code: u8,
    },
    /// Nobody reads standard output any more.
    OutputClosed,
}

impl Failure {
    /// Done, and came out badly.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Said { code: FAILED, message: message.into(), hints: Vec::new(), full: false, passing: false }
    }

    /// Cannot be done.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::Said { code: WRONG, message: message.into(), hints: Vec::new(), full: false, passing: false }
    }

    /// An error of a layer below, with its causes.
    pub(crate) fn of(kind: ErrorKind, error: &(dyn Error + 'static)) -> Self {
        let message = chain(error);
        match kind {
            ErrorKind::Config => Self::wrong(message),
            ErrorKind::Internal => Self::failed(message).hint(
                "this is a bug of wasmill: please report it with the job file and the output of `wasmill doctor`",
            ),
            ErrorKind::Full => Self::failed(message).full(),
            ErrorKind::Unavailable => Self::failed(message).passing(),
            ErrorKind::Plugin | ErrorKind::Corrupt | ErrorKind::Fenced => Self::failed(message),
        }
    }

    /// An error of the file system about a named file.
    pub(crate) fn file(act: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::NotFound => Self::wrong(format!("cannot {act} {path}: no such file or directory")),
            io::ErrorKind::PermissionDenied => Self::wrong(format!("cannot {act} {path}: permission denied")),
            io::ErrorKind::IsADirectory => Self::wrong(format!("cannot {act} {path}: it is a directory")),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Self::wrong(format!("cannot {act} {path}: a file is in the way"))
            }
            io::ErrorKind::StorageFull => Self::failed(format!("cannot {act} {path}: no space left on device")).full(),
            _ if is_full(error) => Self::failed(format!("cannot {act} {path}: {error}")).full(),
            _ => Self::failed(format!("cannot {act} {path}: {error}")),
        }
    }

    /// Standard output could not be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            io::ErrorKind::StorageFull => Self::failed("cannot write to standard output: no space left on device"),
            _ => Self::failed(format!("cannot write to standard output: {error}")),
        }
    }

    /// The same, because a disk has no room.
    pub(crate) fn full(mut self) -> Self {
        if let Self::Said { full, .. } = &mut self {
            *full = true;
        }
        self
    }

    /// The same, of something that may go well another time.
    pub(crate) fn passing(mut self) -> Self {
        if let Self::Said { passing, .. } = &mut self {
            *passing = true;
        }
        self
    }

    /// Whether it may go well another time.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Said { full: true, .. } | Self::Said { passing: true, .. })
    }

    /// What went wrong, where it was that a disk has no room.
    pub(crate) fn no_room(&self) -> Option<&str> {
        match self {
            Self::Said { message, full: true, .. } => Some(message),
            _ => None,
        }
    }

    /// The same with something to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Said { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }

    /// What went wrong, without what to do.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Job(diagnostics) => render(diagnostics, false).trim_end().to_owned(),
            Self::Said { message, .. } => message.clone(),
            Self::Reported { .. } | Self::OutputClosed => "the command ended".to_owned(),
        }
    }

    /// The code that the program exits with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Job(_) => WRONG,
            Self::Said { code, .. } | Self::Reported { code } => *code,
            Self::OutputClosed => 0,
        }
    }

    /// Says it: on standard error for people, on standard output for programs.
    pub(crate) fn report(&self, terminal: &Terminal) {
        if matches!(self, Self::Reported { .. } | Self::OutputClosed) {
            return;
        }
        if terminal.json {
            // Whoever closed standard output does not want to hear it.
            drop(terminal.print_json(&self.to_json()));
        } else {
            terminal.say(self.to_text(terminal).trim_end());
        }
    }

    fn to_text(&self, terminal: &Terminal) -> String {
        match self {
            Self::Job(diagnostics) => {
                let mut text = render(diagnostics, terminal.err.colour);
                text.push_str(&terminal.err.bad("error"));
                text.push_str(&format!(": {}\n", tally(diagnostics)));
                text
            }
            Self::Said { message, hints, .. } => {
                let mut text = format!("{}: {message}\n", terminal.err.bad("error"));
                for hint in hints {
                    text.push_str(&format!("  {}: {hint}\n", terminal.err.bold("hint")));
                }
                text
            }
            Self::Reported { .. } | Self::OutputClosed => String::new(),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Job(diagnostics) => json!({
                "error": {
                    "message": tally(diagnostics),
                    "diagnostics": diagnostics.iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
                },
            }),
            Self::Said { message, hints, .. } => json!({"error": {"message": message, "hints": hints}}),
            Self::Reported { .. } | Self::OutputClosed => Value::Null,
        }
    }
}

/// Every diagnostic as text, an empty line behind each.
pub(crate) fn render(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(colour) + "\n").collect()
}

/// `job.toml has 2 errors and 1 warning`.
fn tally(diagnostics: &[Diagnostic]) -> String {
    let of = |severity| diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count() as u64;
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let file = diagnostics.first().map_or("the job file", |diagnostic| diagnostic.source.name.as_str());
    let mut text = format!("{file} has {}", crate::terminal::count(errors, "error"));
    if warnings > 0 {
        text.push_str(&format!(" and {}", crate::terminal::count(warnings, "warning")));
    }
    text
}

/// An error and its causes, each said once: errors often carry the text of their cause.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let cause = wasmill_contract::ConnectorError::new(ErrorKind::Config, "cannot open x: no such file")
            .caused_by(io::Error::other("the disk says no"));
        assert_eq!(chain(&cause), "cannot open x: no such file: the disk says no");
        let cause = wasmill_contract::ConnectorError::new(ErrorKind::Config, "cannot open x: the disk says no")
            .caused_by(io::Error::other("the disk says no"));
        assert_eq!(chain(&cause), "cannot open x: the disk says no");
    }

    #[test]
    fn a_closed_output_is_no_failure() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).code(), 0);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).code(), FAILED);
        let missing = Failure::file("read", std::path::Path::new("job.toml"), &io::ErrorKind::NotFound.into());
        assert_eq!(missing.code(), WRONG);
    }
}
