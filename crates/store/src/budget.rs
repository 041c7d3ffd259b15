//! How long a verb may wait for its store. A container runtime waits for each verb, so the limit is for all store calls of a verb
//! together, not for each call: ten calls to a stuck store must not take ten times as long.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How long to retry in all while nothing listens. An agent that restarts is back by then. One that is down is better reported
/// soon, because a verb can work from the host's own blocks.
const REFUSED: Duration = Duration::from_millis(1500);

/// Time left for a verb's calls.
pub(crate) struct Budget {
    total: Duration,
    left: Cell<Duration>,
    refused: Cell<Duration>,
}

impl Budget {
    pub(crate) fn new(total: Duration) -> Self {
        Self {
            total,
            left: Cell::new(total),
            refused: Cell::new(REFUSED.min(total)),
        }
    }

    /// Fills the budget again, for another unit of work.
    pub(crate) fn fill(&self) {
        self.left.set(self.total);
        self.refused.set(REFUSED.min(self.total));
    }

    pub(crate) fn left(&self) -> Duration {
        self.left.get()
    }

    pub(crate) fn total(&self) -> Duration {
        self.total
    }

    pub(crate) fn spend(&self, time: Duration) {
        self.left.set(self.left.get().saturating_sub(time));
    }

    /// Takes a pause of `time` before another attempt out of the budget; `false` if too little is left.
    pub(crate) fn afford(&self, time: Duration, refused: bool) -> bool {
        if refused {
            match self.refused.get().checked_sub(time) {
                Some(rest) => self.refused.set(rest),
                None => return false,
            }
        }
        let covered = self.left.get() > time;
        self.spend(time);
        covered
    }
}

/// Pauses between attempts. They double, and have jitter so that hosts that failed together do not retry together.
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From `first` on, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// The next pause: between half of the step and all of it.
    pub fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        let jitter = random() % 512;
        step * (512 + u32::try_from(jitter).unwrap_or(0)) / 1024
    }
}

/// A random number from the keys of the standard library's hash maps. It is good enough to distinguish two writers and to spread
/// retries, and needs no crate.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_given_up_long_before_the_budget() {
        let budget = Budget::new(Duration::from_secs(10));
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut paused = Duration::ZERO;
        loop {
            let pause = backoff.pause();
            if !budget.afford(pause, true) {
                break;
            }
            paused += pause;
        }
        assert!(
            paused > Duration::from_millis(400) && paused <= REFUSED,
            "{paused:?}"
        );
        assert!(
            budget.left() >= Duration::from_secs(8),
            "other failures still have theirs"
        );
        budget.fill();
        assert!(budget.afford(Duration::from_secs(1), true));
    }

    #[test]
    fn nothing_is_afforded_beyond_the_total() {
        let budget = Budget::new(Duration::from_millis(100));
        budget.spend(Duration::from_millis(60));
        assert!(!budget.afford(Duration::from_millis(50), false));
        assert_eq!(budget.left(), Duration::ZERO);
    }

    #[test]
    fn two_draws_differ() {
        assert_ne!(random(), random());
    }
}
