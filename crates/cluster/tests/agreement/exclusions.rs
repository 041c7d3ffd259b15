//! Exclusions: single addresses change hands with the consent of the node that has them, and never before all members have
//! dropped the old home.

use cluster::{Cluster, Error, ExclusionState, NetworkSnapshot};

use crate::{NOW, address, block_of, node, three, with_id, with_nodes};

#[tokio::test]
async fn an_address_of_anothers_block_takes_its_owners_consent_and_everyones_acknowledgement() {
    let (_, cluster) = with_nodes(&[]).await;
    let mut snapshot = three(&cluster, &with_id("10.0.0.0/24")).await;
    let (block, _) = block_of(&snapshot, "n2");
    let wanted = block.last();
    let ack = ok!(cluster.join("a", "n3", "boot-1"));
    let obtain = async |snapshot: &mut NetworkSnapshot| {
        cluster
            .obtain("a", "n1", wanted, block, snapshot, NOW, 5)
            .await
    };

    let unanswered = obtain(&mut snapshot).await.unwrap_err();
    assert!(
        matches!(&unanswered, Error::Waiting { nodes, .. } if nodes == &["n2"]),
        "{unanswered}"
    );
    let snapshot = &mut ok!(cluster.snapshot("a"));
    assert_eq!(snapshot.home(wanted), None, "nobody sends there any more");
    cluster
        .answer("a", "n2", block, &snapshot.blocks[&block], |_| false)
        .await
        .unwrap()
        .unwrap();
    *snapshot = ok!(cluster.snapshot("a"));
    let unseen = obtain(snapshot).await.unwrap_err();
    assert!(
        matches!(&unseen, Error::Waiting { nodes, .. } if nodes == &["n3"]),
        "{unseen}"
    );
    assert!(unseen.to_string().contains("crosshost sync"), "{unseen}");

    ok!(cluster.acknowledge("a", "n3", snapshot, &ack));
    obtain(snapshot).await.unwrap();
    assert_eq!(ok!(cluster.snapshot("a")).home(wanted), Some("n1"));

    // And back: the owner has it again when all members have dropped n1.
    let present = snapshot.blocks[&block].clone();
    ok!(cluster.return_exclusion("a", block, &present, wanted)).unwrap();
    let snapshot = ok!(cluster.snapshot("a"));
    let absorb = async |snapshot: &NetworkSnapshot| {
        cluster
            .absorb("a", "n2", block, &snapshot.blocks[&block], &|_, _| false)
            .await
            .unwrap()
    };
    assert!(absorb(&snapshot).await.is_none(), "n3 has not seen it");
    let ack = ok!(cluster.join("a", "n3", "boot-1"));
    ok!(cluster.acknowledge("a", "n3", &snapshot, &ack));
    assert!(absorb(&snapshot).await.is_some());
    assert_eq!(ok!(cluster.snapshot("a")).home(wanted), Some("n2"));
}

#[tokio::test]
async fn an_owner_refuses_what_it_has_in_use() {
    let (_, cluster) = with_nodes(&[]).await;
    let mut snapshot = three(&cluster, &with_id("10.0.0.0/24")).await;
    let (block, _) = block_of(&snapshot, "n2");
    let wanted = block.last();
    err!(cluster.obtain("a", "n1", wanted, block, &mut snapshot, NOW, 5));
    let snapshot = ok!(cluster.snapshot("a"));
    cluster
        .answer("a", "n2", block, &snapshot.blocks[&block], |address| {
            address == wanted
        })
        .await
        .unwrap()
        .unwrap();
    let snapshot = ok!(cluster.snapshot("a"));
    assert_eq!(snapshot.home(wanted), Some("n2"));
    assert!(snapshot.blocks[&block].record.exclusions.is_empty());
}

#[tokio::test]
async fn a_node_that_never_used_its_block_need_not_be_asked() {
    let (_, cluster) = with_nodes(&["n1", "n2"]).await;
    ok!(cluster.create_network(&with_id("10.0.0.0/24")));
    let mut snapshot = ok!(cluster.snapshot("a"));
    let (block, _) = block_of(&snapshot, "n2");
    let mut old = snapshot.clone();
    ok!(cluster.obtain("a", "n1", block.last(), block, &mut snapshot, NOW, 5));
    assert_eq!(snapshot.home(block.last()), Some("n1"));

    // Once n2 keeps a ledger it is asked, whatever the asking node has read before.
    ok!(cluster.keep_ledger("a", "n2", "boot-1"));
    let wanted = address("10.0.0.12");
    assert!(block.contains(wanted));
    let asked = cluster
        .obtain("a", "n1", wanted, block, &mut old, NOW, 5)
        .await;
    assert!(matches!(asked, Err(Error::Waiting { .. })));
}

/// An address of n2's block that went to n1, with a snapshot that has it. n3 is not involved.
async fn given_to_n1(cluster: &Cluster<'_>) -> (NetworkSnapshot, ipam::Block, std::net::IpAddr) {
    let mut snapshot = three(cluster, &with_id("10.0.0.0/24")).await;
    let (block, _) = block_of(&snapshot, "n2");
    let wanted = block.last();
    let unanswered = cluster.obtain("a", "n1", wanted, block, &mut snapshot, NOW, 5);
    unanswered.await.unwrap_err();
    let mut snapshot = ok!(cluster.snapshot("a"));
    let answered = cluster.answer("a", "n2", block, &snapshot.blocks[&block], |_| false);
    answered.await.unwrap().unwrap();
    let obtained = cluster.obtain("a", "n1", wanted, block, &mut snapshot, NOW, 5);
    obtained.await.unwrap();
    (snapshot, block, wanted)
}

#[tokio::test]
async fn an_address_that_went_to_a_node_is_asked_of_that_node_only() {
    let (_, cluster) = with_nodes(&[]).await;
    // By the block's owner, which no longer decides about it, and by a third node.
    for asker in ["n2", "n3"] {
        let (mut snapshot, block, wanted) = given_to_n1(&cluster).await;
        let ack = ok!(cluster.join("a", "n2", "boot-1"));
        for _ in 0..2 {
            let unanswered = cluster.obtain("a", asker, wanted, block, &mut snapshot, NOW, 5);
            let unanswered = unanswered.await.unwrap_err();
            assert!(
                matches!(&unanswered, Error::Waiting { nodes, .. } if nodes == &["n1"]),
                "{unanswered}"
            );
            snapshot = ok!(cluster.snapshot("a"));
            assert_eq!(snapshot.home(wanted), Some("n1"), "until it has answered");
        }

        // n1 uses it, and refuses each request once.
        let answer = async |who: &str, snapshot: &NetworkSnapshot, in_use: bool| {
            let present = &snapshot.blocks[&block];
            let answered = cluster.answer("a", who, block, present, |_| in_use).await;
            answered.unwrap().unwrap();
            ok!(cluster.snapshot("a"))
        };
        snapshot = answer("n2", &snapshot, true).await;
        assert!(
            snapshot.blocks[&block].record.exclusions[&wanted].wanted,
            "not n2's to answer"
        );
        snapshot = answer("n1", &snapshot, true).await;
        assert!(!snapshot.blocks[&block].record.exclusions[&wanted].wanted);
        assert_eq!(snapshot.home(wanted), Some("n1"));

        // n1 does not use it: it gives it back, and all members have to drop it.
        let unanswered = cluster.obtain("a", asker, wanted, block, &mut snapshot, NOW, 5);
        unanswered.await.unwrap_err();
        let present = ok!(cluster.snapshot("a")).blocks[&block].clone();
        let returned = cluster.return_exclusion("a", block, &present, wanted);
        returned.await.unwrap().unwrap();
        let mut snapshot = ok!(cluster.snapshot("a"));
        if asker == "n3" {
            let unseen = cluster.obtain("a", asker, wanted, block, &mut snapshot, NOW, 5);
            let unseen = unseen.await.unwrap_err();
            assert!(
                matches!(&unseen, Error::Waiting { nodes, .. } if nodes == &["n2"]),
                "{unseen}"
            );
        }
        ok!(cluster.acknowledge("a", "n2", &snapshot, &ack));
        let obtained = cluster.obtain("a", asker, wanted, block, &mut snapshot, NOW, 5);
        obtained.await.unwrap();
        let snapshot = ok!(cluster.snapshot("a"));
        assert_eq!(snapshot.home(wanted), Some(asker));
        assert!(!snapshot.blocks[&block].record.exclusions[&wanted].wanted);
        ok!(cluster.leave("a", "n2", ack.revision));
        ok!(cluster.remove_network("a", 0));
    }
}

#[tokio::test]
async fn what_is_the_owners_again_by_the_time_of_the_answer_is_asked_of_the_owner() {
    let (_, cluster) = with_nodes(&[]).await;
    for asker in ["n2", "n3"] {
        let (mut snapshot, block, wanted) = given_to_n1(&cluster).await;
        // n1 gives it back, and n2 ends the exclusion before the asking node has read the answer.
        let ended = async {
            let present = loop {
                let present = ok!(cluster.snapshot("a")).blocks[&block].clone();
                if present.record.exclusions[&wanted].wanted {
                    break present;
                }
                tokio::task::yield_now().await;
            };
            let returned = cluster.return_exclusion("a", block, &present, wanted).await;
            let returned = returned.unwrap().unwrap();
            let absorbed = cluster.absorb("a", "n2", block, &returned, &|_, _| false);
            absorbed.await.unwrap().unwrap();
        };
        let patience = std::time::Duration::from_millis(500);
        let obtained = cluster.obtain("a", asker, wanted, block, &mut snapshot, patience, 5);
        let (obtained, ()) = tokio::join!(obtained, ended);
        if asker == "n2" {
            obtained.unwrap();
            assert_eq!(ok!(cluster.snapshot("a")).home(wanted), Some("n2"));
        } else {
            let unanswered = obtained.unwrap_err();
            assert!(
                matches!(&unanswered, Error::Waiting { nodes, .. } if nodes == &["n2"]),
                "{unanswered}"
            );
        }
        ok!(cluster.remove_network("a", 0));
    }
}

#[tokio::test]
async fn a_node_that_booted_since_has_no_use_for_what_went_to_it() {
    let (_, cluster) = with_nodes(&[]).await;
    let (_, block, wanted) = given_to_n1(&cluster).await;
    let booted = cluster::Node {
        boot_id: "boot-2".into(),
        ..node("n1")
    };
    ok!(cluster.register(&booted));
    let mut snapshot = ok!(cluster.snapshot("a"));
    let obtained = cluster.obtain("a", "n3", wanted, block, &mut snapshot, NOW, 5);
    obtained.await.unwrap();
    assert_eq!(ok!(cluster.snapshot("a")).home(wanted), Some("n3"));
}

#[tokio::test]
async fn a_container_that_has_an_address_already_is_not_made_to_ask_for_it() {
    let (_store, cluster) = with_nodes(&[]).await;
    // As after a restore from an old backup: the store has a request that is older than the container.
    for (owner, home) in [("n3", "n3"), ("n2", "n2")] {
        let mut snapshot = three(&cluster, &with_id("10.0.0.0/24")).await;
        let (block, _) = block_of(&snapshot, "n2");
        let held = address(&block.last().to_string());
        let unanswered = cluster.obtain("a", "n1", held, block, &mut snapshot, NOW, 5);
        unanswered.await.unwrap_err();
        let present = ok!(cluster.snapshot("a")).blocks[&block].clone();
        assert_eq!(present.record.home(held), None);
        let reinstated = cluster.reinstate("a", owner, held, block, &present, 7);
        reinstated.await.unwrap().unwrap();
        let snapshot = ok!(cluster.snapshot("a"));
        assert_eq!(snapshot.home(held), Some(home));
        let exclusion = snapshot.blocks[&block].record.exclusions.get(&held);
        let given = exclusion.map(|exclusion| exclusion.state);
        let wanted = (owner != "n2").then_some(ExclusionState::Given);
        assert_eq!(given, wanted, "in its own block there is nothing to note");
        // With an older record it would undo later changes.
        let late = cluster.reinstate("a", "n1", held, block, &present, 7);
        assert!(late.await.unwrap().is_none());
        ok!(cluster.remove_network("a", 0));
    }
}
