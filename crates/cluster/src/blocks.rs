//! Blocks: claiming one is the only act between hosts that needs agreement, and it is one conditional write.

use std::{collections::BTreeMap, net::IpAddr};

use ipam::{Block, Range};
use store::{Op, Outcome};

use crate::{ATTEMPTS, BlockRecord, Cluster, Error, News, Versioned, records::encode};

impl Cluster<'_> {
    /// Claims for `node` a block from which one of `set` can be served: the lowest that nobody has, of the first
    /// range that has one. Brings `news` up to date where it was old.
    pub async fn claim_block(
        &self,
        name: &str,
        node: &str,
        set: &[Range],
        news: &mut News,
    ) -> Result<Block, Error> {
        for _ in 0..ATTEMPTS {
            let network = &news.ready_network(name)?.record;
            let taken = news.blocks.keys().copied().collect();
            let free = set
                .iter()
                .find_map(|range| range.free_block(network.block_prefix(range), &taken));
            let block = free.ok_or_else(|| no_block(name, news))?;
            if self.take(name, node, block, news).await? {
                return Ok(block);
            }
            *news = self.news(name).await?;
            // The claim was made after all, and only its answer was lost.
            if news
                .blocks
                .get(&block)
                .is_some_and(|owner| owner.record.node == node)
            {
                return Ok(block);
            }
        }
        Err(Error::Contended(
            self.layout.blocks(name)?.as_str().to_owned(),
        ))
    }

    /// Claims for `node` the block of a wanted `address`, unless it has it already.
    pub async fn claim_block_of(
        &self,
        name: &str,
        node: &str,
        address: IpAddr,
        range: &Range,
        news: &mut News,
    ) -> Result<Block, Error> {
        for _ in 0..ATTEMPTS {
            let prefix = news.ready_network(name)?.record.block_prefix(range);
            let outside = || Error::NoBlock {
                network: name.to_owned(),
                owners: Vec::new(),
            };
            let block = Block::containing(address, prefix).ok_or_else(outside)?;
            let owner = news
                .blocks
                .get(&block)
                .map(|owner| owner.record.node.clone());
            match owner {
                Some(owner) if owner == node => return Ok(block),
                Some(node) => {
                    let network = name.to_owned();
                    return Err(Error::ForeignBlock {
                        network,
                        address,
                        block,
                        node,
                    });
                }
                None if self.take(name, node, block, news).await? => return Ok(block),
                None => *news = self.news(name).await?,
            }
        }
        Err(Error::Contended(
            self.layout.blocks(name)?.as_str().to_owned(),
        ))
    }

    /// One conditional write: the block is nobody's and the network is as `news` has it.
    async fn take(
        &self,
        name: &str,
        node: &str,
        block: Block,
        news: &mut News,
    ) -> Result<bool, Error> {
        let network = news.ready_network(name)?;
        let record = BlockRecord {
            node: node.to_owned(),
        };
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
        let Outcome::Done(revisions) = self.store.apply(&ops).await? else {
            return Ok(false);
        };
        let revision = revisions.last().copied().unwrap_or_default();
        news.blocks.insert(block, Versioned { record, revision });
        Ok(true)
    }
}

fn no_block(network: &str, news: &News) -> Error {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for block in news.blocks.values() {
        *owners.entry(block.record.node.clone()).or_default() += 1;
    }
    Error::NoBlock {
        network: network.to_owned(),
        owners: owners.into_iter().collect(),
    }
}
