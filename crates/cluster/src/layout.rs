//! Where each record has its key. `<prefix>/v1/...`: a later layout can stand beside this one.

use std::net::IpAddr;

use ipam::Block;
use store::Key;

/// The keys of all records, below one prefix.
#[derive(Debug, Clone)]
pub struct Layout {
    root: Key,
}

impl Layout {
    /// The layout below `prefix`, such as `crosshost`.
    pub fn new(prefix: &str) -> Result<Self, store::Error> {
        Ok(Self {
            root: Key::new(prefix)?.join("v1")?,
        })
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
}
