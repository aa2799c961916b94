//! Jumping over values.

use crate::{Kind, ScanError, word};

/// How deep values may be nested, the outermost one included.
pub const DEPTH_MAX: u32 = 128;

/// The first place from `at` on that is not white space.
#[inline(always)]
pub(crate) fn skip_space(text: &[u8], at: usize) -> usize {
    match text.get(at) {
        // Most JSON between machines has none.
        Some(byte) if *byte > b' ' => at,
        _ => skip_some_space(text, at),
    }
}

#[inline(never)]
fn skip_some_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// The place behind the closing quote of a string whose content starts at `at`.
#[inline(always)]
pub(crate) fn string_end(text: &[u8], at: usize) -> Result<usize, ScanError> {
    // Most strings are short, and a call costs more than they do.
    let marks = word::quotes(word::load(text, at));
    if marks == 0 {
        return long_string_end(text, at + 8);
    }
    let at = at + word::lowest(marks);
    if text.get(at) == Some(&b'"') { Ok(at + 1) } else { long_string_end(text, at) }
}

/// As [`string_end`], sixteen bytes or more at a time.
#[inline(never)]
fn long_string_end(text: &[u8], mut at: usize) -> Result<usize, ScanError> {
    loop {
        match text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            None => return Err(ScanError::expected(text, text.len(), "a closing quote")),
            Some(found) if text.get(at + found) == Some(&b'"') => return Ok(at + found + 1),
            // An escape: the character behind the backslash is never the end.
            Some(found) => at += found + 2,
        }
    }
}

/// The place behind the value that starts at `at`, and what kind it is.
#[inline(always)]
pub(crate) fn value_end(text: &[u8], at: usize) -> Result<(usize, Kind), ScanError> {
    match text.get(at) {
        Some(b'"') => Ok((string_end(text, at + 1)?, Kind::String)),
        Some(b'-' | b'0'..=b'9') => Ok((scalar_end(text, at + 1), Kind::Number)),
        _ => value_end_other(text, at),
    }
}

fn value_end_other(text: &[u8], at: usize) -> Result<(usize, Kind), ScanError> {
    let (literal, kind) = match text.get(at) {
        Some(b'{') => return Ok((container_end(text, at)?, Kind::Object)),
        Some(b'[') => return Ok((container_end(text, at)?, Kind::Array)),
        Some(b't') => ("true", Kind::Bool),
        Some(b'f') => ("false", Kind::Bool),
        Some(b'n') => ("null", Kind::Null),
        _ => return Err(ScanError::expected(text, at, "a value")),
    };
    let end = scalar_end(text, at);
    if text.get(at..end) == Some(literal.as_bytes()) {
        Ok((end, kind))
    } else {
        Err(ScanError::expected(text, at, "true, false or null"))
    }
}

#[inline(always)]
fn scalar_end(text: &[u8], mut at: usize) -> usize {
    loop {
        let marks = word::ends(word::load(text, at));
        if marks != 0 {
            return (at + word::lowest(marks)).min(text.len());
        }
        at += 8;
    }
}

/// Brackets are counted, not matched by kind: a scan is not a validation.
fn container_end(text: &[u8], mut at: usize) -> Result<usize, ScanError> {
    let mut depth = 0u32;
    loop {
        let marks = word::brackets(word::load(text, at));
        if marks == 0 {
            at += 8;
            if at >= text.len() {
                return Err(ScanError::expected(text, text.len(), "a closing bracket"));
            }
            continue;
        }
        at += word::lowest(marks);
        match text.get(at) {
            Some(b'"') => at = string_end(text, at + 1)?,
            Some(b'{' | b'[') => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(ScanError::too_deep(at));
                }
                at += 1;
            }
            _ => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
    }
}

/// A key of an object as it stands between its quotes.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    /// The bytes between the quotes.
    pub(crate) bytes: &'a [u8],
    /// The first eight of them, the first lowest, filled up with zeros.
    pub(crate) head: u64,
    pub(crate) escaped: bool,
}

/// Reads a key and its colon: the key and the place of its value. `at` is the opening quote.
#[inline(always)]
pub(crate) fn read_key(text: &[u8], at: usize) -> Result<(Key<'_>, usize), ScanError> {
    if text.get(at) != Some(&b'"') {
        return Err(ScanError::expected(text, at, "a key in quotes"));
    }
    let start = at + 1;
    let first = word::load(text, start);
    let marks = word::quotes(first);
    let (end, head) = if marks != 0 && text.get(start + word::lowest(marks)) == Some(&b'"') {
        let count = word::lowest(marks);
        (start + count + 1, word::keep(first, count))
    } else {
        (string_end(text, start)?, first)
    };
    let bytes = text.get(start..end - 1).unwrap_or_default();
    // A short key without escapes ends at its first mark; all others are looked at once more.
    let escaped = (marks == 0 || text.get(start + word::lowest(marks)) == Some(&b'\\')) && bytes.contains(&b'\\');
    let colon = skip_space(text, end);
    if text.get(colon) != Some(&b':') {
        return Err(ScanError::expected(text, colon, "a colon"));
    }
    Ok((Key { bytes, head, escaped }, skip_space(text, colon + 1)))
}

/// What follows a member: the place of the next one, or `None` behind the closing bracket.
#[inline(always)]
pub(crate) fn next_member(text: &[u8], at: usize, close: u8) -> Result<Option<usize>, ScanError> {
    let at = skip_space(text, at);
    match text.get(at) {
        Some(b',') => Ok(Some(skip_space(text, at + 1))),
        Some(byte) if *byte == close => Ok(None),
        _ => Err(ScanError::expected(text, at, if close == b'}' { "a comma or }" } else { "a comma or ]" })),
    }
}

/// The place of the first member of the container that opens at `at`, `None` where it is empty.
#[inline(always)]
pub(crate) fn first_member(text: &[u8], at: usize, close: u8) -> Option<usize> {
    let at = skip_space(text, at + 1);
    (text.get(at) != Some(&close)).then_some(at)
}
