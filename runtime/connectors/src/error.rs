use std::io;
use std::path::Path;

use wasmill_contract::ConnectorError;
use wasmill_env::is_full;
use wasmill_model::ErrorKind;

/// An error of the file system: says the act, the path and who has to do something.
pub(crate) fn io_error(act: &str, path: &Path, cause: io::Error) -> ConnectorError {
    let path = path.display();
    let (kind, message) = match cause.kind() {
        io::ErrorKind::NotFound => (ErrorKind::Config, format!("cannot {act} {path}: no such file or directory")),
        io::ErrorKind::PermissionDenied => (ErrorKind::Config, format!("cannot {act} {path}: permission denied")),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Full, format!("no space left on device writing {path}"))
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            (ErrorKind::Corrupt, format!("cannot {act} {path}: {cause}"))
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Config, format!("cannot {act} {path}: {cause}"))
        }
        _ if is_full(&cause) => (ErrorKind::Full, format!("cannot {act} {path}: {cause}")),
        _ => (ErrorKind::Unavailable, format!("cannot {act} {path}: {cause}")),
    };
    ConnectorError::new(kind, message).caused_by(cause)
}

/// An address that cannot be listened on.
pub(crate) fn listen_error(address: &str) -> impl FnOnce(io::Error) -> ConnectorError {
    let message = format!("cannot listen on {address}");
    move |cause| {
        let kind = match cause.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied => {
                ErrorKind::Config
            }
            _ => ErrorKind::Unavailable,
        };
        let why = match cause.kind() {
            io::ErrorKind::AddrInUse => "something listens there already".to_owned(),
            _ => cause.to_string(),
        };
        ConnectorError::new(kind, format!("{message}: {why}")).caused_by(cause)
    }
}

/// Whether `error` says that nobody reads any more what is written, as with `wasmill run … | head`.
/// The job then ends without complaint.
#[must_use]
pub fn is_broken_pipe(error: &ConnectorError) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Runs blocking work off the async workers.
pub(crate) async fn off_worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// The result of blocking work.
pub(crate) fn joined<T>(
    result: Result<Result<T, ConnectorError>, tokio::task::JoinError>,
) -> Result<T, ConnectorError> {
    result.unwrap_or_else(|error| {
        let kind = if error.is_cancelled() { ErrorKind::Unavailable } else { ErrorKind::Internal };
        Err(ConnectorError::new(kind, "blocking file work did not finish").caused_by(error))
    })
}
