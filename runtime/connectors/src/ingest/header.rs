//! What a header of the ingest topic says of its row. `docs/formats.md` has the bytes.

use super::EventId;

/// The row is an event with an id.
const EVENT: u8 = 1;
/// The row is no event.
const BAD: u8 = 2;
/// Bytes of the header of an event with an id.
pub(super) const EVENT_BYTES: usize = 25;

/// Appends the header of an event that came at `now`, in microseconds since the Unix epoch.
pub(super) fn event(id: EventId, now: i64, into: &mut Vec<u8>) {
    into.push(EVENT);
    into.extend(id.0);
    into.extend(now.to_le_bytes());
}

/// The header of a row that cannot be an event.
pub(super) fn bad(reason: &str) -> Vec<u8> {
    [&[BAD], reason.as_bytes()].concat()
}

/// The id that a header holds, and when it came.
pub(super) fn id_of(header: &[u8]) -> Option<(EventId, i64)> {
    let (kind, rest) = header.split_first()?;
    let (id, time) = rest.split_first_chunk()?;
    (*kind == EVENT).then_some((EventId(*id), i64::from_le_bytes(time.try_into().ok()?)))
}

/// Why a row cannot be an event.
pub(super) fn reason_of(header: &[u8]) -> Option<String> {
    let (kind, reason) = header.split_first()?;
    (*kind == BAD).then(|| String::from_utf8_lossy(reason).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_headers_are_what_is_documented() {
        let id = EventId(std::array::from_fn(|place| place as u8));
        let mut header = Vec::new();
        event(id, 0x0102_0304_0506_0708, &mut header);
        assert_eq!(hex::encode(&header), "01000102030405060708090a0b0c0d0e0f0807060504030201");
        assert_eq!(header.len(), EVENT_BYTES);
        assert_eq!(id_of(&header), Some((id, 0x0102_0304_0506_0708)));
        assert_eq!(hex::encode(bad("no JSON")), "026e6f204a534f4e");
        assert_eq!(reason_of(&bad("no JSON")).as_deref(), Some("no JSON"));
    }

    #[test]
    fn the_digest_of_names_is_what_it_has_always_been() {
        assert_eq!(hex::encode(EventId::of(&[b"ce", b"sensors", b"42"]).0), "54d066ca32cfb5ef1156d21c7d727ab0");
    }

    #[test]
    fn a_header_of_another_kind_or_length_says_nothing() {
        for header in [&b""[..], &[EVENT], &[EVENT; 24], &[EVENT; 26], &[3; 25]] {
            assert_eq!(id_of(header), None);
            assert_eq!(reason_of(header), None);
        }
        assert_eq!(id_of(&bad("x")), None);
        assert_eq!(reason_of(&[BAD, 0xff]).as_deref(), Some("\u{fffd}"), "text is shown, whatever it holds");
    }
}
