//! Runs `ipam` and `cluster`, unmodified, on simulated hosts.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    clippy::print_stdout,
    reason = "it prints seeds and traces for the one who runs it"
)]
#![allow(
    clippy::unused_self,
    clippy::struct_excessive_bools,
    reason = "the world is one thing"
)]

mod ending;
mod executor;
mod forwarding;
mod invariants;
mod lies;
mod line;
mod model;
mod random;
mod run;
mod runtime;
mod scenario;
mod site;
mod verbs;
mod world;

use lies::Planted;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many seeds a test run plays, unless `SEEDS` is set.
const SEEDS: u64 = 10_000;
/// Most requests to the store that one verb may make without a fault, whatever other verbs do meanwhile, including the replay
/// of what it postponed.
const BOUNDS: [(&str, u32); 6] = [
    ("ADD", 150),
    ("DEL", 50),
    ("GC", 30),
    ("network rm", 30),
    ("node rm", 10),
    ("sync", 160),
];
/// How many seeds a planted bug may hide in.
const PLANTED_SEEDS: u64 = 3_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn command(seed: u64) -> String {
    format!("SEED={seed} cargo test -p cluster --test simulation -- replay --nocapture")
}

#[test]
fn seeds_keep_all_invariants() {
    let first = variable("FIRST").unwrap_or(0);
    let seeds = first..first + variable("SEEDS").unwrap_or(SEEDS);
    let most = variable("FAILURES")
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(1);
    let (failures, tally) = run::play_all(seeds, None, most);
    for failure in &failures {
        println!(
            "seed {}: {}\n    {}",
            failure.seed,
            failure.violation,
            command(failure.seed)
        );
    }
    println!("most calls of the store: {tally:?}");
    assert!(failures.is_empty(), "{} seed(s) failed", failures.len());
    for (kind, most) in BOUNDS {
        let calls = tally.get(kind).copied().unwrap_or(0);
        assert!(
            calls <= most,
            "{kind}: {calls} calls of the store, at most {most}"
        );
    }
}

#[test]
fn replay() {
    let Some(seed) = variable("SEED") else { return };
    let outcome = run::play(seed, None, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{} steps", outcome.steps);
    assert_eq!(outcome.violation, None);
}

/// Plants a bug and plays seeds until one of them shows it as `expected`.
fn finds(bug: Planted, expected: &[&str]) {
    let seeds = variable("SEEDS").unwrap_or(PLANTED_SEEDS);
    let (failures, _) = run::play_all(0..seeds, Some(bug), 4);
    let shown = |failure: &&run::Failure| expected.contains(&failure.violation.name());
    let failure = failures.iter().find(shown);
    let failure = failure.unwrap_or_else(|| panic!("{bug:?} went unseen in {seeds} seeds"));
    println!("{bug:?}: seed {}: {}", failure.seed, failure.violation);
}

#[test]
fn a_release_without_a_look_at_the_version_is_found() {
    finds(Planted::ReleaseUnversioned, &["unleased"]);
}

#[test]
fn an_address_taken_without_consent_is_found() {
    let expected = ["doubled", "misdelivered"];
    finds(Planted::ExclusionUnacknowledged, &expected);
}

#[test]
fn a_block_taken_before_all_have_dropped_it_is_found() {
    finds(Planted::ReturnUnacknowledged, &["misdelivered"]);
}

#[test]
fn a_restore_of_what_was_removed_is_found() {
    finds(Planted::RestoreRemoved, &["revived"]);
}

#[test]
fn a_reclaim_without_a_fence_is_found() {
    let expected = ["doubled", "misdelivered"];
    finds(Planted::ReclaimUnfenced, &expected);
}

#[test]
fn an_acknowledgement_before_the_kernel_has_dropped_is_found() {
    finds(Planted::AcknowledgedBeforeDropped, &["misdelivered"]);
}

#[test]
fn a_snapshot_read_before_the_join_is_found() {
    finds(Planted::ReadBeforeJoined, &["misdelivered"]);
}
