//! Text from a guest, made safe for logs, terminals and people.

use std::fmt::Write as _;

/// The same text with control characters and marks that reorder text escaped, cut to about
/// `bytes_max` bytes.
pub(crate) fn clean(mut text: String, bytes_max: usize) -> String {
    let cut = text.len() > bytes_max;
    if cut {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    if text.chars().any(is_unsafe) {
        let mut escaped = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            if !is_unsafe(c) {
                escaped.push(c);
            } else if write!(escaped, "{}", c.escape_default()).is_err() {
                break;
            }
        }
        text = escaped;
    }
    if cut {
        text.push('…');
    }
    text
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn control_characters_are_escaped_and_long_text_is_cut_at_a_character() {
        assert_eq!(clean("plain ünïcode".into(), 100), "plain ünïcode");
        assert_eq!(clean("a\x1b[31mred\nforged".into(), 100), "a\\u{1b}[31mred\\nforged");
        assert_eq!(clean("\u{202e}evil".into(), 100), "\\u{202e}evil");
        assert_eq!(clean("äöü".into(), 3), "ä…");
    }
}
