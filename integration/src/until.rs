//! Where a scenario waits. It waits for a condition and never for a time: a fixed time is too long on a quiet machine and too short
//! on a busy one. Only what must not happen, and what is measured, takes a time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PACE: Duration = Duration::from_millis(20);

/// Waits until `is_so`; more than `limit` fails the test. Gives how long it took.
#[track_caller]
pub fn until(limit: Duration, what: &str, is_so: impl FnMut() -> bool) -> Duration {
    let took = comes_within(limit, is_so);
    took.unwrap_or_else(|| panic!("not {what} within {limit:?}"))
}

/// Waits until `is_so`, at most for `limit`; how long that took, if it came.
pub fn comes_within(limit: Duration, mut is_so: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    while !is_so() {
        if begun.elapsed() > limit {
            return None;
        }
        spend(PACE);
    }
    Some(begun.elapsed())
}

/// Insists that `is_so` all the time: for what must not happen, or not yet.
#[track_caller]
pub fn stays(time: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        assert!(is_so(), "no longer {what} after {:?}", begun.elapsed());
        spend(PACE);
    }
}

/// Lets time pass that a scenario is about: that of a load, a measurement, or up to a kill.
pub fn spend(time: Duration) {
    std::thread::sleep(time);
}
