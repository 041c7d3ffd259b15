//! `ipam` and `cluster`, unmodified, on hosts that exist only here.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod ending;
mod executor;
mod forwarding;
mod invariants;
mod line;
mod model;
mod random;
mod run;
mod runtime;
mod scenario;
mod site;
mod verbs;
mod world;

/// How many seeds every test run plays; `SEEDS` says otherwise.
const SEEDS: u64 = 10_000;

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
