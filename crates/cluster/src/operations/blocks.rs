//! Claims of blocks. A claim is one conditional write, and all that hosts have to agree on for an ordinary ADD.
//!
//! A claim first takes a block that no node ever had, starting at a place in the pool that follows from the node's name, so
//! that hosts that claim at the same moment seldom want the same block. Then it takes a block that was given back and that all
//! members have dropped; then one that a node was given at the network's creation and never used.

use std::{collections::BTreeMap, time::Duration};

use ipam::{Block, Range, place_of};
use store::Op;

use crate::{
    ATTEMPTS, BlockRecord, BlockState, Cluster, Error, Network, NetworkSnapshot, Stored, Versioned,
    records::encode,
};

/// How hard a claim tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Claims a spare block, and only one that can be had at once.
    Spare,
    /// Also waits for other hosts, for at most this long.
    Needed(Duration),
}

impl Cluster<'_> {
    /// Claims for `node` a block that has addresses of `set`; if possible the one that goes with a block that the node has of
    /// the other family. Updates `snapshot` where it was old.
    pub async fn claim_block(
        &self,
        name: &str,
        node: &str,
        set: &[Range],
        snapshot: &mut NetworkSnapshot,
        how: Claim,
    ) -> Result<Block, Error> {
        let mut late = Vec::new();
        for _ in 0..ATTEMPTS {
            let network = snapshot.ready_network(name)?.record.clone();
            let taken = snapshot.blocks.keys().copied().collect();
            let place = place_of(node);
            let anywhere = || {
                set.iter()
                    .find_map(|range| range.free_block(network.block_prefix(range), &taken, place))
            };
            let free = mate(&network, snapshot, node, set).or_else(anywhere);
            if let Some(block) = free {
                if self.take(name, node, set, block, snapshot).await? {
                    return Ok(block);
                }
                *snapshot = self.snapshot(name).await?;
                // The claim was written, and only its answer was lost.
                if snapshot
                    .blocks
                    .known(&block)
                    .is_some_and(|owner| owner.record.is_of(node))
                {
                    return Ok(block);
                }
                continue;
            }
            let before = snapshot.revision();
            match self
                .claim_returned(name, node, set, snapshot, how, &mut late)
                .await?
            {
                Some(block) => return Ok(block),
                // Another node was quicker, and the snapshot is new: try again.
                None if snapshot.revision() > before => {}
                // A block was made ownerless just now: try again.
                None if late.is_empty()
                    && self.free_idle(name, node, set, snapshot, how).await? => {}
                None => return Err(no_block(name, snapshot, late)),
            }
        }
        Err(Error::Contended(
            self.layout.blocks(name)?.as_str().to_owned(),
        ))
    }

    /// Claims for `node` this very block, if it has no owner. Returns whether the node has it now.
    pub async fn claim_this_block(
        &self,
        name: &str,
        node: &str,
        block: Block,
        snapshot: &mut NetworkSnapshot,
        patience: Duration,
    ) -> Result<bool, Error> {
        if let Some(Stored::Unreadable(unreadable)) = snapshot.blocks.get(&block) {
            return Err(unreadable.refusal(&self.layout.block(name, block)?));
        }
        let claimed = match snapshot.blocks.known(&block).cloned() {
            None => self.take(name, node, &[], block, snapshot).await?,
            Some(present) if present.record.is_of(node) => return Ok(true),
            Some(present) if present.record.state == BlockState::Returned => {
                let late = self.still_late(name, node, &present, patience).await?;
                if !late.is_empty() {
                    return Err(Error::Waiting {
                        network: name.to_owned(),
                        what: format!("block {block}"),
                        nodes: late,
                    });
                }
                self.retake(name, node, block, &present, snapshot).await?
            }
            Some(_) => false,
        };
        if !claimed {
            *snapshot = self.snapshot(name).await?;
        }
        Ok(claimed)
    }

    /// Claims one of the blocks that were given back, if there is one that all members have dropped.
    async fn claim_returned(
        &self,
        name: &str,
        node: &str,
        set: &[Range],
        snapshot: &mut NetworkSnapshot,
        how: Claim,
        late: &mut Vec<String>,
    ) -> Result<Option<Block>, Error> {
        let usable = |block: &Block, record: &BlockRecord| {
            record.state == BlockState::Returned
                && set.iter().any(|range| {
                    range.uses(*block)
                        && block
                            .addresses()
                            .any(|a| range.offers(a) && !record.exclusions.contains_key(&a))
                })
        };
        let mut returned: Vec<_> = snapshot
            .blocks
            .readable()
            .filter(|(block, present)| usable(block, &present.record))
            .map(|(block, present)| (*block, present.clone()))
            .collect();
        // The block that was given back first was probably dropped by most members; one that was this node's before needs no
        // waiting.
        let dropped = |present: &Versioned<BlockRecord>| {
            let since = present.record.dropped.unwrap_or(present.revision);
            if present.record.node == node {
                0
            } else {
                since
            }
        };
        returned.sort_by_key(|(_, present)| dropped(present));
        let Some((block, present)) = returned.first().cloned() else {
            return Ok(None);
        };
        let patience = match how {
            Claim::Spare => Duration::ZERO,
            Claim::Needed(patience) => patience,
        };
        *late = self.still_late(name, node, &present, patience).await?;
        if !late.is_empty() {
            return Ok(None);
        }
        if self.retake(name, node, block, &present, snapshot).await? {
            return Ok(Some(block));
        }
        *snapshot = self.snapshot(name).await?;
        let ours = snapshot
            .blocks
            .known(&block)
            .is_some_and(|owner| owner.record.is_of(node));
        Ok(ours.then_some(block))
    }

    /// The members that may still send to the last owner of a returned block.
    async fn still_late(
        &self,
        name: &str,
        node: &str,
        present: &Versioned<BlockRecord>,
        patience: Duration,
    ) -> Result<Vec<String>, Error> {
        if present.record.node == node {
            return Ok(Vec::new());
        }
        let dropped = present.record.dropped.unwrap_or(present.revision);
        self.all_dropped(name, node, dropped, patience).await
    }

    /// Makes ownerless a block of a node that was given it and keeps no ledger of the network, so that it cannot have used it.
    /// The block can be claimed when all members have dropped it. Returns whether there was one.
    async fn free_idle(
        &self,
        name: &str,
        node: &str,
        set: &[Range],
        snapshot: &mut NetworkSnapshot,
        how: Claim,
    ) -> Result<bool, Error> {
        if how == Claim::Spare {
            return Ok(false);
        }
        let mut asked = BTreeMap::new();
        let others = snapshot.blocks.clone();
        for (block, present) in others.readable().filter(|(block, present)| {
            let foreign = present.record.has_owner() && present.record.node != node;
            foreign && set.iter().any(|range| range.uses(**block))
        }) {
            let owner = &present.record.node;
            if !asked.contains_key(owner) {
                asked.insert(owner.clone(), self.idle(name, owner).await?);
            }
            let Some(Some(idle)) = asked.get(owner) else {
                continue;
            };
            let freed = self
                .rewrite(name, *block, present, idle, |record| {
                    record.state = BlockState::Returned;
                    record.kept = false;
                })
                .await?;
            if let Some(freed) = freed {
                snapshot.blocks.insert(*block, freed);
                return Ok(true);
            }
            asked.remove(owner);
        }
        Ok(false)
    }

    /// Claims a block without a record, by one write under the condition that the network is as in `snapshot`.
    async fn take(
        &self,
        name: &str,
        node: &str,
        set: &[Range],
        block: Block,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<bool, Error> {
        let network = snapshot.ready_network(name)?;
        let mut record = BlockRecord::of(node);
        record.kept = first_of(&network.record, set, node, snapshot);
        let ops = [
            Op::Check {
                key: self.layout.network(name)?,
                revision: network.revision,
            },
            Op::Create {
                key: self.layout.block(name, block)?,
                value: encode(&record)?,
            },
        ];
        let Some(revisions) = self.done(&ops).await? else {
            return Ok(false);
        };
        let revision = revisions.last().copied().unwrap_or_default();
        snapshot
            .blocks
            .insert(block, Versioned { record, revision });
        Ok(true)
    }

    /// Claims a returned block by one conditional write. Addresses that other nodes have by exclusion stay theirs.
    async fn retake(
        &self,
        name: &str,
        node: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<bool, Error> {
        let network = snapshot.ready_network(name)?;
        let check = Op::Check {
            key: self.layout.network(name)?,
            revision: network.revision,
        };
        let set: Vec<Range> = (network.record.ranges.iter())
            .find(|set| set.iter().any(|range| range.uses(block)))
            .cloned()
            .unwrap_or_default();
        let kept = first_of(&network.record, &set, node, snapshot);
        let taken = self
            .rewrite(name, block, present, &[check], |record| {
                node.clone_into(&mut record.node);
                record.state = BlockState::Owned;
                record.dropped = None;
                record.kept = kept;
                // The node's own exclusions end: it has these addresses with the block now.
                record
                    .exclusions
                    .retain(|_, exclusion| exclusion.node != node);
            })
            .await?;
        if let Some(taken) = &taken {
            snapshot.blocks.insert(block, taken.clone());
        }
        Ok(taken.is_some())
    }

    /// Gives a block back if its record is still the one that the owner knows. Returns the new record.
    pub async fn return_block(
        &self,
        name: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        self.rewrite(name, block, present, &[], |record| {
            record.state = BlockState::Returned;
            record.kept = false;
        })
        .await
    }

    /// The only function that changes a block's record: if it is still as it was read, and under further conditions. `None` if
    /// one of these no longer holds.
    pub(crate) async fn rewrite(
        &self,
        name: &str,
        block: Block,
        present: &Versioned<BlockRecord>,
        conditions: &[Op],
        change: impl FnOnce(&mut BlockRecord),
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        let mut record = present.record.pinned(present.revision);
        change(&mut record);
        let mut ops = conditions.to_vec();
        ops.push(Op::Swap {
            key: self.layout.block(name, block)?,
            value: encode(&record)?,
            revision: present.revision,
        });
        let revision = self.done(&ops).await?.and_then(|r| r.last().copied());
        Ok(revision.map(|revision| Versioned { record, revision }))
    }

    /// The present record of a block.
    pub(crate) async fn block(
        &self,
        name: &str,
        block: Block,
    ) -> Result<Option<Stored<BlockRecord>>, Error> {
        let entry = self.store.get(&self.layout.block(name, block)?).await?;
        Ok(entry.as_ref().map(Stored::of))
    }
}

/// Whether, on a network that reclaims, a block of `set` would be the node's first one: that one is marked `kept`.
fn first_of(network: &Network, set: &[Range], node: &str, snapshot: &NetworkSnapshot) -> bool {
    let in_set = |block: &Block| set.iter().any(|range| range.uses(*block));
    network.reclaim_after.is_some()
        && !set.is_empty()
        && !snapshot.blocks.readable().any(|(block, present)| {
            in_set(block) && present.record.is_of(node) && present.record.kept
        })
}

/// A block of `set` without an owner whose addresses have the same host parts as a block that `node` has of the other family.
fn mate(network: &Network, snapshot: &NetworkSnapshot, node: &str, set: &[Range]) -> Option<Block> {
    let to = set.first()?;
    let mut own = snapshot
        .blocks
        .readable()
        .filter(|(_, it)| it.record.is_of(node));
    let mate = |(own, _): (&Block, _)| {
        let from = network.range_of(own.first())?;
        let other_family = from.subnet.is_ipv4() != to.subnet.is_ipv4();
        let twin = ipam::twin(own.first(), from, to).filter(|_| other_family)?;
        let mate = network.block_of(to, twin)?;
        (to.uses(mate) && !snapshot.blocks.contains(&mate)).then_some(mate)
    };
    own.find_map(mate)
}

pub(crate) fn no_block(network: &str, snapshot: &NetworkSnapshot, late: Vec<String>) -> Error {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (_, block) in snapshot.blocks.readable() {
        if block.record.has_owner() {
            *owners.entry(block.record.node.clone()).or_default() += 1;
        }
    }
    let unreadable = snapshot.blocks.unreadable().count();
    if unreadable > 0 {
        owners.insert("(records that cannot be read)".to_owned(), unreadable);
    }
    Error::NoBlock {
        network: network.to_owned(),
        owners: owners.into_iter().collect(),
        late,
    }
}
