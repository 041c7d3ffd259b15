//! STATUS of `ipam-kv`: ready as long as an ADD could get an address, else the words with which it would end, and within a
//! second whatever goes on. A full pool is no reason to say no on a host that holds some of its addresses: the next DEL makes room, and
//! Nomad sends none after a STATUS that failed.

use std::time::Duration;

use crate::store_reader::records_but_nodes;
use integration::{
    Attachment, Backend, Direct, Finished, Lab, Programs, Running, ipamconf, netconf,
};
use serde_json::{Value, json};

/// No program listens there.
const NO_STORE: &str = "consul://192.168.1.5:1";
/// No machine is there.
const NOWHERE: &str = "consul://192.168.1.99:8500";

/// STATUS, which has a second at most whatever it says.
#[track_caller]
fn status(host: &Direct, conf: &Value) -> Finished {
    let said = host.call("STATUS", "", conf).netns("").ifname("").run();
    assert!(said.took < Duration::from_secs(1), "{said}");
    said
}

/// STATUS says yes, and on standard error that the pool is full, with these words.
#[track_caller]
fn ready_but_full(host: &Direct, conf: &Value, words: &[&str]) {
    let said = status(host, conf).ok().stderr;
    let all = [words, &["the next DEL on this host makes room"]].concat();
    assert!(all.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn status_is_as_an_add_would_be_in_a_pool_that_fills_up() {
    let lab = Lab::new(3, Backend::Consul);
    let all = Direct::on_all(&lab);
    let [hosts @ .., without] = &all[..] else {
        panic!("three hosts")
    };
    let conf = ipamconf("net1", json!({ "subnet": "10.3.0.0/28" }));
    let nothing = records_but_nodes(&lab);
    for host in &all {
        assert_eq!(
            status(host, &conf).ok().stdout,
            "",
            "a network that an ADD would make"
        );
        let bare = ipamconf("net1", json!({}));
        status(host, &bare).refused(50, &["net1", "ipam.ranges"]);
    }
    assert_eq!(records_but_nodes(&lab), nothing);
    let bare = ipamconf("net1", json!({}));
    hosts[0]
        .add("c1", &bare)
        .refused(103, &["net1", "ipam.ranges"]);
    for number in 0..13 {
        for host in &all {
            assert_eq!(status(host, &conf).ok().stderr, "");
        }
        hosts[number % 2].given(&format!("c{number}"), &conf);
    }
    let full = records_but_nodes(&lab);
    for host in hosts {
        ready_but_full(host, &conf, &["net1", "exhausted"]);
        host.add("late", &conf).refused(102, &["net1", "exhausted"]);
    }
    // No DEL of this one could make room.
    status(without, &conf).refused(50, &["net1", "exhausted"]);
    assert_eq!(records_but_nodes(&lab), full);
    // Exhausted, and no store to ask whether it still is.
    hosts[0].host().configure(NO_STORE);
    ready_but_full(&hosts[0], &conf, &["net1", "192.168.1.5:1"]);
    hosts[0].host().configure(&lab.store_url());
    // What rests is given when there is nothing else, so that there is room.
    hosts[1].call("DEL", "c1", &conf).run().ok();
    assert_eq!(status(&hosts[1], &conf).ok().stderr, "");
    hosts[1].given("c13", &conf);
}

#[test]
fn a_token_that_was_revoked_is_told_however_much_room_there_is() {
    let lab = Lab::new(1, Backend::GuardedConsul);
    let host = Direct::on(lab.host(1));
    let conf = ipamconf("net1", json!({ "subnet": "10.3.0.0/24" }));
    let use_token = |token: &str| {
        lab.host(1).write("/etc/crosshost/token", token);
        lab.host(1).configure_store(&json!({
            "url": lab.store_url(), "tokenFile": "/etc/crosshost/token",
        }));
    };
    let rules = r#"key_prefix "crosshost/" { policy = "write" }"#;
    let everything = lab.consul().token("all", rules);
    use_token(&everything);
    host.given("c1", &conf);
    status(&host, &conf).ok();
    let reader = r#"key_prefix "crosshost/" { policy = "read" }"#;
    let reader = lab.consul().token("reader", reader);
    for token in [&reader, "00000000-0000-4000-8000-000000000000"] {
        use_token(token);
        host.add("c2", &conf).refused(106, &["192.168.1.5:8500"]);
        let said = status(&host, &conf);
        assert_eq!(said.json()["details"], "an ADD would end with code 106");
        let said = said.refused(50, &["net1", "192.168.1.5:8500"]);
        assert!(!said.contains(token), "{said}");
    }
    use_token(&everything);
    status(&host, &conf).ok();
}

#[test]
fn a_network_that_could_not_be_made_is_told() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    host.given("c1", &ipamconf("net1", json!({ "subnet": "10.3.0.0/24" })));
    let conf = ipamconf("net2", json!({ "subnet": "10.3.0.128/25" }));
    let words = ["net2", "10.3.0.128/25", "overlaps", "net1"];
    host.add("c2", &conf).refused(104, &words);
    status(&host, &conf).refused(50, &words);
}

#[test]
fn status_with_the_store_away_is_about_the_hosts_own_room() {
    let lab = Lab::new(2, Backend::Consul);
    // Small blocks, which are soon full.
    let conf = ipamconf(
        "net1",
        json!({ "subnet": "10.3.0.0/24", "blockPrefix": 30 }),
    );
    let hosts = Direct::on_all(&lab);
    let (one, two) = (&hosts[0], &hosts[1]);
    one.given("first", &conf);
    // Refused at once, lost on the way, taken and never answered.
    let _silent = lab.consul().impostor(18600, b"");
    for away in [NO_STORE, NOWHERE, "consul://192.168.1.5:18600"] {
        for host in &hosts {
            host.host().configure(away);
        }
        status(one, &conf).ok();
        status(two, &conf).refused(50, &["net1", away.trim_start_matches("consul://")]);
    }
    // It says so exactly as long as an ADD succeeds.
    one.host().configure(NO_STORE);
    let mut number = 0;
    while status(one, &conf).ok().stderr.is_empty() {
        one.given(&format!("c{number}"), &conf);
        number += 1;
        assert!(number < 9, "more than a block and a spare one have");
    }
    assert!(number > 0, "it had room");
    one.add("last", &conf).refused(11, &["192.168.1.5:1"]);
    ready_but_full(one, &conf, &["net1", "192.168.1.5:1"]);
    one.call("DEL", "c0", &conf).run().ok();
    for host in &hosts {
        host.host().configure(&lab.store_url());
        status(host, &conf).ok();
    }
}

#[test]
fn a_verb_that_waits_for_a_silent_store_holds_no_status_up() {
    let lab = Lab::new(1, Backend::Consul);
    let known = ipamconf("net1", json!({ "subnet": "10.3.0.0/24" }));
    let new = ipamconf("net2", json!({ "subnet": "10.4.0.0/24" }));
    let host = Direct::on(lab.host(1));
    host.given("c1", &known);
    let proxy = lab.consul().proxy();
    host.host().configure(&proxy.url());
    lab.consul().pause();
    // An ADD begins the ledger of a network, and a sync reads the records of the other: each under that ledger's lock.
    let add = host.call("ADD", "c2", &new).start();
    let mut sync = host
        .host()
        .namespace()
        .command(Programs::product("crosshost"));
    sync.arg("sync");
    let sync = Running::start(sync, b"");
    proxy.await_request_of("ipam-kv");
    proxy.await_request_of("crosshost");
    for _ in 0..2 {
        status(&host, &known).ok();
        let said = status(&host, &new);
        said.refused(50, &["net2", "192.168.1.5:18500"]);
    }
    let mut overlay = netconf("net2", "10.4.0.0/24", "1.1.0");
    overlay["ipam"]["type"] = "ipam-kv".into();
    let said = host.host().call("overlay", "STATUS").conf(&overlay).run();
    assert!(said.took < Duration::from_secs(1), "{said}");
    said.refused(50, &["net2", "192.168.1.5:18500"]);
    assert!(add.is_alive() && sync.is_alive(), "both were at work");
    lab.consul().resume();
    add.wait(Duration::from_secs(20));
    sync.wait(Duration::from_secs(20));
    status(&host, &new).ok();
}

#[test]
fn on_a_network_that_reclaims_a_full_kept_block_is_no_room_while_the_store_is_away() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    let ipam = json!({ "subnet": "10.3.0.0/24", "blockPrefix": 30, "reclaimAfter": 60 });
    let conf = ipamconf("net1", ipam);
    // The kept block has two or three addresses, the spare one has room.
    for number in 0..4 {
        host.given(&format!("c{number}"), &conf);
    }
    status(&host, &conf).ok();
    for away in [NO_STORE, NOWHERE] {
        lab.host(1).configure(away);
        let place = away.trim_start_matches("consul://");
        ready_but_full(&host, &conf, &["net1", place]);
        host.add("more", &conf).refused(11, &[place]);
    }
    lab.host(1).configure(&lab.store_url());
    status(&host, &conf).ok();
    host.given("more", &conf);
    // Room in the kept block is room.
    host.call("DEL", "c0", &conf).run().ok();
    lab.host(1).configure(NO_STORE);
    status(&host, &conf).ok();
    host.given("again", &conf);
}

#[test]
fn a_configuration_that_differs_from_the_network_is_refused_in_the_words_of_an_add() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let conf = |ipam: Value| ipamconf("net1", ipam);
    hosts[0].given("c1", &conf(json!({ "subnet": "10.0.0.0/24" })));
    for (ipam, words) in [
        (
            json!({ "subnet": "10.0.1.0/24" }),
            ["ipam.ranges", "10.0.1.0/24", "10.0.0.0/24"],
        ),
        (
            json!({ "subnet": "10.0.0.0/24", "blockPrefix": 28 }),
            ["ipam.blockPrefix", "28", "not set"],
        ),
    ] {
        for host in &hosts {
            let words = [&["net1", "in the store"], &words[..]].concat();
            host.add("c2", &conf(ipam.clone())).refused(103, &words);
            let said = status(host, &conf(ipam.clone()));
            assert_eq!(said.json()["details"], "an ADD would end with code 103");
            said.refused(50, &words);
        }
    }
    // With no store to ask whether it still differs.
    lab.host(1).configure(NO_STORE);
    let other = conf(json!({ "subnet": "10.0.1.0/24" }));
    hosts[0].add("c2", &other).refused(11, &["192.168.1.5:1"]);
    status(&hosts[0], &other).refused(50, &["net1", "192.168.1.5:1"]);
}

#[test]
fn what_other_hosts_have_left_of_their_blocks_is_no_room_and_what_they_gave_back_is() {
    let lab = Lab::new(3, Backend::Consul);
    let conf = ipamconf(
        "net1",
        json!({ "subnet": "10.3.0.0/28", "blockPrefix": 30 }),
    );
    lab.sync();
    // Of four blocks each host has one from the network's creation, of which the third makes no use.
    let hosts = Direct::on_all(&lab);
    let (one, two, three) = (&hosts[0], &hosts[1], &hosts[2]);
    one.given("c0", &conf);
    two.given("far", &conf);
    for number in 1..9 {
        status(one, &conf).ok();
        one.given(&format!("c{number}"), &conf);
    }
    let full = records_but_nodes(&lab);
    let words = ["net1", "exhausted", "node docker02 has 1"];
    let said = status(three, &conf);
    assert_eq!(said.json()["details"], "an ADD would end with code 102");
    said.refused(50, &words);
    ready_but_full(one, &conf, &words);
    status(two, &conf).ok();
    assert_eq!(records_but_nodes(&lab), full);
    one.add("asks", &conf).refused(102, &words);

    // It has no home now, and no host sends there.
    one.host().crosshost("node rm docker02 --force").ok();
    for host in [one, three] {
        status(host, &conf).ok();
    }
    three.given("heir", &conf);
    ready_but_full(one, &conf, &["net1", "exhausted", "node docker03 has 1"]);
}

#[test]
fn a_block_that_a_host_may_still_send_to_is_room_when_that_host_has_dropped_it() {
    let lab = Lab::new(3, Backend::Consul);
    let mut conf = netconf("net1", "10.3.0.0/28", "1.1.0");
    conf["ipam"]["blockPrefix"] = 29.into();
    for host in lab.hosts() {
        host.sync();
        host.install(&json!({ "cniVersion": "1.0.0", "name": "net1", "plugins": [conf] }));
    }
    let ask = || {
        let said = lab.host(3).call("overlay", "STATUS").conf(&conf).run();
        assert!(said.took < Duration::from_secs(1), "{said}");
        said
    };
    // Two blocks, which the first two hosts are given. The second one makes no use of its own at first.
    let first = Attachment::new(lab.host(1), "t1", "net1");
    ask().ok();
    let _second = Attachment::new(lab.host(2), "t2", "net1");
    ask().refused(50, &["net1", "exhausted", "node docker02 has 1"]);
    let gone = "node rm docker02 --force";
    first.host().crosshost(gone).ok();
    let words = ["net1", "waits for node docker01", "crosshost sync"];
    ask().refused(50, &words);
    first.host().sync();
    ask().ok();
    Attachment::new(lab.host(3), "t3", "net1");
    ask().ok();
}
