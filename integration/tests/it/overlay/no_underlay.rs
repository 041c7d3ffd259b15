//! Hosts that no route leaves: one that only allocates addresses needs none, and one that forwards is told so while its
//! addresses are looked after all the same.

use std::collections::BTreeSet;

use crate::store_reader::leased;
use integration::{Attachment, Backend, Direct, Host, Lab, conflist, ipamconf};
use serde_json::{Value, json};

/// The host names its store and itself, and no tunnel address.
fn unnamed(lab: &Lab, host: &Host) {
    let config = json!({ "store": { "url": lab.store_url() }, "node": { "name": host.name() } });
    host.write("/etc/crosshost/config.json", config.to_string());
}

fn vtep(host: &Host) -> Value {
    host.listed("node ls")[0]["vtep"].clone()
}

const NO_ROUTE: &str = "no route leaves this host";

#[test]
fn a_host_that_only_allocates_is_in_sync_without_one() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    unnamed(&lab, host);
    host.script("ip route del default");
    let direct = Direct::on(host);
    let conf = ipamconf("net1", json!({ "subnet": "10.1.0.0/24" }));
    direct.given("c1", &conf);
    host.reboot();
    let said = host.sync().stdout;
    assert!(said.contains("in sync"), "{said}");
    assert_eq!(leased(&lab, "net1"), BTreeSet::new());
    assert_eq!(vtep(host), Value::Null);
    // With a way out it is known by it, before it has a container.
    host.script("ip route add default via 192.168.1.1");
    host.sync();
    assert_eq!(vtep(host), host.vtep());
    // From then on it is one that others may send to.
    host.script("ip route del default");
    host.crosshost("sync").failed().warns(&[NO_ROUTE]);
    assert_eq!(vtep(host), host.vtep());
}

#[test]
fn a_host_with_sandboxes_is_told_and_its_addresses_are_looked_after() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    unnamed(&lab, host);
    host.install(&conflist("ov_net1", "10.0.0.0/24"));
    let _attached = Attachment::new(host, "t2", "ov_net1");
    let direct = Direct::on(host);
    let conf = ipamconf("net1", json!({ "subnet": "10.1.0.0/24" }));
    direct.given("c1", &conf);
    // A release that the store has not heard of.
    host.configure("consul://192.168.1.5:1");
    direct.call("DEL", "c1", &conf).run().ok();
    unnamed(&lab, host);
    assert_eq!(leased(&lab, "net1").len(), 1);
    host.script("ip route del default");
    host.crosshost("sync").failed().warns(&[NO_ROUTE]);
    assert_eq!(leased(&lab, "net1"), BTreeSet::new());
    assert_eq!(leased(&lab, "ov_net1").len(), 1);
    host.script("ip route add default via 192.168.1.1");
    host.sync();
}

#[test]
fn a_host_that_has_only_ipv6_is_known_by_it() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    unnamed(&lab, host);
    host.script("ip -4 address flush dev ens3");
    host.sync();
    assert_eq!(vtep(host), host.address6());
    // What a container's way out has of IPv4 is nothing that others could send to.
    host.install(&conflist("ov_net1", "10.0.0.0/24"));
    let _attached = Attachment::new(host, "t1", "ov_net1");
    host.sync();
    assert_eq!(vtep(host), host.address6());
    // An address that means nothing beyond the link is none.
    host.script("ip -6 address flush dev ens3 scope global; ip -6 route show default");
    host.crosshost("sync").failed().warns(&[NO_ROUTE]);
}
