//! What the hosts agree on: nodes, networks, blocks and leases as records in the shared store, and the few operations
//! on them. The only crate that knows the key layout.
//!
//! Every write is conditional, in one transaction with the facts that it rests on: a lease is created only while its
//! network and its block are as the writer last saw them. So a host may act on an old copy of the news without
//! harm: where the copy was wrong the store refuses, and the host reads again. Nothing here waits for another host.
//!
//! ```text
//!     <prefix>/v1/nodes/<node>              vtep, boot id, last contact
//!     <prefix>/v1/networks/<net>            vni, ranges, options
//!     <prefix>/v1/vnis/<vni>                the network that has it
//!     <prefix>/v1/subnets                   which network has which subnets: all creations meet in this one record
//!     <prefix>/v1/blocks/<net>/<block>      the node that owns it
//!     <prefix>/v1/leases/<net>/<address>    the attachment that holds it
//! ```
//!
//! Store and clock are arguments, so that a simulator can drive the same code through any order of events.

mod blocks;
mod conflist;
mod error;
mod layout;
mod leases;
mod networks;
mod news;
mod nodes;
mod records;
mod removal;
mod settings;

pub use conflist::Conflist;
pub use error::Error;
pub use layout::Layout;
pub use leases::{LeaseGuard, Published};
pub use networks::{Created, NetworkSpec};
pub use news::News;
pub use records::{BlockRecord, Egress, EgressMode, Lease, Network, NetworkState, Node, Versioned};
pub use settings::{CONFIG_FILE, NodeSettings, Resolved, Settings, StoreSettings};

use store::Store;

/// How often an operation reads again after another host was quicker, before it gives up.
const ATTEMPTS: u32 = 16;

/// Most operations in one of our transactions: the limit of the oldest supported Consul.
const CHUNK: usize = 64;

/// The shared records, through one store.
pub struct Cluster<'a> {
    store: &'a dyn Store,
    layout: Layout,
}

impl<'a> Cluster<'a> {
    /// The records below `layout` in `store`.
    pub fn new(store: &'a dyn Store, layout: Layout) -> Self {
        Self { store, layout }
    }

    /// The key layout in use.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
