//! Opens the ledger under its lock, and builds it from the store if the host has none since its boot.
//!
//! The node publishes that it keeps a ledger before it reads what it puts there, so a host that changes the node's blocks later
//! must ask it. A snapshot is taken into the ledger under the ledger's lock, so an older one cannot undo what a quicker verb of
//! this host did.

use std::{any::Any, net::IpAddr};

use super::{Allocator, LeasedAddress, Ledger, LocalLease, Noted, Stage};
use crate::{Created, Error, Lease, NetworkSpec, Records, Stored, Versioned};

/// Most addresses whose leases are read by their keys, 64 a request.
const MANY: u128 = 4096;

/// The ledger, open for change.
pub(super) struct Open {
    pub(super) ledger: Ledger,
    _lock: Box<dyn Any>,
}

impl Allocator<'_> {
    /// The ledger under its lock, as the last verb left it; `None` if this host has none since its boot.
    pub(super) async fn open(&self) -> Result<Option<Open>, Error> {
        let lock = self.local_store.lock(self.network).await?;
        Ok(self.load_of_here().await?.map(|ledger| Open {
            ledger,
            _lock: lock,
        }))
    }

    /// The same, but a ledger that the host lost, by a reboot or while its containers run, is built again from the store.
    /// `None` if this node has no ledger of the network in the store either, or if the store's may be another host's.
    pub(super) async fn open_or_rebuild(&self) -> Result<Option<Open>, Error> {
        let lock = self.local_store.lock(self.network).await?;
        let ledger = match self.load_of_here().await? {
            Some(ledger) => ledger,
            None if self
                .cluster
                .keeps_ledger(self.network, &self.host.node)
                .await?
                && self.is_known_for_sure().await? =>
            {
                self.rebuild(None).await?
            }
            None => return Ok(None),
        };
        Ok(Some(Open {
            ledger,
            _lock: lock,
        }))
    }

    /// Whether the store's record of this node is certainly not that of a clone of this machine with the same name. Of a record
    /// from another boot with a tunnel address this is uncertain while this host knows no tunnel address of its own. ADD and
    /// sync find that out first, and then begin the ledger.
    async fn is_known_for_sure(&self) -> Result<bool, Error> {
        if self.host.vtep.is_some() {
            return Ok(true);
        }
        Ok(match self.cluster.node(&self.host.node).await? {
            None => true,
            Some(Stored::Unreadable(_)) => false,
            Some(Stored::Readable(Versioned { record, .. })) => {
                record.boot_id == self.host.boot_id || record.vtep.is_none()
            }
        })
    }

    /// Builds a lost ledger again, for a caller that only reads it.
    pub async fn ensure_ledger(&self) -> Result<(), Error> {
        self.open_or_rebuild().await.map(drop)
    }

    pub(super) fn load(&self) -> Result<Option<Ledger>, Error> {
        let Some(mut ledger) = self.local_store.ledger(self.network)? else {
            return Ok(None);
        };
        // Older versions accepted blocks into which the network's pools are not cut.
        let network = &ledger.network.record;
        ledger.blocks.retain(|block, _| network.has_block(*block));
        if let Some(pending) = &ledger.pending {
            let local_lease = self.local_store.lease(self.network, &pending.owner)?;
            ledger.settle(&local_lease, self.clock.uptime());
        }
        Ok(Some(ledger))
    }

    pub(crate) fn save(&self, ledger: &Ledger) -> Result<(), Error> {
        self.local_store.save_ledger(self.network, ledger)
    }

    /// The ledger: built from the store by the first verb on the network since the boot, and read again if it is of another
    /// network than `spec` describes.
    pub(super) async fn open_or_create(&self, spec: &NetworkSpec) -> Result<Open, Error> {
        let lock = self.local_store.lock(self.network).await?;
        let ledger = match self.load_of_here().await? {
            Some(ledger) if spec.agree(&ledger.network.record).is_ok() => ledger,
            Some(mut ledger) => {
                self.refresh(&mut ledger, Some(spec)).await?;
                spec.agree(&ledger.network.record)?;
                ledger
            }
            None => {
                self.refuse_second_store().await?;
                self.rebuild(Some(spec)).await?
            }
        };
        Ok(Open {
            ledger,
            _lock: lock,
        })
    }

    /// Builds the first ledger since the boot. Leases of this boot are taken over; leases of an earlier boot no longer have a
    /// container and are released. The caller holds the lock.
    pub(super) async fn rebuild(&self, spec: Option<&NetworkSpec>) -> Result<Ledger, Error> {
        let (_, mut snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        if let Some(spec) = spec.filter(|_| snapshot.network.is_none()) {
            self.create(spec).await?;
            (_, snapshot) = self.cluster.enrol(self.network, &self.node()).await?;
        }
        let memory = self.local_store.memory(self.network)?.snapshot;
        self.end_restore(&memory, &mut snapshot).await?;
        let network = snapshot.ready_network(self.network)?.clone();
        if let Some(spec) = spec {
            spec.agree(&network.record)?;
        }
        let mut ledger = Ledger::new(network.clone());
        ledger.begun = self.clock.uptime();
        ledger.store_ref.clone_from(&self.host.store_ref);
        let new = ledger.update(&snapshot, &network, &self.host.node);
        let leases = self.leases_here(&ledger).await?;
        self.take_over(&mut ledger, &leases).await?;
        self.fill(&mut ledger, &new).await?;
        self.remember(&self.local_store.memory(self.network)?, snapshot)?;
        self.save(&ledger)?;
        Ok(ledger)
    }

    pub(super) async fn create(&self, spec: &NetworkSpec) -> Result<Created, Error> {
        let spec = NetworkSpec {
            in_use: self.local_store.vnis()?,
            ..spec.clone()
        };
        self.cluster.ensure_network(&spec).await
    }

    /// The leases on all addresses that this host may give out; it has no others. With very many addresses it is cheaper to
    /// read all leases of the network than to ask for each.
    pub(super) async fn leases_here(
        &self,
        ledger: &Ledger,
    ) -> Result<Records<IpAddr, Lease>, Error> {
        if ledger.size(&self.host.node) > MANY {
            return self.cluster.leases(self.network).await;
        }
        let addresses: Vec<_> = ledger.addresses(&self.host.node).collect();
        self.cluster.leases_on(self.network, &addresses).await
    }

    /// Makes local leases from the leases that the store has for this node, and releases those that no attachment holds any
    /// more: of an earlier boot, or given back without the store. If the lease or the local lease cannot be read, the address
    /// counts as in use.
    async fn take_over(
        &self,
        ledger: &mut Ledger,
        leases: &Records<IpAddr, Lease>,
    ) -> Result<(), Error> {
        let mut gone = Vec::new();
        for (address, stored) in leases {
            let (address, own) = (*address, stored.readable());
            let Some(lease) = own.filter(|lease| lease.record.node == self.host.node) else {
                ledger.bar(address);
                continue;
            };
            let lease = lease.clone();
            let present = match self
                .local_store
                .lease(self.network, &lease.record.owner())?
            {
                Noted::Unreadable(_) if lease.record.boot_id == self.host.boot_id => {
                    ledger.bar(address);
                    continue;
                }
                noted => noted.readable(),
            };
            let release_all = present
                .as_ref()
                .is_some_and(|local_lease| local_lease.release_all);
            if lease.record.boot_id != self.host.boot_id || release_all {
                gone.push((address, lease));
            } else if present
                .as_ref()
                .is_none_or(|h| h.all().all(|held| held.address != address))
            {
                let mut local_lease = present.unwrap_or_else(|| LocalLease {
                    lease: lease.record.clone(),
                    stage: Stage::Given,
                    addresses: Vec::new(),
                    given_back: Vec::new(),
                    release_all: false,
                });
                let held = LeasedAddress {
                    address,
                    revision: Some(lease.revision),
                    mac: lease.record.mac,
                };
                // The order of the sets is lost; IPv4 comes before IPv6.
                match local_lease.stage {
                    Stage::Given => local_lease.addresses.push(held),
                    _ => local_lease.given_back.push(held),
                }
                self.local_store.save_lease(self.network, &local_lease)?;
            }
        }
        self.release_leases(&gone).await?;
        for local_lease in self.local_store.leases(self.network)?.readable {
            if local_lease.release_all
                && local_lease.addresses.is_empty()
                && local_lease.given_back.is_empty()
            {
                self.local_store
                    .remove_lease(self.network, &local_lease.owner())?;
            }
        }
        Ok(())
    }

    /// Releases leases that no container of this host holds any more. The next sync releases those that changed meanwhile.
    pub(crate) async fn release_leases(
        &self,
        gone: &[(IpAddr, Versioned<Lease>)],
    ) -> Result<(), Error> {
        for (_, lease) in gone.iter().filter(|(_, lease)| lease.record.mac.is_some()) {
            let Lease { node, mac, .. } = &lease.record;
            let with = gone.iter().filter(|(_, other)| other.record.mac == *mac);
            let with = with
                .map(|(address, _)| (*address, *mac))
                .collect::<Vec<_>>();
            self.return_macs(node, &with).await?;
        }
        let gone: Vec<_> = gone
            .iter()
            .map(|(address, lease)| (*address, lease.revision))
            .collect();
        self.cluster
            .delete_leases(self.network, &gone)
            .await
            .map(drop)
    }

    /// Marks as in use the addresses of local leases in blocks that are new to the ledger. For local leases that cannot be
    /// read, the store's leases tell the addresses.
    pub(super) async fn fill(&self, ledger: &mut Ledger, new: &[ipam::Block]) -> Result<(), Error> {
        if new.is_empty() {
            return Ok(());
        }
        let is_new = |ledger: &Ledger, address: IpAddr| {
            let block = ledger.block_of(address);
            block.is_some_and(|block| new.contains(&block))
        };
        let local_leases = self.local_store.leases(self.network)?;
        for held in local_leases.readable.iter().flat_map(LocalLease::all) {
            if is_new(ledger, held.address) {
                ledger.mark(held.address, true);
            }
        }
        if local_leases.unreadable.is_empty() {
            return Ok(());
        }
        for (address, lease) in &self.leases_here(ledger).await? {
            let known = match lease.readable() {
                None => Noted::Unreadable(String::new()),
                Some(lease) => self
                    .local_store
                    .lease(self.network, &lease.record.owner())?,
            };
            if matches!(known, Noted::Unreadable(_)) && is_new(ledger, *address) {
                ledger.bar(*address);
            }
        }
        Ok(())
    }
}
