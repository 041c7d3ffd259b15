//! Whether there is room for another document, judged without writing one.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
};

use crate::{Error, ROOT};

/// Bytes that the smallest ADD needs: two new documents, and a third one while it replaces its older form.
const LEAST: u64 = 3 * 4096;

/// Fails if no ADD could write its documents, because the file system of [`ROOT`] is read-only or full.
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
    // A tmpfs without limits reports 0 for both.
    let has_space = there.f_blocks == 0 || there.f_bavail * there.f_frsize >= LEAST;
    let has_inodes = there.f_files == 0 || there.f_favail > 0;
    if has_space && has_inodes {
        return Ok(());
    }
    Err(fail(Errno::NOSPC))
}
