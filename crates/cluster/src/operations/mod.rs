//! The operations of [`Cluster`](crate::Cluster) on the shared records. Every write is conditional.
//!
//! | file | operations on |
//! |---|---|
//! | `nodes` | a node's record: registration, contact |
//! | `networks`, `vnis` | a network: creation with its VNI, its subnets and a block for each node |
//! | `change` | a network in place: a further subnet, a lower MTU, labels |
//! | `subnet_choice` | the subnet of a network that is created without one |
//! | `preallocation` | the blocks that nodes get when a network is created |
//! | `blocks`, `ownership` | claims of blocks; the states of a block's record, without I/O |
//! | `exclusions` | single addresses that another host gets in a block |
//! | `reclaim` | blocks of a node that has been silent for too long |
//! | `leases` | publishing and releasing leases |
//! | `requested_macs` | MACs that an attachment asked for |
//! | `acknowledgement` | joins and leaves of members, and what they acknowledge; which nodes keep a ledger |
//! | `admission` | whether an ADD may use a network or create it, for STATUS |
//! | `removal`, `leftovers` | the removal of networks and nodes, and the keys that interrupted removals left |

pub(crate) mod acknowledgement;
pub(crate) mod admission;
pub(crate) mod blocks;
pub(crate) mod change;
pub(crate) mod exclusions;
pub(crate) mod leases;
pub(crate) mod leftovers;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod ownership;
pub(crate) mod preallocation;
pub(crate) mod reclaim;
pub(crate) mod removal;
pub(crate) mod requested_macs;
pub(crate) mod subnet_choice;
pub(crate) mod vnis;
