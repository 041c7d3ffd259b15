//! What the egress bridge, and the host's interface on it, should have. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use netlink::{Forward, Forwarding, Mac, Port, Sysctl};

use super::{Ledger, MTU, inside::Form};
use crate::{
    endpoint::source_guard::{GROUP_RATE, Permitted, Ports},
    host_state::{Kind, LinkSpec, Mtu, Object},
    names::{self, BRIDGE, EGRESS_BRIDGE, UPLINK},
    segment::forwarding::mac_of,
};

/// Isolated ports of the bridge do not talk to each other, but to the host's.
pub(super) const ISOLATED: Port = isolated(true);

/// The same in a namespace of its own, where the bridge knows where each MAC is.
pub(super) const GUARDED: Port = Port {
    learning: Some(false),
    flood: Some(false),
    ..ISOLATED
};

const fn isolated(isolated: bool) -> Port {
    Port {
        isolated: Some(isolated),
        neigh_suppress: None,
        learning: None,
        hairpin: None,
        flood: None,
    }
}

/// What may come from the container that has this address.
pub(super) fn permitted(ledger: &Ledger, address: Ipv4Addr) -> Permitted {
    let v6 = ledger.counterpart(address).map(IpAddr::V6);
    let addresses = [IpAddr::V4(address)].into_iter().chain(v6);
    Permitted::itself(mac_of(address.into()), addresses, v6.is_some(), GROUP_RATE)
}

/// What may come from the ports of all containers.
pub(super) fn ports(ledger: &Ledger) -> Ports {
    let mut ports = Ports::default();
    for (address, lease) in &ledger.leases {
        let port = names::egress_port_of(&lease.container);
        if lease.open {
            ports.permitted.insert(port, permitted(ledger, *address));
        } else {
            ports.spared.insert(port);
        }
    }
    ports
}

/// The bridge's entry for the host: no container takes its frames.
pub(super) fn uplink_entry(mac: Mac) -> Object {
    entries(UPLINK, [Forward::Port { mac }].into())
}

/// The bridge's entry for a container.
pub(super) fn port_entry(port: &str, permitted: &Permitted) -> Object {
    entries(port, permitted.entries())
}

fn entries(port: &str, entries: Forwarding) -> Object {
    Object::Entries {
        bridge: BRIDGE,
        port: port.to_owned(),
        entries,
        only: false,
    }
}

/// What the host knows of its neighbours on the bridge: all that they are, so that it asks, and believes, nobody.
pub(super) fn neighbours(ledger: &Ledger) -> Object {
    let all = ledger.leases.keys();
    Object::Neighbours {
        link: EGRESS_BRIDGE.to_owned(),
        entries: all
            .flat_map(|address| permitted(ledger, *address).neighbours())
            .collect(),
        only: true,
    }
}

/// No address that the host did not give, and no firewall for frames, whatever is the default of new namespaces.
const SETTINGS: [(Sysctl, &str); 4] = [
    (Sysctl::new("ipv6/conf/default/disable_ipv6"), "1"),
    (Sysctl::new("bridge/bridge-nf-call-iptables"), "0"),
    (Sysctl::new("bridge/bridge-nf-call-ip6tables"), "0"),
    (Sysctl::new("bridge/bridge-nf-call-arptables"), "0"),
];

/// The bridge, and the pair that leads to the host, whose interface has this MAC.
pub(super) fn bridge(form: Form, mac: Mac) -> Vec<Object> {
    let bridge = |kind, mtu| LinkSpec {
        name: form.bridge().to_owned(),
        kind,
        mtu,
        ..LinkSpec::default()
    };
    if form == Form::OnHost {
        let kind = Kind::Bridge(Some(mac));
        return vec![Object::Link(bridge(kind, Mtu::Exactly(MTU)))];
    }
    let settings = SETTINGS.map(|(key, value)| Object::of_namespace(key, value));
    let peer = EGRESS_BRIDGE.to_owned();
    let uplink = LinkSpec {
        kind: Kind::Veth { peer, mac },
        ..port(form, UPLINK, isolated(false))
    };
    let bridge = bridge(Kind::Bridge(None), Mtu::First(MTU));
    let links = [bridge, uplink].map(Object::Link);
    settings.into_iter().chain(links).collect()
}

/// The port of a container: it does not talk to others.
pub(super) fn container_port(form: Form, name: &str) -> Object {
    let flags = match form {
        Form::Apart => GUARDED,
        Form::OnHost => ISOLATED,
    };
    Object::Link(port(form, name, flags))
}

fn port(form: Form, name: &str, port: Port) -> LinkSpec {
    LinkSpec {
        name: name.to_owned(),
        mtu: Mtu::Exactly(MTU),
        bridge: Some(form.bridge()),
        port,
        ..LinkSpec::default()
    }
}

/// The host's interface, with `v6` also for IPv6: nothing that a container says gives this host an address or a route.
pub(super) fn interface(addresses: Vec<IpNetwork>, v6: bool) -> Vec<Object> {
    let keys = [("accept_ra", "0"), ("disable_ipv6", "0")];
    let keys = keys.into_iter().filter(|_| v6);
    let settings = keys.map(|(key, value)| Object::setting("ipv6", EGRESS_BRIDGE, key, value));
    let link = Object::Link(LinkSpec {
        name: EGRESS_BRIDGE.to_owned(),
        kind: Kind::WithOtherEnd,
        mtu: Mtu::Exactly(MTU),
        ..LinkSpec::default()
    });
    let addresses = addresses.into_iter().map(|address| Object::Address {
        link: EGRESS_BRIDGE.to_owned(),
        address,
        bare: false,
    });
    settings.chain([link]).chain(addresses).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Lease;

    #[test]
    fn what_a_container_may_send_by_gw0_follows_from_the_ledger() {
        let lease = |container: &str, open| Lease {
            container: container.to_owned(),
            attachments: ["a".to_owned()].into(),
            open,
            open6: false,
        };
        let mut ledger = Ledger::new("172.18.0.0/16".parse().unwrap(), None);
        let (one, two) = (Ipv4Addr::new(172, 18, 0, 2), Ipv4Addr::new(172, 18, 0, 3));
        ledger.leases.insert(one, lease("0123456789abcdef", true));
        ledger.leases.insert(two, lease("fedcba9876543210", false));
        let known = ports(&ledger);
        let its = &known.permitted["che0123456789ab"];
        assert_eq!(its.mac.to_string(), "02:42:ac:12:00:02");
        assert_eq!(its.addresses, Some([one.into()].into()));
        assert_eq!(known.permitted.len(), 1);
        assert_eq!(known.spared, ["chefedcba987654".to_owned()].into());
        let count = |ledger: &Ledger| match neighbours(ledger) {
            Object::Neighbours { entries, .. } => entries.len(),
            _ => 0,
        };
        assert_eq!(count(&ledger), 2);
        ledger.subnet6 = Some("fd00:9::/64".parse().unwrap());
        let addresses = permitted(&ledger, one).addresses.unwrap();
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            ["172.18.0.2", "fd00:9::2", "fe80::42:acff:fe12:2"]
        );
        assert_eq!(count(&ledger), 4);
    }
}
