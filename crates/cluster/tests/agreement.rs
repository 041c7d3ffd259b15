//! Hosts against one store: what they must agree on, and what must be refused.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::IpAddr;

use cluster::{Cluster, Created, Error, Layout, Lease, LeaseGuard, NetworkSpec, Node, Published};
use ipam::Range;
use store::{Store as _, mem::Mem};

fn cluster(store: &Mem) -> Cluster<'_> {
    Cluster::new(store, Layout::new("crosshost").unwrap())
}

fn node(name: &str) -> Node {
    let vtep = Some("192.168.1.11".parse().unwrap());
    Node {
        name: name.into(),
        vtep,
        boot_id: "boot-1".into(),
        last_contact: 1,
    }
}

fn spec(name: &str, subnet: &str) -> NetworkSpec {
    let ranges = vec![vec![Range::of(subnet.parse().unwrap()).unwrap()]];
    NetworkSpec {
        name: name.into(),
        segment: true,
        ranges,
        ..NetworkSpec::default()
    }
}

fn lease(node: &str, container: &str) -> Lease {
    Lease {
        node: node.into(),
        boot_id: "boot-1".into(),
        container: container.into(),
        ifname: "eth0".into(),
        since: 5,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn guard(cluster: &Cluster<'_>, network: &str, node: &str) -> LeaseGuard {
    let news = cluster.news(network).await.unwrap();
    let (block, revision) = news.blocks_of(node).pop_first().unwrap();
    LeaseGuard {
        network: news.network.unwrap().revision,
        blocks: [(block, revision)].into(),
    }
}

#[tokio::test]
async fn every_registered_node_has_a_block_of_a_new_network() {
    let store = Mem::new();
    let cluster = cluster(&store);
    for name in ["docker01", "docker02", "docker03"] {
        cluster.register(&node(name)).await.unwrap();
    }
    let network = cluster
        .create_network(&spec("ov_net1", "10.0.0.0/24"))
        .await
        .unwrap();
    assert_eq!(network.vni, Some(4097));
    let news = cluster.news("ov_net1").await.unwrap();
    let owners: Vec<_> = news
        .blocks
        .iter()
        .map(|(b, r)| (b.to_string(), r.record.node.clone()))
        .collect();
    let expected = [
        ("10.0.0.0_29", "docker01"),
        ("10.0.0.8_29", "docker02"),
        ("10.0.0.16_29", "docker03"),
    ];
    assert_eq!(owners, expected.map(|(b, n)| (b.to_owned(), n.to_owned())));
}

#[tokio::test]
async fn more_nodes_than_fit_one_transaction_get_their_blocks_too() {
    let store = Mem::new();
    let cluster = cluster(&store);
    for n in 0..100 {
        cluster.register(&node(&format!("n{n:03}"))).await.unwrap();
    }
    cluster
        .create_network(&spec("big", "10.0.0.0/16"))
        .await
        .unwrap();
    assert_eq!(cluster.news("big").await.unwrap().blocks.len(), 100);
}

#[tokio::test]
async fn a_second_network_gets_its_own_vni_and_may_not_overlap() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    assert_eq!(
        cluster
            .create_network(&spec("b", "10.0.1.0/24"))
            .await
            .unwrap()
            .vni,
        Some(4098)
    );
    let overlap = cluster
        .create_network(&spec("c", "10.0.0.0/16"))
        .await
        .unwrap_err();
    assert!(
        matches!(&overlap, Error::Overlap { other, .. } if other == "a"),
        "{overlap}"
    );
    let taken = NetworkSpec {
        vni: Some(4097),
        ..spec("d", "10.0.2.0/24")
    };
    let taken = cluster.create_network(&taken).await.unwrap_err();
    assert!(
        matches!(&taken, Error::VniTaken { vni: 4097, other, .. } if other == "a"),
        "{taken}"
    );
    assert_eq!(
        store
            .read(&[cluster.layout().networks().unwrap()])
            .await
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn an_existing_network_is_taken_as_it_is_or_refused_with_both_values() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let same = cluster
        .ensure_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
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
        let error = cluster
            .ensure_network(&other)
            .await
            .unwrap_err()
            .to_string();
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
        Err(Error::NoNetwork(_))
    ));
}

#[tokio::test]
async fn a_lease_is_one_write_and_is_refused_on_old_news() {
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
    assert!(matches!(other, Published::Taken(_, held) if held.record.container == "c1"));

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
    cluster.remove_node("n1").await.unwrap();
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
    cluster
        .release("a", ip, &lease("n1", "c2"), None)
        .await
        .unwrap();
    assert_eq!(
        cluster.leases("a").await.unwrap().len(),
        1,
        "another attachment's release does nothing"
    );
    cluster
        .release("a", ip, &lease("n1", "c1"), Some(old[0]))
        .await
        .unwrap();
    cluster
        .publish("a", &[ip], &lease("n1", "c2"), &fresh)
        .await
        .unwrap();
    cluster
        .release("a", ip, &lease("n1", "c1"), Some(old[0]))
        .await
        .unwrap();
    let leases = cluster.leases("a").await.unwrap();
    assert_eq!(
        leases[0].1.record.container, "c2",
        "a late release does not free the next holder"
    );
}

#[tokio::test]
async fn a_network_with_endpoints_is_not_removed_and_one_without_leaves_nothing() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let fresh = guard(&cluster, "a", "n1").await;
    let ip = address("10.0.0.2");
    cluster
        .publish("a", &[ip], &lease("n1", "c1"), &fresh)
        .await
        .unwrap();
    let refused = cluster.remove_network("a").await.unwrap_err().to_string();
    assert!(
        refused.contains("c1") && refused.contains("10.0.0.2") && refused.contains("n1"),
        "{refused}"
    );

    let fresh = guard(&cluster, "a", "n1").await;
    let second = cluster
        .publish("a", &[address("10.0.0.3")], &lease("n1", "c2"), &fresh)
        .await
        .unwrap();
    assert!(
        matches!(second, Published::Done(_)),
        "a refused removal leaves the network usable"
    );
    cluster
        .release("a", ip, &lease("n1", "c1"), None)
        .await
        .unwrap();
    cluster
        .release("a", address("10.0.0.3"), &lease("n1", "c2"), None)
        .await
        .unwrap();
    cluster.remove_network("a").await.unwrap();
    let rest = store
        .read(&[store::Key::new("crosshost").unwrap()])
        .await
        .unwrap();
    let rest: Vec<_> = rest.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(rest, ["crosshost/v1/nodes/n1", "crosshost/v1/subnets"]);
    cluster
        .create_network(&spec("b", "10.0.0.0/16"))
        .await
        .expect("its subnet is free again");
}

#[tokio::test]
async fn a_host_that_is_full_claims_the_next_block_though_its_news_are_old() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster.register(&node("n1")).await.unwrap();
    cluster
        .create_network(&spec("a", "10.0.0.0/24"))
        .await
        .unwrap();
    let ranges = [Range::of("10.0.0.0/24".parse().unwrap()).unwrap()];
    let mut old = cluster.news("a").await.unwrap();
    let first = cluster
        .claim_block("a", "n2", &ranges, &mut cluster.news("a").await.unwrap())
        .await
        .unwrap();
    let second = cluster
        .claim_block("a", "n3", &ranges, &mut old)
        .await
        .unwrap();
    assert_eq!(
        [first.to_string(), second.to_string()],
        ["10.0.0.8_29", "10.0.0.16_29"]
    );
    let foreign = cluster
        .claim_block_of("a", "n2", address("10.0.0.18"), &ranges[0], &mut old)
        .await
        .unwrap_err();
    assert!(
        matches!(&foreign, Error::ForeignBlock { node, .. } if node == "n3"),
        "{foreign}"
    );
}

#[tokio::test]
async fn when_all_blocks_have_owners_the_error_says_who_has_how_many() {
    let store = Mem::new();
    let cluster = cluster(&store);
    cluster
        .create_network(&spec("a", "10.0.0.0/28"))
        .await
        .unwrap();
    let ranges = [Range::of("10.0.0.0/28".parse().unwrap()).unwrap()];
    let mut news = cluster.news("a").await.unwrap();
    for n in 0..13 {
        cluster
            .claim_block("a", ["n1", "n2"][n % 2], &ranges, &mut news)
            .await
            .unwrap();
    }
    let full = cluster
        .claim_block("a", "n1", &ranges, &mut news)
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
