//! Sizes: the largest that is allowed works on every backend, and more is refused by all of them alike.

use store::{Error, Key, MAX_BYTES, MAX_OPS, MAX_VALUE, Op};

use super::{Bench, create, delete, done, run};

pub(super) fn too_much_is_refused_before_it_is_sent(bench: &Bench, base: &Key) {
    run(async {
        let store = (bench.open)();
        let keys: Vec<Key> = (0..=MAX_OPS)
            .map(|number| base.join(&format!("k{number}")).unwrap())
            .collect();
        let refused = async |ops: &[Op], words: &str| {
            let error = store.apply(ops).await.unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(store.read(std::slice::from_ref(base)).await.unwrap(), []);
            error
        };

        let mut ops: Vec<Op> = keys.iter().map(|key| create(key, "x")).collect();
        let error = refused(&ops, "operations in one transaction: 65 is more than 64").await;
        assert!(matches!(
            error,
            Error::TooLarge {
                size: 65,
                limit: MAX_OPS,
                ..
            }
        ));
        let error = store.read(&keys).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { size: 65, .. }), "{error}");

        let large = Op::Create {
            key: keys[0].clone(),
            value: vec![0; MAX_VALUE + 1],
        };
        refused(
            &[large],
            "value of suite/limits/k0 in bytes: 262145 is more than 262144",
        )
        .await;
        let twice = [
            create(&keys[0], "x"),
            create(&keys[1], "x"),
            create(&keys[0], "x"),
        ];
        refused(&twice, "suite/limits/k0: named twice in one transaction").await;

        // As many bytes as allowed, in as many operations as allowed.
        ops.truncate(MAX_OPS);
        let names: usize = keys[..MAX_OPS].iter().map(|key| key.as_str().len()).sum();
        let mut room = MAX_BYTES - names;
        for (at, key) in keys[..MAX_OPS].iter().enumerate() {
            let size = room / (MAX_OPS - at);
            room -= size;
            ops[at] = Op::Create {
                key: key.clone(),
                value: vec![b'x'; size],
            };
        }
        let mut more = ops.clone();
        if let Some(Op::Create { value, .. }) = more.first_mut() {
            value.push(b'x');
        }
        refused(&more, "keys and values of one transaction in bytes").await;
        let revisions = done(store.apply(&ops).await);
        assert_eq!(store.read(&keys[..MAX_OPS]).await.unwrap().len(), MAX_OPS);
        let removal: Vec<Op> = keys
            .iter()
            .zip(revisions)
            .map(|(key, revision)| delete(key, revision))
            .collect();
        done(store.apply(&removal).await);
    });
}
