//! Requested MACs: each belongs to one attachment, and goes to another node only when all members have dropped the old home.

use std::net::IpAddr;

use cluster::{Cluster, Error, Lease, NetworkSnapshot, Published};
use ipam::Mac;

use crate::{NOW, address, block_of, guard, lease, spec, three, with_nodes};

fn asking(node: &str, container: &str) -> Lease {
    Lease {
        mac: Some("02:11:22:33:44:55".parse().unwrap()),
        ..lease(node, container)
    }
}

fn mac() -> Mac {
    asking("", "").mac.unwrap()
}

/// Publishes the first address of a node's block for `lease`. Returns the revision.
async fn publish(
    cluster: &Cluster<'_>,
    snapshot: &NetworkSnapshot,
    lease: &Lease,
) -> Result<u64, Error> {
    let held = [block_of(snapshot, &lease.node).0.last()];
    let fresh = guard(cluster, "a", &lease.node).await;
    let published = cluster.publish("a", &held, lease, &fresh).await?;
    let Published::Done(revisions) = published else {
        panic!("{published:?}")
    };
    Ok(revisions[0])
}

async fn forwards(
    cluster: &Cluster<'_>,
    node: &str,
) -> cluster::Versioned<cluster::Acknowledgement> {
    ok!(cluster.join("a", node, "boot-1"))
}

#[tokio::test]
async fn a_mac_belongs_to_one_attachment_and_is_in_the_snapshot() {
    let (_, cluster) = with_nodes(&[]).await;
    let snapshot = three(&cluster, &spec("a", "10.0.0.0/24")).await;
    let before = snapshot.revision();
    ok!(publish(&cluster, &snapshot, &asking("n2", "c1")));
    let heard = ok!(cluster.snapshot("a"));
    let held = block_of(&snapshot, "n2").0.last();
    assert_eq!(heard.exceptions(), [(held, mac())].into());
    assert!(heard.revision() > before);
    assert_eq!(heard.last_dropped(), 0, "nothing has lost its home");
    let (watched, _) = ok!(cluster.watch_blocks("a", 0, NOW));
    assert_eq!(
        (&watched.macs, &watched.blocks),
        (&heard.macs, &heard.blocks)
    );

    let other = err!(publish(&cluster, &snapshot, &asking("n1", "c2")));
    assert!(matches!(other, Error::BadMac { .. }), "{other}");
    let text = other.to_string();
    assert!(
        text.contains("02:11:22:33:44:55") && text.contains("c1 on node n2"),
        "{text}"
    );
    let leases = ok!(cluster.leases("a"));
    assert_eq!(leases.len(), 1, "nothing was written for it");
    ok!(publish(&cluster, &snapshot, &asking("n2", "c1")));
}

#[tokio::test]
async fn a_mac_goes_to_another_node_when_all_have_dropped_the_old_one() {
    let (_, cluster) = with_nodes(&[]).await;
    let snapshot = three(&cluster, &spec("a", "10.0.0.0/24")).await;
    ok!(publish(&cluster, &snapshot, &asking("n2", "c1")));
    let own = forwards(&cluster, "n3").await;
    // The removal of its node gives it back, as it does with blocks and addresses.
    ok!(cluster.remove_node("n2", true));
    let heard = ok!(cluster.snapshot("a"));
    assert!(heard.macs[&mac()].record.returned && heard.exceptions().is_empty());
    assert_eq!(
        heard.last_dropped(),
        heard.revision().max(heard.macs[&mac()].revision)
    );

    let late = err!(publish(&cluster, &snapshot, &asking("n1", "c2")));
    let Error::Waiting { nodes, what, .. } = &late else {
        panic!("{late}")
    };
    assert_eq!(
        (nodes.as_slice(), what.as_str()),
        (["n3".to_owned()].as_slice(), "MAC 02:11:22:33:44:55")
    );
    ok!(cluster.acknowledge("a", "n3", &heard, &own));
    ok!(publish(&cluster, &snapshot, &asking("n1", "c2")));
    let held: IpAddr = block_of(&snapshot, "n1").0.last();
    let heard = ok!(cluster.snapshot("a"));
    assert_eq!(heard.exceptions(), [(held, mac())].into());
    assert_ne!(held, address("10.0.0.2"));
}

/// In an old snapshot a MAC may belong to a node that has given it back since.
#[tokio::test]
async fn a_container_keeps_its_mac_after_a_restore_of_the_store() {
    let (_, cluster) = with_nodes(&[]).await;
    let snapshot = three(&cluster, &spec("a", "10.0.0.0/24")).await;
    ok!(publish(&cluster, &snapshot, &asking("n2", "c1")));
    let held = [block_of(&snapshot, "n1").0.last()];
    let guard = cluster::LeaseGuard {
        held: true,
        ..guard(&cluster, "a", "n1").await
    };
    let (name, asking) = ("a", asking("n1", "c2"));
    let published = cluster.publish(name, &held, &asking, &guard).await;
    assert!(matches!(published, Ok(Published::Done(_))), "{published:?}");
    let heard = ok!(cluster.snapshot("a"));
    assert_eq!(heard.exceptions(), [(held[0], mac())].into());
}
