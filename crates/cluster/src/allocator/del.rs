//! DEL and GC: noted first, which needs no store; then the store is told, now or by a later verb.

use super::{Allocator, Held, Holder, Holding, Shelf, Stage};
use crate::{Error, Lease};

/// Notes that an attachment's addresses are given back. Needs no store and no settings: what a DEL can always do. They
/// stay in use until the store has forgotten them.
pub async fn note_gone(shelf: &dyn Shelf, network: &str, holder: &Holder) -> Result<(), Error> {
    let _lock = shelf.lock(network).await?;
    match shelf.holding(network, holder)? {
        Some(mut holding) if !holding.unheard => {
            holding.left.append(&mut holding.addresses);
            holding.stage = Stage::Gone;
            shelf.save_holding(network, &holding)
        }
        Some(_) => Ok(()),
        // Nothing is known of it. With a ledger that is the whole truth; without one the store may know more.
        None if shelf.ledger(network)?.is_some() => Ok(()),
        None => {
            let lease = Lease {
                node: String::new(),
                boot_id: String::new(),
                container: holder.container.clone(),
                ifname: holder.ifname.clone(),
                since: 0,
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
        let Some(holding) = self.shelf.holding(self.network, holder)? else {
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
        let left: Vec<_> = holding
            .left
            .iter()
            .map(|held| (held.address, held.revision))
            .collect();
        let released = self
            .cluster
            .release_all(self.network, &holding.lease, &left)
            .await;
        let lock = self.open().await?;
        if let Some(mut open) = lock {
            match &released {
                Ok(()) => {
                    let addresses: Vec<_> = left.iter().map(|(address, _)| *address).collect();
                    open.ledger.free(holder, &addresses, self.clock.uptime());
                }
                Err(_) => open.ledger.fall_behind(holder),
            }
            self.save(&open.ledger)?;
            released?;
            return self.forget(holder, &holding.left);
        }
        let _lock = self.shelf.lock(self.network).await?;
        released?;
        self.forget(holder, &holding.left)
    }

    /// The store has forgotten these addresses of a holding. The caller holds the lock.
    fn forget(&self, holder: &Holder, gone: &[Held]) -> Result<(), Error> {
        let Some(mut holding) = self.shelf.holding(self.network, holder)? else {
            return Ok(());
        };
        let still = |held: &Held| !gone.iter().any(|gone| gone.address == held.address);
        holding.left.retain(still);
        if holding.left.is_empty() && holding.stage == Stage::Gone {
            return self.shelf.remove_holding(self.network, holder);
        }
        self.shelf.save_holding(self.network, &holding)
    }

    /// Releases what the store has of a holder on this node.
    async fn release_unheard(&self, holder: &Holder) -> Result<(), Error> {
        let leases = self.cluster.leases(self.network).await?.into_iter();
        let own = leases.filter(|(_, lease)| {
            lease.record.node == self.host.node && lease.record.holder() == *holder
        });
        self.release_leases(&own.collect::<Vec<_>>()).await
    }

    /// Gives back all that is not `listed`: holdings of this host, and leases that the store has for this node. What
    /// could not be told to the store is returned, and stays noted.
    pub async fn gc(&self, listed: &dyn Fn(&Holder) -> bool) -> Result<Vec<Error>, Error> {
        let mut failures = Vec::new();
        for holding in self.shelf.holdings(self.network)? {
            let holder = holding.holder();
            if !listed(&holder) {
                self.note_gone(&holder).await?;
                failures.extend(self.release(&holder).await.err());
            }
        }
        failures.extend(self.release_unknown(listed).await.err());
        Ok(failures)
    }

    /// Releases leases of this node that neither the host nor the caller knows.
    async fn release_unknown(&self, listed: &dyn Fn(&Holder) -> bool) -> Result<(), Error> {
        let leases = self.cluster.leases(self.network).await?;
        let _lock = self.shelf.lock(self.network).await?;
        let mut gone = Vec::new();
        for (address, lease) in leases {
            let holder = lease.record.holder();
            if lease.record.node != self.host.node || listed(&holder) {
                continue;
            }
            let holding = self.shelf.holding(self.network, &holder)?;
            if holding.is_none_or(|holding| holding.all().all(|held| held.address != address)) {
                gone.push((address, lease));
            }
        }
        self.release_leases(&gone).await
    }
}
