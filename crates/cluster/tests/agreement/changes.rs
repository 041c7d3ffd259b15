//! Changes of a network in place: one transaction, after which nothing is written by the record as it was.

use cluster::{Error, NetworkChange, Published};
use ipam::Range;

use crate::{address, guard, lease, spec, with_nodes};

fn further(subnet: &str) -> NetworkChange {
    NetworkChange {
        subnets: vec![Range::of(subnet.parse().unwrap()).unwrap()],
        ..NetworkChange::default()
    }
}

#[tokio::test]
async fn a_change_is_heard_of_by_a_block_and_outdates_the_guards_of_leases() {
    let (store, cluster) = with_nodes(&["docker01", "docker02"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let old = guard(&cluster, "a", "docker02").await;
    let before = ok!(cluster.snapshot("a"));

    let calls = store.calls();
    let changed = ok!(cluster.change_network("a", &further("10.0.2.0/24")));
    assert_eq!(store.calls() - calls, 2, "one read and one transaction");
    let subnets: Vec<_> = changed.subnets().iter().map(ToString::to_string).collect();
    assert_eq!(subnets, ["10.0.0.0/24", "10.0.2.0/24"]);
    let after = ok!(cluster.snapshot("a"));
    assert_eq!(after.network.as_ref().unwrap().record, changed);
    // Watchers follow the blocks: one has another revision, and all say the same.
    let revised = before.blocks.revisions().zip(after.blocks.revisions());
    assert_eq!(revised.filter(|(one, other)| one != other).count(), 1);
    for (block, record) in after.blocks.readable() {
        assert_eq!(record.record, before.blocks[block].record);
    }
    let (ips, holder) = ([address("10.0.0.9")], lease("docker02", "c1"));
    assert_eq!(
        ok!(cluster.publish("a", &ips, &holder, &old)),
        Published::Stale
    );

    // The same change again is none.
    let calls = store.calls();
    let labels = NetworkChange {
        without_labels: ["none".to_owned()].into(),
        ..NetworkChange::default()
    };
    ok!(cluster.change_network("a", &labels));
    assert_eq!(store.calls() - calls, 1, "nothing was written");
}

#[tokio::test]
async fn a_further_subnet_is_one_networks_alone() {
    let (_, cluster) = with_nodes(&["docker01"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    ok!(cluster.create_network(&spec("b", "10.0.1.0/24")));
    let refused = err!(cluster.change_network("a", &further("10.0.1.0/24")));
    assert!(matches!(refused, Error::Overlap { .. }), "{refused}");
    let refused = err!(cluster.change_network("none", &further("10.0.2.0/24")));
    assert!(matches!(refused, Error::NoNetwork(_)), "{refused}");
    // Both want it at the same moment.
    let wanted = further("10.0.2.0/24");
    let (one, other) = tokio::join!(
        cluster.change_network("a", &wanted),
        cluster.change_network("b", &wanted),
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let refused = err!(cluster.create_network(&spec("c", "10.0.2.0/24")));
    assert!(matches!(refused, Error::Overlap { .. }), "{refused}");
    for name in ["a", "b"] {
        ok!(cluster.remove_network(name, 0));
    }
    ok!(cluster.create_network(&spec("c", "10.0.2.0/24")));
}
