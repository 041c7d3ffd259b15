//! Reclaiming: the blocks of a node that has been silent for longer than its network's `reclaimAfter`.
//!
//! Silence is not death: the node may run on, cut off from the store. So what is taken must be free for sure. On a network
//! that reclaims, a node gives out an address while the store is away only from the one block of each pool that is
//! marked `kept`, which is never taken; every other address that a container of it holds has a lease in the store,
//! and becomes an exclusion of that node when its block is taken. No clock of the silent node is in this; of ours only
//! the one that never goes back (`docs/decisions/0005-reclaiming.md`).

use ipam::Block;
use store::Op;

use crate::{
    BlockRecord, BlockState, Cluster, Error, Exclusion, ExclusionState, Lease, NetworkSnapshot,
    Versioned,
};

impl Cluster<'_> {
    /// Takes from `node` all blocks of network `name` that it may not use while the store is away, if its record still
    /// has `revision`: then it has been silent since. How many blocks are nobody's now that were its own.
    pub async fn reclaim(
        &self,
        name: &str,
        node: &str,
        revision: u64,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<usize, Error> {
        let silent = Op::Check {
            key: self.layout.node(node)?,
            revision,
        };
        let mut taken = 0;
        let blocks = snapshot.blocks.clone();
        for (block, present) in blocks.readable() {
            let (block, present) = (*block, present.clone());
            let record = &present.record;
            let candidate = record.node == node
                && !record.kept
                && matches!(record.state, BlockState::Owned | BlockState::Reclaiming);
            if !candidate {
                continue;
            }
            let stopped = if record.state == BlockState::Reclaiming {
                Some(present)
            } else {
                let stop = |record: &mut BlockRecord| record.state = BlockState::Reclaiming;
                let silent = std::slice::from_ref(&silent);
                self.rewrite(name, block, &present, silent, stop).await?
            };
            let Some(stopped) = stopped else { continue };
            if let Some(freed) = self.finish(name, block, &stopped).await? {
                snapshot.blocks.insert(block, freed);
                taken += 1;
            }
        }
        Ok(taken)
    }

    /// From `Reclaiming` to `Returned`: no lease of the block can be written any more, so those that are there are all.
    async fn finish(
        &self,
        name: &str,
        block: Block,
        stopped: &Versioned<BlockRecord>,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        let leases = self.leases(name).await?;
        // One that cannot be read may be of a container there.
        let held = leases.iter().filter(|(address, lease)| {
            let is_its = |lease: &Versioned<Lease>| lease.record.node == stopped.record.node;
            block.contains(**address) && lease.readable().is_none_or(is_its)
        });
        let held: Vec<_> = held.collect();
        self.rewrite(name, block, stopped, &[], |record| {
            record.state = BlockState::Returned;
            for (address, lease) in held {
                let since = lease.readable().map_or(0, |lease| lease.record.since);
                let exclusion = Exclusion::of(&record.node, ExclusionState::Given, since);
                record.exclusions.entry(*address).or_insert(exclusion);
            }
        })
        .await
    }
}
