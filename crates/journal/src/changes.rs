//! Notifications of documents that were written or removed, for a program that keeps something for each: inotify on their folder.

use std::{
    collections::BTreeSet, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, path::PathBuf,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

use crate::{Error, file};

/// A subscription to the documents of one kind.
#[derive(Debug)]
pub struct Changes {
    inotify: OwnedFd,
    dir: PathBuf,
}

/// What has changed since the last call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The documents with these names; none if the time was up.
    Documents(BTreeSet<String>),
    /// Unknown: too much at once, or the folder itself is gone. What was known is to be read anew, by a new subscription.
    Anything,
}

impl Changes {
    /// Subscribes to the documents `kind` below `root`, whose folder is made if it is missing. From here on nothing is missed.
    ///
    /// # Errors
    ///
    /// What the file system refuses.
    pub fn of(root: &Path, kind: &str) -> Result<Self, Error> {
        let dir = root.join(kind);
        let fail = |error: Errno| Error::Io {
            path: dir.clone(),
            source: error.into(),
        };
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(fail)?;
        // A document is written by a rename.
        let flags = WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let added = file::in_dir(&dir, || {
            Ok(inotify::add_watch(&inotify, &dir, flags).map(drop)?)
        });
        added?.map_err(|source| Error::Io {
            path: dir.clone(),
            source,
        })?;
        Ok(Self { inotify, dir })
    }

    /// Waits until documents change, at most for this long.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn wait(&self, limit: Duration) -> Result<Changed, Error> {
        self.next(limit).map_err(|source| Error::Io {
            path: self.dir.clone(),
            source,
        })
    }

    fn next(&self, limit: Duration) -> io::Result<Changed> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(&self.inotify, PollFlags::IN)];
        match poll(&mut ready, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        let (mut names, mut is_known) = (BTreeSet::new(), true);
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            let of_document = ReadFlags::MOVED_TO | ReadFlags::DELETE;
            is_known &= of_document.intersects(event.events());
            let name = event.file_name().and_then(|name| name.to_str().ok());
            // Half-written ones begin with a dot.
            let name = name.and_then(|name| name.strip_suffix(".json"));
            names.extend(name.map(str::to_owned));
        }
        Ok(if is_known {
            Changed::Documents(names)
        } else {
            Changed::Anything
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Journal;

    const LONG: Duration = Duration::from_secs(20);

    fn names(names: &[&str]) -> Changed {
        Changed::Documents(names.iter().copied().map(str::to_owned).collect())
    }

    #[test]
    fn documents_that_are_written_and_removed_are_named() {
        let root = tempfile::tempdir().unwrap();
        let changes = Changes::of(root.path(), "kind").unwrap();
        assert_eq!(changes.wait(Duration::ZERO).unwrap(), names(&[]));
        let journal = Journal::<u32>::new(root.path(), "kind");
        journal.save("a", &1).unwrap();
        journal.save("b", &1).unwrap();
        assert_eq!(changes.wait(LONG).unwrap(), names(&["a", "b"]));
        journal.remove("a").unwrap();
        std::fs::write(root.path().join("kind/complete"), "").unwrap();
        assert_eq!(changes.wait(LONG).unwrap(), names(&["a"]));
        std::fs::remove_dir_all(root.path()).unwrap();
        assert_eq!(changes.wait(LONG).unwrap(), Changed::Anything);
    }

    #[test]
    fn more_than_the_kernel_keeps_is_anything() {
        let root = tempfile::tempdir().unwrap();
        let changes = Changes::of(root.path(), "kind").unwrap();
        let most = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let most: usize = most.trim().parse().unwrap();
        let path = root.path().join("kind/x.json");
        for _ in 0..=most {
            std::fs::write(&path, "").unwrap();
            std::fs::remove_file(&path).unwrap();
            // Two events that are the same, one after the other, are one.
            let other = root.path().join("kind/y.json");
            std::fs::write(&other, "").unwrap();
            std::fs::remove_file(&other).unwrap();
        }
        assert_eq!(changes.wait(LONG).unwrap(), Changed::Anything);
    }
}
