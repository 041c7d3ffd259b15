//! Making bridges, VXLAN devices and veth pairs.

use std::net::IpAddr;

use crate::{Error, Link, Mac, Netns, Rtnl};

/// A bridge to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Interface name.
    pub name: String,
    /// Hardware address; the kernel picks one if none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Group number, 0 for none.
    pub group: u32,
}

/// A VXLAN device to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Interface name.
    pub name: String,
    /// VXLAN network identifier, 1 to 2^24 - 1.
    pub vni: u32,
    /// UDP destination port, 4789 by IANA.
    pub port: u16,
    /// This host's tunnel address.
    pub local: IpAddr,
    /// Index of the underlay link in the creating namespace.
    pub underlay: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge to join, in the target namespace.
    pub master: Option<u32>,
}

/// A veth pair to make: this end in the socket's namespace, the peer in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Veth {
    /// Interface name of this end.
    pub name: String,
    /// Hardware address of this end; the kernel picks one if none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge this end joins.
    pub master: Option<u32>,
    /// Group number of this end, 0 for none.
    pub group: u32,
    /// The other end.
    pub peer: VethEnd,
}

/// The far end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethEnd {
    /// Interface name.
    pub name: String,
    /// Hardware address; the kernel picks one if none.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Group number, 0 for none.
    pub group: u32,
    /// Bring it up at once. Leave it down to write sysctls first (accept_ra, dad) and raise it by [`Rtnl::set_link`].
    pub up: bool,
}

impl Rtnl {
    /// Makes a bridge, up, without multicast snooping. [`Error::is_exists`] if the name is taken.
    pub async fn create_bridge(&self, bridge: &Bridge) -> Result<Link, Error> {
        todo!("{bridge:?}")
    }

    /// Makes a VXLAN device in namespace `into`, up; its UDP socket stays in this socket's namespace.
    /// [`Error::is_exists`] if the name or the VNI is taken: also, for a short time, by a namespace that the kernel is still tearing down.
    pub async fn create_vxlan(&self, vxlan: &Vxlan, into: &Netns) -> Result<(), Error> {
        todo!("{vxlan:?} {into:?}")
    }

    /// Makes a veth pair; this end is up. Returns this end. [`Error::is_exists`] if a name is taken.
    pub async fn create_veth(&self, veth: &Veth, peer_ns: &Netns) -> Result<Link, Error> {
        todo!("{veth:?} {peer_ns:?}")
    }
}
