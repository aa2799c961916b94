//! Records of topics and dead letters as JSON, the same on the command line and in the API.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use wasmill_model::{Batch, Clock, LetterSubject, Timestamp};
use wasmill_store::{LetterId, LetterRecord, PositionRecord};

/// Records of a partition, each as an object: what is text as text, what is JSON as JSON, and bytes as
/// base64.
#[must_use]
pub fn envelopes(partition: u32, rows: &Batch) -> Vec<Value> {
    let offsets = rows.lineage().map(|lineage| lineage.offsets.iter()).into_iter().flatten();
    let columns = rows.times().iter().zip(rows.keys().iter()).zip(rows.values().iter());
    let records = offsets.zip(columns).enumerate().map(|(row, (offset, ((time, key), value)))| {
        let mut object = Map::new();
        object.insert("partition".to_owned(), json!(partition));
        object.insert("offset".to_owned(), json!(offset));
        put_row(&mut object, *time, key, value);
        let headers = rows.headers().map(|headers| headers.row(row)).filter(|headers| !headers.is_empty());
        if let Some(headers) = headers {
            object.insert("headers".to_owned(), json!(String::from_utf8_lossy(headers)));
        }
        Value::Object(object)
    });
    records.collect()
}

/// Rows that are to be appended, an object a line, as [`read_envelope`] reads them.
#[must_use]
pub fn lines(rows: &Batch) -> Vec<String> {
    let columns = rows.times().iter().zip(rows.keys().iter()).zip(rows.values().iter());
    let line = |((time, key), value): ((&i64, &[u8]), &[u8])| {
        let mut object = Map::new();
        put_row(&mut object, *time, key, value);
        Value::Object(object).to_string()
    };
    columns.map(line).collect()
}

/// Time, key and value of a row.
pub(crate) fn put_row(object: &mut Map<String, Value>, time: i64, key: &[u8], value: &[u8]) {
    object.insert("time".to_owned(), json!(time));
    match std::str::from_utf8(key) {
        Ok("") => {}
        Ok(text) => drop(object.insert("key".to_owned(), json!(text))),
        Err(_) => drop(object.insert("key_base64".to_owned(), json!(BASE64.encode(key)))),
    }
    let (name, given) = match (serde_json::from_slice::<Value>(value), std::str::from_utf8(value)) {
        // Only where it comes back as it was.
        (Ok(json), _) if json.to_string().as_bytes() == value => ("value", json),
        (_, Ok(text)) => ("text", json!(text)),
        (_, Err(_)) => ("base64", json!(BASE64.encode(value))),
    };
    object.insert(name.to_owned(), given);
}

/// Reads what [`envelopes`] makes: time, key and value. A record without a time is of now.
///
/// # Errors
/// What is wrong, in words.
pub fn read_envelope(object: &Map<String, Value>, now: Timestamp) -> Result<(Timestamp, Vec<u8>, Vec<u8>), String> {
    let (mut time, mut key, mut value) = (now, Vec::new(), Vec::new());
    for (name, given) in object {
        match name.as_str() {
            "value" | "text" | "base64" => value = read_value(name, given)?,
            "key" => {
                key = given.as_str().map_or_else(|| given.to_string().into_bytes(), |text| text.as_bytes().to_vec());
            }
            "key_base64" => key = base64(name, given)?,
            "time" => time = Timestamp(given.as_i64().ok_or("`time` is microseconds since the Unix epoch")?),
            // Where a record stood is of no matter here.
            "partition" | "offset" => {}
            other => return Err(format!("`{other}` is none of value, text, base64, key, key_base64, time")),
        }
    }
    Ok((time, key, value))
}

/// The value of one of [`envelopes`]; nothing where it is none.
#[must_use]
pub fn value(record: &Value) -> Vec<u8> {
    let named = |name: &str| record.get(name).map(|given| read_value(name, given).unwrap_or_default());
    ["value", "text", "base64"].into_iter().find_map(named).unwrap_or_default()
}

/// A value as its name says it is given.
fn read_value(name: &str, given: &Value) -> Result<Vec<u8>, String> {
    match name {
        "value" => Ok(given.to_string().into_bytes()),
        "text" => Ok(given.as_str().ok_or("`text` is a string")?.as_bytes().to_vec()),
        _ => base64(name, given),
    }
}

fn base64(name: &str, given: &Value) -> Result<Vec<u8>, String> {
    let bytes = given.as_str().and_then(|text| BASE64.decode(text).ok());
    bytes.ok_or_else(|| format!("`{name}` is base64"))
}

/// The offset of a row in its partition.
#[must_use]
pub fn offset(origin: &PositionRecord) -> Option<u64> {
    origin.position.0[..].try_into().ok().map(u64::from_le_bytes)
}

/// A dead letter. Keys that scripts may rely on.
#[must_use]
pub fn letter_json(id: LetterId, letter: &LetterRecord, to_be_replayed: bool) -> Value {
    let mut value = json!({
        "id": id.0,
        "node": letter.node,
        "subject": letter.subject.name(),
        "port": match letter.subject {
            LetterSubject::Row { port } => Some(port),
            _ => None,
        },
        "clock": match letter.subject {
            LetterSubject::Timer(Clock::Event) => Some("event"),
            LetterSubject::Timer(Clock::Processing) => Some("processing"),
            _ => None,
        },
        "kind": letter.kind,
        "reason": letter.reason,
        "stack": letter.stack,
        "plugin": letter.digest.map(|digest| digest.to_string()),
        "epoch": letter.epoch,
        "time": Timestamp(letter.time).to_string(),
        "source": letter.origin.as_ref().map(|origin| &origin.node),
        "partition": letter.origin.as_ref().map(|origin| origin.partition.0),
        "offset": letter.origin.as_ref().and_then(offset),
        "to_be_replayed": to_be_replayed,
    });
    for (name, bytes) in [("key", &letter.key), ("value", &letter.value)] {
        match std::str::from_utf8(bytes) {
            Ok(text) => value[name] = text.into(),
            Err(_) => value[format!("{name}_base64")] = BASE64.encode(bytes).into(),
        }
    }
    value
}
