//! Where each record has its key. `<prefix>/v1/...`: a later layout can stand beside this one.

use std::net::IpAddr;

use ipam::{Block, Mac};
use store::Key;

use crate::DataDir;

/// The keys of all records, below one prefix.
#[derive(Debug, Clone)]
pub struct Layout {
    pub(crate) prefix: Key,
    root: Key,
    pub(crate) data_dir: DataDir,
}

impl Layout {
    /// The layout below `prefix`, such as `crosshost`.
    pub fn new(prefix: &str) -> Result<Self, store::Error> {
        let prefix = Key::new(prefix)?;
        let root = prefix.join("v1")?;
        let data_dir = DataDir::default();
        Ok(Self {
            prefix,
            root,
            data_dir,
        })
    }

    /// The data directory whose records these are.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// First path parts of all keys.
    pub fn prefix(&self) -> &str {
        self.prefix.as_str()
    }

    fn key(&self, path: &str) -> Result<Key, store::Error> {
        self.root.join(path)
    }

    /// All nodes.
    pub fn nodes(&self) -> Result<Key, store::Error> {
        self.key("nodes")
    }

    /// One node.
    pub fn node(&self, node: &str) -> Result<Key, store::Error> {
        self.nodes()?.join(node)
    }

    /// All networks.
    pub fn networks(&self) -> Result<Key, store::Error> {
        self.key("networks")
    }

    /// One network.
    pub fn network(&self, network: &str) -> Result<Key, store::Error> {
        self.networks()?.join(network)
    }

    /// Whether a network can have this name, which is part of keys.
    pub(crate) fn can_name(&self, network: &str) -> bool {
        !network.contains('/') && self.network(network).is_ok()
    }

    /// All VXLAN network identifiers in use.
    pub fn vnis(&self) -> Result<Key, store::Error> {
        self.key("vnis")
    }

    /// One VXLAN network identifier.
    pub fn vni(&self, vni: u32) -> Result<Key, store::Error> {
        self.vnis()?.join(&vni.to_string())
    }

    /// The one record of all subnets.
    pub fn subnets(&self) -> Result<Key, store::Error> {
        self.key("subnets")
    }

    /// Which networks were removed, by their names.
    pub fn all_removed(&self) -> Result<Key, store::Error> {
        self.key("removed")
    }

    /// Which networks of one name were removed.
    pub fn removed(&self, network: &str) -> Result<Key, store::Error> {
        self.all_removed()?.join(network)
    }

    /// The blocks of all networks.
    pub fn all_blocks(&self) -> Result<Key, store::Error> {
        self.key("blocks")
    }

    /// The blocks of a network.
    pub fn blocks(&self, network: &str) -> Result<Key, store::Error> {
        self.all_blocks()?.join(network)
    }

    /// One block.
    pub fn block(&self, network: &str, block: Block) -> Result<Key, store::Error> {
        self.blocks(network)?.join(&block.to_string())
    }

    /// A requested MAC. It is beside the blocks, so that watchers of these are told of it.
    pub fn mac(&self, network: &str, mac: Mac) -> Result<Key, store::Error> {
        self.blocks(network)?.join(&mac.to_string())
    }

    /// The leases of all networks.
    pub fn all_leases(&self) -> Result<Key, store::Error> {
        self.key("leases")
    }

    /// The leases of a network.
    pub fn leases(&self, network: &str) -> Result<Key, store::Error> {
        self.all_leases()?.join(network)
    }

    /// The lease of an address.
    pub fn lease(&self, network: &str, address: IpAddr) -> Result<Key, store::Error> {
        self.leases(network)?.join(&address.to_string())
    }

    /// Which nodes keep a ledger, of all networks.
    pub fn all_ledgers(&self) -> Result<Key, store::Error> {
        self.key("ledgers")
    }

    /// Which nodes keep a ledger of a network.
    pub fn ledgers(&self, network: &str) -> Result<Key, store::Error> {
        self.all_ledgers()?.join(network)
    }

    /// That a node keeps a ledger of a network: it may give out addresses of its blocks on its own.
    pub fn ledger(&self, network: &str, node: &str) -> Result<Key, store::Error> {
        self.ledgers(network)?.join(node)
    }

    /// What the nodes acknowledged, on all networks.
    pub fn all_acks(&self) -> Result<Key, store::Error> {
        self.key("acks")
    }

    /// What the nodes acknowledged on a network: all that forward on it.
    pub fn acks(&self, network: &str) -> Result<Key, store::Error> {
        self.all_acks()?.join(network)
    }

    /// What one node acknowledged.
    pub fn ack(&self, network: &str, node: &str) -> Result<Key, store::Error> {
        self.acks(network)?.join(node)
    }
}
