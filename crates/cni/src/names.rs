//! Names that come from outside, checked once: container, interface, network. They end up in paths, kernel objects and
//! store keys, so nothing unchecked may pass as one of them.

use serde::{Deserialize, Serialize};

/// A name that is not one.
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
    /// `name` of the network configuration: same form as a container ID.
    NetworkName, "network name", identifier
);
name!(
    /// `CNI_IFNAME`: what Linux takes as an interface name (1 to 15 bytes; `dev_valid_name` in net/core/dev.c).
    IfName, "interface name", interface
);

/// Why `s` is no identifier.
fn identifier(_s: &str) -> Option<&'static str> {
    todo!()
}

/// Why `s` is no interface name.
fn interface(_s: &str) -> Option<&'static str> {
    todo!()
}
