//! The links of the host to a segment: veth pairs whose one end is the host's and whose other a port of the bridge. Pure.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink::{Forward, Forwarding, Mac, Route};

use super::HostLink;
use crate::{
    endpoint::source_guard::{Permitted, Ports},
    host_state::{Kind, LinkSpec, Mtu, Object},
    names::{self, BRIDGE},
    segment::forwarding::mac_of,
};

/// A link as it should be; its two ends have the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) name: String,
    /// Of the host's end.
    pub(super) mac: Mac,
    pub(super) addresses: Vec<IpNetwork>,
    /// Subnets, and the address from which the host speaks to each.
    pub(super) routes: Vec<(IpNetwork, IpAddr)>,
}

/// What the host's links take in the sandbox, on a segment of this MTU.
pub(super) fn inside(pairs: &[Pair], mtu: u32) -> Vec<Object> {
    pairs.iter().flat_map(|pair| pair.inside(mtu)).collect()
}

/// What the host knows of the containers of this host that it reaches by these links.
pub(super) fn neighbours(pairs: &[Pair], ports: &Ports) -> Vec<Object> {
    let known = ports.permitted.values().flat_map(Permitted::neighbours);
    let entries: Forwarding = known.collect();
    let object = |pair: &Pair| Object::Neighbours {
        link: pair.name.clone(),
        entries: entries.clone(),
        only: false,
    };
    pairs.iter().map(object).collect()
}

/// What they take on the host.
pub(super) fn outside(pairs: &[Pair], mtu: u32) -> Vec<Object> {
    pairs.iter().flat_map(|pair| pair.outside(mtu)).collect()
}

impl Pair {
    fn inside(&self, mtu: u32) -> [Object; 2] {
        let (peer, mac) = (self.name.clone(), self.mac);
        let port = LinkSpec {
            name: self.name.clone(),
            kind: Kind::Veth { peer, mac },
            mtu: Mtu::Exactly(mtu),
            bridge: Some(BRIDGE),
            ..LinkSpec::default()
        };
        // The bridge knows for ever that the MAC is here: what it does not know it floods to all hosts.
        let entries = Object::Entries {
            bridge: BRIDGE,
            port: self.name.clone(),
            entries: [Forward::Port { mac }].into(),
            only: false,
        };
        [Object::Link(port), entries]
    }

    /// The link is quiet before it is up.
    fn outside(&self, mtu: u32) -> Vec<Object> {
        let link = || self.name.clone();
        let mut objects = self.settings();
        objects.extend(self.addresses.iter().map(|address| Object::Address {
            link: link(),
            address: *address,
            bare: true,
        }));
        objects.push(Object::Link(LinkSpec {
            name: link(),
            kind: Kind::WithOtherEnd,
            mac: Some(self.mac),
            mtu: Mtu::Exactly(mtu),
            ..LinkSpec::default()
        }));
        objects.extend(self.routes.iter().map(|(dst, source)| Object::Route {
            links: vec![link()],
            route: Route {
                source: Some(*source),
                ..Route::new(*dst, None, 0)
            },
        }));
        objects
    }

    /// The link answers for its own addresses alone, and asks from these, as the host may have two links to the segment, with
    /// different MACs. What comes by one may be answered by the other.
    fn settings(&self) -> Vec<Object> {
        let v4 = [
            ("rp_filter", "2"),
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
        ];
        let v4 = v4.map(|(key, value)| Object::setting("ipv4", &self.name, key, value));
        let v6 = self.addresses.iter().any(IpNetwork::is_ipv6);
        let quiet = Object::quiet(&self.name, v6);
        v4.into_iter().chain(quiet).collect()
    }
}

impl HostLink {
    /// The links that this takes. A subnet is reached by the host's own address where it has one: an answer to the gateway's
    /// would end at the gateway of another host.
    pub(super) fn pairs(&self, network: &str) -> Vec<Pair> {
        let own = |subnet: &IpNetwork| {
            let mut own = self.own().filter(|own| own.is_ipv4() == subnet.is_ipv4());
            let inside = own.find(|own| subnet.contains(*own));
            inside.or_else(|| self.own().find(|own| own.is_ipv4() == subnet.is_ipv4()))
        };
        let gateway = |subnet: &IpNetwork| {
            let mut inside = self.gateways.iter().copied();
            inside.find(|gateway| own(subnet).is_none() && subnet.contains(*gateway))
        };
        let routes = |source: &dyn Fn(&IpNetwork) -> Option<IpAddr>| {
            let route = |subnet: &IpNetwork| source(subnet).map(|source| (*subnet, source));
            self.subnets.iter().filter_map(route).collect()
        };
        let first = self.own().min_by_key(IpAddr::is_ipv6);
        let host = first.map(|first| Pair {
            name: names::host_link(network),
            mac: mac_of(first),
            addresses: self.addresses.clone(),
            routes: routes(&own),
        });
        let single = self.gateways.iter().copied().map(IpNetwork::from);
        let gateway = self.gateway_mac().map(|mac| Pair {
            name: names::gateway_link(network),
            mac,
            addresses: single.collect(),
            routes: routes(&gateway),
        });
        let mut pairs: Vec<_> = host.into_iter().chain(gateway).collect();
        for pair in &mut pairs {
            // A host that forwards asks for a neighbour from a link-local address.
            if pair.addresses.iter().any(IpNetwork::is_ipv6) {
                pair.addresses.extend(link_local(pair.mac));
            }
        }
        pairs
    }
}

/// The link-local address that goes with a MAC.
fn link_local(mac: Mac) -> Option<IpNetwork> {
    let [high, middle, low] = [0, 2, 4].map(|at| u16::from_be_bytes([mac.0[at], mac.0[at + 1]]));
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, high, middle, low);
    IpNetwork::new(address.into(), 64).ok()
}

#[cfg(test)]
mod tests {
    use super::{super::HostLink, *};

    fn host_link(gateways: &[&str], addresses: &[&str]) -> HostLink {
        HostLink {
            subnets: ["10.0.0.0/24", "fd00::/64"]
                .map(|it| it.parse().unwrap())
                .into(),
            gateways: gateways.iter().map(|it| it.parse().unwrap()).collect(),
            access: !addresses.is_empty(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    /// The sources of the routes by each link, with the MAC and the first address of the link.
    fn shape(host_link: &HostLink) -> Vec<(String, String, Vec<String>)> {
        let spell = |link: &Pair| {
            let sources = link.routes.iter().map(|(_, source)| source.to_string());
            (
                link.mac.to_string(),
                link.addresses[0].to_string(),
                sources.collect(),
            )
        };
        host_link.pairs("n").iter().map(spell).collect()
    }

    #[test]
    fn a_segment_is_reached_from_the_hosts_own_address_where_it_has_one() {
        let text = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let (gateways, own) = (["10.0.0.1", "fd00::1"], ["10.0.0.5/24", "fd00::5/64"]);
        let by_gateway = |routes: &[&str]| {
            (
                "02:42:0a:00:00:01".to_owned(),
                "10.0.0.1/32".to_owned(),
                text(routes),
            )
        };
        let by_own = (
            "02:42:0a:00:00:05".to_owned(),
            own[0].to_owned(),
            text(&["10.0.0.5", "fd00::5"]),
        );
        assert_eq!(shape(&host_link(&gateways, &[])), [by_gateway(&gateways)]);
        assert_eq!(shape(&host_link(&[], &own)), std::slice::from_ref(&by_own));
        assert_eq!(
            shape(&host_link(&gateways, &own)),
            [by_own, by_gateway(&[])]
        );
    }

    #[test]
    fn a_link_with_ipv6_has_a_link_local_address_of_its_mac() {
        let links = host_link(&["fd00::1"], &[]).pairs("n");
        let addresses = links[0].addresses.iter().map(ToString::to_string);
        assert_eq!(
            addresses.collect::<Vec<_>>(),
            ["fd00::1/128", "fe80::242:0:1/64"]
        );
    }
}
