//! A sink of lines.
//!
//! # Crash consistency
//! Rows go to `<name>.part`. `prepare` writes and syncs all of them and returns the file's name and
//! length. A finished file (rolled, or the last one) is renamed by the commit of its epoch, so a file
//! without `.part` holds committed rows only, and a `.part` file holds committed rows up to the
//! length in the last committed handle. Recovery truncates to that length, finishes renames and
//! removes files begun later.
//!
//! A direct writer (at-least-once, at-most-once) writes to `<name>` itself, where readers see rows at
//! once, and takes nothing back: recovery cuts off half a line at the end, which no reader counts,
//! and goes on behind it. `prepare` syncs there too.
//!
//! # Cancellation
//! Rows wait in `filling`; one full buffer at a time is written on a blocking thread. A dropped
//! [`Sink::write`] either took all rows or none.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinHandle;
use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::{Clock, planted};
use wasmill_model::{Batch, Epoch, ErrorKind, Visibility};

use wasmill_spec::{ByteSize, Period};

use super::config::{IfExists, SinkConfig, Sync};
use super::naming::Names;
use super::target::{Settings, Target};
use crate::Site;
use crate::error::{joined, off_worker};
use crate::options::{ConfigError, parse};
use crate::text::{Envelope, enveloped, write_envelopes, write_lines};

/// Bytes of rows that are written at once, about: one batch may pass it. Two such buffers exist.
const BUFFER_BYTES: usize = 1 << 20;
const DAY_MICROS: i64 = 86_400_000_000;

struct FileSinkFactory {
    base: PathBuf,
    path: String,
    envelope: Option<Envelope>,
    settings: Settings,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SinkFactory>, ConfigError> {
    let config: SinkConfig = parse(options)?;
    let Some(names) = Names::new(&site.base_dir, &config.path, Share::WHOLE) else {
        let message = format!("{:?} names no file to write", config.path);
        return Err(ConfigError::of("path", message)
            .hint("end it with the name of a file, such as \"out/counts.jsonl\"; {date} may stand in that name once"));
    };
    let roll = config.roll;
    if let Some(roll) = roll {
        if roll.bytes.is_none() && roll.interval.is_none() {
            return Err(ConfigError::of("roll", "`roll` needs `bytes` or `interval`"));
        }
        if roll.bytes.is_some_and(|bytes| bytes.bytes() == 0) {
            return Err(ConfigError::of("roll.bytes", "`roll.bytes` is at least 1"));
        }
        if roll.interval.is_some_and(|interval| interval.micros() == 0) {
            return Err(ConfigError::of("roll.interval", "`roll.interval` is more than 0s"));
        }
    }
    let interval = roll.and_then(|roll| roll.interval);
    let roll_micros = interval.map(Period::micros).or_else(|| names.is_dated().then_some(DAY_MICROS));
    let roll_bytes = roll.and_then(|roll| roll.bytes).map(ByteSize::bytes);
    let rolls = roll_micros.is_some() || roll_bytes.is_some();
    if rolls && config.if_exists == Some(IfExists::Replace) {
        return Err(ConfigError::of("if_exists", "files that roll are never replaced").hint("use \"new\" or \"fail\""));
    }
    let if_exists = config.if_exists.unwrap_or(if rolls { IfExists::New } else { IfExists::Replace });
    let sync = config.sync.unwrap_or(if site.durable { Sync::Epoch } else { Sync::None });
    let settings = Settings { roll_bytes, roll_micros, if_exists, sync, direct: false };
    if config.plugin && !config.envelope {
        let error = ConfigError::of("plugin", "there is no place for the plugin in a row without an envelope");
        return Err(error.hint("say `envelope = true`, too"));
    }
    let envelope = config.envelope.then_some(Envelope { plugin: config.plugin });
    Ok(Arc::new(FileSinkFactory { base: site.base_dir.clone(), path: config.path, envelope, settings }))
}

impl SinkFactory for FileSinkFactory {
    fn capabilities(&self) -> SinkCapabilities {
        enveloped(self.envelope.is_some(), Visibility::WithEpoch)
    }

    fn open(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        self.open_as(false, share, recovered, clock)
    }

    fn has_direct(&self) -> bool {
        true
    }

    fn open_direct(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        self.open_as(true, share, recovered, clock)
    }
}

impl FileSinkFactory {
    fn open_as(
        &self,
        direct: bool,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        Box::pin(async move {
            let names = Names::new(&self.base, &self.path, share).ok_or_else(|| {
                ConnectorError::new(ErrorKind::Config, format!("cannot write {}: it is a directory", self.path))
            })?;
            let settings = Settings { direct, ..self.settings.clone() };
            let target = off_worker(move || Target::open(names, settings, recovered, clock)).await?;
            let location = target.location();
            let envelope = self.envelope;
            Ok(Box::new(FileSink {
                direct,
                envelope,
                location,
                filling: Vec::new(),
                full: Vec::new(),
                target: Some(target),
                work: None,
            }) as Box<dyn Sink>)
        })
    }
}

type Written = Result<(Target, Vec<u8>, Result<(), ConnectorError>), ConnectorError>;

struct FileSink {
    /// Rows are in the file when a write returns.
    direct: bool,
    envelope: Option<Envelope>,
    location: String,
    /// Rows that no thread writes yet.
    filling: Vec<u8>,
    /// Rows in front of them whose write failed; empty otherwise.
    full: Vec<u8>,
    /// The files, while no work is under way.
    target: Option<Target>,
    work: Option<JoinHandle<Written>>,
}

impl FileSink {
    /// Waits for the write under way. Its rows are kept where it failed.
    async fn settle(&mut self) -> Result<(), ConnectorError> {
        if let Some(work) = &mut self.work {
            let result = work.await;
            self.work = None;
            let (target, mut bytes, result) = joined(result)?;
            self.target = Some(target);
            if result.is_ok() {
                bytes.clear();
            }
            self.full = bytes;
            result?;
        }
        Ok(())
    }

    /// Starts to write `full`, else what is in `filling`.
    fn start(&mut self) -> Result<(), ConnectorError> {
        let mut target = self.take()?;
        let mut bytes = std::mem::take(&mut self.full);
        if bytes.is_empty() {
            std::mem::swap(&mut bytes, &mut self.filling);
        }
        self.work = Some(tokio::task::spawn_blocking(move || {
            let result = target.write(&bytes);
            Ok((target, bytes, result))
        }));
        Ok(())
    }

    /// Puts everything behind the write under way, where there is no room for more rows.
    async fn make_room(&mut self) -> Result<(), ConnectorError> {
        self.settle().await?;
        while !self.full.is_empty() {
            self.start()?;
            self.settle().await?;
        }
        self.start()
    }

    fn take(&mut self) -> Result<Target, ConnectorError> {
        self.target.take().ok_or_else(|| ConnectorError::new(ErrorKind::Internal, "a failed file sink was used again"))
    }
}

impl Sink for FileSink {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            if self.filling.len() >= BUFFER_BYTES || !self.full.is_empty() {
                self.make_room().await?;
            }
            if let Some(envelope) = self.envelope {
                write_envelopes(&mut self.filling, batch, envelope);
            } else {
                write_lines(&mut self.filling, batch);
            }
            if self.direct {
                self.make_room().await?;
                self.settle().await?;
            }
            Ok(())
        })
    }

    fn prepare(&mut self, epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(async move {
            self.settle().await?;
            let mut target = self.take()?;
            let (full, filling) = (std::mem::take(&mut self.full), std::mem::take(&mut self.filling));
            let (target, mut filling, handle) = off_worker(move || {
                target.write(&full)?;
                if !planted("positions-before-rows") {
                    target.write(&filling)?;
                }
                let handle = target.prepare(epoch)?;
                Ok((target, filling, handle))
            })
            .await?;
            filling.clear();
            self.filling = filling;
            self.target = Some(target);
            Ok(handle)
        })
    }

    fn commit(&mut self, epoch: Epoch, last: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async move {
            self.settle().await?;
            let mut target = self.take()?;
            if !target.waits_for(epoch, last) {
                self.target = Some(target);
                return Ok(());
            }
            let (target, result) = off_worker(move || {
                let result = target.commit(epoch, last);
                Ok((target, result))
            })
            .await?;
            self.target = Some(target);
            result
        })
    }

    fn location(&self) -> Option<String> {
        Some(self.location.clone())
    }
}
