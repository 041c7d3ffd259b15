//! Addresses, without any I/O: pools, the blocks they are cut into, and the choice of the next address.
//!
//! A pool (one subnet, perhaps narrowed) is cut into aligned [`Block`]s. Exactly one host owns a block, so inside it
//! that host chooses alone; the shared store is asked only who owns which block. Three consequences shape this crate:
//!
//! - *No loops over addresses.* A /64 has 2^56 blocks. Every question is answered from the few blocks and addresses that are in
//!   use, with 128-bit arithmetic over both families ([`address`]).
//! - *A released address rests.* Stale ARP caches and clients still send to the address that was freed last. So addresses are
//!   given out again in the order in which they were freed, and not before a cool-down unless nothing else is free
//!   ([`OwnBlocks::choose`]).
//! - *Density over locality in small pools.* A /28 is cut into single addresses, so that the last free one can be
//!   used from any host; larger pools trade some density for fewer claims ([`block_prefix`]).
//!
//! `cluster` moves blocks and leases through the store; time and state are arguments here, so that a simulator can
//! replay any order of events.

mod address;
mod address_pool;
mod block;
mod check;
mod mac;
mod own_blocks;
mod pool;
mod range;
mod reserved;
mod schema;
mod size;
mod used;

pub use address::{host_bits, is_network, nth, offset};
pub use address_pool::AddressPool;
pub use block::{BadBlock, Block};
pub use check::{RangeError, overlapping};
pub use mac::{BadMac, Mac};
pub use own_blocks::{Choice, OwnBlocks};
pub use pool::place_of;
pub use range::{Range, RangeSet, twin};
pub use schema::Schema;
pub use size::{block_prefix, check_asked};
pub use used::{BadUsed, Used};
