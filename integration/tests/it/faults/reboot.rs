//! A host that lost `/run`: with its containers, in a reboot, or while they run. In a reboot all that it held is void, and the
//! first verb says so to the store, whichever it is; what it owns stays its own. While containers run the store has what
//! they hold, and whichever verb comes first, no address of theirs is given to anybody.
//!
//! Each scenario has one host for each verb that can be the first. What the others hold must not change by that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ownership::{asking, blocks, held_locally, ip, later, nothing_is_left_over};
use crate::store_reader;
use integration::{Backend, Direct, Host, Lab, addresses_in, ipamconf, ranges};
use serde_json::{Value, json};

/// More containers than the first block of a host has addresses.
const MANY: usize = 10;
/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";
const AWAY: &str = "192.168.1.5:1";
/// Longer than the rest of a freed address, which is 60 s.
const RESTED: u64 = 61;

/// A pool of each family.
fn conf() -> Value {
    ipamconf(
        "net1",
        json!({ "ranges": ranges("10.1.0.0/24 fd00:1::/64") }),
    )
}

/// The network `net2`, whose blocks are of eight addresses too.
fn beside() -> Value {
    ipamconf("net2", json!({ "subnet": "10.2.0.0/24" }))
}

/// A container with its addresses, and what its ADD said.
struct Running {
    id: String,
    addresses: Vec<IpAddr>,
    result: Value,
}

fn start(host: &Direct, id: &str, conf: &Value) -> Running {
    let result = host.add(id, conf).ok().json();
    Running {
        id: id.to_owned(),
        addresses: addresses_in(&result).iter().map(|text| ip(text)).collect(),
        result,
    }
}

/// So many hosts that know each other.
fn hosts(count: u8) -> Lab {
    Lab::registered(count, Backend::Consul)
}

/// [`MANY`] containers on each host.
fn start_many(hosts: &[Direct]) -> Vec<Vec<Running>> {
    let on = |host: &Direct| {
        let one = |number| start(host, &format!("c{number}"), &conf());
        (0..MANY).map(one).collect()
    };
    hosts.iter().map(on).collect()
}

/// What `first` may be: each verb, of a container of before or of one that never was.
const VERBS: [&str; 5] = ["ADD", "DEL", "DEL of nothing", "GC", "sync"];

fn call(host: &Direct, verb: &str) {
    match verb {
        "ADD" => drop(host.given("anew", &conf())),
        "DEL" => drop(host.call("DEL", "c3", &conf()).run().ok()),
        "DEL of nothing" => drop(host.call("DEL", "never", &conf()).run().ok()),
        "GC" => collect(host, &["c0", "c1"]),
        _ => drop(host.host().sync()),
    }
}

/// GC, with these containers listed as those that run.
fn collect(host: &Direct, running: &[&str]) {
    let listed = |id: &&str| json!({ "containerID": id, "ifname": "eth0" });
    let mut conf = conf();
    conf["cni.dev/valid-attachments"] = running.iter().map(listed).collect();
    let gc = host.call("GC", "", &conf).netns("").ifname("");
    gc.run().ok();
}

#[track_caller]
fn check(host: &Direct, one: &Running) -> integration::Finished {
    let mut conf = conf();
    conf["prevResult"] = one.result.clone();
    host.call("CHECK", &one.id, &conf).run()
}

/// The leases of all networks as records by their keys, those of a host and the others'.
fn leases(lab: &Lab, host: &Host) -> [BTreeMap<String, Value>; 2] {
    let mut all = [BTreeMap::new(), BTreeMap::new()];
    for (key, text) in store_reader::records(lab) {
        if key.starts_with("leases/") {
            let lease: Value = serde_json::from_str(&text).expect("a lease");
            let whose = usize::from(lease["node"] != host.name());
            all[whose].insert(key, lease);
        }
    }
    all
}

/// All records of blocks and leases.
fn addresses(lab: &Lab) -> BTreeMap<String, String> {
    let mut all = store_reader::records(lab);
    all.retain(|key, _| key.starts_with("leases/") || key.starts_with("blocks/"));
    all
}

fn node_record(lab: &Lab, host: &Host) -> Value {
    let key = format!("nodes/{}", host.name());
    serde_json::from_str(&store_reader::records(lab)[&key]).expect("a node")
}

/// The addresses of all blocks of `net1` that a host owns, without gateway and network address.
fn own_addresses(lab: &Lab, host: &Host) -> BTreeSet<IpAddr> {
    let own = blocks(lab, "net1").into_iter();
    let own = own.filter(|it| it.node() == host.name() && it.record["state"].is_null());
    let all = own.flat_map(|block| (0..8).map(move |n| block.nth(n)));
    let reserved = ["10.1.0.0", "10.1.0.1", "fd00:1::", "fd00:1::1"].map(ip);
    all.filter(|address| !reserved.contains(address)).collect()
}

#[test]
fn after_a_reboot_the_first_verb_voids_what_this_host_held_and_nothing_else() {
    let lab = hosts(5);
    let all = Direct::on_all(&lab);
    let running = start_many(&all);
    for (number, verb) in VERBS.into_iter().enumerate() {
        let host = lab.host(number + 1);
        let owned = blocks(&lab, "net1");
        let [before, others] = leases(&lab, host);
        assert_eq!(before.len(), 2 * MANY, "{verb}");
        let was = host.boot_id();
        assert!(before.values().all(|lease| lease["bootID"] == was));
        let boot_id = host.reboot();
        let host = Direct::on(host);
        call(&host, verb);

        let [after, still] = leases(&lab, host.host());
        let left = after.values().filter(|lease| lease["bootID"] != boot_id);
        assert_eq!(left.count(), 0, "{verb}: {after:#?}");
        let made = if verb == "ADD" { 2 } else { 0 };
        assert_eq!(after.len(), made, "{verb}: {after:#?}");
        assert_eq!(still, others, "{verb}");
        assert_eq!(blocks(&lab, "net1"), owned, "{verb}");

        // A second one finds nothing to do.
        let told = addresses(&lab);
        host.host().sync();
        host.call("DEL", "c5", &conf()).run().ok();
        assert_eq!(addresses(&lab), told, "{verb}");
        assert_eq!(node_record(&lab, host.host())["bootID"], boot_id);
        assert_eq!(held_locally(host.host()).len(), made, "{verb}");

        // What they had is to be had again, at once by who asks for it.
        for old in &running[number][1..4] {
            let conf = asking(&conf(), &old.addresses);
            let given = start(&host, &format!("again-{}", old.id), &conf);
            assert_eq!(given.addresses, old.addresses, "{verb}");
        }
        assert_eq!(blocks(&lab, "net1"), owned, "{verb}");
    }
    nothing_is_left_over(&lab, "net1", 2 + 2 * 3 * VERBS.len());
}

#[test]
fn after_a_reboot_a_host_gives_all_addresses_of_its_old_blocks_again() {
    let lab = hosts(2);
    let all = Direct::on_all(&lab);
    let running = start_many(&all);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    let own = own_addresses(&lab, one);
    let old = running[0].iter().flat_map(|it| it.addresses.clone());
    assert!(old.collect::<BTreeSet<_>>().is_subset(&own), "{own:?}");
    let owned = blocks(&lab, "net1");
    one.reboot();
    later(one, RESTED);
    let host = Direct::on(one);
    let mut given = BTreeSet::new();
    for number in 0..own.len() / 2 {
        given.extend(start(&host, &format!("d{number}"), &conf()).addresses);
    }
    assert!(given.is_subset(&own_addresses(&lab, one)), "{given:?}");
    assert_eq!(given, own);
    let mine = |host: &Host| {
        let mut owned = owned.clone();
        owned.retain(|block| block.node() == host.name());
        owned
    };
    let now = blocks(&lab, "net1");
    assert!(mine(two).iter().all(|block| now.contains(block)));
    check(&all[1], &running[1][0]).ok();
}

#[test]
fn after_a_reboot_a_host_without_its_store_gives_nothing_and_makes_up_for_it() {
    let lab = hosts(2);
    let all = Direct::on_all(&lab);
    let running = start_many(&all);
    let host = lab.host(1);
    all[0].given("beside", &beside());
    let [before, others] = leases(&lab, host);
    assert_eq!(before.len(), 2 * MANY + 1);
    let owned = (blocks(&lab, "net1"), blocks(&lab, "net2"));
    host.reboot();
    host.configure(NO_STORE);
    let direct = Direct::on(host);
    // It cannot know what it owns, and containers that are no more are deleted all the same.
    direct.add("anew", &conf()).refused(11, &[AWAY]);
    direct.call("DEL", "c0", &conf()).run().ok();
    check(&direct, &running[0][1]).refused(11, &[AWAY]);
    assert_eq!(leases(&lab, host)[0], before);
    host.configure(&lab.store_url());
    // A sync is about all networks.
    host.sync();
    assert_eq!(leases(&lab, host), [BTreeMap::new(), others]);
    assert_eq!((blocks(&lab, "net1"), blocks(&lab, "net2")), owned);
    direct.given("anew", &conf());
    nothing_is_left_over(&lab, "net1", 2 * MANY + 2);
}

#[test]
fn a_host_that_lost_its_documents_knows_from_the_store_what_its_containers_hold() {
    let lab = hosts(5);
    let all = Direct::on_all(&lab);
    let mut running = start_many(&all);
    for (number, verb) in VERBS.into_iter().enumerate() {
        let host = &all[number];
        let running = &mut running[number];
        let owned = blocks(&lab, "net1");
        let [before, others] = leases(&lab, host.host());
        host.host().script("rm -r /run/crosshost");
        assert_eq!(held_locally(host.host()), [], "it knows of nothing");
        call(host, verb);
        let goes: fn(&str) -> bool = match verb {
            "DEL" => |id| id == "c3",
            "GC" => |id| id != "c0" && id != "c1",
            _ => |_| false,
        };
        running.retain(|one| !goes(&one.id));
        if verb == "ADD" {
            host.call("DEL", "anew", &conf()).run().ok();
        }
        let mut left = before;
        left.retain(|_, lease| !goes(lease["containerID"].as_str().expect("an id")));
        assert_eq!(
            leases(&lab, host.host()),
            [left.clone(), others.clone()],
            "{verb}"
        );
        assert_eq!(blocks(&lab, "net1"), owned, "{verb}");

        // More than its blocks have left: none of what is held, by whomever.
        let mut all: BTreeSet<IpAddr> =
            running.iter().flat_map(|it| it.addresses.clone()).collect();
        for number in 0..MANY {
            let one = start(host, &format!("d{number}"), &conf());
            for address in &one.addresses {
                assert!(all.insert(*address), "{verb}: {address} is held");
            }
            running.push(one);
        }
        let held: BTreeSet<_> = held_locally(host.host()).into_iter().collect();
        let published = |address| (address, "published".to_owned());
        assert_eq!(held, all.into_iter().map(published).collect(), "{verb}");
        for one in running.iter() {
            check(host, one).ok();
        }
        let [own, still] = leases(&lab, host.host());
        assert!(left.iter().all(|(key, lease)| own.get(key) == Some(lease)));
        assert_eq!(still, others, "{verb}");

        // They end as if nothing had been.
        let last = running.pop().expect("a container");
        host.call("DEL", "c0", &conf()).run().ok();
        let kept: Vec<_> = running.iter().map(|it| it.id.as_str()).collect();
        collect(host, &kept[1..]);
        check(host, &last).refused(110, &[&last.id, "holds no address"]);
        running.retain(|it| it.id != "c0");
        for one in running.iter() {
            check(host, one).ok();
        }
        assert_eq!(leases(&lab, host.host())[0].len(), 2 * running.len());
    }
    let left = running.iter().map(|it| 2 * it.len()).sum();
    nothing_is_left_over(&lab, "net1", left);
}

#[test]
fn a_check_right_after_the_documents_were_lost_finds_what_the_store_has() {
    let lab = hosts(2);
    let all = Direct::on_all(&lab);
    let running = start_many(&all);
    let [one, two] = [&all[0], &all[1]];
    let before = addresses(&lab);
    one.host().script("rm -r /run/crosshost");
    for container in &running[0] {
        check(one, container).ok();
    }
    // What another host's container has is not this one's.
    check(one, &running[1][0]).refused(110, &["c0", "does not list"]);
    assert_eq!(addresses(&lab), before);
    two.host().script("rm -r /run/crosshost");
    check(two, &start(one, "late", &conf())).refused(110, &["late", "holds no address"]);
}

#[test]
fn a_host_that_lost_its_documents_and_its_store_gives_nothing_and_frees_nothing() {
    let lab = hosts(2);
    let all = Direct::on_all(&lab);
    let running = start_many(&all);
    let host = &all[0];
    let before = addresses(&lab);
    host.host().script("rm -r /run/crosshost");
    host.host().configure(NO_STORE);
    host.add("anew", &conf()).refused(11, &[AWAY]);
    host.call("DEL", "c4", &conf()).run().ok();
    assert_eq!(addresses(&lab), before);
    host.host().configure(&lab.store_url());
    // The DEL was noted, and is what the store hears of.
    let anew = start(host, "anew", &conf());
    let taken = running[0].iter().filter(|it| it.id != "c4");
    let taken: BTreeSet<_> = taken.flat_map(|it| it.addresses.clone()).collect();
    assert!(anew.addresses.iter().all(|it| !taken.contains(it)));
    for one in &running[0] {
        let said = check(host, one);
        if one.id == "c4" {
            said.refused(110, &["c4", "holds no address"]);
        } else {
            said.ok();
        }
    }
    nothing_is_left_over(&lab, "net1", 2 * (2 * MANY));
}
