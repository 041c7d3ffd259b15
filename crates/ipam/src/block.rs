//! A block: an aligned run of addresses that exactly one host owns. The unit of agreement between hosts.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::address::{nth, number, offset, width};

/// An aligned run of addresses, in CIDR terms a network. Written `10.0.0.8_29` in records, messages, store keys and file names:
/// a slash would separate path parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Block(IpNetwork);

impl Block {
    /// The block of length `prefix` that holds `address`; `None` if the prefix is longer than the family's addresses.
    pub fn containing(address: IpAddr, prefix: u8) -> Option<Self> {
        let aligned = IpNetwork::new(address, prefix).ok()?;
        IpNetwork::new(aligned.network(), prefix).ok().map(Self)
    }

    /// First address of the block.
    pub fn first(self) -> IpAddr {
        self.0.ip()
    }

    /// Last address of the block.
    pub fn last(self) -> IpAddr {
        nth(self.first(), self.size() - 1).unwrap_or(self.first())
    }

    /// Prefix length of the block, in bits.
    pub fn prefix(self) -> u8 {
        self.0.prefix()
    }

    /// Number of addresses; saturates for a v6 /0.
    pub fn size(self) -> u128 {
        1u128
            .checked_shl(u32::from(width(self.first()) - self.prefix()))
            .unwrap_or(u128::MAX)
    }

    /// Whether `address` lies in the block.
    pub fn contains(self, address: IpAddr) -> bool {
        offset(self.first(), address).is_some_and(|n| n < self.size())
    }

    /// The next block of the same size, or `None` at the end of the family.
    pub fn next(self) -> Option<Self> {
        Self::containing(nth(self.first(), self.size())?, self.prefix())
    }

    /// All addresses of the block in order; blocks are small by construction, pools are not.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let first = number(self.first());
        (first..=number(self.last())).filter_map(move |n| crate::address::address(self.first(), n))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.0.ip(), self.0.prefix())
    }
}

/// The text is not a block such as `10.0.0.8_29`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a block: want an aligned network such as 10.0.0.8_29")]
pub struct BadBlock(String);

impl FromStr for Block {
    type Err = BadBlock;

    fn from_str(text: &str) -> Result<Self, BadBlock> {
        let bad = || BadBlock(text.to_owned());
        let (address, prefix) = text.split_once('_').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let block =
            Self::containing(address, prefix.parse().map_err(|_| bad())?).ok_or_else(bad)?;
        if block.first() == address {
            Ok(block)
        } else {
            Err(bad())
        }
    }
}

impl TryFrom<String> for Block {
    type Error = BadBlock;
    fn try_from(text: String) -> Result<Self, BadBlock> {
        text.parse()
    }
}

impl From<Block> for String {
    fn from(block: Block) -> Self {
        block.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_aligned() {
        for text in [
            "10.0.0.9_29",
            "10.0.0.8/29",
            "10.0.0.8_33",
            "x_29",
            "10.0.0.8",
            "10.0.0.8_-1",
        ] {
            assert!(text.parse::<Block>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn spelling_round_trips_and_bounds_hold(address: IpAddr, cut in 0u8..=16) {
            let block = Block::containing(address, width(address) - cut).unwrap();
            prop_assert_eq!(block.to_string().parse::<Block>().unwrap(), block);
            prop_assert!(block.contains(address) && block.contains(block.first()) && block.contains(block.last()));
            prop_assert_eq!(block.size(), 1u128 << cut);
            prop_assert_eq!(block.addresses().count() as u128, block.size());
            if let Some(next) = block.next() {
                prop_assert!(!next.contains(block.last()) && !block.contains(next.first()));
                prop_assert_eq!(nth(block.last(), 1), Some(next.first()));
            }
        }
    }
}
