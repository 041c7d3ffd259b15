//! Which subnet the egress bridge has: none that a container on it reaches otherwise, now or when it joins another network.

use integration::{Attachment, Backend, Container, Host, Lab, OUTSIDE, conflist, detach_all};
use serde_json::{Value, json};

fn install(host: &Host, name: &str, subnet: &str, egress: Value) {
    let mut conf = conflist(name, subnet);
    conf["plugins"][0]["egress"] = egress;
    host.install(&conf);
}

fn gateway(container: &Container<'_>) -> String {
    let routes = container.ip("route show default");
    routes[0]["gateway"].as_str().expect("a gateway").to_owned()
}

#[test]
fn is_none_of_a_network() {
    let lab = Lab::new(2, Backend::Dir);
    let host = lab.host(1);
    // The network itself has the first of the customary ones, others have the next two: one of the store, which this host has
    // no copy of, and one of which there is nothing but a route here.
    install(host, "own", "172.18.0.0/24", json!("gwbridge"));
    lab.host(2).create_network("other", "172.19.0.0/20");
    host.script("ip route add 172.20.5.0/24 via 192.168.1.1");
    let attached = Attachment::new(host, "t1", "own");
    assert_eq!(gateway(&attached.container), "172.21.0.1");
    let heard = attached.container.tcp_get(OUTSIDE).expect("a way out");
    assert_eq!(heard, host.vtep());
    // One that was made when the other existed is not in its way.
    install(host, "other", "172.19.0.0/20", json!("gwbridge"));
    let both = Attachment::of(host.container("t2"), "other", "eth0");
    host.cnitool("add", "own", "t2", "eth1").ok();
    assert!(both.container.tcp_get(OUTSIDE).is_ok());
    host.cnitool("del", "own", "t2", "eth1").ok();
    both.detach().ok();
    attached.detach().ok();
}

#[test]
fn is_refused_where_it_was_named_and_a_network_has_it() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let named = json!({ "mode": "gwbridge", "subnet": "172.18.0.0/16" });
    install(host, "own", "172.18.3.0/24", named.clone());
    install(host, "far", "10.0.0.0/24", named);
    host.container("t1");
    let before = host.footprint();
    let refused = |network: &str| {
        let added = host.cnitool("add", network, "t1", "eth0").failed();
        for word in ["egress.subnet", "172.18.0.0/16", "172.18.3.0/24"] {
            assert!(added.stderr.contains(word), "no {word}: {added}");
        }
        host.cnitool("del", network, "t1", "eth0").ok();
        host.assert_same_as(&before, network);
    };
    refused("own");
    // The container is not on it, but may be.
    refused("far");
}

#[test]
fn that_is_in_use_keeps_a_container_off_a_network_that_has_its_gateway_or_address() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    install(host, "first", "10.0.0.0/24", json!("gwbridge"));
    let first = Attachment::new(host, "t1", "first");
    assert_eq!(gateway(&first.container), "172.18.0.1");
    install(host, "inner", "172.18.0.0/29", json!("none"));
    install(host, "open", "172.18.0.8/29", json!("gwbridge"));
    let inner = Attachment::new(host, "t2", "inner");
    let before = host.footprint();
    for (network, container) in [("inner", "t1"), ("first", "t2")] {
        let added = host.cnitool("add", network, container, "eth1").failed();
        for word in ["egress.subnet", "172.18.0.0/16", "172.18.0.0/29"] {
            assert!(added.stderr.contains(word), "{network}: no {word}: {added}");
        }
        host.cnitool("del", network, container, "eth1").ok();
    }
    host.assert_same_as(&before, "after the refusals");
    // What is only smaller, as networks of earlier versions may be, is not in the way, and no address is in both.
    let open: Vec<_> = (3..8)
        .map(|number| Attachment::new(host, &format!("t{number}"), "open"))
        .collect();
    for attached in open.iter().chain([&first]) {
        assert!(attached.container.tcp_get(OUTSIDE).is_ok());
        let gw0 = attached
            .container
            .address("gw0")
            .expect("an address")
            .to_string();
        let last: u8 = gw0
            .rsplit('.')
            .next()
            .and_then(|last| last.parse().ok())
            .expect("a byte");
        assert!(
            attached.network == "first" || !(8..16).contains(&last),
            "{gw0}"
        );
    }
    assert!(open[0].container.pings(open[1].address, &[]));
    detach_all(open.into_iter().chain([first, inner]));
}

#[test]
fn that_is_in_use_goes_with_the_last_container_and_the_next_one_has_another() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    install(host, "first", "10.0.0.0/24", json!("gwbridge"));
    install(host, "open", "172.18.0.0/24", json!("gwbridge"));
    let first = Attachment::new(host, "t1", "first");
    let other = host.container("t2");
    let before = host.footprint();
    let added = host.cnitool("add", "open", "t2", "eth0").failed();
    for word in [
        "egress.subnet",
        "172.18.0.0/16",
        "172.18.0.1",
        "172.18.0.0/24",
    ] {
        assert!(added.stderr.contains(word), "no {word}: {added}");
    }
    host.cnitool("del", "open", "t2", "eth0").ok();
    host.assert_same_as(&before, "after the refusal");
    assert!(first.container.tcp_get(OUTSIDE).is_ok());
    first.detach().ok();
    let open = Attachment::of(other, "open", "eth0");
    assert_eq!(gateway(&open.container), "172.19.0.1");
    open.detach().ok();
}
