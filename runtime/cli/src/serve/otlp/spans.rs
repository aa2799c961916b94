//! Spans of the service, from `tracing` to OTLP: epochs, deployments and swaps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use wasmill_env::{Clock, RealClock};

use super::super::logs::JOB_SPAN;

/// The spans that are exported.
const NAMES: [&str; 3] = ["epoch", "deploy", "swap"];
/// Spans that wait to be sent; more are lost, and counted.
const SPANS_MAX: usize = 4_096;
/// Characters of an attribute.
const TEXT_CHARS_MAX: usize = 1_024;

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(super) name: &'static str,
    /// Among all spans of this process.
    pub(super) number: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) attributes: BTreeMap<&'static str, String>,
}

/// The receiving end of spans.
pub(crate) struct Spans {
    pub(super) queue: mpsc::Receiver<Finished>,
    pub(super) lost: Arc<AtomicU64>,
}

/// Hears of spans.
pub(crate) struct SpanLayer {
    queue: mpsc::Sender<Finished>,
    lost: Arc<AtomicU64>,
    numbers: AtomicU64,
    clock: Arc<RealClock>,
}

/// A layer, and where its spans go.
pub(crate) fn spans(clock: Arc<RealClock>) -> (SpanLayer, Spans) {
    let (sender, queue) = mpsc::channel(SPANS_MAX);
    let lost = Arc::<AtomicU64>::default();
    let layer = SpanLayer { queue: sender, lost: Arc::clone(&lost), numbers: AtomicU64::new(1), clock };
    (layer, Spans { queue, lost })
}

/// Whether a span is one that is exported, or says whose others are.
pub(crate) fn wants(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && (NAMES.contains(&metadata.name()) || metadata.name() == JOB_SPAN)
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text: String = format!("{value:?}").chars().take(TEXT_CHARS_MAX).collect();
        self.0.insert(field.name(), text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

struct Open {
    began: u64,
    fields: Fields,
}

impl SpanLayer {
    fn now(&self) -> u64 {
        self.clock.wall().0.max(0).unsigned_abs().saturating_mul(1_000)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(Open { began: self.now(), fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(Open { fields, .. }) = span.extensions_mut().get_mut() {
            values.record(fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let name = span.metadata().name();
        if name == JOB_SPAN {
            return;
        }
        let (mut began, mut attributes) = (0, BTreeMap::new());
        // From the outermost to this one: what is nearer counts.
        for span in span.scope().from_root() {
            if let Some(open) = span.extensions().get::<Open>() {
                began = open.began;
                attributes.extend(open.fields.0.iter().map(|(name, text)| (*name, text.clone())));
            }
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(Finished { name, number, began, ended: self.now(), attributes }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A text as OTLP writes an attribute.
pub(super) fn attribute(key: &str, text: &str) -> Value {
    json!({"key": key, "value": {"stringValue": text}})
}

/// Spans as the body of a request. `process` tells the spans of processes apart.
pub(super) fn body(spans: &[Finished], process: u64) -> Value {
    let span = |span: &Finished| {
        let attributes: Vec<Value> = span.attributes.iter().map(|(key, text)| attribute(key, text)).collect();
        let status = match span.attributes.get("error") {
            Some(error) => json!({"code": 2, "message": error}),
            None => json!({}),
        };
        json!({
            "traceId": format!("{process:016x}{:016x}", span.number),
            "spanId": format!("{:016x}", span.number),
            "name": span.name,
            "kind": 1,
            "startTimeUnixNano": span.began.to_string(),
            "endTimeUnixNano": span.ended.to_string(),
            "attributes": attributes,
            "status": status,
        })
    };
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": [attribute("service.name", "wasmill")]},
        "scopeSpans": [{"scope": {"name": "wasmill", "version": env!("CARGO_PKG_VERSION")}, "spans": spans}],
    }]})
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn spans_have_what_their_parents_say_and_a_full_queue_loses_them() {
        let (layer, mut spans) = spans(Arc::default());
        let layer = layer.with_filter(tracing_subscriber::filter::filter_fn(wants));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let job = tracing::info_span!(JOB_SPAN, tenant = "acme", job = "orders");
            let epoch = tracing::info_span!(parent: &job, "epoch", epoch = 7, error = tracing::field::Empty);
            epoch.record("error", "the disk is full");
            let other = tracing::info_span!(parent: &epoch, "other");
            drop((other, epoch));
            for _ in 0..SPANS_MAX + 2 {
                drop(tracing::info_span!("swap"));
            }
        });
        let first = spans.queue.try_recv().expect("a span");
        let wanted = [("tenant", "acme"), ("job", "orders"), ("epoch", "7"), ("error", "the disk is full")];
        let wanted = wanted.map(|(key, text)| (key, text.to_owned()));
        assert_eq!((first.name, &first.attributes), ("epoch", &BTreeMap::from(wanted)));
        assert_eq!(spans.lost.load(Ordering::Relaxed), 3);
        let body = body(&[first], 9);
        let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(
            (span["traceId"].as_str().map(str::len), span["spanId"].as_str().map(str::len)),
            (Some(32), Some(16))
        );
        assert_eq!(span["status"], json!({"code": 2, "message": "the disk is full"}));
    }
}
