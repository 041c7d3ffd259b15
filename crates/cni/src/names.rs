//! Names from outside: container, interface, network. They become parts of paths, kernel objects and store keys, so each has a
//! type that only a checked name can have.

use serde::{Deserialize, Serialize};

/// A text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {why}")]
pub struct BadName {
    what: &'static str,
    value: String,
    why: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `value`.
            pub fn new(value: impl Into<String>) -> Result<Self, BadName> {
                let value = value.into();
                match $check(&value) {
                    None => Ok(Self(value)),
                    Some(why) => Err(BadName { what: $what, value, why }),
                }
            }
            /// As given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(value: String) -> Result<Self, BadName> {
                Self::new(value)
            }
        }
        impl std::str::FromStr for $type {
            type Err = BadName;
            fn from_str(value: &str) -> Result<Self, BadName> {
                Self::new(value)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// `CNI_CONTAINERID`: a letter or digit, then letters, digits, `_`, `.`, `-`; at most 255 bytes.
    ContainerId, "container ID", identifier
);
name!(
    /// `name` of the network configuration: same form as a container ID, at most [`NetworkName::LONGEST`] bytes.
    NetworkName, "network name", network
);
name!(
    /// `CNI_IFNAME`: what Linux takes as an interface name (1 to 15 bytes; `dev_valid_name` in net/core/dev.c).
    IfName, "interface name", interface
);

/// Longest identifier: a file may be named after it, and the specification has no limit of its own.
const MAX_IDENTIFIER: usize = 255;

impl NetworkName {
    /// Longest name in bytes: the lock `network-NAME` must fit into a file name.
    pub const LONGEST: usize = MAX_IDENTIFIER - "network-".len();

    /// For the verbs that remove: a plugin that names no file after a network may have made something for a longer name.
    pub(crate) fn of_removal(value: String) -> Result<Self, BadName> {
        let name = ContainerId::new(value);
        name.map(|name| Self(name.0)).map_err(|bad| BadName {
            what: "network name",
            ..bad
        })
    }

    /// Whether it is too long for a file name, so that a plugin that names files after networks never made anything for it.
    pub fn is_too_long(&self) -> bool {
        self.0.len() > Self::LONGEST
    }
}

/// Why `s` is no network name.
fn network(s: &str) -> Option<&'static str> {
    let too_long = "must not be longer than 247 bytes, because files are named after it";
    identifier(s).or_else(|| (s.len() > NetworkName::LONGEST).then_some(too_long))
}

/// Why `s` is no identifier (the reference's `ValidateContainerID` and `ValidateNetworkName`).
fn identifier(s: &str) -> Option<&'static str> {
    let Some(first) = s.chars().next() else {
        return Some("must not be empty");
    };
    if s.len() > MAX_IDENTIFIER {
        return Some("must not be longer than 255 bytes");
    }
    if !first.is_ascii_alphanumeric() {
        return Some("must start with a letter or a digit");
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!s.chars().all(inner)).then_some("may hold only letters, digits, '_', '.' and '-'")
}

/// Why `s` is no interface name.
fn interface(s: &str) -> Option<&'static str> {
    if s.is_empty() {
        return Some("must not be empty");
    }
    if s.len() > 15 {
        return Some("must not be longer than 15 bytes");
    }
    if s == "." || s == ".." {
        return Some("must not be \".\" or \"..\"");
    }
    // The kernel uses these itself: settings of all interfaces, of future ones, and a number that it fills in.
    if s == "all" || s == "default" || s.contains('%') {
        return Some("must not be \"all\" or \"default\", nor hold '%'");
    }
    let outer = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    s.chars()
        .any(outer)
        .then_some("must not hold '/', ':', white space or control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        let long = "a".repeat(255);
        for good in ["a", "0", "default-0123456789abcdef", "A_b.c-", &long] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
            assert!(NetworkName::of_removal(good.to_owned()).is_ok(), "{good}");
        }
        let longer = "a".repeat(256);
        for bad in [
            "", "-a", ".", "..", "_x", "a/b", "a b", "a\n", "\u{e9}", "a\0", &longer,
        ] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
            assert!(NetworkName::new(bad).is_err(), "{bad:?}");
            assert!(NetworkName::of_removal(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_network_may_have_a_name_that_files_can_have() {
        assert_eq!(NetworkName::LONGEST, 247);
        assert!(NetworkName::new("a".repeat(247)).is_ok_and(|name| !name.is_too_long()));
        let longer = NetworkName::new("a".repeat(248)).map_err(|error| error.to_string());
        assert!(longer.is_err_and(|why| why.contains("longer than 247 bytes")));
        let removed = NetworkName::of_removal("a".repeat(248));
        assert!(removed.is_ok_and(|name| name.is_too_long()));
    }

    #[test]
    fn interface_names() {
        for good in ["e", "eth0", "123456789012345", "...", "veth@if3", "\u{e9}"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\0",
            "1234567890123456",
            "eth%d",
            "all",
            "default",
        ] {
            assert!(IfName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_message_has_the_value() {
        let text = IfName::new("a/b").map_err(|e| e.to_string());
        assert_eq!(
            text,
            Err(
                "interface name \"a/b\": must not hold '/', ':', white space or control characters"
                    .into()
            )
        );
    }

    #[test]
    fn checked_when_read_too() {
        assert!(serde_json::from_str::<ContainerId>("\"../x\"").is_err());
        let id: ContainerId = serde_json::from_str("\"x1\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"x1\"");
    }
}
