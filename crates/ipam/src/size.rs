//! How large blocks are: one size, in addresses, for all pools of a network.
//!
//! A dual-stack attachment wants a pair of addresses with equal host parts. A host can give one without asking anybody
//! only if its v4 blocks and its v6 blocks match one to one, so both families are cut into blocks of as many addresses.

use crate::{
    Range, RangeError, RangeSet,
    address::{host_bits, width},
};

/// log2 of the addresses of the largest block: forwarding entries are computed for each address of a block.
pub(crate) const MOST_BLOCK_BITS: u8 = 12;

/// log2 of the number of blocks of the largest v4 pool. A v6 pool is never run full, so how many it has does not matter.
const MOST_BLOCKS_BITS: u8 = 24;

/// The block length in bits of the pool that `range` draws from, in a network of these pools whose `blockPrefix` is
/// `asked`. Asked for, it is the length of v4 blocks, or of v6 blocks in a network without IPv4; v6 blocks beside v4
/// blocks have as many addresses as those. Else each pool has a size that fits it, and the smallest holds for all.
pub fn block_prefix(sets: &[RangeSet], asked: Option<u8>, range: &Range) -> u8 {
    let ranges = || sets.iter().flatten();
    let bits = if let Some(asked) = asked {
        asked_width(ranges().chain([range])).saturating_sub(asked)
    } else {
        let smallest = ranges().map(default_bits).min();
        smallest.unwrap_or_else(|| default_bits(range))
    };
    width(range.subnet.ip()).saturating_sub(bits)
}

impl Range {
    /// The block length in bits that would fit this subnet best: 3/8 of the host bits, so /29 of a /24 and /26 of a
    /// /16, at most 256 addresses; single addresses from /28 down. [`block_prefix`] has what a network uses.
    pub fn default_block_prefix(&self) -> u8 {
        width(self.subnet.ip()) - default_bits(self)
    }
}

/// log2 of the addresses of a block of this range by default.
fn default_bits(range: &Range) -> u8 {
    match u16::from(host_bits(range.subnet)) {
        0..=4 => 0,
        hosts => u8::try_from((hosts * 3 / 8).min(8)).unwrap_or(8),
    }
}

/// The width of the family whose length `blockPrefix` names.
fn asked_width<'a>(mut ranges: impl Iterator<Item = &'a Range>) -> u8 {
    if ranges.any(|range| range.subnet.is_ipv4()) {
        32
    } else {
        128
    }
}

/// Refuses a `blockPrefix` that does not fit one of the pools; the error's bounds are in terms of what was asked.
pub(crate) fn check_asked(sets: &[RangeSet], asked: u8) -> Result<(), RangeError> {
    let named = asked_width(sets.iter().flatten());
    for subnet in sets.iter().flatten().map(|range| range.subnet) {
        let hosts = host_bits(subnet);
        let fewest = if subnet.is_ipv4() {
            hosts.saturating_sub(MOST_BLOCKS_BITS)
        } else {
            0
        };
        let (least, most) = (named - hosts.min(MOST_BLOCK_BITS), named - fewest);
        if !(least..=most).contains(&asked) {
            let meant = if named == width(subnet.ip()) {
                ""
            } else {
                ", as the length of IPv4 blocks; IPv6 blocks have as many addresses"
            };
            let why = format!("want {least} to {most} for subnet {subnet}{meant}");
            return Err(RangeError::new("ipam.blockPrefix", &asked, why));
        }
    }
    Ok(())
}
