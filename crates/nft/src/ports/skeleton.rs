//! The table's part for published ports, as data; `ports.nft` is the same in nft's language.

use netlink_packet_netfilter::nftables::{InetHookNumber, SetAttribute, SetFlags};

use super::rules;
use crate::family::{Family, IPV4, IPV6};
use crate::skeleton::{
    Chain, IFNAME, IFNAME_TYPE, PORT_TYPE, RAW, SRCNAT, Skeleton, TABLE, TYPE_BITS, WORD, of_keys,
};

/// The chain of the rules that enforce conditions.
pub(super) const CONDITIONS: &str = "ports-conditions";
/// The chain that looks up where a port leads.
pub(super) const PUBLISH: &str = "ports-publish";
/// nft's `dstnat`.
const DSTNAT: i32 = -100;
/// nft's number of the type of a protocol.
const PROTOCOL_TYPE: u32 = 12;

/// The names of the sets for a version of IP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sets {
    pub(super) family: &'static Family,
    /// Ports on any address of this host.
    pub(super) ports: &'static str,
    /// Ports on one address.
    pub(super) bound: &'static str,
    /// Container ports whose packets get the host's address if they return by the interface by which they came.
    pub(super) hairpin: &'static str,
    /// Container ports whose packets always get the host's address.
    pub(super) hidden: &'static str,
}

pub(super) static SETS4: Sets = Sets {
    family: &IPV4,
    ports: "ports4",
    bound: "bound4",
    hairpin: "hairpin4",
    hidden: "hidden4",
};
pub(super) static SETS6: Sets = Sets {
    family: &IPV6,
    ports: "ports6",
    bound: "bound6",
    hairpin: "hairpin6",
    hidden: "hidden6",
};

/// The whole part.
pub(super) fn skeleton() -> Skeleton {
    let both = [&SETS4, &SETS6];
    let socket = |sets: &Sets| sets.family.key_type << TYPE_BITS | PORT_TYPE;
    let socket_bytes = |sets: &Sets| u32::from(sets.family.key_bytes) + WORD;
    let with_protocol =
        |sets: &Sets| (sets.family.key_type << TYPE_BITS | PROTOCOL_TYPE) << TYPE_BITS | PORT_TYPE;
    let map = |name, key, bytes, sets: &Sets| {
        let (name, mut attributes) = of_keys(name, key, bytes, SetFlags::Map);
        attributes.push(SetAttribute::DataType(socket(sets)));
        attributes.push(SetAttribute::DataLen(socket_bytes(sets)));
        (name, attributes)
    };
    let ports = both.map(|sets| {
        let key = PROTOCOL_TYPE << TYPE_BITS | PORT_TYPE;
        map(sets.ports, key, 2 * WORD, sets)
    });
    let bound = both.map(|sets| {
        let bytes = socket_bytes(sets) + WORD;
        map(sets.bound, with_protocol(sets), bytes, sets)
    });
    let hairpin = both.map(|sets| {
        let key = IFNAME_TYPE << (3 * TYPE_BITS) | with_protocol(sets);
        let bytes = IFNAME + socket_bytes(sets) + WORD;
        of_keys(sets.hairpin, key, bytes, SetFlags::empty())
    });
    let hidden = both.map(|sets| {
        let bytes = socket_bytes(sets) + WORD;
        of_keys(sets.hidden, with_protocol(sets), bytes, SetFlags::empty())
    });
    let all = [ports, bound, hairpin, hidden];
    Skeleton {
        table: TABLE,
        sets: all.into_iter().flatten().collect(),
        chains: vec![
            Chain::called(CONDITIONS, None),
            Chain::called(PUBLISH, Some(rules::publish())),
            Chain::new(
                ("ports-localnet", "filter", InetHookNumber::PreRouting, RAW),
                vec![rules::drop_localnet()],
            ),
            Chain::new(
                (
                    "ports-prerouting",
                    "nat",
                    InetHookNumber::PreRouting,
                    DSTNAT,
                ),
                vec![rules::to_this_host()],
            ),
            Chain::new(
                ("ports-output", "nat", InetHookNumber::LocalOut, DSTNAT),
                vec![rules::to_this_host()],
            ),
            Chain::new(
                (
                    "ports-postrouting",
                    "nat",
                    InetHookNumber::PostRouting,
                    SRCNAT,
                ),
                rules::masquerade_clients(),
            ),
        ],
    }
}
