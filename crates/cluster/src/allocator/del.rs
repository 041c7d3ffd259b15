//! DEL and GC: note the release first, which needs no store, then tell the store. If it cannot be told now, a later verb tells
//! it.

use std::{collections::BTreeSet, net::IpAddr};

use ipam::Mac;

use super::{ATTEMPTS, Allocator, LeaseOwner, LeasedAddress, LocalLease, LocalStore, Noted, Stage};
use crate::{Error, Lease, Stored};

/// Notes that an attachment's addresses are given back. A DEL can always do this, because it needs neither store nor settings.
/// The addresses stay in use until the store has deleted their leases.
pub async fn note_gone(
    local_store: &dyn LocalStore,
    network: &str,
    owner: &LeaseOwner,
) -> Result<(), Error> {
    let _lock = local_store.lock(network).await?;
    match local_store.lease(network, owner)? {
        Noted::Lease(mut local_lease) if !local_lease.release_all => {
            local_lease.given_back.append(&mut local_lease.addresses);
            local_lease.stage = Stage::Gone;
            local_store.save_lease(network, &local_lease)
        }
        Noted::Lease(_) => Ok(()),
        // This host knows nothing of it. If the host has a ledger, there is nothing; otherwise the store may have leases.
        Noted::Nothing if local_store.ledger(network)?.is_some() => Ok(()),
        Noted::Nothing | Noted::Unreadable(_) => {
            let lease = Lease {
                node: String::new(),
                boot_id: String::new(),
                container: owner.container.clone(),
                container_name: None,
                ifname: owner.ifname.clone(),
                since: 0,
                mac: None,
            };
            let unknown = LocalLease {
                lease,
                stage: Stage::Gone,
                addresses: Vec::new(),
                given_back: Vec::new(),
                release_all: true,
            };
            local_store.save_lease(network, &unknown)
        }
    }
}

impl Allocator<'_> {
    /// [`note_gone`] on this host.
    pub async fn note_gone(&self, owner: &LeaseOwner) -> Result<(), Error> {
        note_gone(self.local_store, self.network, owner).await
    }

    /// Tells the store what an attachment has given back; the addresses rest from then on. After an error the note stays.
    pub async fn release(&self, owner: &LeaseOwner) -> Result<(), Error> {
        let Some(local_lease) = self.local_store.lease(self.network, owner)?.readable() else {
            return Ok(());
        };
        if local_lease.release_all {
            self.release_all_leases(owner).await?;
            let _lock = self.local_store.lock(self.network).await?;
            return self.local_store.remove_lease(self.network, owner);
        }
        if local_lease.given_back.is_empty() {
            return Ok(());
        }
        let told = self.tell_of_release(owner, &local_lease).await;
        let open = self.open().await?;
        let lock = match &open {
            Some(_) => None,
            None => Some(self.local_store.lock(self.network).await?),
        };
        let left = self.still_left(owner, &local_lease)?;
        if let Some(mut open) = open.filter(|_| !left.is_empty()) {
            match &told {
                Ok(()) => open.ledger.free(owner, &left, self.clock.uptime()),
                Err(_) => open.ledger.fall_behind(owner),
            }
            self.save(&open.ledger)?;
            told?;
            return self.forget(owner, &left);
        }
        told?;
        self.forget(owner, &left)?;
        drop(lock);
        Ok(())
    }

    /// Gives back the requested MACs of addresses that are about to be released.
    pub(super) async fn return_macs(
        &self,
        node: &str,
        released: &[(IpAddr, Option<Mac>)],
    ) -> Result<(), Error> {
        let macs: BTreeSet<Mac> = released.iter().filter_map(|(_, mac)| *mac).collect();
        let released: Vec<_> = released.iter().map(|(address, _)| *address).collect();
        for mac in macs {
            let returned = self.cluster.return_mac(self.network, node, mac, &released);
            returned.await?;
        }
        Ok(())
    }

    /// Deletes the leases of the addresses that a local lease has given back: at the revisions at which they were written, or,
    /// if these are unknown or wrong, at those in the store.
    async fn tell_of_release(
        &self,
        owner: &LeaseOwner,
        local_lease: &LocalLease,
    ) -> Result<(), Error> {
        let macs: Vec<_> = local_lease
            .given_back
            .iter()
            .map(|h| (h.address, h.mac))
            .collect();
        self.return_macs(&self.host.node, &macs).await?;
        let known = |held: &LeasedAddress| held.revision.map(|revision| (held.address, revision));
        let left: Option<Vec<_>> = local_lease.given_back.iter().map(known).collect();
        if let Some(left) = left
            && self.cluster.delete_leases(self.network, &left).await?
        {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let addresses: Vec<_> = local_lease
                .given_back
                .iter()
                .map(|held| held.address)
                .collect();
            let leases = self
                .cluster
                .leased_to(self.network, &local_lease.lease, &addresses)
                .await?;
            // Another verb may have released the address meanwhile, and the attachment may have it again. The lease just read
            // is the old one only if the address still waits for its release.
            let still = self.still_left(owner, local_lease)?;
            let leases: Vec<_> = leases
                .into_iter()
                .filter(|(address, _)| still.contains(address))
                .collect();
            if leases.is_empty() || self.cluster.delete_leases(self.network, &leases).await? {
                return Ok(());
            }
        }
        let network = self.network;
        Err(Error::Contended(format!("network {network}: leases")))
    }

    /// Which addresses in `before.given_back` still wait for their release.
    fn still_left(&self, owner: &LeaseOwner, before: &LocalLease) -> Result<Vec<IpAddr>, Error> {
        let now = self.local_store.lease(self.network, owner)?.readable();
        let still = |held: &&LeasedAddress| {
            let left = now.iter().flat_map(|local_lease| &local_lease.given_back);
            left.into_iter().any(|now| now.address == held.address)
        };
        let left = before.given_back.iter().filter(still);
        Ok(left.map(|held| held.address).collect())
    }

    /// Removes addresses from a local lease after the store has deleted their leases. The caller holds the lock.
    fn forget(&self, owner: &LeaseOwner, gone: &[IpAddr]) -> Result<(), Error> {
        let Some(mut local_lease) = self.local_store.lease(self.network, owner)?.readable() else {
            return Ok(());
        };
        local_lease
            .given_back
            .retain(|held| !gone.contains(&held.address));
        if local_lease.given_back.is_empty() && local_lease.stage == Stage::Gone {
            return self.local_store.remove_lease(self.network, owner);
        }
        self.local_store.save_lease(self.network, &local_lease)
    }

    /// Releases whatever leases the store has of an attachment on this node.
    async fn release_all_leases(&self, owner: &LeaseOwner) -> Result<(), Error> {
        let ledger = match self.open_or_rebuild().await {
            Ok(Some(open)) => open.ledger,
            Ok(None) | Err(Error::NoNetwork(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let leases = self.leases_here(&ledger).await?;
        let own = leases.readable().filter(|(_, lease)| {
            lease.record.node == self.host.node && lease.record.owner() == *owner
        });
        let own: Vec<_> = own.map(|(at, lease)| (*at, lease.clone())).collect();
        self.release_leases(&own).await?;
        let addresses: Vec<_> = own.iter().map(|(address, _)| *address).collect();
        if let Some(mut open) = self.open().await?
            && !addresses.is_empty()
        {
            for address in &addresses {
                open.ledger.foreign.remove(address);
            }
            open.ledger.free(owner, &addresses, self.clock.uptime());
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// Gives back all that is not `listed`: local leases of this host, and leases that the store has for this node. Returns the
    /// errors of releases that the store did not take; these stay noted.
    ///
    /// Leaves out attachments that have a verb at work or were changed since they were listed, because the caller may not know
    /// of them yet.
    pub async fn gc(&self, listed: &dyn Fn(&LeaseOwner) -> bool) -> Result<Vec<Error>, Error> {
        let mut failures = Vec::new();
        let local_leases = self.local_store.leases(self.network)?;
        for local_lease in local_leases.readable {
            let owner = local_lease.owner();
            if listed(&owner) {
                continue;
            }
            let Some(_idle) = self.local_store.lock_idle(self.network, &owner)? else {
                continue;
            };
            if self.local_store.lease(self.network, &owner)? == Noted::Lease(local_lease) {
                self.note_gone(&owner).await?;
                failures.extend(self.release(&owner).await.err());
            }
        }
        if !local_leases.unreadable.is_empty() {
            failures.extend(self.release_unreadable(listed).await.err());
        }
        failures.extend(self.release_unknown(listed).await.err());
        Ok(failures)
    }

    /// The same for attachments whose local leases cannot be read: the store's leases name these attachments.
    async fn release_unreadable(&self, listed: &dyn Fn(&LeaseOwner) -> bool) -> Result<(), Error> {
        let leases = self.cluster.leases(self.network).await?;
        for (_, lease) in leases.readable() {
            let owner = lease.record.owner();
            if lease.record.node != self.host.node || listed(&owner) {
                continue;
            }
            if let Noted::Unreadable(_) = self.local_store.lease(self.network, &owner)?
                && let Some(_idle) = self.local_store.lock_idle(self.network, &owner)?
            {
                self.note_gone(&owner).await?;
                self.release(&owner).await?;
            }
        }
        Ok(())
    }

    /// Releases leases of this node that neither the host nor the caller knows, on any address of the network: an interrupted
    /// removal or a restored store may have left them. Does nothing unless the store's record of this node is of this boot:
    /// otherwise the name may be another host's.
    async fn release_unknown(&self, listed: &dyn Fn(&LeaseOwner) -> bool) -> Result<(), Error> {
        if !self.is_registered().await? {
            return Ok(());
        }
        let leases = self.cluster.leases(self.network).await?;
        let _lock = self.local_store.lock(self.network).await?;
        let mut gone = Vec::new();
        for (address, lease) in leases.readable() {
            let owner = lease.record.owner();
            if lease.record.node != self.host.node || listed(&owner) {
                continue;
            }
            let local_lease = self.local_store.lease(self.network, &owner)?;
            if !local_lease.may_hold(*address) {
                gone.push((*address, lease.clone()));
            }
        }
        self.release_leases(&gone).await
    }

    /// Whether the store's record of this node is of this boot.
    async fn is_registered(&self) -> Result<bool, Error> {
        let node = self.cluster.node(&self.host.node).await?;
        let node = node.as_ref().and_then(Stored::readable);
        Ok(node.is_some_and(|node| node.record.boot_id == self.host.boot_id))
    }
}
