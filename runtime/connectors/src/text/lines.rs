use memchr::memchr_iter;
use wasmill_contract::BatchLimit;

use super::{RowBuffer, Step, too_long};

/// Moves lines to rows. One carriage return in front of the newline belongs to the newline.
pub(super) fn decode(
    bytes: &[u8],
    offset: u64,
    last: bool,
    blank: bool,
    bytes_max: usize,
    limit: BatchLimit,
    rows: &mut RowBuffer,
) -> (usize, Step) {
    let mut start = 0;
    let tail = (last && bytes.last().is_some_and(|&byte| byte != b'\n')).then_some(bytes.len());
    for newline in memchr_iter(b'\n', bytes).chain(tail) {
        if rows.is_full(limit) {
            return (start, Step::Full);
        }
        let line = &bytes[start..newline];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > bytes_max {
            let end = (newline + 1).min(bytes.len());
            return (end, Step::Bad { bytes: end - start, reason: too_long(bytes_max) });
        }
        if blank || !line.is_empty() {
            rows.push(offset + start as u64, line);
        }
        start = newline + 1;
    }
    (start.min(bytes.len()), if rows.is_full(limit) { Step::Full } else { Step::More })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Format, Patience, RecordReader, Stop, TextFormat};
    use super::*;

    /// The lines of `text` in the plainest way there is.
    fn model(text: &[u8], blank: bool) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Vec::new();
        let mut offset = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            if blank || !content.is_empty() {
                lines.push((offset, content.to_vec()));
            }
            offset += line.len() as u64;
        }
        lines
    }

    /// Gives its bytes in pieces of the given sizes.
    struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

    impl std::io::Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let size = self.1.next().copied().unwrap_or(1).min(into.len()).min(self.0.len());
            into[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_model_whatever_the_blocks_and_limits(
            parts in prop::collection::vec(prop_oneof![Just(b"\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"\r".to_vec()),
                prop::collection::vec(any::<u8>(), 0..20)], 0..60),
            pieces in prop::collection::vec(1_usize..40, 1..8),
            row_limit in 1_usize..10,
            byte_limit in 1_usize..100,
            blank in any::<bool>(),
        ) {
            let text = parts.concat();
            // A byte order mark is a matter of its own.
            prop_assume!(!text.starts_with(b"\xEF\xBB\xBF"));
            let format = if blank { Format::Lines } else { Format::JsonLines };
            let format = TextFormat::new(format, None, None, None, None).expect("valid");
            let mut reader = RecordReader::new(&format, 0);
            let mut input = Pieces(&text, pieces.iter().cycle());
            let limit = BatchLimit { rows: row_limit, bytes: byte_limit };
            let mut rows = RowBuffer::default();
            let mut got = Vec::new();
            loop {
                let stop = reader.fill(&mut input, &mut rows, limit, Patience { last: true, eager: false }).expect("reads from memory");
                let (values, offsets) = rows.take();
                prop_assert!(values.len() <= row_limit);
                let bytes: usize = values.iter().take(values.len().saturating_sub(1)).map(<[u8]>::len).sum();
                prop_assert!(bytes < byte_limit);
                got.extend(offsets.into_iter().zip(values.iter().map(<[u8]>::to_vec)));
                if stop == Stop::Dry {
                    break;
                }
            }
            prop_assert_eq!(reader.position(), text.len() as u64);
            prop_assert_eq!(got, model(&text, blank));
        }
    }
}
