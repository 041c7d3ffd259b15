//! What each fuzz target holds the product to, whatever its input: one function each, which panics where a promise is broken.
//!
//! They are ordinary functions, so that two callers share them: libFuzzer's binaries in `targets/`, and a test of the
//! workspace that replays `seeds/` (`crates/ipam-kv/tests/fuzz_seeds.rs`).

pub mod call;
pub mod cni_args;
pub mod configuration;
pub mod message;
pub mod normal;
pub mod prev_result;
pub mod store_key;
pub mod store_record;
