//! Forwarding entries of a sandbox: dump and change.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::{Error, Mac, Rtnl};

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
    /// The MAC is behind the VXLAN port (static FDB entry of the bridge).
    Port {
        /// The remote container.
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

impl Rtnl {
    /// The entries that somebody configured on `bridge` and its port `vxlan` (link indices); what the kernel makes by itself is left out.
    pub async fn forwarding(&self, bridge: u32, vxlan: u32) -> Result<Forwarding, Error> {
        todo!("{bridge} {vxlan}")
    }

    /// Makes the changes in few sends. All are tried; the first error is returned.
    /// In any order: an `Add` wins over a `Remove` of the same MAC or address.
    pub async fn change(&self, bridge: u32, vxlan: u32, changes: &[Change]) -> Result<(), Error> {
        todo!("{bridge} {vxlan} {changes:?}")
    }
}
