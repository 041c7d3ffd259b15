//! Transactions of files, which happen completely or not at all, even with a crash at any instruction. A transaction is first written
//! as one record, synced, and renamed to `=redo`: at that moment it happens. Then its files are written, and the record is renamed
//! to `=last`. A process that finds `=redo` under the lock finishes the work of a killed writer. To do that twice is harmless.
//!
//! `=last` also has the store's revision, which only rises and which every key of a transaction gets, and the keys of the last few
//! hundred changes, in which a watcher looks for its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::files::{Files, io_error, read, sync};
use crate::{Error, Key, Op};

/// The name of a finished transaction's record. Watchers wait for that rename.
pub(super) const LAST: &str = "=last";
const REDO: &str = "=redo";

/// How many changes a record remembers.
const RECENT: usize = 256;

/// A transaction, and the store's state after it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The store's revision. An empty store has 1, so that 0 stays free for "from the beginning".
    pub(super) revision: u64,
    /// Keys with their new values in base64, or without a value if they are removed.
    changes: Vec<(String, Option<String>)>,
    /// The last changed keys, oldest first: all of those with a revision above `forgotten`.
    recent: Vec<(u64, String)>,
    forgotten: u64,
}

impl Record {
    /// The record of the next transaction.
    pub(super) fn next(mut self, ops: &[Op]) -> Self {
        self.revision += 1;
        self.changes.clear();
        for op in ops {
            let value = match op {
                Op::Create { value, .. } | Op::Swap { value, .. } => Some(STANDARD.encode(value)),
                Op::Delete { .. } => None,
                Op::Check { .. } => continue,
            };
            self.changes.push((op.key().to_string(), value));
            self.recent.push((self.revision, op.key().to_string()));
        }
        let old = self.recent.len().saturating_sub(RECENT);
        for (revision, _) in self.recent.drain(..old) {
            self.forgotten = revision;
        }
        self
    }

    /// Whether something at or below `prefix` changed after `index`. An index above the revision comes from another store.
    pub(super) fn changed(&self, prefix: &Key, index: u64) -> bool {
        let concerns = |key: &str| Key::new(key).is_ok_and(|key| key.is_within(prefix));
        let later = self.recent.iter().filter(|(revision, _)| *revision > index);
        index > self.revision || index < self.forgotten || { later }.any(|(_, key)| concerns(key))
    }
}

impl Files {
    /// Whether a transaction has happened whose files are not all written yet.
    pub(super) fn is_unfinished(&self) -> bool {
        self.root.join(REDO).exists()
    }

    /// Finishes the work of a killed writer. Needs the exclusive lock.
    pub(super) fn recover(&self) -> Result<(), Error> {
        match self.record(REDO)? {
            Some(record) => self.finish(&record),
            None => Ok(()),
        }
    }

    /// The record of the last transaction.
    pub(super) fn last(&self) -> Result<Record, Error> {
        if let Some(record) = self.record(LAST)? {
            return Ok(record);
        }
        // The store is new, or its record was removed: no revision that is in use may be given again.
        let revision = self
            .all()?
            .iter()
            .map(|entry| entry.revision)
            .max()
            .unwrap_or(1);
        Ok(Record {
            revision,
            changes: Vec::new(),
            recent: Vec::new(),
            forgotten: revision,
        })
    }

    /// Makes the transaction happen; [`Files::finish`] does the rest. Needs the exclusive lock.
    pub(super) fn commit(&self, record: &Record) -> Result<(), Error> {
        let redo = self.root.join(REDO);
        let content = serde_json::to_vec(record).map_err(|error| io_error(&redo, error.into()))?;
        self.replace(&redo, &[&content])?;
        sync(&self.root)
    }

    /// Writes the files of a transaction that happened. Needs the exclusive lock.
    pub(super) fn finish(&self, record: &Record) -> Result<(), Error> {
        let mut folders = BTreeSet::new();
        for (key, value) in &record.changes {
            self.change(record, key, value.as_deref(), &mut folders)?;
        }
        for folder in &folders {
            sync(folder)?;
        }
        let last = self.root.join(LAST);
        fs::rename(self.root.join(REDO), &last).map_err(|error| io_error(&last, error))
    }

    fn change(
        &self,
        record: &Record,
        key: &str,
        value: Option<&str>,
        folders: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        let key = Key::new(key)?;
        let Some(value) = value else {
            return self.remove(&key, folders);
        };
        let value = STANDARD
            .decode(value)
            .map_err(|error| self.garbled(REDO, &error.to_string()))?;
        self.put(&key, &value, record.revision, folders)
    }

    fn record(&self, name: &str) -> Result<Option<Record>, Error> {
        let Some(content) = read(&self.root.join(name))? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&content);
        record
            .map(Some)
            .map_err(|error| self.garbled(name, &error.to_string()))
    }

    fn garbled(&self, name: &str, why: &str) -> Error {
        let what = format!("{}: {why}", self.root.join(name).display());
        Error::Garbage {
            url: self.url.clone(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).expect("good")
    }

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::TempDir::new().expect("a directory");
        let (root, url) = (dir.path().to_owned(), "dir:".into());
        (dir, Files { root, url })
    }

    fn create(name: &str) -> Op {
        let value = name.into();
        Op::Create {
            key: key(name),
            value,
        }
    }

    /// Every moment at which a writer may be killed: before the record has its name nothing has happened, after that
    /// everything has.
    #[test]
    fn a_transaction_happens_when_its_record_has_its_name() {
        let ops = [create("a"), create("b/c"), create("d")];
        for step in 0..=ops.len() + 2 {
            let (dir, files) = files();
            let record = files.last().expect("empty").next(&ops);
            if step == 0 {
                std::fs::write(dir.path().join("=new"), "{\"revision\":2,\"chan")
                    .expect("a torn record");
            } else {
                files.commit(&record).expect("committed");
            }
            for (key, value) in record.changes.iter().take(step.saturating_sub(1)) {
                files
                    .change(&record, key, value.as_deref(), &mut BTreeSet::new())
                    .expect("changed");
            }
            if step == ops.len() + 2 {
                files.finish(&record).expect("finished");
            }

            assert_eq!(files.is_unfinished(), (1..=ops.len() + 1).contains(&step));
            files.recover().expect("recovered");
            files.recover().expect("once more");
            assert!(!files.is_unfinished());
            let entries = files.all().expect("readable");
            assert_eq!(
                entries.len(),
                if step == 0 { 0 } else { ops.len() },
                "step {step}"
            );
            assert!(entries.iter().all(|entry| entry.revision == 2));
            assert_eq!(
                files.last().expect("readable").revision,
                if step == 0 { 1 } else { 2 }
            );
        }
    }

    #[test]
    fn a_damaged_record_is_named() {
        let (dir, files) = files();
        std::fs::write(dir.path().join(REDO), "{").expect("written");
        let error = files.recover().expect_err("damaged").to_string();
        assert!(error.contains("=redo: EOF"), "{error}");
    }

    #[test]
    fn a_record_knows_what_changed_until_it_forgets() {
        let (_dir, files) = files();
        let mut record = files.last().expect("empty");
        assert!(!record.changed(&key("a"), 1));
        record = record.next(&[create("a/b"), create("c")]);
        assert!(record.changed(&key("a"), 1) && record.changed(&key("c"), 1));
        assert!(!record.changed(&key("a/c"), 1) && !record.changed(&key("a"), 2));
        assert!(record.changed(&key("x"), 3), "an index of another store");

        for _ in 0..RECENT {
            record = record.next(&[create("d")]);
        }
        assert!(record.recent.len() <= RECENT);
        assert!(
            record.changed(&key("a"), 1),
            "what is forgotten may have been below it"
        );
        assert!(!record.changed(&key("a"), record.forgotten));
    }
}
