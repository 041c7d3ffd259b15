//! The `ipam` section of a configuration, as far as it names pools: `host-local`'s words and `blockPrefix`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::{Range, RangeError, RangeSet, overlapping, range::width_of};

/// The pools of a configuration, unchecked. Routes and resolver settings are the IPAM plugin's own business.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schema {
    /// One address of each set; the entries of a set are alternatives.
    #[serde(default)]
    pub ranges: Option<Vec<RangeSet>>,
    /// The old form of a single range, which comes before `ranges`.
    #[serde(default)]
    pub subnet: Option<IpNetwork>,
    /// As in [`Range`], of the old form.
    #[serde(default)]
    pub range_start: Option<IpAddr>,
    /// As in [`Range`], of the old form.
    #[serde(default)]
    pub range_end: Option<IpAddr>,
    /// As in [`Range`], of the old form.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Length in bits of the blocks that hosts own.
    #[serde(default)]
    pub block_prefix: Option<u8>,
}

impl Schema {
    /// The checked ranges; none if the configuration names none. Errors name the key below `ipam` and the value.
    pub fn ranges(&self) -> Result<Vec<RangeSet>, RangeError> {
        let mut sets = Vec::new();
        if let Some(subnet) = self.subnet {
            let Self {
                range_start,
                range_end,
                gateway,
                ..
            } = *self;
            let range = Range {
                subnet,
                range_start,
                range_end,
                gateway,
            };
            sets.push(vec![range.check().map_err(|error| error.below("ipam"))?]);
        }
        for (outer, set) in self.ranges.iter().flatten().enumerate() {
            let path = |inner: usize| format!("ipam.ranges[{outer}][{inner}]");
            if set.is_empty() {
                return Err(RangeError::new(
                    &format!("ipam.ranges[{outer}]"),
                    &"[]",
                    "a set needs a range",
                ));
            }
            let checked = set.iter().cloned().enumerate();
            let checked = checked
                .map(|(inner, range)| range.check().map_err(|error| error.below(&path(inner))));
            sets.push(checked.collect::<Result<RangeSet, _>>()?);
        }
        self.check_together(&sets)?;
        Ok(sets)
    }

    /// What only shows with all ranges side by side: families mixed in a set, sets that overlap, the block length.
    fn check_together(&self, sets: &[RangeSet]) -> Result<(), RangeError> {
        let subnets = |set: &RangeSet| set.iter().map(|range| range.subnet).collect::<Vec<_>>();
        for (n, set) in sets.iter().enumerate() {
            if let Some(other) = set
                .iter()
                .find(|range| range.subnet.is_ipv4() != set[0].subnet.is_ipv4())
            {
                return Err(RangeError::new(
                    "ipam.ranges",
                    &other.subnet,
                    "IPv4 and IPv6 in one set; one set a family",
                ));
            }
            for earlier in &sets[..n] {
                if let Some((one, other)) = overlapping(&subnets(earlier), &subnets(set)) {
                    return Err(RangeError::new(
                        "ipam.ranges",
                        &other,
                        format!("overlaps {one} of another set"),
                    ));
                }
            }
            let Some(prefix) = self.block_prefix else {
                continue;
            };
            for subnet in subnets(set) {
                let most = (subnet.prefix() + 24).min(width_of(subnet));
                // 2^12 addresses: forwarding entries are computed for each address of a block.
                let least = subnet.prefix().max(width_of(subnet) - 12);
                if prefix < least || prefix > most {
                    let why = format!("want {least} to {most} for subnet {subnet}");
                    return Err(RangeError::new("ipam.blockPrefix", &prefix, why));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(sets: &[&[&str]], block_prefix: Option<u8>) -> Result<Vec<RangeSet>, RangeError> {
        let range = |subnet: &&str| Range {
            subnet: subnet.parse().unwrap(),
            range_start: None,
            range_end: None,
            gateway: None,
        };
        let ranges = sets
            .iter()
            .map(|set| set.iter().map(range).collect())
            .collect();
        Schema {
            ranges: Some(ranges),
            block_prefix,
            ..Schema::default()
        }
        .ranges()
    }

    #[test]
    fn the_old_form_comes_first() {
        let old = Schema {
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            ranges: Some(vec![]),
            ..Schema::default()
        };
        assert_eq!(
            old.ranges().unwrap()[0][0].subnet.to_string(),
            "10.9.0.0/24"
        );
        assert!(Schema::default().ranges().unwrap().is_empty());
    }

    #[test]
    fn refusals_name_the_path_and_the_value() {
        for (given, words) in [
            (
                ranges(&[&["10.0.0.5/24"]], None),
                ["ipam.ranges[0][0].subnet", "10.0.0.5/24"],
            ),
            (
                ranges(&[&["10.0.0.0/24"], &["10.0.0.0/25"]], None),
                ["overlaps", "10.0.0.0/25"],
            ),
            (
                ranges(&[&["10.0.0.0/24", "fd00::/64"]], None),
                ["one set", "fd00::/64"],
            ),
            (ranges(&[&[]], None), ["ipam.ranges[0]", "[]"]),
            (
                ranges(&[&["10.0.0.0/24"]], Some(16)),
                ["ipam.blockPrefix", "16"],
            ),
            (
                ranges(&[&["10.0.0.0/24"]], Some(33)),
                ["ipam.blockPrefix", "33"],
            ),
        ] {
            let message = given.unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
        assert!(ranges(&[&["10.0.0.0/24"], &["fd00::/120"]], None).is_ok());
    }
}
