//! A ledger of another store than the one at hand: a conflist names a store, and the host's settings, by which a sync goes,
//! another. A store that is called otherwise and has the same network is the same. One that has not must neither be told
//! of what this host holds, nor is there anything of it to go on from.

use super::{Allocator, Ledger, LocalLease, Memory};
use crate::Error;

/// Whether a ledger may be gone on with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// It is of the store at hand.
    Here,
    /// That store is away, so that it cannot be told anything.
    Unknown,
    /// It is of another one, and nothing is held by it.
    Elsewhere,
}

impl Allocator<'_> {
    /// The ledger as the last verb left it, if it is of the store at hand; none where it is of another one and nothing is held.
    /// The caller holds the lock.
    pub(super) async fn load_of_here(&self) -> Result<Option<Ledger>, Error> {
        let Some(mut ledger) = self.load()? else {
            return Ok(None);
        };
        match self.belongs(&ledger).await? {
            Belongs::Here
                if self.host.store_ref.is_some() && ledger.store_ref != self.host.store_ref =>
            {
                ledger.store_ref.clone_from(&self.host.store_ref);
                self.save(&ledger)?;
            }
            Belongs::Here | Belongs::Unknown => {}
            Belongs::Elsewhere => {
                self.local_store
                    .save_memory(self.network, &Memory::default())?;
                self.local_store.remove_ledger(self.network)?;
                return Ok(None);
            }
        }
        Ok(Some(ledger))
    }

    /// Of which store a ledger is; refused where it is of another one than that at hand while something is held by it. Asks
    /// the store only where it is called otherwise than before.
    pub(super) async fn belongs(&self, ledger: &Ledger) -> Result<Belongs, Error> {
        let (Some(there), Some(here)) = (&ledger.store_ref, &self.host.store_ref) else {
            return Ok(Belongs::Here);
        };
        if there.is_called_as(here) {
            return Ok(Belongs::Here);
        }
        let present = match self.cluster.network(self.network).await {
            Err(error) if error.is_away() => return Ok(Belongs::Unknown),
            present => present?.map(|present| present.record),
        };
        if present.is_some_and(|present| present.is_same(&ledger.network.record)) {
            return Ok(Belongs::Here);
        }
        let local_leases = self.local_store.leases(self.network)?;
        let holds = |it: &LocalLease| it.all().next().is_some();
        if !local_leases.unreadable.is_empty() || local_leases.readable.iter().any(holds) {
            return Err(there.refuse(self.network, here));
        }
        Ok(Belongs::Elsewhere)
    }
}
