//! Who has which egress address, pure: a container has one until its last attachment leaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnetwork::Ipv4Network;
use journal::Attachment;
use serde::{Deserialize, Serialize};

/// The host's egress addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The bridge's subnet; the bridge has its first address.
    pub subnet: Ipv4Network,
    /// Containers by their address.
    pub leases: BTreeMap<Ipv4Addr, Lease>,
    /// Whether the bridge was found without this document, with containers that only they themselves know.
    #[serde(default)]
    pub adopted: bool,
    /// The kernel's count of changes to any rules when ours were last seen whole: while it stays, so are they.
    #[serde(default)]
    pub rules: Option<u32>,
}

/// A container on the egress bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The container's hash.
    pub container: String,
    /// The hashes of its attachments that want a way out. With the last one the NIC goes.
    pub attachments: BTreeSet<String>,
    /// Whether the NIC came to work. A killed ADD leaves it in any state, for the next one to make anew.
    #[serde(default)]
    pub open: bool,
}

/// A container's egress NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic {
    /// Its address with the bridge's prefix length.
    pub address: Ipv4Network,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Whether the NIC was made just now and has still to be raised in the container.
    pub new: bool,
}

impl Ledger {
    /// The address of the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    /// The container's address, the lowest free one if it has none; `None` if all are taken.
    pub(super) fn enter(&mut self, container: &str, attachment: &str) -> Option<Nic> {
        let known = self
            .leases
            .iter()
            .find(|(_, lease)| lease.container == container)
            .map(|(address, _)| *address);
        let (first, last) = (
            u32::from(self.gateway()) + 1,
            u32::from(self.subnet.broadcast()),
        );
        let free = |n: &u32| !self.leases.contains_key(&Ipv4Addr::from(*n));
        // Addresses are given from the bottom: on an adopted bridge those at the top are the ones that nobody has.
        let mut all = first..last;
        let mut lowest = || {
            if self.adopted {
                all.rfind(free)
            } else {
                all.find(free)
            }
        };
        let address = known.or_else(|| lowest().map(Ipv4Addr::from))?;
        let lease = Lease {
            container: container.to_owned(),
            attachments: BTreeSet::new(),
            open: false,
        };
        let lease = self.leases.entry(address).or_insert(lease);
        lease.attachments.insert(attachment.to_owned());
        let new = !lease.open;
        let address = Ipv4Network::new(address, self.subnet.prefix()).ok()?;
        Some(Nic {
            address,
            gateway: self.gateway(),
            new,
        })
    }

    /// Forgets the attachment; whether it was its container's last.
    pub(super) fn leave(&mut self, attachment: &str) -> bool {
        let before = self.leases.len();
        for lease in self.leases.values_mut() {
            lease.attachments.remove(attachment);
        }
        self.leases.retain(|_, lease| !lease.attachments.is_empty());
        self.leases.len() < before
    }

    /// Whether no other attachment keeps the container's NIC.
    pub fn is_last(&self, attachment: &Attachment) -> bool {
        let (container, hash) = (attachment.container_hash(), attachment.hash());
        let mut others = self
            .leases
            .values()
            .filter(|lease| lease.container == container);
        !others.any(|lease| lease.attachments.iter().any(|other| *other != hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container: &str, ifname: &str) -> Attachment {
        Attachment {
            network: "n".into(),
            container: container.into(),
            ifname: ifname.into(),
        }
    }

    #[test]
    fn a_container_has_one_address_until_its_last_attachment_leaves() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/29".parse().unwrap(),
            leases: BTreeMap::new(),
            adopted: false,
            rules: None,
        };
        let (eth0, eth1) = (attachment("c1", "eth0"), attachment("c1", "eth1"));
        let first = ledger.enter(&eth0.container_hash(), &eth0.hash()).unwrap();
        assert_eq!(
            (first.address.to_string().as_str(), first.new),
            ("172.18.0.2/29", true)
        );
        assert!(ledger.is_last(&eth0));
        let second = ledger.enter(&eth1.container_hash(), &eth1.hash()).unwrap();
        assert_eq!(
            (second.address, second.new),
            (first.address, true),
            "made anew until it works"
        );
        assert!(!ledger.is_last(&eth0));
        assert!(!ledger.leave(&eth0.hash()) && ledger.leave(&eth1.hash()));
        assert!(ledger.leases.is_empty());
    }

    #[test]
    fn a_full_subnet_gives_no_address() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/30".parse().unwrap(),
            leases: BTreeMap::new(),
            adopted: false,
            rules: None,
        };
        assert!(ledger.enter("c1", "a1").is_some());
        assert_eq!(ledger.enter("c2", "a2"), None);
    }
}
