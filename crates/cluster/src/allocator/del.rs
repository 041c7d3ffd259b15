//! DEL and GC: noted first, which needs no store; then the store is told, now or by a later verb.

use std::{collections::BTreeSet, net::IpAddr};

use ipam::Mac;

use super::{ATTEMPTS, Allocator, Held, Holder, Holding, Noted, Shelf, Stage};
use crate::{Error, Lease, Stored};

/// Notes that an attachment's addresses are given back. Needs no store and no settings: what a DEL can always do. They
/// stay in use until the store has forgotten them.
pub async fn note_gone(shelf: &dyn Shelf, network: &str, holder: &Holder) -> Result<(), Error> {
    let _lock = shelf.lock(network).await?;
    match shelf.holding(network, holder)? {
        Noted::Holding(mut holding) if !holding.unheard => {
            holding.left.append(&mut holding.addresses);
            holding.stage = Stage::Gone;
            shelf.save_holding(network, &holding)
        }
        Noted::Holding(_) => Ok(()),
        // Nothing is known of it. With a ledger that is the whole truth; without one the store may know more.
        Noted::Nothing if shelf.ledger(network)?.is_some() => Ok(()),
        Noted::Nothing | Noted::Unreadable(_) => {
            let lease = Lease {
                node: String::new(),
                boot_id: String::new(),
                container: holder.container.clone(),
                ifname: holder.ifname.clone(),
                since: 0,
                mac: None,
            };
            let unheard = Holding {
                lease,
                stage: Stage::Gone,
                addresses: Vec::new(),
                left: Vec::new(),
                unheard: true,
            };
            shelf.save_holding(network, &unheard)
        }
    }
}

impl Allocator<'_> {
    /// [`note_gone`] on this host.
    pub async fn note_gone(&self, holder: &Holder) -> Result<(), Error> {
        note_gone(self.shelf, self.network, holder).await
    }

    /// Tells the store what an attachment has given back; its addresses rest from then on. An error leaves it noted.
    pub async fn release(&self, holder: &Holder) -> Result<(), Error> {
        let Some(holding) = self.shelf.holding(self.network, holder)?.readable() else {
            return Ok(());
        };
        if holding.unheard {
            self.release_unheard(holder).await?;
            let _lock = self.shelf.lock(self.network).await?;
            return self.shelf.remove_holding(self.network, holder);
        }
        if holding.left.is_empty() {
            return Ok(());
        }
        let told = self.tell_of_release(holder, &holding).await;
        let open = self.open().await?;
        let lock = match &open {
            Some(_) => None,
            None => Some(self.shelf.lock(self.network).await?),
        };
        let left = self.still_left(holder, &holding)?;
        if let Some(mut open) = open.filter(|_| !left.is_empty()) {
            match &told {
                Ok(()) => open.ledger.free(holder, &left, self.clock.uptime()),
                Err(_) => open.ledger.fall_behind(holder),
            }
            self.save(&open.ledger)?;
            told?;
            return self.forget(holder, &left);
        }
        told?;
        self.forget(holder, &left)?;
        drop(lock);
        Ok(())
    }

    /// Gives back the MACs that were asked for with addresses that are to be released.
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

    /// Deletes the leases of what a holding has given back: at the revisions at which they were written, and where those
    /// are not known or not right, at those which the store has.
    async fn tell_of_release(&self, holder: &Holder, holding: &Holding) -> Result<(), Error> {
        let macs: Vec<_> = holding.left.iter().map(|h| (h.address, h.mac)).collect();
        self.return_macs(&self.host.node, &macs).await?;
        let known = |held: &Held| held.revision.map(|revision| (held.address, revision));
        let left: Option<Vec<_>> = holding.left.iter().map(known).collect();
        if let Some(left) = left
            && self.cluster.delete_leases(self.network, &left).await?
        {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let addresses: Vec<_> = holding.left.iter().map(|held| held.address).collect();
            let leases = self
                .cluster
                .leased_to(self.network, &holding.lease, &addresses)
                .await?;
            // Another verb may have been quicker, and the attachment be back at the same address: only while the address
            // is still to be released was the lease that was read the old one.
            let still = self.still_left(holder, holding)?;
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

    /// Which of the addresses that a holding had to release are still to be released.
    fn still_left(&self, holder: &Holder, before: &Holding) -> Result<Vec<IpAddr>, Error> {
        let now = self.shelf.holding(self.network, holder)?.readable();
        let still = |held: &&Held| {
            let left = now.iter().flat_map(|holding| &holding.left);
            left.into_iter().any(|now| now.address == held.address)
        };
        let left = before.left.iter().filter(still);
        Ok(left.map(|held| held.address).collect())
    }

    /// The store has forgotten these addresses of a holding. The caller holds the lock.
    fn forget(&self, holder: &Holder, gone: &[IpAddr]) -> Result<(), Error> {
        let Some(mut holding) = self.shelf.holding(self.network, holder)?.readable() else {
            return Ok(());
        };
        holding.left.retain(|held| !gone.contains(&held.address));
        if holding.left.is_empty() && holding.stage == Stage::Gone {
            return self.shelf.remove_holding(self.network, holder);
        }
        self.shelf.save_holding(self.network, &holding)
    }

    /// Releases what the store has of a holder on this node.
    async fn release_unheard(&self, holder: &Holder) -> Result<(), Error> {
        let ledger = match self.recall().await {
            Ok(Some(open)) => open.ledger,
            Ok(None) | Err(Error::NoNetwork(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let leases = self.leases_here(&ledger).await?;
        let own = leases.readable().filter(|(_, lease)| {
            lease.record.node == self.host.node && lease.record.holder() == *holder
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
            open.ledger.free(holder, &addresses, self.clock.uptime());
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// Gives back all that is not `listed`: holdings of this host, and leases that the store has for this node. What
    /// could not be told to the store is returned, and stays noted.
    ///
    /// An attachment with a verb at work is no garbage, whoever does not know of it yet; nor is one that was changed since
    /// the list was made.
    pub async fn gc(&self, listed: &dyn Fn(&Holder) -> bool) -> Result<Vec<Error>, Error> {
        let mut failures = Vec::new();
        let holdings = self.shelf.holdings(self.network)?;
        for holding in holdings.readable {
            let holder = holding.holder();
            if listed(&holder) {
                continue;
            }
            let Some(_idle) = self.shelf.lock_idle(self.network, &holder)? else {
                continue;
            };
            if self.shelf.holding(self.network, &holder)? == Noted::Holding(holding) {
                self.note_gone(&holder).await?;
                failures.extend(self.release(&holder).await.err());
            }
        }
        if !holdings.unreadable.is_empty() {
            failures.extend(self.release_unreadable(listed).await.err());
        }
        failures.extend(self.release_unknown(listed).await.err());
        Ok(failures)
    }

    /// The same of attachments whose holdings cannot be read: the store's leases tell whose they are.
    async fn release_unreadable(&self, listed: &dyn Fn(&Holder) -> bool) -> Result<(), Error> {
        let leases = self.cluster.leases(self.network).await?;
        for (_, lease) in leases.readable() {
            let holder = lease.record.holder();
            if lease.record.node != self.host.node || listed(&holder) {
                continue;
            }
            if let Noted::Unreadable(_) = self.shelf.holding(self.network, &holder)?
                && let Some(_idle) = self.shelf.lock_idle(self.network, &holder)?
            {
                self.note_gone(&holder).await?;
                self.release(&holder).await?;
            }
        }
        Ok(())
    }

    /// Releases leases of this node that neither the host nor the caller knows, wherever they are: also where an interrupted
    /// removal or a restored store left them. Not of a host that only has this one's name.
    async fn release_unknown(&self, listed: &dyn Fn(&Holder) -> bool) -> Result<(), Error> {
        if !self.is_registered().await? {
            return Ok(());
        }
        let leases = self.cluster.leases(self.network).await?;
        let _lock = self.shelf.lock(self.network).await?;
        let mut gone = Vec::new();
        for (address, lease) in leases.readable() {
            let holder = lease.record.holder();
            if lease.record.node != self.host.node || listed(&holder) {
                continue;
            }
            let holding = self.shelf.holding(self.network, &holder)?;
            if !holding.may_hold(*address) {
                gone.push((*address, lease.clone()));
            }
        }
        self.release_leases(&gone).await
    }

    /// Whether the store knows this node in this boot.
    async fn is_registered(&self) -> Result<bool, Error> {
        let node = self.cluster.node(&self.host.node).await?;
        let node = node.as_ref().and_then(Stored::readable);
        Ok(node.is_some_and(|node| node.record.boot_id == self.host.boot_id))
    }
}
