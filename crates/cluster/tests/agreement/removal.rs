//! Removals, and what the store knows of them, where something of it cannot be read.

use std::collections::BTreeMap;

use cluster::Cluster;
use serde_json::{Value, json};
use store::{Key, Store as _, mem::Mem};

use crate::{cluster, node, spec, with_id};

/// Puts a value at a key of the cluster, whatever there was.
async fn put(store: &Mem, key: &str, value: &str) {
    let key = Key::new(format!("crosshost/v1/{key}")).unwrap();
    let put = match store.get(&key).await.unwrap() {
        None => store.create(&key, value.as_bytes()).await,
        Some(present) => store.swap(&key, value.as_bytes(), present.revision).await,
    };
    put.unwrap().unwrap();
}

async fn get(store: &Mem, key: &str) -> Option<String> {
    let key = Key::new(format!("crosshost/v1/{key}")).unwrap();
    let entry = store.get(&key).await.unwrap()?;
    Some(String::from_utf8(entry.value).unwrap())
}

async fn faults(cluster: &Cluster<'_>) -> Vec<String> {
    let faults = cluster.faults().await.unwrap().into_iter();
    faults.map(|fault| fault.key).collect()
}

#[tokio::test]
async fn a_note_of_removals_that_cannot_be_read_stops_no_removal_and_no_creation() {
    for damaged in ["", "garbage{", r#"{"schema":2}"#] {
        let store = Mem::new();
        let cluster = cluster(&store);
        cluster.register(&node("n1")).await.unwrap();
        put(&store, "removed/a", damaged).await;
        put(&store, "removed/other", damaged).await;
        let keys = ["a", "other"].map(|name| format!("crosshost/v1/removed/{name}"));
        assert_eq!(faults(&cluster).await, keys, "{damaged}");
        let spec = with_id("10.0.0.0/24");
        let network = cluster.create_network(&spec).await.unwrap();
        assert_eq!(network.id.as_deref(), Some("first"), "it has no id");
        let memory = cluster.news("a").await.unwrap();
        cluster.remove_network("a", 5).await.unwrap();
        assert!(cluster.network("a").await.unwrap().is_none(), "{damaged}");
        assert!(cluster.was_removed(&network).await.unwrap(), "{damaged}");
        let mut news = cluster.news("a").await.unwrap();
        let own = node("n1");
        let restored = cluster.restore("a", &memory, &mut news, &own, true);
        assert!(!restored.await.unwrap(), "{damaged}");
        // Only what a newer version wrote stays as it is.
        let note = get(&store, "removed/a").await.unwrap();
        if damaged.contains("schema") {
            assert_eq!(note, damaged);
        } else {
            assert_eq!(note, r#"{"schema":1,"ids":{"first":5}}"#);
        }
        assert_eq!(get(&store, "removed/other").await.as_deref(), Some(damaged));
        cluster.create_network(&spec).await.unwrap();
    }
}

#[tokio::test]
async fn a_removal_is_noted_by_whatever_clock_the_others_were() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    let now = 1_000_000;
    let ids = (0..16).map(|n| (format!("id-{n}"), now + 3600));
    let ids: BTreeMap<_, _> = ids.collect();
    let note = json!({"schema": 1, "ids": ids}).to_string();
    put(&store, "removed/a", &note).await;
    let network = cluster.create_network(&with_id("10.0.0.0/24")).await;
    cluster.remove_network("a", now).await.unwrap();
    assert!(cluster.was_removed(&network.unwrap()).await.unwrap());
    let note: Value = serde_json::from_str(&get(&store, "removed/a").await.unwrap()).unwrap();
    assert_eq!(note["ids"].as_object().unwrap().len(), 16);
    assert_eq!(note["ids"]["first"], now + 3601, "the last to be forgotten");
}

#[tokio::test]
async fn a_clock_that_is_ahead_forgets_no_removal_of_others() {
    let store = Mem::new();
    let cluster = cluster(&store);
    for name in ["n1", "n2"] {
        cluster.register(&node(name)).await.unwrap();
    }
    let network = cluster.create_network(&with_id("10.0.0.0/24")).await;
    cluster.remove_network("a", 1).await.unwrap();
    let ahead = 100 * 365 * 24 * 60 * 60;
    let mut own = node("n1");
    own.last_contact = ahead;
    cluster.register(&own).await.unwrap();
    let other = spec("b", "10.0.1.0/24");
    cluster.create_network(&other).await.unwrap();
    cluster.remove_network("b", ahead).await.unwrap();
    assert!(cluster.was_removed(&network.unwrap()).await.unwrap());
}
