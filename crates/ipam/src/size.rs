//! How large blocks are: one size, in addresses, for all pools of a network.
//!
//! A dual-stack attachment should get a pair of addresses with equal host parts. A host can give one without asking other hosts
//! only if its v4 blocks and its v6 blocks match one to one, so both families are cut into blocks with the same number of
//! addresses.

use crate::{
    Range, RangeError, RangeSet,
    address::{host_bits, width},
};

/// log2 of the addresses of the largest block: forwarding entries are computed for each address of a block.
pub(crate) const MOST_BLOCK_BITS: u8 = 12;

/// log2 of the number of blocks of the largest v4 pool. A v6 pool never fills up, so the number of its blocks does not matter.
const MOST_BLOCKS_BITS: u8 = 24;

/// The block length in bits of the pool of `range`, in a network of these pools whose `blockPrefix` is `asked`. `blockPrefix`
/// is the length of v4 blocks, or of v6 blocks in a network without IPv4; v6 blocks beside v4 blocks have the same number of
/// addresses. Without it, each pool has a size that fits it, and the smallest counts for all.
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

/// log2 of the addresses of the block that fits a range's subnet best: 3/8 of the host bits, that is, a /29 for a /24 and a /26
/// for a /16, at most 256 addresses; single addresses from /28 (IPv6: /124) down.
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

/// Refuses a `blockPrefix` that does not fit one of the pools. The bounds in the error are those of `blockPrefix`.
pub fn check_asked(sets: &[RangeSet], asked: u8) -> Result<(), RangeError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(subnets: &[&str]) -> Vec<RangeSet> {
        let set = |subnet: &&str| vec![Range::of(subnet.parse().unwrap()).unwrap()];
        subnets.iter().map(set).collect()
    }

    /// The block lengths of the pools of a network.
    fn prefixes(subnets: &[&str], asked: Option<u8>) -> Vec<u8> {
        let sets = sets(subnets);
        let ranges = sets.iter().flatten();
        ranges
            .map(|range| block_prefix(&sets, asked, range))
            .collect()
    }

    #[test]
    fn blocks_follow_the_pools_size() {
        for (subnet, prefix) in [
            ("10.0.0.0/24", 29),
            ("10.0.0.0/16", 26),
            ("10.0.0.0/27", 31),
            ("10.0.0.0/28", 32),
            ("10.0.0.0/29", 32),
            ("fd00::/64", 120),
            ("fd00::/123", 127),
            ("fd00::/124", 128),
            ("fd00::/126", 128),
        ] {
            assert_eq!(prefixes(&[subnet], None), [prefix], "{subnet}");
        }
    }

    #[test]
    fn all_pools_of_a_network_have_blocks_of_one_size() {
        assert_eq!(prefixes(&["10.0.0.0/24", "fd00::/64"], None), [29, 125]);
        assert_eq!(prefixes(&["fd00::/64", "10.0.0.0/28"], None), [128, 32]);
        assert_eq!(prefixes(&["10.0.0.0/16", "fd00::/124"], None), [32, 128]);
        assert_eq!(
            prefixes(&["10.0.0.0/16", "10.1.0.0/24", "fd00::/64"], None),
            [29, 29, 125]
        );
        let alternatives = vec![sets(&["10.0.0.0/16", "10.1.0.0/24"]).concat()];
        assert_eq!(block_prefix(&alternatives, None, &alternatives[0][0]), 29);
    }

    #[test]
    fn what_is_asked_for_is_the_length_of_v4_blocks_if_there_are_any() {
        assert_eq!(prefixes(&["10.0.0.0/24"], Some(28)), [28]);
        assert_eq!(prefixes(&["fd00::/64", "10.0.0.0/16"], Some(24)), [120, 24]);
        assert_eq!(prefixes(&["fd00::/64"], Some(118)), [118]);
    }

    #[test]
    fn a_size_fits_all_pools_or_is_refused_with_its_bounds() {
        for (subnets, asked, bounds) in [
            (&["10.0.0.0/24"][..], 23, "want 24 to 32"),
            (&["10.0.0.0/24"], 33, "want 24 to 32"),
            (&["10.0.0.0/16"], 19, "want 20 to 32"),
            (&["fd00::/64"], 115, "want 116 to 128"),
            (&["fd00::/64"], 29, "want 116 to 128"),
            (&["10.0.0.0/16", "fd00::/124"], 27, "want 28 to 32"),
            (&["10.0.0.0/16", "fd00::/64"], 125, "want 20 to 32"),
        ] {
            let (least, most) = bounds[5..].split_once(" to ").unwrap();
            let message = check_asked(&sets(subnets), asked).unwrap_err().to_string();
            let start = format!("ipam.blockPrefix: {asked}: {bounds} for subnet ");
            assert!(message.starts_with(&start), "{message}");
            for end in [least, most] {
                check_asked(&sets(subnets), end.parse().unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn a_v4_pool_has_at_most_two_to_the_24_blocks() {
        let message = check_asked(&sets(&["10.0.0.0/7"]), 32).unwrap_err();
        assert!(message.to_string().contains("want 20 to 31"), "{message}");
    }
}
