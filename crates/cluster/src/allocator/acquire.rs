//! Room: where an ADD gets an address from when the host has none ready.
//!
//! One verb of the host at a time does this, and not under the ledger's lock, since it may have to wait for other hosts: ADDs that
//! find room go on meanwhile. In this order: blocks that are ours by now; a block that nobody has; one that was given back
//! and that all have dropped; one of a node that never used it; those of a node that is silent for too long,
//! where the network reclaims; what only cools down here; and last, single addresses of other hosts' blocks.

use std::{net::IpAddr, time::Duration};

use ipam::{Block, Range};

use super::{
    Allocator, Request,
    choice::{Need, Tried},
};
use crate::{BlockState, Claim, Error, ExclusionState, Lease, NetworkSnapshot, Records, Stored};

/// Most addresses of other hosts that one ADD asks for, when a pool has no block left.
const ASKED: usize = 2;

impl Allocator<'_> {
    /// Gets what an ADD needs, or says why it cannot be had. On success the choice is to be made again.
    pub(super) async fn provide(
        &self,
        request: &Request<'_>,
        need: Need,
        tried: &mut Tried,
    ) -> Result<(), Error> {
        let _claims = self.local_store.lock_claims(self.network).await?;
        // Another verb may have got it while we waited.
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
                // Another one will do.
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

    /// Brings the ledger up to date; whether one of `set` can be served from it now.
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

    async fn provide_capacity(
        &self,
        request: &Request<'_>,
        set: &[Range],
        tried: &mut Tried,
    ) -> Result<(), Error> {
        // What only cools down here is the next best, whatever keeps us from more.
        let was_tried = tried.sets.iter().any(|tried| tried == set);
        tried.sets.push(set.to_vec());
        let cools = match self.open().await? {
            // What another set lacks is no reason to refuse this one what it has.
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

    /// A block of ours in which one of `set` can be served.
    async fn claim_capacity(&self, set: &[Range]) -> Result<(), Error> {
        if self.look_again(set).await? {
            return Ok(());
        }
        let mut snapshot = self.local_store.memory(self.network)?.snapshot;
        let how = Claim::Needed(self.patience);
        let node = &self.host.node;
        let mut claimed = self
            .cluster
            .claim_block(self.network, node, set, &mut snapshot, how)
            .await;
        if matches!(claimed, Err(Error::NoBlock { .. })) && self.reclaim(&mut snapshot).await? {
            claimed = self
                .cluster
                .claim_block(self.network, node, set, &mut snapshot, how)
                .await;
        }
        self.take_in(snapshot, claimed?).await
    }

    /// Takes their blocks from nodes that have been silent for too long, if the network does that; whether there was one.
    async fn reclaim(&self, snapshot: &mut NetworkSnapshot) -> Result<bool, Error> {
        let network = snapshot.network.as_ref().map(|network| &network.record);
        let Some(after) = network.and_then(|network| network.reclaim_after) else {
            return Ok(false);
        };
        let (now, mut any) = (self.clock.uptime(), false);
        for (name, (revision, since)) in self.local_store.memory(self.network)?.observed {
            if name != self.host.node && now.saturating_sub(since) > after {
                any |= self
                    .cluster
                    .reclaim(self.network, &name, revision, snapshot)
                    .await?
                    > 0;
            }
        }
        Ok(any)
    }

    /// A requested address: of a block of ours in use, of one that nobody has, of another host's.
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
            // By now it may have a holder to be named.
            Err(refused @ Error::Refused { .. }) => {
                self.refuse_held(address).await?;
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses an address that somebody holds, and says who.
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

    /// Makes `address` of `block` ours: with its block, if that is nobody's, else by itself.
    pub(super) async fn get(
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

    /// Single addresses of other hosts' blocks, when no block is left. `none` says who has which, for the error.
    async fn borrow(&self, set: &[Range], none: Error) -> Result<(), Error> {
        let (mut snapshot, leases) = self.cluster.snapshot_and_leases(self.network).await?;
        let mut hints = Vec::new();
        for (address, block) in self
            .candidates(set, &snapshot, &leases)
            .into_iter()
            .take(ASKED)
        {
            // All of the patience goes to the first; the others were asked by then, or need no asking.
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

    /// Addresses of others that nobody holds: first those already asked for or given back, then of the block that has
    /// most of them, last those that only rest at a node that was given them one by one.
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

/// The block that an address would be claimed with.
fn block_of(snapshot: &NetworkSnapshot, address: IpAddr) -> Option<Block> {
    let network = &snapshot.network.as_ref()?.record;
    network.block_of(network.range_of(address)?, address)
}
