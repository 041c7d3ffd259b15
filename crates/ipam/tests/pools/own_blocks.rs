//! What a host gives out of its blocks: all of it, once, in an order that lets released addresses rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipam::{Block, Choice, OwnBlocks, Range, Used};
use proptest::prelude::*;

use crate::sample::{addresses, is_offered, number, prefix, range};

/// What [`OwnBlocks`] borrows.
#[derive(Debug, Clone, Default)]
struct Host {
    blocks: Vec<(Block, Used)>,
    singles: Vec<IpAddr>,
    barred: BTreeSet<IpAddr>,
    freed: Vec<(IpAddr, u64)>,
}

impl Host {
    fn with(blocks: &[&str], used: &[&str], freed: &[(&str, u64)]) -> Self {
        let block = |text: &&str| (text.parse().unwrap(), Used::default());
        let mut host = Self {
            blocks: blocks.iter().map(block).collect(),
            freed: freed.iter().map(|(a, at)| (address(a), *at)).collect(),
            ..Self::default()
        };
        for text in used {
            host.take(address(text));
        }
        host
    }

    fn held(&self) -> OwnBlocks<'_> {
        OwnBlocks {
            blocks: self
                .blocks
                .iter()
                .map(|(block, used)| (*block, used))
                .collect(),
            singles: self.singles.clone(),
            barred: self.barred.clone(),
            freed: &self.freed,
        }
    }

    /// Notes that an address was given out, as a ledger does.
    fn take(&mut self, address: IpAddr) {
        for (block, used) in &mut self.blocks {
            if block.contains(address) {
                used.insert(number(*block, address));
            }
        }
        self.singles.retain(|single| *single != address);
        self.freed.retain(|(freed, _)| *freed != address);
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
    let empty = Host::with(&["10.0.0.8_29", "10.0.0.0_29"], &[], &[]);
    let ready = |text| Choice::Ready(address(text));
    assert_eq!(empty.held().choose(&pool(), 0, 60), ready("10.0.0.2"));
    let with_freed = Host::with(&["10.0.0.0_29"], &["10.0.0.3"], &[("10.0.0.2", 0)]);
    assert_eq!(
        with_freed.held().choose(&pool(), 1000, 60),
        ready("10.0.0.4")
    );
}

#[test]
fn freed_addresses_come_back_oldest_first_after_the_cool_down() {
    let freed = [("10.0.0.11", 90), ("10.0.0.10", 100)];
    let host = Host::with(&["10.0.0.8_30"], &["10.0.0.8", "10.0.0.9"], &freed);
    let (held, oldest) = (host.held(), address("10.0.0.11"));
    assert_eq!(held.choose(&pool(), 149, 60), Choice::Cooling(oldest));
    assert_eq!(held.choose(&pool(), 150, 60), Choice::Ready(oldest));
    assert_eq!(
        [149, 150, 160].map(|now| held.available(&pool(), now, 60)),
        [0, 1, 2]
    );
    assert_eq!(
        [149, 150].map(|now| held.is_free(&pool(), oldest, now, 60)),
        [false, true]
    );
}

#[test]
fn full_and_blockless_hosts_say_so() {
    assert_eq!(OwnBlocks::default().choose(&pool(), 0, 0), Choice::Full);
    let full = Host::with(&["10.0.0.9_32"], &["10.0.0.9"], &[]);
    assert_eq!(full.held().choose(&pool(), 0, 0), Choice::Full);
    assert_eq!(full.held().available(&pool(), 0, 0), 0);
}

#[test]
fn a_freed_address_that_is_not_ours_to_give_is_ignored() {
    let freed = [
        ("10.0.0.8", 1),
        ("10.0.0.9", 2),
        ("10.0.0.40", 3),
        ("10.0.0.10", 50),
    ];
    let mut host = Host::with(&["10.0.0.8_30"], &[], &freed);
    let used = &mut host.blocks[0].1;
    used.insert(0);
    used.insert(3);
    host.barred.insert(address("10.0.0.9"));
    let cooling = Choice::Cooling(address("10.0.0.10"));
    assert_eq!(host.held().choose(&pool(), 70, 60), cooling);
    let ready = Choice::Ready(address("10.0.0.10"));
    assert_eq!(host.held().choose(&pool(), 110, 60), ready);
    for not_ours in ["10.0.0.8", "10.0.0.9", "10.0.0.40"] {
        let free = host.held().is_free(&pool(), address(not_ours), 110, 60);
        assert!(!free, "{not_ours}");
    }
}

#[test]
fn a_single_is_the_last_resort_and_rests_too() {
    let mut host = Host::with(&["10.0.0.8_31"], &["10.0.0.8"], &[]);
    let (inside, single) = (address("10.0.0.9"), address("10.0.0.77"));
    host.singles = vec![address("fd00::7"), single];
    assert_eq!(host.held().choose(&pool(), 0, 60), Choice::Ready(inside));
    assert_eq!(host.held().available(&pool(), 0, 60), 1, "of blocks alone");
    assert!(host.held().is_free(&pool(), single, 0, 60));
    host.freed = vec![(inside, 0)];
    assert_eq!(host.held().choose(&pool(), 0, 60), Choice::Cooling(inside));
    host.take(inside);
    assert_eq!(host.held().choose(&pool(), 0, 60), Choice::Ready(single));
    host.freed = vec![(single, 100)];
    assert_eq!(
        host.held().choose(&pool(), 159, 60),
        Choice::Cooling(single)
    );
    assert!(!host.held().is_free(&pool(), single, 159, 60));
    assert_eq!(host.held().choose(&pool(), 160, 60), Choice::Ready(single));
    host.barred.insert(single);
    assert_eq!(host.held().choose(&pool(), 160, 60), Choice::Full);
}

#[test]
fn a_block_larger_than_a_set_gives_what_the_set_can_note() {
    let range = Range::of("fd00::/64".parse().unwrap()).unwrap();
    let mut host = Host::with(&["fd00::_64"], &[], &[]);
    (0..4094).for_each(|n| host.blocks[0].1.insert(n));
    assert_eq!(host.held().available(&range, 0, 0), 2);
    host.take(address("fd00::ffe"));
    assert_eq!(
        host.held().choose(&range, 0, 0),
        Choice::Ready(address("fd00::fff"))
    );
    host.take(address("fd00::fff"));
    assert_eq!(host.held().choose(&range, 0, 0), Choice::Full);
}

/// A host with some blocks of the range and perhaps a single, and addresses used, barred and freed anywhere.
fn host() -> impl Strategy<Value = (Range, Host)> {
    let numbers = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let parts = (
        proptest::collection::vec(any::<bool>(), 256),
        0..=4u8,
        any::<u8>(),
        (numbers(40), numbers(10)),
        proptest::collection::btree_map(any::<u8>(), 0u64..200, 0..40),
    );
    (range(), parts).prop_map(|(range, (owned, bits, single, (used, barred), freed))| {
        let all: Vec<IpAddr> = addresses(&range).collect();
        let at = |n: u8| all[usize::from(n) % all.len()];
        let prefix = prefix(&range, bits);
        let block_of = |a: &IpAddr| Block::containing(*a, prefix).unwrap();
        let blocks: BTreeSet<Block> = all.iter().map(block_of).collect();
        let ours = blocks.into_iter().zip(owned).filter(|(_, ours)| *ours);
        let mut host = Host {
            blocks: ours.map(|(block, _)| (block, Used::default())).collect(),
            barred: barred.into_iter().map(at).collect(),
            ..Host::default()
        };
        for n in used {
            host.take(at(n));
        }
        let single = at(single);
        if !host.blocks.iter().any(|(block, _)| block.contains(single)) {
            host.singles.push(single);
            host.barred.remove(&single);
        }
        let freed: BTreeMap<IpAddr, u64> =
            freed.into_iter().map(|(n, time)| (at(n), time)).collect();
        host.freed = freed.into_iter().collect();
        host.freed.sort_by_key(|(_, time)| *time);
        (range, host)
    })
}

/// Addresses of our blocks that may be given out, by the plain meaning of the words.
fn free(range: &Range, host: &Host) -> BTreeSet<IpAddr> {
    let mut free = BTreeSet::new();
    for (block, used) in &host.blocks {
        let open = |a: &IpAddr| {
            is_offered(range, *a) && !used.contains(number(*block, *a)) && !host.barred.contains(a)
        };
        free.extend(block.addresses().filter(open));
    }
    free
}

proptest! {
    #[test]
    fn a_choice_is_the_one_that_the_rules_name((range, host) in host(), now in 0u64..300) {
        let free = free(&range, &host);
        let freed_at = |a: &IpAddr| host.freed.iter().find(|(freed, _)| freed == a).map(|(_, at)| *at);
        let fresh = free.iter().find(|a| freed_at(a).is_none());
        let oldest = host.freed.iter().find(|(a, _)| free.contains(a));
        let single = host.singles.iter().find(|a| is_offered(&range, **a));
        let rested = |at: u64| at + 60 <= now;
        let wanted = match (fresh, oldest, single) {
            (Some(a), ..) => Choice::Ready(*a),
            (None, Some((a, at)), _) if rested(*at) => Choice::Ready(*a),
            (None, None, Some(a)) if freed_at(a).is_none_or(rested) => Choice::Ready(*a),
            (None, Some((a, _)), _) | (None, None, Some(a)) => Choice::Cooling(*a),
            (None, None, None) => Choice::Full,
        };
        prop_assert_eq!(host.held().choose(&range, now, 60), wanted);
        for a in addresses(&range) {
            let ours = free.contains(&a) || single == Some(&a);
            let wanted = ours && freed_at(&a).is_none_or(rested);
            prop_assert_eq!(host.held().is_free(&range, a, now, 60), wanted, "{}", a);
        }
    }

    #[test]
    fn every_address_is_given_once((range, mut host) in host(), now in 0u64..300) {
        let mut wanted = free(&range, &host);
        wanted.extend(host.singles.iter().filter(|a| is_offered(&range, **a)));
        let mut given = BTreeSet::new();
        while let Choice::Ready(a) | Choice::Cooling(a) = host.held().choose(&range, now, 60) {
            prop_assert!(given.insert(a), "{} twice", a);
            host.take(a);
        }
        prop_assert_eq!(given, wanted);
    }

    #[test]
    fn there_is_room_for_as_many_as_are_then_given((range, mut host) in host(), now in 0u64..300) {
        host.singles.clear();
        let room = host.held().available(&range, now, 60);
        let mut given = 0;
        while let Choice::Ready(a) = host.held().choose(&range, now, 60) {
            host.take(a);
            given += 1;
            prop_assert_eq!(host.held().available(&range, now, 60), room - given);
        }
        prop_assert_eq!(given, room);
    }
}
