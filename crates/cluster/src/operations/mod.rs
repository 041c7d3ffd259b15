//! The operations on records: each conditional, a file for each kind of record.

pub(crate) mod acknowledgement;
pub(crate) mod admission;
pub(crate) mod blocks;
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
pub(crate) mod restore;
pub(crate) mod vnis;
