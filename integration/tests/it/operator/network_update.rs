//! A network changes in place: labels, a lower MTU, a further subnet. Hosts and running containers follow.

use std::time::Duration;

use integration::{Attachment, Backend, Host, Lab, Watching, conflist, end_all, until};
use serde_json::json;

/// For what comes by itself, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(30);

/// Hosts that keep conflists, with their watchers.
fn prepared(hosts: u8) -> (Lab, Vec<Watching>) {
    let lab = Lab::registered(hosts, Backend::Consul);
    let watch = |host: &Host| {
        host.keep_conflists(&json!({}));
        host.watch()
    };
    let watchers = lab.hosts().iter().map(watch).collect();
    (lab, watchers)
}

fn there(host: &Host, name: &str) -> bool {
    let file = format!("/etc/cni/net.d/{name}.conflist");
    host.run(&["test", "-e", &file]).status.success()
}

fn mtu(attached: &Attachment<'_>) -> u64 {
    let link = attached.container.link(&attached.ifname);
    link["mtu"].as_u64().expect("an MTU")
}

#[test]
fn labels_change_in_the_record_and_in_the_conflists_of_all_hosts() {
    let (lab, _watchers) = prepared(2);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    one.crosshost("network create ov_net1 --label team=blue --label old=x")
        .ok();
    one.crosshost("network update ov_net1 --label team=red --label-rm old")
        .ok();
    let labels = &one.listed("network inspect ov_net1")["labels"];
    assert_eq!(*labels, json!({ "team": "red" }));
    until(SOON, "the other host's file", || {
        let file = two.run(&["cat", "/etc/cni/net.d/ov_net1.conflist"]);
        file.stdout.contains("\"team\": \"red\"") && !file.stdout.contains("old")
    });
    let listed = two.crosshost("network ls -q --filter label=team=red");
    assert_eq!(listed.ok().stdout, "ov_net1\n");
}

#[test]
fn a_lower_mtu_is_that_of_new_and_of_running_containers() {
    let (lab, _watchers) = prepared(2);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    one.crosshost("network create ov_net1").ok();
    until(SOON, "on the other host", || there(two, "ov_net1"));
    let t1 = Attachment::new(one, "t1", "ov_net1");
    let t2 = Attachment::new(two, "t2", "ov_net1");
    assert_eq!([mtu(&t1), mtu(&t2)], [1450, 1450]);
    one.crosshost("network update ov_net1 --mtu 1400").ok();
    assert_eq!(mtu(&t1), 1400, "when the command returns");
    until(SOON, "on the other host", || mtu(&t2) == 1400);
    let t3 = Attachment::new(two, "t3", "ov_net1");
    assert_eq!(mtu(&t3), 1400);
    let whole = ["-M", "do", "-s", "1372"];
    assert!(t1.container.pings(t3.address, &whole));
    for attached in [&t1, &t2, &t3] {
        attached.check().ok();
    }
    one.crosshost("network update ov_net1 --mtu 1450")
        .failed()
        .warns(&["mtu 1450", "can only be lowered"]);
    end_all([t1, t2, t3]);

    // A network by hand, whose results say the MTU (CNI 1.1).
    one.install(&conflist("mine", "10.7.0.0/24"));
    let t4 = Attachment::new(one, "t4", "mine");
    let said = one.crosshost("network update mine --mtu 1300").ok();
    said.warns(&["a conflist that names mtu"]);
    assert_eq!(mtu(&t4), 1300);
    t4.check().ok();
    t4.end();
}

#[test]
fn a_further_subnet_is_used_when_the_first_is_full_and_all_reach_each_other() {
    let (lab, _watchers) = prepared(2);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    one.crosshost("network create ov_net1 --subnet 10.0.0.0/29")
        .ok();
    until(SOON, "on the other host", || there(two, "ov_net1"));
    // Five addresses beside the gateway's.
    let first: Vec<_> = [
        (one, "a1"),
        (two, "a2"),
        (one, "a3"),
        (two, "a4"),
        (one, "a5"),
    ]
    .map(|(host, name)| Attachment::new(host, name, "ov_net1"))
    .into();
    let late = two.container("late");
    two.cnitool("add", "ov_net1", "late", "eth0").failed();
    two.cnitool("del", "ov_net1", "late", "eth0").ok();
    late.remove();
    one.crosshost("network update ov_net1 --subnet 10.0.1.0/24 --gateway 10.0.1.254")
        .ok()
        .says(&["10.0.0.0/29,10.0.1.0/24"]);
    let more: Vec<_> = [(one, "b1"), (two, "b2")]
        .map(|(host, name)| Attachment::new(host, name, "ov_net1"))
        .into();
    for attached in &more {
        assert!(attached.address.to_string().starts_with("10.0.1."));
        for other in more.iter().chain(&first) {
            assert!(attached.container.pings(other.address, &[]));
        }
        attached.check().ok();
    }
    // Running ones have got a route.
    for attached in &first {
        let reached = || attached.container.pings(more[1].address, &[]);
        until(SOON, "a container from before", reached);
    }
    // One that asks for an address of it, also on a host that has not heard of it yet.
    one.crosshost("network update ov_net1 --subnet 10.0.2.0/24")
        .ok();
    let asked = two.container("asked");
    let ips = json!({ "ips": ["10.0.2.77"] });
    let capabilities = ("asked", "eth0");
    two.cnitool_asking("add", "ov_net1", capabilities, &ips)
        .ok();
    assert!(first[0].container.pings("10.0.2.77".parse().unwrap(), &[]));
    two.cnitool("del", "ov_net1", "asked", "eth0").ok();
    asked.remove();
    one.crosshost("network create other --subnet 10.0.1.0/25")
        .failed()
        .warns(&["10.0.1.0/24", "ov_net1"]);
    end_all(first);
    end_all(more);
    one.crosshost("network rm ov_net1").ok();
    one.crosshost("network create other --subnet 10.0.1.0/25")
        .ok();
}

#[test]
fn what_hosts_cannot_follow_is_refused_and_nothing_is_changed() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    host.crosshost("network create a --subnet 10.1.0.0/24").ok();
    host.crosshost("network create b --subnet 10.2.0.0/24").ok();
    let before = host.listed("network inspect a");
    for (words, why) in [
        ("--subnet 10.2.0.0/24", "network b"),
        ("--subnet 10.1.0.0/16", "overlaps"),
        ("--subnet fd00::/64", "no subnet of this version"),
        ("--subnet 10.3.0.0/28", "cut anew"),
        ("--mtu 1500", "carries 1450"),
    ] {
        host.crosshost(&format!("network update a {words}"))
            .failed()
            .warns(&[why]);
    }
    let usage = host.crosshost("network update a");
    assert_eq!(usage.status.code(), Some(2), "{usage}");
    host.crosshost("network update nowhere --mtu 1400")
        .failed()
        .warns(&["nowhere"]);
    assert_eq!(host.listed("network inspect a"), before);
}
