//! When to check this host's kernel after a notification: soon, but not all the time.
//!
//! A change is not always damage. Most notifications are about the work of a verb or of the watcher itself, and some about programs
//! that make and remove objects a hundred times a second. So a check waits until the change is likely to be complete. After each
//! check that found nothing wrong the next one waits twice as long.

use std::time::Duration;

use tokio::time::Instant;

/// The changes of one command come within a few milliseconds.
const WHOLE: Duration = Duration::from_millis(100);
/// Shortest time between the end of a check and the next.
const LEAST: Duration = Duration::from_millis(250);
/// Longest time: damage during a storm of notifications waits so long.
const MOST: Duration = Duration::from_secs(4);

/// The times of checks.
pub struct Pace {
    due: Option<Instant>,
    last: Option<Instant>,
    gap: Duration,
}

impl Pace {
    /// Nothing is due.
    pub fn new() -> Self {
        Self {
            due: None,
            last: None,
            gap: LEAST,
        }
    }

    /// Something was changed.
    pub fn touched(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now > last + self.gap + MOST) {
            self.gap = LEAST;
        }
        let next = self.last.map_or(now, |last| last + self.gap);
        self.due.get_or_insert(next.max(now + WHOLE));
    }

    /// When the next check is due.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A check ended, and found something wrong or not.
    pub fn looked(&mut self, now: Instant, was_wrong: bool) {
        self.due = None;
        self.last = Some(now);
        self.gap = if was_wrong {
            LEAST
        } else {
            (self.gap * 2).min(MOST)
        };
    }

    /// A check ended that could not repair everything. It is repeated less and less often, and then left to the check of every half
    /// minute.
    pub fn failed(&mut self, now: Instant) {
        let again = self.gap < MOST;
        self.looked(now, false);
        if again {
            self.touched(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_looked_at_soon_and_a_storm_of_others_ever_less_often() {
        let mut pace = Pace::new();
        let begun = Instant::now();
        assert_eq!(pace.due(), None);
        pace.touched(begun);
        pace.touched(begun + WHOLE / 2);
        assert_eq!(pace.due(), Some(begun + WHOLE), "the first one counts");

        // A minute in which something is touched all the time and nothing is wrong.
        let (mut now, mut looks) = (begun, 0);
        while now < begun + Duration::from_mins(1) {
            now = pace.due().unwrap();
            looks += 1;
            pace.looked(now, false);
            pace.touched(now);
        }
        assert!(looks < 25, "{looks} looks");
        now = pace.due().unwrap();
        pace.looked(now, true);
        pace.touched(now);
        assert_eq!(pace.due(), Some(now + LEAST), "who does damage may do more");
        pace.looked(now, false);
        let calm = now + MOST * 3;
        pace.touched(calm);
        assert_eq!(pace.due(), Some(calm + WHOLE), "and calm begins anew");
    }

    #[test]
    fn what_cannot_be_mended_is_tried_a_few_times() {
        let mut pace = Pace::new();
        let mut now = Instant::now();
        pace.touched(now);
        let mut tries = 0;
        while let Some(due) = pace.due() {
            now = due;
            tries += 1;
            pace.failed(now);
        }
        assert_eq!(tries, 5);
    }
}
