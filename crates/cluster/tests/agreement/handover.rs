//! Blocks change hands, never before all members have dropped the old home.

use cluster::{BlockState, Claim, ExclusionState, NetworkSnapshot, NetworkSpec, Node};
use ipam::Range;
use store::{Store as _, mem::Mem};

use crate::{NOW, block_of, cluster, guard, lease, node, three, with_id, with_nodes};

#[tokio::test]
async fn a_block_given_back_is_anothers_when_all_have_dropped_it_and_its_last_owners_at_once() {
    let (_, cluster) = with_nodes(&[]).await;
    // Four blocks of four, all owned.
    let spec = NetworkSpec {
        block_prefix: Some(30),
        ..with_id("10.0.0.0/28")
    };
    let mut snapshot = three(&cluster, &spec).await;
    let set = [Range::of("10.0.0.0/28".parse().unwrap()).unwrap()];
    ok!(cluster.claim_block("a", "n1", &set, &mut snapshot, Claim::Spare));
    let ack = ok!(cluster.join("a", "n3", "boot-1"));

    let (block, present) = block_of(&snapshot, "n2");
    ok!(cluster.return_block("a", block, &present)).unwrap();
    let mut snapshot = ok!(cluster.snapshot("a"));
    assert_eq!(snapshot.home(block.first()), None);
    let needed = Claim::Needed(NOW);
    let refused = err!(cluster.claim_block("a", "n1", &set, &mut snapshot, needed));
    assert!(refused.to_string().contains("node n3"), "{refused}");

    ok!(cluster.acknowledge("a", "n3", &snapshot, &ack));
    let claimed = ok!(cluster.claim_block("a", "n1", &set, &mut snapshot, needed));
    assert_eq!(claimed, block);

    let (block, present) = block_of(&snapshot, "n3");
    ok!(cluster.return_block("a", block, &present)).unwrap();
    ok!(cluster.join("a", "n2", "boot-1"));
    let mut snapshot = ok!(cluster.snapshot("a"));
    let again = cluster
        .claim_this_block("a", "n3", block, &mut snapshot, NOW)
        .await;
    assert!(again.unwrap(), "its home does not change");
}

#[tokio::test]
async fn a_node_that_loses_the_race_for_a_returned_block_claims_the_next_one() {
    let (_, cluster) = with_nodes(&[]).await;
    // Four blocks of four; n3 has two of them and gives both back.
    let spec = NetworkSpec {
        block_prefix: Some(30),
        ..with_id("10.0.0.0/28")
    };
    let mut snapshot = three(&cluster, &spec).await;
    let set = [Range::of("10.0.0.0/28".parse().unwrap()).unwrap()];
    ok!(cluster.claim_block("a", "n3", &set, &mut snapshot, Claim::Spare));
    let of_n3: Vec<_> = (snapshot.blocks.readable())
        .filter(|(_, present)| present.record.is_of("n3"))
        .map(|(block, present)| (*block, present.clone()))
        .collect();
    for (block, present) in &of_n3 {
        let returned = cluster.return_block("a", *block, present).await;
        assert!(returned.unwrap().is_some());
    }
    let mut snapshot = ok!(cluster.snapshot("a"));
    let mut old = snapshot.clone();
    let needed = Claim::Needed(NOW);
    let claimed = [
        cluster
            .claim_block("a", "n2", &set, &mut snapshot, needed)
            .await,
        cluster.claim_block("a", "n1", &set, &mut old, needed).await,
    ];
    assert_eq!(claimed.map(Result::unwrap), [of_n3[0].0, of_n3[1].0]);
}

#[tokio::test]
async fn members_that_left_rebooted_or_were_removed_are_not_waited_for() {
    let (_, cluster) = with_nodes(&[]).await;
    let snapshot = three(&cluster, &with_id("10.0.0.0/24")).await;
    let (block, present) = block_of(&snapshot, "n2");
    let returned = ok!(cluster.return_block("a", block, &present)).unwrap();
    let late = async || ok!(cluster.waiting_for("a", "n1", returned.revision));

    let ack = ok!(cluster.join("a", "n3", "boot-1"));
    assert_eq!(late().await, ["n3"]);
    ok!(cluster.leave("a", "n3", ack.revision));
    assert!(late().await.is_empty());

    let old = ok!(cluster.join("a", "n3", "boot-1"));
    ok!(cluster.join("a", "n3", "boot-1"));
    ok!(cluster.leave("a", "n3", old.revision));
    assert_eq!(
        late().await,
        ["n3"],
        "a late leave does not undo the next join"
    );
    let booted = Node {
        boot_id: "boot-2".into(),
        ..node("n3")
    };
    ok!(cluster.register(&booted));
    assert!(late().await.is_empty());

    ok!(cluster.join("a", "n3", "boot-2"));
    assert_eq!(late().await, ["n3"]);
    ok!(cluster.remove_node("n3", true));
    assert!(late().await.is_empty());
}

#[tokio::test]
async fn a_removed_nodes_blocks_and_addresses_are_nobodys_and_its_leases_gone() {
    let (_, cluster) = with_nodes(&[]).await;
    let mut snapshot = three(&cluster, &with_id("10.0.0.0/24")).await;
    let (theirs, _) = block_of(&snapshot, "n2");
    let (own, _) = block_of(&snapshot, "n1");
    err!(cluster.obtain("a", "n1", theirs.last(), theirs, &mut snapshot, NOW, 5));
    let held = [own.last()];
    let fresh = guard(&cluster, "a", "n1").await;
    ok!(cluster.publish("a", &held, &lease("n1", "c1"), &fresh));
    ok!(cluster.remove_node("n1", true));

    let snapshot = ok!(cluster.snapshot("a"));
    assert_eq!(snapshot.blocks[&own].record.state, BlockState::Returned);
    assert!(
        snapshot.blocks[&theirs].record.exclusions.is_empty(),
        "a request dies with its node"
    );
    assert!(cluster.leases("a").await.unwrap().is_empty());
    let late = ok!(cluster.publish("a", &held, &lease("n1", "c2"), &fresh));
    assert_eq!(
        late,
        cluster::Published::Stale,
        "it cannot use its block when it comes back"
    );
}

#[tokio::test]
async fn only_addresses_that_a_silent_node_cannot_hold_are_reclaimed() {
    let (_, cluster) = with_nodes(&[]).await;
    let spec = NetworkSpec {
        reclaim_after: Some(60),
        ..with_id("10.0.0.0/24")
    };
    let mut snapshot = three(&cluster, &spec).await;
    let set = [Range::of("10.0.0.0/24".parse().unwrap()).unwrap()];
    let (kept, present) = block_of(&snapshot, "n2");
    assert!(present.record.kept, "its first one");
    let second = ok!(cluster.claim_block("a", "n2", &set, &mut snapshot, Claim::Spare));
    let guarded = cluster::LeaseGuard {
        network: snapshot.network.as_ref().unwrap().revision,
        blocks: [(second, snapshot.blocks[&second].revision)].into(),
        held: false,
    };
    let held: std::net::IpAddr = second.last();
    ok!(cluster.publish("a", &[held], &lease("n2", "c1"), &guarded));

    let silent = snapshot.nodes["n2"].revision;
    ok!(cluster.register(&node("n2")));
    let taken = ok!(cluster.reclaim("a", "n2", silent, &mut snapshot));
    assert_eq!(taken, 0, "it has been heard of since");
    let mut snapshot = ok!(cluster.snapshot("a"));
    let silent = snapshot.nodes["n2"].revision;
    assert_eq!(ok!(cluster.reclaim("a", "n2", silent, &mut snapshot)), 1);
    let record = &snapshot.blocks[&second].record;
    assert_eq!(
        (record.state, record.home(held)),
        (BlockState::Returned, Some("n2"))
    );
    assert_eq!(record.exclusions[&held].state, ExclusionState::Given);
    assert!(snapshot.blocks[&kept].record.is_of("n2"));
    let more = lease("n2", "c2");
    let late = ok!(cluster.publish("a", &[second.first()], &more, &guarded));
    assert_eq!(late, cluster::Published::Stale);
}

#[tokio::test]
async fn what_the_store_forgot_is_written_again_and_what_it_knows_better_is_left() {
    let store = Mem::new();
    let old = cluster(&store);
    let spec = with_id("10.0.0.0/24");
    let memory = three(&old, &spec).await;

    let empty = Mem::new();
    let cluster = cluster(&empty);
    let mut snapshot = ok!(cluster.snapshot("a"));
    assert!(ok!(cluster.restore(
        "a",
        &memory,
        &mut snapshot,
        &node("n1"),
        true
    )));
    let owners = |snapshot: &NetworkSnapshot| -> Vec<_> {
        snapshot
            .blocks
            .readable()
            .map(|(block, present)| (*block, present.record.node.clone()))
            .collect()
    };
    assert_eq!(owners(&snapshot), owners(&memory));
    // Watchers of the blocks, also those of older versions, notice that it was opened.
    let opened = snapshot.network.as_ref().unwrap().revision;
    let newest = snapshot.blocks.revisions().map(|(_, it)| it).max();
    assert!(newest >= Some(opened), "{newest:?}, {opened}");
    assert!(
        snapshot
            .network
            .as_ref()
            .unwrap()
            .record
            .is_same(&memory.network.as_ref().unwrap().record)
    );
    assert!(
        !ok!(cluster.restore("a", &memory, &mut snapshot, &node("n1"), true)),
        "once"
    );

    // Another network of that name is not restored.
    let other = Mem::new();
    let cluster = crate::cluster(&other);
    let spec = NetworkSpec {
        id: Some("second".into()),
        ..spec
    };
    ok!(cluster.create_network(&spec));
    let mut snapshot = ok!(cluster.snapshot("a"));
    assert!(!ok!(cluster.restore(
        "a",
        &memory,
        &mut snapshot,
        &node("n1"),
        true
    )));
    assert!(snapshot.blocks.is_empty());
}

#[tokio::test]
async fn a_removed_network_is_not_restored_and_its_name_is_free() {
    let (_, cluster) = with_nodes(&[]).await;
    let spec = with_id("10.0.0.0/24");
    let memory = three(&cluster, &spec).await;
    ok!(cluster.join("a", "n1", "boot-1"));
    let known = &memory.network.as_ref().unwrap().record;
    assert!(!cluster.was_removed(known).await.unwrap());
    ok!(cluster.remove_network("a", 0));
    assert!(cluster.was_removed(known).await.unwrap());

    // Neither a host that remembers it, with or without a container on it, nor a member.
    let mut snapshot = ok!(cluster.snapshot("a"));
    let own = node("n1");
    let restored = cluster.restore("a", &memory, &mut snapshot, &own, true);
    assert!(!restored.await.unwrap());
    let joined = cluster.join("a", "n1", "boot-1").await;
    assert!(matches!(joined, Err(cluster::Error::NoNetwork(_))));
    ok!(cluster.keep_ledger("a", "n1", "boot-1"));
    ok!(cluster.enrol("a", &own));
    assert!(cluster.leftovers().await.unwrap().is_empty());

    // A new network of its name is another network, even if the spec is the same.
    let again = ok!(cluster.create_network(&spec));
    assert!(!again.is_same(known));
    let month = 31 * 24 * 60 * 60;
    ok!(cluster.remove_network("a", month));
    assert!(cluster.was_removed(&again).await.unwrap());
    // The id is kept for a month, by the clock of a second host, too.
    let at = |name| cluster::Node {
        last_contact: 2 * month,
        ..node(name)
    };
    ok!(cluster.register(&at("n1")));
    let early = crate::spec("c", "10.0.2.0/24");
    ok!(cluster.create_network(&early));
    ok!(cluster.remove_network("c", 2 * month));
    assert!(cluster.was_removed(&again).await.unwrap());
    ok!(cluster.register(&at("n2")));
    ok!(cluster.create_network(&crate::spec("b", "10.0.1.0/24")));
    ok!(cluster.remove_network("b", 2 * month));
    assert!(!cluster.was_removed(&again).await.unwrap());
}

#[tokio::test]
async fn watchers_hear_that_a_restore_was_ended_by_a_host_that_remembers_nothing() {
    let (store, cluster) = with_nodes(&[]).await;
    three(&cluster, &with_id("10.0.0.0/24")).await;
    let key = cluster.layout().network("a").unwrap();
    let entry = ok!(store.get(&key)).unwrap();
    let text = String::from_utf8(entry.value).unwrap();
    let restoring = r#""removing","restoring":{"node":"n1","bootID":"boot"}"#;
    let text = text.replacen(r#""ready""#, restoring, 1);
    let put = store.swap(&key, text.as_bytes(), entry.revision);
    put.await.unwrap().unwrap();

    let snapshot = ok!(cluster.snapshot("a"));
    for (node, boot) in [("n2", "boot"), ("n1", "later")] {
        let ended = cluster.end_restore("a", &snapshot, node, boot);
        assert!(!ended.await.unwrap(), "{node} {boot}");
    }
    let ended = cluster.end_restore("a", &snapshot, "n1", "boot");
    assert!(ended.await.unwrap());
    let snapshot = ok!(cluster.snapshot("a"));
    let network = snapshot.network.as_ref().unwrap();
    assert_eq!(network.record.restoring, None);
    let newest = snapshot.blocks.revisions().map(|(_, it)| it).max();
    assert!(newest >= Some(network.revision), "{newest:?}");
}
