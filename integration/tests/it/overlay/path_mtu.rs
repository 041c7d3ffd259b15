//! Ways between hosts that carry less than the underlay's first cable says.

use crate::doctor_report::ask;
use integration::{Attachment, Backend, Lab, conflist, detach_all, position_of};
use serde_json::{Value, json};

/// The cable of a host carries packets of so many bytes; its interface, and everybody else's, goes on to say 1500. What is
/// larger vanishes in silence.
fn cable(lab: &Lab, host: &str, bytes: u32) {
    lab.router().script(&format!(
        "ip link set {host} mtu {bytes}; ip link set underlay mtu 1500"
    ));
}

fn carried(lab: &Lab, host: usize) -> Value {
    let inspected = "network inspect ov_net1";
    lab.host(host).listed(inspected)["carried"].clone()
}

#[test]
fn containers_get_an_mtu_that_comes_through_everywhere() {
    let lab = Lab::new(3, Backend::Dir);
    cable(&lab, "docker03", 1400);
    lab.sync();
    lab.install(&conflist("ov_net1", "10.0.0.0/24"));
    // Every host that is known has a block of the network from its creation on.
    let container = lab.host(1).container("t1");
    let added = lab.host(1).cnitool("add", "ov_net1", "t1", "eth0").ok();
    for words in ["192.168.1.13", "1400", "MTU of 1350"] {
        assert!(added.stderr.contains(words), "{}", added.stderr);
    }
    assert_eq!(container.link("eth0")["mtu"], 1350);
    let result = added.json();
    let eth0 = position_of(&result, "eth0");
    assert_eq!(result["interfaces"][eth0]["mtu"], 1350);

    let t3 = Attachment::new(lab.host(3), "t3", "ov_net1");
    // From there, this kernel's bridge lets pass what a VLAN tag would take.
    let other = t3.container.link("eth0")["mtu"].as_u64();
    assert!(
        other.is_some_and(|mtu| (1350..=1354).contains(&mtu)),
        "{other:?}"
    );
    let full = ["-M", "do", "-s", "1322"];
    assert!(container.pings(t3.address, &full), "1350 bytes, uncut");
    let narrow = json!([{ "vtep": "192.168.1.13", "packet": 1400 }]);
    assert_eq!(carried(&lab, 1), json!({ "mtu": 1350, "narrow": narrow }));
    let shown = lab.host(1).crosshost("network inspect ov_net1").ok();
    assert!(
        shown.stdout.contains("path MTU to 192.168.1.13 is 1400"),
        "{}",
        shown.stdout
    );
    let second = lab.host(1).container("t1b");
    let again = lab.host(1).cnitool("add", "ov_net1", "t1b", "eth0").ok();
    assert!(
        !again.stderr.contains("carries"),
        "said once: {}",
        again.stderr
    );
    assert_eq!(second.link("eth0")["mtu"], 1350);

    // The cable is mended: sync measures anew, and the next container has it all.
    cable(&lab, "docker03", 1500);
    lab.host(1).sync();
    assert_eq!(carried(&lab, 1), json!({ "mtu": 1450, "narrow": [] }));
    let third = Attachment::new(lab.host(1), "t1c", "ov_net1");
    assert_eq!(third.container.link("eth0")["mtu"], 1450);

    // And broken again: a watcher, with no more rights than its unit leaves it, measures as it syncs.
    // What containers have that are there already is not changed, and the doctor says so. CHECK does not: they are as they were made.
    let note = || {
        let notes = ask(lab.host(1)).lines("note").join("\n");
        notes
            .lines()
            .find(|line| line.contains("larger MTU"))
            .map(str::to_owned)
    };
    assert_eq!(note(), None);
    cable(&lab, "docker03", 1372);
    let mut watcher = lab.host(1).watch();
    assert_eq!(carried(&lab, 1)["mtu"], 1322);
    watcher.stop();
    let said = note().expect("a note");
    for words in [
        "network ov_net1",
        "192.168.1.13",
        "1322",
        "(1450)",
        "(1350)",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    lab.host(1).cnitool("check", "ov_net1", "t1", "eth0").ok();
    for (id, attached) in [
        ("t1", None),
        ("t1b", None),
        ("t1c", Some(third)),
        ("t3", Some(t3)),
    ] {
        match attached {
            Some(attached) => drop(attached.detach().ok()),
            None => drop(lab.host(1).cnitool("del", "ov_net1", id, "eth0").ok()),
        }
    }
}

#[test]
fn an_mtu_of_the_conflist_gives_way_and_a_host_that_is_down_does_not_matter() {
    let lab = Lab::new(3, Backend::Dir);
    cable(&lab, "docker02", 1300);
    let mut wanting = conflist("ov_net1", "10.0.0.0/24 fd00:1::/64");
    wanting["plugins"][0]["mtu"] = 1400.into();
    lab.sync();
    lab.install(&wanting);
    lab.router().script("ip link set docker03 down");
    let t1 = Attachment::new(lab.host(1), "t1", "ov_net1");
    assert_eq!(
        t1.container.link("eth0")["mtu"],
        1280,
        "1250 would be an interface without IPv6"
    );
    assert_eq!(
        carried(&lab, 1)["narrow"],
        json!([{ "vtep": "192.168.1.12", "packet": 1300 }])
    );
    t1.detach().ok();
}

#[test]
fn an_underlay_of_ipv6_is_measured_too() {
    let lab = Lab::new(2, Backend::Dir);
    cable(&lab, "docker02", 1411);
    for host in lab.hosts() {
        host.tunnel_from(&host.address6());
        host.install(&conflist("ov_net1", "10.0.0.0/24"));
    }
    let t1 = Attachment::new(lab.host(1), "t1", "ov_net1");
    assert_eq!(t1.container.link("eth0")["mtu"], 1430, "alone");
    let t2 = Attachment::new(lab.host(2), "t2", "ov_net1");
    assert_eq!(t2.container.link("eth0")["mtu"], 1341);
    lab.host(1).sync();
    let (large, full) = (["-M", "do", "-s", "1314"], ["-M", "do", "-s", "1313"]);
    assert!(t2.container.pings(t1.address, &full), "1341 bytes, uncut");
    assert!(!t2.container.pings(t1.address, &large));
    detach_all([t1, t2]);
}

/// A host that has no watcher, and was given another address or MTU under its containers.
#[test]
fn the_next_add_notices_that_the_hosts_address_or_mtu_changed() {
    let lab = Lab::new(2, Backend::Dir);
    let (host, other) = (lab.host(1), lab.host(2));
    let config = json!({ "store": { "url": lab.store_url() }, "node": { "name": host.name() } });
    host.write("/etc/crosshost/config.json", config.to_string());
    lab.sync();
    lab.install(&conflist("ov_net1", "10.0.0.0/24"));
    let t1 = Attachment::new(host, "t1", "ov_net1");
    let far = Attachment::new(other, "far", "ov_net1");
    assert!(t1.container.pings(far.address, &[]));
    let tunnel = || {
        let links = host.in_sandbox("ov_net1", "ip -details -json link show vxlan0");
        let link = &links.parse::<Value>().expect("JSON")[0];
        let local = link["linkinfo"]["info_data"]["local"].clone();
        (local, link["mtu"].clone())
    };
    assert_eq!(tunnel(), (json!("192.168.1.11"), json!(1450)));

    host.script(
        "echo 1 > /proc/sys/net/ipv4/conf/ens3/promote_secondaries
         ip address add 192.168.1.31/24 dev ens3
         ip address del 192.168.1.11/24 dev ens3
         ip route replace default via 192.168.1.1",
    );
    let t2 = Attachment::new(host, "t2", "ov_net1");
    assert_eq!(tunnel(), (json!("192.168.1.31"), json!(1450)));
    let nodes = host.listed("node ls");
    assert_eq!(nodes[0]["vtep"], "192.168.1.31", "{nodes}");
    other.sync();
    for attached in [&t1, &t2] {
        assert!(
            attached.container.pings(far.address, &[]),
            "{}",
            attached.address
        );
    }

    host.script("ip link set ens3 mtu 1400");
    let t3 = Attachment::new(host, "t3", "ov_net1");
    assert_eq!(tunnel(), (json!("192.168.1.31"), json!(1350)));
    assert_eq!(t3.container.link("eth0")["mtu"], 1350);
    assert!(t3.container.pings(far.address, &["-s", "1300"]));

    // While it cannot be told where tunnels leave they stay where they are.
    host.script("ip route del default");
    let t4 = Attachment::new(host, "t4", "ov_net1");
    assert_eq!(tunnel(), (json!("192.168.1.31"), json!(1350)));
    assert!(t4.container.pings(far.address, &[]));
}

/// A host whose underlay got a smaller MTU under containers that keep theirs.
#[test]
fn a_container_whose_mtu_this_host_no_longer_carries_is_told() {
    let lab = Lab::with_network(2, Backend::Dir, &conflist("ov_net1", "10.0.0.0/24"));
    let host = lab.host(1);
    let near = Attachment::new(host, "near", "ov_net1");
    let far = Attachment::new(lab.host(2), "far", "ov_net1");
    let full = ["-M", "do", "-s", "1400"];
    assert!(near.container.pings(far.address, &full));
    assert!(ask(host).of("path-mtu").is_empty());

    host.script("ip link set ens3 mtu 1400");
    host.sync();
    assert!(!near.container.pings(far.address, &full));
    let check = host.cnitool("check", "ov_net1", "near", "eth0");
    assert!(check.failed().stderr.contains("1350"));
    let words = [
        "network ov_net1",
        "1350 bytes",
        "eth0 of container",
        "(1450)",
        "ens3",
    ];
    ask(host).wrong(&words);
    assert_eq!(ask(host).of("path-mtu").len(), 1);

    host.script("ip link set ens3 mtu 1500");
    host.sync();
    assert!(near.container.pings(far.address, &full));
    assert!(ask(host).of("path-mtu").is_empty());
    detach_all([near, far]);
}
