//! The error of a verb: a CNI error that every error of the libraries becomes by `?`.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// The plugins' own error codes (`docs/errors.md`); those of the shared records are in `cluster::Error::code`.
pub mod code {
    /// The attachment exists already.
    pub const DUPLICATE: u32 = 100;
    /// The interface name is taken in the container.
    pub const IFNAME: u32 = 101;
    /// No address is left.
    pub const POOL: u32 = 102;
    /// The network or the host is set up differently.
    pub const DIFFERS: u32 = 103;
    /// The kernel refused.
    pub const KERNEL: u32 = 107;
    /// CHECK found a deviation.
    pub const DEVIATION: u32 = 110;
    /// A port belongs to another container, a program of this host listens on it, or none is free.
    pub const PORT: u32 = 111;
    /// The container has no address of the IP version that a port is wanted for.
    pub const FAMILY: u32 = 112;
}

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
        let code = if is_busy {
            cni::code::AGAIN
        } else {
            code::KERNEL
        };
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
        Self::new(error.code(), error.to_string())
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

#[cfg(all(test, feature = "kernel"))]
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
}
