use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wasmill_contract::{Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceFactory, SourcePartition};
use wasmill_env::Clock;
use wasmill_model::{NodeName, PartitionId, Position};
use wasmill_spec::{ByteSize, Period};
use wasmill_store::Sequence;

use super::config::SourceConfig;
use super::decode::Decode;
use super::rate::Rate;
use super::server::{SEQUENCE_PATH, Service, serve};
use crate::Site;
use crate::error::listen_error;
use crate::ingest::{self, Dedup, PARTITION, Receivers, Settings};
use crate::options::{ConfigError, parse};

const BODY_BYTES_MAX: u64 = 4 << 20;
/// What a job file may allow: a body is held in memory, twice for a moment.
const BODY_BYTES_LIMIT: u64 = 256 << 20;
const EVENTS_MAX: u32 = 10_000;
const CONNECTIONS_MAX: u32 = 256;
const TIMEOUT: Duration = Duration::from_secs(10);

struct HttpSourceFactory {
    listen: String,
    path: String,
    decode: Decode,
    body_bytes_max: usize,
    connections_max: usize,
    requests_per_second: Option<u32>,
    timeout: Duration,
    settings: Settings,
    sequences: BTreeMap<String, Arc<Sequence>>,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    let config: SourceConfig = parse(options)?;
    ingest::check_address("listen", &config.listen)?;
    let path = config.path.unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') || path.contains(['?', '#', ' ']) {
        return Err(ConfigError::of("path", format!("{path:?} is no path")).hint("write it like \"/events\""));
    }
    let bytes = config.body_bytes_max.map_or(BODY_BYTES_MAX, ByteSize::bytes);
    if bytes == 0 || bytes > BODY_BYTES_LIMIT {
        let message = format!("a body has at least 1 and at most {BODY_BYTES_LIMIT} bytes, not {bytes}");
        return Err(ConfigError::of("body_bytes_max", message));
    }
    let positive = |key: &str, number: Option<u32>, default: u32| match number.unwrap_or(default) {
        0 => Err(ConfigError::of(key, format!("`{key}` is at least 1"))),
        number => Ok(number),
    };
    if config.requests_per_second == Some(0) {
        return Err(ConfigError::of("requests_per_second", "`requests_per_second` is at least 1"));
    }
    let mut sequences = BTreeMap::new();
    for name in config.sequences {
        let known = NodeName::new(&name).map_err(|error| ConfigError::of("sequences", format!("{name:?}: {error}")))?;
        sequences.insert(name, site.sequences.get(&known));
    }
    if !sequences.is_empty() && path.starts_with(SEQUENCE_PATH) {
        let message = format!("{path:?} is where sequences are given out: choose another path for events");
        return Err(ConfigError::of("path", message));
    }
    Ok(Arc::new(HttpSourceFactory {
        sequences,
        listen: config.listen,
        path,
        decode: Decode {
            envelope: config.envelope,
            events_max: positive("events_max", config.events_max, EVENTS_MAX)? as usize,
        },
        body_bytes_max: bytes as usize,
        connections_max: positive("connections_max", config.connections_max, CONNECTIONS_MAX)? as usize,
        requests_per_second: config.requests_per_second,
        timeout: config.timeout.map_or(TIMEOUT, Period::as_duration),
        settings: Settings::new(site, Dedup { age: config.dedup, ids: config.dedup_ids }),
    }))
}

impl SourceFactory for HttpSourceFactory {
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
            let service = Service {
                intake,
                path: self.path.clone(),
                decode: self.decode,
                body_bytes_max: self.body_bytes_max,
                timeout: self.timeout,
                rate: self.requests_per_second.map(|rate| Mutex::new(Rate::new(rate))),
                sequences: self.sequences.clone(),
            };
            let (stop, stopped) = oneshot::channel();
            let done = tokio::spawn(serve(listener, service, self.connections_max, stopped));
            let location = Some(format!("http://{address}{}", self.path));
            Ok(Box::new(taken.with_receivers(Receivers { stop, done, location })) as Box<dyn Source>)
        })
    }
}
