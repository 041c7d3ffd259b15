//! A backend that dies and comes back in the middle of everything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use store::{Error, Key};

use super::{Bench, run};

/// Tries until the store is not away.
async fn insist<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let started = Instant::now();
    loop {
        match call().await {
            Ok(result) => return result,
            Err(error) if error.is_away() && started.elapsed() < Duration::from_mins(1) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) fn nothing_is_lost_or_doubled(bench: &Bench, base: &Key) {
    let counter = base.join("counter").unwrap();
    let store = (bench.open)();
    let (before, index) = run(async {
        let revision = store.create(&counter, b"0").await.unwrap().unwrap();
        (
            revision,
            store.watch(base, 0, Duration::ZERO).await.unwrap().index,
        )
    });
    drop(store);

    let back = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| run(count_on(bench, &counter, before, &back)));
        thread::sleep(Duration::from_millis(100));
        // On the test's own thread: an agent dies with the thread that started it.
        (bench.restart)();
        back.store(true, Ordering::SeqCst);
        client.join().unwrap();
    });

    run(async {
        let store = (bench.open)();
        let entry = store.get(&counter).await.unwrap().unwrap();
        assert!(entry.revision > before);
        assert!(
            !store.delete(&counter, before).await.unwrap(),
            "an old revision came back"
        );
        // The index from before the restart still leads on.
        let seen = store
            .watch(base, index, Duration::from_secs(20))
            .await
            .unwrap();
        assert_eq!(seen.entries, [entry]);
        assert!(seen.index > index);
    });
}

/// The only writer of `counter` increments it until ten increments were made after the restart.
async fn count_on(bench: &Bench, counter: &Key, created: u64, back: &AtomicBool) {
    let store = (bench.open)();
    let (mut last, mut count, mut after_restart) = (created, 0, 0);
    while after_restart < 10 {
        let is_back = back.load(Ordering::SeqCst);
        // Reading first makes a repeat after an error safe: whether the write was made, the value says.
        let entry = insist(async || store.get(counter).await)
            .await
            .expect("lost");
        let there: u32 = str::from_utf8(&entry.value).unwrap().parse().unwrap();
        assert!(
            there == count || there == count + 1,
            "{there} after {count}"
        );
        assert!(entry.revision >= last);
        last = entry.revision;
        if there == count {
            let next = (count + 1).to_string();
            match store.swap(counter, next.as_bytes(), last).await {
                Ok(swapped) => last = swapped.expect("there is no other writer"),
                Err(error) if error.is_away() => continue,
                Err(error) => panic!("{error}"),
            }
        }
        count += 1;
        after_restart += u32::from(is_back);
    }
}
