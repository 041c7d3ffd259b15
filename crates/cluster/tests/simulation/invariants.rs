//! What must hold after each step. Each check is made where its subject changes, which is the same as after each step and a
//! hundred times cheaper. [`World::check_all`] makes all of them at once, at quiet moments.

use std::{fmt, net::IpAddr};

use cluster::{Lease, LeaseOwner};
use ipam::Mac;
use store::{Key, Op};

use crate::{
    scenario::network_of,
    verbs::asked_mac,
    world::{Process, World},
};

/// An invariant that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Two running containers have one address.
    Doubled(String),
    /// A host sends packets for a running container to the wrong host.
    Misdelivered(String),
    /// The lease of a running container is gone or belongs to another one.
    Unleased(String),
    /// An address is lost, or a record stays that is no longer needed.
    Lost(String),
    /// Something of a removed network is left or comes back.
    Revived(String),
    /// A verb failed although nothing was wrong, never ended, or something panicked.
    Failed(String),
}

impl Violation {
    /// Which invariant, without the particulars.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Doubled(_) => "doubled",
            Self::Misdelivered(_) => "misdelivered",
            Self::Unleased(_) => "unleased",
            Self::Lost(_) => "lost",
            Self::Revived(_) => "revived",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Doubled(what)
        | Self::Misdelivered(what)
        | Self::Unleased(what)
        | Self::Lost(what)
        | Self::Revived(what)
        | Self::Failed(what)) = self;
        write!(f, "{}: {what}", self.name())
    }
}

impl World {
    /// A container got its addresses and runs.
    pub fn run(&self, host: usize, owner: &LeaseOwner, addresses: &[IpAddr]) {
        self.say(|| format!("n{host} {} runs with {addresses:?}", owner.container));
        for address in addresses {
            let before = self
                .running
                .borrow_mut()
                .insert(*address, (host, owner.clone()));
            if let Some((other, container)) = before {
                self.accuse(|| {
                    let (one, two) = (&container.container, &owner.container);
                    Violation::Doubled(format!("{address}: {one} on n{other} and {two} on n{host}"))
                });
            }
            self.check_mac(host, owner);
            for other in self.hosts().filter(|other| *other != host) {
                self.check_entry(other, *address, host, network_of(owner));
            }
        }
    }

    /// A container runs no more.
    pub fn stop(&self, host: usize, owner: &LeaseOwner) {
        let mut running = self.running.borrow_mut();
        let before = running.len();
        running.retain(|_, (on, container)| *on != host || container != owner);
        if running.len() < before {
            self.say(|| format!("n{host} {} stops", owner.container));
        }
    }

    /// The addresses of a host's running containers, in order.
    pub fn running_on(&self, host: usize) -> Vec<LeaseOwner> {
        let running = self.running.borrow();
        let mut owners: Vec<_> = running
            .values()
            .filter(|(on, _)| *on == host)
            .map(|(_, h)| h.clone())
            .collect();
        owners.sort();
        owners.dedup();
        owners
    }

    /// A host now forwards by another snapshot.
    pub fn check_forwarding(&self, host: usize) {
        let running: Vec<_> = self
            .running
            .borrow()
            .iter()
            .map(|(a, (on, owner))| (*a, *on, network_of(owner)))
            .collect();
        for (address, on, network) in running {
            if on != host {
                self.check_entry(host, address, on, network);
            }
        }
    }

    /// The requested MAC of a container. A restored store may have lost it.
    fn mac(&self, owner: &LeaseOwner) -> Option<Mac> {
        let holds = self.scenario.forwards && self.scenario.faults.restore == 0;
        asked_mac(self, owner).filter(|_| holds)
    }

    /// A requested MAC belongs to no other container.
    fn check_mac(&self, host: usize, owner: &LeaseOwner) {
        let Some(mac) = self.mac(owner) else { return };
        let running = self.running.borrow();
        let near = |other: &LeaseOwner| other != owner && network_of(other) == network_of(owner);
        let mut others = running.values().filter(|(_, other)| near(other));
        if let Some((on, other)) = others.find(|(_, other)| self.mac(other) == Some(mac)) {
            self.accuse(|| {
                let (one, two) = (&other.container, &owner.container);
                Violation::Doubled(format!("{mac}: {one} on n{on} and {two} on n{host}"))
            });
        }
    }

    /// A host knows the right home, or none, for an address in use on `home` and for its MAC.
    fn check_entry(&self, host: usize, address: IpAddr, home: usize, network: &str) {
        if self.weather.borrow().forgotten {
            return;
        }
        self.check_mac_entry(host, address, home, network);
        let there = self.host(home).name.clone();
        let host_state = self.host(host);
        let kernel = host_state.part(network).forwarding.kernel.as_ref();
        let kernel = kernel.filter(|kernel| self.is_of_now(network, &kernel.snapshot));
        let entry = kernel.and_then(|kernel| kernel.home(address));
        if let Some(entry) = entry.filter(|entry| *entry != there) {
            self.accuse(|| {
                Violation::Misdelivered(format!(
                    "{address} of {there}: n{host} sends it to {entry}"
                ))
            });
        }
    }

    /// Whether a snapshot is of the network that has the name now. A host that still forwards on a removed network sends
    /// nothing to hosts on its successor.
    fn is_of_now(&self, network: &str, snapshot: &cluster::NetworkSnapshot) -> bool {
        let own = self.layout.network(network).unwrap();
        let present = self.store.borrow().get(&own).map(|it| id_of(&it.value));
        let known = snapshot.network.as_ref().map(|it| it.record.id.clone());
        present.is_none() || present == known.flatten()
    }

    fn check_mac_entry(&self, host: usize, address: IpAddr, home: usize, network: &str) {
        let running = self.running.borrow();
        let mac = running.get(&address).and_then(|(_, owner)| self.mac(owner));
        let state = self.host(host);
        let kernel = state.part(network).forwarding.kernel.as_ref();
        let kernel = kernel.filter(|kernel| kernel.has_homes());
        let snapshot = kernel.map(|kernel| &kernel.snapshot);
        let snapshot = snapshot.filter(|it| self.is_of_now(network, it));
        let Some((mac, snapshot)) = mac.zip(snapshot) else {
            return;
        };
        let there = self.host(home).name.clone();
        let known = snapshot
            .exceptions()
            .into_iter()
            .filter(|(_, known)| *known == mac);
        let mut homes = known.filter_map(|(address, _)| snapshot.home(address));
        if let Some(entry) = homes.find(|entry| *entry != there) {
            self.accuse(|| {
                Violation::Misdelivered(format!("{mac} of {there}: n{host} sends it to {entry}"))
            });
        }
    }

    /// Before a write: it must not delete the lease of a running container.
    pub fn check_write(&self, ops: &[Op], process: &Process) {
        let leases = self.layout.all_leases().unwrap();
        self.check_networks(ops, process);
        for op in ops {
            let gone =
                matches!(op, Op::Delete { .. } | Op::Swap { .. }) && op.key().is_within(&leases);
            if !gone || self.weather.borrow().forgotten {
                continue;
            }
            let Some(before) = self.lease_at(op.key()) else {
                continue;
            };
            let after = op.value().map(lease_of);
            if after.is_some_and(|after| after.same_owner(&before)) {
                continue;
            }
            let address: IpAddr = op.key().last().parse().unwrap();
            if self.is_of_running(address, &before) {
                self.accuse(|| {
                    let (who, owner) = (self.spell(process), &before.container);
                    Violation::Unleased(format!(
                        "{address}: {who} takes it from {owner} on {}, which runs",
                        before.node
                    ))
                });
            }
        }
    }

    /// Networks that are removed and created. The model notes those that an operator has removed. A restore to a state before
    /// that brings them back, which is the operator's will, too.
    fn check_networks(&self, ops: &[Op], process: &Process) {
        let networks = self.layout.networks().unwrap();
        for op in ops.iter().filter(|op| op.key().is_within(&networks)) {
            let name = op.key().last();
            if let Some(value) = op.value() {
                let id = id_of(value);
                if self.store.borrow().removed_networks.contains(&id) {
                    let who = self.spell(process);
                    self.accuse(|| Violation::Revived(format!("{name} {id}: written by {who}")));
                }
                continue;
            }
            let present = self.store.borrow().get(op.key()).map(|it| id_of(&it.value));
            let Some(id) = present.filter(|_| matches!(op, Op::Delete { .. })) else {
                continue;
            };
            let leases = self.layout.leases(name).unwrap();
            let held = self.store.borrow().within(&[leases]);
            if let Some(lease) = held.first() {
                self.accuse(|| Violation::Unleased(format!("{}: its network goes", lease.key)));
            }
            self.store.borrow_mut().removed_networks.insert(id);
            let mut running = self.running.borrow_mut();
            let before = running.len();
            running.retain(|_, (_, owner)| network_of(owner) != name);
            // Given out by a host that could not reach the store.
            self.weather.borrow_mut().stranded |= running.len() < before;
        }
    }

    /// Nothing of a network is written while the network does not exist: it would be left for ever, or hinder the next network
    /// of that name.
    pub fn check_order(&self, ops: &[Op], process: &Process) {
        let kinds = [
            self.layout.all_blocks().unwrap(),
            self.layout.all_leases().unwrap(),
            self.layout.all_ledgers().unwrap(),
            self.layout.all_acks().unwrap(),
        ];
        for op in ops {
            let Op::Create { key, .. } = op else { continue };
            if !kinds.iter().any(|kind| key.is_within(kind)) {
                continue;
            }
            let name = key.as_str().rsplit('/').nth(1).unwrap();
            let own = self.layout.network(name).unwrap();
            if self.store.borrow().get(&own).is_none() {
                let who = self.spell(process);
                self.accuse(|| Violation::Revived(format!("{key}: {who} makes it, of no network")));
            }
        }
    }

    /// The store's records of a network, apart from its own and those of removals.
    pub fn leftovers(&self, network: &str) -> Vec<String> {
        let prefixes = [
            self.layout.blocks(network).unwrap(),
            self.layout.leases(network).unwrap(),
            self.layout.ledgers(network).unwrap(),
            self.layout.acks(network).unwrap(),
            self.layout.vnis().unwrap(),
            self.layout.subnets().unwrap(),
        ];
        let quoted = format!("\"{network}\"");
        let of_it = |entry: &store::Entry| {
            !(entry.key.is_within(&prefixes[4]) || entry.key.is_within(&prefixes[5]))
                || String::from_utf8_lossy(&entry.value).contains(&quoted)
        };
        let entries = self.store.borrow().within(&prefixes);
        let entries = entries.iter().filter(|entry| of_it(entry));
        entries.map(|entry| entry.key.to_string()).collect()
    }

    /// After a removal that succeeded, nothing of the network is left, unless it was created again.
    pub fn check_removed(&self, network: &str) {
        let own = self.layout.network(network).unwrap();
        let leftovers = self.leftovers(network);
        if self.store.borrow().get(&own).is_none() && !leftovers.is_empty() {
            self.accuse(|| Violation::Revived(format!("of {network}: {}", leftovers.join(", "))));
        }
    }

    fn is_of_running(&self, address: IpAddr, lease: &Lease) -> bool {
        let running = self.running.borrow();
        running.get(&address).is_some_and(|(host, owner)| {
            let host = self.host(*host);
            lease.node == host.name
                && lease.boot_id == format!("{}-boot-{}", host.name, host.boot)
                && lease.owner() == *owner
        })
    }

    fn lease_at(&self, key: &Key) -> Option<Lease> {
        self.store
            .borrow()
            .get(key)
            .map(|entry| lease_of(&entry.value))
    }

    /// All that can be checked at once, when every host has synced.
    pub fn check_all(&self) {
        for host in self.hosts() {
            self.check_forwarding(host);
        }
        let running: Vec<_> = self
            .running
            .borrow()
            .iter()
            .map(|(a, r)| (*a, r.clone()))
            .collect();
        for (address, (host, owner)) in running {
            // No lease of a network can be written while it is being removed, so the store did not know this container then.
            let own = self.layout.network(network_of(&owner)).unwrap();
            let present = self.store.borrow().get(&own).cloned();
            let present = present.map(|it| cluster::decode::<cluster::Network>(&it).unwrap());
            if present.is_some_and(|it| it.record.is_being_removed()) {
                continue;
            }
            let lease = self.lease_at(&self.layout.lease(network_of(&owner), address).unwrap());
            if lease
                .as_ref()
                .is_none_or(|lease| !self.is_of_running(address, lease))
            {
                self.accuse(|| {
                    let has = lease.map(|l| format!("{} on {}", l.container, l.node));
                    Violation::Unleased(format!(
                        "{address} of {} on n{host}: the store has {has:?}",
                        owner.container
                    ))
                });
            }
        }
    }
}

fn id_of(network: &[u8]) -> String {
    let network: cluster::Network = serde_json::from_slice(network).unwrap();
    network.id.unwrap_or_default()
}

fn lease_of(value: &[u8]) -> Lease {
    serde_json::from_slice(value).unwrap()
}
