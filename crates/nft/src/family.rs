//! What differs between the two versions of IP: names of our sets, and where the addresses are in a packet and in a key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A version of IP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The set of networks to masquerade.
    pub(crate) egress: &'static str,
    /// The set of our tunnels' ends (address and port).
    pub(crate) tunnels: &'static str,
    /// The set of the tunnels' ends of this host and all others.
    pub(crate) all_tunnels: &'static str,
    /// The set of the addresses that may send to an end, each with the end.
    pub(crate) peers: &'static str,
    /// The set of the addresses that may not send to an end with a VNI.
    pub(crate) nonmembers: &'static str,
    pub(crate) nfproto: u8,
    /// nft's number of the data type, which decides how it prints an element.
    pub(crate) key_type: u32,
    pub(crate) key_bytes: u8,
    /// Offset of the source address in the IP header.
    pub(crate) source_offset: u32,
}

pub(crate) static IPV4: Family = Family {
    egress: "egress4",
    tunnels: "tunnels4",
    all_tunnels: "all-tunnels4",
    peers: "peers4",
    nonmembers: "nonmembers4",
    nfproto: 2,
    key_type: 7,
    key_bytes: 4,
    source_offset: 12,
};
pub(crate) static IPV6: Family = Family {
    egress: "egress6",
    tunnels: "tunnels6",
    all_tunnels: "all-tunnels6",
    peers: "peers6",
    nonmembers: "nonmembers6",
    nfproto: 10,
    key_type: 8,
    key_bytes: 16,
    source_offset: 8,
};

/// Which address of a packet is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

impl Family {
    /// The last address of all.
    pub(crate) fn top(&self) -> u128 {
        u128::MAX >> (128 - 8 * u32::from(self.key_bytes))
    }

    pub(crate) fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if *self == IPV4 => Ipv4Addr::from_bits(number).into(),
            _ => Ipv6Addr::from_bits(number).into(),
        }
    }

    pub(crate) fn offset(&self, end: End) -> u32 {
        match end {
            End::Source => self.source_offset,
            End::Destination => self.source_offset + u32::from(self.key_bytes),
        }
    }
}
