//! Preallocation: each node that is registered when a network is created gets a block of it, so that no host must be told of
//! another host's first attachment.
//!
//! One transaction writes the network and as many blocks as fit. In a larger cluster the rest follows, [`CHUNK`] less one in
//! each further transaction. Until all are written the network is [`NetworkState::Creating`]: it takes attachments, and a verb
//! that finds this state continues where another was killed or ran out of time.

use std::collections::{BTreeMap, BTreeSet};

use ipam::{Block, Range};
use store::{Op, Outcome};

use crate::{
    ATTEMPTS, BlockRecord, CHUNK, Cluster, Error, Network, NetworkSnapshot, NetworkState,
    Versioned, records::encode,
};

/// The outcome of one transaction.
enum Given {
    /// The blocks are written, or have other owners.
    Done,
    /// The network's record has changed since it was read.
    Stale,
}

impl Cluster<'_> {
    /// Finishes the creation of a network: gives each node without a block its first one. Returns the network as it is then.
    /// Makes one request for each [`CHUNK`] of nodes.
    pub async fn finish_network(&self, name: &str) -> Result<Versioned<Network>, Error> {
        let own = self.layout.network(name)?;
        'again: for _ in 0..ATTEMPTS {
            let snapshot = self.snapshot(name).await?;
            let network = snapshot.ready_network(name)?;
            if network.record.state != NetworkState::Creating {
                return Ok(network.clone());
            }
            let nodes = snapshot.nodes.keys().map(String::as_str);
            let preallocated =
                self.preallocated(&network.record, nodes, &blocks_by_node(&snapshot))?;
            if preallocated.is_empty() {
                let record = Network {
                    state: NetworkState::Ready,
                    ..network.record.clone()
                };
                let value = encode(&record)?;
                match self.store.swap(&own, &value, network.revision).await? {
                    Some(revision) => return Ok(Versioned { record, revision }),
                    None => continue,
                }
            }
            let check = Op::Check {
                key: own.clone(),
                revision: network.revision,
            };
            for chunk in preallocated.chunks(CHUNK - 1) {
                match self.give(&check, chunk.to_vec()).await? {
                    Given::Done => {}
                    Given::Stale => continue 'again,
                }
            }
        }
        Err(Error::Contended(own.as_str().to_owned()))
    }

    /// Writes some blocks while the network's record is unchanged. If a node has claimed one of them meanwhile, or another host
    /// does the same work, the others are written anyway.
    async fn give(&self, check: &Op, mut preallocated: Vec<Op>) -> Result<Given, Error> {
        for _ in 0..ATTEMPTS {
            let ops: Vec<Op> = [check].into_iter().chain(&preallocated).cloned().collect();
            match self.store.apply(&ops).await? {
                Outcome::Done(_) => return Ok(Given::Done),
                Outcome::Conflict(0) => return Ok(Given::Stale),
                Outcome::Conflict(_) => {
                    let keys: Vec<_> = preallocated.iter().map(|gift| gift.key().clone()).collect();
                    let taken = self.store.read(&keys).await?;
                    preallocated.retain(|gift| taken.iter().all(|entry| entry.key != *gift.key()));
                    if preallocated.is_empty() {
                        return Ok(Given::Done);
                    }
                }
            }
        }
        Ok(Given::Stale)
    }

    /// The writes that give each node without a block of a set the lowest free one, while there are any. If pools of both
    /// families are cut alike, a node gets the same block of each, so that it can give pairs with equal host parts.
    pub(crate) fn preallocated<'n>(
        &self,
        network: &Network,
        nodes: impl Iterator<Item = &'n str>,
        owned: &BTreeMap<&str, Vec<Block>>,
    ) -> Result<Vec<Op>, Error> {
        let mut taken: BTreeSet<Block> = owned.values().flatten().copied().collect();
        let mut preallocated = Vec::new();
        for node in nodes {
            let own = owned.get(node).map(Vec::as_slice).unwrap_or_default();
            let mut first: Option<(&Range, Block)> = None;
            for set in &network.ranges {
                let has = set.iter().find_map(|range| {
                    let block = own.iter().find(|block| range.uses(**block))?;
                    Some((range, *block))
                });
                if let Some(has) = has {
                    first.get_or_insert(has);
                    continue;
                }
                let free = set.iter().find_map(|range| {
                    let prefix = network.block_prefix(range);
                    let twin = first
                        .filter(|(from, _)| from.subnet.is_ipv4() != range.subnet.is_ipv4())
                        .and_then(|(from, block)| ipam::twin(block.first(), from, range))
                        .and_then(|address| Block::containing(address, prefix))
                        .filter(|twin| range.uses(*twin) && !taken.contains(twin));
                    let block = twin.or_else(|| range.free_block(prefix, &taken, 0))?;
                    Some((range, block))
                });
                let Some((range, block)) = free else { continue };
                first.get_or_insert((range, block));
                taken.insert(block);
                let record = BlockRecord {
                    kept: network.reclaim_after.is_some(),
                    ..BlockRecord::of(node)
                };
                preallocated.push(Op::Create {
                    key: self.layout.block(&network.name, block)?,
                    value: encode(&record)?,
                });
            }
        }
        Ok(preallocated)
    }
}

/// The blocks of each node, including those that it gave back.
fn blocks_by_node(snapshot: &NetworkSnapshot) -> BTreeMap<&str, Vec<Block>> {
    let mut owned: BTreeMap<&str, Vec<Block>> = BTreeMap::new();
    for (block, present) in &snapshot.blocks {
        // The owner of a record that cannot be read gets an empty name.
        let node = present.readable().map(|it| it.record.node.as_str());
        owned
            .entry(node.unwrap_or_default())
            .or_default()
            .push(*block);
    }
    owned
}
