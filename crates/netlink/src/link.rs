//! Links: look up, change, remove.

use std::net::IpAddr;

use crate::{Error, Mac, Rtnl};

/// A network interface, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index in its namespace.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Hardware address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// `veth`, `bridge`, `vxlan`, ...; none for physical devices and `lo`.
    pub kind: Option<String>,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Group number; 0 is the default group.
    pub group: u32,
    /// The alias text.
    pub alias: Option<String>,
    /// What a VXLAN device has besides.
    pub vxlan: Option<VxlanInfo>,
}

/// The tunnel side of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanInfo {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Source address of the tunnel.
    pub local: Option<IpAddr>,
    /// Index of the underlay link in the namespace where the device was created; 0 if none.
    pub underlay: u32,
    /// Whether it learns VTEPs from traffic.
    pub learning: bool,
}

/// What to change of a link; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Administrative state.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Bridge to join by index; 0 leaves the bridge.
    pub master: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Group number.
    pub group: Option<u32>,
    /// Alias text, at most 255 bytes.
    pub alias: Option<String>,
    /// New name.
    pub name: Option<String>,
}

/// What to change of a bridge port; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// Answer ARP and ND for known neighbours instead of sending them out of this port.
    pub neigh_suppress: Option<bool>,
    /// Learn source addresses on this port.
    pub learning: Option<bool>,
    /// Isolated ports do not talk to each other.
    pub isolated: Option<bool>,
    /// Send frames back out of the port they came in by.
    pub hairpin: Option<bool>,
}

impl Rtnl {
    /// The link of that name, `None` if there is none.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        todo!("{name}")
    }

    /// All links of the namespace, by index.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        todo!()
    }

    /// Changes a link.
    pub async fn set_link(&self, index: u32, change: &LinkChange) -> Result<(), Error> {
        todo!("{index} {change:?}")
    }

    /// Changes the bridge port `index`.
    pub async fn set_port(&self, index: u32, port: &Port) -> Result<(), Error> {
        todo!("{index} {port:?}")
    }

    /// Removes the link of that name; false if there was none.
    pub async fn remove_link(&self, name: &str) -> Result<bool, Error> {
        todo!("{name}")
    }

    /// Removes all links of the group (not 0) in this namespace in one batch; false if there were none.
    pub async fn remove_group(&self, group: u32) -> Result<bool, Error> {
        todo!("{group}")
    }
}
