//! What an operator calls a container: by its name, as far as its runtime told one, or by the beginning of its id.

/// Characters of an id that a table shows.
const SHORT: usize = 12;

/// The part of a container id that tells it from others: containerd's clients and cnitool put a word before it (`default-`, `cnitool-`).
fn distinct(id: &str) -> &str {
    let (_, rest) = id.rsplit_once('-').unwrap_or(("", id));
    let is_hex = rest.len() >= 20 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { rest } else { id }
}

/// A container id as a table shows it: its first 12 characters, as runtimes do; all of it if `whole`.
pub fn shown(id: &str, whole: bool) -> String {
    if whole {
        return id.to_owned();
    }
    distinct(id).chars().take(SHORT).collect()
}

/// Whether `typed` means the container of this id and this name: it is the name, or the beginning of the id with or without the
/// word before it.
pub fn is_called(typed: &str, id: &str, name: Option<&str>) -> bool {
    let begins = |text: &str| !typed.is_empty() && text.starts_with(typed);
    name == Some(typed) || begins(id) || begins(distinct(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn ids_are_shown_as_their_runtimes_do() {
        let nerdctl = format!("default-{HEX}");
        let odd = format!("a-b-{HEX}");
        for (id, short) in [
            (HEX, "0123456789ab"),
            (&nerdctl, "0123456789ab"),
            (&odd, "0123456789ab"),
            ("cnitool-77383ca0a0715733ca6f", "77383ca0a071"),
            ("0f0e0d0c-1111-2222-3333-444455556666", "0f0e0d0c-111"),
            ("web-1", "web-1"),
            ("größer-als-zwölf", "größer-als-z"),
        ] {
            assert_eq!(shown(id, false), short);
            assert_eq!(shown(id, true), id);
            assert!(is_called(short, id, None), "{short} is {id}");
            assert!(is_called(id, id, None));
        }
    }

    #[test]
    fn a_container_is_called_by_its_name_or_the_beginning_of_its_id() {
        let id = format!("default-{HEX}");
        for (typed, is) in [
            ("web", true),
            ("0123", true),
            ("default-01", true),
            ("we", false),
            ("123", false),
            ("", false),
        ] {
            assert_eq!(is_called(typed, &id, Some("web")), is, "{typed}");
        }
    }
}
