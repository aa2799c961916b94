//! Lines of plugins, to the log of the job that they belong to.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use wasmill_control::service::{JobLogs, LogRing};
use wasmill_env::{Clock, RealClock};

/// The name of the span that a job of the service runs in. Its fields are `tenant` and `job`.
pub(crate) const JOB_SPAN: &str = "tenant-job";
/// Longest line that is taken.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Hears every line, and keeps those of jobs.
pub(crate) struct JobLogLayer {
    logs: JobLogs,
    clock: Arc<RealClock>,
}

impl JobLogLayer {
    pub(crate) fn new(logs: JobLogs, clock: Arc<RealClock>) -> Self {
        Self { logs, clock }
    }
}

/// Where lines of a span go.
struct Ring(Arc<LogRing>);

/// The stage that a span is of.
struct Stage(String);

#[derive(Default)]
struct Fields {
    tenant: String,
    job: String,
    name: String,
    message: String,
    /// The other fields.
    more: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let into = match field.name() {
            "tenant" => &mut self.tenant,
            "job" => &mut self.job,
            "name" => &mut self.name,
            "message" => &mut self.message,
            name => {
                if self.more.len() < LINE_BYTES_MAX {
                    let _ok = write!(self.more, " {name}={value:?}");
                }
                return;
            }
        };
        if into.len() < LINE_BYTES_MAX {
            // Writing to a string cannot fail.
            let _ok = write!(into, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JobLogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        match attributes.metadata().name() {
            JOB_SPAN => {
                if let Some(ring) = self.logs.find(&fields.tenant, &fields.job) {
                    span.extensions_mut().insert(Ring(ring));
                }
            }
            "stage" => span.extensions_mut().insert(Stage(fields.name)),
            _ => {}
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(scope) = context.event_scope(event) else { return };
        let (mut ring, mut stage) = (None, None);
        for span in scope {
            let extensions = span.extensions();
            if let Some(Stage(name)) = extensions.get() {
                stage.get_or_insert_with(|| name.clone());
            }
            if let Some(Ring(found)) = extensions.get() {
                ring = Some(Arc::clone(found));
                break;
            }
        }
        let Some(ring) = ring else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            _ => "debug",
        };
        ring.add(self.clock.wall(), level, stage, &(fields.message + &fields.more));
    }
}
