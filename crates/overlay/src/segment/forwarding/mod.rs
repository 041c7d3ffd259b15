//! The forwarding entries that a sandbox should have, computed from a snapshot alone. Pure.
//!
//! A container's MAC is a function of its address. An address's home is that of its block, but for the few addresses that
//! changed hands one by one. So all entries of every remote address can be made before any container has it, and an ADD
//! changes nothing on other hosts.
//!
//! A requested MAC is the exception. Hosts whose snapshot has it send frames for it to its home, and let the container answer
//! for its address itself: a host that has not read of its end asks the next container at that address. A host that has
//! not read of its beginning sends to the computed MAC, and the container's own host rewrites that ([`translations`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use cluster::forwarder::Trust;
use cluster::{NetworkSnapshot, Stored};
use netlink::{Change, Forward, Forwarding, Mac};

/// The MAC of the interface whose first address this is, if no other was requested.
pub fn mac_of(address: IpAddr) -> Mac {
    Mac(ipam::Mac::of(address).0)
}

/// The MACs that frames are sent to, each with the one that replaces it.
pub type Translations = BTreeMap<ipam::Mac, ipam::Mac>;

/// The tunnel address of a node, unless it is this one or cannot be reached from its own tunnel address. A remote node
/// with our own is an old record of ourselves.
fn away(snapshot: &NetworkSnapshot, node: &str, vtep: IpAddr, name: &str) -> Option<IpAddr> {
    let remote = snapshot.nodes.get(name).and_then(Stored::last_read);
    remote
        .filter(|remote| remote.name != node)
        .and_then(|remote| remote.vtep)
        .filter(|there| *there != vtep && there.is_ipv4() == vtep.is_ipv4())
}

/// The tunnel addresses of the other hosts that have addresses of the network.
pub fn peers(snapshot: &NetworkSnapshot, node: &str, vtep: IpAddr) -> BTreeSet<IpAddr> {
    let away = |name: &str| away(snapshot, node, vtep, name);
    if snapshot.may_be_anywhere() {
        return snapshot
            .nodes
            .keys()
            .filter_map(|name| away(name))
            .collect();
    }
    snapshot.owners().filter_map(away).collect()
}

/// The MACs that addresses of more than one home have. IPv4 tells each address by its MAC, IPv6 by its low 32 bits only.
fn shared<'n>(homes: impl Iterator<Item = (IpAddr, Option<&'n str>)>) -> BTreeSet<Mac> {
    let mut known = BTreeMap::new();
    let macs = homes.map(|(address, home)| (mac_of(address), home));
    macs.filter(|(mac, home)| {
        known
            .insert(*mac, *home)
            .is_some_and(|other| other != *home)
    })
    .map(|(mac, _)| mac)
    .collect()
}

/// All entries that the sandbox on `node`, whose tunnel address is `vtep`, should have: for each remote host with an
/// address of the network a flood entry, and for each of its addresses the three that take a frame there.
///
/// Frames flood, without an entry, for an address that changes hands, for one of a block whose record cannot be read, and for
/// one whose MAC an address of another home has: an entry would take the frames of both to one of the two.
pub fn desired(
    snapshot: &NetworkSnapshot,
    node: &str,
    vtep: IpAddr,
    trust: Trust<'_>,
) -> Forwarding {
    let away = |name: &str| away(snapshot, node, vtep, name);
    let floods = peers(snapshot, node, vtep).into_iter();
    let floods = floods.map(|vtep| Forward::Flood { vtep });
    let Trust::Homes { local } = trust else {
        return floods.collect();
    };
    // There may be tens of thousands: a set that is made of all at once is sorted once.
    let mut entries: Vec<_> = floods.collect();
    let silent = |address: IpAddr| local.contains(&address) || !tells_mac(snapshot, address);
    let homes = || snapshot.homes().filter(|(address, _)| !silent(*address));
    let here = local
        .iter()
        .filter(|address| tells_mac(snapshot, **address));
    let there = homes().map(|(address, home)| (address, Some(home)));
    let all = here.map(|address| (*address, None)).chain(there);
    let shared = shared(all.filter(|(address, _)| address.is_ipv6()));
    let exceptions = snapshot.exceptions();
    for (addr, home) in homes() {
        let mac = mac_of(addr);
        let Some(vtep) = away(home).filter(|_| !shared.contains(&mac)) else {
            continue;
        };
        entries.extend([Forward::Fdb { mac, vtep }, Forward::Port { mac }]);
        match exceptions.get(&addr) {
            None => entries.push(Forward::Neigh { addr, mac }),
            Some(asked) => {
                let mac = Mac(asked.0);
                entries.extend([Forward::Fdb { mac, vtep }, Forward::Port { mac }]);
            }
        }
    }
    entries.into_iter().collect()
}

/// What the sandbox on `node` rewrites: computed MACs of its own containers that requested another one.
pub fn translations(snapshot: &NetworkSnapshot, node: &str) -> Translations {
    let here = |(address, _): &(IpAddr, _)| {
        tells_mac(snapshot, *address) && snapshot.home(*address) == Some(node)
    };
    let own = snapshot.exceptions().into_iter().filter(here);
    own.map(|(address, mac)| (ipam::Mac::of(address), mac))
        .collect()
}

/// Whether MACs are computed from addresses like this one; assumed where the snapshot does not have the network.
fn tells_mac(snapshot: &NetworkSnapshot, address: IpAddr) -> bool {
    let network = snapshot.network.as_ref();
    network.is_none_or(|network| network.record.tells_mac(address))
}

/// Changes entries for a host that answers for the `gateways` by itself, with `mac` like every other host. Nothing for them goes
/// to another host, though their blocks may be there, and the bridge answers for their MAC.
pub fn answered_here(entries: &mut Forwarding, gateways: &BTreeSet<IpAddr>, mac: Mac) {
    let ours: BTreeSet<_> = gateways.iter().map(|gateway| mac_of(*gateway)).collect();
    entries.retain(|entry| match entry {
        Forward::Flood { .. } => true,
        Forward::Fdb { mac, .. }
        | Forward::Port { mac }
        | Forward::Loose { mac }
        | Forward::Neigh { mac, .. } => !ours.contains(mac),
    });
    entries.extend(
        gateways
            .iter()
            .map(|addr| Forward::Neigh { addr: *addr, mac }),
    );
}

/// The steps from what the kernel has to what it should have; none if they are equal.
pub fn changes(desired: &Forwarding, present: &Forwarding) -> Vec<Change> {
    let gone: BTreeSet<_> = present.difference(desired).copied().collect();
    let removed = gone.into_iter().map(Change::Remove);
    removed
        .chain(desired.difference(present).copied().map(Change::Add))
        .collect()
}

#[cfg(test)]
mod tests;
