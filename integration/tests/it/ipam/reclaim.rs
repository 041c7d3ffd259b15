//! A host that is silent for longer than the `reclaimAfter` of a network: who needs room there takes its blocks. It may live on,
//! cut off from the store, so only what no container of it can hold is taken: a block of each pool it keeps, without the
//! store it gives out of that one alone, and what its containers have of the others stays theirs. Without the option
//! nothing is ever taken.
//!
//! Hours pass by a clock that jumps on one host: silence is what the others observe, each by its own clock since boot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ipam::small_pool::{
    NETWORK, check, del, fill_at_once, four_blocks, holders, node_record, two_hosts,
};
use crate::ownership;
use crate::ownership::{blocks, fill, held_locally, home, ip, later, nothing_is_left_over};
use integration::{Direct, Host, Lab};
use serde_json::Value;

/// Longer than the rest of a freed address, which is 60 s.
const RESTED: u64 = 61;
/// The `reclaimAfter` of the scenarios, long beside what a test takes.
const AFTER: u64 = 600;
/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";
const AWAY: &str = "192.168.1.5:1";

/// The blocks that a host owns, by their first addresses, with whether it keeps them.
fn owned(lab: &Lab, host: &Host) -> Vec<(IpAddr, bool)> {
    let own = blocks(lab, NETWORK).into_iter();
    let own = own.filter(|it| it.node() == host.name() && it.record["state"].is_null());
    own.map(|it| (it.first, it.record["kept"] == true))
        .collect()
}

/// The first host has ten containers in its two blocks, the other one has filled the rest of the pool; by container.
fn full_with_a_silent_host(
    hosts: &[Direct],
    conf: &Value,
) -> (BTreeMap<String, IpAddr>, BTreeMap<String, IpAddr>) {
    let (one, two) = (&hosts[0], &hosts[1]);
    let name = |(number, address)| (format!("docker01-{number}"), address);
    let old = fill(one, conf, 0..10).into_iter().enumerate();
    let own = fill(two, conf, 0..16).into_iter().enumerate();
    let of_two = |(number, address)| (format!("docker02-{number}"), address);
    (old.map(name).collect(), own.map(of_two).collect())
}

#[test]
fn a_silent_hosts_blocks_are_taken_after_the_time_that_its_network_sets_and_not_before() {
    let lab = two_hosts();
    let conf = four_blocks(Some(AFTER));
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let (old, own) = full_with_a_silent_host(&hosts, &conf);
    let [first, second] = owned(&lab, one.host())[..] else {
        panic!("not two blocks: {:?}", owned(&lab, one.host()));
    };
    assert_eq!((first.1, second.1), (true, false), "the first is kept");
    let in_second: Vec<_> = old
        .values()
        .filter(|it| **it >= second.0)
        .copied()
        .collect();
    assert_eq!(in_second.len(), 2);
    let silent = node_record(&lab, one.host());
    let refused = || {
        let words = ["exhausted", "waits for node docker01", "crosshost sync"];
        two.add("more", &conf).refused(102, &words);
        assert_eq!(owned(&lab, one.host()), [first, second]);
    };
    refused();
    two.host().namespace().let_pass(AFTER - 100);
    refused();
    assert_eq!(node_record(&lab, one.host()), silent, "silent all the time");

    // Each verb of it is a sign of life, once a quarter of the time has passed since the last one.
    del(one, "never", &conf);
    assert_eq!(node_record(&lab, one.host()), silent);
    one.host().namespace().let_pass(AFTER / 4 + 1);
    del(one, "never", &conf);
    let heard = node_record(&lab, one.host());
    assert_ne!(heard, silent);
    two.host().namespace().let_pass(101);
    refused();
    two.host().namespace().let_pass(AFTER - 100);
    refused();
    two.host().namespace().let_pass(101);
    let more = fill_at_once(two, &conf, "more");
    assert_eq!(node_record(&lab, one.host()), heard);
    // All of the block but what containers of the silent host have there; nothing of the kept one.
    let taken: BTreeSet<_> = more.values().copied().collect();
    let of_block = (0..8).map(|n| ownership::above(second.0, n));
    let free: BTreeSet<_> = of_block.filter(|it| !in_second.contains(it)).collect();
    assert_eq!(taken, free);
    assert_eq!(owned(&lab, one.host()), [first]);
    assert_eq!(
        home(&lab, NETWORK, more["more0"]).as_deref(),
        Some("docker02")
    );
    let now = holders(&lab);
    for (id, address) in &old {
        assert_eq!(home(&lab, NETWORK, *address).as_deref(), Some("docker01"));
        assert_eq!(now[address], ("docker01".to_owned(), id.clone()));
    }

    // Back again, it gives nothing of what was taken, and lacks nothing of what its containers have.
    one.add("back", &conf).refused(102, &["exhausted"]);
    assert_eq!(holders(&lab), now);
    one.host().sync();
    assert_ne!(node_record(&lab, one.host()), heard);
    for (id, address) in &old {
        check(one, id, *address, &conf).ok();
    }
    for (id, _) in own.iter().take(16) {
        del(two, id, &conf);
    }
    later(two.host(), RESTED);
    let back = ip(&one.given("back", &conf)[0]);
    assert_eq!(home(&lab, NETWORK, back).as_deref(), Some("docker01"));
    assert!(own.values().any(|address| *address == back), "{back}");
    assert_eq!(
        owned(&lab, one.host()).len(),
        2,
        "a block, and not one address"
    );
    nothing_is_left_over(&lab, NETWORK, 32 - 16 + 1);
}

#[test]
fn a_host_that_asks_for_room_in_vain_is_not_silent() {
    let lab = two_hosts();
    let conf = four_blocks(Some(AFTER));
    let hosts = Direct::on_all(&lab);
    full_with_a_silent_host(&hosts, &conf);
    fill(&hosts[0], &conf, 10..16);
    let mine = owned(&lab, lab.host(1));
    for _ in 0..8 {
        for host in &hosts {
            host.host().namespace().let_pass(AFTER / 5);
            host.add("more", &conf).refused(102, &["exhausted"]);
        }
    }
    assert_eq!(owned(&lab, lab.host(1)), mine);
}

#[test]
fn without_its_store_a_host_gives_only_what_is_never_taken_from_it() {
    let lab = two_hosts();
    let conf = four_blocks(Some(AFTER));
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    let old = fill(one, &conf, 0..10);
    del(one, "docker01-3", &conf);
    del(one, "docker01-4", &conf);
    one.host().configure(NO_STORE);
    // Of the kept block what it freed just now, though the other one has six that were never used.
    let mut alone = fill(one, &conf, 10..11);
    // Its contact is older by now than the others wait.
    one.host().namespace().let_pass(2 * AFTER);
    alone.extend(fill(one, &conf, 11..12));
    assert_eq!(alone, [old[3], old[4]]);
    let said = one.add("more", &conf).refused(11, &[AWAY]);
    let held = held_locally(one.host()).into_iter();
    let freed = |(_, state): &(_, String)| state.starts_with("freed");
    assert_eq!(held.filter(|it| !freed(it)).count(), 10, "{said}");

    two.given("first", &conf);
    let room = fill_at_once(two, &conf, "early");
    two.host().namespace().let_pass(AFTER + 1);
    let taken = fill_at_once(two, &conf, "late");
    assert_eq!(room.len() + 1 + taken.len(), 32 - 10, "{taken:?}");
    let theirs: BTreeSet<_> = holders(&lab).into_iter().collect();
    assert!(
        theirs
            .iter()
            .all(|(address, (node, _))| { node == "docker01" || !alone.contains(address) })
    );

    one.host().configure(&lab.store_url());
    one.host().sync();
    let now = holders(&lab);
    for (number, address) in [(10, alone[0]), (11, alone[1])] {
        assert_eq!(
            now[&address],
            ("docker01".to_owned(), format!("docker01-{number}"))
        );
    }
    nothing_is_left_over(&lab, NETWORK, 32);
}

#[test]
fn without_reclaim_after_a_silent_host_loses_nothing_and_gives_all_that_it_has() {
    let lab = two_hosts();
    let conf = four_blocks(None);
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    full_with_a_silent_host(&hosts, &conf);
    let mine = owned(&lab, one.host());
    assert_eq!(mine.len(), 2);
    one.host().configure(NO_STORE);
    let refused = || {
        two.add("more", &conf)
            .refused(102, &["exhausted", "waits for node docker01"]);
        assert_eq!(owned(&lab, one.host()), mine);
    };
    refused();
    two.host().namespace().let_pass(100 * AFTER);
    refused();
    one.host().namespace().let_pass(100 * AFTER);
    let alone = fill(one, &conf, 10..16);
    let told = holders(&lab);
    assert!(alone.iter().all(|address| !told.contains_key(address)));
    one.host().configure(&lab.store_url());
    one.host().sync();
    nothing_is_left_over(&lab, NETWORK, 32);
}
