//! What the hosts agree on: nodes, networks, blocks and leases as records in the shared store, and the few operations
//! on them. The only crate that knows the key layout.
//!
//! Every write is conditional, in one transaction with the facts that it depends on: a lease is created only while its
//! network and its block are as the writer last read them. So a host may act on an old snapshot without
//! harm: if the snapshot was wrong, the store refuses the write, and the host reads again. Nothing here waits for another host.
//!
//! ```text
//!     <prefix>/v1/nodes/<node>              vtep, boot id, last contact
//!     <prefix>/v1/networks/<net>            vni, ranges, options
//!     <prefix>/v1/vnis/<vni>                the network that has it
//!     <prefix>/v1/subnets                   which network has which subnets: each creation writes this one record
//!     <prefix>/v1/removed/<net>             ids of networks of this name that were removed: nobody restores them
//!     <prefix>/v1/blocks/<net>/<block>      the node that owns it, and whose single addresses of it are
//!     <prefix>/v1/blocks/<net>/<mac>        the attachment that asked for a MAC that does not follow from its address
//!     <prefix>/v1/leases/<net>/<address>    the attachment that holds it
//!     <prefix>/v1/ledgers/<net>/<node>      that the node may give out addresses of its blocks on its own
//!     <prefix>/v1/acks/<net>/<node>         that the node forwards on the network, and the revision of its snapshot
//!     <prefix>/data/<directory>/v1/...      all of this once more for each data directory (`ipam.dataDir`)
//! ```
//!
//! [`Allocator`] is the host's side: what a verb does with these records and with the host's documents.
//! Store, clock and memory are arguments, so that a simulator drives the same code through any order of events
//! (`tests/simulation`). So does [`forwarder`], by which a host follows a network's records. `docs/ipam.md` names each race, its outcome, and the test that shows it.

mod allocator;
mod config;
mod error;
pub mod forwarder;
pub mod keys;
mod layout;
mod macvlan;
mod node_view;
mod operations;
mod records;
mod recovery;
mod snapshot;
mod stored;
mod unreadable;

pub use allocator::{
    Allocator, Clock, Host, LeaseOwner, Leased, LeasedAddress, Ledger, LocalLease, LocalLeases,
    LocalStore, Memory, Noted, Own, PendingChange, Request, Stage, note_gone,
};
pub use config::conflist::{Conflist, Segment, unique};
pub use config::data_dir::DataDir;
pub use config::network_defaults::NetworkDefaults;
pub use config::settings::{CONFIG_FILE, NodeSettings, Resolved, Settings, StoreSettings};
pub use config::store_ref::StoreRef;
pub use error::{Error, ErrorKind};
pub use layout::Layout;
pub use macvlan::Macvlan;
pub use node_view::NodeView;
pub use operations::blocks::Claim;
pub use operations::change::NetworkChange;
pub use operations::leases::{LeaseGuard, Published};
pub use operations::networks::{Created, NetworkSpec, Removed};
pub use operations::nodes::no_tunnel_address;
pub use operations::ownership::{BlockRecord, BlockState, Exclusion, ExclusionState};
pub use operations::requested_macs::MacRecord;
pub use operations::subnet_choice::SubnetChoice;
pub use operations::vnis::UnclaimedVni;
pub use records::{
    Acknowledgement, Egress, EgressMode, Lease, LedgerRecord, Network, NetworkState, Node,
    Restoring, VXLAN_PORT, Versioned, decode, encode,
};
pub use snapshot::NetworkSnapshot;
pub use stored::{Records, Stored, Unreadable};
pub use unreadable::UnusableKey;

pub use store::Store;

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

    /// The data directory whose records these are.
    pub fn data_dir(&self) -> &DataDir {
        &self.layout.data_dir
    }

    /// The name of a network among those of all data directories.
    pub fn full_name(&self, network: &str) -> String {
        self.data_dir().full_name(network)
    }
}
