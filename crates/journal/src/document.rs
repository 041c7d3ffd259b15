//! Documents: one JSON value a file, replaced as a whole.

use std::{
    fs, io,
    marker::PhantomData,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::Lock;

/// A document or lock could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused, for example because it is full.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A document is not what this version writes. It is never overwritten by guess.
    #[error("{path}: not a document of this version: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where and why decoding failed.
        source: serde_json::Error,
    },
    /// Another verb held the lock for all of the time that this one could wait.
    #[error("{path}: still locked by another process after {waited:?}")]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
}

/// A folder of documents of one kind, and the locks that guard them.
#[derive(Debug, Clone)]
pub struct Journal<T> {
    dir: PathBuf,
    locks: PathBuf,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// The folder `kind` below `root` (see [`crate::ROOT`]). Nothing is created until something is saved or locked.
    pub fn new(root: &Path, kind: &str) -> Self {
        Self {
            dir: root.join(kind),
            locks: root.join("locks"),
            kind: PhantomData,
        }
    }

    /// The document of that name, `None` if there is none.
    pub fn load(&self, name: &str) -> Result<Option<T>, Error> {
        load_file(self.path(name))
    }

    /// The same, if it can be read; of one that cannot `unreadable` hears, and there is as good as none.
    pub fn load_readable(
        &self,
        name: &str,
        unreadable: &dyn Fn(&Error),
    ) -> Result<Option<T>, Error> {
        self.load(name).or_else(pass_over(unreadable))
    }

    /// Writes the document whole or not at all; the caller holds a [lock](Self::lock) that keeps other writers of the
    /// same document out. The root is a tmpfs, so nothing is synced: what a reboot loses has
    /// no container left either.
    pub fn save(&self, name: &str, document: &T) -> Result<(), Error> {
        let path = self.path(name);
        let new = self.half_written(name);
        let fail = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let bytes = serde_json::to_vec(document).map_err(|error| fail(error.into()))?;
        make_dir(&self.dir)?;
        fs::write(&new, bytes)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| {
                let _ = fs::remove_file(&new);
                fail(error)
            })
    }

    /// Removes the document, and what a killed [`Journal::save`] left of it; one that is not there is fine.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        for path in [self.half_written(name), self.path(name)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether nothing is there of that name, not even what a killed [`Journal::save`] left.
    pub fn is_absent(&self, name: &str) -> bool {
        !self.path(name).exists() && !self.half_written(name).exists()
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> Result<bool, Error> {
        let mut any = false;
        self.each(|_| {
            any = true;
            Ok(false)
        })?;
        Ok(!any)
    }

    /// All documents, in no order.
    pub fn all(&self) -> Result<Vec<T>, Error> {
        self.collect(Err)
    }

    /// All documents that can be read, in no order; of the others `unreadable` hears.
    pub fn all_readable(&self, unreadable: &dyn Fn(&Error)) -> Result<Vec<T>, Error> {
        self.collect(pass_over(unreadable))
    }

    fn collect(&self, failed: impl Fn(Error) -> Result<Option<T>, Error>) -> Result<Vec<T>, Error> {
        let mut documents = Vec::new();
        self.each(|path| {
            documents.extend(load_file(path).or_else(&failed)?);
            Ok(true)
        })?;
        Ok(documents)
    }

    /// The paths of the documents, as long as `more` are wanted.
    fn each(&self, mut more: impl FnMut(PathBuf) -> Result<bool, Error>) -> Result<(), Error> {
        let fail = |source| Error::Io {
            path: self.dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            // Half-written ones of a killed verb start with a dot; nobody will ever rename them.
            let is_document = path.extension().is_some_and(|e| e == "json") && !is_hidden(&path);
            if is_document && !more(path)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the host-wide lock of that name if nobody holds it, without waiting.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        match self.lock(name, Duration::ZERO) {
            Err(Error::Busy { .. }) => Ok(None),
            locked => locked.map(Some),
        }
    }

    /// Takes the host-wide lock of that name, waiting at most `patience`.
    pub fn lock(&self, name: &str, patience: Duration) -> Result<Lock, Error> {
        make_dir(&self.locks)?;
        let path = self.locks.join(name);
        Lock::acquire(path.clone(), Instant::now() + patience).map_err(|source| {
            match source.kind() {
                io::ErrorKind::TimedOut => Error::Busy {
                    path,
                    waited: patience,
                },
                _ => Error::Io { path, source },
            }
        })
    }

    /// Where a document is written before it is renamed: one place for each name, so that the next writer or remover
    /// cleans up after a killed one.
    fn half_written(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

/// Lets `unreadable` hear of a document that cannot be read, which then counts as none. Any other error stays one.
fn pass_over<T>(unreadable: &dyn Fn(&Error)) -> impl Fn(Error) -> Result<Option<T>, Error> {
    move |error| match error {
        Error::Unreadable { .. } => {
            unreadable(&error);
            Ok(None)
        }
        _ => Err(error),
    }
}

fn load_file<T: DeserializeOwned>(path: PathBuf) -> Result<Option<T>, Error> {
    match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(document) => Ok(Some(document)),
            Err(source) => Err(Error::Unreadable { path, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Documents name containers and addresses: only root may read them.
fn make_dir(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (tempfile::TempDir, Journal<Vec<u32>>) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path(), "numbers");
        (dir, journal)
    }

    #[test]
    fn documents_are_kept_listed_and_removed() {
        let (_dir, journal) = journal();
        assert_eq!(
            (journal.load("a").unwrap(), journal.all().unwrap()),
            (None, vec![])
        );
        assert!(journal.is_empty().unwrap());
        journal.save("a", &vec![1]).unwrap();
        journal.save("a", &vec![2]).unwrap();
        assert!(!journal.is_empty().unwrap());
        assert_eq!(
            (journal.load("a").unwrap(), journal.all().unwrap()),
            (Some(vec![2]), vec![vec![2]])
        );
        journal.remove("a").unwrap();
        journal.remove("a").unwrap();
        assert_eq!(journal.all().unwrap(), Vec::<Vec<u32>>::new());
    }

    #[test]
    fn a_half_written_document_of_a_killed_verb_is_not_seen_and_goes_with_the_document() {
        let (dir, journal) = journal();
        journal.save("a", &vec![1]).unwrap();
        fs::write(dir.path().join("numbers/.a"), "[1").unwrap();
        assert_eq!(journal.all().unwrap(), vec![vec![1]]);
        fs::write(dir.path().join("numbers/.b"), "[1").unwrap();
        assert!(!journal.is_absent("a") && !journal.is_absent("b") && journal.is_absent("c"));
        journal.remove("b").unwrap();
        assert!(journal.is_absent("b"));
        journal.remove("a").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("numbers")).unwrap().count(), 0);
    }

    #[test]
    fn an_unreadable_document_is_an_error_that_names_it() {
        let (dir, journal) = journal();
        journal.save("a", &vec![1]).unwrap();
        fs::write(dir.path().join("numbers/a.json"), "{").unwrap();
        assert!(
            journal
                .load("a")
                .unwrap_err()
                .to_string()
                .contains("numbers/a.json")
        );
    }

    #[test]
    fn an_unreadable_document_is_as_good_as_none_to_who_hears_of_it() {
        let (dir, journal) = journal();
        journal.save("a", &vec![1]).unwrap();
        fs::write(dir.path().join("numbers/b.json"), "{").unwrap();
        let heard = std::cell::RefCell::new(Vec::new());
        let hear = |error: &Error| heard.borrow_mut().push(error.to_string());
        assert_eq!(journal.load_readable("a", &hear).unwrap(), Some(vec![1]));
        assert_eq!(journal.load_readable("c", &hear).unwrap(), None);
        assert!(heard.borrow().is_empty());
        assert_eq!(journal.load_readable("b", &hear).unwrap(), None);
        assert!(heard.borrow()[0].contains("numbers/b.json"));
    }

    #[test]
    fn a_lock_is_tried_without_waiting() {
        let (_dir, journal) = journal();
        let held = journal.try_lock("host").unwrap();
        assert!(held.is_some() && journal.try_lock("host").unwrap().is_none());
        drop(held);
        assert!(journal.try_lock("host").unwrap().is_some());
    }

    #[test]
    fn a_lock_that_stays_held_is_reported() {
        let (_dir, journal) = journal();
        let _held = journal.lock("host", Duration::ZERO).unwrap();
        assert!(matches!(
            journal.lock("host", Duration::from_millis(5)),
            Err(Error::Busy { .. })
        ));
    }
}
