//! The keys of the `ipam` section that describe pools: those of `host-local`, `exclude` of whereabouts, and `blockPrefix`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::{
    Range, RangeError, RangeSet, check::includes, overlapping, range::given, size::check_asked,
};

/// The pools of a configuration, unchecked. The IPAM plugin reads routes and resolver settings.
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
    #[serde(default, deserialize_with = "given")]
    pub range_start: Option<IpAddr>,
    /// As in [`Range`], of the old form.
    #[serde(default, deserialize_with = "given")]
    pub range_end: Option<IpAddr>,
    /// As in [`Range`], of the old form.
    #[serde(default, deserialize_with = "given")]
    pub gateway: Option<IpAddr>,
    /// Addresses never given out; each entry applies to the range whose subnet contains it.
    #[serde(default)]
    pub exclude: Option<Vec<IpNetwork>>,
    /// Length in bits of the blocks that hosts own, as [`block_prefix`](crate::block_prefix) reads it.
    #[serde(default)]
    pub block_prefix: Option<u8>,
    /// Where `host-local` keeps its data. Each directory has networks of its own.
    #[serde(default)]
    pub data_dir: Option<String>,
    /// Seconds after which a silent node loses its blocks; absent: never.
    #[serde(default)]
    pub reclaim_after: Option<u64>,
}

impl Schema {
    /// The checked ranges, each set with at least one address to give out; empty if the configuration has none. Errors name the
    /// key below `ipam` and the value.
    pub fn ranges(&self) -> Result<Vec<RangeSet>, RangeError> {
        let sets = self.bounds()?;
        if let Some(set) = sets.iter().find(|set| set.iter().all(Range::is_empty)) {
            let spell = |range: &Range| {
                let (start, end) = (range.start(), range.end());
                format!("{start} to {end} of {}", range.subnet)
            };
            let ranges = set.iter().map(spell).collect::<Vec<_>>().join(", ");
            let why = "no address is left beside the gateway and what is excluded";
            return Err(RangeError::new("ipam.ranges", &ranges, why));
        }
        Ok(sets)
    }

    /// The same for ranges that narrow others and do not repeat their gateways and exclusions.
    pub fn bounds(&self) -> Result<Vec<RangeSet>, RangeError> {
        let mut sets = Vec::new();
        if let Some(subnet) = self.subnet {
            let range = Range {
                subnet,
                range_start: self.range_start,
                range_end: self.range_end,
                gateway: self.gateway,
                exclude: Vec::new(),
            };
            let checked = self.with_exclusions(range).check();
            sets.push(vec![checked.map_err(|error| error.below("ipam"))?]);
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
            let checked = set.iter().cloned().enumerate().map(|(inner, range)| {
                let checked = self.with_exclusions(range).check();
                checked.map_err(|error| error.below(&path(inner)))
            });
            sets.push(checked.collect::<Result<RangeSet, _>>()?);
        }
        self.check_together(&sets)?;
        Ok(sets)
    }

    /// The range with those of the section's exclusions that lie in its subnet.
    fn with_exclusions(&self, mut range: Range) -> Range {
        let all = self.exclude.iter().flatten().copied();
        let subnet = range.subnet;
        range
            .exclude
            .extend(all.filter(|entry| includes(subnet, *entry)));
        range
    }

    /// Checks that need all ranges: mixed families in a set, sets that overlap, exclusions outside all ranges, the block
    /// length.
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
            for (at, range) in set.iter().enumerate() {
                if let Some(other) = set[..at].iter().find(|other| range.overlaps(other)) {
                    let why = format!(
                        "{} to {} overlaps {} to {} of the same set",
                        range.start(),
                        range.end(),
                        other.start(),
                        other.end()
                    );
                    return Err(RangeError::new("ipam.ranges", &range.subnet, why));
                }
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
        }
        let nowhere = |entry: &&IpNetwork| {
            let mut ranges = sets.iter().flatten();
            !ranges.any(|range| includes(range.subnet, **entry))
        };
        if let Some(entry) = self.exclude.iter().flatten().find(nowhere) {
            let why = "not inside the subnet of a range";
            return Err(RangeError::new("ipam.exclude", entry, why));
        }
        match self.block_prefix {
            Some(asked) => check_asked(sets, asked),
            None => Ok(()),
        }
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
            exclude: Vec::new(),
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
                ranges(&[&["10.0.0.0/24", "10.0.0.0/25"]], None),
                ["of the same set", "10.0.0.0/25"],
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

    #[test]
    fn a_set_without_an_address_to_give_is_refused_and_a_range_without_one_stands_aside() {
        let parse = |json: &str| serde_json::from_str::<Schema>(json).unwrap().ranges();
        let none = "no address is left beside the gateway and what is excluded";
        for (json, ranges) in [
            (
                r#"{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}"#,
                "10.1.0.1 to 10.1.0.1 of 10.1.0.0/24",
            ),
            (
                r#"{"ranges": [[{"subnet": "fd00::/126"}]], "exclude": ["fd00::2/127"]}"#,
                "fd00::1 to fd00::3 of fd00::/126",
            ),
        ] {
            let message = parse(json).unwrap_err().to_string();
            assert_eq!(message, format!("ipam.ranges: {ranges}: {none}"));
        }
        let aside = r#"{"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.1.0.1"}, {"subnet": "10.2.0.0/24"}]]}"#;
        assert_eq!(parse(aside).unwrap()[0].len(), 2);
    }

    /// Builds a schema from ranges and exclusions, and returns what its ranges exclude.
    fn excluded(subnets: &[&str], exclude: &[&str]) -> Result<Vec<Vec<String>>, RangeError> {
        let range = |subnet: &&str| Range {
            subnet: subnet.parse().unwrap(),
            range_start: None,
            range_end: None,
            gateway: None,
            exclude: vec![],
        };
        let schema = Schema {
            subnet: subnets.first().map(|subnet| subnet.parse().unwrap()),
            ranges: Some(subnets[1..].iter().map(|s| vec![range(s)]).collect()),
            exclude: Some(exclude.iter().map(|e| e.parse().unwrap()).collect()),
            ..Schema::default()
        };
        let sets = schema.ranges()?;
        let words = |range: &Range| range.exclude.iter().map(ToString::to_string).collect();
        Ok(sets.iter().flatten().map(words).collect())
    }

    #[test]
    fn an_exclusion_is_of_every_range_whose_subnet_has_it() {
        let subnets = ["10.0.0.0/24", "10.1.0.0/24", "fd00::/64"];
        let exclude = ["fd00::/65", "10.1.0.9", "10.0.0.64/28", "10.0.0.7"];
        assert_eq!(
            excluded(&subnets, &exclude).unwrap(),
            [
                vec!["10.0.0.7/32", "10.0.0.64/28"],
                vec!["10.1.0.9/32"],
                vec!["fd00::/65"]
            ]
        );
        for (stray, value) in [("10.2.0.1", "10.2.0.1/32"), ("10.0.0.0/23", "10.0.0.0/23")] {
            let message = excluded(&subnets, &["10.0.0.7", stray]).unwrap_err();
            let wanted = format!("ipam.exclude: {value}: not inside the subnet of a range");
            assert_eq!(message.to_string(), wanted);
        }
    }

    #[test]
    fn a_ranges_own_exclusions_are_named_by_their_path() {
        let json =
            r#"{"ranges": [[{"subnet": "10.0.0.0/24", "exclude": ["10.0.0.7", "10.9.0.0/30"]}]]}"#;
        let schema: Schema = serde_json::from_str(json).unwrap();
        let message = schema.ranges().unwrap_err().to_string();
        let wanted = "ipam.ranges[0][0].exclude: 10.9.0.0/30: not inside subnet 10.0.0.0/24";
        assert_eq!(message, wanted);
    }
}
