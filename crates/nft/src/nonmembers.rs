//! The sets of hosts that have no part in a network: a host's tunnel address, our tunnel's end, and the network's VNI.
//!
//! They name those that are refused, not those that are let in: what a host has not yet heard of costs no packet of a member, and
//! where each host has addresses of each network, as is usual, they are almost empty.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::{SetAttribute, SetFlags};

use crate::element::octets;
use crate::expr::{Rule, drop, rule};
use crate::family::{End, Family, IPV4};
use crate::rules::udp;
use crate::skeleton::{PORT_TYPE, TYPE_BITS, WORD, of_keys};
use crate::tuple::Tuple;
use crate::typeof_key::{INTEGER_TYPE, destination_port, field, key_of, vni};

/// nft's `PROTO_DESC_IP`, `_IP6`.
const IP: u32 = 12;
const IP6: u32 = 13;

/// A tunnel address that may not send to one of our ends with this VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonmember {
    /// The tunnel address.
    pub host: IpAddr,
    /// Our tunnel address and UDP port.
    pub end: SocketAddr,
    /// The network's VNI.
    pub vni: u32,
}

impl Nonmember {
    /// The key as the kernel has it.
    pub(crate) fn key(&self) -> Vec<u8> {
        let [high, low] = self.end.port().to_be_bytes();
        let [_, a, b, c] = self.vni.to_be_bytes();
        let rest = [high, low, 0, 0, a, b, c, 0];
        [&octets(self.host)[..], &octets(self.end.ip()), &rest].concat()
    }
}

/// The set of one version of IP: `typeof ip saddr . ip daddr . udp dport . @th,96,24`.
pub(crate) fn set(family: &Family) -> (&'static str, Vec<SetAttribute>) {
    let kinds = [family.key_type, family.key_type, PORT_TYPE, INTEGER_TYPE];
    let kind = kinds.into_iter().reduce(|all, it| all << TYPE_BITS | it);
    let bytes = 2 * u32::from(family.key_bytes) + 2 * WORD;
    let kind = kind.unwrap_or_default();
    let (name, mut attributes) = of_keys(family.nonmembers, kind, bytes, SetFlags::empty());
    attributes.push(SetAttribute::UserData(user_data(family)));
    (name, attributes)
}

/// `ip saddr . ip daddr . udp dport . @th,96,24 @nonmembers4 drop`
pub(crate) fn drop_nonmembers(family: &Family) -> Rule {
    let tuple = Tuple::new()
        .address(family, End::Source)
        .address(family, End::Destination)
        .port()
        .vni();
    let mut expressions = udp(family, tuple, family.nonmembers);
    expressions.push(drop());
    rule(expressions)
}

fn user_data(family: &Family) -> Vec<u8> {
    // The numbers of source and destination in nft's description of the header.
    let (header, source) = if *family == IPV4 { (IP, 11) } else { (IP6, 8) };
    key_of(&[
        field(&[header, source]),
        field(&[header, source + 1]),
        destination_port(),
        vni(),
    ])
}
