//! A ledger of another store than the one at hand: a conflist names a store, and the host's settings, by which a sync goes,
//! another. A store that is called otherwise and has the same network is the same. One that has not must neither be told
//! of what this host holds, nor is there anything of it to go on from.

use super::{Allocator, Ledger, Memory};
use crate::Error;

impl Allocator<'_> {
    /// The ledger as the last verb left it, if it is of the store at hand; none where it is of another one and nothing is held.
    /// The caller holds the lock. A store that is away cannot be told anything, and its ledger is gone on with. Asks the
    /// store only where it is called otherwise than before.
    pub(super) async fn load_of_here(&self) -> Result<Option<Ledger>, Error> {
        let Some(mut ledger) = self.load()? else {
            return Ok(None);
        };
        let Some(here) = &self.host.place else {
            return Ok(Some(ledger));
        };
        if let Some(there) = &ledger.place
            && !there.is_called_as(here)
        {
            let present = match self.cluster.network(self.network).await {
                Err(error) if error.is_away() => return Ok(Some(ledger)),
                present => present?.map(|present| present.record),
            };
            if !there.leads_to(here, &ledger.network.record, present.as_ref()) {
                if self.holds_anything()? {
                    return Err(there.refuse(self.network, here));
                }
                self.shelf.save_memory(self.network, &Memory::default())?;
                self.shelf.remove_ledger(self.network)?;
                return Ok(None);
            }
        }
        if ledger.place.as_ref() != Some(here) {
            ledger.place = Some(here.clone());
            self.save(&ledger)?;
        }
        Ok(Some(ledger))
    }

    /// Whether there is an attachment here, or a release that its store has not heard of.
    fn holds_anything(&self) -> Result<bool, Error> {
        let holdings = self.shelf.holdings(self.network)?;
        Ok(holdings.iter().any(|it| it.all().next().is_some()))
    }
}
