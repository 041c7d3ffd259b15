//! The store that hosts share: keys with small values, which are read by prefix and written under conditions.
//!
//! Everything above this crate is built from three functions. [`Store::read`] reads several prefixes in one round trip.
//! [`Store::apply`] writes a list of [`Op`]s, all or none of them, each under a condition on the present state of its key. No write is
//! unconditional, so no host can overwrite a change of another that it has not seen. [`Store::watch`] sleeps until something below a
//! prefix changes. A backend implements these three. One conformance suite (`tests/store/conformance`) tests that all backends agree,
//! and the URL selects the backend:
//!
//! | URL | backend |
//! |---|---|
//! | `consul://host:port`, `consuls://host:port` (TLS), `consul+unix:///socket` | [`consul`]: the one that hosts share |
//! | `dir:///path` | [`dir`]: files of one machine, any number of processes |
//! | none (tests only) | [`mem`]: a map |
//!
//! A store lives as long as a verb and has one time budget for it ([`Config::timeout`]). All waits and retries of all its calls are
//! taken from it, so that a store that is away never delays an ADD for longer. A resident process returns to `watch` between its
//! work, and each `watch` fills the budget again.
//!
//! Futures here are not `Send`: a verb runs on one thread, because a thread that may enter namespaces must not share a pool.

mod budget;
mod config;
pub mod consul;
pub mod dir;
mod error;
mod key;
pub mod mem;
mod op;

use std::time::Duration;

use async_trait::async_trait;

pub use budget::Backoff;
pub use config::{Config, DEFAULT_URL, open};
pub use consul::without_secrets;
pub use error::Error;
pub use key::{Key, MAX_KEY, MAX_PART};
pub use op::{MAX_BYTES, MAX_OPS, MAX_VALUE, Op, Outcome};

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Vec<u8>,
    /// Changes with every write of the key. The key never gets the same revision again, not even after a delete.
    pub revision: u64,
}

/// What is below a prefix, as of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// All entries at or below the prefix, sorted by key.
    pub entries: Vec<Entry>,
    /// The index for the next [`Store::watch`]; above 0.
    pub index: u64,
}

/// A store. Calls may run concurrently on one thread.
#[async_trait(?Send)]
pub trait Store {
    /// All entries at or below each of `prefixes` (at most [`MAX_OPS`]), as of one moment, sorted by key, each once; one
    /// round trip, and on Consul one more when a prefix is first found empty. `a/b` covers `a/b` and `a/b/c`, not `a/bc`.
    async fn read(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error>;

    /// Does all of `ops`, or none; one round trip. At most [`MAX_OPS`] with [`MAX_BYTES`], each key once, else an error
    /// before anything is sent.
    ///
    /// After an error that [is away](Error::is_away), and after [`Error::Garbage`], the write may have happened: read the keys before
    /// you rely on either. To repeat it is safe, because every operation has a condition.
    async fn apply(&self, ops: &[Op]) -> Result<Outcome, Error>;

    /// Waits until something at or below `prefix` was written or removed after `index`, at most for `wait`, then returns
    /// what is there. Index 0 returns at once. It may return early with nothing new, and with a lower index than before
    /// when the store was restored from a backup: the snapshot holds all the same.
    async fn watch(&self, prefix: &Key, index: u64, wait: Duration) -> Result<Snapshot, Error>;

    /// The path parts that follow `prefix` in the keys below it, each once; not what is below those. One round trip. What the
    /// token must not see is not there.
    async fn children(&self, prefix: &Key) -> Result<Vec<String>, Error> {
        let below = format!("{prefix}/");
        let entries = self.read(std::slice::from_ref(prefix)).await?;
        let child = |entry: &Entry| {
            let rest = entry.key.as_str().strip_prefix(&below)?;
            rest.split('/').next().map(str::to_owned)
        };
        let mut children: Vec<_> = entries.iter().filter_map(child).collect();
        children.sort_unstable();
        children.dedup();
        Ok(children)
    }

    /// The entry of one key.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let entries = self.read(std::slice::from_ref(key)).await?;
        Ok(entries.into_iter().find(|entry| entry.key == *key))
    }

    /// Writes a key that is absent; its revision, or `None` if it was present.
    async fn create(&self, key: &Key, value: &[u8]) -> Result<Option<u64>, Error> {
        let op = Op::Create {
            key: key.clone(),
            value: value.to_vec(),
        };
        Ok(only(self.apply(&[op]).await?))
    }

    /// Writes over a key that has this revision; its new one, or `None` if it was absent or has another.
    async fn swap(&self, key: &Key, value: &[u8], revision: u64) -> Result<Option<u64>, Error> {
        let op = Op::Swap {
            key: key.clone(),
            value: value.to_vec(),
            revision,
        };
        Ok(only(self.apply(&[op]).await?))
    }

    /// Removes a key that has this revision; `false` if it has another. An absent key counts as removed.
    async fn delete(&self, key: &Key, revision: u64) -> Result<bool, Error> {
        let op = Op::Delete {
            key: key.clone(),
            revision,
        };
        Ok(only(self.apply(&[op]).await?).is_some())
    }
}

/// The revision of a transaction of one operation, if it was done.
fn only(outcome: Outcome) -> Option<u64> {
    match outcome {
        Outcome::Done(revisions) => revisions.first().copied(),
        Outcome::Conflict(_) => None,
    }
}
