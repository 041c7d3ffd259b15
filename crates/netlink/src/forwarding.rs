//! Forwarding entries of a sandbox: dump and change.
//!
//! A remote container needs three entries. The FDB of the VXLAN device has the VTEP of its MAC. The FDB of the bridge has the
//! VXLAN port for the MAC, so that no frame to it is flooded to the local containers. The neighbour table of the bridge has the
//! MAC of its address, from which the bridge answers ARP and ND itself. The bridge answers only if the FDB entry of that MAC is
//! on a port with `neigh_suppress` (kernel `net/bridge/br_arp_nd_proxy.c`), so all three belong together.
//!
//! The kernel adds entries of its own (MACs of the ports, multicast groups). They differ in state, and the dump
//! leaves them out, so that what was added is exactly what is dumped, and a reconcile is a comparison of two sets.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::entry::Entry;
use crate::message::Message;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rustix::io::Errno;

use crate::{Error, Mac, Rtnl};

/// The MAC of the VXLAN device's entries for frames to unknown MACs.
const ALL_ZERO: Mac = Mac([0; 6]);
/// State of a VXLAN FDB entry that never ages (`NUD_PERMANENT | NUD_NOARP`, as iproute2 writes it).
const VXLAN_STATIC: NeighbourState = NeighbourState::Other(0x80 | 0x40);

/// One forwarding entry of a sandbox's bridge and VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// Broadcast, multicast and unknown frames go to this VTEP too (all-zero FDB entry of the VXLAN device).
    Flood {
        /// Tunnel address of the remote host.
        vtep: IpAddr,
    },
    /// Frames for this MAC go to that VTEP (FDB entry of the VXLAN device).
    Fdb {
        /// The remote container.
        mac: Mac,
        /// Tunnel address of its host.
        vtep: IpAddr,
    },
    /// The MAC is behind the port (static FDB entry of the bridge), and no frame that comes by another port changes that
    /// (`sticky`).
    Port {
        /// The container.
        mac: Mac,
    },
    /// The same as versions up to 1.0.0 made it: a frame with that MAC moves the entry to the port by which it comes.
    Loose {
        /// The container.
        mac: Mac,
    },
    /// ARP and ND for this address are answered with this MAC (permanent neighbour on the bridge).
    Neigh {
        /// The remote container's address.
        addr: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
}

/// All entries of a sandbox: desired or dumped.
pub type Forwarding = BTreeSet<Forward>;

/// One step from a dump towards the desired state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Make the entry; for a MAC or address with another value, replace it.
    Add(Forward),
    /// Remove the entry; fine if it is not there.
    Remove(Forward),
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flood { vtep } => write!(f, "flooding to {vtep}"),
            Self::Fdb { mac, vtep } => write!(f, "vxlan entry {mac} at {vtep}"),
            Self::Port { mac } => write!(f, "bridge entry {mac}"),
            Self::Loose { mac } => write!(f, "bridge entry {mac} that frames can move"),
            Self::Neigh { addr, mac } => write!(f, "neighbour {addr} is {mac}"),
        }
    }
}

impl Rtnl {
    /// The entries that were configured on `bridge` and its port `vxlan` (link indices), without those that the kernel makes
    /// by itself.
    pub async fn forwarding(&self, bridge: u32, vxlan: u32) -> Result<Forwarding, Error> {
        let mut found = self.entries(AddressFamily::Bridge, bridge, vxlan).await?;
        found.extend(self.entries(AddressFamily::Unspec, bridge, vxlan).await?);
        // Collecting the set in one go sorts it once.
        Ok(found.into_iter().collect())
    }

    /// The configured neighbours of a link.
    pub async fn neighbours(&self, link: u32) -> Result<Forwarding, Error> {
        let found = self.entries(AddressFamily::Unspec, link, 0).await?;
        Ok(found.into_iter().collect())
    }

    /// The same without the bridge's neighbours.
    pub async fn fdb(&self, bridge: u32, port: u32) -> Result<Forwarding, Error> {
        let found = self.entries(AddressFamily::Bridge, bridge, port).await?;
        Ok(found.into_iter().collect())
    }

    async fn entries(
        &self,
        family: AddressFamily,
        bridge: u32,
        vxlan: u32,
    ) -> Result<Vec<Forward>, Error> {
        let mut question = NeighbourMessage::default();
        question.header.family = family;
        // Without a port in the request, the kernel walks the bridge's whole FDB once for each of its ports (`rtnl_fdb_dump`).
        match family {
            AddressFamily::Bridge => question.header.ifindex = vxlan,
            _ => question
                .attributes
                .push(NeighbourAttribute::IfIndex(bridge)),
        }
        let entry = |message| match message {
            Message::Neighbour(entry) => forward(&entry, bridge, vxlan),
            _ => None,
        };
        let found = self.dump(Message::GetNeighbour(question), entry).await;
        found.map_err(|refusal| refusal.on(format_args!("list of the entries of bridge {bridge}")))
    }

    /// Makes the changes in few sends. All are tried; the first error is returned.
    /// In any order: an `Add` wins over a `Remove` of the same MAC or address.
    pub async fn change(&self, bridge: u32, vxlan: u32, changes: &[Change]) -> Result<(), Error> {
        let added: HashSet<Forward> = changes.iter().filter_map(Change::added).map(key).collect();
        // An `Add` replaces. Removing the old entry first would leave a gap; removing it afterwards would remove the new entry,
        // because the kernel does not compare a neighbour's MAC.
        let needed = |change: &&Change| !matches!(change, Change::Remove(entry) if added.contains(&key(*entry)));
        let changes: Vec<Change> = changes.iter().filter(needed).copied().collect();
        let requests = changes
            .iter()
            .map(|change| change.request(bridge, vxlan))
            .collect();
        let results = self
            .request_all(requests)
            .await
            .map_err(|refusal| refusal.on(format_args!("entries of bridge {bridge}")))?;
        for (change, result) in changes.into_iter().zip(results) {
            match (change, result) {
                (_, Ok(())) => {}
                (Change::Remove(_), Err(refusal)) if refusal.is(Errno::NOENT) => {}
                (Change::Add(entry), Err(refusal)) => {
                    return Err(
                        refusal.on(format_args!("{entry} on bridge {bridge}, vxlan {vxlan}"))
                    );
                }
                (Change::Remove(entry), Err(refusal)) => {
                    return Err(refusal.on(format_args!(
                        "removal of {entry} on bridge {bridge}, vxlan {vxlan}"
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Change {
    fn added(&self) -> Option<Forward> {
        match *self {
            Self::Add(entry) => Some(entry),
            Self::Remove(_) => None,
        }
    }

    /// The request that makes this change, with its flags.
    pub(crate) fn request(self, bridge: u32, vxlan: u32) -> (Message, u16) {
        let (entry, adds) = match self {
            Self::Add(entry) => (entry, true),
            Self::Remove(entry) => (entry, false),
        };
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = vxlan;
        let (mac, dst) = match entry {
            Forward::Flood { vtep } => (ALL_ZERO, Some(vtep)),
            Forward::Fdb { mac, vtep } => (mac, Some(vtep)),
            Forward::Port { mac } | Forward::Loose { mac } => (mac, None),
            Forward::Neigh { addr, mac } => (mac, Some(addr)),
        };
        match entry {
            Forward::Flood { .. } | Forward::Fdb { .. } => {
                message.header.flags = NeighbourFlags::Own;
                message.header.state = VXLAN_STATIC;
            }
            Forward::Port { .. } => {
                message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
                message.header.state = NeighbourState::Noarp;
            }
            Forward::Loose { .. } => {
                message.header.flags = NeighbourFlags::Controller;
                message.header.state = NeighbourState::Noarp;
            }
            Forward::Neigh { addr, .. } => {
                message.header.family = if addr.is_ipv4() {
                    AddressFamily::Inet
                } else {
                    AddressFamily::Inet6
                };
                message.header.ifindex = bridge;
                message.header.state = NeighbourState::Permanent;
            }
        }
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        message
            .attributes
            .extend(dst.map(|dst| NeighbourAttribute::Destination(dst.into())));
        // The all-zero MAC has a list of destinations; the kernel refuses to replace it and appends a known one only once.
        let how = if matches!(entry, Forward::Flood { .. }) {
            NLM_F_APPEND
        } else {
            NLM_F_REPLACE
        };
        if adds {
            (Message::NewNeighbour(message), NLM_F_CREATE | how)
        } else {
            (Message::DelNeighbour(message), 0)
        }
    }
}

/// The kernel's key of an entry: a second entry with the same key replaces the first.
fn key(entry: Forward) -> Forward {
    match entry {
        Forward::Fdb { mac, .. } => Forward::Fdb {
            mac,
            vtep: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        },
        Forward::Neigh { addr, .. } => Forward::Neigh {
            addr,
            mac: ALL_ZERO,
        },
        Forward::Loose { mac } => Forward::Port { mac },
        Forward::Flood { .. } | Forward::Port { .. } => entry,
    }
}

/// `None` for entries of other links and for those the kernel made.
fn forward(entry: &Entry, bridge: u32, vxlan: u32) -> Option<Forward> {
    let mac = entry.mac?;
    let (state, destination) = (NeighbourState::from(entry.state), entry.destination);
    match AddressFamily::from(entry.family) {
        AddressFamily::Inet | AddressFamily::Inet6 => {
            let configured = entry.link == bridge && state == NeighbourState::Permanent;
            destination
                .filter(|_| configured)
                .map(|addr| Forward::Neigh { addr, mac })
        }
        AddressFamily::Bridge if entry.link != vxlan => None,
        AddressFamily::Bridge if entry.flags & NeighbourFlags::Own.bits() != 0 => match destination
        {
            Some(vtep) if mac == ALL_ZERO => Some(Forward::Flood { vtep }),
            Some(vtep) => Some(Forward::Fdb { mac, vtep }),
            None => None,
        },
        // PERMANENT is the port's own MAC, another state a learned one.
        AddressFamily::Bridge if state == NeighbourState::Noarp && entry.master == Some(bridge) => {
            let is_sticky = entry.flags & NeighbourFlags::Sticky.bits() != 0;
            Some(if is_sticky {
                Forward::Port { mac }
            } else {
                Forward::Loose { mac }
            })
        }
        _ => None,
    }
}
