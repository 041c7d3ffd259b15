//! What the sandbox of a network should have, but for the host's own links to the segment. Pure.

use std::net::IpAddr;

use cluster::Network;
use ipnetwork::IpNetwork;
use netlink::{Forwarding, Mac, Port, Sysctl};

use crate::{
    endpoint::source_guard::Permitted,
    host_state::{Kind, LinkSpec, Mtu, Object, Tunnel},
    names::{BRIDGE, VXLAN},
    segment::forwarding::Translations,
    state::underlay::Underlay,
};

/// Bridge and VXLAN device of a network over this underlay.
pub(crate) fn segment(network: &Network, underlay: &Underlay) -> Vec<Object> {
    let mtu = underlay.segment_mtu();
    // The host has no address on the segment, and must not get one by itself.
    let mut objects = vec![Object::of_namespace(
        Sysctl::new("ipv6/conf/default/disable_ipv6"),
        "1",
    )];
    objects.extend(without_firewall());
    let [_, a, b, c] = network.vni.unwrap_or_default().to_be_bytes();
    objects.push(Object::Link(LinkSpec {
        kind: Kind::Bridge(Some(Mac([0x02, 0x43, 0, a, b, c]))),
        mtu: Mtu::First(mtu),
        ..bridge()
    }));
    if network.subnets().iter().any(IpNetwork::is_ipv6) {
        // Answers for remote neighbours need the family on the bridge; still no address, and no router advertisement gives one.
        let keys = [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("disable_ipv6", "0"),
        ];
        objects.extend(keys.map(|(key, value)| Object::setting("ipv6", BRIDGE, key, value)));
    }
    let mtu = Mtu::Exactly(mtu);
    let underlay_index = Some(underlay.index);
    objects.push(vxlan(network, underlay.vtep, underlay_index, mtu));
    objects
}

/// No firewall of the sandbox's own for what is on its bridge, whatever is the default of new namespaces where `br_netfilter` is loaded: it
/// has no rules, and costs each frame more than the source guard does.
pub(crate) fn without_firewall() -> [Object; 3] {
    [
        Sysctl::new("bridge/bridge-nf-call-iptables"),
        Sysctl::new("bridge/bridge-nf-call-ip6tables"),
        Sysctl::new("bridge/bridge-nf-call-arptables"),
    ]
    .map(|key| Object::of_namespace(key, "0"))
}

/// What of it an ADD asks for in two questions to the kernel.
pub(crate) fn links(network: &Network, underlay: &Underlay) -> Vec<Object> {
    let mut objects = segment(network, underlay);
    objects.retain(|object| matches!(object, Object::Link(_)));
    objects
}

/// The same where it cannot be told by which interface the tunnels leave, for example while the default route is away: a tunnel that
/// sends from `vtep`, by whatever interface and with whatever MTU it has.
pub(crate) fn links_as_they_are(network: &Network, vtep: IpAddr) -> Vec<Object> {
    vec![Object::Link(bridge()), vxlan(network, vtep, None, Mtu::Any)]
}

/// What is there of every network, whatever its record says.
pub(crate) fn links_of_any() -> Vec<Object> {
    vec![Object::Link(bridge()), Object::Link(tunnel_port())]
}

fn bridge() -> LinkSpec {
    LinkSpec {
        name: BRIDGE.to_owned(),
        ..LinkSpec::default()
    }
}

/// What is not known is flooded, never learned; questions for known neighbours are answered here.
fn tunnel_port() -> LinkSpec {
    LinkSpec {
        name: VXLAN.to_owned(),
        bridge: Some(BRIDGE),
        port: Port {
            neigh_suppress: Some(true),
            learning: Some(false),
            ..Port::default()
        },
        ..LinkSpec::default()
    }
}

fn vxlan(network: &Network, vtep: IpAddr, underlay: Option<u32>, mtu: Mtu) -> Object {
    let tunnel = Tunnel {
        network: network.name.clone(),
        vni: network.vni.unwrap_or_default(),
        port: network.vxlan_port.unwrap_or(cluster::VXLAN_PORT),
        local: vtep,
        underlay,
    };
    Object::Link(LinkSpec {
        kind: Kind::Vxlan(tunnel),
        mtu,
        ..tunnel_port()
    })
}

/// The port of an attachment, on a segment of this MTU: it carries what the segment does, or what that once did.
pub(crate) fn port(name: &str, mtu: Mtu) -> Object {
    Object::Link(LinkSpec {
        name: name.to_owned(),
        mtu,
        bridge: Some(BRIDGE),
        ..LinkSpec::default()
    })
}

/// The same of an attachment of which it is known what it may send, whatever MTU it has: its flags, and the bridge's entry.
pub(crate) fn guarded_port(name: &str, permitted: &Permitted) -> [Object; 2] {
    let link = LinkSpec {
        name: name.to_owned(),
        bridge: Some(BRIDGE),
        port: permitted.flags(),
        ..LinkSpec::default()
    };
    let entries = Object::Entries {
        bridge: BRIDGE,
        port: name.to_owned(),
        entries: permitted.entries(),
        only: false,
    };
    [Object::Link(link), entries]
}

/// The forwarding entries of the bridge and the VXLAN device: these and no others.
pub(crate) fn entries(entries: Forwarding) -> Object {
    Object::Entries {
        bridge: BRIDGE,
        port: VXLAN.to_owned(),
        entries,
        only: true,
    }
}

/// The MACs that the sandbox rewrites.
pub(crate) fn rewrite(macs: Translations) -> Object {
    Object::Rewrite(macs)
}
