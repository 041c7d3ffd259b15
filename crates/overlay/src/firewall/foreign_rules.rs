//! Obstacles: what rules of others do to the tunnels and to the containers' way out, and what would allow it. The segment
//! itself is out of their reach, in its sandbox. Nothing is changed here: what a host's firewall lets pass is its owner's word.

use std::net::IpAddr;

use nft::{Blocked, Endpoint, Hook, Packet, State, Traffic, Words};
use plugin::Error;

use crate::state::{host::Host, underlay::Underlay};

/// Nobody's addresses (RFC 5737, RFC 3849): the way to them is the default route.
pub(crate) const BEYOND: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The number of the protocol in IP.
const UDP: u8 = 17;

/// What stops the containers' way out over a version of IP, by this link of the host.
pub async fn egress(host: &Host, link: &str, v6: bool) -> Result<Vec<Blocked>, Error> {
    let links = host.rtnl.links().await?;
    let hop = host.rtnl.route_to(BEYOND[usize::from(v6)]).await.ok();
    let out = hop.and_then(|hop| links.iter().find(|link| link.index == hop.dev));
    let out = out.map(|link| (link.name.as_str(), link.index));
    // No interface has the index 0: before there is a bridge, no rule can be about it but by its name.
    let bridge = links.iter().find(|it| it.name == link);
    let bridge = Some((link, bridge.map_or(0, |bridge| bridge.index)));
    let first = Packet {
        iif: bridge,
        oif: out,
        ..Packet::at(Hook::Forward, v6)
    };
    let reply = Packet {
        iif: out,
        oif: bridge,
        state: State::Reply,
        ..first.clone()
    };
    let quoted = nft::quoted(link);
    let words = Words {
        nft: vec![
            format!("iifname \"{link}\" accept"),
            format!("oifname \"{link}\" ct state established,related accept"),
        ],
        iptables: vec![
            format!("-i {quoted} -j ACCEPT"),
            format!("-o {quoted} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ],
        firewalld: format!("firewall-cmd --zone=trusted --change-interface={quoted}"),
    };
    let version = if v6 { "IPv6" } else { "IPv4" };
    let what = format!("the containers' way out over {version}, by {link},");
    stopped(Traffic {
        packets: vec![vec![first], vec![reply]],
        what,
        words,
    })
}

/// What stops the tunnels' packets, of UDP to `port`, that come to this host or leave it.
pub fn tunnel(underlay: &Underlay, port: u16) -> Result<Vec<Blocked>, Error> {
    let ours = Some((underlay.name.as_str(), underlay.index));
    let comes = Packet {
        iif: ours,
        state: State::Untracked,
        protocol: Some(UDP),
        to: Endpoint {
            address: None,
            port: Some(port),
        },
        ..Packet::at(Hook::Input, underlay.vtep.is_ipv6())
    };
    let leaves = Packet {
        hook: Hook::Output,
        iif: None,
        oif: ours,
        ..comes.clone()
    };
    let words = Words {
        nft: vec![format!("udp dport {port} accept")],
        iptables: vec![format!("-p udp --dport {port} -j ACCEPT")],
        firewalld: format!("firewall-cmd --add-port={port}/udp"),
    };
    let what = format!("the tunnels' packets, of UDP to port {port},");
    stopped(Traffic {
        packets: vec![vec![comes], vec![leaves]],
        what,
        words,
    })
}

fn stopped(traffic: Traffic<'_>) -> Result<Vec<Blocked>, Error> {
    let blocked = nft::blocked(&[traffic])?;
    Ok(blocked.concat())
}
