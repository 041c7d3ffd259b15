//! The packets of tunnels, and those by which containers reach what is outside.

use nft::Error;

use crate::packet::{Endpoint, Hook, Interface, Packet, State};
use crate::quote::quoted;
use crate::remedy::{Obstacle, Remedies, Traffic, obstacles};

/// The number of the protocol in IP.
const UDP: u8 = 17;

/// What stops packets of containers that come to this host by `link` and leave it by `out`, or their answers. Without `out`
/// they may leave by any interface.
pub fn egress(
    link: Interface<'_>,
    out: Option<Interface<'_>>,
    v6: bool,
) -> Result<Vec<Obstacle>, Error> {
    let first = Packet {
        iif: Some(link),
        oif: out,
        ..Packet::at(Hook::Forward, v6)
    };
    let reply = Packet {
        iif: out,
        oif: Some(link),
        state: State::Reply,
        ..first.clone()
    };
    let name = link.0;
    let quoted = quoted(name);
    let remedies = Remedies {
        nft: vec![
            format!("iifname \"{name}\" accept"),
            format!("oifname \"{name}\" ct state established,related accept"),
        ],
        iptables: vec![
            format!("-i {quoted} -j ACCEPT"),
            format!("-o {quoted} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ],
        firewalld: format!("firewall-cmd --zone=trusted --change-interface={quoted}"),
    };
    let version = if v6 { "IPv6" } else { "IPv4" };
    one(Traffic {
        packets: vec![vec![first], vec![reply]],
        what: format!("the containers' way out over {version}, by {name},"),
        remedies,
    })
}

/// What stops packets of tunnels, of UDP to `port`, that come to this host by `underlay` or leave it.
pub fn tunnel(underlay: Interface<'_>, port: u16, v6: bool) -> Result<Vec<Obstacle>, Error> {
    let comes = Packet {
        iif: Some(underlay),
        state: State::Untracked,
        protocol: Some(UDP),
        to: Endpoint {
            address: None,
            port: Some(port),
        },
        ..Packet::at(Hook::Input, v6)
    };
    let leaves = Packet {
        hook: Hook::Output,
        iif: None,
        oif: Some(underlay),
        ..comes.clone()
    };
    let remedies = Remedies {
        nft: vec![format!("udp dport {port} accept")],
        iptables: vec![format!("-p udp --dport {port} -j ACCEPT")],
        firewalld: format!("firewall-cmd --add-port={port}/udp"),
    };
    one(Traffic {
        packets: vec![vec![comes], vec![leaves]],
        what: format!("the tunnels' packets, of UDP to port {port},"),
        remedies,
    })
}

fn one(traffic: Traffic<'_>) -> Result<Vec<Obstacle>, Error> {
    Ok(obstacles(&[traffic])?.concat())
}
