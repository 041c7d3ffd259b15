//! Namespaces that are mounted in another mount namespace, and not in ours.
//!
//! A persistent namespace is a mount on a file. Programs that share the file system need not share its mounts: if a service has
//! `PrivateTmp=` or `PrivateMounts=`, other programs see the file, but not what the service mounts on it. Such a file looks
//! like one that a reboot or an unmount left behind, but the namespace exists, and containers are connected to it. So a program
//! that finds a plain file looks at the processes of this machine: `/proc/PID/mountinfo` lists what each has mounted there, and
//! `/proc/PID/root` leads to it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, Stat, fstat, major, minor, stat},
    io::Errno,
};

use crate::{Netns, NetnsError};

/// Enough bytes to distinguish one table of mounts from another: its first line begins with a number that no other mount has.
const BEGINNING: usize = 512;

/// A process that has a namespace mounted where this one has a plain file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Its id.
    pub process: u32,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.process, self.name)
    }
}

/// Whether `path` is a file on which nothing is mounted here.
pub(crate) fn is_bare(path: &Path) -> bool {
    let links_are_none = fs::symlink_metadata(path).is_ok_and(|it| it.is_file());
    links_are_none && !crate::netns::is_namespace(path)
}

/// A process that has a namespace mounted on the plain file `dir/name`, if one can be found.
pub(crate) fn find(dir: &Path, name: &str) -> Option<Elsewhere> {
    let path = dir.join(name);
    let here = is_bare(&path).then(|| stat(dir).ok()).flatten()?;
    let device = format!("{}:{}", major(here.st_dev), minor(here.st_dev));
    let mut known = BTreeSet::new();
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let table = table(&entry.path().join("mountinfo"), &mut known)?;
        has_mounted(&table, path.to_str()?, &device).then(|| Elsewhere {
            process,
            name: fs::read_to_string(entry.path().join("comm"))
                .map(|name| name.trim().to_owned())
                .unwrap_or_default(),
        })
    })
}

/// Opens the namespace that this process has at `dir/name`, if `dir` is the same directory there.
pub(crate) fn open(seen: &Elsewhere, dir: &Path, name: &str) -> Result<Netns, NetnsError> {
    let path = dir.join(name);
    let hidden = || NetnsError::Elsewhere {
        path: path.clone(),
        process: seen.clone(),
    };
    let (there, folder) = folder(seen, dir).map_err(|_| hidden())?;
    let here = stat(dir).map_err(|_| hidden())?;
    if (here.st_dev, here.st_ino) != (folder.st_dev, folder.st_ino) {
        return Err(hidden());
    }
    // By the descriptor, so that the process cannot exchange the file meanwhile.
    let opened = Netns::open(Path::new(&format!(
        "/proc/self/fd/{}/{name}",
        there.as_raw_fd()
    )));
    match opened {
        Ok(netns) => Ok(netns.called(path)),
        Err(NetnsError::Gone { .. }) => Err(NetnsError::Gone { path }),
        Err(_) => Err(hidden()),
    }
}

/// `dir` as the process sees it, from its own root.
fn folder(seen: &Elsewhere, dir: &Path) -> Result<(OwnedFd, Stat), Errno> {
    let root = PathBuf::from(format!("/proc/{}/root", seen.process));
    let there = root.join(dir.strip_prefix("/").unwrap_or(dir));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let there = rustix::fs::open(&there, flags, Mode::empty())?;
    let stat = fstat(&there)?;
    Ok((there, stat))
}

/// A table of mounts that is not among the known ones.
fn table(path: &Path, known: &mut BTreeSet<String>) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut bytes = vec![0; BEGINNING];
    let count = file.read(&mut bytes).ok()?;
    bytes.truncate(count);
    let first = String::from_utf8_lossy(&bytes)
        .split(' ')
        .next()?
        .to_owned();
    if !known.insert(first) {
        return None;
    }
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a table (proc(5), `/proc/PID/mountinfo`) has a namespace at `path`, on a file of this device (`major:minor`).
fn has_mounted(table: &str, path: &str, device: &str) -> bool {
    // ID, parent's ID, device, root, mount point, options, optional fields, "-", type, ...
    let fields = |line: &str| -> Option<[String; 5]> {
        let mut words = line.split(' ');
        let [id, parent, device, _, point] = std::array::from_fn(|_| words.next());
        let kind = words.skip_while(|word| *word != "-").nth(1);
        Some([id?, parent?, device?, point?, kind?].map(str::to_owned))
    };
    let on_device = |wanted: &str| {
        let mut below = table.lines().filter_map(fields);
        below.any(|[id, _, its, _, _]| id == wanted && its == device)
    };
    table
        .lines()
        .filter(|line| line.contains(path))
        .filter_map(fields)
        .any(|[_, parent, _, point, kind]| point == path && kind == "nsfs" && on_device(&parent))
}

/// Whether `/proc` shows all processes of this machine: outside the first process namespace it does not.
pub fn sees_all_processes() -> bool {
    /// Inode of the first one (`PROC_PID_INIT_INO`, uapi `linux/nsfs.h`).
    const FIRST: &str = "pid:[4026531836]";
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / /run rw,nosuid master:5 - tmpfs tmpfs rw,mode=755
41 30 0:4 net:[4026532500] /run/crosshost/netns/n1 rw shared:9 - nsfs nsfs rw
42 30 0:26 / /run/crosshost/netns/n2 rw - tmpfs none rw
";

    #[test]
    fn a_namespace_on_a_file_of_the_same_device_is_found() {
        let has = |path, device| has_mounted(TABLE, path, device);
        assert!(has("/run/crosshost/netns/n1", "0:25"));
        assert!(
            !has("/run/crosshost/netns/n1", "0:99"),
            "of another machine's /run"
        );
        assert!(
            !has("/run/crosshost/netns/n2", "0:25"),
            "mounted, and no namespace"
        );
        assert!(!has("/run/crosshost/netns/n", "0:25"));
    }

    #[test]
    fn odd_tables_have_nothing() {
        for table in ["", "\n", "1", "1 2 3 4 /x", "1 2 3 4 /x - "] {
            assert!(!has_mounted(table, "/x", "3"));
        }
    }
}
