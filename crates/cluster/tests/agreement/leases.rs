//! Blocks and leases: which node may write them.

use std::time::Duration;

use cluster::{Claim, Lease, LeaseGuard, Published, Stored};
use ipam::Range;
use store::mem::Mem;

use crate::{address, cluster, guard, lease, node, spec};

/// Without waiting for other hosts.
const NOW: Claim = Claim::Needed(Duration::ZERO);

#[tokio::test]
async fn a_lease_is_one_write_and_is_refused_on_an_old_snapshot() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let fresh = guard(&cluster, "a", "n1").await;
    let calls = store.calls();
    let published = cluster
        .publish("a", &[address("10.0.0.2")], &lease("n1", "c1"), &fresh)
        .await
        .unwrap();
    assert!(matches!(published, Published::Done(_)));
    assert_eq!(store.calls() - calls, 1);

    let again = cluster
        .publish(
            "a",
            &[address("10.0.0.2")],
            &Lease {
                since: 9,
                ..lease("n1", "c1")
            },
            &fresh,
        )
        .await
        .unwrap();
    assert_eq!(
        again, published,
        "a repeated write of the same attachment finds its own lease"
    );
    let other = cluster
        .publish("a", &[address("10.0.0.2")], &lease("n1", "c2"), &fresh)
        .await
        .unwrap();
    assert!(
        matches!(other, Published::Taken(_, Stored::Readable(held)) if held.record.container == "c1")
    );

    let old = LeaseGuard {
        blocks: fresh.blocks.iter().map(|(b, r)| (*b, r + 1)).collect(),
        ..fresh.clone()
    };
    assert_eq!(
        cluster
            .publish("a", &[address("10.0.0.3")], &lease("n1", "c3"), &old)
            .await
            .unwrap(),
        Published::Stale
    );
    cluster.remove_node("n1", true).await.unwrap();
    let removed = cluster
        .publish("a", &[address("10.0.0.3")], &lease("n1", "c3"), &fresh)
        .await
        .unwrap();
    assert_eq!(
        removed,
        Published::Stale,
        "a removed node cannot use its old block"
    );
    assert!(cluster.leases("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn only_its_holder_releases_a_lease() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let fresh = guard(&cluster, "a", "n1").await;
    let ip = address("10.0.0.2");
    let Published::Done(old) = cluster
        .publish("a", &[ip], &lease("n1", "c1"), &fresh)
        .await
        .unwrap()
    else {
        panic!()
    };
    let of_another = cluster
        .leased_to("a", &lease("n1", "c2"), &[ip])
        .await
        .unwrap();
    assert!(
        of_another.is_empty(),
        "another attachment has none to release"
    );
    let own = cluster
        .leased_to("a", &lease("n1", "c1"), &[ip])
        .await
        .unwrap();
    assert_eq!(own, [(ip, old[0])]);
    assert!(cluster.delete_leases("a", &own).await.unwrap());
    cluster
        .publish("a", &[ip], &lease("n1", "c2"), &fresh)
        .await
        .unwrap();
    assert!(!cluster.delete_leases("a", &own).await.unwrap());
    let leases = cluster.leases("a").await.unwrap();
    assert_eq!(
        leases[&ip].record.container, "c2",
        "a late release does not free the next holder"
    );
}

#[tokio::test]
async fn a_full_host_claims_the_next_block_even_with_an_old_snapshot() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let ranges = [Range::of("10.0.0.0/24".parse().unwrap()).unwrap()];
    let mut old = cluster.snapshot("a").await.unwrap();
    let first = cluster
        .claim_block(
            "a",
            "n2",
            &ranges,
            &mut cluster.snapshot("a").await.unwrap(),
            Claim::Spare,
        )
        .await
        .unwrap();
    let second = cluster
        .claim_block("a", "n3", &ranges, &mut old, Claim::Spare)
        .await
        .unwrap();
    let snapshot = cluster.snapshot("a").await.unwrap();
    let owner = |block| snapshot.blocks.known(block).map(|b| b.record.node.as_str());
    assert_ne!(first, second);
    assert_eq!([owner(&first), owner(&second)], [Some("n2"), Some("n3")]);
}

#[tokio::test]
async fn when_all_blocks_have_owners_the_error_says_how_many_each_node_has() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster
        .create_network(&spec("a", "10.0.0.0/28"))
        .await
        .unwrap();
    for node in ["n1", "n2"] {
        cluster.keep_ledger("a", node, "boot-1").await.unwrap();
        cluster.register(&crate::node(node)).await.unwrap();
    }
    let ranges = [Range::of("10.0.0.0/28".parse().unwrap()).unwrap()];
    let mut snapshot = cluster.snapshot("a").await.unwrap();
    for n in 0..13 {
        cluster
            .claim_block("a", ["n1", "n2"][n % 2], &ranges, &mut snapshot, NOW)
            .await
            .unwrap();
    }
    let full = cluster
        .claim_block("a", "n1", &ranges, &mut snapshot, NOW)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        full.contains("n1 has 7") && full.contains("n2 has 6"),
        "{full}"
    );
}

#[tokio::test]
async fn a_pair_is_published_in_one_write_or_not_at_all() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let fresh = guard(&cluster, "a", "n1").await;
    let pair = [address("10.0.0.2"), address("10.0.0.3")];
    cluster
        .publish("a", &pair[1..], &lease("n1", "c1"), &fresh)
        .await
        .unwrap();
    let refused = cluster
        .publish("a", &pair, &lease("n1", "c2"), &fresh)
        .await
        .unwrap();
    assert!(matches!(refused, Published::Taken(address, _) if address == pair[1]));
    assert_eq!(
        cluster.leases("a").await.unwrap().len(),
        1,
        "half a pair is never left behind"
    );
}
