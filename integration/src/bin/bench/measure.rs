//! The rounds, and what is said about many samples.
//!
//! All contenders take turns in every round, since a machine's speed drifts over minutes, and only ratios of one run say
//! anything; every second round goes backwards, so that nobody always follows the same one. After each call the kernel
//! gets a while to itself: it frees links and namespaces when their plugin has long ended, and that is nobody else's time.

use std::time::Duration;

use crate::contender::{Contender, Verb};
use crate::inside::Cost;
use crate::spread::{Spread, milliseconds};
use crate::trace::Trace;

/// Long enough for a namespace's links to go, after a cold DEL.
const SETTLE: Duration = Duration::from_millis(50);

/// One timed call.
pub struct Sample {
    /// Position in the line-up.
    pub contender: usize,
    pub verb: Verb,
    pub round: usize,
    pub cost: Cost,
}

/// All that is known about one verb of one contender.
pub struct Line {
    pub name: &'static str,
    pub verb: Verb,
    /// Milliseconds.
    pub wall: Spread,
    /// Milliseconds of user and system time, with all processes.
    pub cpu: Spread,
    /// Bytes: the largest process of all rounds.
    pub peak: u64,
    /// What one run did.
    pub trace: Option<Trace>,
}

/// Runs everybody `rounds` times, then once more under strace. Containers are numbered so that each is used once.
pub fn measure(contenders: &mut [Contender], rounds: usize) -> (Vec<Sample>, Vec<Line>) {
    let mut samples = Vec::new();
    for round in 1..=rounds {
        let mut turns: Vec<_> = contenders.iter_mut().enumerate().collect();
        if round % 2 == 0 {
            turns.reverse();
        }
        for (position, contender) in turns {
            for verb in [Verb::Add, Verb::Del] {
                let cost = contender.run(verb, round);
                samples.push(Sample {
                    contender: position,
                    verb,
                    round,
                    cost,
                });
                std::thread::sleep(SETTLE);
            }
        }
    }
    let mut lines = Vec::new();
    for (position, contender) in contenders.iter_mut().enumerate() {
        for verb in [Verb::Add, Verb::Del] {
            let own = samples
                .iter()
                .filter(|it| it.contender == position && it.verb == verb);
            let costs: Vec<Cost> = own.map(|it| it.cost).collect();
            let spread = |time: fn(&Cost) -> Duration| {
                Spread::of(costs.iter().map(|it| milliseconds(time(it))).collect())
            };
            lines.push(Line {
                name: contender.name,
                verb,
                wall: spread(|cost| cost.wall),
                cpu: spread(|cost| cost.cpu),
                peak: costs.iter().map(|it| it.peak).max().unwrap_or(0),
                trace: contender.trace(verb, rounds + 1),
            });
        }
    }
    (samples, lines)
}
