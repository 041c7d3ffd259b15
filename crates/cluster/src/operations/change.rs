//! Changes of a network in place: what hosts and running containers can follow without being made anew.
//!
//! A further subnet, and not more of one that the network has: the addresses outside a subnet's range are given out on request, each
//! with a block of its own, and a range that took them in would cut other blocks over them.
//!
//! The write changes the revision of the network's record, so no lease is published by the old one. Hosts follow a network by its
//! blocks; so one of these is written again in the same transaction, with the same value, and every watcher of every version reads
//! the record anew. Without a block, hosts hear of the change with their next ADD or sync.

use std::collections::{BTreeMap, BTreeSet};

use ipam::{Range, Schema};
use store::{Entry, Key, Op, Outcome};

use crate::{
    ATTEMPTS, BlockRecord, Cluster, EgressMode, Error, Network, NetworkSpec, Stored,
    config::settings::setting,
    operations::networks::refuse_overlap,
    records::{decode, encode, subnets},
    stored,
};

/// The smallest MTU of an interface with IPv6, in bytes (RFC 8200).
const LEAST_V6: u32 = 1280;

/// What is to change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// Further subnets, unchecked. Containers get addresses of them where the others of this version of IP have none left.
    pub subnets: Vec<Range>,
    /// A lower MTU of the containers' interfaces.
    pub mtu: Option<u32>,
    /// Labels to set.
    pub labels: BTreeMap<String, String>,
    /// Labels to remove.
    pub without_labels: BTreeSet<String>,
}

impl NetworkChange {
    /// The network with the change; errors name what cannot be changed, and why.
    pub fn applied(&self, network: &Network) -> Result<Network, Error> {
        let mut changed = network.clone();
        if let Some(mtu) = self.mtu {
            let refused = |why: String| Err(setting(&format!("mtu {mtu}"), &why));
            let bounds = NetworkSpec {
                mtu: Some(mtu),
                ..NetworkSpec::default()
            };
            bounds.check()?;
            if let Some(old) = network.mtu.filter(|old| mtu > *old) {
                return refused(format!("it is {old}, and can only be lowered"));
            }
            let has_v6 = network.subnets().iter().any(ipnetwork::IpNetwork::is_ipv6);
            if has_v6 && mtu < LEAST_V6 {
                return refused(format!("IPv6 needs {LEAST_V6} at least"));
            }
            changed.mtu = Some(mtu);
        }
        for range in &self.subnets {
            add(&mut changed, range)?;
        }
        changed
            .labels
            .retain(|label, _| !self.without_labels.contains(label));
        changed.labels.extend(self.labels.clone());
        Ok(changed)
    }
}

/// Adds a range of a further subnet to the set of its version of IP.
fn add(network: &mut Network, range: &Range) -> Result<(), Error> {
    let subnet = range.subnet;
    let refused = |why: &str| setting(&format!("subnet {subnet}"), &why);
    let egress = network.egress.as_ref();
    if egress.is_some_and(|egress| egress.mode == EgressMode::Gateway) {
        return Err(refused(
            "a network whose gateway is the host keeps its subnets",
        ));
    }
    let is_of = |set: &&mut Vec<Range>| {
        let mut its = set.iter();
        its.any(|it| it.subnet.is_ipv4() == subnet.is_ipv4())
    };
    let before = network.clone();
    let mut sets = network.ranges.iter_mut();
    let set = sets.find(is_of).ok_or_else(|| {
        refused("the network has no subnet of this version of IP beside which it could be")
    })?;
    set.push(range.clone());
    let schema = Schema {
        ranges: Some(network.ranges.clone()),
        block_prefix: network.block_prefix,
        ..Schema::default()
    };
    let checked = schema.ranges();
    network.ranges =
        checked.map_err(|error| setting(&format!("subnet {subnet}"), &error.to_string()))?;
    let is_cut_anew = |it: &Range| before.block_prefix(it) != network.block_prefix(it);
    if before.ranges.iter().flatten().any(is_cut_anew) {
        return Err(refused(
            "it is so small that the blocks of the other subnets would be cut anew",
        ));
    }
    Ok(())
}

impl Cluster<'_> {
    /// Changes a network that is whole, in one transaction. Returns it as it is then.
    pub async fn change_network(
        &self,
        name: &str,
        change: &NetworkChange,
    ) -> Result<Network, Error> {
        let (own, networks) = (self.layout.network(name)?, self.layout.networks()?);
        let (all, blocks) = (self.layout.subnets()?, self.layout.blocks(name)?);
        for _ in 0..ATTEMPTS {
            let keys = [networks.clone(), all.clone(), blocks.clone()];
            let entries = self.store.read(&keys).await?;
            let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
            let Some(entry) = find(&own) else {
                return Err(Error::NoNetwork(name.to_owned()));
            };
            let network = decode::<Network>(entry)?;
            network.record.takes_attachments()?;
            let changed = change.applied(&network.record)?;
            if changed == network.record {
                return Ok(changed);
            }
            let mut ops = vec![Op::Swap {
                key: own.clone(),
                value: encode(&changed)?,
                revision: network.revision,
            }];
            if changed.ranges != network.record.ranges {
                let spec = NetworkSpec {
                    name: name.to_owned(),
                    ranges: changed.ranges.clone(),
                    ..NetworkSpec::default()
                };
                let (op, _) = self.swap_subnets(find(&all), |record| {
                    self.add_subnets(record, &entries)?;
                    refuse_overlap(&spec, record)?;
                    let subnets = subnets(&spec.ranges);
                    record.networks.insert(name.to_owned(), subnets);
                    Ok(())
                })?;
                ops.push(op);
            }
            ops.extend(entries.iter().find_map(|it| announcement(it, &blocks)));
            if let Outcome::Done(_) = self.store.apply(&ops).await? {
                return Ok(changed);
            }
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }
}

/// The write of a block as it is. Only of one of whose record no revision matters: it has its owner, and no exclusion.
fn announcement(entry: &Entry, blocks: &Key) -> Option<Op> {
    stored::name_below(entry, blocks)?
        .parse::<ipam::Block>()
        .ok()?;
    let block = Stored::<BlockRecord>::of(entry);
    let record = &block.readable()?.record;
    let is_plain = record.is_of(&record.node) && record.exclusions.is_empty();
    is_plain.then(|| Op::Swap {
        key: entry.key.clone(),
        value: entry.value.clone(),
        revision: entry.revision,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network(extra: &serde_json::Value) -> Network {
        let mut record = json!({
            "name": "n", "vni": 4097,
            "ranges": [[{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]],
        });
        for (key, value) in extra.as_object().unwrap() {
            record[key] = value.clone();
        }
        serde_json::from_value(record).unwrap()
    }

    fn subnet(subnet: &str) -> NetworkChange {
        let range = json!({ "subnet": subnet });
        NetworkChange {
            subnets: vec![serde_json::from_value(range).unwrap()],
            ..NetworkChange::default()
        }
    }

    fn mtu(mtu: u32) -> NetworkChange {
        NetworkChange {
            mtu: Some(mtu),
            ..NetworkChange::default()
        }
    }

    #[test]
    fn what_containers_can_follow_is_changed() {
        let labels = json!({ "labels": { "a": "1", "b": "2" } });
        let change = NetworkChange {
            labels: [("c".to_owned(), "3".to_owned())].into(),
            without_labels: ["a".to_owned()].into(),
            ..mtu(1400)
        };
        let changed = change.applied(&network(&labels)).unwrap();
        assert_eq!(changed.mtu, Some(1400));
        let labels = changed.labels.into_iter().map(|(key, value)| key + &value);
        assert_eq!(labels.collect::<Vec<_>>(), ["b2", "c3"]);
        let lower = mtu(1300)
            .applied(&network(&json!({ "mtu": 1400 })))
            .unwrap();
        assert_eq!(lower.mtu, Some(1300));

        let wider = subnet("10.0.8.0/22").applied(&network(&json!({}))).unwrap();
        let subnets: Vec<_> = wider.subnets().iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.0.0.0/24", "10.0.8.0/22"]);
        assert_eq!(wider.ranges.len(), 1, "alternatives: one address of both");
        assert_eq!(wider.ranges[0][1].gateway, "10.0.8.1".parse().ok());
    }

    #[test]
    fn what_they_cannot_follow_is_refused() {
        let plain = || network(&json!({}));
        for (change, network, words) in [
            (
                mtu(1401),
                network(&json!({ "mtu": 1400 })),
                "can only be lowered",
            ),
            (mtu(100), plain(), "576"),
            (
                mtu(1000),
                network(&json!({ "ranges": [[{ "subnet": "fd00::/64" }]] })),
                "IPv6 needs 1280",
            ),
            (subnet("10.0.0.0/16"), plain(), "overlaps"),
            (subnet("10.0.1.1/24"), plain(), "host bits"),
            (subnet("fd00::/64"), plain(), "no subnet of this version"),
            (subnet("10.0.1.0/28"), plain(), "cut anew"),
            (
                subnet("10.0.1.0/24"),
                network(&json!({ "egress": "gateway" })),
                "gateway is the host",
            ),
        ] {
            let refused = change.applied(&network).unwrap_err().to_string();
            assert!(refused.contains(words), "{words}: {refused}");
        }
    }
}
