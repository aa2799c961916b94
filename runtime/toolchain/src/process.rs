//! Runs a program to its end, or to a limit.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::error::Error;

/// What a program said.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Output kept of one stream: what probes print is short.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Runs `command` without input. After `limit` it is killed, and the error says so.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Said, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| Error::Run { program: program.clone(), source };
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());
    // Both streams end when the program does, so waiting for them is waiting for it, with a limit.
    match (stdout.recv_timeout(limit), stderr.recv_timeout(limit)) {
        (Ok(stdout), Ok(stderr)) => {
            let status = child.wait().map_err(failed)?;
            Ok(Said { status, stdout, stderr })
        }
        (Err(RecvTimeoutError::Timeout), _) | (_, Err(RecvTimeoutError::Timeout)) => {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            let reason = format!("no answer in {} s", limit.as_secs());
            Err(failed(io::Error::new(io::ErrorKind::TimedOut, reason)))
        }
        _ => Err(failed(io::Error::other("its output could not be read"))),
    }
}

fn read_aside(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let Some(mut stream) = stream else { return };
        let mut bytes = Vec::new();
        let read = stream.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        let rest = io::copy(&mut stream, &mut io::sink());
        if read.and(rest).is_ok() {
            // Nobody listens any more once the limit has passed.
            drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_without_end_is_killed_at_the_limit() {
        let started = run(Command::new("sleep").arg("1000"), Duration::from_millis(20));
        let Err(Error::Run { source, .. }) = started else { panic!("expected a timeout") };
        assert_eq!(source.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let said = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(60));
        let said = said.expect("sh runs");
        assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.status.code()), ("out\n", "err\n", Some(3)));
    }
}
