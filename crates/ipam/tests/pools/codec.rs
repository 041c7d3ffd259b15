//! What is written in a record reads back as itself.

use std::net::IpAddr;

use ipam::{Block, Schema, Used, block_prefix, nth, twin};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::sample::{addresses, range};

fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> (String, T) {
    let text = serde_json::to_string(value).unwrap();
    let back = serde_json::from_str(&text).unwrap();
    (text, back)
}

proptest! {
    #[test]
    fn blocks(address: IpAddr, cut in 0u8..=32) {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let block = Block::containing(address, width - cut).unwrap();
        let (text, back) = round_trip(&block);
        prop_assert_eq!(back, block);
        prop_assert_eq!(text, format!("\"{block}\""));
    }

    #[test]
    fn ranges(range in range()) {
        let (text, back) = round_trip(&range);
        prop_assert_eq!(&back, &range);
        prop_assert_eq!(&back.check().unwrap(), &range, "checked twice is checked once");
        prop_assert_eq!(text.contains("exclude"), !range.exclude.is_empty());
    }

    #[test]
    fn sets_of_used_addresses(numbers in proptest::collection::btree_set(0u64..4096, 0..200)) {
        let mut used = Used::default();
        for n in &numbers {
            used.insert(*n);
        }
        let (text, back) = round_trip(&used);
        prop_assert_eq!(&back, &used);
        prop_assert!((0..4096).all(|n| back.contains(n) == numbers.contains(&n)));
        let digits = numbers.last().map_or(0, |last| last / 4 + 1);
        prop_assert_eq!(u64::try_from(text.len()).unwrap(), digits + 2);
        prop_assert!(!text.ends_with("0\""));
    }

    #[test]
    fn a_twins_twin_is_the_address(from in range(), to in range(), n: u8) {
        let all: Vec<_> = addresses(&from).collect();
        let of = all[usize::from(n) % all.len()];
        match twin(of, &from, &to) {
            Some(there) => {
                prop_assert!(to.subnet.contains(there));
                prop_assert_eq!(twin(there, &to, &from), Some(of));
            }
            None => prop_assert!(addresses(&to).count() <= usize::from(n) % all.len()),
        }
    }

    /// Of any subnet and any part of it excluded: it is refused, or the next block has something to give.
    #[test]
    fn schemas_of_any_subnet(
        address: IpAddr,
        prefix in 0u8..=128,
        excluded in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..6),
        asked in proptest::option::of(0u8..=128),
    ) {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let subnet = Block::containing(address, prefix % (width + 1)).unwrap();
        let exclude: Vec<_> = excluded
            .into_iter()
            .map(|(n, cut)| {
                let there = nth(subnet.first(), n % subnet.size()).unwrap();
                format!("{there}/{}", subnet.prefix() + cut % (width - subnet.prefix() + 1))
            })
            .collect();
        let text = format!("{}/{}", subnet.first(), subnet.prefix());
        let json = json!({"subnet": text, "exclude": exclude, "blockPrefix": asked});
        let schema: Schema = serde_json::from_value(json).unwrap();
        if let Ok(sets) = schema.ranges() {
            let range = &sets[0][0];
            let everything = range.exclude.iter().any(|network| network.prefix() == subnet.prefix());
            prop_assert!(!everything || range.exclude.len() == 1);
            let block = range.free_block(block_prefix(&sets, asked, range), &[].into(), 7);
            prop_assert_eq!(block.is_some(), range.uses(subnet));
            prop_assert!(block.is_none_or(|block| range.uses(block) && block.size() <= 4096));
        }
    }
}
