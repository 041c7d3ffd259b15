//! The scenarios: what users, runtimes and operators see of whole hosts. One binary, so that it is linked once; nextest runs
//! each test in a process of its own. `docs/` names scenarios by their files here.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests: each stops where it broke"
)]

mod doctor_report;
mod faults;
mod held_addresses;
mod ipam;
mod laboratory;
mod operator;
mod overlay;
mod ownership;
mod packaging;
mod portmap;
mod runtimes;
mod store;
mod store_reader;
mod watcher;
