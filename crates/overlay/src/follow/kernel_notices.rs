//! Notices: the namespaces in which the kernel reports changes of our objects: the host, each sandbox, and the egress namespace.

use plugin::Error;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

pub use netlink::Notices;
use netlink::{Netns, NetnsError, Scope};

use crate::{
    names::{self, LINKS},
    segment::sandbox,
};

/// The name of our tables, on the host and in sandboxes.
const TABLE: &str = "crosshost";

/// A namespace that has objects of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    path: PathBuf,
    /// Device and inode. They differ when the namespace at the path was replaced.
    id: (u64, u64),
    shared: bool,
}

/// All such namespaces that exist now.
pub fn sources() -> Result<Vec<Source>, Error> {
    let (folder, bridge) = names::egress_netns();
    let sandboxes = names::sandboxes();
    let own = sandbox::networks()?
        .into_iter()
        .map(|network| sandboxes.join(network))
        .chain([folder.join(bridge)]);
    let host = (PathBuf::from("/proc/thread-self/ns/net"), true);
    let all = own.map(|path| (path, false)).chain([host]);
    Ok(all
        .filter_map(|(path, shared)| {
            let id = fs::metadata(&path).ok()?;
            let id = (id.dev(), id.ino());
            Some(Source { path, id, shared })
        })
        .collect())
}

impl Source {
    /// Listens there; returns no listener if the namespace is gone. The namespace lives as long as a listener does.
    pub fn listen(&self) -> Result<Vec<Notices>, Error> {
        let netns = match Netns::open(Path::new(&self.path)) {
            Ok(netns) => netns,
            Err(NetnsError::Gone { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let links = if self.shared {
            Scope::Host(LINKS)
        } else {
            Scope::Sandbox
        };
        [links, Scope::Rules(TABLE)]
            .into_iter()
            .map(|scope| Notices::open(&netns, scope).map_err(Error::from))
            .collect()
    }
}
