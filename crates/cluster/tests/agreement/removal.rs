//! Removals, and the store's records of them, if some of these cannot be read.

use std::collections::BTreeMap;

use cluster::{Cluster, Error, NetworkSpec};
use serde_json::{Value, json};
use store::{Key, Store as _, mem::Mem};

use crate::{node, spec, with_id, with_nodes};

/// Puts a value at a key of the cluster, whatever there was.
async fn put(store: &Mem, key: &str, value: &str) {
    let key = Key::new(format!("crosshost/v1/{key}")).unwrap();
    let put = match ok!(store.get(&key)) {
        None => store.create(&key, value.as_bytes()).await,
        Some(present) => store.swap(&key, value.as_bytes(), present.revision).await,
    };
    put.unwrap().unwrap();
}

async fn get(store: &Mem, key: &str) -> Option<String> {
    let key = Key::new(format!("crosshost/v1/{key}")).unwrap();
    let entry = ok!(store.get(&key))?;
    Some(String::from_utf8(entry.value).unwrap())
}

async fn delete(store: &Mem, key: &str) {
    let key = Key::new(format!("crosshost/v1/{key}")).unwrap();
    let entry = ok!(store.get(&key)).unwrap();
    assert!(store.delete(&key, entry.revision).await.unwrap());
}

async fn faults(cluster: &Cluster<'_>) -> Vec<String> {
    let faults = ok!(cluster.unusable_keys()).into_iter();
    faults.map(|fault| fault.key).collect()
}

#[tokio::test]
async fn a_note_of_removals_that_cannot_be_read_stops_no_removal_and_no_creation() {
    for damaged in ["", "garbage{", r#"{"schema":2}"#] {
        let (store, cluster) = with_nodes(&["n1"]).await;
        put(store, "removed/a", damaged).await;
        put(store, "removed/other", damaged).await;
        let keys = ["a", "other"].map(|name| format!("crosshost/v1/removed/{name}"));
        assert_eq!(faults(&cluster).await, keys, "{damaged}");
        let spec = with_id("10.0.0.0/24");
        let network = ok!(cluster.create_network(&spec));
        assert_eq!(network.id.as_deref(), Some("first"), "it has no id");
        let memory = ok!(cluster.snapshot("a"));
        ok!(cluster.remove_network("a", 5));
        assert!(cluster.network("a").await.unwrap().is_none(), "{damaged}");
        assert!(cluster.was_removed(&network).await.unwrap(), "{damaged}");
        let mut snapshot = ok!(cluster.snapshot("a"));
        let own = node("n1");
        let restored = cluster.restore("a", &memory, &mut snapshot, &own, true);
        assert!(!restored.await.unwrap(), "{damaged}");
        // Only the record of a newer version stays as it is.
        let note = get(store, "removed/a").await.unwrap();
        if damaged.contains("schema") {
            assert_eq!(note, damaged);
        } else {
            assert_eq!(note, r#"{"schema":1,"ids":{"first":5}}"#);
        }
        assert_eq!(get(store, "removed/other").await.as_deref(), Some(damaged));
        ok!(cluster.create_network(&spec));
    }
}

#[tokio::test]
async fn a_removal_is_noted_by_whatever_clock_the_others_were() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    let now = 1_000_000;
    let ids = (0..16).map(|n| (format!("id-{n}"), now + 3600));
    let ids: BTreeMap<_, _> = ids.collect();
    let note = json!({"schema": 1, "ids": ids}).to_string();
    put(store, "removed/a", &note).await;
    let network = cluster.create_network(&with_id("10.0.0.0/24")).await;
    ok!(cluster.remove_network("a", now));
    assert!(cluster.was_removed(&network.unwrap()).await.unwrap());
    let note: Value = serde_json::from_str(&get(store, "removed/a").await.unwrap()).unwrap();
    assert_eq!(note["ids"].as_object().unwrap().len(), 16);
    assert_eq!(note["ids"]["first"], now + 3601, "the last to be forgotten");
}

#[tokio::test]
async fn a_clock_that_is_ahead_forgets_no_removal_of_others() {
    let (_, cluster) = with_nodes(&["n1", "n2"]).await;
    let network = cluster.create_network(&with_id("10.0.0.0/24")).await;
    ok!(cluster.remove_network("a", 1));
    let ahead = 100 * 365 * 24 * 60 * 60;
    let mut own = node("n1");
    own.last_contact = ahead;
    ok!(cluster.register(&own));
    let other = spec("b", "10.0.1.0/24");
    ok!(cluster.create_network(&other));
    ok!(cluster.remove_network("b", ahead));
    assert!(cluster.was_removed(&network.unwrap()).await.unwrap());
}

#[tokio::test]
async fn subnets_that_cannot_be_read_stop_no_removal_no_restore_and_no_sweep() {
    for damaged in ["", "garbage{", r#"{"schema":2}"#] {
        let (store, cluster) = with_nodes(&["n1"]).await;
        let network = cluster.create_network(&with_id("10.0.0.0/24")).await;
        let network = network.unwrap();
        let memory = ok!(cluster.snapshot("a"));
        let before = get(store, "subnets").await.unwrap();
        put(store, "subnets", damaged).await;
        // Left by a removal that was killed.
        put(
            store,
            "acks/gone/n1",
            r#"{"schema":1,"bootID":"b","seen":1}"#,
        )
        .await;
        let leftovers = ok!(cluster.leftovers());
        assert_eq!(leftovers.into_keys().collect::<Vec<_>>(), ["gone"]);
        assert_eq!(cluster.sweep("gone", &|_| false).await.unwrap(), 1);
        // The store loses the network: a host with a container on it restores it.
        delete(store, "networks/a").await;
        let mut snapshot = ok!(cluster.snapshot("a"));
        let own = node("n1");
        let restored = cluster.restore("a", &memory, &mut snapshot, &own, true);
        assert!(restored.await.unwrap(), "{damaged}");
        assert_eq!(cluster.network("a").await.unwrap().unwrap().record, network);
        let refused = cluster.create_network(&spec("b", "10.0.1.0/24")).await;
        assert!(refused.unwrap_err().to_string().contains("v1/subnets"));
        ok!(cluster.remove_network("a", 5));
        assert!(cluster.snapshot("a").await.unwrap().blocks.is_empty());
        assert_eq!(get(store, "subnets").await.as_deref(), Some(damaged));
        // Its entry is removed when the record can be read.
        put(store, "subnets", &before).await;
        let leftovers = ok!(cluster.leftovers());
        assert_eq!(leftovers.into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(cluster.sweep("a", &|_| false).await.unwrap(), 1);
        ok!(cluster.create_network(&spec("b", "10.0.0.0/24")));
    }
}

#[tokio::test]
async fn subnets_that_are_lost_are_taken_from_the_networks_or_none_is_created() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    for (name, subnet) in [("aa", "10.0.0.0/24"), ("cc", "10.0.2.0/24")] {
        ok!(cluster.create_network(&spec(name, subnet)));
    }
    let before = get(store, "networks/aa").await.unwrap();
    put(store, "networks/aa", r#"{"schema":2}"#).await;
    delete(store, "subnets").await;
    let same = spec("bb", "10.0.0.0/24");
    let refused = err!(cluster.create_network(&same));
    assert!(refused.to_string().contains("networks/aa"), "{refused}");
    let refused = err!(cluster.admit(&same, &node("n1"), false));
    assert!(refused.to_string().contains("networks/aa"), "{refused}");
    put(store, "networks/aa", &before).await;
    // A record that lacks the field counts as unreadable.
    let part = r#"{"schema":1,"networks":{"cc":["10.0.2.0/24"]}}"#;
    put(store, "subnets", part).await;
    let refused = err!(cluster.create_network(&same));
    assert!(
        matches!(&refused, Error::Overlap { other, .. } if other == "aa"),
        "{refused}"
    );
    ok!(cluster.create_network(&spec("bb", "10.0.1.0/24")));
    let all: Value = serde_json::from_str(&get(store, "subnets").await.unwrap()).unwrap();
    let names: Vec<_> = all["networks"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["aa", "bb", "cc"]);
}

#[tokio::test]
async fn a_vni_whose_key_is_lost_is_its_networks_still_and_is_written_again() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&with_id("10.0.0.0/24")));
    let key = get(store, "vnis/4097").await.unwrap();
    for wrong in [
        None,
        Some(r#"{"schema":1,"network":"gone"}"#),
        Some("garbage{"),
    ] {
        match wrong {
            None => delete(store, "vnis/4097").await,
            Some(wrong) => put(store, "vnis/4097", wrong).await,
        }
        let other = NetworkSpec {
            vni: Some(4097),
            ..spec("b", "10.0.1.0/24")
        };
        let refused = err!(cluster.create_network(&other));
        assert!(
            matches!(refused, Error::VniTaken { vni: 4097, .. }),
            "{refused}"
        );
        let known = ok!(cluster.network("a")).unwrap();
        let unclaimed = ok!(cluster.unclaimed_vnis());
        assert_eq!(unclaimed.len(), 1, "{unclaimed:?}");
        assert!(cluster.claim_vni(&known).await.unwrap());
        assert_eq!(get(store, "vnis/4097").await.as_ref(), Some(&key));
        assert!(!cluster.claim_vni(&known).await.unwrap());
        assert!(cluster.unclaimed_vnis().await.unwrap().is_empty());
    }
    // It stays if a newer version wrote it, or if the network that it names has this VNI.
    put(store, "vnis/4097", r#"{"schema":2}"#).await;
    let known = ok!(cluster.network("a")).unwrap();
    assert!(!cluster.claim_vni(&known).await.unwrap());
    delete(store, "vnis/4097").await;
    let b = ok!(cluster.create_network(&spec("b", "10.0.1.0/24")));
    assert_eq!(b.vni, Some(4098));
    let both = ok!(get(store, "networks/b")).replace("4098", "4097");
    put(store, "networks/b", &both).await;
    put(store, "vnis/4097", r#"{"schema":1,"network":"b"}"#).await;
    assert!(!cluster.claim_vni(&known).await.unwrap());
    let unclaimed = ok!(cluster.unclaimed_vnis());
    assert_eq!(unclaimed.len(), 1);
    assert_eq!(
        (unclaimed[0].network.as_str(), unclaimed[0].other.as_deref()),
        ("a", Some("b"))
    );
}

#[tokio::test]
async fn a_name_that_no_network_can_have_is_a_fault_and_stops_no_sweep() {
    let (store, cluster) = with_nodes(&[]).await;
    let subnets = r#"{"schema":1,"networks":{"a b":["10.0.0.0/24"],"":["10.0.1.0/24"]}}"#;
    put(store, "subnets", subnets).await;
    put(store, "vnis/5000", r#"{"schema":1,"network":"../x"}"#).await;
    put(
        store,
        "acks/gone/n1",
        r#"{"schema":1,"bootID":"b","seen":1}"#,
    )
    .await;
    let leftovers = ok!(cluster.leftovers());
    assert_eq!(leftovers.into_keys().collect::<Vec<_>>(), ["gone"]);
    let keys = ["subnets", "vnis/5000"].map(|key| format!("crosshost/v1/{key}"));
    assert_eq!(faults(&cluster).await, keys);
}
