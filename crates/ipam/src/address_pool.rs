//! Where the subnet of a network comes from that is created without one.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Block, RangeError, address::width, is_network, nth, overlapping};

/// Addresses that are cut into subnets of one size, in the words of Docker's `default-address-pools`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    /// All addresses of the pool.
    pub base: IpNetwork,
    /// Prefix length of the subnets, in bits.
    pub size: u8,
}

impl AddressPool {
    /// The pool, if its base has no host bits and is no smaller than its subnets.
    pub fn check(self) -> Result<Self, RangeError> {
        let Self { base, size } = self;
        if !is_network(base) {
            return Err(RangeError::new("base", &base, "has host bits"));
        }
        let most = width(base.ip()) - 2;
        if !(base.prefix()..=most).contains(&size) {
            let why = format!("want {} to {most}, the base being {base}", base.prefix());
            return Err(RangeError::new("size", &size, why));
        }
        Ok(self)
    }

    /// The first subnet that none of `taken` overlaps.
    pub fn first_free(&self, taken: &[IpNetwork]) -> Option<IpNetwork> {
        let base = Block::containing(self.base.network(), self.base.prefix())?;
        let mut block = Block::containing(base.first(), self.size)?;
        while base.contains(block.first()) {
            let subnet = IpNetwork::new(block.first(), self.size).ok()?;
            let Some((_, other)) = overlapping(&[subnet], taken) else {
                return Some(subnet);
            };
            // The next one behind the larger of the two, so that a large network costs one step.
            let other = Block::containing(other.network(), other.prefix())?;
            let last = block.last().max(other.last());
            block = Block::containing(nth(last, 1)?, self.size)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(base: &str, size: u8) -> AddressPool {
        let base = base.parse().unwrap();
        AddressPool { base, size }
    }

    fn first_free(pool: AddressPool, taken: &[&str]) -> Option<String> {
        let taken: Vec<_> = taken.iter().map(|it| it.parse().unwrap()).collect();
        pool.first_free(&taken).map(|it| it.to_string())
    }

    #[test]
    fn the_first_subnet_that_nothing_overlaps_is_chosen() {
        let ten = pool("10.0.0.0/8", 24);
        for (taken, chosen) in [
            (&[][..], "10.0.0.0/24"),
            (&["10.0.0.0/24"], "10.0.1.0/24"),
            (&["10.0.1.0/24"], "10.0.0.0/24"),
            (&["10.0.0.128/25", "10.0.1.0/30"], "10.0.2.0/24"),
            (&["10.0.0.0/16", "10.1.0.0/24"], "10.1.1.0/24"),
            (&["192.168.0.0/16", "fd00::/8"], "10.0.0.0/24"),
        ] {
            assert_eq!(first_free(ten, taken).as_deref(), Some(chosen), "{taken:?}");
        }
        let v6 = pool("fd00:1:2::/48", 64);
        assert_eq!(
            first_free(v6, &["fd00:1:2::/64", "10.0.0.0/8"]).unwrap(),
            "fd00:1:2:1::/64"
        );
    }

    #[test]
    fn a_pool_that_is_used_up_has_none() {
        let small = pool("192.0.2.0/24", 25);
        assert_eq!(first_free(small, &["192.0.2.0/25", "192.0.2.128/30"]), None);
        assert_eq!(first_free(small, &["0.0.0.0/0"]), None);
        // The end of the family.
        assert_eq!(
            first_free(pool("255.255.255.0/24", 24), &["255.0.0.0/8"]),
            None
        );
    }

    #[test]
    fn a_pool_is_no_smaller_than_its_subnets() {
        for (base, size, named) in [
            ("10.0.0.1/8", 24, "10.0.0.1/8"),
            ("10.0.0.0/8", 7, "7"),
            ("10.0.0.0/8", 31, "31"),
            ("fd00::/48", 127, "127"),
        ] {
            let refused = pool(base, size).check().unwrap_err().to_string();
            assert!(refused.contains(named), "{refused}");
        }
        assert!(pool("10.0.0.0/24", 24).check().is_ok());
    }
}
