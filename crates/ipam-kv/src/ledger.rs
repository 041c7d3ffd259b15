//! The ledger: what this host holds of one network. It is the journal of this plugin: a lease stands here before it
//! stands anywhere else, and leaves last.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use cluster::{Lease, LeaseGuard, Network, News, Versioned};
use ipam::{Block, Held};
use journal::Attachment;
use serde::{Deserialize, Serialize};

/// Seconds for which a freed address rests, unless nothing else is free.
pub const COOL_DOWN: u64 = 60;

/// One network's ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The node's name when the ledger was begun.
    pub node: String,
    /// The network as last read.
    pub network: Versioned<Network>,
    /// Our blocks, and the revisions at which they became ours.
    pub blocks: BTreeMap<Block, u64>,
    /// Addresses in use.
    pub leases: BTreeMap<IpAddr, Entry>,
    /// Addresses that were given back, and when ([`journal::clock::uptime`]).
    pub freed: BTreeMap<IpAddr, u64>,
}

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The lease as published or to be published.
    pub lease: Lease,
    /// How far it is.
    pub stage: Stage,
}

/// The life of a lease on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Chosen by an ADD that has not answered: at work now, or killed.
    Chosen,
    /// Given out; the revision at which it stands in the store, none while that was away.
    Held(Option<u64>),
    /// Given back; the store does not know it yet.
    Freeing(Option<u64>),
}

impl Ledger {
    /// A ledger from the news, without leases.
    pub fn new(node: &str, network: Versioned<Network>, news: &News) -> Self {
        let blocks = news.blocks_of(node);
        Self {
            node: node.to_owned(),
            network,
            blocks,
            leases: BTreeMap::new(),
            freed: BTreeMap::new(),
        }
    }

    /// Takes over a lease that the store has on an address of ours, so that it is not given out again.
    pub fn adopt(&mut self, address: IpAddr, lease: Versioned<Lease>) {
        self.leases.entry(address).or_insert(Entry {
            lease: lease.record,
            stage: Stage::Held(Some(lease.revision)),
        });
    }

    /// The allocator's view.
    pub fn held(&self) -> Held {
        Held {
            blocks: self.blocks.keys().copied().collect(),
            used: self.leases.keys().copied().collect::<BTreeSet<_>>(),
            freed: self.freed.clone(),
        }
    }

    /// The facts under which leases on `addresses` may be published; `None` if one is in no block of ours.
    pub fn guard(&self, addresses: &[IpAddr]) -> Option<LeaseGuard> {
        let block = |address: &IpAddr| {
            self.blocks
                .iter()
                .find(|(block, _)| block.contains(*address))
        };
        let blocks = addresses
            .iter()
            .map(|address| block(address).map(|(block, revision)| (*block, *revision)));
        Some(LeaseGuard {
            network: self.network.revision,
            blocks: blocks.collect::<Option<_>>()?,
        })
    }

    /// The addresses of an attachment, in whatever stage.
    pub fn of(&self, attachment: &Attachment) -> Vec<IpAddr> {
        self.matching(|entry| is_of(&entry.lease, attachment))
    }

    /// The addresses of all entries that match.
    pub fn matching(&self, matches: impl Fn(&Entry) -> bool) -> Vec<IpAddr> {
        self.leases
            .iter()
            .filter(|(_, entry)| matches(entry))
            .map(|(address, _)| *address)
            .collect()
    }

    /// Marks addresses as given back; those that were never published, for sure, are free at once.
    pub fn give_back(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if let Some(entry) = self.leases.get_mut(address) {
                entry.stage = match entry.stage {
                    Stage::Held(revision) | Stage::Freeing(revision) => Stage::Freeing(revision),
                    Stage::Chosen => Stage::Freeing(None),
                };
            }
        }
    }

    /// The store has forgotten the address, if it is still `lease`'s that was given back: it rests from `now` on.
    pub fn forget(&mut self, address: IpAddr, lease: &Lease, now: u64) {
        if self
            .leases
            .get(&address)
            .is_some_and(|e| e.lease == *lease && matches!(e.stage, Stage::Freeing(_)))
        {
            self.leases.remove(&address);
            self.freed.insert(address, now);
        }
    }

    /// What the store does not know yet: leases given out or given back while it was away.
    pub fn unpublished(&self) -> Vec<(IpAddr, Entry)> {
        let behind = |entry: &Entry| matches!(entry.stage, Stage::Held(None) | Stage::Freeing(_));
        self.leases
            .iter()
            .filter(|(_, e)| behind(e))
            .map(|(a, e)| (*a, e.clone()))
            .collect()
    }
}

/// Whether a lease is of that container and interface.
pub fn is_of(lease: &Lease, attachment: &Attachment) -> bool {
    lease.container == attachment.container && lease.ifname == attachment.ifname
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::NetworkState;

    fn ledger() -> Ledger {
        let record = Network {
            name: "n".into(),
            vni: None,
            ranges: vec![],
            block_prefix: None,
            mtu: None,
            vxlan_port: None,
            egress: None,
            state: NetworkState::Ready,
        };
        let mut ledger = Ledger::new(
            "n1",
            Versioned {
                record,
                revision: 3,
            },
            &News::default(),
        );
        ledger.blocks.insert("10.0.0.8_29".parse().unwrap(), 4);
        ledger
    }

    fn lease(container: &str) -> Lease {
        Lease {
            node: "n1".into(),
            boot_id: "b".into(),
            container: container.into(),
            ifname: "eth0".into(),
            since: 1,
        }
    }

    #[test]
    fn a_lease_is_guarded_by_its_block_and_network() {
        let ledger = ledger();
        let guard = ledger.guard(&["10.0.0.9".parse().unwrap()]).unwrap();
        assert_eq!(
            (guard.network, guard.blocks),
            (3, [("10.0.0.8_29".parse().unwrap(), 4)].into())
        );
        assert_eq!(ledger.guard(&["10.0.0.16".parse().unwrap()]), None);
    }

    #[test]
    fn an_address_is_used_until_the_store_forgot_it_and_then_rests() {
        let (mut ledger, address): (_, IpAddr) = (ledger(), "10.0.0.9".parse().unwrap());
        ledger.leases.insert(
            address,
            Entry {
                lease: lease("c1"),
                stage: Stage::Held(Some(7)),
            },
        );
        assert!(ledger.unpublished().is_empty());
        ledger.give_back(&[address]);
        assert_eq!(ledger.unpublished()[0].1.stage, Stage::Freeing(Some(7)));
        assert!(ledger.held().used.contains(&address));
        ledger.forget(address, &lease("c1"), 50);
        assert_eq!(
            (ledger.leases.len(), ledger.freed.get(&address)),
            (0, Some(&50))
        );
    }

    #[test]
    fn a_late_forget_does_not_touch_the_next_holder() {
        let (mut ledger, address): (_, IpAddr) = (ledger(), "10.0.0.9".parse().unwrap());
        ledger.leases.insert(
            address,
            Entry {
                lease: lease("c2"),
                stage: Stage::Held(None),
            },
        );
        ledger.forget(address, &lease("c1"), 50);
        ledger.forget(address, &lease("c2"), 50);
        assert_eq!(ledger.leases.len(), 1);
    }
}
