//! The name of every kernel object that is ours, each made in one place.
//!
//! Interface names have 15 bytes and container ids 72 and more, so what belongs to an attachment or a container is
//! named after a hash. All of it can be named again from the CNI call alone: a DEL finds what it must remove though
//! nothing else was kept.

use std::path::PathBuf;

use journal::Attachment;

/// The bridge in each sandbox, and in the egress namespace.
pub const BRIDGE: &str = "br0";
/// The tunnel device in each sandbox.
pub const VXLAN: &str = "vxlan0";
/// The host's interface on the egress bridge: all that firewalls and routes of the host see of it.
pub const EGRESS_BRIDGE: &str = "ch-egress";
/// Its other end, a port of the egress bridge.
pub const UPLINK: &str = "uplink";
/// The egress NIC in a container. Never `ethN`: a container's second network may be `eth1`.
pub const EGRESS_NIC: &str = "gw0";

/// How the names of all our links on the host begin.
pub const LINKS: &str = "ch";

/// How the names of all ports of sandboxes begin.
pub const PORT: &str = "chp";

/// How the names of all ports of the egress bridge begin.
pub const EGRESS_PORT: &str = "che";

/// How the names begin of the devices through which goes what ports receive.
const IFB: &str = "chi";

/// How the name begins of a host's own link to a segment, and of the port at its other end.
const HOST_LINK: &str = "chh";

/// How the name begins of the link by which a host answers for the gateway addresses of a segment, and of its port.
const GATEWAY_LINK: &str = "chg";

/// How the names of all links of the host to segments begin.
pub const SEGMENT_LINKS: [&str; 2] = [GATEWAY_LINK, HOST_LINK];

/// In the place of a container's id where the host itself has a lease: no runtime has one like it.
pub const HOST: &str = "crosshost-host";

/// Where the sandboxes' namespaces are bound.
pub fn sandboxes() -> PathBuf {
    PathBuf::from(journal::ROOT).join("netns")
}

/// Where the egress bridge's namespace is bound: the folder, and the name in it. Not among the sandboxes, whose names are
/// those of networks.
pub fn egress_netns() -> (PathBuf, &'static str) {
    (
        PathBuf::from(journal::ROOT).join("egress-netns"),
        EGRESS_BRIDGE,
    )
}

/// The host-side end of an attachment, a port of the sandbox's bridge.
pub fn port(attachment: &Attachment) -> String {
    port_of(&attachment.hash())
}

/// The same by the attachment's hash.
pub fn port_of(hash: &str) -> String {
    short(PORT, hash)
}

/// The index of that port in the sandbox, from 2^30 on. No link of the host has one like it: the container's end names it as that
/// of its peer, and a program that looks for the peer among the host's links, as the reference `bandwidth` does, must find none.
pub fn port_index(attachment: &Attachment) -> u32 {
    index_of(&attachment.hash())
}

fn index_of(hash: &str) -> u32 {
    const FROM: u32 = 1 << 30;
    let bits = hash.get(..8).map(|bits| u32::from_str_radix(bits, 16));
    FROM | (bits.and_then(Result::ok).unwrap_or_default() & (FROM - 1))
}

/// The host-side end of a container's egress NIC, a port of the egress bridge.
pub fn egress_port(attachment: &Attachment) -> String {
    egress_port_of(&attachment.container_hash())
}

/// The index of that port where the egress bridge has a namespace of its own.
pub fn egress_port_index(attachment: &Attachment) -> u32 {
    index_of(&attachment.container_hash())
}

/// The name of that port by the container's hash.
pub fn egress_port_of(container: &str) -> String {
    short(EGRESS_PORT, container)
}

/// A name of 15 bytes; a hash that is none, from a damaged document, makes a shorter one.
fn short(prefix: &str, hash: &str) -> String {
    format!("{prefix}{}", hash.get(..12).unwrap_or(hash))
}

/// The device, beside a port, through which goes what that receives (see [`crate::endpoint::bandwidth`]).
pub fn ifb(port: &str) -> String {
    format!("{IFB}{}", port.get(IFB.len()..).unwrap_or_default())
}

/// Whether a link is one of these. A bridge that an earlier version made is among the host's links: theirs is none.
pub fn is_ifb(name: &str) -> bool {
    let hash = name.strip_prefix(IFB).unwrap_or_default();
    hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The host's own link to the network's segment, and its port in the sandbox.
pub fn host_link(network: &str) -> String {
    of_network(HOST_LINK, network)
}

/// The link by which the host is the network's gateway, and its port in the sandbox.
pub fn gateway_link(network: &str) -> String {
    of_network(GATEWAY_LINK, network)
}

/// Whether this host receives packets of containers on this link.
pub fn is_facing(link: &str) -> bool {
    link == EGRESS_BRIDGE || SEGMENT_LINKS.iter().any(|prefix| link.starts_with(prefix))
}

fn of_network(prefix: &str, network: &str) -> String {
    let host = Attachment {
        network: network.to_owned(),
        container: HOST.to_owned(),
        ifname: String::new(),
    };
    format!("{prefix}{}", &host.hash()[..12])
}

/// The link group of all our links in a container: it marks them as ours, and lets the kernel remove them in one
/// batch. Never 0, the group of everybody.
pub fn group(attachment: &Attachment) -> u32 {
    u32::from_str_radix(&attachment.container_hash()[..8], 16)
        .unwrap_or_default()
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_an_interface_and_follow_the_attachment() {
        let attachment = |network: &str, ifname: &str| Attachment {
            network: network.into(),
            container: "c".repeat(90),
            ifname: ifname.into(),
        };
        let (one, two) = (attachment("a", "eth0"), attachment("b", "eth1"));
        assert_eq!((port(&one).len(), egress_port(&one).len()), (15, 15));
        assert_ne!(port(&one), port(&two));
        assert_ne!(port_index(&one), port_index(&two));
        assert!(i32::try_from(port_index(&one)).is_ok_and(|index| index >= 1 << 30));
        assert_eq!(
            (egress_port(&one), group(&one)),
            (egress_port(&two), group(&two))
        );
        assert_ne!(group(&one), 0);
        let ifbs = [ifb(&port(&one)), ifb(&port(&two)), ifb(&egress_port(&one))];
        assert!(ifbs.iter().all(|ifb| ifb.len() == 15 && is_ifb(ifb)));
        assert!(ifbs[0] != ifbs[1] && !is_ifb(&port(&one)) && !is_ifb("chimera0"));
        let links = [host_link("a"), gateway_link("a"), host_link("b")];
        assert!(links.iter().all(|link| link.len() == 15));
        assert_ne!(links[0], links[2]);
    }
}
