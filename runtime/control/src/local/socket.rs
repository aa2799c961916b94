//! The socket itself: bounded lines, bounded connections.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use wasmill_env::Clock;

use super::{Answer, Refusal, Request, Wire};

/// Its name in the state directory.
const NAME: &str = "control.sock";
/// A request has no more bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// An answer has no more bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Requests that are worked on at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// Who has connected says within this what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// Where the socket of a state directory can be named however long the path of the directory is:
/// the system takes about a hundred bytes.
struct Place {
    /// Keeps what `path` says alive.
    _dir: File,
    path: PathBuf,
}

impl Place {
    fn of(dir: &Path) -> io::Result<Self> {
        let opened = File::open(dir)?;
        let path = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(NAME);
        // Where there is no such file system, paths have to be short.
        let path = if Path::new("/proc/self/fd").is_dir() { path } else { dir.join(NAME) };
        Ok(Self { _dir: opened, path })
    }
}

/// Hears requests for the job whose state a directory holds.
pub struct Listener {
    socket: UnixListener,
    place: Place,
}

impl Listener {
    /// Listens. Whoever calls this holds the lock of the directory: a socket that is there was left
    /// by a process that is gone.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn bind(dir: &Path) -> io::Result<Self> {
        let place = Place::of(dir)?;
        match std::fs::remove_file(&place.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { socket: UnixListener::bind(&place.path)?, place })
    }

    /// Answers requests, several at once. Cancel safe: requests under way are dropped.
    pub async fn serve(&self, clock: &dyn Clock, handle: impl AsyncFn(Request) -> Answer) -> Infallible {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => open.push(converse(stream, clock, &handle)),
                    Err(error) => {
                        tracing::warn!("the control socket: {error}");
                        clock.sleep(REQUEST_PATIENCE).await;
                    }
                },
                Some(()) = open.next() => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that stays says to whoever asks that nobody listens.
        let _left = std::fs::remove_file(&self.place.path);
    }
}

/// One request and its answer.
async fn converse(stream: UnixStream, clock: &dyn Clock, handle: &impl AsyncFn(Request) -> Answer) {
    let allowed = stream.peer_cred().is_ok_and(|peer| {
        let mine = rustix::process::geteuid().as_raw();
        peer.uid() == mine || peer.uid() == 0
    });
    let mut stream = BufReader::new(stream);
    let answer = if allowed {
        let request = tokio::select! {
            request = read_request(&mut stream) => request,
            () = clock.sleep(REQUEST_PATIENCE) => Err(Refusal::new("no request came")),
        };
        match request {
            Ok(request) => handle(request).await,
            Err(refusal) => Err(refusal),
        }
    } else {
        Err(Refusal::new("only the user that runs the job may ask it for something"))
    };
    let wire = answer.map_or_else(Wire::Refused, Wire::Done);
    let mut line = serde_json::to_vec(&wire).expect("JSON is written to memory without fail");
    line.push(b'\n');
    // Who has gone does not want to know.
    let _gone = stream.get_mut().write_all(&line).await;
}

async fn read_request(stream: &mut BufReader<UnixStream>) -> Result<Request, Refusal> {
    let mut line = Vec::new();
    let read = stream.take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).await;
    read.map_err(|error| Refusal::new(format!("the request cannot be read: {error}")))?;
    if line.len() as u64 == REQUEST_BYTES_MAX && line.last() != Some(&b'\n') {
        return Err(Refusal::new(format!("a request has at most {REQUEST_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&line).map_err(|error| {
        let message = format!("this is no request: {error}");
        Refusal::new(message).hint("the job may be run by another version of wasmill")
    })
}

/// Why a job could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such directory.
    #[error("there is no state directory {0}")]
    NoState(PathBuf),
    /// No process runs a job with it.
    #[error("no job runs with the state in {0}")]
    NotRunning(PathBuf),
    /// The job does not answer as it should.
    #[error("the job with the state in {dir} does not answer: {cause}")]
    Silent {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        cause: io::Error,
    },
}

/// Asks the job whose state is in `dir`.
///
/// # Errors
/// Where no job runs with it, or it does not answer.
pub async fn ask(dir: &Path, request: &Request) -> Result<Answer, AskError> {
    if !dir.is_dir() {
        return Err(AskError::NoState(dir.to_owned()));
    }
    let silent = |cause| AskError::Silent { dir: dir.to_owned(), cause };
    let place = Place::of(dir).map_err(silent)?;
    let mut stream = UnixStream::connect(&place.path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(dir.to_owned()),
        _ => silent(error),
    })?;
    let mut line = serde_json::to_vec(request).expect("a request is written to memory without fail");
    line.push(b'\n');
    stream.write_all(&line).await.map_err(silent)?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer).await.map_err(silent)?;
    if answer.is_empty() {
        return Err(silent(io::Error::other("it ended before it had answered")));
    }
    match serde_json::from_slice(&answer).map_err(|error| silent(error.into()))? {
        Wire::Done(value) => Ok(Ok(value)),
        Wire::Refused(refusal) => Ok(Err(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wasmill_env::RealClock;

    use super::*;

    async fn said(dir: &Path, line: &[u8]) -> String {
        let place = Place::of(dir).expect("a directory");
        let mut stream = UnixStream::connect(&place.path).await.expect("somebody listens");
        stream.write_all(line).await.expect("written");
        stream.shutdown().await.expect("said");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    #[tokio::test]
    async fn one_line_is_asked_and_one_is_answered() {
        // Longer than the name of a socket may be.
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("d".repeat(120));
        std::fs::create_dir(&dir).expect("made");
        assert!(matches!(ask(&dir, &Request::Status).await, Err(AskError::NotRunning(_))));
        assert!(matches!(ask(&dir.join("x"), &Request::Status).await, Err(AskError::NoState(_))));
        // A process that was killed has left its socket.
        drop(std::os::unix::net::UnixListener::bind(Place::of(&dir).expect("a directory").path).expect("bound"));
        assert!(matches!(ask(&dir, &Request::Status).await, Err(AskError::NotRunning(_))));

        let listener = Listener::bind(&dir).expect("it listens");
        let clock = RealClock::default();
        let handle = async |request| match request {
            Request::Status => Ok(json!({"epoch": 3})),
            request => Err(Refusal::new(format!("not {request:?}")).hint("ask for less")),
        };
        let asks = async {
            assert_eq!(ask(&dir, &Request::Status).await.expect("an answer"), Ok(json!({"epoch": 3})));
            let refused = ask(&dir, &Request::Stop).await.expect("an answer");
            assert_eq!(refused, Err(Refusal::new("not Stop").hint("ask for less")));
            assert!(said(&dir, b"{\"verb\":\"dance\"}\n").await.contains("no request"));
            assert!(said(&dir, b"\xff\n").await.contains("no request"));
            assert!(said(&dir, b"").await.contains("no request"));
            let long = vec![b' '; REQUEST_BYTES_MAX as usize];
            assert!(said(&dir, &long).await.contains("at most 65536 bytes"));
        };
        tokio::select! {
            () = asks => {}
            _ = listener.serve(&clock, handle) => {}
        }
        drop(listener);
        assert!(matches!(ask(&dir, &Request::Status).await, Err(AskError::NotRunning(_))));
    }
}
