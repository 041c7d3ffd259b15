//! Nodes: a name belongs to one host, and a running host is not removed by mistake.

use cluster::{Error, ErrorKind, Node};
use store::Store as _;

use crate::{address, guard, lease, node, spec, with_nodes};

/// The node after a boot.
fn rebooted(name: &str) -> Node {
    Node {
        boot_id: "boot-2".into(),
        ..node(name)
    }
}

#[tokio::test]
async fn a_second_host_of_the_same_name_is_refused_and_told_what_to_do() {
    let (_, cluster) = with_nodes(&["n1"]).await;
    let other_address = Node {
        vtep: Some(address("192.168.1.12")),
        ..rebooted("n1")
    };
    let other_machine = Node {
        machine_id: Some("machine-2".into()),
        vtep: None,
        ..rebooted("n1")
    };
    for other in [other_address, other_machine] {
        let taken = err!(cluster.register(&other));
        assert!(matches!(taken, Error::NodeTaken(_)), "{taken}");
        assert_eq!(taken.kind(), ErrorKind::Differs);
        let text = taken.to_string();
        for word in [
            "node n1",
            "192.168.1.11",
            "machine-1",
            "node.name",
            "crosshost node rm n1 --force",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    let nodes = ok!(cluster.nodes());
    assert_eq!(nodes["n1"].record, node("n1"), "the first keeps its record");
}

#[tokio::test]
async fn a_host_is_itself_after_a_boot_and_with_a_new_address_in_the_same_boot() {
    let (_, cluster) = with_nodes(&[]).await;
    let old = Node {
        machine_id: None,
        ..node("n1")
    };
    ok!(cluster.register(&old));
    let unnamed = Node {
        machine_id: None,
        vtep: None,
        ..rebooted("n1")
    };
    for same in [rebooted("n1"), unnamed] {
        let known = ok!(cluster.register(&same)).record;
        assert_eq!(known, rebooted("n1"), "what is known stays known");
    }
    let moved = Node {
        vtep: Some(address("192.168.1.99")),
        ..rebooted("n1")
    };
    assert_eq!(cluster.register(&moved).await.unwrap().record, moved);
}

#[tokio::test]
async fn each_registration_moves_the_last_contact() {
    let (_, cluster) = with_nodes(&["n1"]).await;
    let later = Node {
        vtep: None,
        last_contact: 77,
        ..node("n1")
    };
    ok!(cluster.register(&later));
    let known = &ok!(cluster.nodes())["n1"].record;
    assert_eq!((known.last_contact, known.vtep), (77, node("n1").vtep));
}

#[tokio::test]
async fn a_node_with_endpoints_is_forgotten_by_force_only() {
    let (_, cluster) = with_nodes(&["n1", "n2"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    ok!(cluster.publish("a", &[address("10.0.0.2")], &lease("n1", "c1"), &fresh));
    let refused = err!(cluster.remove_node("n1", false));
    assert!(matches!(refused, Error::NodeInUse { .. }), "{refused}");
    let text = refused.to_string();
    for word in ["10.0.0.2", "network a", "c1", "node rm n1 --force"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(guard(&cluster, "a", "n1").await, fresh, "nothing is gone");

    ok!(cluster.remove_node("n2", false));
    ok!(cluster.remove_node("n1", true));
    assert!(cluster.leases("a").await.unwrap().is_empty());
    assert!(cluster.nodes().await.unwrap().is_empty());
}

/// The address of a lease that cannot be read tells its node.
#[tokio::test]
async fn a_node_with_a_lease_that_cannot_be_read_is_forgotten_by_force_only() {
    let (store, cluster) = with_nodes(&["n1", "n2"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let fresh = guard(&cluster, "a", "n1").await;
    let (block, _) = fresh.blocks.first_key_value().unwrap();
    let held = block.addresses().nth(2).unwrap();
    let key = store::Key::new(format!("crosshost/v1/leases/a/{held}")).unwrap();
    ok!(store.create(&key, b"{\"schema\":2}"));
    let refused = err!(cluster.remove_node("n1", false));
    assert!(matches!(refused, Error::NodeInUse { .. }), "{refused}");
    let text = refused.to_string();
    for word in [&held.to_string(), "network a", "cannot be read", "--force"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(guard(&cluster, "a", "n1").await, fresh, "nothing is gone");
    assert_eq!(cluster.endpoints_of("n1").await.unwrap().len(), 1);
    assert_eq!(cluster.endpoints_of("n2").await.unwrap(), []);

    ok!(cluster.remove_node("n2", false));
    ok!(cluster.remove_node("n1", true));
    assert!(store.get(&key).await.unwrap().is_some(), "it stays taken");
}

/// After a loss of data, all hosts restore blocks, but only a node itself restores its record.
#[tokio::test]
async fn a_node_of_which_only_blocks_are_left_is_removed_too() {
    let (store, cluster) = with_nodes(&["n1", "n2"]).await;
    ok!(cluster.create_network(&spec("a", "10.0.0.0/24")));
    let key = store::Key::new("crosshost/v1/nodes/n2").unwrap();
    let entries = ok!(store.read(std::slice::from_ref(&key)));
    let revision = entries[0].revision;
    let gone = store.apply(&[store::Op::Delete { key, revision }]).await;
    assert!(matches!(gone, Ok(store::Outcome::Done(_))));

    ok!(cluster.remove_node("n2", false));
    let snapshot = ok!(cluster.snapshot("a"));
    assert!(
        snapshot
            .blocks
            .readable()
            .all(|(_, block)| !block.record.is_of("n2")),
        "{:?}",
        snapshot.blocks
    );
    let again = err!(cluster.remove_node("n2", false));
    assert!(again.to_string().contains("n2"), "{again}");
}

#[tokio::test]
async fn a_record_says_which_build_registered_it_and_does_without_where_it_does_not() {
    let (store, cluster) = with_nodes(&["n1"]).await;
    // A host without `overlay` does not write it.
    let silent = Node {
        version: None,
        commit: None,
        ..node("n1")
    };
    let known = ok!(cluster.register(&silent)).record;
    assert_eq!(known, node("n1"), "what is known stays known");
    let newer = Node {
        version: Some("1.1.0".into()),
        commit: None,
        ..node("n1")
    };
    assert_eq!(cluster.register(&newer).await.unwrap().record, newer);

    // As versions up to commit 86dc1f2 write it.
    let earlier = br#"{"schema":1,"name":"n2","vtep":"192.168.1.12","bootID":"b","lastContact":1}"#;
    let key = store::Key::new("crosshost/v1/nodes/n2").unwrap();
    ok!(store.create(&key, earlier));
    let found = ok!(cluster.node("n2"))
        .unwrap()
        .readable()
        .unwrap()
        .record
        .clone();
    assert_eq!((found.version, found.commit), (None, None));
}
