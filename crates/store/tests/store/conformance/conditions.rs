//! Conditional writes: one winner, nothing lost, all or nothing.

use store::{Key, Outcome};
use tokio::task::JoinSet;

use super::{Bench, check, create, delete, done, run, swap, texts, threads};

pub(super) fn create_has_one_winner_of_a_hundred(bench: &Bench, base: &Key) {
    let contested = base.join("block").unwrap();
    let wins = threads(4, |thread| {
        run(async {
            let mut writers = JoinSet::new();
            for task in 0..25 {
                let (store, contested) = ((bench.open)(), contested.clone());
                writers.spawn_local(async move {
                    let name = format!("writer-{thread}-{task}");
                    let won = store.create(&contested, name.as_bytes()).await.unwrap();
                    won.map(|revision| (name, revision))
                });
            }
            writers.join_all().await
        })
    });
    let winners: Vec<_> = wins.into_iter().flatten().flatten().collect();
    let [(name, revision)] = &winners[..] else {
        panic!("winners: {winners:?}")
    };
    let entry = run((bench.open)().get(&contested)).unwrap().unwrap();
    assert_eq!(
        (entry.value, entry.revision),
        (name.clone().into_bytes(), *revision)
    );
}

pub(super) fn swaps_never_lose_an_increment(bench: &Bench, base: &Key) {
    let counter = base.join("counter").unwrap();
    run((bench.open)().create(&counter, b"0")).unwrap().unwrap();
    threads(4, |_| {
        run(async {
            let store = (bench.open)();
            let mut last = 0;
            let mut increments = 0;
            while increments < 10 {
                let entry = store.get(&counter).await.unwrap().unwrap();
                assert!(entry.revision >= last, "the store went back in time");
                let count: u32 = str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let value = (count + 1).to_string();
                if let Some(revision) = store
                    .swap(&counter, value.as_bytes(), entry.revision)
                    .await
                    .unwrap()
                {
                    assert!(revision > entry.revision);
                    last = revision;
                    increments += 1;
                }
            }
        });
    });
    assert_eq!(
        run((bench.open)().get(&counter)).unwrap().unwrap().value,
        b"40"
    );
}

pub(super) fn each_condition_holds_or_conflicts(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let (present, absent) = (base.join("present").unwrap(), base.join("absent").unwrap());
        let old = store.create(&present, b"1").await.unwrap().unwrap();
        let new = store.swap(&present, b"2", old).await.unwrap().unwrap();
        let conflict = Outcome::Conflict(0);
        for (op, expected) in [
            (create(&present, "x"), conflict.clone()),
            (swap(&present, "x", old), conflict.clone()),
            (swap(&absent, "x", old), conflict.clone()),
            (check(&present, old), conflict.clone()),
            (check(&absent, old), conflict.clone()),
            (delete(&present, old), conflict),
            (check(&present, new), Outcome::Done(vec![0])),
            (delete(&absent, old), Outcome::Done(vec![0])),
        ] {
            assert_eq!(
                store.apply(std::slice::from_ref(&op)).await.unwrap(),
                expected,
                "{op:?}"
            );
            assert_eq!(
                texts(&store.read(std::slice::from_ref(base)).await.unwrap()),
                [(present.as_str(), "2")]
            );
        }
        assert!(!store.delete(&present, old).await.unwrap());
        assert!(store.delete(&present, new).await.unwrap());
        assert_eq!(store.get(&present).await.unwrap(), None);
        assert!(
            store.delete(&present, new).await.unwrap(),
            "absent counts as done"
        );
        assert_eq!(store.apply(&[]).await.unwrap(), Outcome::Done(vec![]));
    });
}

pub(super) fn revisions_are_never_reused(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let reused = base.join("a").unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let created = store.create(&reused, b"same").await.unwrap().unwrap();
            // A write of what is there already is a write.
            let swapped = store
                .swap(&reused, b"same", created)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(store.get(&reused).await.unwrap().unwrap().revision, swapped);
            assert!(store.delete(&reused, swapped).await.unwrap());
            seen.extend([created, swapped]);
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    });
}

pub(super) fn transactions_are_all_or_nothing(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| base.join(name).unwrap());
        let revisions = done(
            store
                .apply(&[create(&a, "1"), create(&b, "1"), create(&c, "1")])
                .await,
        );
        let before = store.read(std::slice::from_ref(base)).await.unwrap();
        assert_eq!(
            before
                .iter()
                .map(|entry| entry.revision)
                .collect::<Vec<_>>(),
            revisions
        );

        // Each kind of condition fails once, at its place, and nothing happens.
        let [ra, rb, rc] = revisions[..] else {
            panic!("{revisions:?}")
        };
        for (ops, first) in [
            (vec![create(&d, "x"), create(&a, "x")], 1),
            (vec![swap(&a, "x", ra), swap(&d, "x", rb)], 1),
            (
                vec![
                    swap(&a, "x", ra),
                    create(&d, "x"),
                    delete(&b, rb + 1_000_000),
                ],
                2,
            ),
            (
                vec![delete(&a, ra), delete(&b, rb), check(&c, rc + 1_000_000)],
                2,
            ),
            (vec![swap(&a, "x", 1), swap(&b, "x", 1)], 0),
        ] {
            assert_eq!(
                store.apply(&ops).await.unwrap(),
                Outcome::Conflict(first),
                "{ops:?}"
            );
            assert_eq!(
                store.read(std::slice::from_ref(base)).await.unwrap(),
                before
            );
        }

        let gone = base.join("gone").unwrap();
        let ops = [
            check(&c, rc),
            swap(&a, "2", ra),
            delete(&b, rb),
            create(&d, "2"),
            delete(&gone, 7),
        ];
        let revisions = done(store.apply(&ops).await);
        let entries = store.read(std::slice::from_ref(base)).await.unwrap();
        assert_eq!(
            texts(&entries),
            [(a.as_str(), "2"), (c.as_str(), "1"), (d.as_str(), "2")]
        );
        assert_eq!(
            revisions,
            [0, entries[0].revision, 0, entries[2].revision, 0]
        );
        assert_eq!(entries[1].revision, rc, "a check is no write");
    });
}

/// A reader beside a writer sees both keys of a transaction, or neither.
pub(super) fn transactions_are_seen_whole(bench: &Bench, base: &Key) {
    let (left, right) = (base.join("left/x").unwrap(), base.join("right/x").unwrap());
    threads(2, |thread| {
        run(async {
            let store = (bench.open)();
            if thread == 0 {
                let mut revisions = done(
                    store
                        .apply(&[create(&left, "0"), create(&right, "0")])
                        .await,
                );
                for count in 1..=30 {
                    let count = count.to_string();
                    let ops = [
                        swap(&left, &count, revisions[0]),
                        swap(&right, &count, revisions[1]),
                    ];
                    revisions = done(store.apply(&ops).await);
                }
                return;
            }
            loop {
                let entries = store.read(&[left.clone(), right.clone()]).await.unwrap();
                match &texts(&entries)[..] {
                    [] => tokio::task::yield_now().await,
                    [(_, one), (_, other)] => {
                        assert_eq!(one, other);
                        if *one == "30" {
                            return;
                        }
                    }
                    torn => panic!("torn: {torn:?}"),
                }
            }
        });
    });
}
