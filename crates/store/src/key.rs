//! Names in the store. A key must mean the same in a Consul URL, in a JSON document and as a file path. So its alphabet is what needs
//! no quoting in any of them: a checked key is never escaped, folded or normalised.

use std::fmt;

use crate::Error;

/// Longest key in bytes.
pub const MAX_KEY: usize = 512;

/// Longest part of a key's path in bytes: a file name (255) less the one-byte suffix of the `dir` backend; a DNS name (253) still fits.
pub const MAX_PART: usize = 254;

/// A checked key: path parts of `[A-Za-z0-9._:+-]`, neither `.` nor `..`, joined by `/`; at most [`MAX_KEY`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks `key` and takes it; [`Error::BadKey`] says which rule it breaks.
    pub fn new(key: impl Into<String>) -> Result<Self, Error> {
        let key = key.into();
        if let Err(why) = check(&key, &key) {
            return Err(Error::BadKey(format!("{key:?}: {why}")));
        }
        Ok(Self(key))
    }

    /// The key one `part` further down (a `part` with `/` in it goes down further).
    pub fn join(&self, part: &str) -> Result<Self, Error> {
        let mut key = String::with_capacity(self.0.len() + 1 + part.len());
        key.extend([&self.0, "/", part]);
        // `self` is checked already.
        if let Err(why) = check(&key, part) {
            return Err(Error::BadKey(format!("{key:?}: {why}")));
        }
        Ok(Self(key))
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// All but the last part, if it has more than one.
    pub fn folder(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(folder, _)| folder)
    }

    /// Whether this is `prefix` itself or a key below it: `a/b` covers `a/b` and `a/b/c`, not `a/bc`.
    pub fn is_within(&self, prefix: &Self) -> bool {
        match self.0.strip_prefix(prefix.as_str()) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

/// Which rule `key` breaks, by its length or in `parts`, its end.
fn check(key: &str, parts: &str) -> Result<(), String> {
    if key.len() > MAX_KEY {
        return Err(format!("{} bytes, at most {MAX_KEY}", key.len()));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:+-".contains(&b);
    for part in parts.split('/') {
        match part {
            "" => return Err("an empty path part".into()),
            "." | ".." => return Err(format!("the path part {part:?}")),
            _ if part.len() > MAX_PART => {
                let length = part.len();
                return Err(format!("a path part of {length} bytes, at most {MAX_PART}"));
            }
            _ if part.bytes().all(plain) => {}
            _ => {
                let other = part.chars().find(|c| !u8::try_from(*c).is_ok_and(plain));
                let other = other.unwrap_or_default();
                return Err(format!("{other:?} is not of [A-Za-z0-9._:+-]"));
            }
        }
    }
    Ok(())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_keys_are_refused_with_the_reason() {
        for (key, why) in [
            ("", "empty path part"),
            ("/a", "empty path part"),
            ("a/", "empty path part"),
            ("a//b", "empty path part"),
            ("a/./b", "the path part"),
            ("../etc/passwd", "the path part"),
            ("a b", "' '"),
            ("a?b", "'?'"),
            ("a=b", "'='"),
            ("a%2Fb", "'%'"),
            ("naïve", "'ï'"),
            ("a\0", "'\\0'"),
            (&"a".repeat(MAX_PART + 1), "a path part of 255 bytes"),
            (&["abcdefgh"; 58].join("/"), ", at most 512"),
        ] {
            let error = Key::new(key).expect_err(key).to_string();
            assert!(error.contains(why), "{key:?}: {error}");
        }
    }

    #[test]
    fn good_keys_come_back_unchanged() {
        for key in [
            "a",
            "crosshost/v1/leases/ov_net1/10.0.0.2",
            "n/fd00::1",
            "x/..a/b+c:d",
        ] {
            assert_eq!(Key::new(key).expect(key).as_str(), key);
        }
        let key = Key::new("a/b").expect("good").join("c.d").expect("good");
        assert_eq!((key.as_str(), key.last()), ("a/b/c.d", "c.d"));
        assert!(key.join("../x").is_err());
    }

    #[test]
    fn a_prefix_covers_whole_parts_only() {
        let key = |text: &str| Key::new(text).expect("good");
        assert!(key("a/b").is_within(&key("a/b")));
        assert!(key("a/b/c").is_within(&key("a/b")));
        assert!(!key("a/bc").is_within(&key("a/b")));
        assert!(!key("a").is_within(&key("a/b")));
    }

    proptest! {
        /// Whatever passes needs no quoting in a URL path and cannot leave a directory.
        #[test]
        fn what_passes_is_plain(text in ".{0,40}") {
            if let Ok(key) = Key::new(text.as_str()) {
                prop_assert!(key.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"%?#\"\\&= ".contains(&b)));
                prop_assert!(key.as_str().split('/').all(|s| !s.is_empty() && s != "." && s != ".."));
            }
        }
    }
}
