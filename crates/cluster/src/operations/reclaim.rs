//! Reclaiming: the blocks of a node that has been silent for longer than its network's `reclaimAfter`.
//!
//! A silent node may be running, cut off from the store. So only what is certainly free is taken. On a network that reclaims, a
//! node that cannot reach the store gives out addresses only from the one block of each pool that is marked `kept`, which is
//! never taken. Every other address that one of its containers holds has a lease in the store, and becomes an exclusion of that
//! node when its block is taken. This does not depend on the silent node's clock, and uses only the clock of this host that
//! never goes back (`docs/decisions/0005-reclaiming.md`).

use ipam::Block;
use store::Op;

use crate::{
    BlockRecord, BlockState, Cluster, Error, Exclusion, ExclusionState, Lease, Memory,
    NetworkSnapshot, Versioned,
};

/// Whether a node is silent for so long that other hosts may take over its blocks. Its record has not changed since `since`. This and
/// `now` are times on [`Clock::uptime`](crate::Clock::uptime) of the host that decides; `after` is the network's `reclaimAfter` in seconds.
pub(crate) fn is_silent(since: u64, now: u64, after: u64) -> bool {
    now.saturating_sub(since) > after
}

impl Cluster<'_> {
    /// On a network with `reclaimAfter`, takes the blocks of all nodes but `node` that have been silent for too long. `memory` says
    /// since when each node's record has not changed. Returns whether it took any.
    pub(crate) async fn reclaim_silent(
        &self,
        name: &str,
        node: &str,
        memory: &Memory,
        now: u64,
        snapshot: &mut NetworkSnapshot,
    ) -> Result<bool, Error> {
        let network = snapshot.network.as_ref().map(|network| &network.record);
        let Some(after) = network.and_then(|network| network.reclaim_after) else {
            return Ok(false);
        };
        let mut any = false;
        for (silent, (revision, since)) in &memory.observed {
            if silent != node && is_silent(*since, now, after) {
                any |= self.reclaim(name, silent, *revision, snapshot).await? > 0;
            }
        }
        Ok(any)
    }

    /// Takes from `node` all blocks of network `name` that it may not use while the store is away, if its record still has
    /// `revision`, that is, if it has been silent since. Returns how many blocks it lost.
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

    /// Changes a block from `Reclaiming` to `Returned`. In `Reclaiming` no lease of the block can be written, so the leases
    /// read here are complete.
    async fn finish(
        &self,
        name: &str,
        block: Block,
        stopped: &Versioned<BlockRecord>,
    ) -> Result<Option<Versioned<BlockRecord>>, Error> {
        let leases = self.leases(name).await?;
        // A lease that cannot be read may be of a container of that node.
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
