//! Watches: they wake for what is written and for what is removed, soon, and never sleep through anything.

use std::cell::Cell;
use std::time::{Duration, Instant};

use store::Key;

use super::{Bench, run, texts};

const LONG: Duration = Duration::from_secs(20);

pub(super) fn a_watch_wakes_at_once(bench: &Bench, base: &Key) {
    run(async {
        let (watcher, writer) = ((bench.open)(), (bench.open)());
        let here = base.join("here/x").unwrap();
        let prefix = base.join("here").unwrap();
        let mut revision = 0;
        let mut delays = Vec::new();
        for round in 0..6 {
            // The first round watches a prefix with nothing below it, the others see writes and removals in turn.
            let before = watcher.watch(&prefix, 0, LONG).await.unwrap();
            let written = Cell::new(Instant::now());
            let watch = watcher.watch(&prefix, before.index, LONG);
            let write = async {
                tokio::time::sleep(Duration::from_millis(150)).await;
                if round % 2 == 0 {
                    revision = writer.create(&here, b"news").await.unwrap().unwrap();
                } else {
                    assert!(writer.delete(&here, revision).await.unwrap());
                }
                written.set(Instant::now());
            };
            let (mut after, ()) =
                tokio::join!(async { (watch.await.unwrap(), Instant::now()) }, write);
            // Somebody else's write may have woken it early.
            while after.0.entries == before.entries {
                after = (
                    watcher.watch(&prefix, after.0.index, LONG).await.unwrap(),
                    Instant::now(),
                );
            }
            delays.push(after.1.saturating_duration_since(written.get()));
            assert_eq!(
                after.0.entries.len(),
                usize::from(round % 2 == 0),
                "round {round}"
            );
        }
        delays.sort();
        assert!(
            delays[delays.len() / 2] < Duration::from_millis(100),
            "{delays:?}"
        );
    });
}

pub(super) fn a_watch_misses_nothing_between_calls(bench: &Bench, base: &Key) {
    run(async {
        let (watcher, writer) = ((bench.open)(), (bench.open)());
        let (one, two) = (base.join("one").unwrap(), base.join("two").unwrap());
        let revision = writer.create(&one, b"1").await.unwrap().unwrap();
        let seen = watcher.watch(base, 0, LONG).await.unwrap();
        assert_eq!(texts(&seen.entries), [(one.as_str(), "1")]);
        assert!(seen.index > 0);

        // Nobody watches while this happens.
        assert!(writer.delete(&one, revision).await.unwrap());
        let seen = watcher.watch(base, seen.index, LONG).await.unwrap();
        assert_eq!(texts(&seen.entries), []);
        writer.create(&two, b"2").await.unwrap().unwrap();
        writer.create(&one, b"3").await.unwrap().unwrap();
        let seen = watcher.watch(base, seen.index, LONG).await.unwrap();
        assert_eq!(
            texts(&seen.entries),
            [(one.as_str(), "3"), (two.as_str(), "2")]
        );
    });
}

pub(super) fn a_watch_ends_after_its_wait(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let quiet = base.join("quiet").unwrap();
        store.create(&quiet, b"1").await.unwrap().unwrap();
        let seen = store.watch(base, 0, LONG).await.unwrap();
        let started = Instant::now();
        let again = store
            .watch(base, seen.index, Duration::from_millis(400))
            .await
            .unwrap();
        let took = started.elapsed();
        assert!(
            took >= Duration::from_millis(350) && took < Duration::from_secs(3),
            "{took:?}"
        );
        assert_eq!(again, seen);
        // A watch does not hold up the store's other calls.
        let started = Instant::now();
        let watch = store.watch(base, seen.index, Duration::from_secs(3));
        let read = async { (store.get(&quiet).await.unwrap(), started.elapsed()) };
        let (_, (entry, took)) = tokio::join!(watch, read);
        assert!(
            entry.is_some() && took < Duration::from_millis(2500),
            "{took:?}"
        );
    });
}
