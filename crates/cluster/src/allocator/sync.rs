//! Sync: does all of a host's duties on a network without waiting for the next verb. `crosshost sync` and the watcher run it: it
//! brings ledger and snapshot up to date, tells the store what verbs could not, and removes what nothing needs any more.

use std::net::IpAddr;

use super::{Allocator, LeasedAddress, LocalLease, Noted, Stage, housekeeping::is_behind};
use crate::{
    BlockState, Error, Exclusion, Lease, MacRecord, NetworkSnapshot, NetworkState, Versioned,
    recovery::memory::request,
};

/// Seconds after which a request for an address is deleted if the asking host does not continue it.
const FORGOTTEN: u64 = 900;

impl Allocator<'_> {
    /// Reads the snapshot, answers what this node is asked for, tells the store what it missed or lost, and gives back what is
    /// not needed. Of leases it reads only this host's own, unless the store has lost data. Returns the errors of what failed.
    pub async fn sync(&self) -> Result<Vec<Error>, Error> {
        let lock = self.local_store.lock(self.network).await?;
        let refreshed = match self.load_of_here().await? {
            // The first verb since the boot, or since the host's documents were lost.
            None => self.rebuild(None).await.map(|_| None),
            Some(mut ledger) => self.refresh(&mut ledger, None).await,
        };
        let snapshot = match refreshed {
            // An operator removed the network, or the store lost it and no attachment of this host is on it.
            Err(Error::NoNetwork(_)) => {
                self.disown().await?;
                return self.left_on_removed_network().await;
            }
            // A network that is being removed needs nothing more.
            Err(Error::Removing(_)) => return Ok(Vec::new()),
            refreshed => refreshed?,
        };
        drop(lock);
        self.look_after_own_leases().await?;
        let mut failures = self.replay().await?;
        let snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => self.cluster.snapshot(self.network).await?,
        };
        if let Some(network) = &snapshot.network {
            failures.extend(self.cluster.claim_vni(network).await.err());
        }
        failures.extend(self.tidy(&snapshot).await.err());
        failures.extend(self.housekeeping().await.err());
        Ok(failures)
    }

    /// Notes which local leases the store must be told again, also those that a killed verb did not tell. Releases leases in
    /// this host's blocks for containers that no longer exist. Reads no other leases.
    async fn look_after_own_leases(&self) -> Result<(), Error> {
        let local_leases = self.local_store.leases(self.network)?.readable;
        let held = |h: &&super::LocalLease| h.stage == Stage::Given;
        let mut addresses: Vec<IpAddr> = (local_leases.iter().filter(held))
            .flat_map(|local_lease| {
                local_lease
                    .addresses
                    .iter()
                    .filter(|h| h.revision.is_some())
            })
            .map(|held| held.address)
            .collect();
        if let Some(open) = self.open().await? {
            addresses.extend(open.ledger.addresses(&self.host.node));
        }
        addresses.sort_unstable();
        addresses.dedup();
        let leases = self.cluster.leases_on(self.network, &addresses).await?;
        let mut orphaned = Vec::new();
        for (address, lease) in leases.readable() {
            if self.is_orphaned(*address, &lease.record)? {
                orphaned.push((*address, lease.clone()));
            }
        }
        self.release_leases(&orphaned).await?;
        let Some(mut open) = self.open().await? else {
            return Ok(());
        };
        for local_lease in local_leases {
            let owner = local_lease.owner();
            // Read again: a verb may have changed it.
            let Some(mut now) = self.local_store.lease(self.network, &owner)?.readable() else {
                continue;
            };
            if now == local_lease && now.stage == Stage::Given {
                // A lease that cannot be read may be this one.
                let missing = |held: &LeasedAddress| {
                    let is_other = |l: &Versioned<Lease>| !l.record.same_owner(&local_lease.lease);
                    held.revision.is_some()
                        && match leases.get(&held.address) {
                            None => true,
                            Some(lease) => lease.readable().is_some_and(is_other),
                        }
                };
                let forgotten: Vec<_> = now
                    .addresses
                    .iter()
                    .filter(|h| missing(h))
                    .map(|h| h.address)
                    .collect();
                if !forgotten.is_empty() {
                    for held in &mut now.addresses {
                        if forgotten.contains(&held.address) {
                            held.revision = None;
                        }
                    }
                    self.local_store.save_lease(self.network, &now)?;
                }
            }
            if is_behind(&now) {
                open.ledger.fall_behind(&owner);
            }
        }
        self.save(&open.ledger)
    }

    /// Gives back requested MACs that no attachment here has any more, and removes those that all members have dropped; ends
    /// exclusions that are over, in this host's blocks and in blocks without an owner; continues interrupted reclaims; and marks
    /// addresses as free again whose leases of other nodes are gone.
    async fn tidy(&self, snapshot: &NetworkSnapshot) -> Result<(), Error> {
        let (name, node) = (self.network, self.host.node.as_str());
        let (now, memory) = (self.clock.uptime(), self.local_store.memory(name)?);
        let forgotten = |address, exclusion: &Exclusion| {
            let since = memory.requests.get(&request(address, exclusion));
            since.is_some_and(|since| now.saturating_sub(*since) > FORGOTTEN)
        };
        for (mac, given) in snapshot.macs.readable() {
            let MacRecord {
                lease,
                addresses,
                returned,
            } = &given.record;
            let local_lease = self.local_store.lease(name, &lease.owner())?;
            let held = |address: &IpAddr| match &local_lease {
                Noted::Nothing => false,
                Noted::Lease(local_lease) => (local_lease.all())
                    .any(|held| held.address == *address && held.mac == Some(*mac)),
                Noted::Unreadable(_) => true,
            };
            // No attachment here has it: the store was restored to an earlier state.
            if lease.node == node && !returned && !addresses.iter().any(held) {
                self.cluster.return_mac(name, node, *mac, addresses).await?;
            }
        }
        self.cluster.forget_macs(name, node, snapshot).await?;
        for (block, present) in snapshot.blocks.readable() {
            let record = &present.record;
            if record.state == BlockState::Reclaiming {
                self.cluster
                    .reclaim(name, &record.node, 0, &mut snapshot.clone())
                    .await?;
            } else if record.is_of(node) || record.state == BlockState::Returned {
                let ended = self
                    .cluster
                    .absorb(name, node, *block, present, &forgotten)
                    .await?;
                if let Some(ended) = ended
                    && let Some(mut open) = self.open().await?
                    && record.is_of(node)
                {
                    self.put_whole(&mut open.ledger, *block, &ended)?;
                }
            }
        }
        let Some(open) = self.open().await? else {
            return Ok(());
        };
        let foreign: Vec<IpAddr> = open.ledger.foreign.iter().copied().collect();
        drop(open);
        if foreign.is_empty() {
            return Ok(());
        }
        let leases = self.cluster.leases_on(name, &foreign).await?;
        if let Some(mut open) = self.open().await? {
            let local_leases = self.local_store.leases(name)?.readable;
            let is_held = |address: &IpAddr| {
                let mut held = local_leases.iter().flat_map(LocalLease::all);
                held.any(|held| held.address == *address)
            };
            for address in foreign
                .into_iter()
                .filter(|address| !leases.contains(address))
            {
                open.ledger.foreign.remove(&address);
                open.ledger.mark(address, is_held(&address));
            }
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// Gives the other nodes their first blocks of a network whose creation was not finished.
    pub(super) async fn finish_creation(&self, ledger: &super::Ledger) -> Result<(), Error> {
        if ledger.network.record.state != NetworkState::Creating {
            return Ok(());
        }
        let network = self.cluster.finish_network(self.network).await?;
        if let Some(mut open) = self.open().await? {
            let known = &mut open.ledger.network;
            if known.record.is_same(&network.record) && known.revision < network.revision {
                *known = network;
                self.save(&open.ledger)?;
            }
        }
        Ok(())
    }

    fn put_whole(
        &self,
        ledger: &mut super::Ledger,
        block: ipam::Block,
        present: &Versioned<crate::BlockRecord>,
    ) -> Result<(), Error> {
        ledger.put(block, present, &self.host.node);
        self.save(ledger)
    }
}
