//! The choice of subnets for a network that is created without one.
//!
//! It is made in the transaction that creates the network, from the record of all subnets, so that two hosts that create networks at
//! the same moment choose different ones.

use ipam::{AddressPool, Range, RangeSet, Schema};
use ipnetwork::IpNetwork;

use crate::{
    Error, NetworkSpec,
    config::settings::setting,
    records::{SubnetsRecord, subnets},
};

/// Where the subnets of a network are taken from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetChoice {
    /// One subnet is taken from each list: from its first pool in which one is free.
    pub pools: Vec<Vec<AddressPool>>,
    /// What the creating host reaches otherwise; never chosen.
    pub avoid: Vec<IpNetwork>,
}

impl SubnetChoice {
    /// Ranges that overlap neither `beside` nor a network of the record. An error of the key that lists the pools if there are none.
    fn ranges(&self, record: &SubnetsRecord, beside: &[RangeSet]) -> Result<Vec<RangeSet>, Error> {
        let networks = record.networks.values().flatten();
        let mut taken: Vec<_> = networks.chain(&self.avoid).copied().collect();
        taken.extend(subnets(beside));
        let mut sets = Vec::new();
        for pools in &self.pools {
            let free = pools.iter().find_map(|pool| pool.first_free(&taken));
            let subnet = free.ok_or_else(|| {
                let spell = |pool: &AddressPool| format!("/{} in {}", pool.size, pool.base);
                let all = pools.iter().map(spell).collect::<Vec<_>>().join(", ");
                let why = "is free of networks and of what this host reaches; name a subnet";
                setting("network.defaultAddressPools", &format!("no {all} {why}"))
            })?;
            taken.push(subnet);
            sets.push(vec![Range {
                subnet,
                range_start: None,
                range_end: None,
                gateway: None,
                exclude: Vec::new(),
            }]);
        }
        let schema = Schema {
            ranges: Some(sets),
            ..Schema::default()
        };
        let ranges = schema.ranges();
        ranges.map_err(|error| setting("network.defaultAddressPools", &error))
    }
}

impl NetworkSpec {
    /// Whether the network can be created: it has ranges, or says how they are found.
    pub(super) fn has_ranges(&self) -> bool {
        !self.ranges.is_empty() || self.choice.is_some()
    }

    /// Finds the ranges that the network is to have beside those that are named.
    pub(super) fn choose(&mut self, record: &SubnetsRecord) -> Result<(), Error> {
        if let Some(choice) = self.choice.take() {
            let chosen = choice.ranges(record, &self.ranges)?;
            self.ranges.extend(chosen);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(list: &[(&str, u8)]) -> Vec<AddressPool> {
        let pool = |(base, size): &(&str, u8)| AddressPool {
            base: base.parse().unwrap(),
            size: *size,
        };
        list.iter().map(pool).collect()
    }

    #[test]
    fn each_list_gives_one_subnet_from_its_first_pool_that_has_one() {
        let mut record = SubnetsRecord::default();
        let full = "192.0.2.0/24".parse().unwrap();
        record.networks.insert("n".to_owned(), vec![full]);
        let choice = SubnetChoice {
            pools: vec![
                pools(&[("192.0.2.0/24", 25), ("10.0.0.0/8", 24)]),
                pools(&[("fd00:1::/48", 64)]),
            ],
            avoid: vec!["10.0.0.0/16".parse().unwrap()],
        };
        let ranges = choice.ranges(&record, &[]).unwrap();
        let subnets: Vec<_> = ranges.iter().map(|set| set[0].subnet.to_string()).collect();
        assert_eq!(subnets, ["10.1.0.0/24", "fd00:1::/64"]);
        assert_eq!(ranges[0][0].gateway, "10.1.0.1".parse().ok());

        let none = SubnetChoice {
            pools: vec![pools(&[("192.0.2.0/24", 25)])],
            ..choice
        };
        let refused = none.ranges(&record, &[]).unwrap_err().to_string();
        let words = "network.defaultAddressPools: no /25 in 192.0.2.0/24 is free";
        assert!(refused.contains(words), "{refused}");
    }
}
