//! The server of the source: one connection a task, bounded in number, size and time.
//!
//! # Cancellation
//! A request whose sender goes away is dropped at an await: its rows are taken entirely or not at
//! all, and nobody is told. When the job ends, the listener is closed, requests that are under way
//! get their answer, and idle connections are closed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use wasmill_store::Sequence;

use super::decode::{Decode, Refused};
use super::rate::Rate;
use crate::ingest::{Intake, Receipt, Refusal};

/// Most bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Wait after the listener has failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server does with requests.
pub(super) struct Service {
    pub(super) intake: Intake,
    pub(super) path: String,
    pub(super) decode: Decode,
    pub(super) body_bytes_max: usize,
    pub(super) timeout: Duration,
    pub(super) rate: Option<Mutex<Rate>>,
    /// Sequences that are given out, by name.
    pub(super) sequences: BTreeMap<String, Arc<Sequence>>,
}

/// Where sequences are given out, with the name behind it.
pub(super) const SEQUENCE_PATH: &str = "/sequence/";
/// Most numbers of a request.
const NUMBERS_MAX: u64 = 1_000_000;

/// Serves until `stop` is dropped, and then until every request is answered.
pub(super) async fn serve(
    listener: TcpListener,
    service: Service,
    connections_max: usize,
    mut stop: oneshot::Receiver<()>,
) {
    let service = Arc::new(service);
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
            Some((Ok((stream, _)), place)) => {
                let (service, end) = (Arc::clone(&service), end.clone());
                connections.spawn(async move {
                    connection(stream, service, end).await;
                    drop(place);
                });
            }
            Some((Err(error), _)) => {
                tracing::warn!(%error, "cannot accept a connection");
                service.intake.clock().sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    drop(listener);
    drop(service);
    // Nobody may be connected.
    let _none = ending.send(true).is_err();
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, service: Arc<Service>, mut end: watch::Receiver<bool>) {
    // Answers are small and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let timeout = service.timeout;
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(HEAD_BYTES_MAX.max(64 << 10))
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = async { drop(end.wait_for(|end| *end).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

type Answer = Response<Full<Bytes>>;

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if !self.sequences.is_empty()
            && let Some(name) = request.uri().path().strip_prefix(SEQUENCE_PATH)
        {
            return self.number(name, &request).await.unwrap_or_else(|refused| refused);
        }
        match self.take(request).await {
            Ok(receipt) => {
                let Receipt { accepted, duplicates, offsets } = receipt;
                let mut body = json!({ "accepted": accepted, "duplicates": duplicates });
                if let Some((first, last)) = offsets {
                    body["offsets"] = json!([first, last]);
                }
                answer(StatusCode::ACCEPTED, &body)
            }
            Err(refused) => refused,
        }
    }

    /// The next numbers of a sequence.
    async fn number(&self, name: &str, request: &Request<Incoming>) -> Result<Answer, Answer> {
        let Some(sequence) = self.sequences.get(name) else {
            return Err(refusal(StatusCode::NOT_FOUND, "there is no such sequence; option `sequences` of the source"));
        };
        if let Some(refused) = not_posted(request, "numbers are given out to POST").or_else(|| self.too_fast()) {
            return Err(refused);
        }
        let query = request.uri().query().unwrap_or("count=1");
        let count = query.strip_prefix("count=").and_then(|count| count.parse().ok());
        let Some(count) = count.filter(|count| (1..=NUMBERS_MAX).contains(count)) else {
            let reason = format!("expected count=N with N from 1 to {NUMBERS_MAX}, not {query:?}");
            return Err(refusal(StatusCode::BAD_REQUEST, &reason));
        };
        match sequence.take(count).await {
            Ok(first) => Ok(answer(StatusCode::OK, &json!({ "sequence": name, "first": first, "count": count }))),
            Err(error) => {
                tracing::warn!(%error, "cannot give out numbers");
                Err(later(StatusCode::SERVICE_UNAVAILABLE, "numbers cannot be had just now", 1))
            }
        }
    }

    /// What senders are told beyond the rate.
    fn too_fast(&self) -> Option<Answer> {
        let now = self.intake.clock().monotonic_nanos();
        let nanos = self.rate.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take(now).err()?;
        let reason = "more requests than the source takes in a second";
        Some(later(StatusCode::TOO_MANY_REQUESTS, reason, nanos.div_ceil(1_000_000_000)))
    }

    async fn take(&self, request: Request<Incoming>) -> Result<Receipt, Answer> {
        if request.uri().path() != self.path {
            let reason = format!("there is nothing at {}; post events to {}", request.uri().path(), self.path);
            return Err(refusal(StatusCode::NOT_FOUND, &reason));
        }
        if let Some(refused) = not_posted(&request, "events are posted: use POST").or_else(|| self.too_fast()) {
            return Err(refused);
        }
        if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken"));
        }
        let (head, body) = request.into_parts();
        let body = self.body(body).await?;
        let rows = self.decode.rows(&head.headers, &body, self.intake.now().0).map_err(|refused| match refused {
            Refused::ContentType(reason) => refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &reason),
            Refused::Malformed(reason) => refusal(StatusCode::BAD_REQUEST, &reason),
        })?;
        drop(body);
        if rows.is_empty() {
            return Ok(Receipt { accepted: 0, duplicates: 0, offsets: None });
        }
        self.intake.offer(self.intake.piece(rows)).await.map_err(|refused| match refused {
            Refusal::Full => later(StatusCode::TOO_MANY_REQUESTS, "the job is too slow: come again", 1),
            Refusal::Closed => later(StatusCode::SERVICE_UNAVAILABLE, "the job ends", 1),
            Refusal::Failed(reason) => later(StatusCode::SERVICE_UNAVAILABLE, &reason, 1),
        })
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, Answer> {
        let too_large = || {
            let reason = format!("the body is larger than {} bytes (option body_bytes_max)", self.body_bytes_max);
            closing(refusal(StatusCode::PAYLOAD_TOO_LARGE, &reason))
        };
        if body.size_hint().lower() > self.body_bytes_max as u64 {
            return Err(too_large());
        }
        let collected = tokio::select! {
            biased;
            collected = Limited::new(body, self.body_bytes_max).collect() => collected,
            () = self.intake.clock().sleep(self.timeout) => {
                let reason = format!("the body did not come within {:?}", self.timeout);
                return Err(closing(refusal(StatusCode::REQUEST_TIMEOUT, &reason)));
            }
        };
        match collected {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(error) => Err(closing(refusal(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}")))),
        }
    }
}

/// What a request is told that is no POST.
fn not_posted(request: &Request<Incoming>, reason: &str) -> Option<Answer> {
    (request.method() != Method::POST).then(|| {
        let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, reason);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        answer
    })
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn refusal(status: StatusCode, reason: &str) -> Answer {
    answer(status, &json!({ "error": reason }))
}

fn later(status: StatusCode, reason: &str, seconds: u64) -> Answer {
    let mut answer = refusal(status, reason);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    answer
}

/// Nothing more is read from a connection whose body was not read to its end.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
