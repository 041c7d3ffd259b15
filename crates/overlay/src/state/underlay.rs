//! The underlay: the interface and the address from which this host's tunnels go.

use std::net::{IpAddr, SocketAddr};

use cluster::{Resolved, no_tunnel_address};
use ipnetwork::IpNetwork;
use netlink::Link;
use plugin::Error;

use crate::{firewall::foreign_rules, state::host::Host};

/// Bytes that VXLAN adds to a packet: inner Ethernet 14, VXLAN 8, UDP 8, and the outer IP header.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// The interface and the address of this host's tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Our tunnel address.
    pub vtep: IpAddr,
}

impl Underlay {
    /// MTU of a segment over this underlay.
    pub fn segment_mtu(&self) -> u32 {
        self.mtu.saturating_sub(overhead(self.vtep))
    }
}

/// Bytes that a tunnel from this address adds to a packet.
pub(crate) fn overhead(vtep: IpAddr) -> u32 {
    if vtep.is_ipv4() {
        OVERHEAD_V4
    } else {
        OVERHEAD_V6
    }
}

impl Host {
    /// Finds the underlay: the configured address or interface; else the interface of the route to the store; else that of the
    /// default route.
    pub async fn underlay(&self, settings: &Resolved) -> Result<Underlay, Error> {
        let links = self.rtnl.links().await?;
        let addresses = self.rtnl.addresses(None).await?;
        let on = |link: &Link| {
            addresses
                .iter()
                .find(|(index, a)| *index == link.index && is_global(*a))
                .map(|(_, a)| a.ip())
        };
        let named = settings.underlay.as_ref();
        let (link, vtep) = match (named, settings.vtep) {
            (Some(name), vtep) => {
                let link = links.iter().find(|link| link.name == *name);
                let link = link.ok_or_else(|| {
                    Error::config(format!(
                        "node.underlay: {name}: no such interface on this host"
                    ))
                })?;
                let own = vtep.map_or_else(
                    || on(link),
                    |vtep| has(&addresses, vtep, Some(link.index)).map(|_| vtep),
                );
                let missing = || match vtep {
                    Some(vtep) => Error::config(format!(
                        "node.vtep: {vtep}: not an address of interface {name}"
                    )),
                    None => Error::config(format!("node.underlay: {name}: has no address")),
                };
                (link, own.ok_or_else(missing)?)
            }
            (None, Some(vtep)) => {
                let index = has(&addresses, vtep, None);
                let link = index.and_then(|index| links.iter().find(|link| link.index == index));
                (
                    link.ok_or_else(|| {
                        Error::config(format!("node.vtep: {vtep}: not an address of this host"))
                    })?,
                    vtep,
                )
            }
            (None, None) => self.by_route(settings, &links, &addresses).await?,
        };
        if link.name == "lo" {
            let key = named.map_or_else(
                || format!("node.vtep: {vtep}: an address of lo"),
                |name| format!("node.underlay: {name}"),
            );
            let why = "the loopback interface reaches no other host";
            return Err(Error::config(format!("{key}: {why}")));
        }
        if let Some(why) = no_tunnel_address(vtep) {
            let key = if settings.vtep.is_some() {
                format!("node.vtep: {vtep}")
            } else {
                format!("underlay {}: its address {vtep}", link.name)
            };
            return Err(Error::config(format!("{key} {why}")));
        }
        Ok(Underlay {
            index: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            vtep,
        })
    }

    /// Whether this host has the address.
    pub async fn has_address(&self, address: IpAddr) -> Result<bool, Error> {
        let addresses = self.rtnl.addresses(None).await?;
        Ok(has(&addresses, address, None).is_some())
    }

    async fn by_route<'l>(
        &self,
        settings: &Resolved,
        links: &'l [Link],
        addresses: &[(u32, IpNetwork)],
    ) -> Result<(&'l Link, IpAddr), Error> {
        let nowhere = || {
            Error::config("node.vtep: no route leaves this host; name node.underlay or node.vtep")
        };
        // Any address beyond the host finds the default route; nothing is sent to it. The IPv6 route only counts if its link has
        // no IPv4 address: tunnels must not move to IPv6 while the IPv4 route is missing for a moment.
        let store = store_address(settings.store.url.as_deref().unwrap_or_default());
        let store = store.filter(|store| !store.is_loopback()).into_iter();
        let [v4, v6] = foreign_rules::BEYOND;
        let first = store.chain([v4]).map(|target| (target, false));
        for (target, without_v4) in first.chain([(v6, true)]) {
            let Ok(hop) = self.rtnl.route_to(target).await else {
                continue;
            };
            let has_v4 = addresses
                .iter()
                .any(|(index, it)| *index == hop.dev && it.is_ipv4() && is_global(*it));
            let link = links
                .iter()
                .find(|link| link.index == hop.dev && link.name != "lo");
            let source = hop.source.filter(|source| is_global((*source).into()));
            if let Some(found) = link.zip(source).filter(|_| !(without_v4 && has_v4)) {
                return Ok(found);
            }
        }
        Err(nowhere())
    }
}

fn has(addresses: &[(u32, IpNetwork)], wanted: IpAddr, link: Option<u32>) -> Option<u32> {
    let on = |(index, address): &&(u32, IpNetwork)| {
        address.ip() == wanted && link.is_none_or(|link| link == *index)
    };
    addresses.iter().find(on).map(|(index, _)| *index)
}

/// Whether other hosts can reach the address: it is neither loopback nor link-local.
fn is_global(address: IpNetwork) -> bool {
    match address.ip() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// The address in a store's URL; `None` if it has a name.
fn store_address(url: &str) -> Option<IpAddr> {
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let place = place.split('/').next()?;
    let socket: Result<SocketAddr, _> = place.parse();
    socket
        .map(|socket| socket.ip())
        .ok()
        .or_else(|| place.trim_matches(['[', ']']).parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stores_address_is_read_from_its_url() {
        let found = [
            "consul://192.168.1.5:8500",
            "192.168.1.5",
            "consuls://[fd00::5]:8501/x",
            "consul://name:8500",
            "dir:///x",
        ];
        let found = found.map(|url| store_address(url).map(|address| address.to_string()));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                some("192.168.1.5"),
                some("192.168.1.5"),
                some("fd00::5"),
                None,
                None
            ]
        );
    }
}
