//! Network namespaces.

use std::io;
use std::path::{Path, PathBuf};

/// An open network namespace; holding it keeps the namespace alive.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
}

/// A namespace could not be opened, made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is at the path, or what is there is not a network namespace (a plain file is left after a reboot or an unmount).
    #[error("network namespace {} is gone", path.display())]
    Gone {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("network namespace {}: {what}: {source}", path.display())]
    Io {
        /// The namespace's path.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The code run inside the namespace panicked.
    #[error("network namespace {}: the work inside panicked: {message}", path.display())]
    Panicked {
        /// The namespace's path.
        path: PathBuf,
        /// The panic's text.
        message: String,
    },
}

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, NetnsError> {
        todo!()
    }

    /// Opens the namespace bound at `path` (`/run/netns/x`, `/proc/<pid>/ns/net`).
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        todo!("{path:?}")
    }

    /// Makes the namespace `dir/name`, or opens it if it is there already. Safe against other processes that do the same.
    pub fn create(dir: &Path, name: &str) -> Result<Self, NetnsError> {
        todo!("{dir:?} {name}")
    }

    /// Removes `dir/name`; true if there was something to remove. The kernel tears the namespace down later, when its last user is gone.
    pub fn remove(dir: &Path, name: &str) -> Result<bool, NetnsError> {
        todo!("{dir:?} {name}")
    }

    /// Names of the namespaces in `dir`, sorted; none if `dir` is absent.
    pub fn list(dir: &Path) -> Result<Vec<String>, NetnsError> {
        todo!("{dir:?}")
    }

    /// Where it was opened from, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: equal for two handles exactly if they are the same namespace.
    pub fn id(&self) -> Result<(u64, u64), NetnsError> {
        todo!()
    }

    /// Whether both are the same namespace.
    pub fn same_as(&self, other: &Self) -> Result<bool, NetnsError> {
        Ok(self.id()? == other.id()?)
    }

    /// Runs `f` in the namespace on a thread that ends with it. The calling thread does not move.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let _ = f;
        todo!()
    }

    /// Writes `/proc/sys/<key>` inside the namespace, in order, e.g. `("net/ipv4/ip_forward", "1")`.
    /// A missing `net/ipv6/...` file (IPv6 switched off) counts as written.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), NetnsError> {
        todo!("{settings:?}")
    }
}
