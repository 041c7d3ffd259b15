//! The snapshot of a network: all records by which a host allocates on it and forwards to the others. One read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipam::{Block, Mac};
use serde::{Deserialize, Serialize};
use store::{Entry, Key};

use crate::{
    BlockRecord, Cluster, Error, Lease, MacRecord, Network, Node, Records, Stored, Unreadable,
    Versioned,
    stored::{self, BlockEntry},
};

/// The records of one network and of all nodes. Hosts keep a copy, to go on while the store is away.
///
/// There is no snapshot of a network whose own record cannot be read. A node whose record cannot be read is an unknown peer. A block
/// whose record cannot be read is taken, and its addresses may be on any host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Document", into = "Document")]
pub struct NetworkSnapshot {
    /// The network, `None` if the store has none of that name.
    pub network: Option<Versioned<Network>>,
    /// All nodes, by name.
    pub nodes: Records<String, Node>,
    /// All blocks of the network that somebody has or had.
    pub blocks: Records<Block, BlockRecord>,
    /// MACs that do not follow from an address.
    pub macs: Records<Mac, MacRecord>,
}

/// A snapshot as a host keeps it. Records that cannot be read are under keys of their own, which older versions ignore.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    network: Option<Versioned<Network>>,
    nodes: BTreeMap<String, Versioned<Node>>,
    blocks: BTreeMap<Block, Versioned<BlockRecord>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    macs: BTreeMap<Mac, Versioned<MacRecord>>,
    #[serde(
        rename = "opaqueNodes",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    unreadable_nodes: BTreeMap<String, Unreadable<Node>>,
    #[serde(
        rename = "opaqueBlocks",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    unreadable_blocks: BTreeMap<Block, Unreadable<BlockRecord>>,
    #[serde(
        rename = "opaqueMacs",
        default,
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    unreadable_macs: BTreeMap<Mac, Unreadable<MacRecord>>,
}

impl From<NetworkSnapshot> for Document {
    fn from(snapshot: NetworkSnapshot) -> Self {
        let (nodes, unreadable_nodes) = snapshot.nodes.apart();
        let (blocks, unreadable_blocks) = snapshot.blocks.apart();
        let (macs, unreadable_macs) = snapshot.macs.apart();
        Self {
            network: snapshot.network,
            nodes,
            blocks,
            macs,
            unreadable_nodes,
            unreadable_blocks,
            unreadable_macs,
        }
    }
}

impl From<Document> for NetworkSnapshot {
    fn from(document: Document) -> Self {
        let network = document.network;
        let mut blocks = Records::together(document.blocks, document.unreadable_blocks);
        // Older versions kept what is no block of the network, and wrote it to the store again.
        if let Some(network) = &network {
            blocks.retain(|block| network.record.has_block(*block));
        }
        Self {
            network,
            nodes: Records::together(document.nodes, document.unreadable_nodes),
            blocks,
            macs: Records::together(document.macs, document.unreadable_macs),
        }
    }
}

impl NetworkSnapshot {
    /// The network that takes attachments, or why there is none.
    pub fn ready_network(&self, name: &str) -> Result<&Versioned<Network>, Error> {
        let network = self
            .network
            .as_ref()
            .ok_or_else(|| Error::NoNetwork(name.to_owned()))?;
        network.record.takes_attachments()?;
        Ok(network)
    }

    /// The block that decides about `address`, if its record can be read. It is the smallest of those that contain the address, since an
    /// address outside the dynamic range is claimed by itself, within the bounds of a node's block.
    pub fn block_of(&self, address: IpAddr) -> Option<(Block, &Versioned<BlockRecord>)> {
        let range = self
            .network
            .as_ref()
            .and_then(|network| network.record.range_of(address).map(|r| (network, r)));
        let (network, range) = range?;
        let block = network.record.block_of(range, address)?;
        self.blocks.known(&block).map(|record| (block, record))
    }

    /// The node that has the address; `None` if it is free or changes its home.
    pub fn home(&self, address: IpAddr) -> Option<&str> {
        self.block_of(address)
            .and_then(|(_, block)| block.record.home(address))
    }

    /// All addresses that have a home, each with it: where a host that forwards by this snapshot sends frames. Blocks are
    /// small, so this visits the addresses that can exist, not the pool.
    pub fn homes(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        let network = self.network.as_ref().map(|network| &network.record);
        let network = network.into_iter();
        network.flat_map(move |network| {
            self.blocks.readable().flat_map(move |(block, record)| {
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
        self.blocks.readable().flat_map(|(_, block)| {
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

    /// Whether there is a record of each node that has an address of the network, and all records of nodes can be read.
    pub(crate) fn knows_nodes(&self) -> bool {
        self.nodes.unreadable().next().is_none()
            && self.owners().all(|owner| self.nodes.contains(owner))
    }

    /// Completes the nodes by what this host last read of them: those whose records cannot be read, and those that have addresses
    /// of the network and no record. A removed node has none, so the store has lost that record, as happens when it was emptied and
    /// other hosts were first to restore it. The node itself writes its record again.
    pub(crate) fn recall_nodes(&mut self, before: &Self) {
        let lost: BTreeSet<_> = (self.owners())
            .filter(|owner| !self.nodes.contains(*owner))
            .map(str::to_owned)
            .collect();
        for name in lost.into_iter().filter(|it| before.nodes.contains(it)) {
            let lost = Unreadable {
                revision: 0,
                why: "the store has no record of it".to_owned(),
                is_newer: false,
                last: None,
            };
            self.nodes.extend([(name, Stored::Unreadable(lost))]);
        }
        self.nodes.remember(&before.nodes);
    }

    /// Whether an address of the network may be on a host without a record of that. A network without blocks gets its addresses from
    /// a foreign IPAM plugin, and a block whose record cannot be read may belong to any node.
    pub fn may_be_anywhere(&self) -> bool {
        self.blocks.is_empty() || self.blocks.unreadable().next().is_some()
    }

    /// The highest revision at which an address or a MAC of the network lost its home; 0 if each has one.
    pub fn last_dropped(&self) -> u64 {
        let blocks = self.blocks.iter().map(|(_, block)| match block {
            Stored::Readable(block) => block.record.last_dropped(block.revision),
            // Whatever it says, none of its addresses has a home in this snapshot.
            Stored::Unreadable(block) => block.revision,
        });
        let macs = self.macs.iter().map(|(_, mac)| match mac {
            Stored::Readable(mac) if !mac.record.returned => 0,
            mac => mac.revision(),
        });
        blocks.chain(macs).max().unwrap_or(0)
    }

    /// The highest revision in the snapshot, which is at least as new as that.
    pub fn revision(&self) -> u64 {
        let blocks = self.blocks.revisions().map(|(_, revision)| revision);
        blocks
            .chain(self.macs.revisions().map(|(_, revision)| revision))
            .chain(self.network.as_ref().map(|n| n.revision))
            .max()
            .unwrap_or(0)
    }
}

impl Cluster<'_> {
    /// The snapshot of `network`, in one round trip.
    pub async fn snapshot(&self, network: &str) -> Result<NetworkSnapshot, Error> {
        let keys = self.snapshot_keys(network)?;
        let entries = self.store.read(&keys).await?;
        self.snapshot_of(network, &entries)
    }

    /// The snapshot of `network` and the revision of the join of `node`, as of one moment. One round trip.
    pub async fn snapshot_and_join(
        &self,
        network: &str,
        node: &str,
    ) -> Result<(NetworkSnapshot, Option<u64>), Error> {
        let own = self.layout.ack(network, node)?;
        let (snapshot, beside) = self.snapshot_beside(network, &own).await?;
        let join = beside.iter().find(|entry| entry.key == own);
        Ok((snapshot, join.map(|join| join.revision)))
    }

    /// The snapshot, and the entries at or below `prefix`, none of which belong to it.
    pub(crate) async fn snapshot_beside(
        &self,
        network: &str,
        prefix: &Key,
    ) -> Result<(NetworkSnapshot, Vec<Entry>), Error> {
        let mut keys = self.snapshot_keys(network)?;
        keys.push(prefix.clone());
        let entries = self.store.read(&keys).await?;
        let (beside, snapshot): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| entry.key.is_within(prefix));
        Ok((self.snapshot_of(network, &snapshot)?, beside))
    }

    /// Waits until a node was written or removed after `index`, at most for `wait`; all nodes, and the index to go on
    /// from. Index 0 returns at once.
    pub async fn watch_nodes(
        &self,
        index: u64,
        wait: Duration,
    ) -> Result<(Records<String, Node>, u64), Error> {
        let all = self.layout.nodes()?;
        let heard = self.store.watch(&all, index, wait).await?;
        let nodes = heard.entries.iter().filter_map(|it| stored::node(it, &all));
        Ok((nodes.collect(), heard.index))
    }

    /// The same for the blocks and MACs of `network`. The snapshot has only these.
    pub async fn watch_blocks(
        &self,
        network: &str,
        index: u64,
        wait: Duration,
    ) -> Result<(NetworkSnapshot, u64), Error> {
        let blocks = self.layout.blocks(network)?;
        let heard = self.store.watch(&blocks, index, wait).await?;
        Ok((self.snapshot_of(network, &heard.entries)?, heard.index))
    }

    /// The snapshot of `network` and all its leases, as of one moment, for a host that must find its own leases. Its size is that of
    /// the pool.
    pub async fn snapshot_and_leases(
        &self,
        network: &str,
    ) -> Result<(NetworkSnapshot, Records<IpAddr, Lease>), Error> {
        let all = self.layout.leases(network)?;
        let (snapshot, leases) = self.snapshot_beside(network, &all).await?;
        let leases = leases.iter().filter_map(|it| stored::lease(it, &all));
        Ok((snapshot, leases.collect()))
    }

    fn snapshot_keys(&self, network: &str) -> Result<Vec<Key>, Error> {
        Ok(vec![
            self.layout.nodes()?,
            self.layout.network(network)?,
            self.layout.blocks(network)?,
        ])
    }

    fn snapshot_of(&self, network: &str, entries: &[Entry]) -> Result<NetworkSnapshot, Error> {
        let (nodes, blocks) = (self.layout.nodes()?, self.layout.blocks(network)?);
        let (networks, own) = (self.layout.networks()?, self.layout.network(network)?);
        let mut snapshot = NetworkSnapshot::default();
        // The network comes first, because it decides which blocks it can have.
        if let Some(entry) = entries.iter().find(|entry| entry.key == own)
            && let Some((_, network)) = stored::network(entry, &networks)
        {
            snapshot.network = Some(network.or_refuse(&own)?);
        }
        let record = snapshot.network.as_ref().map(|network| &network.record);
        for entry in entries {
            if entry.key.is_within(&nodes) {
                snapshot.nodes.extend(stored::node(entry, &nodes));
            } else if entry.key.is_within(&blocks) {
                match stored::block(entry, &blocks, record) {
                    Some(BlockEntry::Block(block, stored)) => {
                        snapshot.blocks.extend([(block, stored)]);
                    }
                    Some(BlockEntry::Mac(mac, stored)) => snapshot.macs.extend([(mac, stored)]),
                    None => {}
                }
            }
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 0.1.0 reads of a copy.
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Old {
        network: Option<Versioned<Network>>,
        nodes: BTreeMap<String, Versioned<Node>>,
        blocks: BTreeMap<Block, Versioned<BlockRecord>>,
    }

    #[test]
    fn a_copy_keeps_what_cannot_be_read_and_older_versions_overlook_it() {
        let unreadable = Unreadable {
            revision: 9,
            why: "damaged".into(),
            is_newer: true,
            last: None,
        };
        let mut snapshot = NetworkSnapshot::default();
        let block: Block = "10.0.0.8_29".parse().unwrap();
        snapshot
            .blocks
            .extend([(block, Stored::Unreadable(unreadable))]);
        let node = |last| {
            Stored::Unreadable(Unreadable {
                revision: 3,
                why: "damaged".into(),
                is_newer: false,
                last,
            })
        };
        let last = Node {
            name: "a".into(),
            vtep: None,
            boot_id: "b".into(),
            machine_id: None,
            last_contact: 1,
            version: None,
            commit: None,
        };
        let nodes = [("a", Some(last)), ("c", None)];
        let nodes = nodes.map(|(name, last)| (name.to_owned(), node(last)));
        snapshot.nodes.extend(nodes);
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(
            serde_json::from_str::<NetworkSnapshot>(&text).unwrap(),
            snapshot
        );
        let old: Old = serde_json::from_str(&text).unwrap();
        assert!(old.network.is_none() && old.nodes.is_empty() && old.blocks.is_empty());
    }
}
