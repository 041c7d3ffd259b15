//! Words of the commands that an operator is told to run: for a shell, and for nft.

/// A word of a command, in quotes where a shell would read it otherwise. What a terminal would act on is escaped in the
/// form that bash, zsh, ksh and busybox read.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@%+:=,/".contains(c);
    if word.chars().all(is_plain) && !word.is_empty() {
        return word.to_owned();
    }
    let is_shown = |c: char| c == ' ' || !(c.is_control() || c.is_whitespace() || is_mark(c));
    if word.chars().all(is_shown) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let escaped = word.chars().map(|c| match c {
        '\'' | '\\' => format!("\\{c}"),
        _ if is_shown(c) => c.to_string(),
        _ => {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.fold(String::new(), |text, byte| text + &format!("\\x{byte:02x}"))
        }
    });
    format!("$'{}'", escaped.collect::<String>())
}

/// Whether it turns the writing direction.
fn is_mark(c: char) -> bool {
    matches!(
        c,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// An interface's name as nft reads it in a rule; `None` where nft has no spelling for it. A star at the end would stand for
/// all names that begin so.
pub fn interface(name: &str) -> Option<String> {
    if name.contains('"') {
        return None;
    }
    Some(match name.strip_suffix('*') {
        Some(start) => format!("\"{start}\\*\""),
        None => format!("\"{name}\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_to_a_shell_whatever_is_in_it() {
        for (word, wanted) in [
            ("ch-egress", "ch-egress"),
            (
                "net.ipv4.conf.br/100.rp_filter=2",
                "net.ipv4.conf.br/100.rp_filter=2",
            ),
            ("", "''"),
            ("e;reboot;", "'e;reboot;'"),
            ("$(x)", "'$(x)'"),
            ("it's", "'it'\\''s'"),
            ("a b", "'a b'"),
            ("e\u{1b}[31m", "$'e\\x1b[31m'"),
            ("a\nreboot", "$'a\\x0areboot'"),
            ("a\u{202e}'\\", "$'a\\xe2\\x80\\xae\\'\\\\'"),
        ] {
            assert_eq!(quoted(word), wanted);
            // The shell reads back what was meant.
            let said = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), word);
        }
    }

    #[test]
    fn an_interface_that_nft_cannot_spell_has_no_rule() {
        assert_eq!(interface("ens3").as_deref(), Some("\"ens3\""));
        assert_eq!(interface("e;x").as_deref(), Some("\"e;x\""));
        assert_eq!(interface("e*").as_deref(), Some("\"e\\*\""));
        assert_eq!(interface("e\"x"), None);
    }
}
