//! Blocks and leases: which node may write them.

use std::time::Duration;

use cluster::{Claim, Lease, LeaseGuard, Published, Stored};
use ipam::Range;

use crate::{address, guard, lease, spec, with_nodes};

/// Without waiting for other hosts.
const NOW: Claim = Claim::Needed(Duration::ZERO);

#[tokio::test]
async fn a_lease_is_one_write_and_is_refused_on_an_old_snapshot() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    let calls = store.calls();
    let published = ok!(cluster.publish("a", &[address("10.0.0.2")], &lease("n1", "c1"), &fresh));
    assert!(matches!(published, Published::Done(_)));
    assert_eq!(store.calls() - calls, 1);

    let again = ok!(cluster.publish(
        "a",
        &[address("10.0.0.2")],
        &Lease {
            since: 9,
            ..lease("n1", "c1")
        },
        &fresh,
    ));
    assert_eq!(
        again, published,
        "a repeated write of the same attachment finds its own lease"
    );
    let other = ok!(cluster.publish("a", &[address("10.0.0.2")], &lease("n1", "c2"), &fresh));
    assert!(
        matches!(other, Published::Taken(_, Stored::Readable(held)) if held.record.container == "c1")
    );

    let old = LeaseGuard {
        blocks: fresh.blocks.iter().map(|(b, r)| (*b, r + 1)).collect(),
        ..fresh.clone()
    };
    assert_eq!(
        ok!(cluster.publish("a", &[address("10.0.0.3")], &lease("n1", "c3"), &old)),
        Published::Stale
    );
    ok!(cluster.remove_node("n1", true));
    let removed = ok!(cluster.publish("a", &[address("10.0.0.3")], &lease("n1", "c3"), &fresh));
    assert_eq!(
        removed,
        Published::Stale,
        "a removed node cannot use its old block"
    );
    assert!(cluster.leases("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn only_its_holder_releases_a_lease() {
    let (_, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    let ip = address("10.0.0.2");
    let Published::Done(old) = ok!(cluster.publish("a", &[ip], &lease("n1", "c1"), &fresh)) else {
        panic!()
    };
    let of_another = ok!(cluster.leased_to("a", &lease("n1", "c2"), &[ip]));
    assert!(
        of_another.is_empty(),
        "another attachment has none to release"
    );
    let own = ok!(cluster.leased_to("a", &lease("n1", "c1"), &[ip]));
    assert_eq!(own, [(ip, old[0])]);
    assert!(cluster.delete_leases("a", &own).await.unwrap());
    ok!(cluster.publish("a", &[ip], &lease("n1", "c2"), &fresh));
    assert!(!cluster.delete_leases("a", &own).await.unwrap());
    let leases = ok!(cluster.leases("a"));
    assert_eq!(
        leases[&ip].record.container, "c2",
        "a late release does not free the next holder"
    );
}

#[tokio::test]
async fn a_full_host_claims_the_next_block_even_with_an_old_snapshot() {
    let (_, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let ranges = [Range::of("10.0.0.0/24".parse().unwrap()).unwrap()];
    let mut old = ok!(cluster.snapshot("a"));
    let first = ok!(cluster.claim_block(
        "a",
        "n2",
        &ranges,
        &mut ok!(cluster.snapshot("a")),
        Claim::Spare,
    ));
    let second = ok!(cluster.claim_block("a", "n3", &ranges, &mut old, Claim::Spare));
    let snapshot = ok!(cluster.snapshot("a"));
    let owner = |block| snapshot.blocks.known(block).map(|b| b.record.node.as_str());
    assert_ne!(first, second);
    assert_eq!([owner(&first), owner(&second)], [Some("n2"), Some("n3")]);
}

#[tokio::test]
async fn when_all_blocks_have_owners_the_error_says_how_many_each_node_has() {
    let (_, cluster) = with_nodes(&[]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/28")));
    for node in ["n1", "n2"] {
        ok!(cluster.keep_ledger("a", node, "boot-1"));
        ok!(cluster.register(&crate::node(node)));
    }
    let ranges = [Range::of("10.0.0.0/28".parse().unwrap()).unwrap()];
    let mut snapshot = ok!(cluster.snapshot("a"));
    for n in 0..13 {
        ok!(cluster.claim_block("a", ["n1", "n2"][n % 2], &ranges, &mut snapshot, NOW));
    }
    let full = err!(cluster.claim_block("a", "n1", &ranges, &mut snapshot, NOW)).to_string();
    assert!(
        full.contains("n1 has 7") && full.contains("n2 has 6"),
        "{full}"
    );
}

#[tokio::test]
async fn a_pair_is_published_in_one_write_or_not_at_all() {
    let (_, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    let pair = [address("10.0.0.2"), address("10.0.0.3")];
    ok!(cluster.publish("a", &pair[1..], &lease("n1", "c1"), &fresh));
    let refused = ok!(cluster.publish("a", &pair, &lease("n1", "c2"), &fresh));
    assert!(matches!(refused, Published::Taken(address, _) if address == pair[1]));
    assert_eq!(
        ok!(cluster.leases("a")).len(),
        1,
        "half a pair is never left behind"
    );
}
