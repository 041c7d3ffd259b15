//! The reference plugin `portmap` (Debian's package, on iptables) and ours through the same scenarios: what differs is a
//! decision, and stands in `docs/portmap.md`.
#![allow(clippy::expect_used, reason = "a test: it stops where it broke")]

mod ports;

use std::collections::BTreeMap;

use integration::{Backend, Lab, Programs};
use ports::{Published, asks, heard, heard_at, network, port};
use serde_json::{Value, json};

/// The reference under another name than ours.
const REFERENCE: &str = "reference-portmap";

/// What a client hears, by what it does. Whom the container sees is in it, but for the host's own addresses.
type Outcomes = BTreeMap<String, String>;

fn with(plugin: &str, under: &str, name: &str, number: u8, keys: &Value) -> Value {
    let mut network = ports::with(network(under, name, number), keys);
    network["plugins"][1]["type"] = plugin.into();
    network
}

/// One host with containers on two networks under a plugin, and what each way gives.
fn outcomes(plugin: &str, under: &str, keys: &Value) -> Outcomes {
    let lab = Lab::new(2, Backend::Dir);
    let (host, far) = (lab.host(1), lab.host(2));
    host.space().script(&format!(
        "mkdir -p {0}; ln -s {1}/portmap {0}/{REFERENCE}",
        Programs::MORE_PLUGINS,
        Programs::REFERENCE,
    ));
    host.install(&with(plugin, under, "one", 1, keys));
    host.install(&with(plugin, under, "two", 2, keys));
    let bound =
        json!({ "hostIP": host.vtep(), "hostPort": 8081, "containerPort": 80, "protocol": "tcp" });
    let udp = json!({ "hostPort": 8082, "containerPort": 80, "protocol": "udp" });
    let web = Published::new(host, "web", "one", &json!([port(8080, 80), bound, udp]));
    let _server = web.serves(80);
    let beside = Published::new(host, "beside", "one", &json!([]));
    let apart = Published::new(host, "apart", "two", &json!([]));
    let mut outcomes = Outcomes::new();
    let mut note = |what: &str, heard: String| {
        let own = ["10.1.", "fd00:1:", "192.168.1.11", "2001:db8:192:168:1::11"];
        let of_host = heard
            .strip_prefix("web ")
            .is_some_and(|seen| own.iter().any(|own| seen.starts_with(own)));
        let heard = if of_host {
            "web, seen as the host or its bridge".to_owned()
        } else {
            heard
        };
        outcomes.insert(what.to_owned(), heard);
    };
    for (version, address) in [("4", host.vtep().to_owned()), ("6", host.address6())] {
        note(
            &format!("outside, IPv{version}"),
            heard_at(lab.outside(), &address, 8080),
        );
        note(
            &format!("another host, IPv{version}"),
            heard_at(far.space(), &address, 8080),
        );
        note(
            &format!("the host, IPv{version}"),
            heard_at(host.space(), &address, 8080),
        );
        note(
            &format!("itself, IPv{version}"),
            heard(&web.container.net(), &address, 8080),
        );
        note(
            &format!("its neighbour, IPv{version}"),
            heard(&beside.container.net(), &address, 8080),
        );
        note(
            &format!("another network, IPv{version}"),
            heard(&apart.container.net(), &address, 8080),
        );
        note(
            &format!("bound to an address, IPv{version}"),
            heard_at(far.space(), &address, 8081),
        );
        note(
            &format!("the port of UDP, IPv{version}"),
            heard_at(far.space(), &address, 8082),
        );
    }
    note("127.0.0.1", heard_at(host.space(), "127.0.0.1", 8080));
    note("CHECK", web.again("check").status.success().to_string());
    // Who comes later.
    host.container("late");
    let late = host.cnitool_asking(
        "add",
        "one",
        ("late", "eth0"),
        &asks(&json!([port(8080, 80)])),
    );
    note("a second container", late.status.success().to_string());
    web.again("del").ok();
    web.again("del").ok();
    note("after DEL", heard_at(far.space(), host.vtep(), 8081));
    outcomes
}

/// What is not alike, with what the reference does.
fn differences(under: &str, keys: &Value) -> Vec<String> {
    let ours = outcomes("portmap", under, keys);
    let theirs = outcomes(REFERENCE, under, keys);
    let differs = ours.iter().filter(|(what, heard)| theirs[*what] != **heard);
    differs
        .map(|(what, heard)| format!("{what}: {heard}; reference: {}", theirs[what]))
        .collect()
}

/// What is, in the words of [`differences`]: of two versions of IP the reference's CHECK looks for each one's rules in both.
const DECIDED: [&str; 2] = [
    "CHECK: true; reference: false",
    "a second container: false; reference: true",
];

#[test]
fn under_a_bridge_only_what_is_written_down_differs() {
    assert_eq!(differences("bridge", &json!({})), DECIDED);
}

#[test]
fn nor_point_to_point() {
    assert_eq!(differences("ptp", &json!({})), DECIDED);
}

#[test]
fn without_snat_the_same_ways_are_closed() {
    assert_eq!(differences("bridge", &json!({ "snat": false })), DECIDED);
}

/// Debian's version does not know the key yet: there everybody is still seen by the own address.
#[test]
fn with_all_hidden_whoever_comes_is_seen_as_the_host() {
    let all = differences("bridge", &json!({ "masqAll": true }));
    let hidden = ": web, seen as the host or its bridge; reference: web ";
    let (hidden, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.contains(hidden));
    assert_eq!(rest, DECIDED);
    assert_eq!(hidden.len(), 7, "{hidden:#?}");
}
