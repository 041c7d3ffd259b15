//! What the egress bridge, and the host's interface on it, should have. Pure.

use ipnetwork::IpNetwork;
use netlink::{Mac, Port, Sysctl};

use super::{MTU, inside::Form};
use crate::{
    host_state::{Kind, LinkSpec, Mtu, Object},
    names::{EGRESS_BRIDGE, UPLINK},
};

/// Isolated ports of the bridge do not talk to each other, but to the host's.
pub(super) const ISOLATED: Port = isolated(true);

const fn isolated(isolated: bool) -> Port {
    Port {
        isolated: Some(isolated),
        neigh_suppress: None,
        learning: None,
        hairpin: None,
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
    Object::Link(port(form, name, ISOLATED))
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
