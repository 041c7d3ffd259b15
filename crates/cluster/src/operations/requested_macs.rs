//! Requested MACs: exceptions to the rule that a container's MAC follows from its address.
//!
//! Each has a record of its own beside the network's blocks, so that it is read and watched together with them. The record is
//! named after the MAC; that no other attachment has it is a condition of the write that publishes the lease. A MAC changes its
//! home as an address does: it is given back first, and goes to another node only when all members have dropped the old home,
//! by the same acknowledgements. It is given back before its lease, so that an interrupted release finds it again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipam::{Mac, Range, RangeSet};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use store::Op;

use crate::{
    ATTEMPTS, Cluster, Error, Lease, Network, NetworkSnapshot, Stored, Versioned, records::encode,
};

/// Longest wait for members that still send to the old home of a MAC.
const PATIENCE: Duration = Duration::from_secs(2);

/// The attachment that has a MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MacRecord {
    /// The attachment that asked for it.
    pub lease: Lease,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it was given back: it has no home, but other hosts may still send to the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returned: bool,
}

impl Network {
    /// The requested MAC, if it does not follow from one of the `requested` addresses. Fails if it follows from another address
    /// of the network: that may be another container's.
    pub(crate) fn exception(
        &self,
        mac: Option<Mac>,
        requested: &[IpAddr],
    ) -> Result<Option<Mac>, Error> {
        // Without a VXLAN segment no host computes MACs.
        let Some(mac) = mac.filter(|_| self.vni.is_some()) else {
            return Ok(None);
        };
        match self.address_of(mac) {
            None => Ok(Some(mac)),
            Some(address) if requested.contains(&address) => Ok(None),
            Some(address) => Err(Error::BadMac {
                mac,
                why: format!("belongs to address {address}; request that too, or another MAC"),
            }),
        }
    }

    /// The address of this network from which a MAC would be computed.
    fn address_of(&self, mac: Mac) -> Option<IpAddr> {
        let [first, second, low @ ..] = mac.0;
        let inside = |range: &Range| {
            let address = match &range.subnet {
                IpNetwork::V4(_) => IpAddr::from(Ipv4Addr::from(low)),
                IpNetwork::V6(v6) => {
                    let high = v6.network().to_bits() & !u128::from(u32::MAX);
                    Ipv6Addr::from(high | u128::from(u32::from_be_bytes(low))).into()
                }
            };
            range.subnet.contains(address).then_some(address)
        };
        let computed = [first, second] == Mac::PREFIX;
        let telling = self.telling().filter(|_| computed);
        telling.into_iter().flatten().find_map(inside)
    }

    /// Whether MACs are computed from addresses like this one. A container has one address of each set and one MAC: that of its
    /// first IPv4 address, or of its first address if it has no IPv4.
    pub fn tells_mac(&self, address: IpAddr) -> bool {
        let inside = |range: &Range| range.subnet.contains(address);
        self.telling().is_none_or(|set| set.iter().any(inside))
    }

    /// The set of ranges from whose addresses MACs are computed.
    fn telling(&self) -> Option<&RangeSet> {
        let is_v6 = |set: &&RangeSet| set.first().is_some_and(|range| range.subnet.is_ipv6());
        self.ranges.iter().min_by_key(is_v6)
    }
}

impl NetworkSnapshot {
    /// The requested MACs, by address.
    pub fn exceptions(&self) -> BTreeMap<IpAddr, Mac> {
        let given = self.macs.readable().filter(|(_, it)| !it.record.returned);
        let at_home = |(mac, given): (&Mac, &Versioned<MacRecord>)| {
            let MacRecord {
                lease, addresses, ..
            } = &given.record;
            let home = |address: &&IpAddr| self.home(**address) == Some(lease.node.as_str());
            let own: Vec<_> = addresses.iter().filter(home).map(|a| (*a, *mac)).collect();
            own
        };
        given.flat_map(at_home).collect()
    }
}

impl Cluster<'_> {
    /// The write that gives a MAC to `lease` with these addresses, as a part of the transaction that publishes the lease. If
    /// `held`, the container has the MAC already, and any other holder in the store was brought back by a restore.
    pub(crate) async fn claim_mac(
        &self,
        network: &str,
        mac: Mac,
        lease: &Lease,
        addresses: &[IpAddr],
        held: bool,
    ) -> Result<Op, Error> {
        let key = self.layout.mac(network, mac)?;
        let mut record = MacRecord {
            lease: lease.clone(),
            addresses: addresses.to_vec(),
            returned: false,
        };
        let Some(entry) = self.store.get(&key).await? else {
            let value = encode(&record)?;
            return Ok(Op::Create { key, value });
        };
        let present = match Stored::<MacRecord>::of(&entry) {
            Stored::Readable(present) => present,
            Stored::Unreadable(unreadable) => {
                let why = format!("is taken: {}", unreadable.refusal(&key));
                return Err(Error::BadMac { mac, why });
            }
        };
        let (revision, present) = (present.revision, present.record);
        if !held && !present.returned && !present.lease.same_owner(lease) {
            let Lease {
                ifname,
                container,
                node,
                ..
            } = present.lease;
            let why = format!("belongs to {ifname} of container {container} on node {node}");
            return Err(Error::BadMac { mac, why });
        }
        if !held && present.returned && present.lease.node != lease.node {
            let dropped = self.all_dropped(network, &lease.node, revision, PATIENCE);
            let nodes = dropped.await?;
            if !nodes.is_empty() {
                let (network, what) = (network.to_owned(), format!("MAC {mac}"));
                return Err(Error::Waiting {
                    network,
                    what,
                    nodes,
                });
            }
        }
        // After the store lost a pair, each of its addresses is published by itself.
        if !present.returned && present.lease == *lease {
            let known = present.addresses.into_iter();
            record
                .addresses
                .extend(known.filter(|known| !addresses.contains(known)));
        }
        let value = encode(&record)?;
        Ok(Op::Swap {
            key,
            value,
            revision,
        })
    }

    /// Gives a MAC back, if `node` has it and all of its addresses are `released`.
    pub(crate) async fn return_mac(
        &self,
        network: &str,
        node: &str,
        mac: Mac,
        released: &[IpAddr],
    ) -> Result<(), Error> {
        let key = self.layout.mac(network, mac)?;
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.store.get(&key).await? else {
                return Ok(());
            };
            // The node that has it is unknown.
            let Stored::Readable(mut present) = Stored::<MacRecord>::of(&entry) else {
                return Ok(());
            };
            let record = &mut present.record;
            let all = record.addresses.iter().all(|a| released.contains(a));
            if record.returned || record.lease.node != node || !all {
                return Ok(());
            }
            record.returned = true;
            let value = encode(record)?;
            let swapped = self.store.swap(&key, &value, present.revision).await?;
            if swapped.is_some() {
                return Ok(());
            }
        }
        Err(Error::Contended(key.as_str().to_owned()))
    }

    /// Deletes the records of MACs that were given back by `node`, or by a node that was removed, and that all members have
    /// dropped.
    pub(crate) async fn forget_macs(
        &self,
        network: &str,
        node: &str,
        snapshot: &NetworkSnapshot,
    ) -> Result<(), Error> {
        let over = snapshot.macs.readable().filter(|(_, given)| {
            let home = &given.record.lease.node;
            given.record.returned && (home == node || !snapshot.nodes.contains(home))
        });
        for (mac, given) in over {
            // No node has an empty name, so this host's own acknowledgement counts as well.
            let late = self.waiting_for(network, "", given.revision).await?;
            if late.is_empty() {
                let key = self.layout.mac(network, *mac)?;
                self.store.delete(&key, given.revision).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network with a set of one range for each of the subnets.
    fn network(subnets: &[&str]) -> Network {
        let set = |subnet: &&str| vec![Range::of(subnet.parse().unwrap()).unwrap()];
        Network {
            name: "n".into(),
            id: None,
            vni: Some(4097),
            ranges: subnets.iter().map(set).collect(),
            block_prefix: None,
            mtu: None,
            vxlan_port: None,
            egress: None,
            reaches: None,
            reclaim_after: None,
            macvlan: None,
            conflist: false,
            labels: std::collections::BTreeMap::new(),
            state: crate::NetworkState::Ready,
            restoring: None,
        }
    }

    #[test]
    fn one_set_tells_macs_and_those_of_others_may_be_asked_for() {
        let asks = |network: &Network, address: &str| {
            let mac = Mac::of(address.parse().unwrap());
            network.exception(Some(mac), &[])
        };
        let dual = network(&["fd00::/64", "10.0.0.0/24", "10.1.0.0/24"]);
        assert!(dual.tells_mac("10.0.0.9".parse().unwrap()));
        assert!(asks(&dual, "10.0.0.9").is_err(), "of another's address");
        for free in ["10.1.0.9", "fd00::9"] {
            assert!(!dual.tells_mac(free.parse().unwrap()), "{free}");
            assert!(asks(&dual, free).unwrap().is_some(), "{free}");
        }
        let six = network(&["fd00::/64", "fd01::/64"]);
        assert!(six.tells_mac("fd00::9".parse().unwrap()));
        assert!(!six.tells_mac("fd01::9".parse().unwrap()));
        assert!(asks(&six, "fd00::9").is_err(), "of another's address");
    }
}
