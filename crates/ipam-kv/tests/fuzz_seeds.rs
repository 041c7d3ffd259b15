//! The seeds of the fuzz targets (`fuzz/`), each played once: what fuzzing has found stays found where nobody fuzzes, and the
//! targets keep compiling with the product.

#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]
#![allow(
    clippy::print_stdout,
    reason = "shown when it fails: the seed that it failed on"
)]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

/// Plays `seeds/TARGET`.
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut played = 0;
    for seed in std::fs::read_dir(folder).expect("seeds").flatten() {
        println!("{}", seed.path().display());
        check(&std::fs::read(seed.path()).expect("a seed"));
        played += 1;
    }
    assert!(played > 3, "{played} seeds");
}

#[test]
fn configuration() {
    replay("configuration", targets::configuration::check);
}

#[test]
fn cni_args() {
    replay("cni_args", targets::cni_args::check);
}

#[test]
fn store_key() {
    replay("store_key", targets::store_key::check);
}

#[test]
fn store_record() {
    replay("store_record", targets::store_record::check);
}

#[test]
fn prev_result() {
    replay("prev_result", targets::prev_result::check);
}
