//! A container that asks for its address gets it from any host, whosever block it lies in: a free one and an own one at once,
//! another host's as soon as that host has answered, one out of the dynamic range by itself. Where the owner does not
//! answer in time, the error names it and the command that makes it answer; an address that cannot be had is refused by name.
//!
//! `ipam-kv` is called by itself, so that there is nothing that forwards, and the owner of a block is the only one to be
//! asked. What the other hosts have to say is in `moving_addresses.rs`. A watcher would answer within moments: where none
//! of `ownership::following` runs, there is none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::ownership;
use crate::ownership::{
    around, asking, await_request, block_of, blocks, fill, held_locally, home, ip, later,
    nothing_is_left_over, registered,
};
use crate::store_reader;
use crate::store_reader::leased;
use integration::{Direct, Finished, addresses_in, ipamconf};
use serde_json::{Value, json};

const NETWORK: &str = "net1";
/// A host that need not wait for another is done well before it would give up.
const AT_ONCE: Duration = Duration::from_millis(1500);
/// For as long as this a host waits for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pool of 32 blocks of 8 addresses.
fn pool() -> Value {
    ipamconf(
        NETWORK,
        json!({ "ranges": [[{ "subnet": "10.5.0.0/24" }]] }),
    )
}

/// A pool of which the runtimes give out a part, and the operator the rest.
fn part_of_a_pool() -> Value {
    let v4 =
        json!({ "subnet": "10.5.0.0/24", "rangeStart": "10.5.0.100", "rangeEnd": "10.5.0.199" });
    ipamconf(NETWORK, json!({ "ranges": [[v4]] }))
}

/// An ADD of the container `id` that gets this very address.
#[track_caller]
fn gets(host: &Direct, id: &str, conf: &Value, address: IpAddr) -> Finished {
    let added = host.add(id, &asking(conf, &[address])).ok();
    let wanted = format!("{address}/24");
    assert_eq!(addresses_in(&added.json()), [wanted], "{added}");
    added
}

#[track_caller]
fn gets_at_once(host: &Direct, id: &str, conf: &Value, address: IpAddr) {
    let added = gets(host, id, conf, address);
    assert!(added.took < AT_ONCE, "{added}");
}

#[test]
fn of_a_free_block_or_an_own_one_from_any_host() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    hosts[0].given("first", &pool());
    let at_creation = blocks(&lab, NETWORK);
    assert_eq!(at_creation.len(), 3, "{at_creation:#?}");
    for (number, host) in hosts.iter().enumerate() {
        let name = host.host().name();
        let all = blocks(&lab, NETWORK);
        let own = block_of(&lab, NETWORK, host.host());
        gets_at_once(host, "own", &pool(), own.nth(6));
        assert_eq!(blocks(&lab, NETWORK), all, "nothing changed hands");

        // The block comes with it: what lies beside it is as good as an own address.
        let free = (1..31).map(|n| ownership::above(ip("10.5.0.0"), 8 * n));
        let mut free = free.filter(|first| around(&lab, NETWORK, *first).is_none());
        let first = free.next().expect("a free block");
        let wanted = ownership::above(first, 5);
        gets_at_once(host, "free", &pool(), wanted);
        assert_eq!(home(&lab, NETWORK, wanted).as_deref(), Some(name));
        gets_at_once(host, "beside", &pool(), ownership::above(first, 3));
        assert_eq!(blocks(&lab, NETWORK).len(), 3 + number + 1);
    }
    nothing_is_left_over(&lab, NETWORK, 1 + 3 * 3);
}

#[test]
fn of_another_hosts_block_when_its_owner_has_answered() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let [one, two, three] = [&hosts[0], &hosts[1], &hosts[2]];
    let mut of_the_owner: BTreeSet<_> = fill(one, &pool(), 0..2).into_iter().collect();
    let block = block_of(&lab, NETWORK, one.host());
    let wanted = block.nth(4);

    let asked = three.call("ADD", "static", &asking(&pool(), &[wanted]));
    let asked = asked.start();
    await_request(&lab, NETWORK, wanted);
    assert!(asked.is_alive(), "it waits for the owner");
    assert!(!leased(&lab, NETWORK).contains(&wanted.to_string()));
    assert_eq!(home(&lab, NETWORK, wanted), None, "it changes hands");
    one.host().sync();
    let added = asked.wait(Duration::from_secs(10)).ok();
    assert_eq!(addresses_in(&added.json()), [format!("{wanted}/24")]);
    assert!(added.took < 2 * PATIENCE, "{added}");
    assert_eq!(home(&lab, NETWORK, wanted).as_deref(), Some("docker03"));
    nothing_is_left_over(&lab, NETWORK, 3);

    // The owner gives out the rest of its block and never this one, whatever it has forgotten meanwhile.
    one.host().script("rm -r /run/crosshost");
    of_the_owner.extend(fill(one, &pool(), 2..9));
    let rest = (0..8).map(|n| block.nth(n)).filter(|rest| *rest != wanted);
    let usable = |address: &IpAddr| {
        !["10.5.0.0", "10.5.0.1", "10.5.0.255"].contains(&address.to_string().as_str())
    };
    for address in rest.filter(usable) {
        assert!(
            of_the_owner.contains(&address),
            "{address}: {of_the_owner:?}"
        );
    }
    assert!(!of_the_owner.contains(&wanted), "{of_the_owner:?}");
    let by = "held by eth0 of container static on node docker03";
    for host in [one, two] {
        let said = host.add("asks", &asking(&pool(), &[wanted]));
        said.refused(108, &[&wanted.to_string(), by]);
    }

    // Given back it rests, and then it is its block's again.
    three.call("DEL", "static", &pool()).run().ok();
    assert!(!leased(&lab, NETWORK).contains(&wanted.to_string()));
    assert!(!fill(one, &pool(), 9..12).contains(&wanted));
    later(three.host(), 61);
    one.host().sync();
    assert_eq!(home(&lab, NETWORK, wanted).as_deref(), Some("docker01"));
    gets_at_once(one, "heir", &pool(), wanted);
    nothing_is_left_over(&lab, NETWORK, 13);
}

#[test]
fn of_a_host_that_never_used_its_block_without_asking_it() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    hosts[0].given("first", &pool());
    let wanted = block_of(&lab, NETWORK, hosts[1].host()).nth(5);
    gets_at_once(&hosts[2], "static", &pool(), wanted);
    assert_eq!(home(&lab, NETWORK, wanted).as_deref(), Some("docker03"));
    // The block is its owner's still, and this one is not.
    let given = fill(&hosts[1], &pool(), 0..8);
    assert!(given.contains(&ownership::above(wanted, 1)), "{given:?}");
    assert!(!given.contains(&wanted), "{given:?}");
    let by = "held by eth0 of container static on node docker03";
    let said = hosts[1].add("asks", &asking(&pool(), &[wanted]));
    said.refused(108, &[&wanted.to_string(), by]);
    nothing_is_left_over(&lab, NETWORK, 10);
}

/// Runs what the message says on the hosts that it names, and on no other; who they were.
#[track_caller]
fn do_what_it_says(hosts: &[Direct], message: &str) -> Vec<String> {
    let (_, command) = message.split_once("run there: ").expect("a command");
    let command = command.split(';').next().unwrap_or(command);
    let words: Vec<_> = command.split_whitespace().collect();
    assert_eq!(words[0], "crosshost", "{message}");
    let named = hosts.iter().map(Direct::host);
    let named = named.filter(|host| message.contains(&format!("node {}", host.name())));
    let run = |host: &integration::Host| {
        host.crosshost(&words[1..]).ok();
        host.name().to_owned()
    };
    named.map(run).collect()
}

#[test]
fn of_a_host_that_does_not_answer_the_error_says_what_to_do() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let [one, two, three] = [&hosts[0], &hosts[1], &hosts[2]];
    for host in &hosts {
        fill(host, &pool(), 0..1);
    }
    let block = block_of(&lab, NETWORK, one.host());
    let wanted = block.nth(4);
    let before = (leased(&lab, NETWORK), held_locally(two.host()));
    let conf = asking(&pool(), &[wanted]);
    let mut message = String::new();
    for _ in 0..2 {
        let said = two.add("static", &conf);
        assert!(said.took >= PATIENCE && said.took < 3 * PATIENCE, "{said}");
        message = said.refused(108, &[NETWORK, &wanted.to_string(), "try again"]);
        let now = (leased(&lab, NETWORK), held_locally(two.host()));
        assert_eq!(now, before, "nothing is held");
    }
    // Who comes second is told who was first.
    let said = three.add("static", &conf);
    said.refused(108, &[&wanted.to_string(), "node docker02"]);
    assert_eq!(do_what_it_says(&hosts, &message), ["docker01"]);
    gets_at_once(two, "static", &pool(), wanted);
    nothing_is_left_over(&lab, NETWORK, 4);

    // An ordinary ADD of the owner is as good as the command.
    let wanted = block.nth(5);
    let said = two.add("static-2", &asking(&pool(), &[wanted]));
    said.refused(108, &[&wanted.to_string(), "node docker01"]);
    assert!(!fill(one, &pool(), 1..2).contains(&wanted));
    gets_at_once(two, "static-2", &pool(), wanted);

    // A request that is not followed up is taken back after a while, and the address is not lost.
    let wanted = block.nth(6);
    let said = two.add("static-3", &asking(&pool(), &[wanted]));
    said.refused(108, &[&wanted.to_string(), "node docker01"]);
    one.host().sync();
    assert_eq!(home(&lab, NETWORK, wanted), None, "it is kept for docker02");
    later(one.host(), 901);
    assert_eq!(home(&lab, NETWORK, wanted).as_deref(), Some("docker01"));
    gets_at_once(one, "heir", &pool(), wanted);
    nothing_is_left_over(&lab, NETWORK, 7);
}

#[test]
fn in_use_is_refused_with_its_holder_whichever_way_it_came_there() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let [one, two, three] = [&hosts[0], &hosts[1], &hosts[2]];
    let conf = part_of_a_pool();
    let chosen = fill(one, &conf, 0..1)[0];
    fill(two, &conf, 0..1);
    let own = block_of(&lab, NETWORK, two.host());
    let (free, outside) = (ip("10.5.0.150"), ip("10.5.0.50"));
    assert_eq!(around(&lab, NETWORK, free), None, "in no block");
    // Of docker01's block, at docker03.
    let block = block_of(&lab, NETWORK, one.host());
    let excluded = (0..8).map(|n| block.nth(n));
    let mut excluded = excluded.filter(|address| *address > ip("10.5.0.101") && *address != chosen);
    let excluded = excluded.next().expect("another of the block");
    ownership::following(&[one.host()], || {
        gets(three, "excluded", &conf, excluded);
    });
    let in_own = (0..8).map(|n| own.nth(n));
    let mut in_own = in_own.filter(|address| !leased(&lab, NETWORK).contains(&address.to_string()));
    let in_own = in_own.next_back().expect("another of the block");
    gets_at_once(two, "own", &conf, in_own);
    gets_at_once(three, "free", &conf, free);
    gets_at_once(one, "outside", &conf, outside);
    let before = leased(&lab, NETWORK);
    assert_eq!(before.len(), 6, "{before:?}");
    for (address, container, node) in [
        (chosen, "docker01-0", "docker01"),
        (excluded, "excluded", "docker03"),
        (in_own, "own", "docker02"),
        (free, "free", "docker03"),
        (outside, "outside", "docker01"),
    ] {
        let by = format!("address {address}: held by eth0 of container {container} on node {node}");
        for host in &hosts {
            let said = host.add("asks", &asking(&conf, &[address]));
            assert!(said.took < AT_ONCE, "{said}");
            said.refused(108, &[&by]);
        }
    }
    assert_eq!(leased(&lab, NETWORK), before);
    nothing_is_left_over(&lab, NETWORK, 6);
}

#[test]
fn out_of_the_dynamic_range_it_is_claimed_by_itself_and_goes_on_to_others() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let conf = part_of_a_pool();
    let addresses = ["10.5.0.99", "10.5.0.200", "10.5.0.254"].map(ip);
    for (host, address) in hosts.iter().zip(addresses) {
        gets_at_once(host, "static", &conf, address);
        let block = around(&lab, NETWORK, address).expect("a block of its own");
        assert_eq!((block.first, block.length), (address, 32));
        assert_eq!(block.node(), host.host().name());
    }
    // No runtime is given one of those, however many it wants.
    let range = ip("10.5.0.100")..=ip("10.5.0.199");
    for host in &hosts {
        for address in fill(host, &conf, 0..10) {
            assert!(range.contains(&address), "{address}");
        }
    }

    // Its last host is asked while it might still need it, and gives it up at once when it does not.
    hosts[0].call("DEL", "static", &conf).run().ok();
    let asked = hosts[1].call("ADD", "moved", &asking(&conf, &[addresses[0]]));
    let asked = asked.start();
    await_request(&lab, NETWORK, addresses[0]);
    hosts[0].host().sync();
    let added = asked.wait(Duration::from_secs(10)).ok();
    assert_eq!(addresses_in(&added.json()), ["10.5.0.99/24"]);
    assert_eq!(
        home(&lab, NETWORK, addresses[0]).as_deref(),
        Some("docker02")
    );

    // One that has rested has no home: no host is asked.
    hosts[2].call("DEL", "static", &conf).run().ok();
    later(hosts[2].host(), 61);
    assert_eq!(home(&lab, NETWORK, addresses[2]), None);
    gets_at_once(&hosts[0], "moved", &conf, addresses[2]);
    assert_eq!(
        home(&lab, NETWORK, addresses[2]).as_deref(),
        Some("docker01")
    );
    nothing_is_left_over(&lab, NETWORK, 33);
}

#[test]
fn what_no_container_can_have_is_refused_on_each_host() {
    let lab = registered();
    let hosts = Direct::on_all(&lab);
    let pool = json!({
        "subnet": "10.5.0.0/24", "rangeStart": "10.5.0.100", "gateway": "10.5.0.7",
        "exclude": ["10.5.0.64/28", "10.5.0.130"],
    });
    let conf = ipamconf(
        NETWORK,
        json!({ "ranges": [[pool], [{ "subnet": "fd00:5::/64" }]] }),
    );
    hosts[0].given("first", &conf);
    let before = store_reader::records_but_nodes(&lab);
    for (address, why) in [
        (
            "10.5.0.0",
            "the network or broadcast address of 10.5.0.0/24",
        ),
        (
            "10.5.0.255",
            "the network or broadcast address of 10.5.0.0/24",
        ),
        ("10.5.0.7", "the gateway of 10.5.0.0/24"),
        ("10.5.0.64", "excluded by 10.5.0.64/28"),
        ("10.5.0.79", "excluded by 10.5.0.64/28"),
        ("10.5.0.130", "excluded by 10.5.0.130/32"),
        ("10.5.1.5", "not an address that the network gives"),
        ("192.168.1.11", "not an address that the network gives"),
        (
            "fd00:5::",
            "the network or broadcast address of fd00:5::/64",
        ),
        ("fd00:5::1", "the gateway of fd00:5::/64"),
        ("fd00:5:0:1::5", "not an address that the network gives"),
    ] {
        for host in &hosts {
            let said = host.add("asks", &asking(&conf, &[ip(address)]));
            assert!(said.took < AT_ONCE, "{said}");
            said.refused(108, &[&format!("requested address {address}: {why}")]);
            assert_eq!(
                held_locally(host.host()).len(),
                usize::from(host.host().name() == "docker01") * 2
            );
        }
    }
    let now = store_reader::records_but_nodes(&lab);
    let changed: Vec<_> = now
        .iter()
        .filter(|it| before.get(it.0) != Some(it.1))
        .collect();
    let ledgers = |key: &str| key.starts_with("ledgers/");
    assert!(changed.iter().all(|(key, _)| ledgers(key)), "{changed:#?}");
    // The neighbours of what is barred are to be had.
    for (host, address) in hosts.iter().zip(["10.5.0.63", "10.5.0.80", "10.5.0.254"]) {
        let given = host.given("beside", &asking(&conf, &[ip(address)]));
        assert_eq!(given[0], format!("{address}/24"));
    }
}
