//! Eight bytes at a time: tests that mark the bytes of a word which match.
//!
//! A mark is the top bit of its byte. Only the **lowest** mark is sure to be right (a borrow may
//! set one above it), and the lowest is all that is used.

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

const fn all(byte: u8) -> u64 {
    ONES * byte as u64
}

/// Eight bytes from `at` on, the first lowest; past the end they read as 0.
#[inline(always)]
pub(crate) fn load(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => load_tail(text, at),
    }
}

#[cold]
#[inline(never)]
fn load_tail(text: &[u8], at: usize) -> u64 {
    text.get(at..).unwrap_or_default().iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[inline(always)]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

/// Marks `"` and `\`.
#[inline(always)]
pub(crate) fn quotes(word: u64) -> u64 {
    zeros(word ^ all(b'"')) | zeros(word ^ all(b'\\'))
}

/// Marks `"`, `\` and the control characters that a string may not hold.
#[inline(always)]
pub(crate) fn not_plain(word: u64) -> u64 {
    quotes(word) | word.wrapping_sub(all(0x20)) & !word & TOPS
}

/// Marks `"` and brackets of both kinds.
#[inline(always)]
pub(crate) fn brackets(word: u64) -> u64 {
    let folded = word | all(0x20);
    zeros(word ^ all(b'"')) | zeros(folded ^ all(b'{')) | zeros(folded ^ all(b'}'))
}

/// Marks what ends a number or a literal: `,`, a closing bracket, white space, and any other
/// control character (so also the end of the text).
#[inline(always)]
pub(crate) fn ends(word: u64) -> u64 {
    let folded = word | all(0x20);
    zeros(word ^ all(b',')) | zeros(folded ^ all(b'}')) | word.wrapping_sub(all(0x21)) & !word & TOPS
}

/// Which byte the lowest mark stands for.
#[inline(always)]
pub(crate) fn lowest(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

/// The lowest `count` bytes, fewer than eight of them.
#[inline(always)]
pub(crate) fn keep(word: u64, count: usize) -> u64 {
    word & ((1 << (count * 8)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = (fn(u64) -> u64, fn(u8) -> bool);

    fn first(text: &[u8], test: fn(u64) -> u64) -> Option<usize> {
        let marks = test(load(text, 0));
        (marks != 0).then(|| lowest(marks))
    }

    #[test]
    fn lowest_mark_is_the_first_match_for_every_byte_at_every_place() {
        let tests: [Test; 4] = [
            (quotes, |b| b == b'"' || b == b'\\'),
            (not_plain, |b| b == b'"' || b == b'\\' || b < 0x20),
            (brackets, |b| b"\"[]{}".contains(&b)),
            (ends, |b| b == b',' || b == b'}' || b == b']' || b <= 0x20),
        ];
        for (test, matches) in tests {
            for low in 0..=255 {
                for high in [0, 1, b'!', b'#', b'"', b'a', b'\\', b']', b'[', b'Z', 0x7f, 0x80, 0xa2, 0xff] {
                    for at in 0..7 {
                        let mut text = [b'x'; 8];
                        text[at] = low;
                        text[at + 1] = high;
                        assert_eq!(first(&text, test), text.iter().position(|b| matches(*b)), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn load_reads_zeros_past_the_end() {
        assert_eq!(load(b"abcdefghi", 1), u64::from_le_bytes(*b"bcdefghi"));
        assert_eq!(load(b"abc", 1), u64::from_le_bytes(*b"bc\0\0\0\0\0\0"));
        assert_eq!(load(b"abc", 3), 0);
        assert_eq!(load(b"abc", 99), 0);
    }
}
