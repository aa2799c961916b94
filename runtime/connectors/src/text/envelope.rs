//! Events as JSON objects, a line each.

use serde::de::IgnoredAny;
use wasmill_contract::SinkCapabilities;
use wasmill_model::{Batch, Visibility};

/// What a sink of lines can do.
pub(crate) fn enveloped(envelope: bool, visibility: Visibility) -> SinkCapabilities {
    if envelope {
        return SinkCapabilities::retract(visibility);
    }
    let more_changes = Some("write envelope = true in this sink, whose lines then say what each is");
    SinkCapabilities { more_changes, ..SinkCapabilities::append(visibility) }
}

/// What is written around a value, besides key and time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope {
    /// The plugin that made the row.
    pub(crate) plugin: bool,
}

/// Appends each event as a JSON object. A value that is no JSON becomes a string.
pub(crate) fn write_envelopes(out: &mut Vec<u8>, batch: &Batch, envelope: Envelope) {
    // Rows in a row have one maker.
    let (mut maker, mut end) = (None, if envelope.plugin { ",\"plugin\":null}\n" } else { "}\n" }.to_owned());
    let rows = batch.keys().iter().zip(batch.times().iter()).zip(batch.values().iter());
    for (row, ((key, time), value)) in rows.enumerate() {
        out.extend_from_slice(b"{\"key\":");
        write_json(out, &String::from_utf8_lossy(key));
        out.extend_from_slice(b",\"time\":");
        write_json(out, time);
        if let Some(kinds) = batch.kinds() {
            out.extend_from_slice(b",\"pane\":");
            write_json(out, &kinds[row].name());
        }
        out.extend_from_slice(b",\"value\":");
        if serde_json::from_slice::<IgnoredAny>(value).is_ok() {
            // In valid JSON a newline is white space.
            out.extend(value.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        } else {
            write_json(out, &String::from_utf8_lossy(value));
        }
        let made_by = batch.maker(row).filter(|_| envelope.plugin);
        if made_by != maker {
            maker = made_by;
            end =
                maker.map_or_else(|| ",\"plugin\":null}\n".to_owned(), |maker| format!(",\"plugin\":\"{maker}\"}}\n"));
        }
        out.extend_from_slice(end.as_bytes());
    }
}

fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("plain data is written to memory without fail");
}
