//! Routes and the routing decision.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{Error, Rtnl};

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination network; prefix length 0 for the default route.
    pub dst: IpNetwork,
    /// Next hop; none for a network on the link.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing link.
    pub dev: u32,
    /// MTU of the path in bytes.
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise.
    pub advmss: Option<u32>,
    /// Metric: the lower wins.
    pub priority: Option<u32>,
    /// Routing table; main if none.
    pub table: Option<u32>,
    /// Scope as in rtnetlink (0 universe, 253 link, 254 host); by gateway if none.
    pub scope: Option<u8>,
}

/// Where the kernel would send a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Index of the outgoing link.
    pub dev: u32,
    /// The address the packet would leave from.
    pub source: Option<IpAddr>,
    /// The next hop, if not on the link.
    pub gateway: Option<IpAddr>,
}

impl Rtnl {
    /// Adds a route. [`Error::is_exists`] if one with the same destination, priority and table is there.
    pub async fn add_route(&self, route: &Route) -> Result<(), Error> {
        todo!("{route:?}")
    }

    /// All unicast routes with a single next hop, of all tables but `local`.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        todo!()
    }

    /// The kernel's routing decision for a packet to `to`; an error ([`Error::is_gone`] or ENETUNREACH) if there is none.
    pub async fn route_to(&self, to: IpAddr) -> Result<Hop, Error> {
        todo!("{to}")
    }
}
