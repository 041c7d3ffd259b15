//! The news of a network: all that a host must know to allocate on it and to forward to the others. One read.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipam::{Block, Mac};
use serde::{Deserialize, Serialize};
use store::{Entry, Key};

use crate::{
    Acknowledgement, BlockRecord, Cluster, Error, Lease, MacRecord, Network, Node, Versioned,
    leases::address_and_lease, records::decode,
};

/// What the store says of one network and of all nodes. Hosts keep a copy, to go on while the store is away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// The network, `None` if the store has none of that name.
    pub network: Option<Versioned<Network>>,
    /// All nodes, by name.
    pub nodes: BTreeMap<String, Versioned<Node>>,
    /// All blocks of the network that somebody has or had.
    pub blocks: BTreeMap<Block, Versioned<BlockRecord>>,
    /// MACs that do not follow from an address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub macs: BTreeMap<Mac, Versioned<MacRecord>>,
}

impl News {
    /// The network that takes attachments, or why there is none.
    pub fn ready_network(&self, name: &str) -> Result<&Versioned<Network>, Error> {
        let network = self
            .network
            .as_ref()
            .ok_or_else(|| Error::NoNetwork(name.to_owned()))?;
        match network.record.state {
            crate::NetworkState::Ready | crate::NetworkState::Creating => Ok(network),
            crate::NetworkState::Removing => Err(Error::Removing(name.to_owned())),
        }
    }

    /// The block that decides about `address`: of those that contain it the smallest, since an address out of the
    /// dynamic range is claimed by itself, inside the bounds of somebody's block.
    pub fn block_of(&self, address: IpAddr) -> Option<(Block, &Versioned<BlockRecord>)> {
        let range = self
            .network
            .as_ref()
            .and_then(|network| network.record.range_of(address).map(|r| (network, r)));
        let (network, range) = range?;
        let block = network.record.block_of(range, address)?;
        self.blocks.get(&block).map(|record| (block, record))
    }

    /// Whose address it is; nobody's if it is free or changes hands.
    pub fn home(&self, address: IpAddr) -> Option<&str> {
        self.block_of(address)
            .and_then(|(_, block)| block.record.home(address))
    }

    /// All addresses that have a home, with it: what a host that forwards by these news sends where. Blocks are small
    /// by construction, so this is a walk over the addresses that can exist, not over the pool.
    pub fn homes(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let network = self.network.as_ref().map(|network| &network.record);
        let network = network.into_iter();
        network.flat_map(move |network| {
            self.blocks.iter().flat_map(move |(block, record)| {
                let mine = move |address: &IpAddr| {
                    network
                        .range_of(*address)
                        .and_then(|range| network.block_of(range, *address))
                        == Some(*block)
                };
                let addresses = block.addresses().filter(mine);
                addresses.filter_map(|address| Some((address, record.record.home(address)?)))
            })
        })
    }

    /// The nodes that have an address of the network.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.blocks.values().flat_map(|block| {
            let owner = block
                .record
                .is_of(&block.record.node)
                .then_some(&block.record.node);
            let given = block.record.exclusions.values();
            let given = given.filter(|e| e.state == crate::ExclusionState::Given);
            owner
                .into_iter()
                .chain(given.map(|e| &e.node))
                .map(String::as_str)
        })
    }

    /// The highest revision at which an address or a MAC of the network lost its home; 0 if each has one.
    pub fn last_dropped(&self) -> u64 {
        let blocks = self.blocks.values();
        let returned = self.macs.values().filter(|mac| mac.record.returned);
        blocks
            .map(|block| block.record.last_dropped(block.revision))
            .chain(returned.map(|mac| mac.revision))
            .max()
            .unwrap_or(0)
    }

    /// The highest revision in these news: they are as new as this at least.
    pub fn revision(&self) -> u64 {
        let blocks = self.blocks.values().map(|block| block.revision);
        blocks
            .chain(self.macs.values().map(|mac| mac.revision))
            .chain(self.network.as_ref().map(|n| n.revision))
            .max()
            .unwrap_or(0)
    }
}

impl Cluster<'_> {
    /// The news of `network`, in one round trip.
    pub async fn news(&self, network: &str) -> Result<News, Error> {
        let keys = self.news_keys(network)?;
        let entries = self.store.read(&keys).await?;
        self.sort_news(network, &entries)
    }

    /// The news of `network`, and what `node` has told of its forwarding there, as of one moment. One round trip.
    pub async fn news_and_join(
        &self,
        network: &str,
        node: &str,
    ) -> Result<(News, Option<Versioned<Acknowledgement>>), Error> {
        let own = self.layout.ack(network, node)?;
        let (news, beside) = self.news_beside(network, &own).await?;
        let join = beside.iter().find(|entry| entry.key == own);
        Ok((news, join.map(decode).transpose()?))
    }

    /// The news, and what is at or below `prefix`, which has none of theirs.
    pub(crate) async fn news_beside(
        &self,
        network: &str,
        prefix: &Key,
    ) -> Result<(News, Vec<Entry>), Error> {
        let mut keys = self.news_keys(network)?;
        keys.push(prefix.clone());
        let entries = self.store.read(&keys).await?;
        let (beside, news): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| entry.key.is_within(prefix));
        Ok((self.sort_news(network, &news)?, beside))
    }

    /// Waits until a node was written or removed after `index`, at most for `wait`; all nodes, and the index to go on
    /// from. Index 0 returns at once.
    pub async fn watch_nodes(
        &self,
        index: u64,
        wait: Duration,
    ) -> Result<(BTreeMap<String, Versioned<Node>>, u64), Error> {
        let heard = self.store.watch(&self.layout.nodes()?, index, wait).await?;
        let nodes = heard.entries.iter().map(named_node);
        Ok((nodes.collect::<Result<_, _>>()?, heard.index))
    }

    /// The same for the blocks and MACs of `network`: news of these alone.
    pub async fn watch_blocks(
        &self,
        network: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(News, u64), Error> {
        let blocks = self.layout.blocks(network)?;
        let heard = self.store.watch(&blocks, index, wait).await?;
        Ok((self.sort_news(network, &heard.entries)?, heard.index))
    }

    /// The news of `network` and all its leases, as of one moment. Its size is that of the pool: for a host that must
    /// find its own leases.
    pub async fn news_and_leases(
        &self,
        network: &str,
    ) -> Result<(News, Vec<(IpAddr, Versioned<Lease>)>), Error> {
        let leases = self.layout.leases(network)?;
        let (news, leases) = self.news_beside(network, &leases).await?;
        let leases = leases.iter().map(address_and_lease);
        Ok((news, leases.collect::<Result<_, _>>()?))
    }

    fn news_keys(&self, network: &str) -> Result<Vec<Key>, Error> {
        Ok(vec![
            self.layout.nodes()?,
            self.layout.network(network)?,
            self.layout.blocks(network)?,
        ])
    }

    fn sort_news(&self, network: &str, entries: &[Entry]) -> Result<News, Error> {
        let (nodes, blocks) = (self.layout.nodes()?, self.layout.blocks(network)?);
        let mut news = News::default();
        for entry in entries {
            if entry.key.is_within(&nodes) {
                news.nodes.extend([named_node(entry)?]);
            } else if entry.key.is_within(&blocks) {
                match entry.key.last().parse() {
                    Ok(mac) => drop(news.macs.insert(mac, decode(entry)?)),
                    Err(_) => news.blocks.extend([named_block(entry)?]),
                }
            } else {
                news.network = Some(decode(entry)?);
            }
        }
        Ok(news)
    }
}

pub(crate) fn named_node(entry: &Entry) -> Result<(String, Versioned<Node>), Error> {
    Ok((entry.key.last().to_owned(), decode(entry)?))
}

fn named_block(entry: &Entry) -> Result<(Block, Versioned<BlockRecord>), Error> {
    let why = |error: ipam::BadBlock| Error::Record {
        key: entry.key.as_str().to_owned(),
        why: error.to_string(),
    };
    Ok((entry.key.last().parse().map_err(why)?, decode(entry)?))
}
