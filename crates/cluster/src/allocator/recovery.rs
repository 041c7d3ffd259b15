//! What this host does for its containers when the store has forgotten them: it was emptied, or put back to an earlier
//! state. `crate::operations::restore` writes again what all hosts know; here a host sees to what only itself knows, its containers.

use std::{net::IpAddr, time::Duration};

use super::{ATTEMPTS, Allocator, Held, Holding, Ledger, Memory, Stage};
use crate::{BlockRecord, BlockState, Error, Exclusion, ExclusionState, Lease, News, Versioned};

impl Allocator<'_> {
    /// The store has no such network, and nothing here needs it: what was ours of it is so no more, since who creates it
    /// anew deals it out anew. Of one that was removed nothing is kept; of one that was forgotten what may help another
    /// host, which has containers on it. The caller holds the lock.
    pub(super) async fn disown(&self) -> Result<(), Error> {
        let holdings = self.shelf.holdings(self.network)?;
        let is_empty = |holding: &Holding| holding.addresses.is_empty();
        if !holdings.unreadable.is_empty() || !holdings.readable.iter().all(is_empty) {
            return Ok(());
        }
        if self.is_removed().await? {
            for holding in &holdings.readable {
                self.shelf.remove_holding(self.network, &holding.holder())?;
            }
            self.shelf.save_memory(self.network, &Memory::default())?;
        }
        self.shelf.remove_ledger(self.network)
    }

    /// Whether the network that this host remembers was removed.
    async fn is_removed(&self) -> Result<bool, Error> {
        match self.shelf.memory(self.network)?.news.network {
            Some(known) => self.cluster.was_removed(&known.record).await,
            None => Ok(false),
        }
    }

    /// What there is to say of containers here on a network that is not in the store: nothing but where it was removed.
    pub(super) async fn stranded(&self) -> Result<Vec<Error>, Error> {
        let mut holdings = self.shelf.holdings(self.network)?.readable;
        holdings.retain(|holding| holding.stage == Stage::Given);
        if holdings.is_empty() || !self.is_removed().await? {
            return Ok(Vec::new());
        }
        let stranded = holdings.iter().flat_map(|holding| {
            let of = |held: &Held| Error::Removed {
                network: self.network.to_owned(),
                container: holding.lease.container.clone(),
                address: held.address,
            };
            holding.addresses.iter().map(of)
        });
        Ok(stranded.collect())
    }

    /// Whether a container of this host has an address of the network, or may have one.
    pub(super) fn holds(&self) -> Result<bool, Error> {
        let holdings = self.shelf.holdings(self.network)?;
        let is_given = |holding: &Holding| holding.stage == Stage::Given;
        Ok(!holdings.unreadable.is_empty() || holdings.readable.iter().any(is_given))
    }

    /// Makes ours again what containers here hold and the store has as nobody's, or not at all. What is another's by
    /// now is asked for; until that is settled it shows as lost.
    pub(super) async fn take_back(
        &self,
        network: &Versioned<crate::Network>,
        news: &mut News,
    ) -> Result<(), Error> {
        for holding in self.shelf.holdings(self.network)?.readable {
            let held = holding.addresses.iter();
            for held in held.filter(|_| holding.stage == Stage::Given) {
                let range = network.record.range_of(held.address);
                let block = range.and_then(|range| network.record.block_of(range, held.address));
                let Some(block) = block else { continue };
                if let Err(error) = self.take_back_one(block, held.address, news).await
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
        news: &mut News,
    ) -> Result<(), Error> {
        let (name, node) = (self.network, self.host.node.as_str());
        for _ in 0..ATTEMPTS {
            let present = news.blocks.known(&block).cloned();
            let homeless = present.filter(|present| {
                present.record.home(address).is_none()
                    && present.record.state != BlockState::Reclaiming
            });
            // Asked of its owner, and not answered: no lease on it can be written since, and one that is there stands.
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
                if news.home(address) == Some(node) {
                    return Ok(());
                }
                return self.get(block, address, news, Duration::ZERO).await;
            };
            let now = self.clock.unix();
            let mended = self
                .cluster
                .reinstate(name, node, address, block, &present, now)
                .await?;
            match mended {
                Some(record) => news.blocks.insert(block, record),
                None => *news = self.cluster.news(name).await?,
            }
        }
        Err(Error::Contended(format!("block {block} of network {name}")))
    }

    /// Forgets which leases the store has, so that all are published again; and releases those that came back from the
    /// past, of which no container here knows.
    pub(super) async fn publish_anew(&self, ledger: &mut Ledger) -> Result<(), Error> {
        for mut holding in self.shelf.holdings(self.network)?.readable {
            for address in holding.addresses.iter_mut().chain(&mut holding.left) {
                address.revision = None;
            }
            self.shelf.save_holding(self.network, &holding)?;
            if holding.stage != Stage::Chosen {
                ledger.fall_behind(&holding.holder());
            }
        }
        self.save(ledger)?;
        let mut zombies = Vec::new();
        for (address, lease) in self.cluster.leases(self.network).await?.readable() {
            if self.is_zombie(*address, &lease.record)? {
                zombies.push((*address, lease.clone()));
            }
        }
        self.release_leases(&zombies).await
    }

    /// Whether a lease is this node's and no container here knows of it: the store was put back to an earlier state, or
    /// the host lost its documents.
    pub(super) fn is_zombie(&self, address: IpAddr, lease: &Lease) -> Result<bool, Error> {
        if lease.node != self.host.node {
            return Ok(false);
        }
        let holding = self.shelf.holding(self.network, &lease.holder())?;
        Ok(lease.boot_id != self.host.boot_id || !holding.may_hold(address))
    }
}

/// Whether the owner of a block, which is not `node`, was asked for an address of it and has not answered.
fn is_unanswered(record: &BlockRecord, node: &str, address: IpAddr) -> bool {
    let asked = |e: &Exclusion| e.state == ExclusionState::Asked;
    record.state == BlockState::Owned
        && record.node != node
        && record.exclusions.get(&address).is_some_and(asked)
}
