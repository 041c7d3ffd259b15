//! Documents: files of one JSON value, which are replaced as a whole.
//!
//! A document that is an object has the number of its `schema`. Without a number the schema is 1: older versions wrote none,
//! and lists and maps have no room for one. Readers ignore fields that they do not know, so a new field needs no new schema.
//! A document that cannot be read, because it is damaged or of a newer schema, is a case of its own ([`Found::Unreadable`]):
//! it is neither absent nor an error of the file system. Each reader decides how to treat it.

use std::{
    fmt, fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Lock,
    file::{in_dir, read},
};

/// The schema that this version writes, and the newest that it reads.
const SCHEMA: u32 = 1;
/// How every object of this schema begins. Only other documents have to be parsed for their schema first.
const BEGINNING: &[u8] = br#"{"schema":1,"#;

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
    /// A newer version wrote `/run/crosshost`: see [`layout`](crate::layout).
    #[error(
        "{path}: layout {layout}, by crosshost {by}; this is crosshost {build}, which knows layouts up to {known} and adds \
         and repairs nothing here; use the newer version until this host has no containers, then reboot it"
    )]
    Newer {
        /// The document with the layout.
        path: PathBuf,
        /// Its layout.
        layout: u32,
        /// The build that wrote it.
        by: String,
        /// This build.
        build: String,
        /// The newest layout that this one works with.
        known: u32,
    },
    /// Another process held the lock for longer than this one could wait.
    #[error("{path}: still locked by another process after {waited:?}")]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
}

/// A document is there, and this version cannot read it: it is damaged, or a newer version wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Where and why decoding failed.
    pub why: String,
    /// Whether that is because a newer version wrote it.
    pub is_newer: bool,
}

impl Unreadable {
    /// The name of the document.
    pub fn name(&self) -> String {
        let name = self.path.file_stem().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot be read: {}", self.path.display(), self.why)
    }
}

/// The outcome of a look for a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<T> {
    /// There is no document.
    Absent,
    /// The document.
    Readable(T),
    /// There is one that this version cannot read.
    Unreadable(Unreadable),
}

impl<T> Found<T> {
    /// The document. One that cannot be read counts as absent, and is passed to `told`.
    pub fn or_lost(self, told: &dyn Fn(&Unreadable)) -> Option<T> {
        match self {
            Self::Absent => None,
            Self::Readable(document) => Some(document),
            Self::Unreadable(unreadable) => {
                told(&unreadable);
                None
            }
        }
    }
}

/// All documents of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct All<T> {
    /// The ones that can be read, in no order.
    pub readable: Vec<T>,
    /// The others.
    pub unreadable: Vec<Unreadable>,
}

/// A folder of documents of one kind, and the locks that guard them.
#[derive(Debug, Clone)]
pub struct Journal<T> {
    dir: PathBuf,
    locks: PathBuf,
    is_map: bool,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// The folder `kind` below `root` (see [`crate::ROOT`]). Nothing is created until something is saved or locked.
    pub fn new(root: &Path, kind: &str) -> Self {
        Self {
            dir: root.join(kind),
            locks: root.join("locks"),
            is_map: false,
            kind: PhantomData,
        }
    }

    /// The same for documents that are maps: all of their keys are data, so they get no schema.
    #[must_use]
    pub fn of_maps(self) -> Self {
        Self {
            is_map: true,
            ..self
        }
    }

    /// The document of that name. Errors are those of the file system.
    pub fn load(&self, name: &str) -> Result<Found<T>, Error> {
        load_file(self.path(name))
    }

    /// The document of that name. One that cannot be read counts as absent, and is passed to `told`.
    pub fn load_readable(
        &self,
        name: &str,
        told: &dyn Fn(&Unreadable),
    ) -> Result<Option<T>, Error> {
        Ok(self.load(name)?.or_lost(told))
    }

    /// Writes the whole document or nothing. The caller holds a [lock](Self::lock) that excludes other writers of it. Nothing is
    /// synced to a disk: the root is a tmpfs, and a reboot ends the containers as well.
    pub fn save(&self, name: &str, document: &T) -> Result<(), Error> {
        let path = self.path(name);
        let new = self.half_written(name);
        let fail = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let mut bytes = serde_json::to_vec(document).map_err(|error| fail(error.into()))?;
        if !self.is_map && bytes.starts_with(b"{") && bytes != b"{}" {
            bytes.splice(..1, BEGINNING.iter().copied());
        }
        let written = in_dir(&self.dir, || fs::write(&new, &bytes))?;
        written
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| {
                let _ = fs::remove_file(&new);
                fail(error)
            })
    }

    /// Removes the document if there is one, and what a killed [`Journal::save`] left of it.
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

    /// Whether there is neither a document of that name nor what a killed [`Journal::save`] left of one.
    pub fn is_absent(&self, name: &str) -> bool {
        !self.path(name).exists() && !self.half_written(name).exists()
    }

    /// The names of all documents, whether or not they can be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        self.each(|path| {
            let name = path.file_stem().and_then(|name| name.to_str());
            names.extend(name.map(str::to_owned));
            Ok(true)
        })?;
        Ok(names)
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

    /// All documents.
    pub fn all(&self) -> Result<All<T>, Error> {
        let mut all = All {
            readable: Vec::new(),
            unreadable: Vec::new(),
        };
        self.each(|path| {
            match load_file(path)? {
                Found::Absent => {}
                Found::Readable(document) => all.readable.push(document),
                Found::Unreadable(unreadable) => all.unreadable.push(unreadable),
            }
            Ok(true)
        })?;
        Ok(all)
    }

    /// All documents that can be read, in no order. The others are passed to `told`.
    pub fn all_readable(&self, told: &dyn Fn(&Unreadable)) -> Result<Vec<T>, Error> {
        let all = self.all()?;
        all.unreadable.iter().for_each(told);
        Ok(all.readable)
    }

    /// Calls `more` with the path of each document until it returns false.
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
            // The names of half-written documents start with a dot. A killed verb does not rename them any more.
            let is_document = path.extension().is_some_and(|e| e == "json") && !is_hidden(&path);
            if is_document && !more(path)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes the host-wide lock of that name without waiting; `None` if another process holds it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        match self.lock(name, Duration::ZERO) {
            Err(Error::Busy { .. }) => Ok(None),
            locked => locked.map(Some),
        }
    }

    /// Takes the host-wide lock of that name, waiting at most `patience`.
    pub fn lock(&self, name: &str, patience: Duration) -> Result<Lock, Error> {
        let path = self.locks.join(name);
        let deadline = Instant::now() + patience;
        let locked = in_dir(&self.locks, || Lock::acquire(&path, deadline))?;
        locked.map_err(|source| match source.kind() {
            io::ErrorKind::TimedOut => Error::Busy {
                path,
                waited: patience,
            },
            _ => Error::Io { path, source },
        })
    }

    /// The path at which a document is written before it is renamed. There is one for each name, so that the next write or
    /// removal cleans up after a killed one.
    fn half_written(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

fn load_file<T: DeserializeOwned>(path: PathBuf) -> Result<Found<T>, Error> {
    match read(&path) {
        Ok(bytes) => Ok(match decode(&bytes) {
            Ok(document) => Found::Readable(document),
            Err((why, is_newer)) => Found::Unreadable(Unreadable {
                path,
                why,
                is_newer,
            }),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Absent),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// The document; or why it cannot be read, and whether the reason is a newer schema.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, (String, bool)> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        schema: Option<u32>,
    }
    let damaged = |error: serde_json::Error| (error.to_string(), false);
    if !bytes.starts_with(BEGINNING) && bytes.trim_ascii_start().starts_with(b"{") {
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if let Some(schema) = head.schema.filter(|schema| *schema > SCHEMA) {
            let why = format!(
                "its schema {schema} is newer than {SCHEMA}, the newest that this version reads; upgrade"
            );
            return Err((why, true));
        }
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
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
        let none = |_: &Unreadable| panic!("all can be read");
        assert_eq!(journal.load("a").unwrap(), Found::Absent);
        assert_eq!(journal.all_readable(&none).unwrap(), [[0; 0]; 0]);
        assert!(journal.is_empty().unwrap());
        journal.save("a", &vec![1]).unwrap();
        journal.save("a", &vec![2]).unwrap();
        assert!(!journal.is_empty().unwrap());
        assert_eq!(journal.load("a").unwrap(), Found::Readable(vec![2]));
        assert_eq!(journal.all_readable(&none).unwrap(), [[2]]);
        journal.remove("a").unwrap();
        journal.remove("a").unwrap();
        assert!(journal.all_readable(&none).unwrap().is_empty());
    }

    #[test]
    fn a_half_written_document_of_a_killed_verb_is_not_seen_and_goes_with_the_document() {
        let (dir, journal) = journal();
        journal.save("a", &vec![1]).unwrap();
        fs::write(dir.path().join("numbers/.a"), "[1").unwrap();
        let all = journal.all().unwrap();
        assert_eq!((all.readable, all.unreadable), (vec![vec![1]], vec![]));
        fs::write(dir.path().join("numbers/.b"), "[1").unwrap();
        assert!(!journal.is_absent("a") && !journal.is_absent("b") && journal.is_absent("c"));
        journal.remove("b").unwrap();
        assert!(journal.is_absent("b"));
        journal.remove("a").unwrap();
        assert_eq!(fs::read_dir(dir.path().join("numbers")).unwrap().count(), 0);
    }

    /// Contents of a damaged document.
    const DAMAGED: [&[u8]; 6] = [
        b"",
        b"{",
        b"[1",
        b"\x00\xff\xfe",
        b"{\"schema\":2}",
        b"{\"schema\":\"x\"}",
    ];

    #[test]
    fn a_document_that_cannot_be_read_is_named_and_is_in_nobodys_way() {
        let (dir, journal) = journal();
        journal.save("a", &vec![1]).unwrap();
        for damaged in DAMAGED {
            fs::write(dir.path().join("numbers/b.json"), damaged).unwrap();
            let Found::Unreadable(unreadable) = journal.load("b").unwrap() else {
                panic!("{damaged:?} was read");
            };
            assert!(unreadable.to_string().contains("numbers/b.json"));
            assert_eq!(unreadable.name(), "b");
            let all = journal.all().unwrap();
            assert_eq!(all.readable, [[1]]);
            assert_eq!(all.unreadable.first(), Some(&unreadable));
            let heard = std::cell::RefCell::new(Vec::new());
            let hear = |unreadable: &Unreadable| heard.borrow_mut().push(unreadable.clone());
            assert_eq!(journal.load_readable("a", &hear).unwrap(), Some(vec![1]));
            assert!(heard.borrow().is_empty());
            assert_eq!(journal.load_readable("b", &hear).unwrap(), None);
            assert_eq!(*heard.borrow(), [unreadable]);
            assert!(!journal.is_empty().unwrap());
        }
    }

    /// What version 0.1.0 knows of a document: it overlooks other fields.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
    }

    #[test]
    fn objects_carry_their_schema_and_are_read_with_and_without() {
        let dir = tempfile::tempdir().unwrap();
        let journal: Journal<Old> = Journal::new(dir.path(), "objects");
        let document = || Old { name: "a".into() };
        journal.save("a", &document()).unwrap();
        let path = dir.path().join("objects/a.json");
        let text = fs::read(&path).unwrap();
        assert_eq!(text, br#"{"schema":1,"name":"a"}"#);
        assert_eq!(serde_json::from_slice::<Old>(&text).unwrap(), document());
        for old in [r#"{"name":"a"}"#, r#" {"name":"a","schema":1,"new":[{}]}"#] {
            fs::write(&path, old).unwrap();
            assert_eq!(journal.load("a").unwrap(), Found::Readable(document()));
        }
        for newer in [r#"{"schema":2,"name":"a"}"#, r#"{"name":"a","schema":2}"#] {
            fs::write(&path, newer).unwrap();
            let found = journal.load("a").unwrap();
            assert!(
                matches!(&found, Found::Unreadable(it) if it.is_newer && it.why.contains("schema 2 is newer")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_folder_that_went_away_is_made_again() {
        let (dir, journal) = journal();
        for _ in 0..2 {
            drop(journal.lock("a", Duration::ZERO).unwrap());
            journal.save("a", &vec![1]).unwrap();
            fs::remove_dir_all(dir.path().join("numbers")).unwrap();
            fs::remove_dir_all(dir.path().join("locks")).unwrap();
        }
    }

    #[test]
    fn maps_have_no_room_for_a_schema() {
        let dir = tempfile::tempdir().unwrap();
        let maps: Journal<std::collections::BTreeMap<String, u32>> =
            Journal::new(dir.path(), "maps").of_maps();
        let map = [("a".to_owned(), 1)].into();
        maps.save("m", &map).unwrap();
        let text = fs::read(dir.path().join("maps/m.json")).unwrap();
        assert_eq!(text, br#"{"a":1}"#);
        assert_eq!(maps.load("m").unwrap(), Found::Readable(map));
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
