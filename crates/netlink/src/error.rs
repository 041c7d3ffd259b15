//! What the kernel refused, said so that an operator can act on it.

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The object and what was tried with it, e.g. `veth ch3f2a91 into /run/netns/x`.
    pub what: String,
    /// The kernel's error number, positive, e.g. 17 for EEXIST.
    pub errno: i32,
    /// The kernel's own sentence (ext-ack), or the errno's usual text if it gave none.
    pub text: String,
}

impl Error {
    /// The object is there already (EEXIST).
    pub fn is_exists(&self) -> bool {
        todo!()
    }

    /// The object is not there (ENODEV, ENOENT, ENXIO, ESRCH, EADDRNOTAVAIL).
    pub fn is_gone(&self) -> bool {
        todo!()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (errno {})", self.what, self.text, self.errno)
    }
}

impl std::error::Error for Error {}
