//! CHECK of `portmap`: what this host lacks of ours is seen by `crosshost doctor`, and put back by CHECK as by sync; what rules of
//! others stop is the doctor's; other ports than those that were asked for are a deviation.

use crate::portmap::published::{
    Published, fetch_at, lab, network, port, port_mappings, rules, with,
};
use integration::Lab;
use serde_json::{Value, json};

#[test]
fn what_the_host_lacks_of_ours_is_put_back_by_check_and_by_sync() {
    let lab = lab();
    let host = lab.host(1);
    let few = with(
        network("bridge", "few", 3),
        &json!({ "masqAll": true, "conditionsV4": ["ip saddr 192.168.1.0/24"] }),
    );
    host.install(&few);
    let web = Published::new(
        host,
        "web",
        "few",
        &json!([port(8080, 80), "192.168.1.11:53:53/udp"]),
    );
    let _server = web.serves(80);
    let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let whole = sorted(&rules(host));
    web.again("check").ok();
    let table = "inet crosshost";
    for damage in [
        "nft flush ruleset".to_owned(),
        format!("nft flush map {table} ports4"),
        format!("nft flush map {table} bound4"),
        format!("nft flush set {table} hairpin4"),
        format!("nft flush set {table} hidden6"),
        format!("nft flush chain {table} ports-publish"),
        format!("nft delete chain {table} ports-prerouting"),
        format!("nft flush chain {table} ports-conditions"),
        "echo 0 > /proc/sys/net/ipv4/conf/br3/route_localnet".to_owned(),
    ] {
        let mends: [&dyn Fn(); 2] = [&|| drop(web.again("check").ok()), &|| {
            let synced = host.sync().stdout;
            let says = "published ports: mended";
            assert!(synced.contains(says), "{damage}: {synced}");
        }];
        for mend in mends {
            host.script(&damage);
            let doctor = host.crosshost("doctor").stdout;
            assert!(
                doctor.contains("wrong  published ports: "),
                "{damage}: {doctor}"
            );
            mend();
            assert_eq!(sorted(&rules(host)), whole, "{damage}");
            let doctor = host.crosshost("doctor").stdout;
            let says = "published ports: 3, as they should be";
            assert!(doctor.contains(says), "{damage}: {doctor}");
        }
    }
    assert!(fetch().starts_with("web "), "{}", fetch());
    what_others_do_is_the_doctors(&lab, &web);
}

/// And is not undone.
fn what_others_do_is_the_doctors(lab: &Lab, web: &Published<'_>) {
    let host = lab.host(1);
    let told = |says: &str| {
        web.again("check").ok();
        let doctor = host.crosshost("doctor").stdout;
        assert!(doctor.contains(says), "{says}: {doctor}");
    };
    host.script("echo 0 > /proc/sys/net/ipv4/ip_forward");
    told("net.ipv4.ip_forward is 0");
    host.script(
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 0 > /proc/sys/net/ipv6/conf/all/forwarding",
    );
    told("net.ipv6.conf.all.forwarding is 0");
    let forward = "nft 'add chain inet f forward { type filter hook forward priority 0; }'
        nft add rule inet f forward";
    for (rule, what) in [
        ("meta nfproto ipv6 drop", "published ports over IPv6"),
        ("ct state established drop", "published ports over IPv4"),
        (
            "ct state vmap { established : accept, new : drop }",
            "published ports over IPv4",
        ),
    ] {
        host.script(&format!(
            "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             nft add table inet f; {forward} {rule}"
        ));
        told(what);
        host.script("nft delete table inet f");
    }
    host.script(
        "
         nft add table ip filter
         nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'",
    );
    assert_eq!(
        fetch_at(lab.host(2).namespace(), host.vtep(), 8080),
        "TimedOut"
    );
    told("chain FORWARD");
    told("published ports over IPv4, by br3");
    told("iptables-nft -I FORWARD -o br3 -m conntrack --ctstate DNAT -j ACCEPT");
    // What is allowed in nft's words is no longer said.
    host.script(
        "nft insert rule ip filter FORWARD oifname br3 ct status dnat accept
         nft insert rule ip filter FORWARD iifname br3 ct state established,related accept",
    );
    assert!(fetch_at(lab.host(2).namespace(), host.vtep(), 8080).starts_with("web "));
    let doctor = host.crosshost("doctor").stdout;
    assert!(
        !doctor.contains("published ports over IPv4, by br3"),
        "{doctor}"
    );
}

/// The chain of conditions takes what is not ours: then no port leads anywhere.
#[test]
fn a_strange_rule_among_the_conditions_goes() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    host.script("nft insert rule inet crosshost ports-conditions accept");
    let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
    assert_eq!(fetch(), "ConnectionRefused");
    web.again("check").ok();
    assert!(fetch().starts_with("web "), "{}", fetch());
}

#[test]
fn other_ports_than_those_published_are_a_deviation() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    for (asked, says) in [
        (
            json!([port(8081, 80)]),
            "host port 8081/tcp does not lead to",
        ),
        (
            json!([port(8080, 81)]),
            "host port 8080/tcp does not lead to",
        ),
        (
            json!([]),
            "host port 8080/tcp is published, but was not requested",
        ),
    ] {
        let said = host.cnitool_asking("check", "br", ("web", "eth0"), &port_mappings(&asked));
        said.failed().warns(&[says]);
    }
    let two = json!([port(8090, 80), port(8091, 81)]);
    let two = Published::new(host, "two", "br", &two);
    let one = port_mappings(&json!([port(8090, 80)]));
    let said = host.cnitool_asking("check", "br", ("two", "eth0"), &one);
    let said = said.failed().stderr;
    let says = "more ports are published than were requested";
    assert!(said.contains(says), "{said}");
    let conf = |key: &str, value: &Value| {
        let mut conf = json!({
            "cniVersion": "1.0.0",
            "name": "br",
            "type": "portmap",
            "prevResult": two.result,
            "runtimeConfig": port_mappings(&json!([port(8099, 80)])),
        });
        conf[key] = value.clone();
        conf
    };
    let call = |verb, key, value: &Value| {
        let call = host.call("portmap", verb).id("c1");
        call.netns("/run/netns/two").conf(&conf(key, value)).run()
    };
    call("ADD", "snat", &json!(true)).ok();
    call("CHECK", "snat", &json!(true)).ok();
    for (key, value) in [
        ("snat", json!(false)),
        ("masqAll", json!(true)),
        ("conditionsV4", json!(["ip saddr 10.0.0.0/8"])),
        ("conditionsV6", json!(["th sport 53"])),
    ] {
        let says = ["snat, masqAll or conditions are not those"];
        call("CHECK", key, &value).refused(110, &says);
    }
    call("DEL", "snat", &json!(true)).ok();
    web.again("del").ok();
    web.again("check").failed();
}

#[test]
fn thousands_of_ports_are_published_mended_and_taken_away_as_one_is() {
    let lab = lab();
    let host = lab.host(1);
    let range = json!(["10000-14999:10000-14999"]);
    let web = Published::new(host, "web", "br", &range);
    let _server = web.serves(14999);
    let reached = || fetch_at(lab.host(2).namespace(), host.vtep(), 14999);
    assert!(reached().starts_with("web "), "{}", reached());
    web.again("check").ok();
    host.script("nft flush ruleset");
    web.again("check").ok();
    assert!(reached().starts_with("web "), "{}", reached());
    host.script("nft flush ruleset");
    host.sync();
    assert!(reached().starts_with("web "), "{}", reached());
    web.again("del").ok();
    assert_eq!(rules(host), "");
}
