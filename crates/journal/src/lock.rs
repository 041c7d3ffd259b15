//! Locks between processes, released by the kernel when their holder dies.
//!
//! A lock is an `flock` of a file. The file of a [passing](Lock::passing) lock is removed with it, and versions up to 86dc1f2
//! remove the file of every lock. So a holder makes sure that the file that it has locked is the one that others find at the path.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Longest pause between two tries.
const PAUSE: Duration = Duration::from_millis(3);

/// An exclusive lock on a name, held until dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    is_passing: bool,
    /// Closed after [`Drop::drop`]: that releases the lock.
    _file: File,
}

impl Lock {
    /// Waits for the lock until `deadline`; [`io::ErrorKind::TimedOut`] if another process holds it longer.
    ///
    /// It tries again and again because a blocking `flock` has no deadline: only a signal, or a thread that is left
    /// behind, could end the wait.
    pub(crate) fn acquire(path: &Path, deadline: Instant) -> io::Result<Self> {
        let mut pause = Duration::from_micros(100);
        loop {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path)? => {
                    return Ok(Self {
                        path: path.to_owned(),
                        is_passing: false,
                        _file: file,
                    });
                }
                // The last holder removed the file after our open: this lock guards nothing.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// The same lock for a name that dies with a container: its file goes with the lock, so that `/run` does not fill with a
    /// file for each container that ever ran. The files of other names stay; there are few of them.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.is_passing = true;
        self
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_passing {
            // Removed while still locked, so that a process that waits for this file finds it gone and opens a new one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match path.symlink_metadata() {
        Ok(named) => Ok(named.ino() == held.ino() && named.dev() == held.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Eight holders, 50 times each, of whom `is_passing` says which remove the file; whether it is there at the end.
    fn only_one_holds(is_passing: fn(u32) -> bool) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (inside, most, total) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for holder in 0..8 {
                let (path, inside, most, total) = (&path, &inside, &most, &total);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let deadline = Instant::now() + Duration::from_secs(20);
                        let lock = Lock::acquire(path, deadline).unwrap();
                        let lock = if is_passing(holder) {
                            lock.passing()
                        } else {
                            lock
                        };
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        total.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), total.into_inner()), (1, 400));
        path.exists()
    }

    #[test]
    fn only_one_holds_a_lock() {
        assert!(only_one_holds(|_| false), "its file stays");
    }

    #[test]
    fn only_one_holds_a_passing_lock_and_its_file_goes() {
        assert!(!only_one_holds(|_| true), "a passing lock leaves no file");
    }

    /// Versions up to 86dc1f2 lock and check in the same way, and remove the file of each lock.
    #[test]
    fn only_one_holds_a_lock_whose_file_an_older_version_removes() {
        only_one_holds(|holder| holder % 2 == 0);
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _held = Lock::acquire(&path, Instant::now()).unwrap();
        let waited = Lock::acquire(&path, Instant::now() + Duration::from_millis(20));
        assert_eq!(waited.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
