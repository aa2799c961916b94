//! Results as JSON.

use std::io::Write as _;

use jaq_json::Val;

/// Writes a result as JSON.
pub fn write(value: &Val, out: &mut Vec<u8>) {
    match value {
        Val::TStr(text) if is_plain(text) => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Val::Obj(members) => {
            out.push(b'{');
            for (at, (key, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(key, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        // To memory it does not fail.
        value => drop(write!(out, "{value}")),
    }
}

/// Whether a string stands in JSON as it is.
fn is_plain(text: &[u8]) -> bool {
    let escaped = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f);
    !text.iter().any(escaped) && std::str::from_utf8(text).is_ok()
}
