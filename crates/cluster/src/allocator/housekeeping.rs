//! What a host does after a verb, when the caller has its answer: it tells the store what that missed, claims another block
//! before its last one is full, and gives back blocks that stayed empty.

use std::net::IpAddr;

use ipam::{Block, Range};

use super::{Allocator, LeaseOwner, LeasedAddress, Ledger, Stage};
use crate::{Claim, Error, LeaseGuard, Published, Stored};

impl Allocator<'_> {
    /// Does what is due. Makes no request to the store if nothing is due.
    pub async fn housekeeping(&self) -> Result<(), Error> {
        match self.do_what_is_due().await {
            // An operator removed it, or the store lost it: the next ADD creates it.
            Err(Error::NoNetwork(_)) => Ok(()),
            tended => tended,
        }
    }

    async fn do_what_is_due(&self) -> Result<(), Error> {
        // The first verb after a reboot voids here what the host held before.
        let Some(open) = self.open_or_rebuild().await? else {
            return Ok(());
        };
        let ledger = open.ledger.clone();
        drop(open);
        if !ledger.behind.is_empty()
            && let Some(failure) = self.replay().await?.into_iter().next()
        {
            return Err(failure);
        }
        self.show_up(&ledger).await?;
        for set in self.low(&ledger) {
            self.claim_ahead(&set).await?;
        }
        self.give_back().await?;
        self.finish_creation(&ledger).await
    }

    /// On a network that reclaims, registers this node again before others would consider it silent.
    async fn show_up(&self, ledger: &Ledger) -> Result<(), Error> {
        if !self.is_quiet(ledger) {
            return Ok(());
        }
        self.cluster.register(&self.node()).await?;
        if let Some(mut open) = self.open().await? {
            open.ledger.contact = self.clock.uptime();
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// Whether this node must register again so that it does not count as silent.
    pub(super) fn is_quiet(&self, ledger: &Ledger) -> bool {
        let due = ledger.contact_due();
        due.is_some_and(|due| self.clock.uptime() >= due)
    }

    /// The sets of which a quarter of a block or less is left here; IPv4 first, because a block of IPv6 can follow one of IPv4.
    /// Pools of single-address blocks are left out: they are small, and each address is claimed when it is needed.
    fn low(&self, ledger: &Ledger) -> Vec<Vec<Range>> {
        let low = |set: &&Vec<Range>| {
            let size = block_size(ledger, set);
            size > 1 && self.available(ledger, set) <= size / 4
        };
        let sets = ledger.network.record.ranges.iter().filter(low);
        let mut low: Vec<_> = sets.cloned().collect();
        low.sort_by_key(|set| set.first().is_some_and(|range| range.subnet.is_ipv6()));
        low
    }

    fn available(&self, ledger: &Ledger, set: &[Range]) -> u64 {
        ledger.available(set, &self.host.node, self.clock.uptime(), self.cool_down)
    }

    async fn claim_ahead(&self, set: &[Range]) -> Result<(), Error> {
        let _claims = self.local_store.lock_claims(self.network).await?;
        let size = match self.open().await? {
            Some(open)
                if self.available(&open.ledger, set) <= block_size(&open.ledger, set) / 4 =>
            {
                block_size(&open.ledger, set)
            }
            _ => return Ok(()),
        };
        if size <= 1 {
            return Ok(());
        }
        let mut snapshot = self.cluster.snapshot(self.network).await?;
        let claimed = self
            .cluster
            .claim_block(
                self.network,
                &self.host.node,
                set,
                &mut snapshot,
                Claim::Spare,
            )
            .await;
        match claimed {
            Ok(block) => {
                if let Some(mut open) = self.open().await?
                    && let Some(present) = snapshot.blocks.known(&block)
                    && open.ledger.put(block, present, &self.host.node)
                {
                    self.save(&open.ledger)?;
                }
                Ok(())
            }
            // A pool without a spare block is no error until an ADD needs one.
            Err(Error::NoBlock { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives back what stayed empty: blocks, while enough addresses are left, and single addresses of other hosts' blocks.
    pub(super) async fn give_back(&self) -> Result<(), Error> {
        let leaving = {
            let Some(mut open) = self.open().await? else {
                return Ok(());
            };
            let due = self.due(&open.ledger);
            if !due.is_empty() {
                for (block, address) in &due {
                    open.ledger.leaving.insert((*block, *address));
                    match address {
                        None => drop(open.ledger.blocks.remove(block)),
                        Some(address) => {
                            if let Some(own) = open.ledger.blocks.get_mut(block) {
                                own.record.exclusions.remove(address);
                            }
                        }
                    }
                }
                self.save(&open.ledger)?;
            }
            open.ledger.leaving
        };
        for (block, address) in leaving {
            self.hand_in(block, address).await?;
        }
        Ok(())
    }

    /// Tells the store of one noted give-back.
    async fn hand_in(&self, block: Block, address: Option<IpAddr>) -> Result<(), Error> {
        let node = &self.host.node;
        let mut as_of = 0;
        let present = match self.cluster.block(self.network, block).await? {
            // Its owner cannot be read; the note stays.
            Some(Stored::Unreadable(_)) => return Ok(()),
            present => present.and_then(|present| present.readable().cloned()),
        };
        // Since the note was read, another verb may have given it back and a third may have acquired it again. What was just
        // read is to be given back only if the note still stands.
        let open = self.open().await?;
        if open.is_none_or(|open| !open.ledger.leaving.contains(&(block, address))) {
            return Ok(());
        }
        let ours = present.as_ref().is_some_and(|present| match address {
            None => present.record.is_of(node),
            Some(address) => present.record.given_to(node).any(|given| given == address),
        });
        if let Some(present) = present.filter(|_| ours) {
            let returned = match address {
                None => {
                    self.cluster
                        .return_block(self.network, block, &present)
                        .await?
                }
                Some(address) => {
                    self.cluster
                        .return_exclusion(self.network, block, &present, address)
                        .await?
                }
            };
            // Changed meanwhile: the next verb tries again.
            let Some(returned) = returned else {
                return Ok(());
            };
            as_of = returned.revision;
        }
        if let Some(mut open) = self.open().await? {
            open.ledger.as_of = open.ledger.as_of.max(as_of);
            open.ledger.leaving.remove(&(block, address));
            self.save(&open.ledger)?;
        }
        Ok(())
    }

    /// What is empty, has rested, and is not needed.
    fn due(&self, ledger: &Ledger) -> Vec<(Block, Option<IpAddr>)> {
        let (node, now) = (&self.host.node, self.clock.uptime());
        let cooling = |address: IpAddr| {
            ledger
                .freed
                .iter()
                .any(|(freed, at)| *freed == address && now.saturating_sub(*at) < self.cool_down)
        };
        let mut due = Vec::new();
        for (block, own) in &ledger.blocks {
            if own.record.is_of(node) {
                continue;
            }
            let given = own.record.given_to(node);
            let wanted = |address: &IpAddr| own.record.exclusions[address].wanted;
            let rested = |address: &IpAddr| wanted(address) || !cooling(*address);
            let idle = given.filter(|address| !ledger.uses(*address) && rested(address));
            due.extend(idle.map(|address| (*block, Some(address))));
        }
        for set in &ledger.network.record.ranges {
            let size = block_size(ledger, set);
            let of_set = |block: &&Block| set.iter().any(|range| range.uses(**block));
            let own: Vec<_> = (ledger.blocks.iter())
                .filter(|(block, own)| own.record.is_of(node) && of_set(block))
                .collect();
            let mut room = self.available(ledger, set);
            // The first block stays, so that all hosts know the home of the next ADD's address.
            for (block, own) in own.into_iter().skip(1).rev() {
                let empty =
                    own.used.is_empty() && own.record.exclusions.is_empty() && !own.record.kept;
                let rested = now.saturating_sub(ledger.begun) >= self.cool_down
                    && !ledger
                        .freed
                        .iter()
                        .any(|(address, _)| block.contains(*address) && cooling(*address));
                let size = size.max(1);
                if empty && rested && room >= size + (size / 2).max(1) {
                    room -= size;
                    due.push((*block, None));
                }
            }
        }
        // Static addresses outside the dynamic range, which were claimed by themselves.
        for (block, own) in &ledger.blocks {
            let single = block.size() == 1 && own.record.is_of(node);
            let address = block.first();
            let fixed = ledger
                .network
                .record
                .range_of(address)
                .is_some_and(|range| !range.offers(address));
            if single
                && fixed
                && own.used.is_empty()
                && own.record.exclusions.is_empty()
                && !cooling(address)
            {
                due.push((*block, None));
            }
        }
        due
    }

    /// Tells the store the releases and leases that it missed, in their order. Returns the errors of those that it did not
    /// take; these stay noted.
    pub(super) async fn replay(&self) -> Result<Vec<Error>, Error> {
        let Some(open) = self.open().await? else {
            return Ok(Vec::new());
        };
        let behind = open.ledger.behind.clone();
        drop(open);
        let (mut told, mut failures) = (Vec::new(), Vec::new());
        for owner in behind {
            match self.catch_up(&owner).await {
                Ok(()) => told.push(owner),
                Err(error) => {
                    let away = error.is_away();
                    failures.push(error);
                    if away {
                        break;
                    }
                }
            }
        }
        if !told.is_empty()
            && let Some(mut open) = self.open().await?
        {
            // It may have changed since: it stays on the list if its local lease still has something to tell.
            for owner in told {
                let local_lease = self.local_store.lease(self.network, &owner)?.readable();
                if local_lease.is_none_or(|local_lease| !is_behind(&local_lease)) {
                    open.ledger.behind.retain(|other| *other != owner);
                }
            }
            self.save(&open.ledger)?;
        }
        Ok(failures)
    }

    /// Tells the store the latest state of an attachment: first what it gave back, then what it holds.
    pub(super) async fn catch_up(&self, owner: &LeaseOwner) -> Result<(), Error> {
        self.release(owner).await?;
        for _ in 0..8 {
            let Some(local_lease) = self.local_store.lease(self.network, owner)?.readable() else {
                return Ok(());
            };
            // One by one: the store may have lost one address of a pair and not the other.
            let unpublished = local_lease.addresses.iter().find(|h| h.revision.is_none());
            let Some(unpublished) = unpublished.filter(|_| local_lease.stage == Stage::Given)
            else {
                return Ok(());
            };
            let addresses = [unpublished.address];
            let guard = match self.open().await? {
                None => return Ok(()),
                Some(open) => open.ledger.guard(&addresses, &self.host.node),
            };
            if let Some(guard) = guard {
                let guard = LeaseGuard {
                    held: true,
                    ..guard
                };
                match self
                    .cluster
                    .publish(self.network, &addresses, &local_lease.lease, &guard)
                    .await?
                {
                    Published::Done(revisions) => {
                        self.note_published(owner, &addresses, &revisions).await?;
                        continue;
                    }
                    Published::Taken(address, Stored::Unreadable(unreadable)) => {
                        let key = self.cluster.layout().lease(self.network, address)?;
                        return Err(unreadable.refusal(&key));
                    }
                    Published::Taken(address, Stored::Readable(other))
                        if self.is_orphaned(address, &other.record)? =>
                    {
                        self.release_leases(&[(address, other)]).await?;
                    }
                    // The store has just confirmed that the address is this host's, and a container here has it. So the lease
                    // of another node was brought back by a restore of the store.
                    Published::Taken(address, Stored::Readable(other))
                        if other.record.node != self.host.node =>
                    {
                        self.release_leases(&[(address, other)]).await?;
                    }
                    Published::Taken(address, Stored::Readable(other)) => {
                        let other = format!("container {} here", other.record.container);
                        return Err(self.lost(owner, address, other));
                    }
                    Published::Stale => {}
                }
            }
            if let Some(mut open) = self.open().await? {
                self.refresh(&mut open.ledger, None).await?;
            }
        }
        let Some(open) = self.open().await? else {
            return Ok(());
        };
        let local_lease = self.local_store.lease(self.network, owner)?.readable();
        let stray = local_lease
            .iter()
            .flat_map(|h| &h.addresses)
            .map(|held| held.address);
        let stray = stray
            .into_iter()
            .find(|a| !open.ledger.is_ours(*a, &self.host.node));
        match stray {
            Some(address) => Err(self.lost(owner, address, "another node".to_owned())),
            None => Err(Error::Contended(format!("network {}", self.network))),
        }
    }

    fn lost(&self, owner: &LeaseOwner, address: IpAddr, other: String) -> Error {
        Error::Lost {
            network: self.network.to_owned(),
            address,
            container: owner.container.clone(),
            other,
        }
    }

    async fn note_published(
        &self,
        owner: &LeaseOwner,
        addresses: &[IpAddr],
        revisions: &[u64],
    ) -> Result<(), Error> {
        let _lock = self.local_store.lock(self.network).await?;
        let Some(mut local_lease) = self.local_store.lease(self.network, owner)?.readable() else {
            return Ok(());
        };
        for held in local_lease
            .addresses
            .iter_mut()
            .chain(&mut local_lease.given_back)
        {
            let known = addresses
                .iter()
                .position(|address| *address == held.address);
            if let Some(n) = known {
                held.revision = revisions.get(n).copied();
            }
        }
        self.local_store.save_lease(self.network, &local_lease)
    }
}

/// Whether the store does not know the latest state of a local lease.
pub(super) fn is_behind(local_lease: &super::LocalLease) -> bool {
    let unpublished = |held: &LeasedAddress| held.revision.is_none();
    !local_lease.given_back.is_empty()
        || local_lease.release_all
        || (local_lease.stage == Stage::Given && local_lease.addresses.iter().any(unpublished))
}

/// How many addresses a block of the set has.
fn block_size(ledger: &Ledger, set: &[Range]) -> u64 {
    let network = &ledger.network.record;
    let size = set
        .first()
        .and_then(|range| Block::containing(range.start(), network.block_prefix(range)));
    size.map_or(1, |block| u64::try_from(block.size()).unwrap_or(u64::MAX))
}
