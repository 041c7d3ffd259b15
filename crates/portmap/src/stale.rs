//! Ports of containers that are gone, for runtimes that never send DEL.
//!
//! A container is gone when its network namespace is. The path that the runtime named proves nothing by itself: another mount
//! namespace may hide it, and a process keeps a namespace alive whose path was removed. But with a namespace the kernel removes the
//! container's end of each veth pair, and with that the host's end. So an attachment is an orphan if the path leads nowhere, or to
//! another namespace, and the host's ends that the previous plugin's result names are gone. Without such ends nothing is known here:
//! for a container of `overlay` that plugin knows, and for one under `macvlan` nobody does.

use std::path::PathBuf;

use cni::{Call, CniResult};
use journal::Found;
use netlink::{Netns, Rtnl};
use nft::ports::Ports;
use plugin::{Error, all_readable};
use serde::{Deserialize, Serialize};

use crate::{
    record::Record,
    table::{self, PortTable},
};

/// By what it is known whether a container lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// Device and inode of that.
    pub netns_id: (u64, u64),
    /// Names and indexes of the host's ends of its veth pairs; never empty.
    pub ends: Vec<(String, u32)>,
}

impl Life {
    /// Of the container of an ADD; `None` if the result names no end, or the runtime no namespace.
    pub(crate) async fn of(call: &Call, result: &CniResult) -> Result<Option<Self>, Error> {
        let Some(path) = &call.netns else {
            return Ok(None);
        };
        let Ok(netns) = Netns::open(path) else {
            return Ok(None);
        };
        let rtnl = Rtnl::here(&Netns::current()?)?;
        let mut ends = Vec::new();
        let is_of_host = |it: &&cni::Interface| it.sandbox.as_ref().is_none_or(String::is_empty);
        for interface in result.interfaces.iter().filter(is_of_host) {
            let link = rtnl.link(&interface.name).await?;
            let link = link.filter(|link| link.kind.as_deref() == Some("veth"));
            ends.extend(link.map(|link| (link.name, link.index)));
        }
        Ok((!ends.is_empty()).then(|| Self {
            netns: path.clone(),
            netns_id: netns.id(),
            ends,
        }))
    }

    async fn is_over(&self, rtnl: &Rtnl) -> Result<bool, Error> {
        // A path that this process may not open proves nothing. The ends do.
        if Netns::open(&self.netns).is_ok_and(|netns| netns.id() == self.netns_id) {
            return Ok(false);
        }
        for (name, index) in &self.ends {
            let link = rtnl.link(name).await?;
            if link.is_some_and(|link| link.index == *index) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The records of containers that are certainly gone.
///
/// # Errors
///
/// What the file system or the kernel refuses.
pub async fn all() -> Result<Vec<Record>, Error> {
    let mut orphans = all_readable(&table::records())?;
    orphans.retain(|record| record.life.is_some());
    if orphans.is_empty() {
        return Ok(orphans);
    }
    let rtnl = Rtnl::here(&Netns::current()?)?;
    let mut over = Vec::new();
    for record in orphans {
        if let Some(life) = &record.life
            && life.is_over(&rtnl).await?
        {
            over.push(record);
        }
    }
    Ok(over)
}

/// Withdraws the ports of an orphan, like a DEL; false if an ADD or a DEL was quicker.
///
/// # Errors
///
/// What the file system or the kernel refuses.
pub fn take_down(record: &Record) -> Result<bool, Error> {
    let mut ports = Ports::open()?;
    let table = PortTable::open()?;
    // An ADD of the same attachment writes another one: it has a later time.
    if table.records.load(&record.attachment.hash())? != Found::Readable(record.clone()) {
        return Ok(false);
    }
    table.withdraw(&mut ports, record)?;
    Ok(true)
}
