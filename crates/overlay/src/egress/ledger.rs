//! Which container has which egress address. A container has one until its last attachment leaves. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use journal::Attachment;
use netlink::Mac;
use serde::{Deserialize, Serialize};

use crate::segment::forwarding::mac_of;

/// After so many addresses that were given back, connections of all of them are ended.
const MANY_SPENT: usize = 64;

/// The host's egress addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The bridge's subnet; the bridge has its first address.
    pub subnet: Ipv4Network,
    /// Its subnet of IPv6, /64, from the first container that wants one. Host parts are those of IPv4.
    #[serde(default)]
    pub subnet6: Option<Ipv6Network>,
    /// Containers by their address.
    pub leases: BTreeMap<Ipv4Addr, Lease>,
    /// Whether the bridge was found without this document, with containers that only they themselves know.
    #[serde(default)]
    pub adopted: bool,
    /// Addresses that were given back, and whose connections this host may still track. To end connections costs a look at all that a
    /// host tracks, so it is done for many addresses at once, before any of them is given again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) spent: BTreeSet<Ipv4Addr>,
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
    /// The same of its address of IPv6.
    #[serde(default)]
    pub open6: bool,
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
    /// The same of IPv6, where the attachment wants it.
    pub v6: Option<Nic6>,
}

impl Nic {
    /// Its MAC.
    pub fn mac(&self) -> Mac {
        mac_of(self.address.ip().into())
    }

    /// Whether something of it has still to be set in the container.
    pub fn is_unfinished(&self) -> bool {
        self.new || self.v6.is_some_and(|v6| v6.new)
    }
}

/// What a container's egress NIC has of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic6 {
    /// Its address with the bridge's prefix length.
    pub address: Ipv6Network,
    /// The bridge's address.
    pub gateway: Ipv6Addr,
    /// Whether the address has still to be set in the container.
    pub new: bool,
}

impl Ledger {
    /// One of a bridge with these subnets, and of no container.
    pub(super) fn new(subnet: Ipv4Network, subnet6: Option<Ipv6Network>) -> Self {
        Self {
            subnet,
            subnet6,
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        }
    }

    /// The address of the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnet.network()) + 1)
    }

    /// What the containers on the bridge come from.
    pub(super) fn subnets(&self) -> BTreeSet<IpNetwork> {
        let v6 = self.subnet6.map(IpNetwork::V6);
        v6.into_iter().chain([self.subnet.into()]).collect()
    }

    /// The address of IPv6 that stands beside one of IPv4: it has the same host part.
    pub(super) fn counterpart(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let subnet = self.subnet6?;
        let host = u32::from(address) - u32::from(self.subnet.network());
        Some((u128::from(subnet.network()) | u128::from(host)).into())
    }

    /// The container's address, the lowest free one that is not in a subnet `beside` if it has none, and with `v6` its counterpart
    /// of IPv6 where there is a subnet of it; `None` if all are taken or [`spent`](Ledger::renew).
    pub(super) fn enter(
        &mut self,
        container: &str,
        attachment: &str,
        v6: bool,
        beside: &[IpNetwork],
    ) -> Option<Nic> {
        let known = self
            .leases
            .iter()
            .find(|(_, lease)| lease.container == container)
            .map(|(address, _)| *address);
        let (first, last) = (
            u32::from(self.gateway()) + 1,
            u32::from(self.subnet.broadcast()),
        );
        let free = |n: &u32| {
            let address = Ipv4Addr::from(*n);
            let is_elsewhere = beside.iter().any(|subnet| subnet.contains(address.into()));
            let is_taken = self.leases.contains_key(&address) || self.spent.contains(&address);
            !is_taken && !is_elsewhere
        };
        // Addresses are given from the lowest on. On an adopted bridge the highest are surely free.
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
            open6: false,
        };
        let lease = self.leases.entry(address).or_insert(lease);
        lease.attachments.insert(attachment.to_owned());
        let lease = lease.clone();
        self.nic(address, &lease, v6)
    }

    /// The NIC of the container that has an address, with `v6` also its address of IPv6.
    pub(crate) fn nic(&self, address: Ipv4Addr, lease: &Lease, v6: bool) -> Option<Nic> {
        let counterparts = self.counterpart(address).zip(self.subnet6);
        let gateway = self.counterpart(self.gateway());
        let nic6 = |((address, subnet), gateway): ((Ipv6Addr, Ipv6Network), Ipv6Addr)| {
            Some(Nic6 {
                address: Ipv6Network::new(address, subnet.prefix()).ok()?,
                gateway,
                new: !(lease.open && lease.open6),
            })
        };
        let both = counterparts.zip(gateway).filter(|_| v6);
        Some(Nic {
            address: Ipv4Network::new(address, self.subnet.prefix()).ok()?,
            gateway: self.gateway(),
            new: !lease.open,
            v6: both.and_then(nic6),
        })
    }

    /// Restores the lease of an attachment's container from the addresses of its NIC, if one is of this bridge; whether one is. The
    /// NIC works if it `is_plugged` in.
    pub(super) fn recall(
        &mut self,
        attachment: &Attachment,
        addresses: &[IpNetwork],
        is_plugged: bool,
    ) -> bool {
        let own = addresses.iter().find_map(|address| match address {
            IpNetwork::V4(v4) if self.subnet.contains(v4.ip()) => Some(v4.ip()),
            _ => None,
        });
        let Some(own) = own else { return false };
        let counterpart = self.counterpart(own);
        let open6 = addresses
            .iter()
            .any(|it| Some(it.ip()) == counterpart.map(Into::into));
        let new = || Lease {
            container: attachment.container_hash(),
            attachments: BTreeSet::new(),
            open: is_plugged,
            open6: is_plugged && open6,
        };
        let lease = self.leases.entry(own).or_insert_with(new);
        if lease.container != attachment.container_hash() {
            return false;
        }
        lease.attachments.insert(attachment.hash());
        true
    }

    /// Whether nothing is noted of an attachment's container, and there are containers on the bridge of which nothing is.
    pub(super) fn is_stranger(&self, attachment: &Attachment) -> bool {
        let container = attachment.container_hash();
        self.adopted
            && self
                .leases
                .values()
                .all(|lease| lease.container != container)
    }

    /// Forgets the attachment; whether it was its container's last.
    pub(super) fn leave(&mut self, attachment: &str) -> bool {
        let before = self.leases.len();
        for lease in self.leases.values_mut() {
            lease.attachments.remove(attachment);
        }
        let ended = |lease: &Lease| lease.attachments.is_empty();
        let given_back = self.leases.iter().filter(|(_, lease)| ended(lease));
        self.spent.extend(given_back.map(|(address, _)| *address));
        self.leases.retain(|_, lease| !ended(lease));
        self.leases.len() < before
    }

    /// Whether so many addresses were given back that their connections should be ended now.
    pub(super) fn has_many_spent(&self) -> bool {
        self.spent.len() >= MANY_SPENT
    }

    /// Lets the addresses that were given back be given again; the caller ends their connections, which are those of the returned ones.
    pub(super) fn renew(&mut self) -> BTreeSet<IpAddr> {
        let spent = std::mem::take(&mut self.spent);
        let v6 = spent
            .iter()
            .filter_map(|address| self.counterpart(*address));
        let v6: BTreeSet<_> = v6.map(IpAddr::V6).collect();
        spent.into_iter().map(IpAddr::V4).chain(v6).collect()
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
            subnet6: None,
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        };
        let (eth0, eth1) = (attachment("c1", "eth0"), attachment("c1", "eth1"));
        let first = ledger
            .enter(&eth0.container_hash(), &eth0.hash(), false, &[])
            .unwrap();
        assert_eq!(
            (first.address.to_string().as_str(), first.new),
            ("172.18.0.2/29", true)
        );
        assert!(ledger.is_last(&eth0));
        let second = ledger
            .enter(&eth1.container_hash(), &eth1.hash(), false, &[])
            .unwrap();
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
    fn an_address_of_ipv6_has_the_host_part_of_the_other_and_comes_when_it_is_wanted() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/16".parse().unwrap(),
            subnet6: Some("fd12:3456:789a::/64".parse().unwrap()),
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        };
        assert_eq!(ledger.enter("c1", "a1", false, &[]).unwrap().v6, None);
        ledger.leases.values_mut().next().unwrap().open = true;
        let nic = ledger.enter("c1", "a2", true, &[]).unwrap();
        let v6 = nic.v6.unwrap();
        assert_eq!((nic.new, v6.new), (false, true), "only IPv6 is new");
        assert_eq!(v6.address.to_string(), "fd12:3456:789a::2/64");
        assert_eq!(v6.gateway.to_string(), "fd12:3456:789a::1");
        ledger.leases.values_mut().next().unwrap().open6 = true;
        assert!(!ledger.enter("c1", "a3", true, &[]).unwrap().v6.unwrap().new);
    }

    #[test]
    fn what_containers_have_is_taken_in_again() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/29".parse().unwrap(),
            subnet6: Some("fd12:3456:789a::/64".parse().unwrap()),
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        };
        let address = |text: &str| -> IpNetwork { text.parse().unwrap() };
        let (one, two) = (attachment("c1", "eth0"), attachment("c1", "eth1"));
        let own = [address("172.18.0.2/29"), address("fd12:3456:789a::2/64")];
        assert!(ledger.recall(&one, &own, true) && ledger.recall(&two, &own, true));
        let foreign = [address("10.0.0.2/29")];
        assert!(!ledger.recall(&attachment("c2", "eth0"), &foreign, true));
        let other = attachment("c3", "eth0");
        assert!(ledger.recall(&other, &[address("172.18.0.3/29")], true));
        let lease = &ledger.leases[&"172.18.0.2".parse().unwrap()];
        assert_eq!(
            (lease.open, lease.open6, lease.attachments.len()),
            (true, true, 2)
        );
        assert!(!ledger.leases[&"172.18.0.3".parse().unwrap()].open6);
        let next = ledger.enter("c4", "a4", false, &[]).unwrap();
        assert_eq!(next.address.to_string(), "172.18.0.4/29");
        assert!(!ledger.leave(&one.hash()) && ledger.leave(&two.hash()));
    }

    #[test]
    fn a_full_subnet_gives_no_address() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/30".parse().unwrap(),
            subnet6: None,
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        };
        assert!(ledger.enter("c1", "a1", false, &[]).is_some());
        assert_eq!(ledger.enter("c2", "a2", false, &[]), None);
    }

    #[test]
    fn an_address_that_was_given_back_rests_until_its_connections_are_ended() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/24".parse().unwrap(),
            subnet6: Some("fd12:3456:789a::/64".parse().unwrap()),
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        };
        let enter = |ledger: &mut Ledger, name: &str| {
            let nic = ledger.enter(name, name, false, &[]).unwrap();
            nic.address.ip().to_string()
        };
        assert_eq!(enter(&mut ledger, "c1"), "172.18.0.2");
        assert!(ledger.leave("c1"));
        assert_eq!(enter(&mut ledger, "c2"), "172.18.0.3");
        let text = serde_json::to_string(&ledger).unwrap();
        ledger = serde_json::from_str(&text).unwrap();
        let ended: Vec<_> = ledger.renew().iter().map(ToString::to_string).collect();
        assert_eq!(ended, ["172.18.0.2", "fd12:3456:789a::2"]);
        assert_eq!(enter(&mut ledger, "c3"), "172.18.0.2");

        for number in 0..MANY_SPENT {
            assert!(!ledger.has_many_spent());
            let name = format!("d{number}");
            enter(&mut ledger, &name);
            assert!(ledger.leave(&name));
        }
        assert!(ledger.has_many_spent());
    }

    #[test]
    fn an_address_that_the_container_reaches_otherwise_is_not_given() {
        let mut ledger = Ledger {
            subnet: "172.18.0.0/24".parse().unwrap(),
            subnet6: None,
            leases: BTreeMap::new(),
            adopted: false,
            spent: BTreeSet::new(),
        };
        let beside = ["172.18.0.0/29".parse().unwrap()];
        let nic = ledger.enter("c1", "a1", false, &beside).unwrap();
        assert_eq!(nic.address.to_string(), "172.18.0.8/24");
        let all = ["172.16.0.0/12".parse().unwrap()];
        assert_eq!(ledger.enter("c2", "a2", false, &all), None);
    }
}
