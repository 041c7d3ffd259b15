//! Questions about containers' namespaces that commands ask: `crosshost network connect` takes any container, also one that no
//! attachment of ours tells of.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use netlink::{Netns, NetnsError, Rtnl};
use plugin::Error;

/// Most interfaces that are tried for a name.
const MOST: u32 = 64;

/// Device and inode of the network namespace at a path. Code 3 if there is none.
pub fn id(path: &Path) -> Result<(u64, u64), Error> {
    Ok(Netns::open(path)?.id())
}

/// The first `ethN` that no interface in the namespace is called.
pub async fn free_interface(path: &Path) -> Result<Option<String>, Error> {
    let rtnl = Rtnl::open(&Netns::open(path)?)?;
    let links = rtnl.links().await?;
    let mut names = (0..MOST).map(|number| format!("eth{number}"));
    Ok(names.find(|name| links.iter().all(|link| link.name != *name)))
}

/// Whether the namespace with this id lives, by its path or because a process is in it; true where that cannot be told.
pub fn lives(path: &Path, id: (u64, u64)) -> bool {
    match Netns::open(path) {
        Ok(netns) if netns.id() == id => return true,
        Ok(_) | Err(NetnsError::Gone { .. }) => {}
        Err(_) => return true,
    }
    !netlink::sees_all_processes() || namespaces().any(|path| is(&path, id))
}

/// The network namespaces of all processes.
fn namespaces() -> impl Iterator<Item = PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|process| process.path().join("ns/net"))
}

fn is(path: &Path, id: (u64, u64)) -> bool {
    fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == id)
}
