//! Keys as files. The key `a/b` is the file `a/b=` below the store's directory. No key contains a `=`, so `a` and `a/b` can both
//! exist, and names that begin with it are free for the store's own files. A file's first line is the
//! revision, the rest the value, so that `jq . file` and `tail -n +2 file` show it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::{Entry, Error, Key};

/// The scratch file, which is renamed to its target. One is enough, because writers take turns.
const SCRATCH: &str = "=new";

/// A store's directory.
pub(super) struct Files {
    pub(super) root: PathBuf,
    pub(super) url: String,
}

impl Files {
    /// The directory of everything below `key`.
    fn folder(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.root.join(format!("{key}="))
    }

    /// The entry of `key`.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let path = self.file(key);
        let Some(content) = read(&path)? else {
            return Ok(None);
        };
        let end = content.iter().position(|&byte| byte == b'\n');
        let line = end.and_then(|end| str::from_utf8(&content[..end]).ok());
        let revision = line.and_then(|line| line.parse().ok());
        let (Some(end), Some(revision)) = (end, revision) else {
            let what = format!("the first line of {} is no revision", path.display());
            return Err(Error::Garbage {
                url: self.url.clone(),
                what,
            });
        };
        let value = content[end + 1..].to_vec();
        Ok(Some(Entry {
            key: key.clone(),
            value,
            revision,
        }))
    }

    /// Adds the entries at or below `prefix` to `entries`.
    pub(super) fn within(&self, prefix: &Key, entries: &mut Vec<Entry>) -> Result<(), Error> {
        entries.extend(self.get(prefix)?);
        self.below(Some(prefix), entries)
    }

    /// All entries.
    pub(super) fn all(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.below(None, &mut entries)?;
        Ok(entries)
    }

    fn below(&self, prefix: Option<&Key>, entries: &mut Vec<Entry>) -> Result<(), Error> {
        let folder = prefix.map_or(self.root.clone(), |prefix| self.folder(prefix));
        let listing = match fs::read_dir(&folder) {
            Ok(listing) => listing,
            // There is no such folder, or it is a file that is not ours.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(());
            }
            Err(error) => return Err(io_error(&folder, error)),
        };
        for item in listing {
            let item = item.map_err(|error| io_error(&folder, error))?;
            let name = item.file_name();
            let Some(name) = name.to_str() else { continue };
            let part = name.strip_suffix('=').unwrap_or(name);
            let key = match prefix {
                Some(prefix) => prefix.join(part),
                None => Key::new(part),
            };
            // The store's own files, and other files that someone left here, are not keys.
            let Ok(key) = key else { continue };
            if name.ends_with('=') {
                entries.extend(self.get(&key)?);
            } else {
                self.below(Some(&key), entries)?;
            }
        }
        Ok(())
    }

    /// Writes the file of `key`, and adds to `folders` the directories that have to be synced.
    pub(super) fn put(
        &self,
        key: &Key,
        value: &[u8],
        revision: u64,
        folders: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        let path = self.file(key);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| io_error(parent, error))?;
        }
        self.replace(&path, &[format!("{revision}\n").as_bytes(), value])?;
        folders.extend(self.ancestors(&path).map(Path::to_owned));
        Ok(())
    }

    /// Removes the file of `key` and the directories that are empty without it.
    pub(super) fn remove(&self, key: &Key, folders: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        let path = self.file(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error(&path, error));
            }
            _ => {}
        }
        for folder in self.ancestors(&path) {
            folders.insert(folder.to_owned());
            if folder != self.root {
                // The directory stays if it is not empty.
                let _ = fs::remove_dir(folder);
            }
        }
        Ok(())
    }

    /// Writes the whole file `path` or nothing: writes a scratch file, syncs it, renames it.
    pub(super) fn replace(&self, path: &Path, content: &[&[u8]]) -> Result<(), Error> {
        let scratch = self.root.join(SCRATCH);
        let write = || -> io::Result<()> {
            let mut file = File::create(&scratch)?;
            for part in content {
                file.write_all(part)?;
            }
            file.sync_data()
        };
        write().map_err(|error| io_error(&scratch, error))?;
        fs::rename(&scratch, path).map_err(|error| io_error(path, error))
    }

    /// The directories above `path`, from the nearest to the root.
    fn ancestors<'a>(&self, path: &'a Path) -> impl Iterator<Item = &'a Path> {
        let root = self.root.clone();
        path.ancestors()
            .skip(1)
            .take_while(move |folder| folder.starts_with(&root))
    }
}

/// The content of a file; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(io_error(path, error)),
    }
}

/// Syncs the names in a directory. Does nothing if it is gone.
pub(super) fn sync(folder: &Path) -> Result<(), Error> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(folder, error)),
        _ => Ok(()),
    }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}
