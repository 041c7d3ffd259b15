//! Following a network: its records in the store, what this host acknowledges, what the kernel tells.

pub(crate) mod follower;
pub mod kernel_notices;
pub mod membership;
pub(crate) mod store_check;
pub mod watcher_lease;
