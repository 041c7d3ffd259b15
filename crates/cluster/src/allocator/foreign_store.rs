//! Ledgers that were read from another store than the one at hand, because the host's configuration was changed, or because an
//! older version accepted a conflist with a store of its own. The store at hand must not be told what such a ledger holds. If a
//! store with another name has the very same network, it is the same store.

use super::{Allocator, Ledger, LocalLease, Memory};
use crate::Error;

/// Whether a ledger can be used with the store at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// It was read from the store at hand.
    Here,
    /// The store at hand is away and cannot be asked.
    Unknown,
    /// It was read from another store, and no attachment holds anything.
    Elsewhere,
}

impl Allocator<'_> {
    /// The ledger as the last verb left it, if it was read from the store at hand; `None` if it was read from another one and
    /// no attachment holds anything. The caller holds the lock.
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

    /// From which store a ledger was read. Fails if it is another store than the one at hand and an attachment holds an
    /// address. Asks the store only if its name differs from the noted one.
    pub(super) async fn belongs(&self, ledger: &Ledger) -> Result<Belongs, Error> {
        let (Some(there), Some(here)) = (&ledger.store_ref, &self.host.store_ref) else {
            return Ok(Belongs::Here);
        };
        if there.has_same_name(here) {
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

    /// Fails if attachments on other networks of this host were made with another store: a host has one store.
    pub(super) async fn refuse_second_store(&self) -> Result<(), Error> {
        let Some(here) = &self.host.store_ref else {
            return Ok(());
        };
        for (known, there) in self.local_store.stores()? {
            let name = &known.record.name;
            if name == self.network || !there.is_another(here) {
                continue;
            }
            match self.cluster.network(name).await {
                Err(error) if error.is_away() => return Ok(()),
                Ok(Some(present)) if present.record.is_same(&known.record) => {}
                Ok(_) => return Err(there.refuse(name, here)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
