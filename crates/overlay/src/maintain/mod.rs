//! What sync, doctor and GC do: repair, diagnose, remove.

pub mod diagnose;
pub mod findings;
pub(crate) mod network;
pub mod repair;
pub mod stale;
pub mod sync;
pub(crate) mod teardown;
