//! Which forwarding entries a sandbox should have, from the news alone. Pure.
//!
//! A container's MAC is a function of its address, and an address's home is that of its block, but for the few addresses
//! that changed hands one by one. So every entry of every remote address can be made before any container has it, and
//! an ADD changes nothing on other hosts.
//!
//! But for a MAC that was asked for. Hosts that have heard of it know where it is, and let its container answer for its
//! address itself: so one that has not heard of its end asks the next container at that address. One that has not heard of
//! its beginning sends to the MAC of the address, and the container's own host readdresses that ([`translations`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use cluster::forwarder::Trust;
use cluster::{NetworkSnapshot, Stored};
use netlink::{Change, Forward, Forwarding, Mac};

/// The MAC of the interface that has this address first, if nobody asked for another.
pub fn mac_of(address: IpAddr) -> Mac {
    Mac(ipam::Mac::of(address).0)
}

/// What frames are addressed to, and what they are to be addressed to instead.
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
/// An address that changes hands has no entry, nor has one of a block whose record cannot be read, nor has one whose MAC an address of another home has: an entry would take
/// the frames of both to one of the two. They flood.
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

/// What frames to the containers of `node` are to be addressed to in its sandbox, of those whose MAC was asked for.
pub fn translations(snapshot: &NetworkSnapshot, node: &str) -> Translations {
    let here = |(address, _): &(IpAddr, _)| {
        tells_mac(snapshot, *address) && snapshot.home(*address) == Some(node)
    };
    let own = snapshot.exceptions().into_iter().filter(here);
    own.map(|(address, mac)| (ipam::Mac::of(address), mac))
        .collect()
}

/// Whether MACs are computed from addresses like this one; so it is taken where nobody knows the network.
fn tells_mac(snapshot: &NetworkSnapshot, address: IpAddr) -> bool {
    let network = snapshot.network.as_ref();
    network.is_none_or(|network| network.record.tells_mac(address))
}

/// The same where this host answers for the `gateways` by itself, with `mac` like every other host: nothing for them goes
/// to one of those, though their blocks may be there, and the bridge knows their MAC and so keeps questions for it here.
pub fn answered_here(entries: &mut Forwarding, gateways: &BTreeSet<IpAddr>, mac: Mac) {
    let ours: BTreeSet<_> = gateways.iter().map(|gateway| mac_of(*gateway)).collect();
    entries.retain(|entry| match entry {
        Forward::Flood { .. } => true,
        Forward::Fdb { mac, .. } | Forward::Port { mac } | Forward::Neigh { mac, .. } => {
            !ours.contains(mac)
        }
    });
    entries.extend(
        gateways
            .iter()
            .map(|addr| Forward::Neigh { addr: *addr, mac }),
    );
}

/// The steps from what the kernel has to what it should have. Nothing, if they are the same.
pub fn changes(desired: &Forwarding, present: &Forwarding) -> Vec<Change> {
    let gone: BTreeSet<_> = present.difference(desired).copied().collect();
    let removed = gone.into_iter().map(Change::Remove);
    removed
        .chain(desired.difference(present).copied().map(Change::Add))
        .collect()
}

#[cfg(test)]
mod tests;
