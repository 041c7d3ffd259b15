//! Which block is next: the one that a walk over all blocks would find, without the walk.

use std::collections::BTreeSet;

use ipam::{Block, Range, place_of};
use proptest::prelude::*;

use crate::sample::{MOST_BITS, addresses, is_offered, prefix, range};

fn pool(json: &str) -> Range {
    let range: Range = serde_json::from_str(json).unwrap();
    range.check().unwrap()
}

fn block(text: &str) -> Block {
    text.parse().unwrap()
}

/// The blocks from the one of start to the one of end.
fn blocks(range: &Range, prefix: u8) -> Vec<Block> {
    let last = Block::containing(range.end(), prefix).unwrap();
    let first = Block::containing(range.start(), prefix);
    std::iter::successors(first, |block| {
        (*block != last).then(|| block.next().unwrap())
    })
    .collect()
}

proptest! {
    #[test]
    fn a_range_offers_what_its_keys_say(range in range()) {
        for address in addresses(&range) {
            prop_assert_eq!(range.offers(address), is_offered(&range, address), "{}", address);
            prop_assert!(!(range.offers(address) && range.is_static(address)), "{}", address);
        }
    }

    #[test]
    fn a_block_is_used_if_it_holds_an_offered_address(range in range(), bits in 0..=MOST_BITS) {
        let subnet = Block::containing(range.subnet.ip(), prefix(&range, MOST_BITS)).unwrap();
        let mut block = Block::containing(subnet.first(), prefix(&range, bits)).unwrap();
        while subnet.contains(block.first()) {
            let offered = block.addresses().any(|address| is_offered(&range, address));
            prop_assert_eq!(range.uses(block), offered, "{}", block);
            block = block.next().unwrap();
        }
        prop_assert!(!range.uses(block), "{} lies behind the subnet", block);
    }

    #[test]
    fn the_next_block_is_the_one_that_a_walk_finds(
        range in range(),
        bits in 0..=MOST_BITS,
        taken in proptest::collection::vec(any::<bool>(), 1 << MOST_BITS),
        place in prop_oneof![Just(0), any::<u64>()],
    ) {
        let prefix = prefix(&range, bits);
        let mut blocks = blocks(&range, prefix);
        let taken: BTreeSet<Block> = blocks.iter().zip(taken).filter_map(|(b, taken)| taken.then_some(*b)).collect();
        let count = u64::try_from(blocks.len()).unwrap();
        blocks.rotate_left(usize::try_from(place % count).unwrap());
        let free = |block: &&Block| {
            !taken.contains(block) && block.addresses().any(|address| is_offered(&range, address))
        };
        prop_assert_eq!(range.free_block(prefix, &taken, place), blocks.iter().find(free).copied());
    }

    #[test]
    fn claiming_until_none_is_left_covers_the_pool(range in range(), bits in 0..=4u8, place: u64) {
        let prefix = prefix(&range, bits);
        let mut taken = BTreeSet::new();
        while let Some(block) = range.free_block(prefix, &taken, place) {
            prop_assert!(taken.insert(block), "{} twice", block);
        }
        for address in addresses(&range).filter(|address| is_offered(&range, *address)) {
            prop_assert!(taken.contains(&Block::containing(address, prefix).unwrap()), "{}", address);
        }
    }
}

#[test]
fn a_slash_28_has_thirteen_single_address_blocks() {
    let range = Range::of("10.0.0.0/28".parse().unwrap()).unwrap();
    let mut taken = BTreeSet::new();
    while let Some(block) = range.free_block(32, &taken, 0) {
        taken.insert(block);
    }
    assert_eq!(taken.len(), 13);
    assert!(
        !taken.contains(&block("10.0.0.1_32")),
        "the gateway is no one's block"
    );
}

#[test]
fn a_block_outside_the_dynamic_range_is_not_used() {
    let range =
        pool(r#"{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.16", "rangeEnd": "10.0.0.20"}"#);
    assert_eq!(
        range.free_block(29, &BTreeSet::new(), 0),
        Some(block("10.0.0.16_29"))
    );
    assert!(range.uses(block("10.0.0.16_29")) && !range.uses(block("10.0.0.24_29")));
    assert_eq!(
        range.free_block(29, &[block("10.0.0.16_29")].into(), 0),
        None
    );
    // The same numbers in the other family.
    assert!(!range.uses(block("::a00:10_125")));
}

#[test]
fn a_range_narrower_than_a_block_uses_the_block() {
    let range = pool(r#"{"subnet": "10.0.0.16/29"}"#);
    assert!(range.uses(block("10.0.0.0_26")) && !range.uses(block("10.0.0.64_26")));
    assert_eq!(
        range.free_block(26, &BTreeSet::new(), 0),
        Some(block("10.0.0.0_26"))
    );
}

#[test]
fn hosts_start_at_places_of_their_own_and_come_round() {
    let range = Range::of("10.0.0.0/24".parse().unwrap()).unwrap();
    let at = |place| range.free_block(29, &BTreeSet::new(), place);
    assert_eq!(at(0), Some(block("10.0.0.0_29")));
    assert_eq!(at(5), Some(block("10.0.0.40_29")));
    assert_eq!(at(32), at(0), "a /24 has 32 of them");
    let last = [block("10.0.0.248_29")].into();
    assert_eq!(range.free_block(29, &last, 31), at(0));
}

#[test]
fn a_name_has_one_place_for_ever() {
    // The published test vectors of 64-bit FNV-1a.
    assert_eq!(place_of(""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(place_of("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(place_of("foobar"), 0x8594_4171_f739_67e8);
}

/// By a walk this test would not end.
#[test]
fn large_pools_are_not_walked() {
    let half = pool(r#"{"subnet": "fd00::/64", "exclude": ["fd00::/65"]}"#);
    let first = Some(block("fd00::8000:0:0:0_120"));
    assert_eq!(half.free_block(120, &BTreeSet::new(), 0), first);
    assert_eq!(half.free_block(120, &BTreeSet::new(), 1 << 40), first);
    // The place of the last of 2^56 blocks: round to the start, and over the lower half once more.
    let taken = [block("fd00::ffff:ffff:ffff:ff00_120")].into();
    let last_place = (1 << 56) - 1;
    assert_eq!(half.free_block(120, &taken, last_place), first);
    assert!(!half.uses(block("fd00::7fff:ffff:ffff:ff00_120")));
    assert!(half.uses(block("fd00::_64")));
    let none = pool(r#"{"subnet": "fd00::/64", "exclude": ["fd00::/65", "fd00:0:0:0:8000::/65"]}"#);
    assert_eq!(none.free_block(120, &BTreeSet::new(), 7), None);
    assert!(!none.uses(block("fd00::_64")));
}
