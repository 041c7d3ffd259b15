//! The way out of a container: over IPv4 and IPv6, from networks of either or both, and after somebody broke it.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use integration::{
    Attachment, Backend, Container, Host, Lab, OUTSIDE, OUTSIDE6, Server, conflist, detach_all,
    end_all, position_of,
};
use serde_json::{Value, json};

/// Enters the namespace of the egress bridge, from its host.
const INSIDE: &str = "nsenter --net=/run/crosshost/egress-netns/ch-egress";

/// A host with networks of these subnets: `n0`, `n1` and so on.
fn lab(networks: &[&str]) -> Lab {
    let lab = Lab::new(1, Backend::Dir);
    for (number, subnets) in networks.iter().enumerate() {
        let name = format!("n{number}");
        lab.host(1).install(&conflist(&name, subnets));
    }
    lab
}

fn leaves_by(container: &Container<'_>, host: &Host) {
    let heard = container.tcp_get(OUTSIDE).expect("a way out over IPv4");
    assert_eq!(heard, host.vtep(), "masqueraded");
}

fn leaves_by_ipv6(container: &Container<'_>, host: &Host) {
    let heard = container.tcp_get(OUTSIDE6).expect("a way out over IPv6");
    assert_eq!(heard, host.address6(), "masqueraded");
}

#[test]
fn networks_with_ipv6_have_a_way_out_over_it_and_others_have_none() {
    let lab = lab(&["10.0.0.0/24", "10.0.1.0/24 fd00:1::/64", "fd00:2::/64"]);
    let host = lab.host(1);
    // Forwarding stays on, as it does for IPv4.
    let forward = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    host.script(forward);
    let untouched = host.footprint();
    let [v4, dual, v6] = ["n0", "n1", "n2"].map(|name| Attachment::new(host, name, name));
    for attached in [&v4, &dual, &v6] {
        leaves_by(&attached.container, host);
    }
    for attached in [&dual, &v6] {
        leaves_by_ipv6(&attached.container, host);
    }
    assert!(v4.container.tcp_get(OUTSIDE6).is_err(), "it has no IPv6");
    let gw0 = v4.container.run("ip -6 address show gw0");
    assert_eq!(gw0.stdout.trim(), "", "not even an address of its own");
    end_all([&v4, &dual, &v6]);
    host.assert_same_as(&untouched, "after the last DEL");
}

#[test]
fn the_result_tells_of_the_way_out_over_ipv6() {
    let lab = lab(&["10.0.1.0/24 fd00:1::/64"]);
    let host = lab.host(1);
    let container = host.container("t1");
    let result = host.cnitool("add", "n0", "t1", "eth0").ok().json();
    let ips = result["ips"].as_array().expect("addresses");
    let gw0 = position_of(&result, "gw0");
    let at_gw0 = ips.iter().filter(|ip| ip["interface"] == gw0);
    let gateways: Vec<_> = at_gw0
        .map(|ip| ip["gateway"].as_str().expect("one"))
        .collect();
    assert_eq!(gateways[0], "172.18.0.1");
    assert!(
        gateways[1].starts_with("fd") && gateways[1].ends_with("::1"),
        "{gateways:?}"
    );
    let routes = result["routes"].as_array().expect("routes");
    let everywhere = |dst: &str| routes.iter().filter(|route| route["dst"] == dst).count();
    assert_eq!(
        (everywhere("0.0.0.0/0"), everywhere("::/0")),
        (1, 1),
        "{result}"
    );
    let address = ips
        .iter()
        .rfind(|ip| ip["interface"] == gw0)
        .expect("of IPv6");
    let address = address["address"].as_str().expect("text");
    let inside = container.run("ip -6 address show gw0").ok();
    assert!(inside.stdout.contains(address), "{}", inside.stdout);
    host.cnitool("check", "n0", "t1", "eth0").ok();
    host.cnitool("del", "n0", "t1", "eth0").ok();
}

#[test]
fn a_containers_second_network_may_bring_ipv6() {
    let lab = lab(&["10.0.0.0/24", "10.0.1.0/24 fd00:1::/64"]);
    let host = lab.host(1);
    let container = host.container("t1");
    host.cnitool("add", "n0", "t1", "eth0").ok();
    leaves_by(&container, host);
    host.cnitool("add", "n1", "t1", "eth1").ok();
    leaves_by(&container, host);
    leaves_by_ipv6(&container, host);
    host.cnitool("del", "n0", "t1", "eth0").ok();
    leaves_by(&container, host);
    leaves_by_ipv6(&container, host);
    host.cnitool("del", "n1", "t1", "eth1").ok();
}

/// What `/proc/sys/net/ipv6/conf/KEY` of a host says.
fn conf6(host: &Host, key: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/{key}");
    let said = host.run(&["cat", &path]).ok().stdout;
    said.trim().to_owned()
}

/// A host that begins to forward no longer listens to routers, where it is not told to go on.
#[test]
fn a_host_goes_on_listening_to_the_routers_that_it_has_and_to_no_others() {
    let lab = lab(&["10.0.0.0/24", "fd00:1::/64"]);
    let host = lab.host(1);
    let read = |key: &str| conf6(host, key);
    host.script(
        "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
         ip link add docker0 up type bridge
         ip -6 route del default
         ip -6 route add default via 2001:db8:192:168:1::1 dev ens3 proto ra",
    );
    for link in ["ens3", "docker0", "default"] {
        assert_eq!(
            read(&format!("{link}/accept_ra")),
            "1",
            "{link}, as Linux has it"
        );
    }
    let v4 = Attachment::new(host, "v4", "n0");
    assert_eq!(
        read("all/forwarding"),
        "0",
        "for IPv4 alone nothing of IPv6 changes"
    );
    let v6 = Attachment::new(host, "v6", "n1");
    leaves_by_ipv6(&v6.container, host);
    assert_eq!(
        (read("all/forwarding"), read("ens3/accept_ra")),
        ("1".into(), "2".into())
    );
    assert_eq!(read("ch-egress/accept_ra"), "0", "but not to containers");
    assert_eq!(read("docker0/accept_ra"), "1", "nor to those of others");
    host.script("ip link add cni0 up type bridge");
    // Where the host forwards, 1 is: not at all.
    let later = (read("cni0/accept_ra"), read("cni0/forwarding"));
    assert_eq!(later, ("1".into(), "1".into()), "made later");
    detach_all([v4, v6]);
    let stays = (read("all/forwarding"), read("ens3/accept_ra"));
    assert_eq!(
        stays,
        ("1".into(), "2".into()),
        "as long as the host forwards"
    );
}

/// What every interface of a host has, and every one that is still to come.
fn common_settings(host: &Host) -> BTreeMap<String, String> {
    let read = "cd /proc/sys/net; grep -H '' ipv4/conf/all/* ipv4/conf/default/* ipv6/conf/all/* ipv6/conf/default/* || true";
    let said = host.run(&["sh", "-c", read]).ok().stdout;
    let settings = said.lines().filter_map(|line| line.split_once(':'));
    let settings: BTreeMap<_, _> = settings
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    assert!(settings.len() > 100, "{settings:?}");
    settings
}

#[test]
fn of_the_settings_of_all_interfaces_a_host_begins_to_forward_and_no_other_changes() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let modes = [("n0", "gwbridge"), ("n1", "gateway"), ("n2", "none")];
    for (number, (name, mode)) in modes.into_iter().enumerate() {
        let mut conf = conflist(name, &format!("10.0.{number}.0/24"));
        let v6 = format!("fd00:{number}::/64");
        let plugin = &mut conf["plugins"][0];
        plugin["egress"] = json!({ "mode": mode });
        plugin["hostAccess"] = true.into();
        plugin["ipam"]["ranges"] = json!([
            [{ "subnet": format!("10.0.{number}.0/24"), "gateway": format!("10.0.{number}.1") }],
            [{ "subnet": v6, "gateway": format!("fd00:{number}::1") }],
        ]);
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        conf["plugins"]
            .as_array_mut()
            .expect("plugins")
            .push(portmap);
        host.install(&conf);
    }
    let before = common_settings(host);
    let ports = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": "127.0.0.1" },
    ] });
    for (name, _) in modes {
        host.container(name);
        let asked = if name == "n0" { &ports } else { &json!({}) };
        host.cnitool_asking("add", name, (name, "eth0"), asked).ok();
    }
    for (name, _) in modes {
        let asked = if name == "n0" { &ports } else { &json!({}) };
        host.cnitool_asking("check", name, (name, "eth0"), asked)
            .ok();
        host.cnitool_asking("del", name, (name, "eth0"), asked).ok();
    }
    let after = common_settings(host);
    let changed: Vec<_> = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    // The kernel's own: a router of IPv4 takes no redirects, and what comes later is as `all` is.
    let forwards = [
        "ipv4/conf/all/accept_redirects 0",
        "ipv4/conf/all/forwarding 1",
        "ipv4/conf/default/forwarding 1",
        "ipv6/conf/all/forwarding 1",
        "ipv6/conf/default/forwarding 1",
    ];
    assert_eq!(changed, forwards);
    assert_eq!(after.len(), before.len());
}

#[test]
fn sync_mends_what_somebody_broke() {
    let lab = lab(&["10.0.1.0/24 fd00:1::/64"]);
    let host = lab.host(1);
    let (t1, t2) = (
        Attachment::new(host, "t1", "n0"),
        Attachment::new(host, "t2", "n0"),
    );
    let works = || {
        [&t1, &t2].iter().all(|t| {
            let (v4, v6) = (t.container.tcp_get(OUTSIDE), t.container.tcp_get(OUTSIDE6));
            v4.is_ok_and(|heard| heard == host.vtep())
                && v6.is_ok_and(|heard| heard == host.address6())
        })
    };
    let bridge = |does: &str| format!("{INSIDE} {does}");
    for damage in [
        "nft flush ruleset",
        "nft flush set inet crosshost egress4; nft flush chain inet crosshost client-ports",
        "nft delete table inet crosshost",
        "nft flush chain inet crosshost postrouting; nft flush chain inet crosshost client-ports",
        "ip link delete ch-egress",
        "ip link set ch-egress down",
        "ip address flush dev ch-egress",
        &bridge("ip link delete br0"),
        &bridge("ip link set uplink nomaster"),
        &bridge(
            "sh -c 'for port in $(ip -br link | grep ^che | cut -d@ -f1); do ip link set $port nomaster; done'",
        ),
        "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
    ] {
        host.script(damage);
        assert!(!works(), "{damage}: nothing was broken");
        host.sync();
        assert!(works(), "{damage}: not mended");
    }
    // What isolates the containers' ports is back as well.
    let listing: Vec<_> = INSIDE.split(' ').chain(["bridge", "-d", "link"]).collect();
    let ports = host.run(&listing).ok().stdout;
    let isolated = ports.matches("isolated on").count();
    assert_eq!(isolated, 2, "{ports}");
    detach_all([t1, t2]);
}

/// The addresses of the container's NIC on the egress bridge, by family.
fn outer(attached: &Attachment<'_>) -> Vec<IpAddr> {
    let ips = attached.result["ips"].as_array().expect("addresses");
    let gw0 = position_of(&attached.result, "gw0");
    let at_gw0 = ips.iter().filter(|ip| ip["interface"] == gw0);
    let address = |ip: &Value| {
        let text = ip["address"].as_str()?;
        text.split('/').next()?.parse().ok()
    };
    at_gw0.filter_map(address).collect()
}

/// As Docker and Kubernetes leave a host: `br_netfilter` gives the host's rules what is on its bridges. A packet to a
/// published port, which goes back to the bridge that it came by, must get as far as the host all the same.
#[test]
fn a_published_port_is_reached_by_its_container_and_by_a_neighbour() {
    let lab = lab(&["10.0.0.0/24 fd00:1::/64"]);
    let host = lab.host(1);
    let [t1, t2] = ["t1", "t2"].map(|name| Attachment::new(host, name, "n0"));
    let [v4, v6] = outer(&t1)[..] else {
        panic!("a way out over both")
    };
    host.script(&format!(
        "for conf in /proc/sys/net/bridge/bridge-nf-call-*tables; do echo 1 > $conf; done
         nft add table inet published
         nft add chain inet published in '{{ type nat hook prerouting priority dstnat; }}'
         nft add chain inet published out '{{ type nat hook postrouting priority srcnat; }}'
         nft add rule inet published in fib daddr type local tcp dport 8080 dnat ip to {v4}:80
         nft add rule inet published in fib daddr type local tcp dport 8080 dnat ip6 to '[{v6}]:80'
         nft add rule inet published out iifname ch-egress oifname ch-egress masquerade
         # In its own namespace the bridge asks no rules at all.
         test 0 = $({INSIDE} cat /proc/sys/net/bridge/bridge-nf-call-*tables | sort -u)"
    ));
    let host6 = format!("[{}]", host.address6());
    for (own, of_host) in [(v4, host.vtep()), (v6, &host6)] {
        let at = SocketAddr::new(own, 80);
        let running = Server::start(t1.container.net(), at, |mut it| {
            if let Ok(peer) = it.peer_addr() {
                let _ = write!(it, "{}", peer.ip());
            }
        });
        for (caller, who) in [(&t1, "itself"), (&t2, "a neighbour")] {
            // More than once: a host that routes back to where a packet came from tells its sender of a shorter way.
            for _ in 0..3 {
                let heard = caller.container.tcp_get(&format!("{of_host}:8080"));
                let heard = heard.expect(who);
                assert!(heard.ends_with(".0.1") || heard.ends_with("::1"), "{heard}");
            }
        }
        let direct = t2.container.tcp_get(&at.to_string());
        assert!(direct.is_err(), "containers are apart but for the host");
        assert!(!t2.container.pings(own, &["-W1"]));
        drop(running);
    }
    for attached in [t1, t2] {
        leaves_by(&attached.container, host);
        leaves_by_ipv6(&attached.container, host);
        attached.detach().ok();
    }
}

/// As builds had it that kept the bridge on the host.
#[test]
fn a_bridge_in_the_place_of_the_hosts_interface_is_replaced() {
    let lab = lab(&["10.0.0.0/24"]);
    let host = lab.host(1);
    let untouched = host.footprint();
    host.script(
        "ip link add ch-egress type bridge
         ip address add 172.18.0.1/16 dev ch-egress; ip link set ch-egress up",
    );
    let t1 = Attachment::new(host, "t1", "n0");
    leaves_by(&t1.container, host);
    t1.end();
    host.assert_same_as(&untouched, "after the last DEL");
}

#[test]
fn a_lost_namespace_of_the_bridge_is_made_anew_for_new_containers() {
    let lab = lab(&["10.0.0.0/24"]);
    let host = lab.host(1);
    let untouched = host.footprint();
    // With its mount it goes, and all links with it.
    let t1 = Attachment::new(host, "t1", "n0");
    host.script(
        "umount /run/crosshost/egress-netns/ch-egress
         until ! ip link show ch-egress; do sleep 0.01; done",
    );
    let t2 = Attachment::new(host, "t2", "n0");
    leaves_by(&t2.container, host);
    assert!(t1.container.tcp_get(OUTSIDE).is_err(), "its NIC is gone");
    end_all([&t2, &t1]);
    host.assert_same_as(&untouched, "after the last DEL");

    // Hidden, together with the documents: the subnet is known by the host's interface.
    let t1 = Attachment::new(host, "t1", "n0");
    host.script("mount -t tmpfs none /run/crosshost/egress-netns; rm -r /run/crosshost/egress");
    let t2 = Attachment::new(host, "t2", "n0");
    leaves_by(&t2.container, host);
    assert_ne!(outer(&t1), outer(&t2), "both may be in use");
    t1.detach().ok();
    host.cnitool("add", "n0", "t1", "eth0").ok();
    leaves_by(&t1.container, host);
    end_all([&t2, &t1]);
    host.script(
        "umount /run/crosshost/egress-netns
         umount /run/crosshost/egress-netns/ch-egress; rm /run/crosshost/egress-netns/ch-egress",
    );
    host.assert_same_as(&untouched, "after the last DEL");
}
