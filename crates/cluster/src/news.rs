//! The news of a network: all that a host must know to allocate on it and to forward to the others. One read.

use std::collections::BTreeMap;

use ipam::Block;
use serde::{Deserialize, Serialize};

use crate::{BlockRecord, Cluster, Error, Network, Node, Versioned, records::decode};

/// What the store says of one network and of all nodes. Hosts keep a copy, to go on while the store is away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct News {
    /// The network, `None` if the store has none of that name.
    pub network: Option<Versioned<Network>>,
    /// All nodes, by name.
    pub nodes: BTreeMap<String, Versioned<Node>>,
    /// All owned blocks of the network.
    pub blocks: BTreeMap<Block, Versioned<BlockRecord>>,
}

impl News {
    /// The network that takes attachments, or why there is none.
    pub fn ready_network(&self, name: &str) -> Result<&Versioned<Network>, Error> {
        let network = self
            .network
            .as_ref()
            .ok_or_else(|| Error::NoNetwork(name.to_owned()))?;
        match network.record.state {
            crate::NetworkState::Ready => Ok(network),
            crate::NetworkState::Removing => Err(Error::Removing(name.to_owned())),
        }
    }

    /// The blocks of `node`, with the revisions at which it owns them.
    pub fn blocks_of(&self, node: &str) -> BTreeMap<Block, u64> {
        let own = self
            .blocks
            .iter()
            .filter(|(_, block)| block.record.node == node);
        own.map(|(block, record)| (*block, record.revision))
            .collect()
    }
}

impl Cluster<'_> {
    /// The news of `network`, in one round trip.
    pub async fn news(&self, network: &str) -> Result<News, Error> {
        let (nodes, blocks) = (self.layout.nodes()?, self.layout.blocks(network)?);
        let entries = self
            .store
            .read(&[nodes.clone(), self.layout.network(network)?, blocks.clone()])
            .await?;
        let mut news = News::default();
        for entry in &entries {
            if entry.key.is_within(&nodes) {
                news.nodes
                    .insert(entry.key.last().to_owned(), decode(entry)?);
            } else if entry.key.is_within(&blocks) {
                let why = |error: ipam::BadBlock| Error::Record {
                    key: entry.key.as_str().to_owned(),
                    why: error.to_string(),
                };
                news.blocks
                    .insert(entry.key.last().parse().map_err(why)?, decode(entry)?);
            } else {
                news.network = Some(decode(entry)?);
            }
        }
        Ok(news)
    }
}
