//! Small pools of both families with every key, and what they offer by the plain meaning of those keys.

use std::net::IpAddr;

use ipam::{Block, Range, nth, offset};
use ipnetwork::IpNetwork;
use proptest::prelude::*;

/// Host bits of the largest pool here.
pub const MOST_BITS: u8 = 8;

/// A checked range of at most 2^[`MOST_BITS`] addresses.
pub fn range() -> impl Strategy<Value = Range> {
    (any::<bool>(), 2..=MOST_BITS).prop_flat_map(|(v4, bits)| {
        let size = 1u128 << bits;
        let excluded = (0..size, 0..=bits);
        let ends = (1..size - 1, 1..size - 1);
        let exclude = proptest::collection::vec(excluded, 0..6);
        (ends, 0..size, exclude).prop_map(move |((one, other), gateway, exclude)| {
            let (base, width): (IpAddr, u8) = if v4 {
                ([10, 7, 0, 0].into(), 32)
            } else {
                ([0xfd00, 0, 0, 0, 7, 0, 0, 0].into(), 128)
            };
            let at = |n| nth(base, n).unwrap();
            let network = |n, bits| IpNetwork::new(at(n), width - bits).unwrap();
            Range {
                subnet: network(0, bits),
                range_start: Some(at(one.min(other))),
                range_end: Some(at(one.max(other))),
                gateway: Some(at(gateway)),
                exclude: exclude
                    .into_iter()
                    .map(|(n, bits)| network(n, bits))
                    .collect(),
            }
            .check()
            .unwrap()
        })
    })
}

/// All addresses of the range's subnet, in order.
pub fn addresses(range: &Range) -> impl Iterator<Item = IpAddr> {
    Block::containing(range.subnet.ip(), range.subnet.prefix())
        .unwrap()
        .addresses()
}

/// Whether the range offers the address, read off its keys.
pub fn is_offered(range: &Range, address: IpAddr) -> bool {
    let keys = (range.range_start.unwrap(), range.range_end.unwrap());
    (keys.0..=keys.1).contains(&address)
        && range.gateway != Some(address)
        && !range
            .exclude
            .iter()
            .any(|network| network.contains(address))
}

/// Length of a block of 2^`bits` addresses of the range, or of the whole subnet if it has fewer.
pub fn prefix(range: &Range, bits: u8) -> u8 {
    let width = if range.subnet.is_ipv4() { 32 } else { 128 };
    (width - bits).max(range.subnet.prefix())
}

/// The number of an address in a block.
pub fn number(block: Block, address: IpAddr) -> u64 {
    offset(block.first(), address).unwrap().try_into().unwrap()
}
