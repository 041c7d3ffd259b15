//! What one host holds of one network, and which address it gives out next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{Block, Range};

/// What this host may and may not give out: its blocks, the addresses in use, and when the others were freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Blocks that this host owns.
    pub blocks: BTreeSet<Block>,
    /// Addresses that must not be given out: held by an attachment, or kept by somebody else inside our block.
    pub used: BTreeSet<IpAddr>,
    /// Addresses that were given back and when, in seconds of a clock that does not stop while the host sleeps.
    pub freed: BTreeMap<IpAddr, u64>,
}

/// The allocator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// An address that nobody had, or whose cool-down is over.
    Ready(IpAddr),
    /// Only addresses in their cool-down are left; this one was freed first. Better to claim another block.
    Cooling(IpAddr),
    /// Every address of the host's blocks is in use.
    Full,
}

impl Held {
    /// The next address that `range` offers from the host's blocks: the lowest that nobody had, else the one freed
    /// first. `now` and `cool_down` in seconds, on the clock of `freed`.
    pub fn choose(&self, range: &Range, now: u64, cool_down: u64) -> Choice {
        let mut oldest: Option<(u64, IpAddr)> = None;
        for block in self.blocks.iter().filter(|block| range.uses(**block)) {
            for address in block
                .addresses()
                .filter(|a| range.offers(*a) && !self.used.contains(a))
            {
                let Some(freed) = self.freed.get(&address) else {
                    return Choice::Ready(address);
                };
                oldest = Some(oldest.map_or((*freed, address), |o| o.min((*freed, address))));
            }
        }
        match oldest {
            Some((freed, address)) if now.saturating_sub(freed) >= cool_down => {
                Choice::Ready(address)
            }
            Some((_, address)) => Choice::Cooling(address),
            None => Choice::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(blocks: &[&str], used: &[&str], freed: &[(&str, u64)]) -> Held {
        Held {
            blocks: blocks.iter().map(|b| b.parse().unwrap()).collect(),
            used: used.iter().map(|a| a.parse().unwrap()).collect(),
            freed: freed
                .iter()
                .map(|(a, t)| (a.parse().unwrap(), *t))
                .collect(),
        }
    }

    fn pool() -> Range {
        Range::of("10.0.0.0/24".parse().unwrap()).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn network_and_gateway_are_skipped_and_the_lowest_fresh_address_comes_first() {
        assert_eq!(
            held(&["10.0.0.0_29"], &[], &[]).choose(&pool(), 0, 60),
            Choice::Ready(address("10.0.0.2"))
        );
        let with_freed = held(&["10.0.0.0_29"], &["10.0.0.3"], &[("10.0.0.2", 0)]);
        assert_eq!(
            with_freed.choose(&pool(), 1000, 60),
            Choice::Ready(address("10.0.0.4"))
        );
    }

    #[test]
    fn freed_addresses_come_back_oldest_first_after_the_cool_down() {
        let all = held(
            &["10.0.0.8_30"],
            &["10.0.0.8", "10.0.0.9"],
            &[("10.0.0.10", 100), ("10.0.0.11", 90)],
        );
        assert_eq!(
            all.choose(&pool(), 149, 60),
            Choice::Cooling(address("10.0.0.11"))
        );
        assert_eq!(
            all.choose(&pool(), 150, 60),
            Choice::Ready(address("10.0.0.11"))
        );
    }

    #[test]
    fn full_and_blockless_hosts_say_so() {
        assert_eq!(Held::default().choose(&pool(), 0, 0), Choice::Full);
        assert_eq!(
            held(&["10.0.0.9_32"], &["10.0.0.9"], &[]).choose(&pool(), 0, 0),
            Choice::Full
        );
    }

    proptest! {
        /// Whatever was freed when: giving out until full yields each usable address of the blocks exactly once.
        #[test]
        fn every_address_is_given_once(freed in proptest::collection::btree_map(0u8..64, 0u64..200, 0..40), now in 0u64..300) {
            let mut held = held(&["10.0.0.0_29", "10.0.0.32_29", "10.0.0.248_29"], &[], &[]);
            held.freed = freed.into_iter().map(|(n, t)| (IpAddr::from([10, 0, 0, n]), t)).collect();
            let mut given = BTreeSet::new();
            while let Choice::Ready(a) | Choice::Cooling(a) = held.choose(&pool(), now, 60) {
                prop_assert!(pool().offers(a) && held.blocks.iter().any(|b| b.contains(a)));
                prop_assert!(given.insert(a), "{a} twice");
                held.used.insert(a);
            }
            // 8 - network - gateway, 8, 8 - broadcast
            prop_assert_eq!(given.len(), 6 + 8 + 7);
        }
    }
}
