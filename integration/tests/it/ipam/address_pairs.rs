//! Both families: a container of a network with IPv4 and IPv6 gets a pair whose host parts are the same, as long as that is to
//! be had, and in no case half a pair. IPv6 alone is a network like any other, and a /64 costs no more than a small pool,
//! though its addresses are far too many to count.
//!
//! Pools that run out are made of a few single addresses, so that each host has to look everywhere before it gives up. Then
//! what the failed ADD had already chosen of the other family must be free again: in the store, on the host, and for
//! the next container.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::ownership;
use crate::ownership::{
    above, asking, blocks, held_locally, ip, nothing_is_left_over, number, registered,
};
use crate::store_reader::leased;
use integration::{Container, Direct, Lab, addresses_in, ipamconf, netconf, ranges};
use serde_json::{Value, json};

const NETWORK: &str = "net1";

/// A network of these pools, one address of each.
fn pools(subnets: &[&str]) -> Value {
    ipamconf(NETWORK, json!({ "ranges": ranges(&subnets.join(" ")) }))
}

/// What an ADD gives on a network of two pools.
#[track_caller]
fn pair(host: &Direct, id: &str, conf: &Value) -> [IpAddr; 2] {
    let given = host.given(id, conf);
    let [one, two] = &given[..] else {
        panic!("a pair: {given:?}")
    };
    [ip(one), ip(two)]
}

/// How far an address lies above its subnet's first.
fn host_part(address: IpAddr, subnet: &str) -> u128 {
    number(address) - number(ip(subnet))
}

const V4: &str = "10.5.0.0/24";
const V6: &str = "fd00:5::/64";

#[track_caller]
fn is_matched([v4, v6]: [IpAddr; 2]) -> bool {
    assert!(v4.is_ipv4() && v6.is_ipv6(), "{v4} {v6}");
    host_part(v4, V4) == host_part(v6, V6)
}

#[test]
fn a_pair_has_one_host_part_on_each_host_and_over_many_blocks() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let mut seen = BTreeSet::new();
    // More than two blocks have, side by side on all hosts.
    for number in 0..18 {
        for host in &hosts {
            let given = pair(host, &format!("c{number}"), &pools(&[V4, V6]));
            assert!(is_matched(given), "{} {given:?}", host.host().name());
            assert!(seen.insert(given[0]) & seen.insert(given[1]), "{given:?}");
        }
    }
    // Each host has the blocks of both families that match.
    for host in lab.hosts() {
        let own = blocks(&lab, NETWORK).into_iter();
        let own = own.filter(|block| block.node() == host.name());
        let part = |block: &ownership::Block| match block.first {
            IpAddr::V4(_) => host_part(block.first, V4),
            IpAddr::V6(_) => host_part(block.first, V6),
        };
        let (v4, v6): (Vec<_>, Vec<_>) = own.partition(|block| block.first.is_ipv4());
        let [v4, v6] = [v4, v6].map(|family| family.iter().map(part).collect::<BTreeSet<_>>());
        assert!(v4.len() > 2, "{v4:?}");
        assert_eq!(v4, v6, "{}", host.name());
    }
    for number in 0..18 {
        for host in &hosts {
            let call = host.call("DEL", &format!("c{number}"), &pools(&[V4, V6]));
            call.run().ok();
        }
    }
    nothing_is_left_over(&lab, NETWORK, 0);
}

#[test]
fn whichever_family_comes_first_the_other_follows_it() {
    let lab = registered();
    let conf = pools(&[V6, V4]);
    for host in Direct::on_all(&lab) {
        for number in 0..4 {
            let [v6, v4] = pair(&host, &format!("c{number}"), &conf);
            assert!(is_matched([v4, v6]), "{v6} {v4}");
        }
    }
    nothing_is_left_over(&lab, NETWORK, 2 * 3 * 4);
}

#[test]
fn where_the_twin_is_taken_another_is_given() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let conf = pools(&[V4, V6]);
    let twin_of = |v4: IpAddr| above(ip(V6), host_part(v4, V4));
    let first = pair(&hosts[0], "first", &conf);
    assert!(is_matched(first));

    // By a container of the same host, which asked for it and has another IPv4 address.
    let next = above(first[0], 1);
    let asked = asking(&conf, &[above(first[0], 3), twin_of(next)]);
    assert_eq!(
        pair(&hosts[0], "asks", &asked),
        [above(first[0], 3), twin_of(next)]
    );
    let [v4, v6] = pair(&hosts[0], "second", &conf);
    assert_eq!(v4, next);
    assert!(v6.is_ipv6() && v6 != twin_of(next), "{v6}");

    // By a block of another host: whoever has the one of IPv4 has to do with others of IPv6, and makes no one wait.
    let mut free = (1..31).map(|n| above(ip(V4), 8 * n));
    let taken = |first: &IpAddr| ownership::around(&lab, NETWORK, *first).is_some();
    let free = free.rfind(|first| !taken(first)).expect("free");
    hosts[1].given("theirs", &asking(&conf, &[twin_of(above(free, 2))]));
    assert!(taken(&twin_of(free)));
    let asked = asking(&conf, &[above(free, 2)]);
    let added = hosts[2].add("ours", &asked).ok();
    assert!(added.took < Duration::from_millis(1500), "{added}");
    let ours = addresses_in(&added.json());
    assert_eq!(ip(&ours[0]), above(free, 2));
    assert_ne!(ip(&ours[1]), twin_of(above(free, 2)));

    // When it is over, pairs match again.
    for id in ["asks", "second"] {
        hosts[0].call("DEL", id, &conf).run().ok();
    }
    ownership::later(hosts[0].host(), 61);
    for number in 0..6 {
        let given = pair(&hosts[0], &format!("c{number}"), &conf);
        assert!(is_matched(given), "{given:?}");
    }
    nothing_is_left_over(&lab, NETWORK, 2 * 9);
}

/// ADDs by turns until no host is given any more; each failed one leaves everything as it was.
#[track_caller]
fn use_up(lab: &Lab, hosts: &[Direct], conf: &Value, room: usize) {
    for number in 0..room {
        let given = hosts[number % 3].given(&format!("c{number}"), conf);
        assert_eq!(given.len(), 2, "{given:?}");
    }
    let before = leased(lab, NETWORK);
    assert_eq!(before.len(), 2 * room);
    for host in hosts {
        let held = held_locally(host.host());
        for _ in 0..2 {
            let said = host.add("one-more", conf);
            said.refused(102, &[NETWORK, "exhausted"]);
            assert_eq!(leased(lab, NETWORK), before, "half a pair in the store");
            assert_eq!(held_locally(host.host()), held, "half a pair on the host");
        }
    }
}

#[test]
fn half_a_pair_is_never_left_behind_when_a_pool_is_used_up() {
    // The scarce family: last, first; in blocks of one address each.
    for (v4, v6) in [
        ("10.5.0.0/24", "fd00:5::/125"),
        ("10.5.0.0/29", "fd00:5::/64"),
    ] {
        for subnets in [[v4, v6], [v6, v4]] {
            let lab = registered();
            let hosts = Direct::on_all(&lab);
            let conf = pools(&subnets);
            // Of 8 addresses the gateway and one end, of IPv4 both ends, are not given.
            let room = if v4.ends_with("/29") { 5 } else { 6 };
            use_up(&lab, &hosts, &conf, room);
            // One goes, whose place any host can have, and as a pair.
            hosts[1].call("DEL", "c1", &conf).run().ok();
            nothing_is_left_over(&lab, NETWORK, 2 * (room - 1));
            let given = ownership::following(&[hosts[1].host()], || hosts[2].given("heir", &conf));
            assert_eq!(given.len(), 2, "{given:?}");
            nothing_is_left_over(&lab, NETWORK, 2 * room);
            for (number, host) in (0..room).map(|number| (number, &hosts[number % 3])) {
                host.call("DEL", &format!("c{number}"), &conf).run().ok();
            }
            hosts[2].call("DEL", "heir", &conf).run().ok();
            nothing_is_left_over(&lab, NETWORK, 0);
        }
    }
}

#[test]
fn half_of_what_is_asked_for_is_not_given_either() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let conf = pools(&[V4, V6]);
    let mut theirs = Vec::new();
    for host in &hosts {
        theirs = pair(host, "first", &conf).into();
    }
    let v4 = ip("10.5.0.77");
    let before = leased(&lab, NETWORK);
    // Of docker03: one that it uses, and one that it would have to answer for.
    let unanswered = above(theirs[1], 2);
    for (v6, word) in [
        (theirs[1], "container first"),
        (unanswered, "crosshost sync"),
    ] {
        let said = hosts[0].add("asks", &asking(&conf, &[v4, v6]));
        said.refused(108, &[&v6.to_string(), word, "docker03"]);
        assert_eq!(leased(&lab, NETWORK), before);
        nothing_is_left_over(&lab, NETWORK, 6);
    }
    // What was free of it is still so, for anyone.
    hosts[2].host().sync();
    let given = pair(&hosts[0], "asks", &asking(&conf, &[v4, unanswered]));
    assert_eq!(given, [v4, unanswered]);
    nothing_is_left_over(&lab, NETWORK, 8);
}

#[test]
fn ipv6_alone_is_a_network_like_any_other() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let conf = pools(&[V6]);
    let mut seen = BTreeSet::new();
    for host in &hosts {
        for number in 0..5 {
            let result = host.add(&format!("c{number}"), &conf).ok().json();
            let [only] = &addresses_in(&result)[..] else {
                panic!("one address: {result:#}")
            };
            assert!(
                only.starts_with("fd00:5::") && only.ends_with("/64"),
                "{only}"
            );
            assert_eq!(result["ips"][0]["gateway"], "fd00:5::1");
            assert!(seen.insert(only.clone()), "{only} twice");
            let mut checked = conf.clone();
            checked["prevResult"] = result;
            let id = format!("c{number}");
            host.call("CHECK", &id, &checked).run().ok();
        }
        let own = ownership::block_of(&lab, NETWORK, host.host());
        assert_eq!(own.length, 120, "256 addresses for a host");
    }
    // A requested one: of anywhere in the pool, and of another host's block.
    for (host, far) in [
        (0, "fd00:5::ffff:ffff:ffff:ffff"),
        (1, "fd00:5::8000:0:0:7"),
    ] {
        let given = hosts[host].given("far", &asking(&conf, &[ip(far)]));
        assert_eq!(given, [format!("{far}/64")]);
    }
    let theirs = ownership::block_of(&lab, NETWORK, hosts[0].host()).nth(0x80);
    let given = ownership::following(&[hosts[0].host()], || {
        hosts[2].given("near", &asking(&conf, &[theirs]))
    });
    assert_eq!(given, [format!("{theirs}/64")]);
    nothing_is_left_over(&lab, NETWORK, 3 * 5 + 3);
    for host in &hosts {
        host.call("GC", "", &conf).netns("").ifname("").run().ok();
    }
    nothing_is_left_over(&lab, NETWORK, 0);
}

#[test]
fn a_pool_of_64_bits_takes_no_longer_than_one_of_8() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let half_excluded = json!({
        "subnet": "fd00:7::/64", "rangeStart": "fd00:7::10", "exclude": ["fd00:7::/65", "fd00:7:0:0:c000::/66"],
    });
    // The same blocks, of a pool that has two of them, of one that has 2^56, and of what is left in the middle of one.
    let kinds = [
        (
            "small",
            json!({ "subnet": "fd00:5::/119", "blockPrefix": 120 }),
        ),
        (
            "large",
            json!({ "subnet": "fd00:6::/64", "blockPrefix": 120 }),
        ),
        ("middle", half_excluded),
    ];
    let mut times = [const { Vec::new() }; 3];
    // By turns, so that whatever else the machine does falls on all.
    for number in 0..40 {
        for ((name, ipam), times) in kinds.iter().zip(&mut times) {
            let conf = ipamconf(name, ipam.clone());
            let added = hosts[0].add(&format!("c{number}"), &conf).ok();
            times.push(added.took);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let [small, large, middle] = times.each_mut().map(median);
    for (name, took) in [("large", large), ("middle", middle)] {
        assert!(took < small * 2, "{name} {took:?}, small {small:?}");
    }
    for (name, _) in &kinds {
        nothing_beside(&lab, name);
    }
    let of_the_middle = leased(&lab, "middle");
    let free = ip("fd00:7:0:0:8000::")..=ip("fd00:7:0:0:bfff:ffff:ffff:ffff");
    assert_eq!(of_the_middle.len(), 40);
    assert!(
        of_the_middle.iter().all(|one| free.contains(&ip(one))),
        "{of_the_middle:?}"
    );
}

/// 40 leases, in one block or two of the host.
#[track_caller]
fn nothing_beside(lab: &Lab, network: &str) {
    assert_eq!(leased(lab, network).len(), 40, "{network}");
    let own = blocks(lab, network).into_iter();
    let own = own.filter(|block| block.node() == "docker01").count();
    assert!((1..=2).contains(&own), "{own} of {network}");
}

/// Containers on all hosts under `overlay`, on a network of these pools; each reaches every address of each.
#[track_caller]
fn reach_each_other(lab: &Lab, name: &str, subnets: &[&str]) {
    let mut conf = netconf(name, subnets[0], "1.1.0");
    conf["ipam"]["ranges"] = pools(subnets)["ipam"]["ranges"].clone();
    let mut all: Vec<(Container, Vec<IpAddr>)> = Vec::new();
    let call = |container: &Container, verb| container.call(verb, &conf).run().ok();
    for host in lab.hosts() {
        for number in 1..=2 {
            let container = host.container(&format!("{name}-{number}"));
            let result = call(&container, "ADD").json();
            let addresses = addresses_in(&result);
            let addresses = addresses
                .iter()
                .filter(|it| subnets.iter().any(|subnet| inside(it, subnet)));
            let addresses: Vec<_> = addresses.map(|it| ip(it)).collect();
            assert_eq!(addresses.len(), subnets.len(), "{result:#}");
            all.push((container, addresses));
        }
    }
    // Each hears of those that came after it, as from its watcher.
    lab.sync();
    for (from, own) in &all {
        for address in all.iter().flat_map(|(_, addresses)| addresses) {
            // Not itself: `lo` is the runtime's.
            if !own.contains(address) {
                let said = from.ping(*address, &[]);
                assert!(said.status.success(), "{} {said}", from.host().name());
            }
        }
    }
    for (container, _) in &all {
        call(container, "DEL");
        container.remove();
    }
    assert_eq!(leased(lab, name), BTreeSet::new());
}

/// Whether an address of a result is of a subnet: those of the way out are not.
fn inside(address: &str, subnet: &str) -> bool {
    let (_, length) = subnet.split_once('/').expect("a length");
    let block = ownership::Block {
        first: ip(subnet),
        length: length.parse().expect("a length"),
        record: Value::Null,
    };
    block.contains(ip(address))
}

#[test]
fn pairs_reach_each_other_over_three_hosts() {
    let lab = registered();
    let untouched = lab.footprints();
    reach_each_other(&lab, "ov_pairs", &[V4, V6]);
    reach_each_other(&lab, "ov_six", &["fd00:6::/64"]);
    lab.assert_same_as(&untouched, "after the last DEL");
}
