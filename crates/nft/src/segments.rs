//! The set of our segments, by the port of their tunnels and VNI.
//!
//! A tunnel's socket hears on all addresses of the host, so what is for a segment and comes to another address than the tunnel's has to be
//! dropped, too: to a second interface's, a bridge's, 127.0.0.1, to all hosts at once. With the VNI in the key, other programs' tunnels with the same port go on.

use netlink_packet_netfilter::nftables::{MetaKey, Operator, SetAttribute, SetFlags};

use crate::expr::{Rule, UDP, compare, drop, load, lookup, rule};
use crate::skeleton::{PORT_TYPE, TYPE_BITS, WORD, of_keys};
use crate::tuple::Tuple;
use crate::typeof_key::{INTEGER_TYPE, destination_port, key_of, vni};

/// The set's name.
pub(crate) const SEGMENTS: &str = "segments";

/// A segment: the UDP port of its tunnels, and its VNI.
pub type Segment = (u16, u32);

/// The set: `typeof udp dport . @th,96,24`.
pub(crate) fn set() -> (&'static str, Vec<SetAttribute>) {
    let kind = PORT_TYPE << TYPE_BITS | INTEGER_TYPE;
    let (name, mut attributes) = of_keys(SEGMENTS, kind, 2 * WORD, SetFlags::empty());
    let words = key_of(&[destination_port(), vni()]);
    attributes.push(SetAttribute::UserData(words));
    (name, attributes)
}

/// The key as the kernel has it.
pub(crate) fn key((port, vni): Segment) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    let [_, a, b, c] = vni.to_be_bytes();
    vec![high, low, 0, 0, a, b, c, 0]
}

/// `udp dport . @th,96,24 @segments drop`
pub(crate) fn drop_misdirected() -> Rule {
    let mut expressions = vec![load(MetaKey::L4Proto), compare(Operator::Equal, vec![UDP])];
    expressions.extend(Tuple::new().port().vni().expressions);
    expressions.extend([lookup(SEGMENTS), drop()]);
    rule(expressions)
}
