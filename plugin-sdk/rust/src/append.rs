/// Appends bytes to a buffer: the fast way for short ones, such as the parts of a line. A copy of
/// a length that is not known in advance is one instruction in Wasm, and that costs as much as
/// twenty others.
#[inline(always)]
pub fn append(buffer: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() > 64 {
        buffer.extend_from_slice(bytes);
        return;
    }
    let Some((start, last)) = bytes.split_last_chunk::<8>() else { return append_few(buffer, bytes) };
    // Whole words, of which the last but one may reach into the last.
    let end = buffer.len() + start.len();
    for at in (0..start.len()).step_by(8) {
        if let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            buffer.extend_from_slice(word);
        }
    }
    buffer.truncate(end);
    buffer.extend_from_slice(last);
}

/// Fewer than eight bytes: as a word, cut to size.
#[inline(always)]
fn append_few(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let end = buffer.len() + bytes.len();
    let word = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let shift = (bytes.len() - 4) * 8;
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift
        }
        _ => {
            let at = |place: usize| u64::from(bytes.get(place).copied().unwrap_or(0)) << (place * 8);
            at(0) | at(1) | at(2)
        }
    };
    buffer.extend_from_slice(&word.to_le_bytes());
    buffer.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::append;

    #[test]
    fn appends_what_it_is_given_at_every_length() {
        let bytes: Vec<u8> = (1..=200).collect();
        for len in 0..bytes.len() {
            let mut buffer = vec![7; 3];
            append(&mut buffer, &bytes[..len]);
            assert_eq!((&buffer[..3], &buffer[3..]), (&[7; 3][..], &bytes[..len]), "{len}");
        }
    }
}
