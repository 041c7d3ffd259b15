//! Networks that are their containers' way out: every host answers for the gateway's address, and hides what leaves.

use crate::doctor_report::ask;
use crate::overlay::host_on_segment;
use crate::overlay::host_on_segment::{
    DUAL, V4, V6, addresses, lab, link, network, on_link, seen_as, serve,
};
use integration::{
    Attachment, Backend, Container, Host, Lab, OUTSIDE, OUTSIDE6, detach_all, end_all, until,
    workspace,
};
use serde_json::{Value, json};

fn gateway(subnets: &str) -> Value {
    network(subnets, &json!({ "egress": "gateway" }))
}

fn leaves(container: &Container<'_>, host: &Host, subnets: &str) -> bool {
    let v4 = container.tcp_get(OUTSIDE).ok();
    let v6 = container.tcp_get(OUTSIDE6).ok();
    let has = |six: bool| subnets.split(' ').any(|subnet| subnet.contains(':') == six);
    v4 == has(false).then(|| host.vtep().to_owned()) && v6 == has(true).then(|| host.address6())
}

#[test]
fn containers_leave_by_their_own_host_and_meet_each_other_as_they_are() {
    for subnets in [V4, V6, DUAL] {
        let lab = lab(2, &gateway(subnets));
        let untouched = lab.footprints();
        let [t1, t2] = Attachment::on_each(&lab, "n");
        for attached in [&t1, &t2] {
            let way_out = leaves(&attached.container, attached.host(), subnets);
            assert!(way_out, "{subnets:?}, {}", attached.host().name());
            let links = attached.container.run("ip -br link").ok().stdout;
            assert!(!links.contains("gw0"), "{links}");
            let links = attached.host().run("ip -br link").ok().stdout;
            assert!(!links.contains("ch-egress"), "{links}");
        }
        let servers = serve(&t2);
        for (own, other) in addresses(&t1).into_iter().zip(addresses(&t2)) {
            assert_eq!(seen_as(&t1.container.net(), other), Some(own));
        }
        drop(servers);
        let on_hosts = [1, 2].map(|n| (on_link(lab.host(n), "chg"), mac(lab.host(n))));
        assert_eq!(on_hosts[0], on_hosts[1], "the same address and MAC");
        end_all([t1, t2]);
        lab.assert_same_as(&untouched, &format!("{subnets:?}, after the last DEL"));
    }
}

/// The MAC of the host's gateway link.
fn mac(host: &Host) -> String {
    let name = link(host, "chg");
    let shown = ["ip", "-json", "link", "show", "dev", &name];
    let shown = host.run(&shown).ok().json();
    shown[0]["address"].as_str().expect("a MAC").to_owned()
}

#[test]
fn the_result_tells_of_the_gateway_and_check_agrees() {
    let lab = lab(1, &gateway(DUAL));
    let host = lab.host(1);
    let attached = Attachment::new(host, "t1", "n");
    let result = &attached.result;
    let ips = result["ips"].as_array().expect("addresses");
    let gateways: Vec<_> = ips.iter().map(|ip| ip["gateway"].clone()).collect();
    assert_eq!(gateways, ["10.0.0.1", "fd00:1::1"]);
    let routes = json!([
        { "dst": "0.0.0.0/0", "gw": "10.0.0.1" },
        { "dst": "::/0", "gw": "fd00:1::1" }
    ]);
    assert_eq!(result["routes"], routes);
    let interfaces = result["interfaces"].as_array().expect("interfaces");
    let names: Vec<_> = interfaces.iter().map(|one| one["name"].clone()).collect();
    assert_eq!(names, [link(host, "chg"), "eth0".to_owned()]);
    host.cnitool("check", "n", "t1", "eth0").ok();
    attached.detach().ok();
}

/// A question for the gateway's address would be answered by all hosts if it went to them.
/// Linux asks again for a neighbour that it knows from its link-local address, which no route of the host leads back to.
#[test]
fn a_container_asks_again_for_its_gateway_and_is_answered() {
    let lab = lab(1, &gateway(DUAL));
    let t1 = Attachment::new(lab.host(1), "t1", "n");
    for address in ["10.0.0.1", "fd00:1::1"] {
        let known = |state: &str| {
            let show = format!("ip neighbour show {address} dev eth0");
            t1.container.run(&show).ok().stdout.contains(state)
        };
        let at: std::net::IpAddr = address.parse().expect("an address");
        assert!(t1.container.pings(at, &[]));
        let probe = format!("ip neighbour change {address} dev eth0 nud probe");
        t1.container.run(&probe).ok();
        let patience = std::time::Duration::from_secs(5);
        until(patience, "answered", || known("REACHABLE"));
    }
    t1.end();
}

#[test]
fn questions_for_the_gateway_stay_on_the_host() {
    let lab = lab(2, &gateway(V4));
    let [t1, t2] = Attachment::on_each(&lab, "n");
    let heard = |host: &Host| {
        let name = link(host, "chg");
        let shown = ["ip", "-json", "-stats", "link", "show", "dev", &name];
        let shown = host.run(&shown).ok().json();
        shown[0]["stats64"]["rx"]["packets"]
            .as_u64()
            .expect("a count")
    };
    let before = [heard(lab.host(1)), heard(lab.host(2))];
    for _ in 0..5 {
        t1.container.run("ip neigh flush all").ok();
        assert!(t1.container.pings("10.0.0.1".parse().expect("one"), &[]));
    }
    assert!(heard(lab.host(1)) >= before[0] + 10);
    assert_eq!(
        heard(lab.host(2)),
        before[1],
        "the other host hears nothing"
    );
    detach_all([t1, t2]);
}

/// The host's links to the segment are of the host as a whole, as its table and its switches are: CHECK puts them back, since a runtime that
/// it tells of a deviation destroys the container.
#[test]
fn what_somebody_broke_is_put_back_by_check_and_by_sync() {
    let lab = lab(2, &gateway(DUAL));
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "n");
    let name = link(host, "chg");
    let in_sandbox = "nsenter --net=/run/crosshost/netns/n";
    let check = || host.cnitool("check", "n", "t1", "eth0");
    let mended = |damage: &str| {
        let mends: [&dyn Fn(); 2] = [&|| drop(check().ok()), &|| {
            drop(host.sync());
        }];
        for mend in mends {
            host.script(damage);
            mend();
            assert!(leaves(&t1.container, host, DUAL), "{damage}: not mended");
            assert_eq!(check().ok().stderr, "", "{damage}: not all of it");
        }
    };
    for damage in [
        format!("ip link delete {name}"),
        format!("ip link set {name} down"),
        format!("ip link set {name} mtu 1280"),
        format!("{in_sandbox} ip link set {name} mtu 1280"),
        format!("ip address flush dev {name} scope global"),
        format!("ip address delete fd00:1::1/128 dev {name}"),
        "ip route delete 10.0.0.0/24".to_owned(),
        format!("{in_sandbox} ip link set {name} nomaster"),
        format!("{in_sandbox} bridge fdb delete 02:42:0a:00:00:01 dev {name} master"),
    ] {
        mended(&damage);
    }
    for damage in [
        "nft flush ruleset",
        "nft flush set inet crosshost egress4; nft flush chain inet crosshost client-ports",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
    ] {
        host.script(damage);
        let was_broken = !leaves(&t1.container, host, DUAL);
        assert!(was_broken, "{damage}: nothing was broken");
        mended(damage);
    }
    // CHECK names what belongs to the segment.
    host.script(&format!(
        "{in_sandbox} ip neighbour delete 10.0.0.1 dev br0"
    ));
    let said = check().failed();
    assert!(
        format!("{said}").contains("no neighbour 10.0.0.1"),
        "{said}"
    );
    host.sync();
    check().ok();
    t1.detach().ok();
}

#[test]
fn the_doctor_tells_what_is_broken_and_which_rules_of_others_stop_the_way_out() {
    let lab = lab(2, &gateway(DUAL));
    let host = lab.host(1);
    let t1 = Attachment::new(host, "t1", "n");
    let name = link(host, "chg");
    host.script(&format!("ip link delete {name}"));
    assert_eq!(ask(host).wrong(&[&name, "is gone"]), "crosshost sync");
    host.sync();
    ask(host).assert_well();
    host.script(
        "nft add table inet foreign; nft 'add chain inet foreign c { type filter hook forward priority 0; policy drop; }'",
    );
    host.script(
        "nft 'add rule inet foreign c iifname ch-egress accept; add rule inet foreign c oifname ch-egress accept'",
    );
    let mut conf = gateway(DUAL)["plugins"][0].clone();
    (conf["name"], conf["cniVersion"]) = ("n".into(), "1.1.0".into());
    host.call("overlay", "STATUS").conf(&conf).run().ok();
    host.cnitool("check", "n", "t1", "eth0").ok();
    assert!(!leaves(&t1.container, host, DUAL), "nothing was stopped");
    for version in ["IPv4", "IPv6"] {
        let allow = ask(host).wrong(&[version, &name, "foreign"]);
        host.script(&allow);
        if version == "IPv4" && ask(host).lines("wrong").is_empty() {
            break;
        }
    }
    assert!(leaves(&t1.container, host, DUAL));
    ask(host).assert_well();
    t1.detach().ok();
}

#[test]
fn the_first_network_is_the_way_out_and_the_second_does_not_say_that_it_is() {
    for [first, second] in [["gateway", "gwbridge"], ["gwbridge", "gateway"]] {
        let lab = lab(1, &network(DUAL, &json!({ "egress": first })));
        let host = lab.host(1);
        let mut beside = network("10.1.0.0/24 fd00:2::/64", &json!({ "egress": second }));
        beside["name"] = "m".into();
        host.install(&beside);
        let one = Attachment::new(host, "t1", "n");
        let two = Attachment::of(host.existing("t1"), "m", "eth1");
        let ways_out = [&one, &two].map(|it| {
            let routes = it.result["routes"].as_array().into_iter().flatten();
            let to = routes.filter_map(|route| route["dst"].as_str());
            to.filter(|dst| dst.ends_with("/0")).count()
        });
        assert_eq!(ways_out, [2, 0], "{first}, then {second}");
        assert!(leaves(&one.container, host, DUAL));
        for attached in [&one, &two] {
            let (network, ifname) = (&attached.network, &attached.ifname);
            host.cnitool("check", network, "t1", ifname).ok();
        }
        detach_all([one, two]);
    }
}

#[test]
fn a_subnet_that_the_host_has_in_another_way_is_refused() {
    for (key, conf) in [
        ("egress: gateway", gateway(V4)),
        (
            "hostAccess: true",
            network(V4, &json!({ "hostAccess": true })),
        ),
    ] {
        let lab = lab(1, &conf);
        let host = lab.host(1);
        for (come, go) in [
            (
                "ip route add 10.0.0.0/16 via 192.168.1.1",
                "ip route delete 10.0.0.0/16",
            ),
            (
                "ip address add 10.0.0.77/32 dev ens3",
                "ip address delete 10.0.0.77/32 dev ens3",
            ),
        ] {
            host.script(come);
            let container = host.container("t1");
            let untouched = host.footprint();
            let refused = container
                .call("ADD", &host_on_segment::netconf(&conf))
                .run();
            refused.refused(103, &[key, "10.0.0.0/24", "10.0.0."]);
            host.assert_same_as(&untouched, "after a refusal");
            container.remove();
            host.script(go);
        }
        Attachment::new(host, "t1", "n").detach().ok();
    }
}

#[test]
fn the_kubernetes_conflist_gives_pods_a_gateway_and_the_kubelet_a_way_to_them() {
    let file = workspace().join("cni-conf/kubernetes.conflist");
    let file = std::fs::read_to_string(file).expect("the conflist");
    let conf: Value = serde_json::from_str(&file).expect("JSON");
    let lab = Lab::with_network(2, Backend::Dir, &conf);
    let name = conf["name"].as_str().expect("a name");
    let [t1, t2] = [1, 2].map(|n| Attachment::new(lab.host(n), &format!("pod{n}"), name));
    for pod in [&t1, &t2] {
        let (own, heard) = (pod.host().vtep().to_owned(), pod.container.tcp_get(OUTSIDE));
        assert_eq!(heard.ok(), Some(own), "masqueraded");
        let servers = serve(pod);
        for host in lab.hosts() {
            let own = on_link(host, "chh").remove(0);
            assert_eq!(seen_as(&host.namespace().net(), pod.address), Some(own));
        }
        let other = if pod.address == t1.address { &t2 } else { &t1 };
        assert_eq!(
            seen_as(&other.container.net(), pod.address),
            Some(other.address)
        );
        drop(servers);
    }
    // A service of the node's rules: its answer comes back by them, for the node hides who asked.
    lab.host(1).script(&format!(
        "nft add table ip svc
         nft add chain ip svc pre '{{ type nat hook prerouting priority dstnat; }}'
         nft add rule ip svc pre ip daddr 10.96.0.10 dnat to {}",
        t2.address
    ));
    let servers = serve(&t2);
    let service = "10.96.0.10".parse().expect("an address");
    let seen = seen_as(&t1.container.net(), service);
    assert_eq!(seen, Some(on_link(lab.host(1), "chh").remove(0)));
    drop(servers);
    for pod in [t1, t2] {
        pod.check().ok();
        pod.detach().ok();
    }
}
