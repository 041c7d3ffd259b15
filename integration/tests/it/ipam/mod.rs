//! `ipam-kv`: addresses, blocks and leases, over all hosts and beside the reference plugins.

mod address_pairs;
pub(crate) mod attached;
mod blocks;
mod creations_at_once;
mod data_directories;
mod host_local_oracle;
mod interface_plugins;
mod many_at_once;
mod moving_addresses;
mod oracle;
mod preallocation;
mod reclaim;
mod removed_hosts;
mod runtime_requests;
mod schema;
pub(crate) mod small_pool;
mod static_addresses;
mod status;
mod verbs;
