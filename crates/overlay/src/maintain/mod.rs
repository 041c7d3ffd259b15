//! What sync, doctor and GC do: repair, diagnose, remove.

pub mod diagnose;
pub mod findings;
pub(crate) mod in_place;
pub mod live_namespace;
pub(crate) mod network;
pub mod repair;
pub mod stale;
pub mod sync;
pub(crate) mod teardown;
