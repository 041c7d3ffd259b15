//! One seed from beginning to end, and many of them on all processors.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::{ending, invariants::Violation, lies::Planted, runtime, world::World};

/// More steps than any sound run takes.
const STEPS: u64 = 3_000_000;

/// The outcome of a seed.
pub struct Outcome {
    pub violation: Option<Violation>,
    pub steps: u64,
    pub trace: Vec<String>,
    pub tally: BTreeMap<&'static str, u32>,
}

/// Plays a seed.
pub fn play(seed: u64, planted: Option<Planted>, tracing: bool) -> Outcome {
    let world = World::new(seed, planted, tracing);
    let task = world.clone();
    let id = world.executor.spawn(async move {
        runtime::live(&task).await;
        if task.violation.borrow().is_none() {
            ending::end(&task).await;
        }
        task.weather.borrow_mut().hold = true;
        task.ended.set(true);
    });
    let played = catch_unwind(AssertUnwindSafe(|| {
        while !world.ended.get() && world.violation.borrow().is_none() {
            if !world.executor.step() || world.executor.steps() > STEPS {
                world.accuse(|| Violation::Failed("the run does not end".into()));
            }
        }
    }));
    if let Err(panic) = played {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        world.accuse(|| Violation::Failed(format!("panic: {}", said.unwrap_or_default())));
    }
    let outcome = Outcome {
        violation: world.violation.borrow().clone(),
        steps: world.executor.steps(),
        trace: world.trace(),
        tally: world.tally.borrow().clone(),
    };
    // Tasks own the world that owns them.
    world.executor.abort(id);
    world.executor.clear();
    outcome
}

/// A seed that broke an invariant.
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
}

/// Plays seeds on all processors until `most` of them have failed. Returns the failures by seed, and the most requests of each
/// kind of verb.
pub fn play_all(
    seeds: std::ops::Range<u64>,
    planted: Option<Planted>,
    most: usize,
) -> (Vec<Failure>, BTreeMap<&'static str, u32>) {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let tally = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failures.lock().unwrap().len() >= most {
                return;
            }
            let outcome = play(seed, planted, false);
            if let Some(violation) = outcome.violation {
                failures.lock().unwrap().push(Failure { seed, violation });
            }
            let mut tally = tally.lock().unwrap();
            for (kind, calls) in outcome.tally {
                let most: &mut u32 = tally.entry(kind).or_default();
                *most = (*most).max(calls);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|failure| failure.seed);
    (failures, tally.into_inner().unwrap())
}
