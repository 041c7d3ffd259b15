//! The only way to write: a list of conditional operations, which happen all or not at all. The conditions are evaluated here for the
//! backends that do not evaluate them themselves, so that backends cannot differ.

use std::collections::HashSet;

use crate::{Error, Key};

/// Largest number of operations in one transaction: the limit of Consul 1.8.
pub const MAX_OPS: usize = 64;

/// Largest value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;

/// Largest sum of all keys and values of one transaction, in bytes. Consul's limit is a request of 512 KiB, with values in base64.
pub const MAX_BYTES: usize = 320 * 1024;

/// One conditional operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write a key that is absent.
    Create {
        /// The key.
        key: Key,
        /// Its value.
        value: Vec<u8>,
    },
    /// Overwrite a key that is present with this revision.
    Swap {
        /// The key.
        key: Key,
        /// Its new value.
        value: Vec<u8>,
        /// The revision it must have.
        revision: u64,
    },
    /// Remove a key that has this revision; a key that is absent counts as done.
    Delete {
        /// The key.
        key: Key,
        /// The revision it must have if it is present.
        revision: u64,
    },
    /// Do nothing, if the key is present with this revision.
    Check {
        /// The key.
        key: Key,
        /// The revision it must have.
        revision: u64,
    },
}

impl Op {
    /// The key of the operation.
    pub fn key(&self) -> &Key {
        match self {
            Self::Create { key, .. }
            | Self::Swap { key, .. }
            | Self::Delete { key, .. }
            | Self::Check { key, .. } => key,
        }
    }

    /// The value it writes, if it writes one.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Create { value, .. } | Self::Swap { value, .. } => Some(value),
            Self::Delete { .. } | Self::Check { .. } => None,
        }
    }

    /// Whether its condition holds for a key whose revision is `current` (`None`: absent).
    pub(crate) fn holds(&self, current: Option<u64>) -> bool {
        match self {
            Self::Create { .. } => current.is_none(),
            Self::Swap { revision, .. } | Self::Check { revision, .. } => {
                current == Some(*revision)
            }
            Self::Delete { revision, .. } => current.is_none_or(|current| current == *revision),
        }
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened. One revision for each operation; 0 for `Delete` and `Check`.
    Done(Vec<u64>),
    /// Nothing happened; the index of the first operation whose condition failed.
    Conflict(usize),
}

/// The outcome of `ops` that gave all their keys this revision.
pub(crate) fn done(ops: &[Op], revision: u64) -> Outcome {
    Outcome::Done(
        ops.iter()
            .map(|op| op.value().map_or(0, |_| revision))
            .collect(),
    )
}

/// Refuses what no backend accepts: too many operations, too many bytes, a key named twice.
pub(crate) fn check(ops: &[Op]) -> Result<(), Error> {
    limit("operations in one transaction", ops.len(), MAX_OPS)?;
    let mut keys = HashSet::new();
    let mut bytes = 0;
    for op in ops {
        if !keys.insert(op.key()) {
            return Err(Error::BadKey(format!(
                "{}: named twice in one transaction",
                op.key()
            )));
        }
        let value = op.value().unwrap_or_default().len();
        limit(&format!("value of {} in bytes", op.key()), value, MAX_VALUE)?;
        bytes += value + op.key().as_str().len();
    }
    limit(
        "keys and values of one transaction in bytes",
        bytes,
        MAX_BYTES,
    )
}

/// Refuses more than [`MAX_OPS`] prefixes in one read, for the same reason.
pub(crate) fn check_prefixes(prefixes: &[Key]) -> Result<(), Error> {
    limit("prefixes in one read", prefixes.len(), MAX_OPS)
}

fn limit(what: &str, size: usize, limit: usize) -> Result<(), Error> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: what.into(),
        size,
        limit,
    })
}
