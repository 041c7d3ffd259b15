//! What a host's blocks are worth over their life: one is there before the first ADD, another before the last address is
//! given, and what stands empty is others' again. And the rule that limits it all: a pool can be given out to its last
//! address from whatever hosts ask, and an address that was freed rests before it comes back.
//!
//! Rests take a minute by the clock since boot; a scenario lets it jump ([`integration::Namespace::let_pass`]) on one host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ownership;
use crate::ownership::{blocks, fill, following, ip, nothing_is_left_over, registered};
use crate::store_reader;
use integration::{Backend, Direct, Lab, ipamconf, ranges};
use serde_json::{Value, json};

/// Longer than the rest of a freed address, which is 60 s.
const RESTED: u64 = 61;
/// Shorter than it, with some seconds for what the test itself takes.
const NOT_YET: u64 = 40;

fn pool(subnet: &str) -> Value {
    ipamconf("net1", json!({ "ranges": ranges(subnet) }))
}

/// A pool of four blocks of eight addresses.
fn four_blocks() -> Value {
    let ranges = ranges("10.1.0.0/27");
    ipamconf("net1", json!({ "ranges": ranges, "blockPrefix": 29 }))
}

/// The blocks of `net1` as `FIRST_LENGTH NODE`, and `STATE` where they are not simply owned.
fn owners(lab: &Lab) -> Vec<String> {
    let spell = |block: ownership::Block| {
        let state = block.record["state"].as_str();
        let state = state.map(|it| format!(" {it}")).unwrap_or_default();
        format!("{}_{} {}{state}", block.first, block.length, block.node())
    };
    blocks(lab, "net1").into_iter().map(spell).collect()
}

/// How many blocks of `net1` a host owns.
fn count(lab: &Lab, host: &Direct) -> usize {
    let name = host.host().name();
    let own = |block: &&ownership::Block| block.node() == name && block.record["state"].is_null();
    blocks(lab, "net1").iter().filter(own).count()
}

fn del(host: &Direct, id: &str, conf: &Value) {
    host.call("DEL", id, conf).run().ok();
}

/// The addresses `10.1.0.N`.
fn last_bytes(numbers: impl IntoIterator<Item = u8>) -> Vec<IpAddr> {
    let address = |last| IpAddr::from([10, 1, 0, last]);
    numbers.into_iter().map(address).collect()
}

#[test]
fn every_registered_node_has_a_block_before_anybody_asks() {
    let mut lab = registered();
    let conf = ipamconf(
        "net1",
        json!({ "ranges": ranges("10.1.0.0/24 fd00:1::/64") }),
    );
    lab.host(3).create_network("net2", "10.2.0.0/24");
    let of_net2: Vec<_> = blocks(&lab, "net2")
        .into_iter()
        .map(|block| (block.first.to_string(), block.node().to_owned()))
        .collect();
    let given = |first: &str, node: &str| (first.to_owned(), node.to_owned());
    let wanted = [
        given("10.2.0.0", "docker01"),
        given("10.2.0.8", "docker02"),
        given("10.2.0.16", "docker03"),
    ];
    assert_eq!(of_net2, wanted, "by the operator");

    // By the first ADD, of the second host. Its block is where the record of the network put it.
    let hosts = Direct::on_all(&lab);
    assert_eq!(hosts[1].given("c1", &conf), ["10.1.0.8/24", "fd00:1::8/64"]);
    let first = [
        "10.1.0.0_29 docker01",
        "10.1.0.8_29 docker02",
        "10.1.0.16_29 docker03",
        "fd00:1::_125 docker01",
        "fd00:1::8_125 docker02",
        "fd00:1::10_125 docker03",
    ];
    assert_eq!(owners(&lab), first, "by an ADD");

    // So an ADD of the others changes no block, and is known before it was made.
    assert_eq!(hosts[0].given("c1", &conf), ["10.1.0.2/24", "fd00:1::2/64"]);
    assert_eq!(
        hosts[2].given("c1", &conf),
        ["10.1.0.16/24", "fd00:1::10/64"]
    );
    assert_eq!(owners(&lab), first);

    // A host that comes later takes one when it needs it.
    let late = lab.add_host(4);
    late.sync();
    let late = Direct::on(lab.host(4));
    assert_eq!(owners(&lab), first);
    let own = late.given("c1", &conf);
    let own = own.iter().map(|text| ip(text));
    let now = blocks(&lab, "net1");
    for address in own {
        let mut around = now.iter().filter(|block| block.contains(address));
        let around = around.next().expect("a block around it");
        assert_eq!(around.node(), "docker04", "{address}");
    }
    assert_eq!(now.len(), first.len() + 2);
}

#[test]
fn another_block_is_claimed_before_the_last_one_is_full() {
    let lab = registered();
    let conf = pool("10.1.0.0/24");
    let host = Direct::on(lab.host(2));
    let proxy = lab.consul().proxy();
    lab.host(2).configure(&proxy.url());
    for number in 1..=20_u8 {
        proxy.take();
        let address = fill(&host, &conf, usize::from(number)..usize::from(number) + 1).remove(0);
        let asked = proxy.take();
        // With two of eight left the next eight are got, by the verb that sees it and after its answer.
        let (own, claims) = match number {
            1 => (1, true),
            6 => (2, true),
            14 => (3, true),
            2..6 => (1, false),
            7..14 => (2, false),
            _ => (3, false),
        };
        assert_eq!(count(&lab, &host), own, "after ADD number {number}");
        if claims {
            assert!(asked.len() > 1, "ADD number {number}: {asked:#?}");
        } else {
            assert_eq!(asked.len(), 1, "ADD number {number}: {asked:#?}");
        }
        if number <= 8 {
            assert_eq!(address, last_bytes([number + 7])[0], "of the first block");
        }
    }
    nothing_is_left_over(&lab, "net1", 20);
}

#[test]
fn a_block_that_stands_empty_is_given_back_when_it_has_rested_and_is_anothers() {
    let lab = registered();
    let conf = four_blocks();
    let hosts = Direct::on_all(&lab);
    let (two, three) = (&hosts[1], &hosts[2]);
    assert_eq!(fill(two, &conf, 0..10), last_bytes((8..16).chain([24, 25])));
    let all = [
        "10.1.0.0_29 docker01",
        "10.1.0.8_29 docker02",
        "10.1.0.16_29 docker03",
        "10.1.0.24_29 docker02",
    ];
    assert_eq!(owners(&lab), all);

    // Empty and rested is not enough while there is no other room; room is not while a container is in the block; and
    // both are not before the rest is over. Any verb looks.
    let verb_after = |numbers: std::ops::Range<usize>, seconds| {
        for number in numbers {
            del(two, &format!("docker02-{number}"), &conf);
        }
        lab.host(2).namespace().let_pass(seconds);
        del(two, "never", &conf);
    };
    verb_after(8..10, RESTED);
    assert_eq!(owners(&lab), all, "the other one is full");
    assert_eq!(fill(two, &conf, 10..12), last_bytes([26, 27]));
    verb_after(0..8, RESTED);
    assert_eq!(owners(&lab), all, "not empty");
    verb_after(10..12, NOT_YET);
    assert_eq!(owners(&lab), all, "not rested");
    verb_after(0..0, RESTED - NOT_YET);
    let given_back = [all[0], all[1], all[2], "10.1.0.24_29 docker02 returned"];
    assert_eq!(owners(&lab), given_back, "and the first one stays");

    // The next host that will need a block takes it, before it needs it.
    assert_eq!(fill(three, &conf, 0..5), last_bytes(16..21));
    assert_eq!(owners(&lab), given_back);
    assert_eq!(fill(three, &conf, 5..6), last_bytes([21]));
    let taken = [all[0], all[1], all[2], "10.1.0.24_29 docker03"];
    assert_eq!(owners(&lab), taken);
    assert_eq!(fill(three, &conf, 6..9), last_bytes([22, 23, 24]));
    let anew = ip(&two.given("anew", &conf)[0]);
    assert!(last_bytes(8..16).contains(&anew), "{anew}");
    nothing_is_left_over(&lab, "net1", 10);
}

/// Fills a /28 of three hosts, container `cN` on host `whose(N)`; what each was given.
fn thirteen(
    hosts: &[Direct],
    whose: impl Fn(usize) -> usize,
) -> BTreeMap<IpAddr, (String, String)> {
    let conf = pool("10.1.0.0/28");
    let add = |number| {
        let (host, id) = (&hosts[whose(number) - 1], format!("c{number}"));
        let address = ip(&host.given(&id, &conf)[0]);
        (address, (host.host().name().to_owned(), id))
    };
    let given: BTreeMap<_, _> = (1..=13).map(add).collect();
    let all: Vec<_> = given.keys().copied().collect();
    assert_eq!(all, last_bytes(2..15), "each of the thirteen once");
    given
}

#[test]
fn a_28_over_three_hosts_hands_out_all_thirteen_and_tells_the_fourteenth_who_holds_what() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let given = thirteen(&hosts, |number| [1, 2, 3, 1, 1, 2][number % 6]);
    let conf = pool("10.1.0.0/28");
    let mut words = vec!["network net1: address pool exhausted".to_owned()];
    let mut blocks = BTreeMap::<&str, usize>::new();
    for (address, (node, container)) in &given {
        words.push(format!(
            "{address} eth0 of container {container} on node {node}"
        ));
        *blocks.entry(node).or_default() += 1;
    }
    let owned = blocks
        .iter()
        .map(|(node, blocks)| format!("node {node} has {blocks}"));
    words.push(owned.collect::<Vec<_>>().join(", "));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let before = store_reader::records_but_nodes(&lab);
    for host in &hosts {
        let text = host.add("c14", &conf).refused(102, &words);
        assert!(!text.contains("waits for"), "no host could help: {text}");
    }
    assert_eq!(store_reader::records_but_nodes(&lab), before);
    nothing_is_left_over(&lab, "net1", 13);
}

#[test]
fn a_28_is_dense_from_one_host_alone_and_its_last_address_goes_where_it_is_wanted() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    // The others have a block each and never used it.
    let given = thirteen(&hosts, |_| 1);
    let conf = pool("10.1.0.0/28");
    two.add("far", &conf).refused(102, &["exhausted"]);
    // What is freed rests; as there is nothing else it is anybody's all the same, by the word of its owner.
    del(one, "c7", &conf);
    let freed = given.iter().find(|(_, (_, id))| id == "c7");
    let freed = *freed.expect("the address of c7").0;
    let waits = "node docker01 to drop its old home; run there: crosshost sync";
    two.add("far", &conf)
        .refused(102, &[&format!("address {freed} waits for {waits}")]);
    one.host().sync();
    assert_eq!(two.given("far", &conf), [format!("{freed}/28")]);
    one.add("c7", &conf)
        .refused(102, &["eth0 of container far on node docker02"]);
    nothing_is_left_over(&lab, "net1", 13);
}

#[test]
fn a_24_over_three_hosts_is_filled_to_its_last_address() {
    let lab = registered();
    let conf = pool("10.1.0.0/24");
    let hosts = Direct::on_all(&lab);
    let others = [lab.host(2), lab.host(3)];
    // Two hosts with a few containers each, and more room than these need.
    let mut given = BTreeSet::new();
    for host in &hosts[1..] {
        given.extend(fill(host, &conf, 0..10));
    }
    let theirs = count(&lab, &hosts[1]) + count(&lab, &hosts[2]);
    assert_eq!(theirs, 4, "a spare one each");
    // The first takes all free blocks, and then single addresses of theirs: they read the requests and consent.
    let rest = 253 - given.len();
    let by_one = following(&others, || fill(&hosts[0], &conf, 0..rest));
    given.extend(by_one);
    let all: BTreeSet<_> = last_bytes(2..=254).into_iter().collect();
    assert_eq!(given, all, "each address once");

    let now = blocks(&lab, "net1");
    assert_eq!(now.len(), 32);
    let mut borrowed = 0;
    for block in &now {
        let exclusions = block.record["exclusions"].as_object();
        for (address, exclusion) in exclusions.into_iter().flatten() {
            assert_ne!(block.node(), "docker01");
            let of = (&exclusion["node"], &exclusion["state"]);
            assert_eq!(of, (&json!("docker01"), &json!("given")), "{address}");
            borrowed += 1;
        }
    }
    assert_eq!(borrowed, 4 * 8 - 20, "what the others had and did not use");
    for host in &hosts {
        let words = ["net1", "exhausted", "node docker01 has 28", "and 233 more"];
        host.add("last", &conf).refused(102, &words);
    }
    nothing_is_left_over(&lab, "net1", 253);
}

#[test]
fn an_address_that_was_freed_comes_back_when_all_else_is_used_the_oldest_first() {
    let lab = Lab::new(1, Backend::Consul);
    let conf = pool("10.1.0.0/28");
    let host = Direct::on(lab.host(1));
    // Host docker01 and number N: address N + 2, as there is no other host.
    let all = fill(&host, &conf, 0..10);
    let freed = [5, 2, 8];
    for number in freed {
        del(&host, &format!("docker01-{number}"), &conf);
    }
    let unused: Vec<_> = fill(&host, &conf, 10..13);
    let again = fill(&host, &conf, 13..16);
    assert!(unused.iter().all(|one| !all.contains(one)), "{unused:?}");
    assert_eq!(again, freed.map(|number| all[number]), "as they were freed");
    host.add("last", &conf).refused(102, &["exhausted"]);
    nothing_is_left_over(&lab, "net1", 13);
}

#[test]
fn an_address_that_was_freed_is_not_given_before_it_rested_while_there_are_others() {
    let lab = registered();
    let conf = pool("10.1.0.0/24");
    let host = Direct::on(lab.host(2));
    let first = fill(&host, &conf, 0..8);
    assert_eq!(first, last_bytes(8..16));
    let freed = [1, 0, 2, 4, 3];
    for number in freed {
        del(&host, &format!("docker02-{number}"), &conf);
    }
    // More than two further blocks have: each is claimed rather than that one of the five comes back.
    let fresh = fill(&host, &conf, 8..28);
    assert!(fresh.iter().all(|one| !first.contains(one)), "{fresh:?}");
    lab.host(2).namespace().let_pass(NOT_YET);
    let fresh = fill(&host, &conf, 28..29);
    assert!(!first.contains(&fresh[0]), "{fresh:?}");
    let own = count(&lab, &host);
    assert_eq!(
        own, 4,
        "the first one, two full ones, and one that has three left"
    );

    // When they have rested they are given like new ones: the oldest first, when the new ones are used up.
    lab.host(2).namespace().let_pass(RESTED - NOT_YET);
    let fresh = fill(&host, &conf, 29..32);
    assert!(fresh.iter().all(|one| !first.contains(one)), "{fresh:?}");
    assert_eq!(count(&lab, &host), own, "no block is claimed beside them");
    let again = fill(&host, &conf, 32..35);
    assert_eq!(again, [1, 0, 2].map(|number: usize| first[number]));
    nothing_is_left_over(&lab, "net1", 30);
}
