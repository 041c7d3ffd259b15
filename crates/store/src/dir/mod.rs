//! The embedded store: a directory of files, for one machine. Any number of processes can use it at the same time. They take turns by
//! a lock on the file `=lock`, which the kernel releases when its holder dies. `files` has the form of the files, `redo` how a
//! transaction survives a crash, and `changes` how a watcher wakes.
//!
//! The calling thread does the file work: it is short, and there must be no thread pool where threads enter namespaces.

mod changes;
mod files;
mod redo;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout_at};

use self::changes::Changes;
use self::files::{Files, io_error};
use crate::budget::{Backoff, Budget};
use crate::op::{self, Op, Outcome};
use crate::{Entry, Error, Key, Snapshot, Store};

/// A directory as a store.
pub struct Dir {
    files: Files,
    budget: Budget,
}

/// How a lock is taken.
#[derive(Clone, Copy)]
enum Lock {
    Shared,
    Exclusive,
}

impl Dir {
    /// Opens the store in the directory `root`, and creates it if it is missing. Only its owner has access, because every process that
    /// can open the lock file could block all others. Waits for locks take at most `timeout` in all.
    pub fn open(root: impl Into<PathBuf>, timeout: Duration) -> Result<Self, Error> {
        let root = root.into();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&root);
        made.map_err(|error| io_error(&root, error))?;
        let url = format!("dir://{}", root.display());
        let files = Files { root, url };
        Ok(Self {
            files,
            budget: Budget::new(timeout),
        })
    }

    /// Takes the lock. Dropping the file releases it.
    async fn lock(&self, how: Lock) -> Result<File, Error> {
        let path = self.files.root.join("=lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options
            .open(&path)
            .map_err(|error| io_error(&path, error))?;
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(16));
        loop {
            let taken = match how {
                Lock::Shared => file.try_lock_shared(),
                Lock::Exclusive => file.try_lock(),
            };
            match taken {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(io_error(&path, error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let pause = backoff.pause();
            if !self.budget.afford(pause, false) {
                let cause = format!("another process holds {}", path.display());
                let (url, after) = (self.files.url.clone(), self.budget.total());
                return Err(Error::Timeout { url, after, cause });
            }
            sleep(pause).await;
        }
    }

    /// Takes the lock, and finishes all transactions that have happened.
    async fn quiet(&self, how: Lock) -> Result<File, Error> {
        let lock = self.lock(how).await?;
        if !self.files.is_unfinished() {
            return Ok(lock);
        }
        drop(lock);
        let lock = self.lock(Lock::Exclusive).await?;
        self.files.recover()?;
        Ok(lock)
    }

    /// Reads under a lock that the caller holds.
    fn entries(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for prefix in prefixes {
            self.files.within(prefix, &mut entries)?;
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok(entries)
    }
}

#[async_trait(?Send)]
impl Store for Dir {
    async fn read(&self, prefixes: &[Key]) -> Result<Vec<Entry>, Error> {
        op::check_prefixes(prefixes)?;
        let _lock = self.quiet(Lock::Shared).await?;
        self.entries(prefixes)
    }

    async fn apply(&self, ops: &[Op]) -> Result<Outcome, Error> {
        op::check(ops)?;
        let _lock = self.quiet(Lock::Exclusive).await?;
        for (at, op) in ops.iter().enumerate() {
            let current = self.files.get(op.key())?.map(|entry| entry.revision);
            if !op.holds(current) {
                return Ok(Outcome::Conflict(at));
            }
        }
        if ops.iter().all(|op| matches!(op, Op::Check { .. })) {
            return Ok(op::done(ops, 0));
        }
        let record = self.files.last()?.next(ops);
        self.files.commit(&record)?;
        self.files.finish(&record)?;
        Ok(op::done(ops, record.revision))
    }

    async fn watch(&self, prefix: &Key, index: u64, wait: Duration) -> Result<Snapshot, Error> {
        self.budget.fill();
        let end = Instant::now() + wait;
        let root = &self.files.root;
        // The subscription starts before the read, so that no change between the two is missed.
        let changes = Changes::of(root).map_err(|error| io_error(root, error))?;
        loop {
            let lock = self.quiet(Lock::Shared).await?;
            let last = self.files.last()?;
            if index == 0 || last.changed(prefix, index) || Instant::now() >= end {
                let entries = self.entries(std::slice::from_ref(prefix))?;
                return Ok(Snapshot {
                    entries,
                    index: last.revision,
                });
            }
            drop(lock);
            if let Ok(Err(error)) = timeout_at(end, changes.next()).await {
                return Err(io_error(root, error));
            }
        }
    }
}
