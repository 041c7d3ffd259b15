//! What `crosshost sync` and `doctor` do for published ports. A program that flushes the ruleset removes them, too.

use std::collections::{BTreeMap, BTreeSet};

use journal::{All, Unreadable};
use nft::{
    Status,
    ports::{Ports, Published, Scope},
};
use plugin::{Error, all_readable};
use ruleset::{Obstacle, PublishedPorts};

use crate::{
    conflict,
    ingress::Ingress,
    route_localnet,
    table::{self, PortTable},
    target,
};

/// Makes the table match the records of this host; returns whether that was a change. Asks the kernel only if something is
/// published.
pub async fn repair() -> Result<bool, Error> {
    if table::records().is_empty()? {
        return Ok(false);
    }
    let here = target::local().await?;
    let mut ports = Ports::open()?;
    let table = PortTable::open()?;
    table.repair(&mut ports, &here)
}

/// The state of this host's published ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The number of ports that the records publish.
    pub published: usize,
    /// Whether the table has all of them.
    pub is_whole: bool,
    /// The interfaces to containers for which 127.0.0.1 does not work, though it should.
    pub shut: BTreeSet<String>,
    /// The owners of elements without a record: `NETWORK/INTERFACE/CONTAINER`, of which the end may be missing.
    pub lost: BTreeSet<String>,
    /// The records that cannot be read. Their ports stay in the table.
    pub unreadable: Vec<Unreadable>,
}

/// Compares the table with the records. Changes nothing.
pub fn examine() -> Result<Examined, Error> {
    let records = table::records();
    // Taking the lock would leave its file.
    let is_empty = records.is_empty()?;
    let _alone = (!is_empty).then(PortTable::open).transpose()?;
    let All {
        readable: records,
        unreadable,
    } = records.all()?;
    let mut ports = Ports::open()?;
    let found = ports.read(&Scope::All)?;
    let known = records.iter().map(|it| it.attachment.hash());
    let known: BTreeSet<_> = known
        .chain(unreadable.iter().map(Unreadable::name))
        .collect();
    let lost = conflict::without_record(&found.elements, |owner| known.contains(owner));
    let lost = lost.map(|(_, text)| text.to_owned()).collect();
    let is_whole = records.is_empty() || {
        let complete = ports.status()? == Status::Complete;
        let wanted: Published = conflict::all_records(&found, &records);
        complete && wanted == found
    };
    let runs = records.iter().flat_map(|record| &record.runs);
    Ok(Examined {
        published: runs.map(|run| usize::from(run.count)).sum(),
        is_whole,
        shut: records.iter().flat_map(route_localnet::disabled).collect(),
        lost,
        unreadable,
    })
}

/// What stops packets to published ports, or may: foreign rules, kernel settings.
pub async fn obstacles() -> Result<Vec<Obstacle>, Error> {
    let records = all_readable(&table::records())?;
    if records.is_empty() {
        return Ok(vec![]);
    }
    let ingress = Ingress::read().await?;
    let mut blocked: Vec<Obstacle> = Vec::new();
    for off in records
        .iter()
        .flat_map(|record| ingress.forwarding_off(record))
    {
        if !blocked.contains(&off) {
            blocked.push(off);
        }
    }
    let runs = || records.iter().flat_map(|record| &record.runs);
    let vias: BTreeSet<_> = runs().map(|run| run.via.as_str()).collect();
    // A rule can only name an interface that is gone, as it has no index.
    let index = |via| (via, netlink::index_of(via).unwrap_or(0));
    let vias: BTreeMap<_, _> = vias.into_iter().map(index).collect();
    let ports: Vec<_> = runs()
        .map(|run| PublishedPorts {
            protocol: (run.protocol.as_str(), run.protocol.number()),
            address: run.address,
            ports: run.ports(),
            to: run.to,
            via: (&run.via, vias.get(run.via.as_str()).copied().unwrap_or(0)),
        })
        .collect();
    let found = ruleset::published(&ports, |via, v6| ingress.interfaces(via, v6));
    blocked.extend(found?);
    Ok(blocked)
}
