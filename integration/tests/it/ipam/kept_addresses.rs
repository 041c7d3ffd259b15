//! An address stays with its container: the same id again gets the same address, as long as nobody else needed it.

use crate::ownership::{blocks, ip};
use integration::{Attachment, Backend, Direct, Lab, Programs, conflist, ipamconf, ranges};
use serde_json::{Value, json};

/// Longer than the rest of a freed address, which is 60 s.
const RESTED: u64 = 61;

fn pool(subnets: &str) -> Value {
    ipamconf("net1", json!({ "ranges": ranges(subnets) }))
}

fn del(host: &Direct, id: &str, conf: &Value) {
    host.call("DEL", id, conf).run().ok();
}

#[test]
fn a_container_that_comes_back_has_its_address_again_and_others_have_not() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    let conf = pool("10.1.0.0/24 fd00:1::/64");
    let one = host.given("c1", &conf);
    let two = host.given("c2", &conf);
    assert_eq!(one, ["10.1.0.2/24", "fd00:1::2/64"]);
    del(&host, "c1", &conf);
    // Nobody needs it: there are others.
    assert_eq!(host.given("c3", &conf)[0], "10.1.0.4/24");
    assert_eq!(host.given("c1", &conf), one, "at once, without a rest");
    // Twice, and in another order.
    for id in ["c1", "c2"] {
        del(&host, id, &conf);
    }
    // Another interface of the container is another attachment.
    let other = host.call("ADD", "c1", &conf).ifname("eth1").run().ok();
    assert_eq!(integration::addresses_in(&other.json())[0], "10.1.0.5/24");
    assert_eq!(host.given("c2", &conf), two);
    assert_eq!(host.given("c1", &conf), one);
    // What it asks for by number counts more, and is its own from then on.
    del(&host, "c1", &conf);
    let mut asks = conf.clone();
    asks["runtimeConfig"] = json!({ "ips": ["10.1.0.77"] });
    assert_eq!(host.given("c1", &asks)[0], "10.1.0.77/24");
    del(&host, "c1", &conf);
    assert_eq!(host.given("c1", &conf)[0], "10.1.0.77/24");
    // Not outside the ranges to which its runtime narrows the choice.
    del(&host, "c1", &conf);
    let mut narrow = conf.clone();
    let range =
        json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.6" });
    narrow["runtimeConfig"] = json!({ "ipRanges": [[range]] });
    assert_eq!(host.given("c1", &narrow)[0], "10.1.0.6/24");
}

#[test]
fn whoever_needs_the_address_gets_it() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    // Five addresses.
    let conf = pool("10.1.0.0/29");
    let ids = ["c1", "c2", "c3", "c4", "c5"];
    let given: Vec<_> = ids.iter().map(|id| host.given(id, &conf)).collect();
    del(&host, "c1", &conf);
    assert_eq!(host.given("late", &conf), given[0], "it is the last one");
    host.add("c1", &conf).refused(102, &["c5"]);
    del(&host, "c3", &conf);
    assert_eq!(host.given("c1", &conf), given[2]);
    // What it had last counts.
    del(&host, "c1", &conf);
    del(&host, "late", &conf);
    assert_eq!(host.given("c1", &conf), given[2]);
    assert_eq!(host.given("late", &conf), given[0]);
}

/// The host gives back blocks that stay empty. As long as no other host has taken the block, it is taken again.
#[test]
fn the_block_of_the_address_may_have_been_given_back() {
    let lab = Lab::new(2, Backend::Consul);
    let hosts = Direct::on_all(&lab);
    let (host, other) = (&hosts[0], &hosts[1]);
    let conf = ipamconf(
        "net1",
        json!({ "ranges": ranges("10.1.0.0/27"), "blockPrefix": 29 }),
    );
    let ids: Vec<_> = (0..14).map(|number| format!("c{number}")).collect();
    let given: Vec<_> = ids.iter().map(|id| host.given(id, &conf)).collect();
    let around = |address: &str| {
        let mut all = blocks(&lab, "net1").into_iter();
        all.find(|block| block.contains(ip(address)))
    };
    let last = &given[13][0];
    assert_eq!(around(last).expect("a block").node(), "docker01");
    for id in &ids {
        del(host, id, &conf);
    }
    host.host().namespace().let_pass(RESTED);
    host.host().sync();
    let state = || around(last).map(|block| block.record["state"].clone());
    assert_eq!(state(), Some("returned".into()), "{:?}", state());
    assert_eq!(host.given("c13", &conf), given[13]);
    assert_eq!(state(), Some(Value::Null));

    // And what another host has taken is that host's.
    del(host, "c13", &conf);
    host.host().namespace().let_pass(RESTED);
    host.host().sync();
    assert_eq!(state(), Some("returned".into()));
    for number in 0..16 {
        other.given(&format!("o{number}"), &conf);
    }
    let another = host.given("c13", &conf);
    assert_ne!(another, given[13]);
    host.host().sync();
}

/// After a reboot the runtime starts its containers in whatever order, and this host has no documents.
#[test]
fn a_reboot_of_the_host_is_no_end() {
    let lab = Lab::new(1, Backend::Consul);
    let host = Direct::on(lab.host(1));
    let conf = pool("10.1.0.0/24 fd00:1::/64");
    let ids = ["c1", "c2", "c3"];
    let given = ids.map(|id| host.given(id, &conf));
    lab.host(1).reboot();
    let host = Direct::on(lab.host(1));
    for number in [2, 0, 1] {
        assert_eq!(host.given(ids[number], &conf), given[number]);
    }
}

/// An earlier version does not know the memory and drops it: then a container may get another address, and nothing else happens.
#[test]
fn earlier_versions_work_beside_it() {
    let lab = Lab::new(1, Backend::Consul);
    let host = lab.host(1);
    let earlier = || host.exchange_programs(Some(Programs::previous("86dc1f2")));
    let this = || host.exchange_programs(None);
    let network = "ov_net1";
    host.install(&conflist(network, "10.0.0.0/24"));
    let stays = Attachment::new(host, "stays", network);
    let again = |attached: Attachment<'_>| {
        let (before, container) = (attached.address, attached.container);
        let attached = Attachment::of(host.existing(container.name()), network, "eth0");
        (before, attached)
    };
    let mut one = Attachment::new(host, "one", network);
    // Made and removed by an earlier version, beside one of this version.
    earlier();
    let mut two = Attachment::new(host, "two", network);
    one.detach().ok();
    two.detach().ok();
    (_, one) = again(one);
    (_, two) = again(two);
    assert!(one.address != two.address && one.address != stays.address);
    // What this version removes it remembers, also of a container that an earlier one made,
    this();
    two.detach().ok();
    one.detach().ok();
    let third = Attachment::new(host, "third", network);
    for attached in [&mut one, &mut two] {
        let before = attached.address;
        let name = attached.container.name().to_owned();
        *attached = Attachment::of(host.existing(&name), network, "eth0");
        assert_eq!(attached.address, before);
    }
    // until an earlier one has written the ledger.
    one.detach().ok();
    earlier();
    let fourth = Attachment::new(host, "fourth", network);
    this();
    let (before, one) = again(one);
    assert_ne!(one.address, before, "it is forgotten, and rests");
    let all = [&stays, &one, &two, &third, &fourth];
    let addresses: std::collections::BTreeSet<_> = all.iter().map(|it| it.address).collect();
    assert_eq!(addresses.len(), all.len());
    for attached in all {
        host.cnitool("check", network, attached.container.name(), "eth0")
            .ok();
    }
}
