use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use wasmill_contract::{
    BatchLimit, Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceFactory, SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{PartitionId, Position};
use wasmill_spec::{ByteSize, Period};

use crate::Site;
use crate::error::listen_error;
use crate::ingest::{self, Dedup, Intake, PARTITION, Receivers, Settings, TextIntake};
use crate::options::{ConfigError, parse};
use crate::text::{Format, TextFormat};

const CONNECTIONS_MAX: u32 = 256;
/// Bytes read at once from a connection.
const READ_BYTES: usize = 64 << 10;
/// Wait after the listener has failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Options of the source `tcp`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TcpConfig {
    /// Address and port to listen on, such as `127.0.0.1:9000`. Port 0 takes a free one; the job says
    /// which.
    listen: String,
    /// How records follow each other. By default JSON lines. Each connection with CSV has a header
    /// of its own.
    format: Option<Format>,
    /// Longest record; longer ones go to the dead-letter queue. By default 1 MiB.
    record_bytes_max: Option<ByteSize>,
    /// Most connections at a time; more wait to be accepted. By default 256.
    connections_max: Option<u32>,
    /// A connection that says nothing for this long is closed. By default never.
    idle: Option<Period>,
}

struct TcpFactory {
    listen: String,
    text: TextFormat,
    connections_max: usize,
    idle: Option<Duration>,
    settings: Settings,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    let config: TcpConfig = parse(options)?;
    ingest::check_address("listen", &config.listen)?;
    let format = config.format.unwrap_or(Format::JsonLines);
    let text = TextFormat::new(format, None, None, None, config.record_bytes_max)?;
    let connections_max = config.connections_max.unwrap_or(CONNECTIONS_MAX) as usize;
    if connections_max == 0 {
        return Err(ConfigError::of("connections_max", "`connections_max` is at least 1"));
    }
    Ok(Arc::new(TcpFactory {
        listen: config.listen,
        text,
        connections_max,
        idle: config.idle.map(Period::as_duration),
        settings: Settings::new(site, Dedup::default()),
    }))
}

impl SourceFactory for TcpFactory {
    fn capabilities(&self) -> SourceCapabilities {
        SourceCapabilities { bounds: Bounds::Unbounded, replayable: self.settings.is_durable() }
    }

    fn waits_on_disk(&self) -> bool {
        self.settings.is_durable()
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        let partition = SourcePartition { id: PARTITION, name: self.listen.clone(), size: None };
        Box::pin(async move { Ok(vec![partition]) })
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let Some((_, from)) = assigned.into_iter().next() else { return Ok(ingest::nothing()) };
            let listener = TcpListener::bind(&self.listen).await.map_err(listen_error(&self.listen))?;
            let address = listener.local_addr().map_err(listen_error(&self.listen))?;
            let (intake, taken) = ingest::open(self.settings.clone(), from, clock).await?;
            let (stop, stopped) = oneshot::channel();
            let settings = (self.text.clone(), self.idle);
            let done = tokio::spawn(serve(listener, intake, settings, self.connections_max, stopped));
            let location = Some(format!("tcp://{address}"));
            Ok(Box::new(taken.with_receivers(Receivers { stop, done, location })) as Box<dyn Source>)
        })
    }
}

async fn serve(
    listener: TcpListener,
    intake: Intake,
    (text, idle): (TextFormat, Option<Duration>),
    connections_max: usize,
    mut stop: oneshot::Receiver<()>,
) {
    let room = Arc::new(Semaphore::new(connections_max));
    let (ending, end) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                // The semaphore is never closed.
                let place = Arc::clone(&room).acquire_owned().await.ok()?;
                Some((listener.accept().await, place))
            } => accepted,
        };
        match accepted {
            Some((Ok((stream, peer)), place)) => {
                let (intake, text, mut end) = (intake.clone(), text.clone(), end.clone());
                connections.spawn(async move {
                    let ended = tokio::select! {
                        ended = receive(stream, intake, &text, idle) => ended,
                        () = async { drop(end.wait_for(|end| *end).await) } => Ok(()),
                    };
                    if let Err(error) = ended {
                        tracing::info!(%peer, %error, "a connection broke off");
                    }
                    drop(place);
                });
            }
            Some((Err(error), _)) => {
                tracing::warn!(%error, "cannot accept a connection");
                intake.clock().sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    // Nobody may be connected.
    let _none = ending.send(true).is_err();
    while connections.join_next().await.is_some() {}
}

/// Reads a connection to its end. A record without a newline at the end of the stream is one, unless
/// the connection broke off.
async fn receive(
    mut stream: TcpStream,
    intake: Intake,
    text: &TextFormat,
    idle: Option<Duration>,
) -> std::io::Result<()> {
    let mut records = TextIntake::new(text, intake.clone());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read?,
            () = async {
                match idle {
                    Some(idle) => intake.clock().sleep(idle).await,
                    None => std::future::pending().await,
                }
            } => return Ok(()),
        };
        // The next bytes are read once these have found room: the sender waits.
        if records.take(&buffer[..read], read == 0, BatchLimit { rows: 4_096, bytes: 1 << 20 }).await.is_err()
            || read == 0
        {
            return Ok(());
        }
    }
}
