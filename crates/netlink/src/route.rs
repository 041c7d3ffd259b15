//! Routes and the routing decision.
//!
//! The fields are those of a CNI route, so that a result's routes pass through unchanged, and what was added comes back
//! from [`Rtnl::routes`] as it was, except that the kernel fills in table, scope and, for IPv6, priority.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::message::Message;
use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;
use rustix::io::Errno;

use crate::error::Refusal;
use crate::{Error, Rtnl};

/// The kernel's own table of local and broadcast addresses (uapi `RT_TABLE_LOCAL`).
const TABLE_LOCAL: u32 = 255;

/// A unicast route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The source address of packets whose sender chose none.
    pub source: Option<IpAddr>,
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
    /// Whether it goes to one other machine: not to this host itself, and not to many.
    pub is_to_one: bool,
}

impl Route {
    /// A route in the main table with nothing special.
    pub fn new(dst: IpNetwork, gateway: Option<IpAddr>, dev: u32) -> Self {
        Self {
            dst,
            gateway,
            dev,
            mtu: None,
            advmss: None,
            priority: None,
            source: None,
            table: None,
            scope: None,
        }
    }
}

impl Rtnl {
    /// Adds a route. [`Error::is_exists`] if one with the same destination, priority and table is there.
    pub async fn add_route(&self, route: &Route) -> Result<(), Error> {
        self.new_route(route, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Adds a route in the place of the one with the same destination, priority and table, if there is one.
    pub async fn replace_route(&self, route: &Route) -> Result<(), Error> {
        self.new_route(route, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    async fn new_route(&self, route: &Route, flags: u16) -> Result<(), Error> {
        let added = match message(route) {
            Ok(message) => self.request(Message::NewRoute(message), flags).await,
            Err(refusal) => Err(refusal),
        };
        added.map_err(|refusal| {
            let via = route
                .gateway
                .map(|gateway| format!(" via {gateway}"))
                .unwrap_or_default();
            refusal.on(format_args!(
                "route to {}{via} on link {}",
                route.dst, route.dev
            ))
        })
    }

    /// All unicast routes with a single next hop, of all tables but `local`.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            // Without IPv6 the kernel answers a request for its routes with those of all families.
            let route = |message| match message {
                Message::NewRoute(answer) if answer.header.address_family == family => {
                    decode(&answer)
                }
                _ => None,
            };
            let found: Result<Vec<_>, _> = self.dump(Message::GetRoute(question), route).await;
            routes.extend(found.map_err(|refusal| refusal.on("list of routes"))?);
        }
        Ok(routes)
    }

    /// The links on which a router of IPv6 advertised a route that this namespace has now (`proto ra` in `ip -6 route`).
    pub async fn advertised(&self) -> Result<BTreeSet<u32>, Error> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet6;
        let links = |message| match message {
            Message::NewRoute(answer) if answer.header.protocol == RouteProtocol::Ra => {
                Some(links_of(&answer))
            }
            _ => None,
        };
        let found: Result<Vec<_>, _> = self.dump(Message::GetRoute(question), links).await;
        let found = found.map_err(|refusal| refusal.on("list of advertised routes"))?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The kernel's routing decision for a packet to `to`; an error (mostly ENETUNREACH) if there is none.
    pub async fn route_to(&self, to: IpAddr) -> Result<Hop, Error> {
        let what = format!("route to {to}");
        let len = if to.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, len);
        let mut message = message.map_err(|e| misfit(e).on(&what))?.build();
        // The request has only the destination; the kernel refuses the builder's table and scope here.
        message.header = RouteHeader {
            address_family: message.header.address_family,
            destination_prefix_length: len,
            ..RouteHeader::default()
        };
        let answer = self
            .get(Message::GetRoute(message))
            .await
            .map_err(|refusal| refusal.on(&what))?;
        let mut hop = None;
        let mut source = None;
        let mut gateway = None;
        let mut is_to_one = false;
        if let Message::NewRoute(answer) = answer {
            is_to_one = answer.header.kind == RouteType::Unicast;
            for attribute in answer.attributes {
                match attribute {
                    RouteAttribute::Oif(dev) => hop = Some(dev),
                    RouteAttribute::PrefSource(address) => source = ip(&address),
                    RouteAttribute::Gateway(address) => gateway = ip(&address),
                    RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(address.into()),
                    _ => {}
                }
            }
        }
        let dev =
            hop.ok_or_else(|| Refusal::new(Errno::NETUNREACH, "no link leads there").on(&what))?;
        Ok(Hop {
            dev,
            source,
            gateway,
            is_to_one,
        })
    }
}

/// An error of the builder, e.g. an IPv4 gateway to an IPv6 network.
fn misfit(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Errno::INVAL, error.to_string())
}

fn message(route: &Route) -> Result<RouteMessage, Refusal> {
    // The kernel refuses a destination with host bits.
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.dst.network(), route.dst.prefix())
        .map_err(misfit)?
        .output_interface(route.dev);
    builder = match route.gateway {
        Some(gateway) => builder.gateway(gateway).map_err(misfit)?,
        // Scope universe, the default, needs a gateway. IPv6 ignores the scope.
        None => builder.scope(RouteScope::Link),
    };
    if let Some(scope) = route.scope {
        builder = builder.scope(scope.into());
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(misfit)?;
    }
    if let Some(table) = route.table {
        builder = builder.table_id(table);
    }
    if let Some(priority) = route.priority {
        builder = builder.priority(priority);
    }
    let mut message = builder.build();
    let mut metrics: Vec<_> = route.mtu.map(RouteMetric::Mtu).into_iter().collect();
    metrics.extend(route.advmss.map(RouteMetric::Advmss));
    if !metrics.is_empty() {
        message.attributes.push(RouteAttribute::Metrics(metrics));
    }
    Ok(message)
}

/// The links by which a route leaves.
fn links_of(message: &RouteMessage) -> Vec<u32> {
    let mut links = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(dev) => links.push(*dev),
            RouteAttribute::MultiPath(hops) => {
                links.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    links
}

/// `None` for what [`Rtnl::routes`] leaves out.
fn decode(message: &RouteMessage) -> Option<Route> {
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut dst = any;
    let mut route = Route::new(IpNetwork::new(any, 0).ok()?, None, 0);
    route.table = Some(message.header.table.into());
    route.scope = Some(message.header.scope.into());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(address)?,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => {
                route.gateway = Some((*address).into());
            }
            RouteAttribute::Oif(dev) => route.dev = *dev,
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route.dst = IpNetwork::new(dst, message.header.destination_prefix_length).ok()?;
    let ours = message.header.kind == RouteType::Unicast
        && route.dev != 0
        && route.table != Some(TABLE_LOCAL);
    ours.then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
