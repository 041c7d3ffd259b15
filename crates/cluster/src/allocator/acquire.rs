//! How an ADD acquires an address when the host has none ready.
//!
//! One verb of the host does this at a time. It does not hold the ledger's lock, because it may have to wait for other hosts:
//! ADDs that find an address in the ledger go on meanwhile. The order is:
//!
//! 1. blocks that a newer snapshot shows to be this host's;
//! 2. a block that no host ever had;
//! 3. a block that was given back and that all members have dropped;
//! 4. a block of a node that never used it;
//! 5. on a network with `reclaimAfter`, blocks of a node that has been silent for too long;
//! 6. addresses of this host that are still resting;
//! 7. single addresses in other hosts' blocks.

use std::{net::IpAddr, time::Duration};

use ipam::{Block, Range, RangeSet};

use super::{
    Allocator, Request,
    choice::{Need, Tried},
};
use crate::{BlockState, Claim, Error, ExclusionState, Lease, NetworkSnapshot, Records, Stored};

/// Most addresses of other hosts that one ADD asks for when a pool has no block left.
const ASKED: usize = 2;

impl Allocator<'_> {
    /// Acquires what an ADD needs, or says why that is impossible. After a success the caller chooses again.
    pub(super) async fn provide(
        &self,
        request: &Request<'_>,
        need: Need,
        tried: &mut Tried,
    ) -> Result<(), Error> {
        let _claims = self.local_store.lock_claims(self.network).await?;
        // Another verb may have acquired it while this one waited for the lock.
        if let Some(open) = self.open().await? {
            let now = self.pick_all(&open.ledger, request, tried)?;
            if now.as_ref().err() != Some(&need) {
                return Ok(());
            }
        }
        match need {
            Need::Capacity(set) => self.provide_capacity(request, &set, tried).await,
            Need::Address(address) => self.provide_address(address).await,
            Need::Twin(twin) => {
                tried.twins.push(twin);
                // Another address will do, so a failure to read the snapshot or to claim the block is not an error.
                let snapshot = self.cluster.snapshot(self.network).await;
                if let Ok(mut snapshot) = snapshot
                    && let Some(block) = block_of(&snapshot, twin)
                    && !snapshot.blocks.contains(&block)
                {
                    let claimed = self
                        .cluster
                        .claim_this_block(
                            self.network,
                            &self.host.node,
                            block,
                            &mut snapshot,
                            Duration::ZERO,
                        )
                        .await;
                    if matches!(claimed, Ok(true)) {
                        self.take_in(snapshot, block).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Puts a block into the ledger as our own write left it.
    async fn take_in(&self, snapshot: NetworkSnapshot, block: Block) -> Result<(), Error> {
        let (Some(mut open), Some(present)) = (self.open().await?, snapshot.blocks.known(&block))
        else {
            return Ok(());
        };
        let new = !open.ledger.blocks.contains_key(&block);
        if open.ledger.put(block, present, &self.host.node) {
            if new {
                self.fill(&mut open.ledger, &[block]).await?;
            }
            self.save(&open.ledger)?;
        }
        self.remember(&self.local_store.memory(self.network)?, snapshot)
    }

    /// Brings the ledger up to date. Returns whether it has an address of `set` now.
    async fn look_again(&self, set: &[Range]) -> Result<bool, Error> {
        let Some(mut open) = self.open().await? else {
            return Ok(false);
        };
        self.refresh(&mut open.ledger, None).await?;
        Ok(open
            .ledger
            .available(set, &self.host.node, self.clock.uptime(), self.cool_down)
            > 0)
    }

    /// The ranges of the network by the ledger.
    async fn ranges(&self) -> Result<Option<Vec<RangeSet>>, Error> {
        let open = self.open().await?;
        Ok(open.map(|open| open.ledger.network.record.ranges))
    }

    async fn provide_capacity(
        &self,
        request: &Request<'_>,
        set: &[Range],
        tried: &mut Tried,
    ) -> Result<(), Error> {
        // If nothing else can be acquired for whatever reason, a resting address of this host is used.
        let was_tried = tried.sets.iter().any(|tried| tried == set);
        tried.sets.push(set.to_vec());
        let cools = match self.open().await? {
            // If only another set lacks an address, this one still uses its resting addresses.
            Some(open) => {
                let picked = self.pick_all(&open.ledger, request, tried)?;
                picked.err() != Some(Need::Capacity(set.to_vec()))
            }
            None => false,
        };
        match self.claim_capacity(set).await {
            Ok(()) => Ok(()),
            Err(_) if cools => Ok(()),
            Err(Error::NoBlock { owners, late, .. }) if !was_tried => {
                let none = Error::NoBlock {
                    network: self.network.to_owned(),
                    owners,
                    late,
                };
                self.borrow(set, none).await
            }
            Err(error) => Err(error),
        }
    }

    /// Claims a block from which an address of `set` can be given.
    async fn claim_capacity(&self, set: &[Range]) -> Result<(), Error> {
        let before = self.ranges().await?;
        // With a further subnet the choice begins anew: `set` is of the network as it was.
        if self.look_again(set).await? || self.ranges().await? != before {
            return Ok(());
        }
        let mut snapshot = self.local_store.memory(self.network)?.snapshot;
        let how = Claim::Needed(self.patience);
        let (network, node) = (self.network, &self.host.node);
        let mut claimed = self
            .cluster
            .claim_block(network, node, set, &mut snapshot, how)
            .await;
        if matches!(claimed, Err(Error::NoBlock { .. })) {
            let memory = self.local_store.memory(network)?;
            let now = self.clock.uptime();
            let reclaimed = self
                .cluster
                .reclaim_silent(network, node, &memory, now, &mut snapshot);
            if reclaimed.await? {
                claimed = self
                    .cluster
                    .claim_block(network, node, set, &mut snapshot, how)
                    .await;
            }
        }
        self.take_in(snapshot, claimed?).await
    }

    /// Acquires a requested address, whether its block is this host's, another host's, or has no owner.
    async fn provide_address(&self, address: IpAddr) -> Result<(), Error> {
        self.refuse_held(address).await?;
        let mut snapshot = self.cluster.snapshot(self.network).await?;
        let Some(block) = block_of(&snapshot, address) else {
            return Err(Error::BadAddress {
                address,
                why: "not in the pool".into(),
            });
        };
        match self.get(block, address, &mut snapshot, self.patience).await {
            Ok(()) => self.take_in(snapshot, block).await,
            // By now an attachment may hold it, which the error then names.
            Err(refused @ Error::Refused { .. }) => {
                self.refuse_held(address).await?;
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses an address that an attachment holds. The error names the attachment.
    async fn refuse_held(&self, address: IpAddr) -> Result<(), Error> {
        for local_lease in self.local_store.leases(self.network)?.readable {
            if local_lease.all().any(|held| held.address == address) {
                return Err(Error::Held {
                    address,
                    lease: Box::new(local_lease.lease),
                });
            }
        }
        let leases = self.cluster.leases_on(self.network, &[address]).await?;
        match leases.get(&address) {
            Some(lease) => Err(self.held(address, lease)),
            None => Ok(()),
        }
    }

    /// Makes `address` of `block` this host's: together with the block if that has no owner, otherwise by an exclusion.
    pub(crate) async fn get(
        &self,
        block: Block,
        address: IpAddr,
        snapshot: &mut NetworkSnapshot,
        patience: Duration,
    ) -> Result<(), Error> {
        let (name, node) = (self.network, self.host.node.as_str());
        for _ in 0..super::ATTEMPTS {
            if let Some(Stored::Unreadable(unreadable)) = snapshot.blocks.get(&block) {
                return Err(unreadable.refusal(&self.cluster.layout().block(name, block)?));
            }
            let present = snapshot.blocks.known(&block).map(|present| &present.record);
            let free = present.is_none_or(|record| {
                let given = record
                    .exclusions
                    .get(&address)
                    .is_some_and(|e| e.node != node);
                record.state == BlockState::Returned && !given
            });
            if present.is_some_and(|record| record.home(address) == Some(node)) {
                return Ok(());
            }
            if !free {
                let now = self.clock.unix();
                return self
                    .cluster
                    .obtain(name, node, address, block, snapshot, patience, now)
                    .await;
            }
            self.cluster
                .claim_this_block(name, node, block, snapshot, patience)
                .await?;
        }
        Err(Error::Contended(format!("block {block} of network {name}")))
    }

    /// Acquires a single address of another host's block, when no block is left. `none` is the error if that fails too; it says
    /// which host has how many blocks.
    async fn borrow(&self, set: &[Range], none: Error) -> Result<(), Error> {
        let (mut snapshot, leases) = self.cluster.snapshot_and_leases(self.network).await?;
        let mut hints = Vec::new();
        for (address, block) in self
            .candidates(set, &snapshot, &leases)
            .into_iter()
            .take(ASKED)
        {
            // Only the first request waits. The next address is then taken if it can be had at once, and asked for otherwise.
            let patience = if hints.is_empty() {
                self.patience
            } else {
                Duration::ZERO
            };
            match self.get(block, address, &mut snapshot, patience).await {
                Ok(()) => return self.take_in(snapshot, block).await,
                Err(error @ (Error::Waiting { .. } | Error::Refused { .. })) => {
                    hints.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let owners = leases.readable().map(|(address, lease)| {
            let Lease {
                node,
                container,
                ifname,
                ..
            } = &lease.record;
            format!("{address} {ifname} of container {container} on node {node}")
        });
        let mut why = none.to_string();
        if !leases.is_empty() {
            why = format!(
                "{why}; held: {}",
                crate::error::list(owners.collect::<Vec<_>>().into_iter())
            );
        }
        for hint in hints {
            why = format!("{why}; {hint}");
        }
        Err(Error::Exhausted {
            network: self.network.to_owned(),
            why,
        })
    }

    /// Addresses in other hosts' blocks that no attachment holds. First those already asked for or given back; then those of
    /// the block that has most of them; last those that a node got by exclusion and does not use.
    fn candidates(
        &self,
        set: &[Range],
        snapshot: &NetworkSnapshot,
        held: &Records<IpAddr, Lease>,
    ) -> Vec<(IpAddr, Block)> {
        let node = &self.host.node;
        let mut found = Vec::new();
        for (block, present) in snapshot.blocks.readable() {
            let record = &present.record;
            if record.state == BlockState::Reclaiming || record.is_of(node) {
                continue;
            }
            let free = |address: &IpAddr| {
                let exclusion = record.exclusions.get(address);
                let to_be_had = exclusion.is_none_or(|e| {
                    let ours = e.node == *node;
                    ours != (e.state == ExclusionState::Given)
                        || e.state == ExclusionState::Returned
                });
                let of_block = block_of(snapshot, *address) == Some(*block);
                to_be_had
                    && of_block
                    && !held.contains(address)
                    && set.iter().any(|range| range.offers(*address))
            };
            let addresses: Vec<_> = block.addresses().filter(free).collect();
            for address in &addresses {
                let rank = match record.exclusions.get(address) {
                    Some(begun) if begun.wanted || begun.state != ExclusionState::Given => 0,
                    None => 1,
                    Some(_) => 2,
                };
                found.push((rank, usize::MAX - addresses.len(), *address, *block));
            }
        }
        found.sort_unstable();
        found
            .into_iter()
            .map(|(_, _, address, block)| (address, block))
            .collect()
    }
}

/// The block with which an address is claimed.
fn block_of(snapshot: &NetworkSnapshot, address: IpAddr) -> Option<Block> {
    let network = &snapshot.network.as_ref()?.record;
    network.block_of(network.range_of(address)?, address)
}
