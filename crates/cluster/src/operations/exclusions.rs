//! Exclusions: single addresses of another host's block, for a container that asks for this very address, or when a pool has no
//! block left.
//!
//! The asking node writes its request into the block's record. The owner answers when it next reads the record: it deletes the
//! request if the address is in use; otherwise it grants the request and never gives the address out again. When all other
//! members have dropped the owner as the address's home, the asking node takes it. An address that a node already has in this
//! way is asked of that node. A node without a ledger of the network cannot have given out the address, and need not be asked.

use std::{net::IpAddr, time::Duration};

use ipam::Block;

use crate::{
    ATTEMPTS, BlockRecord, BlockState, Cluster, Error, Exclusion, ExclusionState, NetworkSnapshot,
    Stored, Versioned, operations::acknowledgement::WAKES,
};

impl Cluster<'_> {
    /// Gets `address` of another host's `block` for `node`: asks, waits for the owner and then for the other members, for at
    /// most `patience` each, and takes it. A request that was not answered in time stays, and the next attempt continues it.
    /// `now` is in seconds since 1970.
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments are independent of each other"
    )]
    pub async fn obtain(
        &self,
        name: &str,
        node: &str,
        address: IpAddr,
        block: Block,
        snapshot: &mut NetworkSnapshot,
        patience: Duration,
        now: u64,
    ) -> Result<(), Error> {
        let mut asked: Option<String> = None;
        for _ in 0..ATTEMPTS {
            if let Some(Stored::Unreadable(unreadable)) = snapshot.blocks.get(&block) {
                return Err(unreadable.refusal(&self.layout.block(name, block)?));
            }
            let present = snapshot.blocks.known(&block).cloned();
            let present = present.filter(|present| present.record.state != BlockState::Reclaiming);
            let Some(present) = present else {
                return Err(Error::Contended(format!("block {block} of network {name}")));
            };
            let exclusion = present.record.exclusions.get(&address).cloned();
            let given = |e: &&Exclusion| e.state == ExclusionState::Given;
            let owner = match exclusion.as_ref().filter(given) {
                Some(given) => given.node.clone(),
                None => present.record.node.clone(),
            };
            let waiting = |nodes| Error::Waiting {
                network: name.to_owned(),
                what: format!("address {address}"),
                nodes,
            };
            let refused = |node| Error::Refused {
                network: name.to_owned(),
                address,
                node,
            };
            let by_us = |e: &Exclusion| e.node == node;
            let changed = match exclusion {
                Some(own) if by_us(&own) && own.state == ExclusionState::Given => return Ok(()),
                Some(waits)
                    if waits.wanted || (by_us(&waits) && waits.state == ExclusionState::Asked) =>
                {
                    asked = Some(owner.clone());
                    if self
                        .wait_for_answer(name, block, &present, patience)
                        .await?
                    {
                        *snapshot = self.snapshot(name).await?;
                        continue;
                    }
                    return Err(waiting(vec![owner]));
                }
                // This node's request was granted, or somebody gave the address back: it has no home now.
                Some(free) if by_us(&free) || free.state == ExclusionState::Returned => {
                    let ours = by_us(&free) && free.state == ExclusionState::Returned;
                    let late = match free.dropped_at(present.revision).filter(|_| !ours) {
                        Some(dropped) => self.all_dropped(name, node, dropped, patience).await?,
                        None => Vec::new(),
                    };
                    if !late.is_empty() {
                        return Err(waiting(late));
                    }
                    self.set_exclusion(name, block, &present, address, |exclusion| {
                        node.clone_into(&mut exclusion.node);
                        exclusion.state = ExclusionState::Given;
                        exclusion.dropped = None;
                    })
                    .await?
                }
                // The node that has it deleted the request, or another node was first.
                Some(other) if asked.is_some() || other.state != ExclusionState::Given => {
                    return Err(refused(other.node));
                }
                // It was given back and the exclusion ended while this node waited for the answer.
                None if present.record.is_of(node) => return Ok(()),
                None if asked.as_ref() == Some(&owner) => return Err(refused(owner)),
                None | Some(_) => {
                    let request = self
                        .ask(name, node, address, block, &present, &owner, now)
                        .await?;
                    asked = request.is_some().then_some(owner);
                    request
                }
            };
            match changed {
                Some(record) => snapshot.blocks.insert(block, record),
                None => *snapshot = self.snapshot(name).await?,
            }
        }
        Err(Error::Contended(
            self.layout.block(name, block)?.as_str().to_owned(),
        ))
    }

    /// Writes the request for an address of `owner`; grants it at once if the owner keeps no ledger.
    #[allow(clippy::too_many_arguments, reason = "it is a step of `obtain`")]
    async fn ask(
        &self,
        name: &str,
        node: &str,
        address: IpAddr,
        block: Block,
        present: &Versioned<BlockRecord>,
        owner: &str,
        now: u64,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        let given = present.record.exclusions.contains_key(&address);
        let idle = if present.record.state == BlockState::Returned && !given {
            Some(Vec::new())
        } else {
            self.idle(name, owner).await?
        };
        let state = match idle {
            Some(_) => ExclusionState::Granted,
            None => ExclusionState::Asked,
        };
        self.rewrite(name, block, present, &idle.unwrap_or_default(), |record| {
            let exclusion = Exclusion::of(node, state, now);
            match record.exclusions.get_mut(&address) {
                Some(given) if state == ExclusionState::Asked => given.wanted = true,
                _ => drop(record.exclusions.insert(address, exclusion)),
            }
        })
        .await
    }

    /// Waits until the block's record has changed. Returns whether it has.
    async fn wait_for_answer(
        &self,
        name: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        patience: Duration,
    ) -> Result<bool, Error> {
        let key = self.layout.block(name, block)?;
        let mut index = 0;
        for _ in 0..=WAKES {
            let seen = self.store.watch(&key, index, patience / WAKES).await?;
            index = seen.index;
            let same = |e: &store::Entry| e.key == key && e.revision == present.revision;
            if !seen.entries.iter().any(same) {
                return Ok(true);
            }
            if patience.is_zero() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    async fn set_exclusion(
        &self,
        name: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        address: IpAddr,
        change: impl FnOnce(&mut Exclusion),
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        self.rewrite(name, block, present, &[], |record| {
            if let Some(exclusion) = record.exclusions.get_mut(&address) {
                change(exclusion);
            }
        })
        .await
    }

    /// Writes the answer of `node` to requests in `block`. It refuses addresses that are `in_use`, and grants the others if the
    /// block is its own; the caller has noted before that these are no longer given out. What it has by exclusion and does not
    /// use it gives back later. `None` if the record has changed.
    pub async fn answer(
        &self,
        name: &str,
        node: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        in_use: impl Fn(IpAddr) -> bool,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        self.rewrite(name, block, present, &[], |record| {
            let own = record.is_of(node);
            let asked = |e: &Exclusion| own && e.state == ExclusionState::Asked;
            record
                .exclusions
                .retain(|address, exclusion| !(asked(exclusion) && in_use(*address)));
            for (address, exclusion) in &mut record.exclusions {
                if asked(exclusion) {
                    exclusion.state = ExclusionState::Granted;
                } else if exclusion.is_wanted_of(node) && in_use(*address) {
                    exclusion.wanted = false;
                }
            }
        })
        .await
    }

    /// Makes `address`, which has no home, an address of `node` without asking or waiting, because a container there already
    /// has it and the store has lost that. Requests of other nodes for it end. `None` if the record has changed.
    pub async fn reinstate(
        &self,
        name: &str,
        node: &str,
        address: IpAddr,
        block: Block,
        present: &Versioned<BlockRecord>,
        now: u64,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        self.rewrite(name, block, present, &[], |record| {
            if record.is_of(node) {
                record.exclusions.remove(&address);
                return;
            }
            let given = Exclusion::of(node, ExclusionState::Given, now);
            record.exclusions.insert(address, given);
        })
        .await
    }

    /// Gives back an address that the node has by exclusion. `None` if the record has changed.
    pub async fn return_exclusion(
        &self,
        name: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        address: IpAddr,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        self.set_exclusion(name, block, present, address, |exclusion| {
            exclusion.state = ExclusionState::Returned;
            exclusion.dropped = None;
            exclusion.wanted = false;
        })
        .await
    }

    /// Deletes a block's exclusions that are over: given back and dropped by all members, redundant because their node owns the
    /// block now, or requested long ago and not continued, as `old` tells. `None` if there are none, or if the record has
    /// changed.
    pub async fn absorb(
        &self,
        name: &str,
        node: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        old: &dyn Fn(IpAddr, &Exclusion) -> bool,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        let old = |a: &IpAddr, e: &Exclusion| e.is_request() && old(*a, e);
        let returned = |e: &Exclusion| e.state == ExclusionState::Returned;
        let exclusions = &present.record.exclusions;
        // The exclusion's node owns the whole block by now.
        let redundant = |e: &Exclusion| present.record.is_of(&e.node);
        if !(exclusions.iter()).any(|(a, e)| old(a, e) || returned(e) || redundant(e)) {
            return Ok(None);
        }
        let forwarders = self.forwarders(name, node).await?;
        let dropped = |e: &Exclusion| {
            let since = e.dropped_at(present.revision).unwrap_or(u64::MAX);
            returned(e) && forwarders.values().all(|seen| *seen >= since)
        };
        let doomed: Vec<IpAddr> = (exclusions.iter())
            .filter(|(a, e)| old(a, e) || dropped(e) || redundant(e))
            .map(|(address, _)| *address)
            .collect();
        if doomed.is_empty() {
            return Ok(None);
        }
        self.rewrite(name, block, present, &[], |record| {
            record
                .exclusions
                .retain(|address, _| !doomed.contains(address));
        })
        .await
    }
}
