//! Traces and metrics to a collector, by OTLP over HTTP in its JSON encoding.
//!
//! What cannot be sent is lost: nothing waits for a collector, and nothing is kept for it but a bounded
//! queue of spans.

mod metrics;
mod spans;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};
use wasmill_control::service::Service;
use wasmill_env::Clock;

use crate::failure::{Failure, chain};
use crate::remote::{HttpsClient, https};

pub(crate) use spans::{SpanLayer, Spans, spans, wants};

/// From one request to the next.
const EVERY: Duration = Duration::from_secs(5);
/// A collector has answered after this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Spans of one request.
const SPANS_PER_REQUEST: usize = 512;

/// Sends to a collector.
pub(crate) struct Exporter {
    client: HttpsClient,
    traces: Uri,
    metrics: Uri,
    spans: Spans,
    clock: Arc<dyn Clock>,
    /// Tells the spans of this process from those of others.
    process: u64,
    /// Whether the collector took what it was sent last.
    reached: bool,
}

impl Exporter {
    /// To the collector whose base address is `endpoint`, such as `http://localhost:4318`.
    pub(crate) fn new(endpoint: &str, spans: Spans, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let of = |path: &str| {
            let url = format!("{}{path}", endpoint.trim_end_matches('/'));
            let uri: Result<Uri, _> = url.parse();
            let uri = uri.ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
            uri.ok_or_else(|| {
                Failure::wrong(format!("{endpoint:?} is no URL of http or https"))
                    .hint("a collector listens on http://HOST:4318, say")
            })
        };
        let (traces, metrics) = (of("/v1/traces")?, of("/v1/metrics")?);
        let client = https(&traces, None)?;
        let process = clock.wall().0.unsigned_abs() ^ u64::from(std::process::id()) << 44;
        Ok(Self { client, traces, metrics, spans, clock, process, reached: true })
    }

    /// Sends now and then, for ever.
    pub(crate) async fn run(mut self, service: Arc<Service>) {
        let now = |clock: &dyn Clock| clock.wall().0.max(0).unsigned_abs().saturating_mul(1_000);
        let since = now(&*self.clock);
        loop {
            self.clock.sleep(EVERY).await;
            let mut batch = Vec::new();
            while let Ok(span) = self.spans.queue.try_recv() {
                batch.push(span);
                if batch.len() >= SPANS_PER_REQUEST {
                    let body = spans::body(&std::mem::take(&mut batch), self.process);
                    self.send(&self.traces.clone(), body.to_string()).await;
                }
            }
            if !batch.is_empty() {
                let body = spans::body(&batch, self.process);
                self.send(&self.traces.clone(), body.to_string()).await;
            }
            if let Ok(text) = service.metrics() {
                let body = metrics::body(&text, since, now(&*self.clock));
                self.send(&self.metrics.clone(), body.to_string()).await;
            }
        }
    }

    async fn send(&mut self, to: &Uri, body: String) {
        let request = Request::builder().method(Method::POST).uri(to).header(CONTENT_TYPE, "application/json");
        let Ok(request) = request.body(Full::new(Bytes::from(body))) else { return };
        let failed = tokio::select! {
            answer = self.client.request(request) => match answer {
                Ok(answer) if answer.status().is_success() => None,
                Ok(answer) => Some(format!("it answered {}", answer.status())),
                Err(error) => Some(chain(&error)),
            },
            () = self.clock.sleep(PATIENCE) => Some(format!("it had not answered after {} s", PATIENCE.as_secs())),
        };
        let lost = self.spans.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("{lost} spans were lost: the collector at {to} is too slow");
        }
        // Said once, however often it fails.
        match (failed, self.reached) {
            (Some(why), true) => tracing::warn!("cannot send to the collector at {to}: {why}; what is lost is lost"),
            (None, false) => tracing::warn!("the collector at {to} is there again"),
            (Some(_), false) => return,
            (None, true) => return,
        }
        self.reached = !self.reached;
    }
}
