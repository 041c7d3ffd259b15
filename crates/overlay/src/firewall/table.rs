//! What this host's one nftables table should have. Applies it, and compares it with the kernel.
//!
//! The table serves the whole host. Its users come and go independently: networks whose tunnels are guarded, and subnets that are
//! masqueraded. A document lists what all of them need. A verb that changes the document applies it under the same lock. It also
//! notes the kernel's count of ruleset changes at which the table was last seen whole; while the count stays the same, a verb need
//! not look at the table. The table is removed with its last user.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use cluster::NetworkSnapshot;
use ipnetwork::IpNetwork;
use journal::Found;
use nft::Nft;
use plugin::{Error, readable};
use serde::{Deserialize, Serialize};

use crate::{follow::follower, names::EGRESS_BRIDGE, segment::sandbox, state::host::Host};

/// The document's name, and its lock's.
const NAME: &str = "table";

const CONFIG: nft::Config<'_> = nft::Config {
    egress_bridge: EGRESS_BRIDGE,
};

/// What the table should have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The kernel's count of changes to any rules when all of this was last seen in the table.
    #[serde(default)]
    rules: Option<u32>,
    /// Subnets that leave the host under its own address, by owner.
    hidden: BTreeMap<String, BTreeSet<IpNetwork>>,
    /// Networks with their tunnels.
    tunnels: BTreeMap<String, Tunnel>,
    /// Sets of tunnel addresses by their digests; networks that know the same hosts share one.
    hosts: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// A network's tunnel on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tunnel {
    /// Our tunnel address, and the UDP port.
    end: SocketAddr,
    /// Digest of the set of the addresses that may send to it.
    hosts: String,
}

impl Table {
    fn guard(&mut self, network: &str, end: SocketAddr, hosts: BTreeSet<IpAddr>) {
        // A set that is here goes on under the digest that it has: versions up to commit 86dc1f2 computed another one.
        let known = self.hosts.iter().find(|(_, known)| **known == hosts);
        let digest = known.map_or_else(|| digest(&hosts), |(digest, _)| digest.clone());
        let tunnel = Tunnel {
            end,
            hosts: digest.clone(),
        };
        self.tunnels.insert(network.to_owned(), tunnel);
        self.hosts.insert(digest, hosts);
        self.forget_hosts();
    }

    fn forget_hosts(&mut self) {
        let used: BTreeSet<_> = self.tunnels.values().map(|tunnel| &tunnel.hosts).collect();
        self.hosts.retain(|digest, _| used.contains(digest));
    }

    fn ends_and_hosts(&self) -> (BTreeSet<SocketAddr>, BTreeSet<IpAddr>) {
        let ends = self.tunnels.values().map(|tunnel| tunnel.end).collect();
        (ends, self.hosts.values().flatten().copied().collect())
    }

    fn is_unused(&self) -> bool {
        self.hidden.is_empty() && self.tunnels.is_empty()
    }

    /// The subnets that leave the host under its own address, each with its owner.
    fn masqueraded(&self) -> BTreeSet<Masqueraded> {
        let all = self.hidden.iter();
        all.flat_map(|(owner, subnets)| subnets.iter().map(|it| (*it, owner.clone())))
            .collect()
    }

    /// Makes the kernel's table this one.
    fn install(&self, nft: &mut Nft) -> Result<(), nft::Error> {
        nft.ensure(&CONFIG)?;
        let wanted = self.masqueraded();
        for (subnet, owner) in nft.egress()? {
            if !wanted.contains(&(subnet, owner.clone())) {
                nft.remove_egress_of(subnet, &owner)?;
            }
        }
        for (subnet, owner) in wanted {
            nft.add_egress(subnet, &owner)?;
        }
        let (ends, hosts) = self.ends_and_hosts();
        nft.guard(&ends, &hosts)
    }

    /// What the kernel has of it.
    fn look(&self, nft: &mut Nft) -> Result<Seen, nft::Error> {
        let (ends, hosts) = self.ends_and_hosts();
        Ok(Seen {
            is_complete: nft.status(&CONFIG)? == nft::Status::Complete,
            masqueraded: nft.egress()?.into_iter().collect(),
            guards: nft.guards(&ends, &hosts)?,
        })
    }

    /// What is not as it should be. Pure.
    fn deviation(&self, seen: &Seen) -> Option<String> {
        if !seen.is_complete {
            return Some("gone or changed by another program".to_owned());
        }
        let wanted = self.masqueraded();
        let lacks = |(subnet, _): &Masqueraded| format!("does not masquerade {subnet}");
        let has = |(subnet, _): &Masqueraded| format!("masquerades {subnet}, which is not ours");
        let first = wanted.difference(&seen.masqueraded).next().map(lacks);
        first
            .or_else(|| seen.masqueraded.difference(&wanted).next().map(has))
            .or_else(|| {
                let what = "does not know the hosts that may send to its tunnels";
                (!seen.guards).then(|| what.to_owned())
            })
    }
}

/// A subnet and its owner.
type Masqueraded = (IpNetwork, String);

/// What the kernel has of the table.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// Whether its chains, rules and sets are all there, and no others.
    is_complete: bool,
    masqueraded: BTreeSet<Masqueraded>,
    /// Whether it lets only those send to the tunnels that may.
    guards: bool,
}

/// What stands for a set of tunnel addresses.
fn digest(hosts: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    journal::digest(&texts)
}

/// The addresses that may send to a tunnel that ends at `end`: the nodes of this snapshot, and this host itself.
fn senders(end: SocketAddr, snapshot: &NetworkSnapshot) -> BTreeSet<IpAddr> {
    let vteps = snapshot
        .nodes
        .iter()
        .filter_map(|(_, node)| node.last_read()?.vtep);
    let hosts = vteps.filter(|vtep| vtep.is_ipv4() == end.is_ipv4());
    hosts.chain([end.ip()]).collect()
}

/// The first of this owner's subnets that is not masqueraded. Changes nothing.
pub fn exposed(
    host: &Host,
    owner: &str,
    subnets: BTreeSet<IpNetwork>,
) -> Result<Option<IpNetwork>, Error> {
    let _lock = host.lock(NAME)?;
    let mut nft = Nft::open()?;
    let masqueraded = nft.egress()?;
    let is_masqueraded = |subnet: &IpNetwork| masqueraded.contains(&(*subnet, owner.to_owned()));
    Ok(subnets.into_iter().find(|subnet| !is_masqueraded(subnet)))
}

/// Lets only the nodes of this snapshot, and this host itself, send to the network's tunnel, which ends at `end`; whether the table
/// was different.
pub fn guard(
    host: &Host,
    network: &str,
    end: SocketAddr,
    snapshot: &NetworkSnapshot,
) -> Result<bool, Error> {
    let hosts = senders(end, snapshot);
    let others = if is_lost(host)? {
        others(host, network, end.ip())?
    } else {
        Vec::new()
    };
    let guarded = apply(host, |table| {
        for (other, end, hosts) in others {
            table.guard(&other, end, hosts);
        }
        table.guard(network, end, hosts);
    });
    guarded.map(|(_, changed)| changed)
}

/// Whether there is a document that cannot be read. Then the next verb finds out anew what uses the table.
fn is_lost(host: &Host) -> Result<bool, Error> {
    let found = host.firewall.load(NAME)?;
    Ok(matches!(found, Found::Unreadable(_)))
}

/// The tunnels of all networks but one on this host, whose tunnels end at `vtep`, by their snapshots.
fn others(
    host: &Host,
    network: &str,
    vtep: IpAddr,
) -> Result<Vec<(String, SocketAddr, BTreeSet<IpAddr>)>, Error> {
    let mut others = Vec::new();
    for other in sandbox::networks()?.into_iter().filter(|it| it != network) {
        let Some(snapshot) = follower::copy(host, &other)? else {
            continue;
        };
        let port = snapshot
            .network
            .as_ref()
            .and_then(|it| it.record.vxlan_port);
        let end = SocketAddr::new(vtep, port.unwrap_or(cluster::VXLAN_PORT));
        let hosts = senders(end, &snapshot);
        others.push((other, end, hosts));
    }
    Ok(others)
}

/// Masquerades these subnets, and no others of this owner; whether the table was different.
pub fn masquerade(host: &Host, owner: &str, subnets: BTreeSet<IpNetwork>) -> Result<bool, Error> {
    let add = |table: &mut Table| drop(table.hidden.insert(owner.to_owned(), subnets));
    apply(host, add).map(|(_, changed)| changed)
}

/// Masquerades nothing of this owner any more. Drop the returned socket last: closing it blocks until the kernel has freed what was
/// removed.
pub fn stop_masquerading(host: &Host, owner: &str) -> Result<Nft, Error> {
    let removed = apply(host, |table| drop(table.hidden.remove(owner)));
    removed.map(|(nft, _)| nft)
}

/// Stops guarding the network's tunnel, which is gone. Drop the returned socket last, as that of [`stop_masquerading`].
pub fn forget_tunnel(host: &Host, network: &str) -> Result<Nft, Error> {
    let forgotten = apply(host, |table| {
        table.tunnels.remove(network);
        table.forget_hosts();
    });
    forgotten.map(|(nft, _)| nft)
}

/// Makes the table as the document says; whether something was wrong.
pub fn repair(host: &Host) -> Result<bool, Error> {
    match document(host)? {
        Some(_) => apply(host, |_| ()).map(|(_, changed)| changed),
        None => Ok(false),
    }
}

/// How the table differs from the document, if it does. Changes nothing.
pub fn deviation(host: &Host) -> Result<Option<String>, Error> {
    let _lock = host.lock(NAME)?;
    let Some(table) = document(host)? else {
        return Ok(None);
    };
    let seen = Nft::open().and_then(|mut nft| table.look(&mut nft))?;
    Ok(table.deviation(&seen))
}

/// The document. One that cannot be read counts as absent: [`guard`] finds out what uses the table.
fn document(host: &Host) -> Result<Option<Table>, Error> {
    readable(&host.firewall, NAME)
}

/// Changes the document and applies it; whether the kernel had something else. Returns the open socket.
fn apply(host: &Host, change: impl FnOnce(&mut Table)) -> Result<(Nft, bool), Error> {
    let _lock = host.lock(NAME)?;
    let before = document(host)?;
    let mut after = before.clone().unwrap_or_default();
    let mut nft = Nft::open()?;
    if is_lost(host)? {
        // What is masqueraded stays so until its owner says otherwise.
        for (subnet, owner) in nft.egress()? {
            after.hidden.entry(owner).or_default().insert(subnet);
        }
    }
    change(&mut after);
    if after.is_unused() {
        let removed = nft.remove_table(&CONFIG)?;
        host.firewall.remove(NAME)?;
        return Ok((nft, removed));
    }
    let count = nft.generation()?;
    if before.as_ref() == Some(&after) && after.rules == Some(count) {
        return Ok((nft, false));
    }
    let save = |table: &Table| host.firewall.save(NAME, table).map_err(Error::from);
    if before.as_ref() != Some(&after) {
        after.rules = None;
        save(&after)?;
    }
    // Others may change their own rules meanwhile: that is no damage to ours.
    let was_whole =
        before.as_ref() == Some(&after) && after.deviation(&after.look(&mut nft)?).is_none();
    if !was_whole {
        after.install(&mut nft)?;
    }
    // Unchanged all the while, so whole at this count. Else the next verb looks again.
    let unchanged = nft.generation()? == count;
    after.rules = unchanged.then_some(count);
    save(&after)?;
    Ok((nft, !was_whole && !unchanged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_damage_of_the_table_is_named() {
        let hidden: BTreeMap<_, _> = [("a", "10.0.0.0/24"), ("b", "172.18.0.0/16")]
            .map(|(owner, subnet)| (owner.to_owned(), [subnet.parse().unwrap()].into()))
            .into();
        let table = Table {
            hidden,
            ..Table::default()
        };
        let whole = Seen {
            is_complete: true,
            masqueraded: table.masqueraded(),
            guards: true,
        };
        let owned = |subnet: &str, owner: &str| (subnet.parse().unwrap(), owner.to_owned());
        let told = |damage: &dyn Fn(&mut Seen)| {
            let mut seen = whole.clone();
            damage(&mut seen);
            table.deviation(&seen).unwrap_or_default()
        };
        assert_eq!(told(&|_| ()), "");
        assert_eq!(
            told(&|seen| seen.is_complete = false),
            "gone or changed by another program"
        );
        let removed = told(&|seen| drop(seen.masqueraded.pop_first()));
        assert_eq!(removed, "does not masquerade 10.0.0.0/24");
        let changed = told(&|seen| {
            seen.masqueraded.pop_first();
            seen.masqueraded.insert(owned("10.0.0.0/24", "other"));
        });
        assert_eq!(changed, "does not masquerade 10.0.0.0/24");
        let doubled = told(&|seen| {
            seen.masqueraded.insert(owned("10.7.0.0/16", "a"));
        });
        assert_eq!(doubled, "masquerades 10.7.0.0/16, which is not ours");
        assert_eq!(
            told(&|seen| seen.guards = false),
            "does not know the hosts that may send to its tunnels"
        );
    }

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn a_set_of_hosts_goes_on_under_the_digest_that_an_earlier_version_gave_it() {
        let end: SocketAddr = "192.168.1.11:4789".parse().unwrap();
        let hosts = set(&["192.168.1.11", "192.168.1.12"]);
        let earlier = Tunnel {
            end,
            hosts: "0123456789abcdef".to_owned(),
        };
        let noted = Table {
            tunnels: [("n".to_owned(), earlier.clone())].into(),
            hosts: [(earlier.hosts, hosts.clone())].into(),
            ..Table::default()
        };
        let mut table = noted.clone();
        table.guard("n", end, hosts);
        assert_eq!(table, noted, "nothing to be mended");
        let more = set(&["192.168.1.11", "192.168.1.12", "192.168.1.13"]);
        table.guard("n", end, more.clone());
        let (digest, known) = table.hosts.first_key_value().unwrap();
        assert_eq!((digest.as_str(), known), ("d00b707456e2a417", &more));
        assert_eq!((table.hosts.len(), &table.tunnels["n"].hosts), (1, digest));
    }
}
