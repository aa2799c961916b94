//! Rows as bodies of requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use wasmill_contract::ConnectorError;
use wasmill_model::{Batch, ErrorKind};

use crate::outbox::{PANE_HEADER, RowId};

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Body {
    /// One JSON value a line; a single row is its value.
    JsonLines,
    /// An array; a single row is its value.
    Json,
    /// A batch of CloudEvents; a single row is one in structured mode.
    Cloudevents,
}

/// How rows become bodies.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) body: Body,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    /// The source of CloudEvents.
    pub(super) source: String,
    /// Their type.
    pub(super) event_type: String,
}

impl Chunk {
    pub(super) fn content_type(&self) -> &'static str {
        match (self.body, self.rows_max) {
            (Body::JsonLines | Body::Json, 1) | (Body::Json, _) => "application/json",
            (Body::JsonLines, _) => "application/x-ndjson",
            (Body::Cloudevents, 1) => "application/cloudevents+json",
            (Body::Cloudevents, _) => "application/cloudevents-batch+json",
        }
    }
}

/// The body of rows from `from` on, and where it ends. `first` is the id of the row at `from`.
pub(super) fn chunk(
    chunk: &Chunk,
    first: RowId<'_>,
    rows: &Batch,
    from: usize,
) -> Result<(Vec<u8>, usize), ConnectorError> {
    let single = chunk.rows_max == 1;
    let (open, between, close): (&[u8], &[u8], &[u8]) = match chunk.body {
        _ if single => (b"", b"", b""),
        Body::JsonLines => (b"", b"\n", b"\n"),
        Body::Json | Body::Cloudevents => (b"[", b",", b"]"),
    };
    let mut out = open.to_vec();
    let mut end = from;
    while end < rows.len() && end - from < chunk.rows_max && (end == from || out.len() < chunk.bytes_max) {
        if end > from {
            out.extend_from_slice(between);
        }
        let id = RowId { index: first.index + (end - from) as u64, ..first };
        match chunk.body {
            Body::JsonLines | Body::Json => out.extend_from_slice(&json(id, rows.values().row(end))?),
            Body::Cloudevents => event(chunk, id, rows, end, &mut out),
        }
        end += 1;
    }
    out.extend_from_slice(close);
    Ok((out, end))
}

/// A value as JSON on one line: what is none becomes a string.
fn json(id: RowId<'_>, value: &[u8]) -> Result<Vec<u8>, ConnectorError> {
    let text = std::str::from_utf8(value).map_err(|_| {
        let message = format!("row {id} is not UTF-8: use format \"cloudevents\", which takes any bytes");
        ConnectorError::new(ErrorKind::Config, message)
    })?;
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Ok(super::decode::one_line(value).into_owned());
    }
    Ok(quoted(text).into_bytes())
}

fn event(chunk: &Chunk, id: RowId<'_>, rows: &Batch, row: usize, out: &mut Vec<u8>) {
    let (key, value) = (rows.keys().row(row), rows.values().row(row));
    let mut text = format!(
        "{{\"specversion\":\"1.0\",\"id\":{},\"source\":{},\"type\":{}",
        quoted(&id.to_string()),
        quoted(&chunk.source),
        quoted(&chunk.event_type)
    );
    if let Ok(time) = jiff::Timestamp::from_microsecond(rows.times()[row]) {
        text.push_str(&format!(",\"time\":\"{time}\""));
    }
    if let Some(key) = std::str::from_utf8(key).ok().filter(|key| !key.is_empty()) {
        text.push_str(&format!(",\"partitionkey\":{}", quoted(key)));
    }
    let header = rows.headers().and_then(|headers| std::str::from_utf8(headers.row(row)).ok());
    if let Some(pane) = header.and_then(|header| header.strip_prefix(PANE_HEADER)) {
        text.push_str(&format!(",\"pane\":{}", quoted(pane)));
    }
    let as_text = std::str::from_utf8(value);
    match as_text {
        Ok(json) if serde_json::from_str::<IgnoredAny>(json).is_ok() => {
            text.push_str(",\"datacontenttype\":\"application/json\",\"data\":");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(&super::decode::one_line(value));
        }
        Ok(plain) => {
            text.push_str(&format!(",\"datacontenttype\":\"text/plain\",\"data\":{}", quoted(plain)));
            out.extend_from_slice(text.as_bytes());
        }
        Err(_) => {
            text.push_str(&format!(",\"data_base64\":\"{}\"", STANDARD.encode(value)));
            out.extend_from_slice(text.as_bytes());
        }
    }
    out.push(b'}');
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
