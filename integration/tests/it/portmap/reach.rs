//! Published ports, by connections: from where they lead to the container, under each interface plugin and over both versions
//! of IP, and whom the container sees.

use crate::portmap::published;
use crate::portmap::published::{Published, UNDER, fetch, fetch_at, network, port, rules, with};
use crate::portmap::reserved::reserved;
use integration::{Backend, Container, Host, LIMIT, Lab, OUTSIDE, OUTSIDE6, Watching, until};
use serde_json::json;

fn name_of(address: &str) -> &str {
    let (host, _) = address.rsplit_once(':').expect("a port");
    host.trim_matches(['[', ']'])
}

/// The first address of a container's interface of this version of IP.
fn inner(container: &Container<'_>, v6: bool) -> String {
    let family = if v6 { "-6" } else { "-4" };
    let links = container.ip(&[family, "address", "show", "scope", "global"]);
    let links = links.as_array().into_iter().flatten();
    let mut found = links.filter_map(|link| link["addr_info"][0]["local"].as_str());
    found.next_back().expect("an address").to_owned()
}

fn of_both(host: &Host) -> [(bool, String); 2] {
    [(false, host.vtep().to_owned()), (true, host.address6())]
}

#[test]
fn from_everywhere_to_the_container_and_as_whom() {
    from_everywhere(|_| None);
}

/// Then each port has a socket on the host.
#[test]
fn from_everywhere_the_same_while_a_watcher_reserves_the_ports() {
    from_everywhere(|host| Some(host.watch()));
}

fn from_everywhere(watch: impl Fn(&Host) -> Option<Watching>) {
    let lab = Lab::new(2, Backend::Dir);
    let before = lab.footprints();
    let (host, far) = (lab.host(1), lab.host(2));
    let watcher = watch(host);
    for (number, under) in (1..).zip(UNDER) {
        let (one, other) = (format!("{under}1"), format!("{under}2"));
        host.install(&network(under, &one, number));
        host.install(&network(under, &other, number + 10));
        let web = Published::new(host, "web", &one, &json!([port(8080, 80)]));
        let _server = web.serves(80);
        if watcher.is_some() {
            until(LIMIT, "reserved", || reserved(host).len() == 2);
        }
        let beside = Published::new(host, "beside", &one, &json!([]));
        let apart = Published::new(host, "apart", &other, &json!([]));
        web.again("check").ok();

        for (v6, address) in of_both(host) {
            let outside = name_of(if v6 { OUTSIDE6 } else { OUTSIDE });
            let said = format!("{under}, {address}");
            let seen = fetch_at(lab.outside(), &address, 8080);
            assert_eq!(seen, format!("web {outside}"), "from outside: {said}");
            let own = if v6 {
                far.address6()
            } else {
                far.vtep().to_owned()
            };
            let seen = fetch_at(far.namespace(), &address, 8080);
            assert_eq!(seen, format!("web {own}"), "from another host: {said}");
            let seen = fetch_at(host.namespace(), &address, 8080);
            assert!(seen.starts_with("web "), "from the host: {said}: {seen}");
            let seen = fetch(&web.container.net(), &address, 8080);
            assert!(seen.starts_with("web "), "from itself: {said}: {seen}");
            for neighbour in [&beside, &apart] {
                let seen = fetch(&neighbour.container.net(), &address, 8080);
                let name = neighbour.container.name();
                assert!(seen.starts_with("web "), "from {name}: {said}: {seen}");
            }
            // Only the port that was asked for.
            assert_eq!(
                fetch_at(far.namespace(), &address, 8081),
                "ConnectionRefused"
            );
            assert_eq!(fetch_at(far.namespace(), &address, 80), "ConnectionRefused");
        }
        let seen = fetch_at(host.namespace(), "127.0.0.1", 8080);
        assert!(
            seen.starts_with("web "),
            "from the host by 127.0.0.1: {seen}"
        );
        // It cannot work over IPv6, and says so at once, so that a client that tries both goes on.
        assert_eq!(fetch_at(host.namespace(), "::1", 8080), "ConnectionRefused");

        for one in [&web, &beside, &apart] {
            one.again("del").ok();
            one.container.remove();
        }
        assert!(!rules(host).contains("ports"), "{under}: {}", rules(host));
        host.script("for b in br2 br12; do ip link delete $b 2> /dev/null || true; done");
    }
    drop(watcher);
    lab.assert_same_as(&before, "after the last");
}

#[test]
fn by_the_address_that_was_asked_for_and_no_other() {
    let lab = Lab::new(2, Backend::Dir);
    let (host, far) = (lab.host(1), lab.host(2));
    host.install(&network("overlay", "ov", 1));
    host.run("ip address add 192.168.1.99/24 dev ens3").ok();
    let bound = |ip: &str, host: u16, container: u16| json!({ "hostIP": ip, "hostPort": host, "containerPort": container });
    let list = json!([
        bound("192.168.1.99", 8080, 80),
        bound("0.0.0.0", 8081, 80),
        bound("::", 8082, 80),
        bound("127.0.0.1", 8083, 80),
        bound(&host.address6(), 8084, 80),
        "8090-8092:90-92",
    ]);
    let web = Published::new(host, "web", "ov", &list);
    let _servers = [80, 90, 92].map(|port| web.serves(port));
    let (v4, v6) = (host.vtep(), host.address6());
    let reached = [
        (8080, ["192.168.1.99", ""]),
        (8081, [v4, "192.168.1.99"]),
        (8082, [&v6, ""]),
        (8083, ["", ""]),
        (8084, [&v6, ""]),
        (8090, [v4, &v6]),
        (8092, [v4, &v6]),
    ];
    for (port, by) in reached {
        for address in [v4, "192.168.1.99", &v6] {
            let seen = fetch_at(far.namespace(), address, port);
            let is_asked = by.contains(&address) || (port >= 8090);
            assert_eq!(
                seen.starts_with("web "),
                is_asked,
                "{address} {port}: {seen}"
            );
        }
    }
    assert!(fetch_at(host.namespace(), "127.0.0.1", 8083).starts_with("web "));
    assert_eq!(fetch_at(host.namespace(), v4, 8083), "ConnectionRefused");
    // What was set for it lets no other client in to programs that listen on 127.0.0.1 alone.
    let _private = published::serve(host.namespace().net(), "private", 7777);
    web.container.run("ip route add 127.0.0.0/8 via 172.18.0.1");
    web.container
        .sysctl("net/ipv4/conf/all/route_localnet", "1");
    web.container
        .sysctl("net/ipv4/conf/gw0/route_localnet", "1");
    web.container.run("ip link set lo down");
    web.container
        .run("ip route del table local 127.0.0.0/8 dev lo");
    let seen = fetch(&web.container.net(), "127.0.0.1", 7777);
    assert!(!seen.starts_with("private"), "{seen}");
}

#[test]
fn with_snat_off_masq_all_on_and_conditions() {
    snat_masq_and_conditions(|_| None);
}

#[test]
fn with_snat_off_masq_all_on_and_conditions_while_a_watcher_reserves_the_ports() {
    snat_masq_and_conditions(|host| Some(host.watch()));
}

fn snat_masq_and_conditions(watch: impl Fn(&Host) -> Option<Watching>) {
    let lab = Lab::new(2, Backend::Dir);
    let (host, far) = (lab.host(1), lab.host(2));
    let watcher = watch(host);
    let install = |name: &str, number, keys| {
        host.install(&with(network("bridge", name, number), &keys));
    };
    install("plain", 1, json!({ "snat": false }));
    install("all", 2, json!({ "masqAll": true, "markMasqBit": 13 }));
    let far6 = format!("{}/128", far.address6());
    install(
        "few",
        3,
        json!({
            "conditionsV4": ["ip", "saddr", "!=", far.vtep()],
            "conditionsV6": ["ip6 saddr", far6],
        }),
    );
    let plain = Published::new(host, "plain", "plain", &json!([port(8001, 80)]));
    let all = Published::new(host, "all", "all", &json!([port(8002, 80)]));
    let few = Published::new(host, "few", "few", &json!([port(8003, 80)]));
    let _servers = [&plain, &all, &few].map(|one| one.serves(80));
    if watcher.is_some() {
        until(LIMIT, "reserved", || reserved(host).len() == 6);
    }
    let from = |namespace, address: &str, port| fetch_at(namespace, address, port);

    assert_eq!(from(lab.outside(), host.vtep(), 8001), "plain 203.0.113.9");
    assert_ne!(from(host.namespace(), "127.0.0.1", 8001), "plain 127.0.0.1");
    let seen = fetch(&plain.container.net(), host.vtep(), 8001);
    assert!(!seen.starts_with("plain"), "it meets itself: {seen}");

    let inside = inner(&all.container, false);
    let gateway = format!("{}.1", inside.rsplit_once('.').expect("an address").0);
    assert_eq!(
        from(lab.outside(), host.vtep(), 8002),
        format!("all {gateway}")
    );
    let seen = from(lab.outside(), &host.address6(), 8002);
    assert!(seen.starts_with("all fd00:2:"), "{seen}");
    assert!(from(host.namespace(), "127.0.0.1", 8002).starts_with("all "));

    assert_eq!(from(lab.outside(), host.vtep(), 8003), "few 203.0.113.9");
    assert_eq!(
        from(far.namespace(), host.vtep(), 8003),
        "ConnectionRefused"
    );
    assert_eq!(
        from(lab.outside(), &host.address6(), 8003),
        "ConnectionRefused"
    );
    let seen = from(far.namespace(), &host.address6(), 8003);
    assert_eq!(seen, format!("few {}", far.address6()));
    for one in [&plain, &all, &few] {
        one.again("check").ok();
        one.again("del").ok();
    }
    assert_eq!(rules(host), "");
}
