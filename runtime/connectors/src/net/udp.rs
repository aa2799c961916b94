use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use wasmill_contract::{Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceFactory, SourcePartition};
use wasmill_env::Clock;
use wasmill_model::{PartitionId, Position};
use wasmill_spec::ByteSize;

use crate::Site;
use crate::error::listen_error;
use crate::ingest::{self, Dedup, Intake, PARTITION, Piece, Receivers, Rows, Settings};
use crate::options::{ConfigError, parse};

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams that are taken in together when so many wait.
const DATAGRAMS_MAX: usize = 512;
const RECORD_BYTES_MAX: u64 = 65_536;
/// Bytes of a record too long that are kept for people to look at.
const BAD_BYTES_MAX: usize = 4 << 10;

/// Options of the source `udp`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UdpConfig {
    /// Address and port to listen on, such as `127.0.0.1:9000`. Port 0 takes a free one; the job says
    /// which.
    listen: String,
    /// Longest line; longer ones go to the dead-letter queue. By default 64 KiB.
    record_bytes_max: Option<ByteSize>,
}

struct UdpFactory {
    listen: String,
    record_bytes_max: usize,
    settings: Settings,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    let config: UdpConfig = parse(options)?;
    ingest::check_address("listen", &config.listen)?;
    let bytes = config.record_bytes_max.map_or(RECORD_BYTES_MAX, ByteSize::bytes);
    if bytes == 0 || bytes > RECORD_BYTES_MAX {
        let message = format!("a line in a datagram has at least 1 and at most {RECORD_BYTES_MAX} bytes, not {bytes}");
        return Err(ConfigError::of("record_bytes_max", message));
    }
    let settings = Settings::new(site, Dedup::default());
    Ok(Arc::new(UdpFactory { listen: config.listen, record_bytes_max: bytes as usize, settings }))
}

impl SourceFactory for UdpFactory {
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
            let socket = UdpSocket::bind(&self.listen).await.map_err(listen_error(&self.listen))?;
            let address = socket.local_addr().map_err(listen_error(&self.listen))?;
            let (intake, taken) = ingest::open(self.settings.clone(), from, clock).await?;
            let (stop, stopped) = oneshot::channel();
            let done = tokio::spawn(receive(socket, intake, self.record_bytes_max, stopped));
            let location = Some(format!("udp://{address}"));
            Ok(Box::new(taken.with_receivers(Receivers { stop, done, location })) as Box<dyn Source>)
        })
    }
}

async fn receive(socket: UdpSocket, intake: Intake, record_bytes_max: usize, mut stop: oneshot::Receiver<()>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            biased;
            _ = &mut stop => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let mut lines = Lines { rows: Rows::default(), bad: Vec::new(), bytes_max: record_bytes_max };
        let now = intake.now().0;
        match received {
            Ok((bytes, _)) => lines.datagram(&buffer[..bytes], now),
            Err(error) => {
                // One sender's trouble, such as a port that is closed by now.
                tracing::debug!(%error, "cannot receive a datagram");
                continue;
            }
        }
        for _ in 1..DATAGRAMS_MAX {
            let Ok((bytes, _)) = socket.try_recv_from(&mut buffer) else { break };
            lines.datagram(&buffer[..bytes], now);
        }
        let rows = (!lines.rows.is_empty()).then(|| intake.piece(lines.rows));
        if lines.bad.into_iter().chain(rows).any(|piece| intake.put_or_drop(piece).is_err()) {
            return;
        }
    }
}

struct Lines {
    rows: Rows,
    bad: Vec<Piece>,
    bytes_max: usize,
}

impl Lines {
    /// Lines end with the datagram at the latest. Blank ones do not count.
    fn datagram(&mut self, datagram: &[u8], now: i64) {
        for line in datagram.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > self.bytes_max {
                let reason = format!("record is longer than {} bytes (option record_bytes_max)", self.bytes_max);
                let bytes = line[..line.len().min(BAD_BYTES_MAX)].to_vec();
                self.bad.push(Piece::Bad { bytes, reason });
            } else if !line.is_empty() {
                self.rows.push(now, b"", line, None);
            }
        }
    }
}
