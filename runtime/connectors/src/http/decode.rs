//! The body of a request as rows: CloudEvents in their three modes, JSON, and JSON lines.
//!
//! All of a body is taken, or nothing: one wrong event refuses it, and the answer says which one
//! and where.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AsHeaderName, CONTENT_TYPE};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use wasmill_scan::{Fields, Kind, Raw};

use crate::ingest::{EventId, Rows};

/// Header that makes a request without CloudEvents count once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest id, source or key, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 4 << 10;
/// Longest time, in bytes, and characters of other attributes that an answer shows.
const TIME_BYTES_MAX: usize = 64;
const EXPECTED: &str = "send application/json, application/x-ndjson, application/cloudevents+json, \
                        application/cloudevents-batch+json, or CloudEvents attributes in `ce-` headers";

const ATTRIBUTES: Fields<'static, 9> = Fields::new([
    "id",
    "source",
    "specversion",
    "type",
    "time",
    "partitionkey",
    "datacontenttype",
    "data",
    "data_base64",
]);

/// Why a body is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its content type is none of those that are taken.
    ContentType(String),
    /// It is not what its content type says.
    Malformed(String),
}

/// What becomes of bodies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decode {
    /// A row of a CloudEvent holds its attributes, too, rather than its data alone.
    pub(super) envelope: bool,
    /// Most events of a request.
    pub(super) events_max: usize,
}

impl Decode {
    /// The rows of a request that came at `arrived` (microseconds since the Unix epoch).
    pub(super) fn rows(self, headers: &HeaderMap, body: &[u8], arrived: i64) -> Result<Rows, Refused> {
        let content_type = match headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
            Some(Ok(text)) => Some(text),
            Some(Err(_)) => return Err(Refused::ContentType(format!("the content type is no text; {EXPECTED}"))),
            None => None,
        };
        let media = content_type.map(media_type).transpose()?;
        let media = media.as_deref();
        let mut rows = Rows::default();
        match media {
            Some("application/cloudevents+json") => {
                let text = text(body)?;
                check(text)?;
                self.structured(text.as_bytes(), arrived, &mut rows).map_err(Refused::Malformed)?;
            }
            Some("application/cloudevents-batch+json") => {
                let text = text(body)?;
                check(text)?;
                let batch = array(text).ok_or_else(|| wrong("expected an array of CloudEvents"))?;
                for (place, event) in batch.items().enumerate() {
                    self.room(&rows)?;
                    let event = event.map_err(|error| wrong(&format!("event {place}: {error}")))?;
                    let taken = self.structured(event.bytes(), arrived, &mut rows);
                    taken.map_err(|reason| Refused::Malformed(format!("event {place}: {reason}")))?;
                }
            }
            _ if headers.contains_key("ce-specversion") => self.binary(headers, media, body, arrived, &mut rows)?,
            Some("application/json") => {
                let text = text(body)?;
                check(text)?;
                let names = Names::new(headers)?;
                match array(text) {
                    Some(array) => {
                        for item in array.items() {
                            self.room(&rows)?;
                            let item = item.map_err(|error| wrong(&error.to_string()))?;
                            rows.push(arrived, b"", &one_line(item.bytes()), names.id(rows.len()));
                        }
                    }
                    None => rows.push(arrived, b"", &one_line(text.trim_ascii().as_bytes()), names.id(0)),
                }
            }
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/json-lines") => {
                let text = text(body)?;
                let names = Names::new(headers)?;
                for (number, line) in text.split('\n').enumerate() {
                    let line = line.trim_ascii();
                    if line.is_empty() {
                        continue;
                    }
                    self.room(&rows)?;
                    serde_json::from_str::<IgnoredAny>(line)
                        .map_err(|error| wrong(&format!("line {}: {}", number + 1, in_line(&error))))?;
                    rows.push(arrived, b"", line.as_bytes(), names.id(rows.len()));
                }
            }
            Some(other) => {
                return Err(Refused::ContentType(format!("content type {other:?} is none that is taken; {EXPECTED}")));
            }
            None => return Err(Refused::ContentType(format!("the request has no content type; {EXPECTED}"))),
        }
        Ok(rows)
    }

    fn room(self, rows: &Rows) -> Result<(), Refused> {
        if rows.len() < self.events_max {
            return Ok(());
        }
        Err(wrong(&format!("more than {} events in one request", self.events_max)))
    }

    /// A CloudEvent as one JSON object, which is valid JSON.
    fn structured(self, event: &[u8], arrived: i64, rows: &mut Rows) -> Result<(), String> {
        let [id, source, version, kind, time, key, content, data, base64] =
            ATTRIBUTES.find(event).map_err(|_| "expected a CloudEvent, an object".to_owned())?;
        let (id, source) = (required("id", id)?, required("source", source)?);
        required("type", kind)?;
        spec_version(&required("specversion", version)?)?;
        let time = optional("time", time)?.map_or(Ok(arrived), |time| micros(&time))?;
        let key = optional("partitionkey", key)?.unwrap_or_default();
        let content = optional("datacontenttype", content)?;
        let event_id = Some(EventId::of(&[b"ce", source.as_bytes(), id.as_bytes()]));
        if data.is_some() && base64.is_some() {
            return Err("`data` and `data_base64` exclude each other".to_owned());
        }
        if self.envelope {
            rows.push(time, key.as_bytes(), &one_line(event), event_id);
            return Ok(());
        }
        let value = match (data, base64) {
            (Some(data), _) if data.kind() == Kind::String && !content.as_deref().is_none_or(is_json) => {
                data.as_str().ok_or("`data` is a string with an escape that means nothing")?.into_owned().into_bytes()
            }
            (Some(data), _) => one_line(data.bytes()).into_owned(),
            (None, Some(_)) => {
                let text = required("data_base64", base64)?;
                STANDARD.decode(text.as_bytes()).map_err(|error| format!("`data_base64`: {error}"))?
            }
            (None, None) => b"null".to_vec(),
        };
        rows.push(time, key.as_bytes(), &value, event_id);
        Ok(())
    }

    /// A CloudEvent whose attributes are headers and whose data is the body.
    fn binary(
        self,
        headers: &HeaderMap,
        media: Option<&str>,
        body: &[u8],
        arrived: i64,
        rows: &mut Rows,
    ) -> Result<(), Refused> {
        let attribute = |name: &str| header(headers, format!("ce-{name}"));
        let required = |name: &str| match attribute(name)? {
            Some(text) if !text.is_empty() && text.len() <= ATTRIBUTE_BYTES_MAX => Ok(text),
            Some(_) => Err(wrong(&format!("header `ce-{name}` is empty or longer than {ATTRIBUTE_BYTES_MAX} bytes"))),
            None => Err(wrong(&format!("header `ce-{name}` is missing"))),
        };
        spec_version(&required("specversion")?).map_err(Refused::Malformed)?;
        let (id, source) = (required("id")?, required("source")?);
        required("type")?;
        let time = attribute("time")?.map_or(Ok(arrived), |time| micros(&time)).map_err(Refused::Malformed)?;
        let key = attribute("partitionkey")?.unwrap_or_default();
        let event_id = Some(EventId::of(&[b"ce", source.as_bytes(), id.as_bytes()]));
        let json = media.is_none_or(is_json) && !body.is_empty();
        if json {
            check(text(body)?)?;
        }
        let value = if self.envelope {
            let mut event = Map::new();
            for name in headers.keys() {
                if let Some(name) = name.as_str().strip_prefix("ce-") {
                    event.insert(name.to_owned(), attribute(name)?.unwrap_or_default().into());
                }
            }
            event.extend(media.map(|media| ("datacontenttype".to_owned(), media.into())));
            let mut line = serde_json::to_vec(&Value::Object(event)).map_err(|error| wrong(&error.to_string()))?;
            if !body.is_empty() {
                line.pop();
                let (name, data) = match (json, std::str::from_utf8(body)) {
                    (true, _) => ("data", one_line(body.trim_ascii()).into_owned()),
                    (false, Ok(text)) => ("data", quoted(text)?),
                    (false, Err(_)) => ("data_base64", quoted(&STANDARD.encode(body))?),
                };
                line.extend_from_slice(format!(",\"{name}\":").as_bytes());
                line.extend_from_slice(&data);
                line.push(b'}');
            }
            line
        } else if json {
            one_line(body.trim_ascii()).into_owned()
        } else {
            body.to_vec()
        };
        rows.push(time, key.as_bytes(), &value, event_id);
        Ok(())
    }
}

/// What the rows of a request without CloudEvents are known by.
struct Names {
    key: Option<Vec<u8>>,
}

impl Names {
    fn new(headers: &HeaderMap) -> Result<Self, Refused> {
        // Taken as it stands: only CloudEvents encode their attributes.
        let key = headers.get(IDEMPOTENCY_KEY).map(|key| key.as_bytes().to_vec());
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > ATTRIBUTE_BYTES_MAX) {
            let reason = format!("header `Idempotency-Key` is empty or longer than {ATTRIBUTE_BYTES_MAX} bytes");
            return Err(Refused::Malformed(reason));
        }
        Ok(Self { key })
    }

    fn id(&self, place: usize) -> Option<EventId> {
        let key = self.key.as_ref()?;
        Some(EventId::of(&[b"key", key, &(place as u64).to_le_bytes()]))
    }
}

fn wrong(reason: &str) -> Refused {
    Refused::Malformed(reason.to_owned())
}

/// The type in front of the parameters. Text is UTF-8 here.
fn media_type(text: &str) -> Result<String, Refused> {
    let mut parts = text.split(';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            return Err(Refused::ContentType(format!("charset {value:?} is not taken; send UTF-8")));
        }
    }
    Ok(media)
}

fn is_json(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

fn text(body: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(body).map_err(|error| {
        let line = 1 + memchr::memchr_iter(b'\n', &body[..error.valid_up_to()]).count();
        wrong(&format!("line {line}: byte {} is not UTF-8", error.valid_up_to()))
    })
}

fn check(text: &str) -> Result<(), Refused> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// What is wrong in a text of one line.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    format!("{reason} at column {}", error.column())
}

fn array(text: &str) -> Option<Raw<'_>> {
    Raw::document(text.as_bytes()).ok().filter(|raw| raw.kind() == Kind::Array)
}

/// JSON without line breaks, so that it stays one line wherever it is written.
pub(super) fn one_line(json: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        return json.into();
    }
    let mut line = Vec::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for &byte in json {
        if inside {
            inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            inside = byte == b'"';
        }
        line.push(byte);
    }
    line.into()
}

fn quoted(text: &str) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(text).map_err(|error| wrong(&error.to_string()))
}

fn required(name: &str, found: Option<Raw<'_>>) -> Result<String, String> {
    match optional(name, found)? {
        Some(text) if !text.is_empty() => Ok(text),
        Some(_) => Err(format!("attribute `{name}` is empty")),
        None => Err(format!("attribute `{name}` is missing")),
    }
}

fn optional(name: &str, found: Option<Raw<'_>>) -> Result<Option<String>, String> {
    let Some(raw) = found.filter(|raw| !raw.is_null()) else { return Ok(None) };
    let text = raw.as_str().ok_or_else(|| format!("attribute `{name}` is no string"))?;
    // Data are bounded by the size of the request.
    if name != "data_base64" && text.len() > ATTRIBUTE_BYTES_MAX {
        return Err(format!("attribute `{name}` is longer than {ATTRIBUTE_BYTES_MAX} bytes"));
    }
    Ok(Some(text.into_owned()))
}

fn spec_version(version: &str) -> Result<(), String> {
    // A caller gets no more back than it needs.
    let shown: String = version.chars().take(TIME_BYTES_MAX).collect();
    if version == "1.0" { Ok(()) } else { Err(format!("`specversion` is {shown:?}, and 1.0 was expected")) }
}

fn micros(text: &str) -> Result<i64, String> {
    if text.len() > TIME_BYTES_MAX {
        return Err(format!("attribute `time` is longer than {TIME_BYTES_MAX} bytes"));
    }
    let time: jiff::Timestamp = text.parse().map_err(|error| format!("attribute `time` {text:?}: {error}"))?;
    Ok(time.as_microsecond())
}

/// A header as text, with what CloudEvents encode with a percent sign.
fn header(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let decoded = percent_decoded(value.as_bytes());
    String::from_utf8(decoded).map(Some).map_err(|_| wrong("a header is not UTF-8"))
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let (b'%', [high, low, behind @ ..]) = (*byte, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high * 16 + low);
            rest = behind;
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
