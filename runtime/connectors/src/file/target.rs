use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmill_contract::{ConnectorError, SinkHandle};
use wasmill_env::{Clock, kill_point, planted};
use wasmill_model::{Epoch, ErrorKind};

use super::config::{IfExists, Sync};
use super::naming::{Names, PART};
use crate::error::io_error;

/// How long to wait for a writer of the same file that is about to end: the one before a restart.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// What a file sink is told to do.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) roll_bytes: Option<u64>,
    pub(super) roll_micros: Option<i64>,
    pub(super) if_exists: IfExists,
    pub(super) sync: Sync,
    /// Rows go to the visible file.
    pub(super) direct: bool,
}

impl Settings {
    pub(super) fn rolls(&self) -> bool {
        self.roll_bytes.is_some() || self.roll_micros.is_some()
    }
}

/// The files of one writer: the half of the sink that blocks.
pub(super) struct Target {
    names: Names,
    settings: Settings,
    clock: Arc<dyn Clock>,
    current: Option<Current>,
    /// Files that become visible with their epoch.
    finished: Vec<(Epoch, Current)>,
    number_next: u64,
    /// What the last `prepare` handed out, while nothing was written since.
    prepared: Option<SinkHandle>,
}

/// A file with rows that are not visible yet.
struct Current {
    /// Its name once it is finished.
    name: String,
    part: PathBuf,
    file: File,
    /// Bytes written.
    length: u64,
    /// Bytes of them that are prepared.
    prepared: u64,
    begun_micros: i64,
    /// The directory knows the file, even after a crash.
    entered: bool,
}

/// What a handle says: JSON, so that people can read what is stored. Names, not paths: the
/// directory is the job's.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Handle {
    finished: Vec<Committed>,
    current: Option<Committed>,
    next: u64,
    /// A direct writer's: what stands behind the length was shown, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    direct: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Committed {
    name: String,
    length: u64,
}

impl Target {
    pub(super) fn open(
        names: Names,
        settings: Settings,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConnectorError> {
        let directory = &names.directory;
        std::fs::create_dir_all(directory).map_err(|error| io_error("create directory", directory, error))?;
        let mut target =
            Self { names, settings, clock, current: None, finished: Vec::new(), number_next: 0, prepared: None };
        match recovered {
            Some(handle) => target.recover(&handle)?,
            None => target.start()?,
        }
        Ok(target)
    }

    /// Begins anew.
    fn start(&mut self) -> Result<(), ConnectorError> {
        let name = self.names.name(self.clock.wall(), None);
        let path = self.names.directory.join(&name);
        let rolls = self.settings.rolls();
        let existing =
            self.names.existing().map_err(|error| io_error("list directory", &self.names.directory, error))?;
        let taken = if rolls { !existing.is_empty() } else { path.exists() };
        match self.settings.if_exists {
            IfExists::Fail if taken => {
                let path = if rolls { self.names.pattern(true) } else { path.display().to_string() };
                let message = format!("cannot write {path}: it exists, and `if_exists` is \"fail\"");
                Err(ConnectorError::new(ErrorKind::Config, message))
            }
            IfExists::New if taken || rolls => {
                let last = existing.iter().map(|(_, number, _)| number.unwrap_or(0)).max();
                self.number_next = last.map_or(0, |last| last + 1);
                self.begin(true)
            }
            _ => self.begin(rolls),
        }
    }

    /// Begins a file.
    fn begin(&mut self, numbered: bool) -> Result<(), ConnectorError> {
        let now = self.clock.wall();
        let number = numbered.then_some(self.number_next);
        let name = self.names.name(now, number);
        let part = self.names.directory.join(if self.settings.direct { name.clone() } else { format!("{name}{PART}") });
        let fail = |error| io_error("create", &part, error);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&part).map_err(fail)?;
        lock(&file, &part)?;
        // Truncated under the lock, so that a running job of the same name keeps its rows.
        if file.metadata().map_err(fail)?.len() > 0 {
            file.set_len(0).map_err(fail)?;
        }
        // An unnumbered file is followed by number 1.
        self.number_next = number.map_or(1, |number| number + 1);
        self.current = Some(Current { name, part, file, length: 0, prepared: 0, begun_micros: now.0, entered: false });
        Ok(())
    }

    /// Goes on behind the last committed epoch.
    fn recover(&mut self, handle: &SinkHandle) -> Result<(), ConnectorError> {
        let handle: Handle = serde_json::from_slice(&handle.0).map_err(|error| {
            ConnectorError::new(ErrorKind::Corrupt, "cannot read the stored handle of a file sink").caused_by(error)
        })?;
        kill_point("file-sink-recover");
        if self.settings.direct || handle.direct {
            return self.recover_direct(&handle);
        }
        for file in &handle.finished {
            if let Some(file) = self.reopen(file)? {
                self.finish(&file)?;
            }
        }
        if let Some(file) = &handle.current {
            self.current = self.reopen(file)?;
        }
        self.number_next = handle.next;
        let later = self.names.existing().map_err(|error| io_error("list directory", &self.names.directory, error))?;
        for (name, _, _) in later.into_iter().filter(|(_, number, part)| *part && *number >= Some(handle.next)) {
            let part = self.names.directory.join(format!("{name}{PART}"));
            std::fs::remove_file(&part).map_err(|error| io_error("remove", &part, error))?;
        }
        Ok(())
    }

    /// Goes on behind what was shown, committed or not.
    fn recover_direct(&mut self, handle: &Handle) -> Result<(), ConnectorError> {
        if !handle.direct {
            // An exactly-once run wrote last. What it had committed becomes visible.
            for file in handle.finished.iter().chain(&handle.current) {
                if let Some(file) = self.reopen(file)? {
                    self.finish(&file)?;
                }
            }
        }
        let existing =
            self.names.existing().map_err(|error| io_error("list directory", &self.names.directory, error))?;
        let last = existing.iter().map(|(_, number, _)| number.unwrap_or(0)).max();
        self.number_next = last.map_or(handle.next, |last| handle.next.max(last + 1));
        let Some(current) = handle.current.as_ref().filter(|_| handle.direct) else { return Ok(()) };
        let path = self.names.directory.join(&current.name);
        let fail = |error| io_error("go on writing", &path, error);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        lock(&file, &path)?;
        let length = whole_lines(&file).map_err(fail)?;
        file.set_len(length).map_err(fail)?;
        if self.settings.direct && handle.next == self.number_next {
            let (name, begun_micros) = (current.name.clone(), self.clock.wall().0);
            self.current =
                Some(Current { name, part: path, file, length, prepared: length, begun_micros, entered: true });
        }
        Ok(())
    }

    /// Opens a file at its committed length and drops what stands behind. `None` where it is
    /// finished already.
    fn reopen(&self, committed: &Committed) -> Result<Option<Current>, ConnectorError> {
        let path = self.names.directory.join(&committed.name);
        let part = self.names.directory.join(format!("{}{PART}", committed.name));
        let lost = |found: &Path, length: u64| {
            let message = format!(
                "cannot go on writing {}: {} bytes were committed and it has {length}",
                found.display(),
                committed.length
            );
            ConnectorError::new(ErrorKind::Corrupt, message)
        };
        let file = match OpenOptions::new().write(true).open(&part) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match path.metadata() {
                    Ok(metadata) if metadata.len() == committed.length => Ok(None),
                    Ok(metadata) => Err(lost(&path, metadata.len())),
                    Err(_) => Err(lost(&part, 0)),
                };
            }
            Err(error) => return Err(io_error("open", &part, error)),
        };
        lock(&file, &part)?;
        let fail = |error| io_error("truncate", &part, error);
        let length = file.metadata().map_err(fail)?.len();
        if length < committed.length {
            return Err(lost(&part, length));
        }
        if !planted("file-not-truncated") {
            file.set_len(committed.length).map_err(fail)?;
        }
        kill_point("file-sink-truncated");
        Ok(Some(Current {
            name: committed.name.clone(),
            part,
            file,
            length: committed.length,
            prepared: committed.length,
            begun_micros: self.clock.wall().0,
            entered: true,
        }))
    }

    /// Writes `bytes`, all or none: after an error the same bytes may be written again.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectorError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.prepared = None;
        if self.current.is_none() {
            self.begin(true)?;
        }
        if let Some(current) = &mut self.current {
            let fail = |error| io_error("write", &current.part, error);
            current.file.write_all_at(bytes, current.length).map_err(fail)?;
            current.length += bytes.len() as u64;
            kill_point("file-sink-written");
        }
        Ok(())
    }

    /// Makes what was written durable and says where it ends.
    pub(super) fn prepare(&mut self, epoch: Epoch) -> Result<SinkHandle, ConnectorError> {
        if let Some(handle) = &self.prepared {
            return Ok(handle.clone());
        }
        if let Some(current) = &mut self.current {
            if self.settings.sync == Sync::Epoch {
                if current.length > current.prepared || !current.entered {
                    current.file.sync_data().map_err(|error| io_error("sync", &current.part, error))?;
                }
                if !current.entered {
                    sync_directory(&self.names.directory)?;
                    current.entered = true;
                }
            }
            kill_point("file-sink-synced");
            current.prepared = current.length;
        }
        if let Some(current) = self.current.take_if(|current| roll_is_due(current, &self.settings, &*self.clock)) {
            self.finished.push((epoch, current));
        }
        let committed = |file: &Current| Committed { name: file.name.clone(), length: file.prepared };
        let handle = Handle {
            finished: self.finished.iter().map(|(_, file)| committed(file)).collect(),
            current: self.current.as_ref().map(committed),
            next: self.number_next,
            direct: self.settings.direct,
        };
        let handle = SinkHandle(serde_json::to_vec(&handle).expect("plain data is written to memory without fail"));
        // Where a file was finished, the next handle is another one once that is committed.
        self.prepared = self.finished.is_empty().then(|| handle.clone());
        Ok(handle)
    }

    /// Whether [`Self::commit`] has anything to do.
    pub(super) fn waits_for(&self, epoch: Epoch, last: bool) -> bool {
        last && self.current.is_some() || self.finished.iter().any(|(of, _)| *of <= epoch)
    }

    /// Makes finished files visible.
    pub(super) fn commit(&mut self, epoch: Epoch, last: bool) -> Result<(), ConnectorError> {
        while let Some((_, file)) = self.finished.first().filter(|(of, _)| *of <= epoch) {
            self.finish(file)?;
            self.finished.remove(0);
        }
        if last && let Some(file) = &self.current {
            if file.prepared == 0 && self.settings.rolls() {
                std::fs::remove_file(&file.part).map_err(|error| io_error("remove", &file.part, error))?;
            } else {
                if file.length > file.prepared {
                    file.file.set_len(file.prepared).map_err(|error| io_error("truncate", &file.part, error))?;
                }
                self.finish(file)?;
            }
            self.current = None;
            self.prepared = None;
        }
        Ok(())
    }

    fn finish(&self, file: &Current) -> Result<(), ConnectorError> {
        let path = self.names.directory.join(&file.name);
        if path == file.part {
            // A direct writer's: it was visible all along.
            return Ok(());
        }
        kill_point("file-sink-finish");
        match std::fs::rename(&file.part, &path) {
            Ok(()) => kill_point("file-sink-renamed"),
            // Done by a commit before this one.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && path.metadata().is_ok_and(|metadata| metadata.len() == file.prepared) => {}
            Err(error) => return Err(io_error("finish", &path, error)),
        }
        if self.settings.sync == Sync::Epoch { sync_directory(&self.names.directory) } else { Ok(()) }
    }

    pub(super) fn location(&self) -> String {
        match &self.current {
            Some(current) if !self.settings.rolls() => self.names.directory.join(&current.name).display().to_string(),
            _ => self.names.pattern(self.settings.rolls()),
        }
    }
}

fn roll_is_due(current: &Current, settings: &Settings, clock: &dyn Clock) -> bool {
    let now = clock.wall().0;
    current.length > 0
        && (settings.roll_bytes.is_some_and(|bytes| current.length >= bytes)
            || settings
                .roll_micros
                .is_some_and(|micros| now.div_euclid(micros) != current.begun_micros.div_euclid(micros)))
}

/// Bytes of a file up to the end of its last line: a killed process may have written half of one.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let length = usize::try_from(end).unwrap_or(usize::MAX).min(block.len());
        file.read_exact_at(&mut block[..length], end - length as u64)?;
        if planted("half-a-line-kept") {
            return Ok(end);
        }
        if let Some(newline) = block[..length].iter().rposition(|&byte| byte == b'\n') {
            return Ok(end - (length - newline - 1) as u64);
        }
        end -= length as u64;
    }
    Ok(0)
}

fn sync_directory(directory: &Path) -> Result<(), ConnectorError> {
    let fail = |error| io_error("sync directory", directory, error);
    File::open(directory).map_err(fail)?.sync_all().map_err(fail)
}

/// Makes this the only writer of the file.
fn lock(file: &File, path: &Path) -> Result<(), ConnectorError> {
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if waited < LOCK_WAIT => {
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            Err(TryLockError::WouldBlock) => {
                let message = format!("cannot write {}: another job is writing it", path.display());
                return Err(ConnectorError::new(ErrorKind::Config, message));
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", path, error)),
        }
    }
}
