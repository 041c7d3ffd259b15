//! Network namespaces: open, make, enter, remove.
//!
//! Each thread has its namespace, and a runtime's helper threads always keep the one in which they were started. So a thread
//! is in another namespace only for one piece of work that waits for nothing, and returns before anything else runs on it. A
//! thread made for the work would cost twenty system calls more.
//!
//! A persistent namespace is a bind mount on a file. The file alone, which a reboot or an unmount leaves behind, is not a
//! namespace. So every open checks the file system behind the path, and fails with [`NetnsError::Gone`] if there is none.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use netns_rs::{Env, NetNs};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::mount_bind;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::mounts::{self, Elsewhere};

/// Longest wait for another process that makes or removes a namespace in the same directory.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

/// `statfs` type of the file system that namespaces live on (uapi `linux/magic.h`).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// An open network namespace; holding it keeps the namespace alive.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: PathBuf,
    id: (u64, u64),
}

/// A namespace could not be opened, made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is at the path, or what is there is not a namespace (a plain file is left after a reboot or an unmount).
    #[error("network namespace {} is gone", path.display())]
    Gone {
        /// The path that was tried.
        path: PathBuf,
    },
    /// A process has it mounted in a mount namespace of its own, which this program cannot enter.
    #[error(
        "network namespace {}: made in another mount namespace, that of {process}; run this there, or remove PrivateTmp=, PrivateMounts= and their like from that service", path.display()
    )]
    Elsewhere {
        /// The path that was tried.
        path: PathBuf,
        /// The process that has it.
        process: Elsewhere,
    },
    /// It is a namespace of another kind, such as a mount namespace.
    #[error("{} is not a network namespace, but one of another kind", path.display())]
    OtherKind {
        /// The path that was tried.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("network namespace {}: {what}: {source}", path.display())]
    Io {
        /// The namespace's path.
        path: PathBuf,
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The code run inside the namespace panicked.
    #[error("network namespace {}: the work inside panicked: {message}", path.display())]
    Panicked {
        /// The namespace's path.
        path: PathBuf,
        /// The panic's text.
        message: String,
    },
}

impl NetnsError {
    /// Whether another try may succeed: the kernel is at work on it (EBUSY, EAGAIN, EINTR).
    pub fn is_busy(&self) -> bool {
        let Self::Io { source, .. } = self else {
            return false;
        };
        let errno = Errno::from_io_error(source);
        matches!(errno, Some(Errno::BUSY | Errno::AGAIN | Errno::INTR))
    }

    fn io(path: &Path, what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.to_owned(),
            what: what.into(),
            source: source.into(),
        }
    }
}

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Opens the namespace bound at `path` (`/run/netns/x`, `/proc/<pid>/ns/net`).
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let gone = || NetnsError::Gone {
            path: path.to_owned(),
        };
        // NONBLOCK: the path comes from outside, and opening a FIFO would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::SRCH | Errno::NXIO) => return Err(gone()),
            Err(errno) => return Err(NetnsError::io(path, "open", errno)),
        };
        let failed = |errno| NetnsError::io(path, "stat", errno);
        if rustix::fs::fstatfs(&fd).map_err(failed)?.f_type != NSFS_MAGIC {
            return Err(gone());
        }
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            id: (stat.st_dev, stat.st_ino),
        })
    }

    /// Opens the namespace bound at `dir/name`, here or in another mount namespace of this machine; `None` if it is bound
    /// nowhere.
    pub fn find(dir: &Path, name: &str) -> Result<Option<Self>, NetnsError> {
        match Self::open(&dir.join(name)) {
            Err(NetnsError::Gone { .. }) => {}
            opened => return opened.map(Some),
        }
        let Some(process) = mounts::find(dir, name) else {
            return Ok(None);
        };
        match mounts::open(&process, dir, name) {
            Err(NetnsError::Gone { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The process that has a namespace bound at `dir/name`, if here it is only a file; `None` if no process has, or if there
    /// is no such file.
    pub fn elsewhere(dir: &Path, name: &str) -> Option<Elsewhere> {
        mounts::find(dir, name)
    }

    /// Whether `dir/name` is a file on which no namespace is bound here.
    pub fn is_bare(dir: &Path, name: &str) -> bool {
        mounts::is_bare(&dir.join(name))
    }

    /// Makes the namespace `dir/name`, or opens it if it exists. One that is bound only in another mount namespace is also
    /// bound here. Safe if other processes do the same at the same time.
    pub fn create(dir: &Path, name: &str) -> Result<Self, NetnsError> {
        let path = checked(dir, name)?;
        fs::create_dir_all(dir).map_err(|e| NetnsError::io(&path, "make its directory", e))?;
        let _lock = lock(dir).map_err(|e| NetnsError::io(&path, "lock its directory", e))?;
        if let Some(found) = Self::find(dir, name)? {
            if !is_namespace(&path) {
                let source = format!("/proc/self/fd/{}", found.fd.as_raw_fd());
                mount_bind(source, &path)
                    .map_err(|e| NetnsError::io(&path, "bind it here, too", e))?;
            }
        } else {
            let made = NetNs::new_with_env(name, Place(dir));
            made.map_err(|e| NetnsError::io(&path, "create", io::Error::other(e)))?;
        }
        Self::open(&path)
    }

    /// Removes `dir/name`; true if there was something to remove. The kernel tears the namespace down later, when its
    /// last user is gone.
    pub fn remove(dir: &Path, name: &str) -> Result<bool, NetnsError> {
        let path = checked(dir, name)?;
        let _lock = match lock(dir) {
            Ok(lock) => lock,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(NetnsError::io(&path, "lock its directory", errno)),
        };
        let mut was_there = false;
        // Another program may have mounted a second one on top.
        while is_namespace(&path) {
            let removed = NetNs::get_from_env(name, Place(dir)).and_then(NetNs::remove);
            removed.map_err(|e| NetnsError::io(&path, "unmount", io::Error::other(e)))?;
            was_there = true;
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(was_there),
            Err(e) => Err(NetnsError::io(&path, "remove its file", e)),
        }
    }

    /// Names of the namespaces that are bound in `dir` here, sorted; none if `dir` is absent.
    pub fn list(dir: &Path) -> Result<Vec<String>, NetnsError> {
        Self::names(dir, |name| is_namespace(&dir.join(name)))
    }

    /// Names of those that are bound in `dir` only in another mount namespace.
    pub fn list_elsewhere(dir: &Path) -> Result<Vec<String>, NetnsError> {
        Self::names(dir, |name| mounts::find(dir, name).is_some())
    }

    /// Names of the files in `dir` that are wanted, sorted.
    fn names(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, NetnsError> {
        let failed = |e| NetnsError::io(dir, "list", e);
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().ok();
            names.extend(name.filter(|name| wanted(name)));
        }
        names.sort();
        Ok(names)
    }

    /// The same, called by another path in messages.
    pub(crate) fn called(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// Where it was opened from, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode: equal for two handles exactly if they are the same namespace.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// Whether both are the same namespace.
    pub fn same_as(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// For `IFLA_NET_NS_FD`; valid as long as `self` is.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Runs `f` in the namespace. The calling thread enters it, and returns when `f` ends, also by a panic. What `f` starts, a
    /// thread or a process, stays in the namespace.
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let failed = |what, e: Errno| NetnsError::io(&self.path, what, e);
        let back = WayBack::open().map_err(|e| failed("open the way back from it", e))?;
        enter(&self.fd).map_err(|e| match e {
            // setns(2) fails in this way for a namespace of another kind.
            Errno::INVAL => NetnsError::OtherKind {
                path: self.path.clone(),
            },
            e => failed("enter", e),
        })?;
        let done = panic::catch_unwind(AssertUnwindSafe(f));
        back.go();
        done.map_err(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            NetnsError::Panicked {
                path: self.path.clone(),
                message: text.unwrap_or("no message").to_owned(),
            }
        })
    }
}

thread_local! {
    /// The namespace in which this thread is, once it has been looked for, unless the thread is on a visit to another one.
    static HERE: Cell<Option<OwnedFd>> = const { Cell::new(None) };
}

/// The namespace to which a thread returns.
struct WayBack(OwnedFd);

impl WayBack {
    /// That in which the thread is. Fails where the kernel would not let the thread in again.
    fn open() -> Result<Self, Errno> {
        if let Some(known) = HERE.take() {
            return Ok(Self(known));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let here = rustix::fs::open("/proc/thread-self/ns/net", flags, Mode::empty())?;
        enter(&here)?;
        Ok(Self(here))
    }

    /// Returns. A thread that cannot would do all that follows in a wrong namespace, so that ends the process.
    fn go(self) {
        if enter(&self.0).is_err() {
            process::abort();
        }
        HERE.set(Some(self.0));
    }
}

fn enter(namespace: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// Where our namespaces are bound, for netns-rs.
struct Place<'a>(&'a Path);

impl Env for Place<'_> {
    fn persist_dir(&self) -> PathBuf {
        self.0.to_owned()
    }

    /// netns-rs would bind the directory onto itself and make it shared, as `ip netns` does for private roots. Two
    /// processes at once stack such mounts, and nobody removes them; systemd has made `/run` shared already.
    fn init(&self) -> netns_rs::Result<()> {
        Ok(())
    }
}

/// `dir/name`, if `name` is one path part.
fn checked(dir: &Path, name: &str) -> Result<PathBuf, NetnsError> {
    let path = dir.join(name);
    if path.parent() == Some(dir) && path.file_name().is_some_and(|last| last == name) {
        return Ok(path);
    }
    Err(NetnsError::io(
        dir,
        format!("name {name:?}"),
        io::Error::from(io::ErrorKind::InvalidInput),
    ))
}

/// A lock on the directory, for processes that make or remove namespaces there; released when dropped. EAGAIN if another
/// process holds it for too long.
fn lock(dir: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) if Instant::now() < deadline => thread::sleep(PAUSE),
            locked => return locked.map(|()| fd),
        }
    }
}

pub(crate) fn is_namespace(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS_MAGIC)
}
