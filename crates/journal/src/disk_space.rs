//! Whether there is room for another document, as far as can be told without writing one.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
};

use crate::{Error, ROOT};

/// What the smallest ADD needs, in bytes: two documents that are new, and a third while it takes the place of its older form.
const LEAST: u64 = 3 * 4096;

/// Fails where no ADD could write what it has to note: the file system of [`ROOT`] is read-only, or full.
pub fn has_room() -> Result<(), Error> {
    let mut dirs = Path::new(ROOT).ancestors();
    let dir = dirs.find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let fail = |errno: Errno| Error::Io {
        path: PathBuf::from(ROOT),
        source: io::Error::from(errno),
    };
    let there = statvfs(dir).map_err(fail)?;
    if there.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(fail(Errno::ROFS));
    }
    // A tmpfs without limits says 0 of both.
    let has_space = there.f_blocks == 0 || there.f_bavail * there.f_frsize >= LEAST;
    let has_inodes = there.f_files == 0 || there.f_favail > 0;
    if has_space && has_inodes {
        return Ok(());
    }
    Err(fail(Errno::NOSPC))
}
