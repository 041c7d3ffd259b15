//! A range: the part of a subnet that may be given out, in `host-local`'s words, and how it is cut into blocks.
//!
//! Defaults and refusals are those of the reference plugin: the gateway is the first address unless named, the
//! network and (v4) broadcast addresses and the gateway are never given out, /31 and /32 are too small.

use std::{collections::BTreeSet, net::IpAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    Block,
    address::{host_bits, is_network, nth, number, offset, width},
    reserved::not_for_hosts,
};

/// The alternatives for one address of an attachment: the first range with room gives it.
pub type RangeSet = Vec<Range>;

/// A subnet and the part of it that may be given out. As JSON it is an entry of `host-local`'s `ranges`; after
/// [`Range::check`] the optional keys are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The network, without host bits.
    pub subnet: IpNetwork,
    /// First address that may be given out; default: the first after the network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// Last address that may be given out; default: the last of the subnet, for v4 the one before broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway, never given out; default: the first address after the network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// Why a range cannot be used; the text names key and value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value}: {why}")]
pub struct RangeError {
    key: String,
    value: String,
    why: String,
}

fn refuse(key: &str, value: &impl ToString, why: impl Into<String>) -> RangeError {
    RangeError {
        key: key.to_owned(),
        value: value.to_string(),
        why: why.into(),
    }
}

impl RangeError {
    pub(crate) fn new(key: &str, value: &impl ToString, why: impl Into<String>) -> Self {
        refuse(key, value, why)
    }

    /// The same error with its key below `path`.
    pub(crate) fn below(self, path: &str) -> Self {
        Self {
            key: format!("{path}.{}", self.key),
            ..self
        }
    }
}

impl Range {
    /// A whole subnet with all defaults, checked.
    pub fn of(subnet: IpNetwork) -> Result<Self, RangeError> {
        Self {
            subnet,
            range_start: None,
            range_end: None,
            gateway: None,
        }
        .check()
    }

    /// The range with its defaults filled in, or why it is refused.
    pub fn check(self) -> Result<Self, RangeError> {
        let subnet = self.subnet;
        if !is_network(subnet) {
            let network = format!("{}/{}", subnet.network(), subnet.prefix());
            return Err(refuse(
                "subnet",
                &subnet,
                format!("has host bits set; the network is {network}"),
            ));
        }
        if host_bits(subnet) < 2 {
            return Err(refuse(
                "subnet",
                &subnet,
                "too small: no address is left beside network, gateway and broadcast",
            ));
        }
        if let Some(why) = not_for_hosts(subnet) {
            return Err(refuse("subnet", &subnet, why));
        }
        let (first, last) = (usable_end(subnet, 1), usable_end(subnet, 0));
        let inside = |key, address: IpAddr| match offset(first, address).zip(offset(address, last))
        {
            Some(_) => Ok(address),
            None => Err(refuse(
                key,
                &address,
                format!("not a usable address of subnet {subnet}"),
            )),
        };
        let start = self
            .range_start
            .map_or(Ok(first), |a| inside("rangeStart", a))?;
        let end = self.range_end.map_or(Ok(last), |a| inside("rangeEnd", a))?;
        if offset(start, end).is_none() {
            return Err(refuse(
                "rangeEnd",
                &end,
                format!("lies before rangeStart {start}"),
            ));
        }
        let gateway = match self.gateway {
            None => first,
            // The reference lets the gateway stand anywhere; outside its subnet it could not be reached.
            Some(gateway) if subnet.contains(gateway) => gateway,
            Some(gateway) => {
                return Err(refuse(
                    "gateway",
                    &gateway,
                    format!("not in subnet {subnet}"),
                ));
            }
        };
        Ok(Self {
            subnet,
            range_start: Some(start),
            range_end: Some(end),
            gateway: Some(gateway),
        })
    }

    /// First address that may be given out.
    pub fn start(&self) -> IpAddr {
        self.range_start
            .unwrap_or_else(|| usable_end(self.subnet, 1))
    }

    /// Last address that may be given out.
    pub fn end(&self) -> IpAddr {
        self.range_end.unwrap_or_else(|| usable_end(self.subnet, 0))
    }

    /// Whether an attachment may hold `address` by the choice of the allocator.
    pub fn offers(&self, address: IpAddr) -> bool {
        Some(address) != self.gateway
            && offset(self.start(), address).is_some()
            && offset(address, self.end()).is_some()
    }

    /// The block length in bits that this subnet is cut into unless the network says otherwise: 3/8 of the host
    /// bits, so /29 of a /24 and /26 of a /16, at most 256 addresses; single addresses from /28 down.
    pub fn default_block_prefix(&self) -> u8 {
        let bits = host_bits(self.subnet);
        let block = if bits <= 4 {
            0
        } else {
            (u16::from(bits) * 3 / 8).min(8)
        };
        width(self.subnet.ip()) - u8::try_from(block).unwrap_or(8)
    }

    /// Whether `block` lies in this range's subnet and holds an address that may be given out.
    pub fn uses(&self, block: Block) -> bool {
        let subnet = self.subnet.prefix() <= block.prefix() && self.subnet.contains(block.first());
        // The gateway takes one address, so a block of more than one always has another beside it, if any at all.
        let (low, high) = (
            number(self.start()).max(number(block.first())),
            number(self.end()).min(number(block.last())),
        );
        subnet && low <= high && !(low == high && self.gateway.is_some_and(|g| number(g) == low))
    }

    /// The lowest block of length `prefix` that is not in `taken` and has an address to give; `None` if all are
    /// taken. Costs as much as there are taken blocks before it, whatever the size of the subnet.
    pub fn free_block(&self, prefix: u8, taken: &BTreeSet<Block>) -> Option<Block> {
        let mut block = Block::containing(self.start(), prefix)?;
        while offset(block.first(), self.end()).is_some() {
            if !taken.contains(&block) && self.uses(block) {
                return Some(block);
            }
            block = block.next()?;
        }
        None
    }
}

/// Bits of an address of the network's family.
pub(crate) fn width_of(network: IpNetwork) -> u8 {
    width(network.ip())
}

/// The first (`from_start` 1) or last usable address: beside the network address, and for v4 the broadcast address.
fn usable_end(subnet: IpNetwork, from_start: u128) -> IpAddr {
    if from_start == 1 {
        return nth(subnet.network(), 1).unwrap_or(subnet.network());
    }
    let hosts = 1u128
        .checked_shl(u32::from(host_bits(subnet)))
        .map_or(u128::MAX, |n| n - 1);
    let broadcast = u128::from(subnet.is_ipv4() && hosts > 0);
    nth(subnet.network(), hosts - broadcast).unwrap_or(subnet.network())
}

/// The first pair of subnets of which one contains the other's start, if any.
pub fn overlapping(ours: &[IpNetwork], theirs: &[IpNetwork]) -> Option<(IpNetwork, IpNetwork)> {
    let meet = |a: &IpNetwork, b: &IpNetwork| a.contains(b.network()) || b.contains(a.network());
    ours.iter()
        .find_map(|a| theirs.iter().find(|b| meet(a, b)).map(|b| (*a, *b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(json: [Option<&str>; 4]) -> Result<Range, RangeError> {
        let [subnet, start, end, gateway] = json;
        let address = |text: Option<&str>| text.map(|t| t.parse().unwrap());
        let subnet = subnet.unwrap().parse().unwrap();
        Range {
            subnet,
            range_start: address(start),
            range_end: address(end),
            gateway: address(gateway),
        }
        .check()
    }

    #[test]
    fn defaults_are_the_references() {
        let v4 = range([Some("10.0.0.0/24"), None, None, None]).unwrap();
        assert_eq!(
            (v4.start().to_string(), v4.end().to_string()),
            ("10.0.0.1".into(), "10.0.0.254".into())
        );
        assert_eq!(v4.gateway.unwrap().to_string(), "10.0.0.1");
        let v6 = range([Some("fd00::/64"), None, None, None]).unwrap();
        assert_eq!(
            (v6.start().to_string(), v6.end().to_string()),
            ("fd00::1".into(), "fd00::ffff:ffff:ffff:ffff".into())
        );
    }

    #[test]
    fn refusals_name_key_and_value() {
        for (given, key, value) in [
            (
                [Some("10.0.0.5/24"), None, None, None],
                "subnet",
                "10.0.0.5/24",
            ),
            (
                [Some("10.0.0.0/31"), None, None, None],
                "subnet",
                "10.0.0.0/31",
            ),
            (
                [Some("fd00::/127"), None, None, None],
                "subnet",
                "fd00::/127",
            ),
            (
                [Some("10.0.0.0/24"), Some("10.0.1.5"), None, None],
                "rangeStart",
                "10.0.1.5",
            ),
            (
                [Some("10.0.0.0/24"), None, Some("10.0.0.255"), None],
                "rangeEnd",
                "10.0.0.255",
            ),
            (
                [
                    Some("10.0.0.0/24"),
                    Some("10.0.0.9"),
                    Some("10.0.0.8"),
                    None,
                ],
                "rangeEnd",
                "10.0.0.8",
            ),
            (
                [Some("10.0.0.0/24"), None, None, Some("10.9.0.1")],
                "gateway",
                "10.9.0.1",
            ),
            (
                [Some("10.0.0.0/24"), Some("fd00::1"), None, None],
                "rangeStart",
                "fd00::1",
            ),
        ] {
            let message = range(given).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{key}: {value}:")),
                "{message}"
            );
        }
    }

    #[test]
    fn blocks_follow_the_pools_size() {
        let prefix = |subnet: &str| {
            Range::of(subnet.parse().unwrap())
                .unwrap()
                .default_block_prefix()
        };
        assert_eq!(
            [
                prefix("10.0.0.0/24"),
                prefix("10.0.0.0/16"),
                prefix("10.0.0.0/28"),
                prefix("10.0.0.0/29")
            ],
            [29, 26, 32, 32]
        );
        assert_eq!(prefix("fd00::/64"), 120);
    }

    #[test]
    fn a_slash_28_has_thirteen_single_address_blocks() {
        let range = Range::of("10.0.0.0/28".parse().unwrap()).unwrap();
        let mut taken = BTreeSet::new();
        while let Some(block) = range.free_block(32, &taken) {
            taken.insert(block);
        }
        assert_eq!(taken.len(), 13);
        assert!(
            !taken.contains(&"10.0.0.1_32".parse().unwrap()),
            "the gateway is no one's block"
        );
    }

    #[test]
    fn a_block_outside_the_dynamic_range_is_not_used() {
        let range = range([
            Some("10.0.0.0/24"),
            Some("10.0.0.16"),
            Some("10.0.0.20"),
            None,
        ])
        .unwrap();
        assert_eq!(
            range.free_block(29, &BTreeSet::new()).unwrap().to_string(),
            "10.0.0.16_29"
        );
        assert!(
            range.uses("10.0.0.16_29".parse().unwrap())
                && !range.uses("10.0.0.24_29".parse().unwrap())
        );
        assert_eq!(
            range.free_block(29, &["10.0.0.16_29".parse().unwrap()].into()),
            None
        );
    }

    #[test]
    fn overlap_is_found_in_both_directions() {
        let net = |text: &str| vec![text.parse().unwrap()];
        assert!(overlapping(&net("10.0.0.0/16"), &net("10.0.5.0/24")).is_some());
        assert!(overlapping(&net("10.0.5.0/24"), &net("10.0.0.0/16")).is_some());
        assert!(overlapping(&net("10.0.5.0/24"), &net("10.0.6.0/24")).is_none());
    }
}
