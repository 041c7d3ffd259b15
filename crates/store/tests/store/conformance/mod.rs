//! What a store is, as tests. Each backend runs all of them; a new one starts by running them.
//!
//! A [`Bench`] opens the same store again and again, as processes do, and restarts the backend under them.

mod conditions;
mod limits;
mod reading;
mod restart;
mod watching;

use std::future::Future;
use std::thread;

use store::{Entry, Error, Key, Op, Outcome, Store};

/// A backend under test.
pub(crate) struct Bench {
    /// Opens the store once more. Callable from several threads.
    pub(crate) open: Box<dyn Fn() -> Box<dyn Store> + Sync>,
    /// Kills the backend, if it is a process, and starts it again with the same data.
    pub(crate) restart: Box<dyn Fn() + Sync>,
}

/// Runs everything. The store may hold other keys; the suite's are below `suite`.
pub(crate) fn suite(bench: &Bench) {
    let begin = |name: &str| {
        println!("conformance: {name}");
        key("suite").join(name).unwrap()
    };
    conditions::create_has_one_winner_of_a_hundred(bench, &begin("create"));
    conditions::swaps_never_lose_an_increment(bench, &begin("swaps"));
    conditions::each_condition_holds_or_conflicts(bench, &begin("conditions"));
    conditions::revisions_are_never_reused(bench, &begin("revisions"));
    conditions::transactions_are_all_or_nothing(bench, &begin("transactions"));
    conditions::transactions_are_seen_whole(bench, &begin("whole"));
    reading::prefixes_end_at_path_parts(bench, &begin("prefixes"));
    reading::children_are_named_once(bench, &begin("children"));
    reading::values_come_back_byte_by_byte(bench, &begin("values"));
    limits::too_much_is_refused_before_it_is_sent(bench, &begin("limits"));
    watching::a_watch_wakes_at_once(bench, &begin("wake"));
    watching::a_watch_misses_nothing_between_calls(bench, &begin("between"));
    watching::a_watch_ends_after_its_wait(bench, &begin("wait"));
    restart::nothing_is_lost_or_doubled(bench, &begin("restart"));
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Runs `work` on a runtime like a plugin's.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Runs `work` on several threads at a time, each with its number, and collects the results.
pub(crate) fn threads<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let all: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || work(number)))
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// The keys and values of `entries`, as text.
pub(crate) fn texts(entries: &[Entry]) -> Vec<(&str, &str)> {
    entries
        .iter()
        .map(|entry| (entry.key.as_str(), str::from_utf8(&entry.value).unwrap()))
        .collect()
}

pub(crate) fn create(key: &Key, value: &str) -> Op {
    Op::Create {
        key: key.clone(),
        value: value.into(),
    }
}

pub(crate) fn swap(key: &Key, value: &str, revision: u64) -> Op {
    Op::Swap {
        key: key.clone(),
        value: value.into(),
        revision,
    }
}

pub(crate) fn delete(key: &Key, revision: u64) -> Op {
    Op::Delete {
        key: key.clone(),
        revision,
    }
}

pub(crate) fn check(key: &Key, revision: u64) -> Op {
    Op::Check {
        key: key.clone(),
        revision,
    }
}

/// The revisions of a transaction that must have been done.
pub(crate) fn done(outcome: Result<Outcome, Error>) -> Vec<u64> {
    match outcome {
        Ok(Outcome::Done(revisions)) => revisions,
        other => panic!("not done: {other:?}"),
    }
}
