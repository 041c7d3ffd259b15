//! A pool: a range as the blocks that it is cut into, and which of them a host takes next.
//!
//! A range offers a few intervals: start to end, without the gateway and the exclusions. All questions are answered from these
//! intervals, so a /64 of which one half is excluded costs no more than a /24.

use std::collections::BTreeSet;

use crate::{
    Block, Range,
    address::{address, number, width},
};

/// Numbers of addresses from the first to the second, both included.
pub(crate) type Span = (u128, u128);

impl Range {
    /// The intervals of offered addresses, as numbers: in order, disjoint, none empty.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let v4 = self.subnet.is_ipv4();
        let excluded = self
            .exclude
            .iter()
            .filter(|network| network.is_ipv4() == v4);
        let mut holes: Vec<Span> = excluded
            .map(|network| (number(network.network()), number(network.broadcast())))
            .chain(
                self.gateway
                    .map(|gateway| (number(gateway), number(gateway))),
            )
            .collect();
        holes.sort_unstable();

        let (mut spans, end) = (Vec::new(), number(self.end()));
        let mut next = number(self.start());
        for (low, high) in holes {
            if next < low && next <= end {
                spans.push((next, end.min(low - 1)));
            }
            let Some(after) = high.checked_add(1) else {
                return spans;
            };
            next = next.max(after);
        }
        if next <= end {
            spans.push((next, end));
        }
        spans
    }

    /// Whether `block` holds an address that this range offers.
    pub fn uses(&self, block: Block) -> bool {
        self.clip(&self.spans(), block).next().is_some()
    }

    /// The parts of the range's `spans` that lie in `block`.
    pub(crate) fn clip(&self, spans: &[Span], block: Block) -> impl Iterator<Item = Span> {
        let (first, last) = (number(block.first()), number(block.last()));
        let same = self.subnet.is_ipv4() == block.first().is_ipv4();
        spans
            .iter()
            .map(move |(low, high)| ((*low).max(first), (*high).min(last)))
            .filter(move |(low, high)| same && low <= high)
    }

    /// A block of length `prefix` that is not in `taken` (blocks of the same length; others are ignored) and has an address
    /// that this range offers; `None` if there is none. The search starts at block number `place`, modulo the number of blocks,
    /// and continues at the first block after the last. Place 0 finds the lowest block; [`place_of`] spreads hosts over a pool,
    /// so that two that claim at the same time rarely want the same block. The cost grows with the taken blocks and intervals
    /// on the way, not with the subnet.
    pub fn free_block(&self, prefix: u8, taken: &BTreeSet<Block>, place: u64) -> Option<Block> {
        let bits = u32::from(width(self.subnet.ip()).checked_sub(prefix)?);
        let index = |n: u128| n.checked_shr(bits).unwrap_or(0);
        let block = |index: u128| {
            let first = address(self.subnet.ip(), index.checked_shl(bits).unwrap_or(0))?;
            Block::containing(first, prefix)
        };
        let spans = self.spans();
        let search = |from: u128| {
            let mut next = from;
            for (low, high) in &spans {
                next = next.max(index(*low));
                while next <= index(*high) {
                    let block = block(next)?;
                    if !taken.contains(&block) {
                        return Some(block);
                    }
                    next = next.checked_add(1)?;
                }
            }
            None
        };
        let (first, last) = (index(number(self.start())), index(number(self.end())));
        let count = last.checked_sub(first)?.saturating_add(1);
        search(first + u128::from(place) % count).or_else(|| search(first))
    }
}

/// A place for a node in any pool, from its name (64-bit FNV-1a). It is in no record, and hosts never compare theirs: it only
/// has to differ between hosts and to stay the same on one.
pub fn place_of(node: &str) -> u64 {
    node.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
