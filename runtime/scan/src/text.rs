//! Decoding strings.

use std::borrow::Cow;

use crate::word;

/// The text of a string, given what stands between its quotes. `None` where that is not a valid
/// JSON string: a bare quote or control character, an unknown escape, half of a surrogate pair,
/// or bytes that are not UTF-8.
#[inline]
pub(crate) fn decode(inner: &[u8]) -> Option<Cow<'_, str>> {
    match first_not_plain(inner) {
        None => std::str::from_utf8(inner).ok().map(Cow::Borrowed),
        Some(at) => decode_escaped(inner, at).map(Cow::Owned),
    }
}

/// The first byte that does not stand for itself.
#[inline]
pub(crate) fn first_not_plain(inner: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < inner.len() {
        let marks = word::not_plain(word::load(inner, at));
        if marks != 0 {
            let found = at + word::lowest(marks);
            return (found < inner.len()).then_some(found);
        }
        at += 8;
    }
    None
}

#[cold]
fn decode_escaped(inner: &[u8], plain: usize) -> Option<String> {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    let mut plain = Some(plain);
    while let Some(at) = plain {
        let (before, after) = rest.split_at_checked(at)?;
        out.push_str(std::str::from_utf8(before).ok()?);
        let [b'\\', escape, after @ ..] = after else { return None };
        rest = after;
        out.push(match escape {
            b'"' | b'\\' | b'/' => char::from(*escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => unicode(&mut rest)?,
            _ => return None,
        });
        plain = first_not_plain(rest);
    }
    out.push_str(std::str::from_utf8(rest).ok()?);
    Some(out)
}

fn unicode(rest: &mut &[u8]) -> Option<char> {
    let high = hex4(rest)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high);
    }
    *rest = rest.strip_prefix(b"\\u")?;
    let low = hex4(rest)?;
    if !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10 | (low - 0xdc00)))
}

fn hex4(rest: &mut &[u8]) -> Option<u32> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}
