//! The addresses that one host may give out on one network, and which is the next.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    Block, Range, Used,
    address::{address, number, offset},
    pool::Span,
};

/// The addresses that this host may and may not give out. Times are in seconds of a clock that does not stop while the host
/// sleeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnBlocks<'a> {
    /// This host's blocks, in any order, disjoint, each with its addresses in use.
    pub blocks: Vec<(Block, &'a Used)>,
    /// Unused single addresses that this host has in other hosts' blocks, by exclusion: the last resort.
    pub singles: Vec<IpAddr>,
    /// Addresses in this host's blocks that other hosts have.
    pub barred: BTreeSet<IpAddr>,
    /// Freed addresses and the times of their release; oldest first, each once.
    pub freed: &'a [(IpAddr, u64)],
}

/// The allocator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// An address that was never used, or whose cool-down is over.
    Ready(IpAddr),
    /// Only addresses in their cool-down are left; this one was freed first. Better to claim another block.
    Cooling(IpAddr),
    /// All addresses are in use.
    Full,
}

/// A block, the part of it that a range offers, and the addresses that cannot be given out.
struct Share {
    block: Block,
    offered: Vec<Span>,
    closed: Used,
}

impl OwnBlocks<'_> {
    /// The next address of `range`: the lowest one of this host's blocks that was never used; else the one that was freed
    /// first, if it has rested for `cool_down`; else that one as [`Choice::Cooling`]; else a single address by the same rules.
    /// A freed address that is in use, barred or not this host's is ignored.
    pub fn choose(&self, range: &Range, now: u64, cool_down: u64) -> Choice {
        let mut shares = self.shares(range);
        let oldest = self
            .take_freed(&mut shares)
            .into_iter()
            .min_by_key(|(_, at)| *at);
        if let Some(fresh) = shares.iter().find_map(Share::lowest) {
            return Choice::Ready(fresh);
        }
        // Single addresses rest like all others. Only this host gives them out, so their releases are noted here too.
        let single = || {
            let open = |a: &&IpAddr| range.offers(**a) && !self.barred.contains(*a);
            let singles = self.singles.iter().filter(open);
            singles
                .map(|a| (*a, self.freed_at(*a)))
                .min_by_key(|(_, at)| *at)
        };
        match oldest.map(|(a, at)| (a, Some(at))).or_else(single) {
            Some((a, Some(at))) if now.saturating_sub(at) < cool_down => Choice::Cooling(a),
            Some((a, _)) => Choice::Ready(a),
            None => Choice::Full,
        }
    }

    /// Whether a requested address could be given out: this host has it, `range` offers it, and it is unused, not barred and
    /// not in its cool-down.
    pub fn is_free(&self, range: &Range, address: IpAddr, now: u64, cool_down: u64) -> bool {
        let unused = |(block, used): &(Block, &Used)| {
            let n = place(*block, address);
            n.is_some_and(|n| !used.contains(n))
        };
        let rested = |at: u64| now.saturating_sub(at) >= cool_down;
        range.offers(address)
            && (self.blocks.iter().any(unused) || self.singles.contains(&address))
            && !self.barred.contains(&address)
            && self.freed_at(address).is_none_or(rested)
    }

    /// How many addresses of this host's blocks [`OwnBlocks::choose`] could give out one after the other as [`Choice::Ready`].
    pub fn available(&self, range: &Range, now: u64, cool_down: u64) -> u64 {
        let mut shares = self.shares(range);
        let freed = self.take_freed(&mut shares).into_iter();
        let rested = freed
            .filter(|(_, at)| now.saturating_sub(*at) >= cool_down)
            .count();
        shares.iter().map(Share::fresh).sum::<u64>() + rested as u64
    }

    /// The part of `range` that lies in our blocks, lowest first.
    fn shares(&self, range: &Range) -> Vec<Share> {
        let spans = range.spans();
        let mut shares: Vec<Share> = Vec::new();
        for (block, used) in &self.blocks {
            let offered: Vec<Span> = range.clip(&spans, *block).collect();
            if !offered.is_empty() {
                shares.push(Share {
                    block: *block,
                    offered,
                    closed: (*used).clone(),
                });
            }
        }
        shares.sort_unstable_by_key(|share| share.block);
        for address in &self.barred {
            if let Some((share, n)) = share_of(&mut shares, *address) {
                share.closed.insert(n);
            }
        }
        shares
    }

    /// Closes the freed addresses that could be given out again, so that only those that were never used are left open. Returns
    /// them with the times of their release.
    fn take_freed(&self, shares: &mut [Share]) -> Vec<(IpAddr, u64)> {
        let mut freed = Vec::new();
        for (address, at) in self.freed {
            if let Some((share, n)) = share_of(shares, *address)
                && share.offers(*address)
                && !share.closed.contains(n)
            {
                share.closed.insert(n);
                freed.push((*address, *at));
            }
        }
        freed
    }

    /// When an address was given back, if it was.
    fn freed_at(&self, address: IpAddr) -> Option<u64> {
        let freed = self.freed.iter().find(|(freed, _)| *freed == address);
        freed.map(|(_, at)| *at)
    }
}

impl Share {
    /// The lowest address that is offered and not closed.
    fn lowest(&self) -> Option<IpAddr> {
        let first = number(self.block.first());
        self.offered.iter().find_map(|(low, high)| {
            let n = self.closed.next_free(u64::try_from(low - first).ok()?);
            let free = !self.closed.contains(n) && first + u128::from(n) <= *high;
            free.then(|| address(self.block.first(), first + u128::from(n)))?
        })
    }

    /// How many addresses are offered and not closed.
    fn fresh(&self) -> u64 {
        let first = number(self.block.first());
        let mut count = 0;
        for (low, high) in &self.offered {
            // The set ends here: addresses that it cannot note are never given out.
            let numbers = (low - first..=high - first).map_while(|n| u16::try_from(n).ok());
            count += numbers
                .filter(|n| !self.closed.contains(u64::from(*n)))
                .count() as u64;
        }
        count
    }

    fn offers(&self, address: IpAddr) -> bool {
        let n = number(address);
        self.offered
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&n))
    }
}

/// The share whose block holds `address`, and the address's number there. Blocks are in order and apart.
fn share_of(shares: &mut [Share], address: IpAddr) -> Option<(&mut Share, u64)> {
    let after = shares.partition_point(|share| offset(share.block.first(), address).is_some());
    let share = shares.get_mut(after.checked_sub(1)?)?;
    let n = place(share.block, address)?;
    Some((share, n))
}

/// The number of an address in a block, if it is there.
fn place(block: Block, address: IpAddr) -> Option<u64> {
    let n = offset(block.first(), address).filter(|n| *n < block.size());
    n.and_then(|n| u64::try_from(n).ok())
}
