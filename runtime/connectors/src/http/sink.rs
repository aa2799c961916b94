//! The sink: rows are posted after their epoch has committed, under ids that stay the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, ErrorKind, Visibility};
use wasmill_spec::{ByteSize, Period};

use super::encode::{Body, Chunk, chunk};
use crate::Site;
use crate::options::{ConfigError, parse};
use crate::outbox::{self, OutboxConfig, OutboxOptions, RowId, Target};
use crate::outgoing::{HttpClient, outgoing};
use crate::tls::client_tls;

const BATCH_ROWS_MAX: u32 = 500;
const BATCH_BYTES_MAX: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read, so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of an answer that are shown.
const SHOWN_CHARS_MAX: usize = 300;
/// Longest time that a target may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Options of the sink `http`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SinkConfig {
    /// Where rows are posted, `http://` or `https://`.
    url: String,
    /// What a body is. By default `json-lines`.
    format: Option<Body>,
    /// Most rows of a request; 1 posts each row by itself. By default 500.
    batch_rows_max: Option<u32>,
    /// A request with this many bytes takes no more rows. By default 1 MiB.
    batch_bytes_max: Option<ByteSize>,
    /// Further headers, such as `{ authorization = { env = "TOKEN" } }`.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// How long one request may take. By default 10s.
    timeout: Option<Period>,
    /// A file of certificates, PEM, of the authorities to trust in place of the system's. Relative to
    /// the job file.
    authorities: Option<PathBuf>,
    /// CloudEvents: the `type` of every event. By default `wasmill.row`.
    event_type: Option<String>,
    /// How rows wait and how often is tried.
    #[serde(default)]
    outbox: OutboxConfig,
}

/// A text, or where it is kept out of the job file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
enum Secret {
    /// As it stands.
    Plain(String),
    /// The value of an environment variable.
    Env {
        /// Its name.
        env: String,
    },
    /// What a file holds, without white space around it.
    File {
        /// Its path, relative to the job file.
        file: String,
    },
}

struct HttpSinkFactory {
    site: Site,
    url: Uri,
    chunk: Chunk,
    headers: Vec<(HeaderName, Secret)>,
    timeout: Duration,
    authorities: Option<PathBuf>,
    outbox: OutboxOptions,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SinkFactory>, ConfigError> {
    let config: SinkConfig = parse(options)?;
    let bad_url = |reason: &str| {
        ConfigError::of("url", format!("{:?} {reason}", config.url)).hint("write it like \"https://example.org/rows\"")
    };
    let url: Uri = config.url.parse().map_err(|error| bad_url(&format!("is no URL: {error}")))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => {}
        (Some("http" | "https"), Some(_)) => {
            return Err(bad_url("holds a user").hint("use `headers = { authorization = { env = \"NAME\" } }`"));
        }
        _ => return Err(bad_url("is no URL of http or https")),
    }
    let mut headers = Vec::new();
    for (name, secret) in config.headers {
        let key = format!("headers.{name}");
        let name: HeaderName = name.parse().map_err(|_| ConfigError::of(&key, format!("{name:?} names no header")))?;
        if name == CONTENT_TYPE || name.as_str() == "idempotency-key" || name.as_str() == "content-length" {
            return Err(ConfigError::of(&key, format!("header `{name}` is set by the sink")));
        }
        headers.push((name, secret));
    }
    if config.authorities.is_some() && url.scheme_str() == Some("http") {
        return Err(ConfigError::of("authorities", "`authorities` goes with a URL of https only"));
    }
    let rows_max = config.batch_rows_max.unwrap_or(BATCH_ROWS_MAX) as usize;
    if rows_max == 0 {
        return Err(ConfigError::of("batch_rows_max", "`batch_rows_max` is at least 1"));
    }
    let body = config.format.unwrap_or(Body::JsonLines);
    if body != Body::Cloudevents && config.event_type.is_some() {
        return Err(ConfigError::of("event_type", "`event_type` goes with format \"cloudevents\" only"));
    }
    Ok(Arc::new(HttpSinkFactory {
        chunk: Chunk {
            body,
            rows_max,
            bytes_max: config.batch_bytes_max.map_or(BATCH_BYTES_MAX, ByteSize::bytes) as usize,
            source: format!("/{}/{}", site.job, site.node),
            event_type: config.event_type.unwrap_or_else(|| "wasmill.row".to_owned()),
        },
        site: site.clone(),
        url,
        headers,
        timeout: config.timeout.map_or(TIMEOUT, Period::as_duration),
        authorities: config.authorities.map(|path| site.base_dir.join(path)),
        outbox: config.outbox.options("outbox")?,
    }))
}

impl SinkFactory for HttpSinkFactory {
    fn capabilities(&self) -> SinkCapabilities {
        let visibility = Visibility::Deduplicated;
        match self.chunk.body {
            Body::Cloudevents => SinkCapabilities::retract(visibility),
            Body::Json | Body::JsonLines => SinkCapabilities {
                more_changes: Some("write format = \"cloudevents\" in this sink, whose events say what each is"),
                ..SinkCapabilities::append(visibility)
            },
        }
    }

    fn open(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            for (name, secret) in &self.headers {
                headers.append(name.clone(), resolve(name, secret, &self.site.base_dir).await?);
            }
            let target = HttpTarget {
                client: client(&self.url, self.authorities.as_deref(), self.site.fence.is_some()).await?,
                url: self.url.clone(),
                headers,
                chunk: self.chunk.clone(),
                timeout: self.timeout,
                clock: Arc::clone(&clock),
                not_before_nanos: 0,
                delivered: None,
            };
            outbox::open(&self.site, share, recovered, clock, self.outbox, self.url.to_string(), target).await
        })
    }
}

async fn resolve(name: &HeaderName, secret: &Secret, base: &Path) -> Result<HeaderValue, ConnectorError> {
    let wrong = |reason: String| ConnectorError::new(ErrorKind::Config, format!("header `{name}`: {reason}"));
    let text = match secret {
        Secret::Plain(text) => text.clone(),
        Secret::Env { env } => {
            std::env::var(env).map_err(|_| wrong(format!("environment variable {env} is not set, or is no text")))?
        }
        Secret::File { file } => {
            let path: PathBuf = base.join(file);
            let text = tokio::fs::read_to_string(&path).await;
            let text = text.map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
            text.trim().to_owned()
        }
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| wrong("its value holds what no header may".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn client(url: &Uri, authorities: Option<&Path>, fenced: bool) -> Result<HttpClient, ConnectorError> {
    let wrong = |path: &Path, reason: &dyn std::fmt::Display| {
        ConnectorError::new(ErrorKind::Config, format!("authorities: {}: {reason}", path.display()))
    };
    let pem = match authorities {
        Some(path) => Some(tokio::fs::read(path).await.map_err(|error| {
            let reason = format!("cannot read it: {error}");
            wrong(path, &reason)
        })?),
        None => None,
    };
    let tls = client_tls(pem.as_deref(), url.scheme_str() == Some("https")).map_err(|error| match authorities {
        Some(path) => wrong(path, &error),
        None => {
            let message = format!("{error}: install them, or set SSL_CERT_FILE");
            ConnectorError::new(ErrorKind::Config, message).caused_by(error)
        }
    })?;
    Ok(outgoing(tls, fenced))
}

struct HttpTarget {
    client: HttpClient,
    url: Uri,
    headers: HeaderMap,
    chunk: Chunk,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    /// The target asked to be left alone until then.
    not_before_nanos: u64,
    /// The next row of an epoch, where part of a parcel was delivered.
    delivered: Option<(Epoch, u64)>,
}

impl Target for HttpTarget {
    fn deliver<'a>(&'a mut self, first: RowId<'a>, rows: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            let mut from = match self.delivered {
                Some((epoch, next)) if epoch == first.epoch && next > first.index => {
                    usize::try_from(next - first.index).unwrap_or(usize::MAX)
                }
                _ => 0,
            };
            while from < rows.len() {
                let id = RowId { index: first.index + from as u64, ..first };
                let (body, end) = chunk(&self.chunk, id, rows, from)?;
                self.post(id, end - from, body).await?;
                from = end;
                self.delivered = Some((first.epoch, first.index + from as u64));
            }
            Ok(())
        })
    }
}

impl HttpTarget {
    async fn post(&mut self, id: RowId<'_>, rows: usize, body: Vec<u8>) -> Result<(), ConnectorError> {
        self.clock.sleep_until(self.not_before_nanos).await;
        let key = format!("{id}+{rows}");
        let failed = |kind, reason: String| {
            ConnectorError::new(kind, format!("cannot post {rows} rows to {}: {reason}", self.url))
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let content_type = HeaderValue::from_static(self.chunk.content_type());
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        let key = HeaderValue::from_str(&key).map_err(|error| failed(ErrorKind::Internal, error.to_string()))?;
        request.headers_mut().insert("idempotency-key", key);
        let answered = tokio::select! {
            biased;
            answered = async {
                let answer = self.client.request(request).await.map_err(|error| chain(&error))?;
                let (head, body) = answer.into_parts();
                // An answer that is too long or breaks off is no reason to post again.
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes());
                Ok::<_, String>((head, body.unwrap_or_default()))
            } => answered,
            () = self.clock.sleep(self.timeout) => Err(format!("no answer within {:?}", self.timeout)),
        };
        let (head, body) = answered.map_err(|reason| failed(ErrorKind::Unavailable, reason))?;
        if head.status.is_success() {
            return Ok(());
        }
        let mut reason = head.status.to_string();
        let shown: String = String::from_utf8_lossy(&body).trim().chars().take(SHOWN_CHARS_MAX).collect();
        if !shown.is_empty() {
            reason = format!("{reason}: {}", shown.escape_debug());
        }
        let again = head.status.is_server_error()
            || matches!(head.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if !again {
            return Err(failed(ErrorKind::Config, reason));
        }
        if let Some(wait) = retry_after(&head.headers, self.clock.wall().0) {
            let nanos = u64::try_from(wait.min(RETRY_AFTER_MAX).as_nanos()).unwrap_or(u64::MAX);
            let error = failed(ErrorKind::Unavailable, format!("{reason} (come again in {wait:?})"));
            self.not_before_nanos = self.clock.monotonic_nanos().saturating_add(nanos);
            return Err(error);
        }
        Err(failed(ErrorKind::Unavailable, reason))
    }
}

/// What `Retry-After` says: seconds, or a date.
fn retry_after(headers: &HeaderMap, now_micros: i64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::from_micros(u64::try_from(at.as_microsecond().saturating_sub(now_micros)).unwrap_or(0)))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
