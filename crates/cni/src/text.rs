//! Text for a terminal. Names come from the store, the kernel and files of other programs. Any of them may contain an escape
//! sequence, a line feed that forges a row, or a mark that turns the writing direction.

use std::borrow::Cow;

/// Longest message, in bytes.
pub const LONGEST: usize = 2048;

/// `text` with everything escaped that a terminal acts on: control characters (C0, DEL, C1), line ends, and the marks that turn
/// the writing direction.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| match c {
        _ if acts(c) => c.escape_default().to_string(),
        _ => c.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// The same for each line of a text.
pub fn plain_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(plain).collect();
    lines.join("\n")
}

/// `text` as one plain line of at most [`LONGEST`] bytes, whatever it quotes.
pub fn line(text: impl Into<String>) -> String {
    let text = text.into();
    let mut text = match plain(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    };
    if text.len() > LONGEST {
        const GAP: &str = " ... ";
        let half = (LONGEST - GAP.len()) / 2;
        let end = text.floor_char_boundary(half);
        let rest = text.ceil_char_boundary(text.len() - half);
        text.replace_range(end..rest, GAP);
    }
    text
}

/// Whether this character changes how a terminal shows other text.
pub fn acts(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped_and_all_else_stays() {
        for (text, shown) in [
            ("ov_net1", "ov_net1"),
            ("größe €", "größe €"),
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{7f}\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            (
                "a\u{202e}b\u{2066}c\u{200f}",
                "a\\u{202e}b\\u{2066}c\\u{200f}",
            ),
            ("a\u{2028}b", "a\\u{2028}b"),
        ] {
            assert_eq!(plain(text), shown);
        }
        assert_eq!(plain_lines("a\u{1b}b\nc\u{9b}\n"), "a\\u{1b}b\nc\\u{9b}\n");
    }

    #[test]
    fn a_line_has_a_bounded_length() {
        let long = line("ä".repeat(2000));
        assert!(long.len() <= LONGEST && long.contains("ä ... ä"), "{long}");
    }
}
