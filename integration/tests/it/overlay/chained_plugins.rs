//! Reference plugins before and behind `overlay` in a chain: each gets a result that it can work with, and what it then does
//! does no harm.

use integration::{
    Attachment, Backend, Container, Host, Lab, OUTSIDE, addresses_in, conflist, netconf,
    position_of,
};
use serde_json::{Value, json};

/// A network of both versions of IP with these keys of `overlay`, and what follows it in the chain. The reference plugins of
/// Debian know no 1.1.0.
fn network(number: u8, keys: &Value, behind: &Value) -> Value {
    let mut conf = conflist(&format!("n{number}"), "10.0.0.0/24");
    conf.as_object_mut()
        .expect("an object")
        .remove("cniVersions");
    let plugin = &mut conf["plugins"][0];
    for (key, value) in keys.as_object().expect("an object") {
        plugin[key] = value.clone();
    }
    plugin["ipam"]["ranges"] = json!([
        [{ "subnet": format!("10.0.{number}.0/24"), "gateway": format!("10.0.{number}.1") }],
        [{ "subnet": format!("fd00:{number}::/64"), "gateway": format!("fd00:{number}::1") }],
    ]);
    let chain = conf["plugins"].as_array_mut().expect("plugins");
    chain.extend(behind.as_array().expect("plugins").iter().cloned());
    conf
}

fn said(host: &Host, words: &[&str]) -> String {
    host.run(words).ok().stdout
}

#[test]
fn firewall_keeps_the_containers_apart_from_other_bridges_only() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    // A link of the host that has the name of the containers'.
    host.script("ip link add eth0 type veth peer name end0; ip link set eth0 up");
    let policy =
        json!([{ "type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge" }]);
    let modes = ["gwbridge", "gateway", "none"];
    for (number, mode) in (0..).zip(modes) {
        host.install(&network(
            number,
            &json!({ "egress": { "mode": mode } }),
            &policy,
        ));
    }
    host.install(&json!({
        "cniVersion": "1.0.0",
        "name": "other",
        "plugins": [
            { "type": "bridge", "bridge": "other0", "isGateway": true, "isDefaultGateway": true, "ipMasq": true,
              "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.9.0.0/24" }]] } },
            policy[0],
        ],
    }));
    let other = Attachment::new(host, "other", "other");
    let ours: Vec<_> = (0..3)
        .map(|number| Attachment::new(host, &format!("t{number}"), &format!("n{number}")))
        .collect();
    for attached in [&ours[0], &ours[1], &other] {
        let heard = attached.container.tcp_get(OUTSIDE);
        assert_eq!(
            heard.expect("a way out"),
            host.vtep(),
            "{}",
            attached.network
        );
    }
    let rules = said(host, &["iptables", "-S"]);
    assert!(
        rules.contains("-A CNI-ISOLATION-STAGE-2 -o ch-egress "),
        "{rules}"
    );
    for link in ["eth0", "lo", "br0"] {
        assert!(!rules.contains(&format!("o {link} ")), "{rules}");
    }
    let gw0 = ours[0].container.address("gw0").expect("an address");
    assert!(!other.container.pings(gw0, &[]), "as the policy wants it");
    for attached in ours.iter().chain([&other]) {
        host.cnitool(
            "check",
            &attached.network,
            attached.container.name(),
            "eth0",
        )
        .ok();
        attached.detach().ok();
    }
    let isolation = |rules: &str| {
        let lines = rules.lines().filter(|line| line.contains("ISOLATION"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let left = said(host, &["iptables", "-S"]);
    assert_eq!(
        isolation(&left),
        isolation(&rules),
        "one rule for a bridge, for ever"
    );
}

/// It looks for the other end of the container's interface on the host, where it is not.
#[test]
fn bandwidth_is_refused_and_limits_nothing() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let limit = json!([{ "type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 8_000_000,
        "egressRate": 8_000_000, "egressBurst": 8_000_000 }]);
    host.install(&network(0, &json!({}), &json!([])));
    host.install(&network(1, &json!({}), &limit));
    // Indices of links are small numbers, in a sandbox as on the host: without care one of the ports there would have that of
    // a link here.
    host.script(
        "for again in 1 2 3 4; do ip link add a0 type veth peer name b0; ip link del a0; done",
    );
    let near = Attachment::new(host, "near", "n0");
    let links = host.run("ip -json link show dev ch-egress");
    let index = links.ok().json()[0]["ifindex"].as_u64().expect("an index");
    assert!((6..20).contains(&index), "{index}");
    let limited = said(host, &["tc", "qdisc"]);
    let before = host.footprint();
    let names: Vec<_> = (0..20).map(|number| format!("t{number}")).collect();
    for name in &names {
        host.container(name);
        host.cnitool("add", "n1", name, "eth0")
            .failed()
            .warns(&["veth peer"]);
        assert_eq!(said(host, &["tc", "qdisc"]), limited, "{name}");
    }
    for name in &names {
        host.cnitool("del", "n1", name, "eth0").ok();
        host.existing(name).remove();
    }
    host.assert_same_as(&before, "after the last DEL");
    near.detach().ok();
}

#[test]
fn results_in_the_order_of_earlier_versions_are_checked_and_removed() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let container = host.container("t1");
    let mut conf = netconf("n", "10.0.0.0/24", "1.0.0");
    let call = |verb: &str, conf: &Value| container.call(verb, conf).run().ok();
    let mut result = call("ADD", &conf).json();
    let eth0 = position_of(&result, "eth0");
    assert_eq!(
        result["interfaces"][0],
        json!({ "name": "ch-egress" }),
        "{result:#}"
    );
    let interfaces = result["interfaces"].as_array_mut().expect("interfaces");
    interfaces.rotate_left(eth0);
    for ip in result["ips"].as_array_mut().expect("addresses") {
        let index = ip["interface"].as_u64().expect("an index");
        ip["interface"] = (index - eth0 as u64).into();
    }
    conf["prevResult"] = result;
    call("CHECK", &conf);
    container.run("ip address flush dev gw0").ok();
    container
        .call("CHECK", &conf)
        .run()
        .refused(110, &["gw0: lacks address"]);
    call("DEL", &conf);
}

#[test]
fn what_a_plugin_before_answered_is_passed_on() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let mut conf = network(0, &json!({}), &json!([]));
    let chain = conf["plugins"].as_array_mut().expect("plugins");
    chain.insert(0, json!({ "type": "loopback" }));
    chain.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
    host.install(&conf);
    let attached = Attachment::new(host, "t1", "n0");
    let (result, lo) = (&attached.result, position_of(&attached.result, "lo"));
    assert_eq!(result["interfaces"][0]["name"], "ch-egress");
    assert!(position_of(result, "eth0") < lo, "ours first: {result:#}");
    let ips = result["ips"].as_array().expect("addresses");
    let of_lo = ips.iter().filter(|ip| ip["interface"] == lo);
    let of_lo: Vec<_> = of_lo.map(|ip| ip["address"].clone()).collect();
    assert_eq!(of_lo, ["127.0.0.1/8", "::1/128"]);
    host.cnitool("check", "n0", "t1", "eth0").ok();
    attached.detach().ok();

    // Unknown keys, name servers, and an index that is none of the interfaces of the other.
    let container = host.container("t2");
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let mut conf = netconf("n2", "10.0.2.0/24", version);
        conf["prevResult"] = json!({
            "cniVersion": version,
            "interfaces": [{ "name": "dummy0" }],
            "ips": [{ "version": "4", "address": "192.0.2.9/32", "interface": 0 }],
            "routes": [{ "dst": "192.0.2.0/24", "gw": "192.0.2.1" }],
            "dns": { "nameservers": ["192.0.2.53"] },
            "theirs": { "of": 1 },
        });
        let call = |verb: &str| container.call(verb, &conf).run().ok();
        let result = call("ADD").json();
        let dummy0 = position_of(&result, "dummy0");
        assert_eq!(addresses_in(&result).last().expect("one"), "192.0.2.9/32");
        let ips = result["ips"].as_array().expect("addresses");
        assert_eq!(ips.last().expect("one")["interface"], dummy0);
        let routes = result["routes"].as_array().expect("routes");
        assert_eq!(routes.last().expect("one")["dst"], "192.0.2.0/24");
        assert_eq!(result["dns"], json!({ "nameservers": ["192.0.2.53"] }));
        assert_eq!(result["theirs"], json!({ "of": 1 }));
        call("DEL");
    }
}

fn is_up(container: &Container<'_>) -> bool {
    container.link("lo")["flags"].to_string().contains("UP")
}

#[test]
fn the_loopback_interface_is_up_with_or_without_its_plugin() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    for (number, before) in (0..).zip([json!([]), json!([{ "type": "loopback" }])]) {
        let mut conf = network(number, &json!({}), &json!([]));
        let chain = conf["plugins"].as_array_mut().expect("plugins");
        chain.splice(0..0, before.as_array().expect("plugins").iter().cloned());
        host.install(&conf);
        let name = format!("n{number}");
        let attached = Attachment::new(host, &name, &name);
        assert!(is_up(&attached.container));
        for address in ["127.0.0.1", "::1"] {
            let address = address.parse().expect("an address");
            assert!(
                attached.container.pings(address, &[]),
                "{before}: {address}"
            );
        }
        attached.detach().ok();
    }
}
