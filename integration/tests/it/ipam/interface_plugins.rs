//! `ipam-kv` under interface plugins that know nothing of crosshost: Debian's `bridge`, `ptp` and `macvlan`
//! (containernetworking-plugins 1.1.1), driven by cnitool on three hosts with one store. What every such plugin must get:
//! addresses that differ over all hosts, by the containers' real interfaces, and leases that come and go with them.
//!
//! Each host has a container `t1` and so on. As cnitool makes the container's id of the namespace's path, the same ids are
//! on all hosts, and what one host gives back must not be what another holds.
//!
//! What these plugins cannot do: they speak 1.0.0 at most, so that GC and STATUS are unknown to them and a runtime's reach
//! `ipam-kv` only if it calls it itself. What the kernel cannot do: a macvlan container does not reach its own host.

use std::collections::BTreeMap;

use crate::ipam::attached::{addresses, all_go, attach, id_of, lab, leases, on_interfaces};
use integration::{Attachment, Backend, Direct, Lab, OUTSIDE, ipamconf, workspace};
use serde_json::{Value, json};

const GATEWAY: &str = "10.22.0.254";

/// The network `br_net1`: `bridge` with words of its own, and a gateway and routes that are not the defaults.
fn bridge(version: &str) -> Value {
    let plugin = json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipMasq": true,
        "ipam": {
            "type": "ipam-kv",
            "ranges": [[{ "subnet": "10.22.0.0/24", "gateway": GATEWAY }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "198.51.100.0/24", "gw": "10.22.0.253" }],
        },
    });
    json!({ "cniVersion": version, "name": "br_net1", "plugins": [plugin] })
}

/// A shipped file, as it is.
fn shipped(name: &str) -> Value {
    let file = std::fs::read_to_string(workspace().join("cni-conf").join(name));
    serde_json::from_str(&file.expect("the file")).expect("JSON")
}

fn macvlan() -> Value {
    shipped("macvlan.conflist")
}

/// What a runtime that knows GC hands to the IPAM plugin of [`bridge`], its interface plugin not forwarding the verb.
fn gc_conf(valid: &Value) -> Value {
    let mut conf = bridge("1.1.0")["plugins"][0].clone();
    conf["cniVersion"] = "1.1.0".into();
    conf["name"] = "br_net1".into();
    conf["cni.dev/valid-attachments"] = valid.clone();
    conf
}

#[test]
fn bridge_on_three_hosts() {
    let lab = lab(Backend::Consul, &[bridge("1.0.0")]);
    let attached = attach(&lab, "br_net1", &["t1", "t2", "t3"]);
    assert_eq!(on_interfaces(&attached).len(), 9);
    assert_eq!(leases(&lab, "br_net1"), on_interfaces(&attached));
    for one in &attached {
        let (host, container) = (one.host(), &one.container);
        let ways = container.ip("route show");
        for (to, by) in [("default", GATEWAY), ("198.51.100.0/24", "10.22.0.253")] {
            let mut ways = ways.as_array().into_iter().flatten();
            let way = ways.find(|way| way["dst"] == to);
            assert_eq!(way.map(|way| &way["gateway"]), Some(&json!(by)), "{to}");
        }
        let gateway = host.run("ip address show cni0").ok();
        let wanted = format!("inet {GATEWAY}/24 ");
        assert!(gateway.stdout.contains(&wanted), "isGateway: {gateway}");
        let seen = container.tcp_get(OUTSIDE).expect("the outside");
        assert_eq!(seen, host.vtep(), "ipMasq");
        let check = host.cnitool("check", "br_net1", container.name(), "eth0");
        check.ok();
    }

    // CHECK went through to the lease: without it, all else as before, it fails.
    let last = &attached[8];
    let id = id_of(last);
    let behind = last.host().call("ipam-kv", "DEL").id(&id);
    behind.conf(&gc_conf(&json!([]))).run().ok();
    let check = last.host().cnitool("check", "br_net1", "t3", "eth0");
    check.failed().warns(&[&id]);
    last.detach().ok();
    all_go(&lab, &attached[..8]);
}

#[test]
fn garbage_is_collected_on_its_own_host_only() {
    let lab = lab(Backend::Consul, &[bridge("1.0.0")]);
    let attached = attach(&lab, "br_net1", &["t1", "t2"]);
    let held = |kept: &[usize]| {
        let kept: Vec<_> = kept.iter().map(|at| &attached[*at]).collect();
        let kept = kept
            .iter()
            .map(|one| (one.address, one.host().name().to_owned()));
        assert_eq!(leases(&lab, "br_net1"), kept.collect());
    };
    let [one, two, three] = [1, 2, 3].map(|number| lab.host(number));

    // At 1.1.0 cnitool sends GC to `bridge`, which does not know the verb.
    let mut newer = bridge("1.1.0");
    newer["name"] = "br_newer".into();
    one.install(&newer);
    one.cnitool("gc", "br_newer", "t1", "eth0")
        .failed()
        .warns(&["failed to GC plugin bridge"]);
    held(&[0, 1, 2, 3, 4, 5]);

    // So a runtime says it to `ipam-kv`: listed ones stay, also those of the same ids on other hosts.
    let listed = json!([{ "containerID": id_of(&attached[0]), "ifname": "eth0" }]);
    one.call("ipam-kv", "GC").conf(&gc_conf(&listed)).run().ok();
    held(&[0, 2, 3, 4, 5]);
    two.call("ipam-kv", "GC")
        .conf(&gc_conf(&Value::Null))
        .run()
        .ok();
    held(&[0, 4, 5]);
    // Below 1.1.0 cnitool sends DEL to all that it has in its cache and that is not listed, which is all.
    three.cnitool("gc", "br_net1", "t1", "eth0").ok();
    held(&[0]);
    assert_eq!(attached[4].container.link("eth0"), Value::Null);
}

#[test]
fn a_reboot_voids_the_leases_of_its_own_host_only() {
    let lab = lab(Backend::Consul, &[bridge("1.0.0")]);
    let mut attached = attach(&lab, "br_net1", &["t1", "t2"]);
    let on_two_and_three = attached.split_off(2);
    lab.host(1).reboot();
    // The first verb is an ADD: of the same name, and so of the same id.
    let anew = Attachment::new(lab.host(1), "t1", "br_net1");
    let mut left = on_interfaces(&on_two_and_three);
    left.insert(anew.address, "docker01".to_owned());
    assert_eq!(leases(&lab, "br_net1"), left);
    // The runtime cleans up late behind the container that did not come back.
    attached[1].detach().ok();
    assert_eq!(leases(&lab, "br_net1"), left);
    for (host, name) in [(1, "t1"), (2, "t1"), (2, "t2")] {
        let check = lab.host(host).cnitool("check", "br_net1", name, "eth0");
        check.ok();
    }
}

#[test]
fn a_sync_after_a_reboot_voids_them_too() {
    let lab = lab(Backend::Dir, &[bridge("1.0.0")]);
    let attached = attach(&lab, "br_net1", &["t1"]);
    lab.host(1).reboot();
    lab.host(1).sync();
    assert_eq!(leases(&lab, "br_net1"), on_interfaces(&attached[1..]));
}

#[test]
fn every_version_that_bridge_speaks() {
    let lab = lab(Backend::Dir, &[]);
    let host = lab.host(1);
    // Where there is no configuration of the host, the plugin's own entry says it all.
    let config = host.namespace().path("/etc/crosshost/config.json");
    std::fs::remove_file(config).expect("no configuration of the host");
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let mut conflist = bridge(version);
        let plugin = &mut conflist["plugins"][0];
        plugin["store"] = json!({ "url": lab.store_url() });
        plugin["node"] = json!({ "name": "of-the-entry" });
        host.install(&conflist);
        let t1 = host.container("t1");
        let added = host.cnitool("add", "br_net1", "t1", "eth0").ok().json();
        let [address] = addresses(&t1, "eth0")[..] else {
            panic!("{version}: one address")
        };
        let told = added.pointer(match version {
            "0.1.0" | "0.2.0" => "/ip4/ip",
            _ => "/ips/0/address",
        });
        assert_eq!(told, Some(&json!(format!("{address}/24"))), "{added:#}");
        assert_eq!(added["cniVersion"], version);
        let held = BTreeMap::from([(address, "of-the-entry".to_owned())]);
        assert_eq!(leases(&lab, "br_net1"), held, "{version}");
        host.cnitool("del", "br_net1", "t1", "eth0").ok();
        assert_eq!(leases(&lab, "br_net1"), BTreeMap::new(), "{version}");
        t1.remove();
    }
}

#[test]
fn ptp_on_three_hosts_with_both_families() {
    let ptp = json!({
        "type": "ptp",
        "ipMasq": true,
        "ipam": {
            "type": "ipam-kv",
            "ranges": [[{ "subnet": "10.23.0.0/24" }], [{ "subnet": "fd00:23::/64" }]],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
        },
    });
    let ptp = json!({ "cniVersion": "1.0.0", "name": "ptp_net1", "plugins": [ptp] });
    let lab = lab(Backend::Dir, &[ptp]);
    let attached = attach(&lab, "ptp_net1", &["t1", "t2"]);
    assert_eq!(leases(&lab, "ptp_net1"), on_interfaces(&attached));
    for one in &attached {
        let (host, container) = (one.host(), &one.container);
        let families = addresses(container, "eth0");
        let [v4, v6] = families[..] else {
            panic!("one address of each family: {families:?}")
        };
        assert!(v4.is_ipv4() && v6.is_ipv6(), "{families:?}");
        for place in ["10.23.0.1", "fd00:23::1", host.vtep()] {
            let place = place.parse().expect("an address");
            // An IPv6 gateway of `ptp` answers when the kernel is done looking for its double.
            let reached = container.pings(place, &["-w8"]);
            assert!(reached, "to its host, {place}");
        }
        let seen = container.tcp_get(OUTSIDE).expect("the outside");
        assert_eq!(seen, host.vtep(), "ipMasq");
        let check = host.cnitool("check", "ptp_net1", container.name(), "eth0");
        check.ok();
    }
    all_go(&lab, &attached);
}

#[test]
fn macvlan_joins_three_hosts_on_their_own_segment() {
    let lab = lab(Backend::Consul, &[macvlan()]);
    let attached = attach(&lab, "lan_net1", &["t1", "t2"]);
    assert_eq!(leases(&lab, "lan_net1"), on_interfaces(&attached));
    for one in &attached {
        let (host, container) = (one.host(), &one.container);
        // Not itself: cnitool leaves a container's `lo` down.
        for other in attached.iter().filter(|it| it.address != one.address) {
            let said = container.ping(other.address, &[]);
            assert!(said.status.success(), "{} {said}", host.name());
        }
        // An address of the segment needs no NAT, and no host but its own is out of reach.
        let seen = container.tcp_get(OUTSIDE).expect("the outside");
        assert_eq!(seen, one.address.to_string());
        for other in lab.hosts() {
            let vtep = other.vtep().parse().expect("an address");
            let reached = container.pings(vtep, &["-W1"]);
            assert_eq!(reached, other.name() != host.name(), "{vtep}");
        }
        let check = host.cnitool("check", "lan_net1", container.name(), "eth0");
        check.ok();
    }
    all_go(&lab, &attached);
}

#[test]
fn a_container_on_a_bridge_and_on_the_segment() {
    let lab = lab(Backend::Dir, &[bridge("1.0.0"), macvlan()]);
    let on_bridge = attach(&lab, "br_net1", &["t1"]);
    let on_segment: Vec<_> = on_bridge
        .iter()
        .map(|one| Attachment::of(one.host().existing("t1"), "lan_net1", "net1"))
        .collect();
    for (bridged, joined) in on_bridge.iter().zip(&on_segment) {
        let t1 = &bridged.container;
        assert!(
            t1.pings(GATEWAY.parse().expect("an address"), &[]),
            "by eth0"
        );
        for other in on_segment.iter().filter(|it| it.address != joined.address) {
            assert!(t1.pings(other.address, &[]), "by net1 to {}", other.address);
        }
        // Of two default routes the one that came last counts.
        let seen = t1.tcp_get(OUTSIDE).expect("the outside");
        assert_eq!(seen, joined.address.to_string());
    }
    // One network ends, the other stays.
    all_go(&lab, &on_bridge);
    assert_eq!(leases(&lab, "lan_net1"), on_interfaces(&on_segment));
    assert!(on_segment[0].container.pings(on_segment[1].address, &[]));
    all_go(&lab, &on_segment);
}

/// Debian's `tuning` speaks the specification up to 1.0.0. A runtime that knows 1.1.0 takes it where a list offers it, for all
/// plugins of the list.
#[test]
fn the_lists_for_hosts_with_debians_plugins_take_one_behind_ours() {
    for name in ["nerdctl.conflist", "podman.conflist"] {
        let mut list = shipped(name);
        let tuning =
            json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.log_martians": "1" } });
        let plugins = list["plugins"].as_array_mut();
        plugins.expect("plugins").push(tuning);
        let lab = Lab::with_network(1, Backend::Dir, &list);
        let host = lab.host(1);
        let before = lab.footprints();
        let t1 = Attachment::new(host, "t1", "ov_net1");
        let set = "cat /proc/sys/net/ipv4/conf/eth0/log_martians";
        assert_eq!(t1.container.run(set).ok().stdout.trim(), "1", "{name}");
        host.cnitool("check", "ov_net1", "t1", "eth0").ok();
        t1.detach().ok();

        // With the line that the other lists have neither ADD nor DEL comes through.
        list["cniVersions"] = json!(["1.1.0"]);
        host.install(&list);
        for verb in ["add", "del"] {
            let said = host.cnitool(verb, "ov_net1", "t1", "eth0").failed();
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(text.contains("incompatible CNI versions"), "{text}");
        }
        list["cniVersions"] = json!([]);
        host.install(&list);
        t1.end();
        lab.assert_same_as(&before, "when its container is gone");
    }
}

#[test]
fn the_outer_plugins_own_keys_are_its_own_whatever_their_shape() {
    let lab = Lab::new(1, Backend::Dir);
    let host = Direct::on(lab.host(1));
    let foreign = json!({
        "mtu": "1450", "node": "x", "egress": true, "vni": "a", "vxlanPort": [4789],
        "MTU": {}, "Node": ["x"],
    });
    let mut conf = ipamconf("net1", json!({ "subnet": "10.2.0.0/24" }));
    conf["type"] = "calico".into();
    let plain = conf.clone();
    for (key, value) in foreign.as_object().expect("keys") {
        conf[key] = value.clone();
    }
    assert_eq!(host.given("c1", &conf), ["10.2.0.2/24"]);
    conf["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.2.0.2/24" }] });
    for verb in ["CHECK", "STATUS", "DEL", "GC"] {
        let said = host.call(verb, "c1", &conf).run().ok();
        assert_eq!((&said.stdout[..], &said.stderr[..]), ("", ""), "{verb}");
    }
    let node = |node: Value| {
        let mut conf = plain.clone();
        conf["node"] = node;
        conf
    };

    // What has our shape is ours, and a store always.
    host.given("c2", &node(json!({ "name": "of-the-entry" })));
    let held = leases(&lab, "net1").into_values().collect::<Vec<_>>();
    assert_eq!(held, ["of-the-entry"]);
    host.add("c3", &node(json!({ "name": 5 })))
        .refused(7, &["node.name", "5"]);
    let mut stored = plain.clone();
    stored["store"] = "consul://192.168.1.5:8500".into();
    host.add("c3", &stored)
        .refused(7, &["store", "consul://192.168.1.5:8500"]);

    // Under our own plugin all of them are.
    let mut overlay = node(json!("x"));
    overlay["type"] = "overlay".into();
    host.add("c3", &overlay).refused(7, &["node", "x"]);
    overlay["node"] = json!({});
    overlay["mtu"] = "1450".into();
    host.add("c3", &overlay).refused(7, &["mtu", "1450"]);
}
