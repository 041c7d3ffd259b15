//! Reads: which keys a prefix covers, and what their values are.

use store::Key;

use super::{Bench, create, done, run, texts};

pub(super) fn children_are_named_once(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let keys = ["a", "a/b", "a/b/c", "a/b/d/e", "a/-2fx/y", "a/z/1", "ab/n"];
        let keys = keys.map(|name| base.join(name).unwrap());
        let ops: Vec<_> = keys.iter().map(|key| create(key, "x")).collect();
        done(store.apply(&ops).await);
        for (prefix, expected) in [
            ("a", vec!["-2fx", "b", "z"]),
            ("a/b", vec!["c", "d"]),
            ("ab", vec!["n"]),
            ("a/z/1", vec![]),
            ("none", vec![]),
        ] {
            let children = store.children(&base.join(prefix).unwrap()).await.unwrap();
            assert_eq!(children, expected, "{prefix}");
        }
    });
}

pub(super) fn prefixes_end_at_path_parts(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let names = [
            "a",
            "a/b",
            "a/b/c",
            "a/bc",
            "a/b.c",
            "a-b",
            "ab",
            "z/fd00::1",
            "z/10.0.0.2",
        ];
        let keys: Vec<Key> = names.iter().map(|name| base.join(name).unwrap()).collect();
        let ops: Vec<_> = keys
            .iter()
            .zip(names)
            .map(|(key, name)| create(key, name))
            .collect();
        done(store.apply(&ops).await);
        for (prefixes, expected) in [
            (vec!["a"], vec!["a", "a/b", "a/b.c", "a/b/c", "a/bc"]),
            (vec!["a/b"], vec!["a/b", "a/b/c"]),
            (vec!["a/b/c"], vec!["a/b/c"]),
            (vec!["z/fd00::1"], vec!["z/fd00::1"]),
            (
                vec!["z", "a/b"],
                vec!["a/b", "a/b/c", "z/10.0.0.2", "z/fd00::1"],
            ),
            (
                vec!["a/b", "a", "a/b"],
                vec!["a", "a/b", "a/b.c", "a/b/c", "a/bc"],
            ),
            (vec!["none", "ab", "none/too"], vec!["ab"]),
            (vec!["none"], vec![]),
            (vec![], vec![]),
        ] {
            let prefixes: Vec<Key> = prefixes
                .iter()
                .map(|name| base.join(name).unwrap())
                .collect();
            let entries = store.read(&prefixes).await.unwrap();
            let found: Vec<_> = texts(&entries)
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            assert_eq!(found, expected, "{prefixes:?}");
            assert!(entries.iter().all(|entry| entry.key.as_str()
                == format!("{base}/{}", texts(std::slice::from_ref(entry))[0].1)));
        }
        assert_eq!(
            store.get(&keys[0]).await.unwrap().unwrap().value,
            b"a",
            "not one below it"
        );
        assert_eq!(
            store.get(&base.join("z").unwrap()).await.unwrap(),
            None,
            "there is only something below it"
        );
        assert_eq!(
            store.get(&keys[0].join("b/c/d").unwrap()).await.unwrap(),
            None
        );
    });
}

pub(super) fn values_come_back_byte_by_byte(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let every_byte: Vec<u8> = (0..=255).collect();
        for (name, value) in [
            ("empty", Vec::new()),
            ("line", b"\n".to_vec()),
            ("number", b"12\n34\n".to_vec()),
            ("every-byte", every_byte),
            ("large", vec![b'x'; store::MAX_VALUE]),
        ] {
            let key = base.join(name).unwrap();
            let revision = store.create(&key, &value).await.unwrap().unwrap();
            let entry = store.get(&key).await.unwrap().unwrap();
            assert!(entry.value == value && entry.revision == revision, "{name}");
            assert!(store.delete(&key, revision).await.unwrap());
        }
    });
}
