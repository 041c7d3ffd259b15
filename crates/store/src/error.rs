//! Errors of a store, sorted by what a caller can do: try again later ([`Error::is_away`]), or report it to the operator. Each message
//! has the store's URL, which never contains a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A store's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: refused, no route, name unknown, or cut off.
    #[error("store {url} cannot be reached: {cause}")]
    Unreachable {
        /// The store.
        url: String,
        /// What the operating system said, and when.
        cause: String,
    },
    /// There was no answer in time, or the retry budget of the verb is used up.
    #[error("store {url} did not answer within {after:.1?}: {cause}")]
    Timeout {
        /// The store.
        url: String,
        /// How long the operation waited.
        after: Duration,
        /// What it waited for.
        cause: String,
    },
    /// The store answers that it cannot serve now: no leader, an election, overload (HTTP 429 and 5xx).
    #[error("store {url} cannot serve now: {what}")]
    NoLeader {
        /// The store.
        url: String,
        /// The store's own words.
        what: String,
    },
    /// The token lacks the right (HTTP 403); `what` names the key.
    #[error("store {url} denies {what}")]
    Denied {
        /// The store.
        url: String,
        /// What was denied, in the store's words, and the key.
        what: String,
    },
    /// An answer is not understood: something else than such a store listens there.
    #[error("store {url} gave an answer that is not understood: {what}")]
    Garbage {
        /// The store.
        url: String,
        /// What was expected, and what came.
        what: String,
    },
    /// TLS failed: a certificate, a name, a protocol.
    #[error("store {url}: TLS: {cause}")]
    Tls {
        /// The store.
        url: String,
        /// What the TLS library said.
        cause: String,
    },
    /// More than the store accepts; nothing was sent.
    #[error("{what}: {size} is more than {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A key outside the alphabet, or one named twice in a transaction.
    #[error("bad key {0}")]
    BadKey(String),
    /// A store URL that cannot be used.
    #[error("bad store URL {url:?}: {why}")]
    BadUrl {
        /// The URL, without user and password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A setting other than the URL that cannot be used: token, certificate, key.
    #[error("store {url}: {what}: {why}")]
    BadSetting {
        /// The store.
        url: String,
        /// The setting, with the file's name if it is one; never its content.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file of the `dir` store.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// Whether the store is away or busy, so that the same call may succeed later.
    pub fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::NoLeader { .. }
        )
    }
}
