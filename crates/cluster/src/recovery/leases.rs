//! This host's containers after the store has lost records: their addresses are made this host's again, and their leases are
//! published again. No other host can do that.

use std::{net::IpAddr, time::Duration};

use crate::{
    ATTEMPTS, Allocator, BlockRecord, BlockState, Error, Exclusion, ExclusionState, Lease,
    LeasedAddress, Ledger, LocalLease, Memory, NetworkSnapshot, Stage, Versioned,
};

impl Allocator<'_> {
    /// Removes the ledger of a network that the store does not have, if no container here needs it: whoever creates the network
    /// again gives out its blocks again. Of a network that was removed nothing is kept. Of one that the store lost the memory is
    /// kept, for another host that has containers on it. The caller holds the lock.
    pub(crate) async fn disown(&self) -> Result<(), Error> {
        let local_leases = self.local_store.leases(self.network)?;
        let is_empty = |local_lease: &LocalLease| local_lease.addresses.is_empty();
        if !local_leases.unreadable.is_empty() || !local_leases.readable.iter().all(is_empty) {
            return Ok(());
        }
        if self.is_removed().await? {
            for local_lease in &local_leases.readable {
                self.local_store
                    .remove_lease(self.network, &local_lease.owner())?;
            }
            self.local_store
                .save_memory(self.network, &Memory::default())?;
        }
        self.local_store.remove_ledger(self.network)
    }

    /// Whether the network that this host remembers was removed.
    async fn is_removed(&self) -> Result<bool, Error> {
        match self.local_store.memory(self.network)?.snapshot.network {
            Some(known) => self.cluster.was_removed(&known.record).await,
            None => Ok(false),
        }
    }

    /// The containers here on a network that was removed, as errors; none if the store lost the network.
    pub(crate) async fn left_on_removed_network(&self) -> Result<Vec<Error>, Error> {
        let mut local_leases = self.local_store.leases(self.network)?.readable;
        local_leases.retain(|local_lease| local_lease.stage == Stage::Given);
        if local_leases.is_empty() || !self.is_removed().await? {
            return Ok(Vec::new());
        }
        let left = local_leases.iter().flat_map(|local_lease| {
            let of = |held: &LeasedAddress| Error::Removed {
                network: self.network.to_owned(),
                container: local_lease.lease.container.clone(),
                address: held.address,
            };
            local_lease.addresses.iter().map(of)
        });
        Ok(left.collect())
    }

    /// Whether a container of this host has an address of the network, or may have one.
    pub(crate) fn holds(&self) -> Result<bool, Error> {
        let local_leases = self.local_store.leases(self.network)?;
        let is_given = |local_lease: &LocalLease| local_lease.stage == Stage::Given;
        Ok(!local_leases.unreadable.is_empty() || local_leases.readable.iter().any(is_given))
    }

    /// Makes the addresses of containers here this host's again, where they have no home in the store. Where one has another home,
    /// that node is asked for it; until it answers, the address counts as lost.
    pub(crate) async fn take_back(
        &self,
        network: &Versioned<crate::Network>,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<(), Error> {
        for local_lease in self.local_store.leases(self.network)?.readable {
            let held = local_lease.addresses.iter();
            for held in held.filter(|_| local_lease.stage == Stage::Given) {
                let range = network.record.range_of(held.address);
                let block = range.and_then(|range| network.record.block_of(range, held.address));
                let Some(block) = block else { continue };
                if let Err(error) = self.take_back_one(block, held.address, snapshot).await
                    && error.is_away()
                {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn take_back_one(
        &self,
        block: ipam::Block,
        address: IpAddr,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<(), Error> {
        let (name, node) = (self.network, self.host.node.as_str());
        for _ in 0..ATTEMPTS {
            let present = snapshot.blocks.known(&block).cloned();
            let homeless = present.filter(|present| {
                present.record.home(address).is_none()
                    && present.record.state != BlockState::Reclaiming
            });
            // The owner was asked for it and has not answered: nobody can write a lease on it since, and one that is there stays.
            let leased = match &homeless {
                Some(present) if is_unanswered(&present.record, node, address) => {
                    let leases = self.cluster.leases_on(name, &[address]).await?;
                    let is_others = |it: &Versioned<Lease>| it.record.node != node;
                    leases
                        .iter()
                        .any(|(_, it)| it.readable().is_none_or(is_others))
                }
                _ => false,
            };
            let homeless = homeless.filter(|_| !leased);
            let Some(present) = homeless else {
                if snapshot.home(address) == Some(node) {
                    return Ok(());
                }
                return self.get(block, address, snapshot, Duration::ZERO).await;
            };
            let now = self.clock.unix();
            let mended = self
                .cluster
                .reinstate(name, node, address, block, &present, now)
                .await?;
            match mended {
                Some(record) => snapshot.blocks.insert(block, record),
                None => *snapshot = self.cluster.snapshot(name).await?,
            }
        }
        Err(Error::Contended(format!("block {block} of network {name}")))
    }

    /// Notes that the store has none of this host's leases, so that all are published again. Releases those that an older snapshot of
    /// the store brought back and no container here holds.
    pub(crate) async fn publish_anew(&self, ledger: &mut Ledger) -> Result<(), Error> {
        for mut local_lease in self.local_store.leases(self.network)?.readable {
            for address in local_lease
                .addresses
                .iter_mut()
                .chain(&mut local_lease.given_back)
            {
                address.revision = None;
            }
            self.local_store.save_lease(self.network, &local_lease)?;
            if local_lease.stage != Stage::Chosen {
                ledger.fall_behind(&local_lease.owner());
            }
        }
        self.save(ledger)?;
        let mut orphaned = Vec::new();
        for (address, lease) in self.cluster.leases(self.network).await?.readable() {
            if self.is_orphaned(*address, &lease.record)? {
                orphaned.push((*address, lease.clone()));
            }
        }
        self.release_leases(&orphaned).await
    }

    /// Whether a lease is orphaned: it is this node's, and no container here holds it. The store was put back to an older snapshot, or
    /// the host lost its documents.
    pub(crate) fn is_orphaned(&self, address: IpAddr, lease: &Lease) -> Result<bool, Error> {
        if lease.node != self.host.node {
            return Ok(false);
        }
        let local_lease = self.local_store.lease(self.network, &lease.owner())?;
        Ok(lease.boot_id != self.host.boot_id || !local_lease.may_hold(address))
    }
}

/// Whether the owner of a block, which is not `node`, was asked for an address of it and has not answered.
fn is_unanswered(record: &BlockRecord, node: &str, address: IpAddr) -> bool {
    let asked = |e: &Exclusion| e.state == ExclusionState::Asked;
    record.has_owner() && record.node != node && record.exclusions.get(&address).is_some_and(asked)
}
