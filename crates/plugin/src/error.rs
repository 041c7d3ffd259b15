//! The error of a verb: a CNI error that every error of the libraries becomes by `?`.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

pub use cni::code;

/// A [`cni::Error`], with conversions that `cni` cannot have, as it does not know the other libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(cni::Error);

impl Error {
    /// An error of any code; see [`cni::Error::new`].
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self(cni::Error::new(code, msg))
    }
    /// A field that is refused: `msg` holds key and value.
    pub fn unsupported(msg: impl Into<String>) -> Self {
        Self(cni::Error::unsupported(msg))
    }
    /// Reading, writing, running.
    pub fn io(msg: impl Into<String>) -> Self {
        Self(cni::Error::io(msg))
    }
    /// Not decodable.
    pub fn decode(msg: impl Into<String>) -> Self {
        Self(cni::Error::decode(msg))
    }
    /// Decodable, not acceptable.
    pub fn config(msg: impl Into<String>) -> Self {
        Self(cni::Error::config(msg))
    }
    /// Network namespace.
    pub fn netns(msg: impl Into<String>) -> Self {
        Self(cni::Error::netns(msg))
    }
    /// Try again later.
    pub fn again(msg: impl Into<String>) -> Self {
        Self(cni::Error::again(msg))
    }
    /// STATUS: not ready.
    pub fn not_ready(msg: impl Into<String>) -> Self {
        Self(cni::Error::not_ready(msg))
    }
    /// The same error with `details`.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self(self.0.with_details(details))
    }

    /// A refusal of the kernel.
    #[cfg(feature = "kernel")]
    fn kernel(is_busy: bool, error: &dyn fmt::Display) -> Self {
        let code = if is_busy { code::AGAIN } else { code::KERNEL };
        Self::new(code, error.to_string())
    }
}

impl Deref for Error {
    type Target = cni::Error;

    fn deref(&self) -> &cni::Error {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut cni::Error {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

impl From<cni::Error> for Error {
    fn from(error: cni::Error) -> Self {
        Self(error)
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}

/// A local document or lock that could not be used.
impl From<journal::Error> for Error {
    fn from(error: journal::Error) -> Self {
        match error {
            journal::Error::Busy { .. } => Self::again(error.to_string()),
            journal::Error::Io { .. } | journal::Error::Newer { .. } => Self::io(error.to_string()),
        }
    }
}

#[cfg(feature = "cluster")]
impl From<cluster::Error> for Error {
    fn from(error: cluster::Error) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

/// The code of an error of the shared records.
#[cfg(feature = "cluster")]
pub fn code_of(error: &cluster::Error) -> u32 {
    use cluster::ErrorKind;
    match error.kind() {
        ErrorKind::Again => code::AGAIN,
        ErrorKind::Local => code::IO,
        ErrorKind::Setting => code::CONFIG,
        ErrorKind::Store => code::STORE,
        ErrorKind::Denied => code::DENIED,
        ErrorKind::Differs => code::DIFFERS,
        ErrorKind::Collides => code::COLLIDES,
        ErrorKind::Duplicate => code::DUPLICATE,
        ErrorKind::Exhausted => code::POOL,
        ErrorKind::Address => code::ADDRESS,
        // No plugin removes networks or nodes.
        ErrorKind::Operator => code::INTERNAL,
    }
}

#[cfg(feature = "kernel")]
impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Self {
        Self::kernel(error.is_busy(), &error)
    }
}

#[cfg(feature = "kernel")]
impl From<nft::Error> for Error {
    fn from(error: nft::Error) -> Self {
        Self::kernel(error.is_busy(), &error)
    }
}

/// A namespace that belongs to another mount namespace is a matter of the host's set-up, not a refusal of the kernel.
#[cfg(feature = "kernel")]
impl From<netlink::NetnsError> for Error {
    fn from(error: netlink::NetnsError) -> Self {
        match error {
            netlink::NetnsError::Elsewhere { .. } => Self::new(code::DIFFERS, error.to_string()),
            _ => Self::kernel(error.is_busy(), &error),
        }
    }
}

#[cfg(all(test, feature = "cluster", feature = "kernel"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_busy_is_worth_another_try() {
        let what = || "map ports4".to_owned();
        let refused = |errno| nft::Error::Refused {
            what: what(),
            reason: nft::Reason { errno, text: None },
        };
        let link = |errno| netlink::Error {
            what: what(),
            errno,
            text: String::new(),
        };
        let code = |error: Error| error.code;
        assert_eq!(code(nft::Error::Busy { what: what() }.into()), 11);
        let path = || what().into();
        let waited = std::time::Duration::ZERO;
        assert_eq!(
            code(
                journal::Error::Busy {
                    path: path(),
                    waited
                }
                .into()
            ),
            11
        );
        for errno in [4, 11, 16] {
            let source = std::io::Error::from_raw_os_error(errno);
            let netns = netlink::NetnsError::Io {
                path: path(),
                what: what(),
                source,
            };
            let codes = [refused(errno).into(), link(errno).into(), netns.into()];
            assert_eq!(codes.map(code), [11; 3], "{errno}");
        }
        assert_eq!(code(refused(2).into()), 107);
        assert_eq!(code(link(17).into()), 107);
    }

    #[test]
    fn each_kind_of_error_of_the_records_has_its_code() {
        use cluster::Error as Records;
        let name = || "n".to_owned();
        let (key, why) = (name(), name());
        for (error, code) in [
            (Records::Local(name()), 5),
            (Records::Setting { key, why }, 7),
            (Records::Busy(name()), 11),
            (Records::NoNetwork(name()), 103),
            (Records::Exists(name()), 104),
            (
                Records::Record {
                    key: name(),
                    why: name(),
                },
                105,
            ),
            (
                Records::Exhausted {
                    network: name(),
                    why: name(),
                },
                102,
            ),
            (
                Records::Waiting {
                    network: name(),
                    what: name(),
                    nodes: Vec::new(),
                },
                108,
            ),
        ] {
            assert_eq!(code_of(&error), code, "{error}");
        }
    }
}
