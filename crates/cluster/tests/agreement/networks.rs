//! Networks: created once for all hosts, refused if they collide, removed when empty.

use std::collections::BTreeSet;

use cluster::{Claim, Cluster, Created, Error, NetworkSpec, NetworkState, Published};
use store::Store as _;

use crate::{NOW, address, guard, lease, node, spec, with_nodes};

#[tokio::test]
async fn every_registered_node_has_a_block_of_a_new_network() {
    let (_, cluster) = with_nodes(&["docker01", "docker02", "docker03"]).await;
    let network = ok!(cluster.create_network(&spec("ov_net1", "10.0.0.0/24")));
    assert_eq!(network.vni, Some(4097));
    let snapshot = ok!(cluster.snapshot("ov_net1"));
    let owners: Vec<_> = snapshot
        .blocks
        .readable()
        .map(|(b, r)| (b.to_string(), r.record.node.clone()))
        .collect();
    let expected = [
        ("10.0.0.0_29", "docker01"),
        ("10.0.0.8_29", "docker02"),
        ("10.0.0.16_29", "docker03"),
    ];
    assert_eq!(owners, expected.map(|(b, n)| (b.to_owned(), n.to_owned())));
}

/// Clusters with more nodes than one transaction has room for, and the most requests that the preallocation may cost: one
/// transaction for 63 of them, and those that check and note that all are done.
const MANY: usize = 300;
const FEW: usize = 10;

async fn many_nodes(cluster: &Cluster<'_>) {
    for n in 0..MANY {
        ok!(cluster.register(&node(&format!("n{n:03}"))));
    }
}

/// The nodes that have a block of the network.
async fn owners(cluster: &Cluster<'_>, network: &str) -> BTreeSet<String> {
    let snapshot = ok!(cluster.snapshot(network));
    snapshot.owners().map(str::to_owned).collect()
}

async fn state(cluster: &Cluster<'_>, network: &str) -> NetworkState {
    ok!(cluster.network(network)).unwrap().record.state
}

#[tokio::test]
async fn more_nodes_than_fit_one_transaction_get_their_blocks_by_few() {
    let (store, cluster) = with_nodes(&[]).await;
    many_nodes(&cluster).await;
    let before = store.calls();
    let network = cluster.create_network(&spec("big", "10.0.0.0/16")).await;
    assert_eq!(network.unwrap().state, NetworkState::Ready);
    let calls = store.calls() - before;
    assert!(calls <= FEW, "{calls}");
    assert_eq!(owners(&cluster, "big").await.len(), MANY);
}

#[tokio::test]
async fn a_killed_creation_is_finished_by_the_next_request_for_the_same_network() {
    let (_, cluster) = with_nodes(&[]).await;
    many_nodes(&cluster).await;
    let wanted = spec("big", "10.0.0.0/16");
    // Killed after its first write.
    ok!(cluster.ensure_network(&wanted));
    assert_eq!(state(&cluster, "big").await, NetworkState::Creating);
    assert!(owners(&cluster, "big").await.len() < MANY);
    // It takes attachments: a node that cannot wait claims a free block.
    let mut snapshot = ok!(cluster.snapshot("big"));
    let set = snapshot.network.clone().unwrap().record.ranges[0].clone();
    let claim = cluster.claim_block("big", "n299", &set, &mut snapshot, Claim::Spare);
    claim.await.unwrap();
    let block: ipam::Block = "10.0.17.128_26".parse().unwrap();
    let claim = cluster.claim_this_block("big", "n298", block, &mut snapshot, NOW);
    assert!(claim.await.unwrap());

    let other = cluster.create_network(&spec("big", "10.1.0.0/16")).await;
    assert!(matches!(other, Err(Error::Exists(_))), "{other:?}");
    let network = ok!(cluster.create_network(&wanted));
    assert_eq!(network.state, NetworkState::Ready);
    assert_eq!(owners(&cluster, "big").await.len(), MANY);
    let blocks = ok!(cluster.snapshot("big")).blocks;
    assert_eq!(blocks.len(), MANY, "who had one got no other");
    let again = cluster.create_network(&wanted).await;
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn gifts_of_a_network_that_is_removed_meanwhile_are_not_made() {
    let (_, cluster) = with_nodes(&[]).await;
    many_nodes(&cluster).await;
    ok!(cluster.ensure_network(&spec("big", "10.0.0.0/16")));
    ok!(cluster.remove_network("big", 0));
    let finished = cluster.finish_network("big").await;
    assert!(matches!(finished, Err(Error::NoNetwork(_))), "{finished:?}");
    assert!(owners(&cluster, "big").await.is_empty());
}

#[tokio::test]
async fn a_second_network_gets_its_own_vni_and_may_not_overlap() {
    let (store, cluster) = with_nodes(&[]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    assert_eq!(
        ok!(cluster.create_network(&spec("b", "10.0.1.0/24"))).vni,
        Some(4098)
    );
    let overlap = err!(cluster.create_network(&spec("c", "10.0.0.0/16")));
    assert!(
        matches!(&overlap, Error::Overlap { other, .. } if other == "a"),
        "{overlap}"
    );
    let taken = NetworkSpec {
        vni: Some(4097),
        ..spec("d", "10.0.2.0/24")
    };
    let taken = err!(cluster.create_network(&taken));
    assert!(
        matches!(&taken, Error::VniTaken { vni: 4097, other, .. } if other == "a"),
        "{taken}"
    );
    assert_eq!(
        ok!(store.read(&[cluster.layout().networks().unwrap()])).len(),
        2
    );
}

#[tokio::test]
async fn no_vni_is_chosen_that_another_network_of_the_host_has_in_use() {
    let (_, cluster) = with_nodes(&[]).await;
    let beside_others = NetworkSpec {
        in_use: [4097, 4099].into(),
        ..spec("a", "10.0.0.0/24")
    };
    let first = ok!(cluster.create_network(&beside_others));
    assert_eq!(first.vni, Some(4098));
    let second = NetworkSpec {
        ranges: spec("b", "10.0.1.0/24").ranges,
        name: "b".to_owned(),
        ..beside_others
    };
    let second = ok!(cluster.create_network(&second));
    assert_eq!(second.vni, Some(4100));
}

#[tokio::test]
async fn an_existing_network_is_taken_as_it_is_or_refused_with_both_values() {
    let (_, cluster) = with_nodes(&[]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let same = ok!(cluster.ensure_network(&spec("a", "10.0.0.0/24")));
    assert!(matches!(same, Created::Present(_)));
    let mtu = NetworkSpec {
        mtu: Some(1400),
        ..spec("a", "10.0.0.0/24")
    };
    assert!(
        cluster.ensure_network(&mtu).await.is_ok(),
        "what the record leaves open, a conflist may set"
    );
    for other in [
        spec("a", "10.9.0.0/24"),
        NetworkSpec {
            vni: Some(5000),
            ..spec("a", "10.0.0.0/24")
        },
    ] {
        let error = err!(cluster.ensure_network(&other)).to_string();
        assert!(
            error.contains("10.9.0.0/24") || error.contains("5000 here and 4097"),
            "{error}"
        );
    }
    assert!(matches!(
        cluster.create_network(&spec("a", "10.0.0.0/24")).await,
        Err(Error::Exists(_))
    ));
    let unknown = NetworkSpec {
        name: "x".into(),
        ..NetworkSpec::default()
    };
    assert!(matches!(
        cluster.ensure_network(&unknown).await,
        Err(Error::NoRanges(_))
    ));
}

#[tokio::test]
async fn a_network_with_endpoints_is_not_removed_and_one_without_leaves_nothing() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    let ip = address("10.0.0.2");
    ok!(cluster.publish("a", &[ip], &lease("n1", "c1"), &fresh));
    let refused = err!(cluster.remove_network("a", 0)).to_string();
    assert!(
        refused.contains("c1") && refused.contains("10.0.0.2") && refused.contains("n1"),
        "{refused}"
    );

    let unmoved = guard(&cluster, "a", "n1").await;
    assert_eq!(unmoved, fresh, "a refused removal writes nothing");
    let second = ok!(cluster.publish("a", &[address("10.0.0.3")], &lease("n1", "c2"), &fresh));
    assert!(
        matches!(second, Published::Done(_)),
        "a refused removal leaves the network usable"
    );
    let leases = ok!(cluster.leases("a"));
    let leases: Vec<_> = leases
        .revisions()
        .map(|(address, revision)| (*address, revision))
        .collect();
    assert!(cluster.delete_leases("a", &leases).await.unwrap());
    ok!(cluster.remove_network("a", 0));
    let rest = ok!(store.read(&[store::Key::new("crosshost").unwrap()]));
    let rest: Vec<_> = rest.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(rest, ["crosshost/v1/nodes/n1", "crosshost/v1/subnets"]);
    cluster
        .create_network(&spec("b", "10.0.0.0/16"))
        .await
        .expect("its subnet is free again");
}

#[tokio::test]
async fn an_interrupted_removal_is_taken_back_where_there_are_endpoints() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    ok!(cluster.publish("a", &[address("10.0.0.2")], &lease("n1", "c1"), &fresh));
    // A removal that was killed between its first write and its count.
    let key = cluster.layout().network("a").unwrap();
    let entry = ok!(store.get(&key)).unwrap();
    let removing = String::from_utf8(entry.value).unwrap();
    let removing = removing.replace(r#""ready""#, r#""removing""#);
    ok!(store.swap(&key, removing.as_bytes(), entry.revision)).unwrap();
    assert!(ok!(cluster.snapshot("a")).ready_network("a").is_err());

    let refused = err!(cluster.remove_network("a", 0));
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    let snapshot = ok!(cluster.snapshot("a"));
    assert!(
        snapshot.ready_network("a").is_ok(),
        "it takes attachments again"
    );
}
