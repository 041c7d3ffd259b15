//! The sets of hosts that have no part in a network: a host's tunnel address, our tunnel's end, and the network's VNI.
//!
//! They name those that are refused, not those that are let in: what a host has not yet heard of costs no packet of a member, and
//! where each host has addresses of each network, as is usual, they are almost empty.
//!
//! The VNI is no field that nft knows by a name. It prints the key by what `NFTA_SET_USERDATA` says of it, of which the kernel keeps
//! at most 256 bytes: enough for four parts.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::{SetAttribute, SetFlags};

use crate::element::octets;
use crate::expr::{Rule, TRANSPORT_HEADER, drop, payload, rule};
use crate::family::{End, Family, IPV4};
use crate::rules::udp;
use crate::skeleton::{PORT_TYPE, TYPE_BITS, WORD, of_keys};
use crate::tuple::Tuple;

/// nft's number of the data type of what has no other.
const INTEGER_TYPE: u32 = 4;
/// Where VXLAN's header, which is behind that of UDP, has the VNI: offset and length in bytes.
const VNI: (u32, u32) = (12, 3);
/// `NFTNL_UDATA_SET_KEYBYTEORDER`, `_KEY_TYPEOF`; `NFTNL_UDATA_SET_TYPEOF_EXPR`, `_DATA`.
const KEY_BYTE_ORDER: u8 = 0;
const KEY_TYPEOF: u8 = 3;
const EXPRESSION: u8 = 0;
const DATA: u8 = 1;
/// nft's `EXPR_PAYLOAD`, `EXPR_CONCAT`; `PROTO_DESC_IP`, `_IP6`, `_UDP`; the number of the destination port in a header of UDP.
const PAYLOAD: u32 = 7;
const CONCAT: u32 = 13;
const IP: u32 = 12;
const IP6: u32 = 13;
const UDP: u32 = 6;
const DPORT: u32 = 2;

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
    let mut tuple = Tuple::new()
        .address(family, End::Source)
        .address(family, End::Destination)
        .port();
    let register = tuple.next(1);
    let (offset, length) = VNI;
    let vni = payload(register, TRANSPORT_HEADER, offset, length);
    tuple.expressions.push(vni);
    let mut expressions = udp(family, tuple, family.nonmembers);
    expressions.push(drop());
    rule(expressions)
}

fn user_data(family: &Family) -> Vec<u8> {
    // The numbers of source and destination in nft's description of the header.
    let (header, source) = if *family == IPV4 { (IP, 11) } else { (IP6, 8) };
    let (offset, length) = VNI;
    let parts = [
        field(&[header, source]),
        field(&[header, source + 1]),
        field(&[UDP, DPORT]),
        field(&[0, 0, TRANSPORT_HEADER + 1, 8 * offset, 8 * length]),
    ];
    let parts = (0..)
        .zip(parts)
        .flat_map(|(number, part)| tlv(number, &part));
    let parts: Vec<_> = parts.collect();
    let key = [number(EXPRESSION, CONCAT), tlv(DATA, &parts)].concat();
    [number(KEY_BYTE_ORDER, 0), tlv(KEY_TYPEOF, &key)].concat()
}

/// A field of a header: description, number in it; for one without a name also nft's number of the header's base, offset and length
/// in bits.
fn field(values: &[u32]) -> Vec<u8> {
    let values = (0..).zip(values);
    let values: Vec<_> = values.flat_map(|(kind, it)| number(kind, *it)).collect();
    [number(EXPRESSION, PAYLOAD), tlv(DATA, &values)].concat()
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    tlv(kind, &value.to_ne_bytes())
}

/// An attribute of libnftnl's user data.
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or_default();
    [&[kind, length], value].concat()
}
