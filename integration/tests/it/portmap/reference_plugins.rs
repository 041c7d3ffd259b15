//! Three reference plugins `portmap` and ours through the same scenarios: Debian's on iptables, and upstream's of today on
//! iptables and on nftables. What differs is a decision, and stands in `docs/portmap.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::portmap::published;
use crate::portmap::published::{Published, fetch, fetch_at, network, port, port_mappings, serve};
use integration::{Backend, Call, Host, Lab, Net, Programs};
use serde_json::{Value, json};

/// Who is compared, each under this name in a chain.
const COMPARED: &str = "compared-portmap";

#[derive(Clone, Copy)]
enum Plugin {
    Ours,
    /// Debian's 1.1.1, which knows no backend but iptables.
    Debian,
    /// Upstream's with this backend.
    Upstream(&'static str),
}

const REFERENCES: [Plugin; 3] = [
    Plugin::Debian,
    Plugin::Upstream("iptables"),
    Plugin::Upstream("nftables"),
];

impl Plugin {
    fn file(self) -> PathBuf {
        match self {
            Plugin::Ours => Programs::product("portmap"),
            Plugin::Debian => PathBuf::from(Programs::REFERENCE).join("portmap"),
            Plugin::Upstream(_) => Programs::upstream_portmap(),
        }
    }

    /// These keys of a configuration, with the plugin's own.
    fn keys(self, keys: &Value) -> Value {
        let mut keys = keys.clone();
        keys["type"] = COMPARED.into();
        if let Plugin::Upstream(backend) = self {
            keys["backend"] = backend.into();
        }
        keys
    }

    /// Two hosts, of which the first has the networks `one` and `two` under an interface plugin.
    fn lab(self, under: &str, keys: [&Value; 2]) -> Lab {
        let lab = Lab::new(2, Backend::Dir);
        let host = lab.host(1);
        // By which address the host hides a client must not depend on which of its own are still tried out, nor whether bridged
        // frames see its rules on whether this machine has br_netfilter.
        host.script(&format!(
            "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
             for conf in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do test ! -e $conf || echo 0 > $conf; done
             mkdir -p {0}; ln -s {1} {0}/{COMPARED}",
            Programs::MORE_PLUGINS,
            self.file().display(),
        ));
        for (name, number, keys) in [("one", 1, keys[0]), ("two", 2, keys[1])] {
            host.install(&published::with(
                network(under, name, number),
                &self.keys(keys),
            ));
        }
        lab
    }

    /// A call without a network around it, at 1.0.0 or a version among the keys.
    fn call<'host>(self, host: &'host Host, verb: &str, keys: &Value) -> Call<'host> {
        let mut conf = json!({ "cniVersion": "1.0.0" });
        let keys = self.keys(keys);
        for (key, value) in keys.as_object().expect("keys") {
            conf[key] = value.clone();
        }
        let call = host.call_of(self.file(), verb).conf(&conf);
        call.id("c1").netns("/run/netns/beside")
    }
}

/// By what was done, what a client heard (who answers, and by which address the client is seen), or whether a call succeeded.
type Outcomes = BTreeMap<String, String>;

/// What is not alike, with what the reference does: of each reference these, and nothing else.
#[track_caller]
fn differ_in(outcomes: impl Fn(Plugin) -> Outcomes, decided: [&[&[&str]]; 3]) {
    let ours = outcomes(Plugin::Ours);
    let differences = |plugin| {
        let theirs = outcomes(plugin);
        let differs = ours.iter().filter(|(what, came)| theirs[*what] != **came);
        let told = |(what, came)| format!("{what}: {came}; reference: {}", theirs[what]);
        differs.map(told).collect::<Vec<_>>()
    };
    let decided = decided.map(|lists| {
        let mut all = lists.concat();
        all.sort_unstable();
        all
    });
    assert_eq!(REFERENCES.map(differences), decided);
}

/// Who asks whom by which way, all at once, as some wait for an answer that does not come; and the verbs after that.
fn ways(plugin: Plugin, under: &str, keys: &Value) -> Outcomes {
    let lab = plugin.lab(under, [keys, keys]);
    let (host, far) = (lab.host(1), lab.host(2));
    let bound =
        json!({ "hostIP": host.vtep(), "hostPort": 8081, "containerPort": 80, "protocol": "tcp" });
    let udp = json!({ "hostPort": 8082, "containerPort": 80, "protocol": "udp" });
    let web = Published::new(host, "web", "one", &json!([port(8080, 80), bound, udp]));
    let _server = web.serves(80);
    let beside = Published::new(host, "beside", "one", &json!([]));
    let apart = Published::new(host, "apart", "two", &json!([]));
    let mut ways: Vec<(String, Net, String, u16)> = Vec::new();
    for (version, address) in [("4", host.vtep().to_owned()), ("6", host.address6())] {
        for (who, net, port) in [
            ("outside", lab.outside().net(), 8080),
            ("another host", far.namespace().net(), 8080),
            ("the host", host.namespace().net(), 8080),
            ("itself", web.container.net(), 8080),
            ("its neighbour", beside.container.net(), 8080),
            ("another network", apart.container.net(), 8080),
            ("bound to an address", far.namespace().net(), 8081),
            ("the port of UDP", far.namespace().net(), 8082),
        ] {
            ways.push((format!("{who}, IPv{version}"), net, address.clone(), port));
        }
    }
    let loopback = "127.0.0.1".to_owned();
    ways.push((loopback.clone(), host.namespace().net(), loopback, 8080));
    let mut outcomes: Outcomes = std::thread::scope(|scope| {
        let hearing: Vec<_> = ways
            .iter()
            .map(|(what, net, address, port)| (what, scope.spawn(|| fetch(net, address, *port))))
            .collect();
        let heard = hearing.into_iter();
        heard
            .map(|(what, hears)| (what.clone(), hears.join().expect("an answer")))
            .collect()
    });
    let checked = web.again("check").status.success().to_string();
    outcomes.insert("CHECK".to_owned(), checked);
    web.again("del").ok();
    web.again("del").ok();
    let gone = fetch_at(far.namespace(), host.vtep(), 8081);
    outcomes.insert("after DEL".to_owned(), gone);
    outcomes
}

/// Debian's CHECK looks for the rules of each version of IP in both.
const CHECK: [&str; 1] = ["CHECK: true; reference: false"];
/// A program of the host that asks for the host's own address.
const HOST: [&str; 2] = [
    "the host, IPv4: web 10.1.0.1; reference: web 192.168.1.11",
    "the host, IPv6: web fd00:1::1; reference: web 2001:db8:192:168:1::11",
];
/// Upstream's backend of nftables hides a container from itself alone, so that a neighbour is answered past the host.
const NEIGHBOUR: [&str; 2] = [
    "its neighbour, IPv4: web 10.1.0.1; reference: TimedOut",
    "its neighbour, IPv6: web fd00:1::1; reference: TimedOut",
];
/// On iptables all of the container's subnet is hidden, also where it is no neighbour on a link.
const SUBNET: [&str; 2] = [
    "its neighbour, IPv4: web 10.1.0.3; reference: web 10.1.0.1",
    "its neighbour, IPv6: web fd00:1::3; reference: web fd00:1::1",
];
/// Debian's version does not know `masqAll` yet, and upstream's backend of nftables does not read it.
const HIDDEN: [&str; 7] = [
    "another host, IPv4: web 10.1.0.1; reference: web 192.168.1.12",
    "another host, IPv6: web fd00:1::1; reference: web 2001:db8:192:168:1::12",
    "another network, IPv4: web 10.1.0.1; reference: web 10.2.0.2",
    "another network, IPv6: web fd00:1::1; reference: web fd00:2::2",
    "bound to an address, IPv4: web 10.1.0.1; reference: web 192.168.1.12",
    "outside, IPv4: web 10.1.0.1; reference: web 203.0.113.9",
    "outside, IPv6: web fd00:1::1; reference: web 2001:db8:203:0:113::9",
];

#[test]
fn under_a_bridge_only_what_is_written_down_differs() {
    let ways = |plugin| ways(plugin, "bridge", &json!({}));
    differ_in(ways, [&[&CHECK, &HOST], &[&HOST], &[&HOST, &NEIGHBOUR]]);
}

#[test]
fn nor_point_to_point() {
    let ways = |plugin| ways(plugin, "ptp", &json!({}));
    let iptables: [&[&str]; 2] = [&HOST, &SUBNET];
    differ_in(ways, [&[&CHECK, &HOST, &SUBNET], &iptables, &[&HOST]]);
}

#[test]
fn without_snat_the_same_ways_are_closed() {
    let ways = |plugin| ways(plugin, "bridge", &json!({ "snat": false }));
    differ_in(ways, [&[&CHECK], &[], &[]]);
}

#[test]
fn with_all_hidden_whoever_comes_is_seen_as_the_host() {
    let ways = |plugin| ways(plugin, "bridge", &json!({ "masqAll": true }));
    let debian: [&[&str]; 3] = [&CHECK, &HOST, &HIDDEN];
    differ_in(ways, [&debian, &[], &[&HOST, &HIDDEN, &NEIGHBOUR]]);
}

/// Ports and keys, and whether they are given.
fn asked_for(plugin: Plugin) -> Outcomes {
    let lab = plugin.lab("bridge", [&json!({}), &json!({})]);
    let host = lab.host(1);
    let beside = Published::new(host, "beside", "one", &json!([]));
    let _servers = [80, 81].map(|port| beside.serves(port));
    let at = |ip: &str| json!([{ "hostIP": ip, "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let range = json!({
        "hostPort": 8080, "hostPortEnd": 8081, "containerPort": 80, "containerPortEnd": 81, "protocol": "tcp",
    });
    let ports = [
        ("hostPort 0", json!([port(0, 80)])),
        ("a range", json!([range])),
        ("a range as text", json!(["8080-8081:80-81"])),
        ("an address that the host lacks", at("192.168.1.200")),
        ("a version of IP that the container lacks", at("::")),
    ];
    let ports = ports.map(|(what, ports)| (what, "runtimeConfig", port_mappings(&ports)));
    let mark = "externalSetMarkChain";
    let keys = [
        ("markMasqBit", "markMasqBit", json!(14)),
        ("a chain for marks that is not there", mark, json!("NONE")),
        (
            "conditions of iptables",
            "conditionsV4",
            json!(["-s", "10.0.0.1"]),
        ),
        (
            "conditions of nftables",
            "conditionsV4",
            json!(["ip", "saddr", "10.0.0.1"]),
        ),
        (
            "other conditions of nftables",
            "conditionsV4",
            json!(["ip", "ttl", "1"]),
        ),
    ];
    let mut previous = beside.result.clone();
    previous["ips"]
        .as_array_mut()
        .expect("addresses")
        .retain(|it| it["address"].as_str().is_some_and(|it| it.contains('.')));
    let usual = port_mappings(&json!([port(8080, 80)]));
    let mut outcomes = Outcomes::new();
    for (what, key, value) in ports.into_iter().chain(keys) {
        let mut conf = json!({ "name": "one", "prevResult": previous, "runtimeConfig": usual });
        conf[key] = value;
        let added = plugin.call(host, "ADD", &conf).run();
        outcomes.insert(what.to_owned(), added.status.success().to_string());
        if what == "a range" {
            let second = fetch_at(lab.host(2).namespace(), host.vtep(), 8081);
            outcomes.insert("the second port of a range".to_owned(), second);
        }
        // A refused one may have done half.
        let _ = plugin.call(host, "DEL", &conf).run();
    }
    let _program = serve(host.namespace().net(), "program", 8080);
    host.container("late");
    let added = host.cnitool_asking("add", "one", ("late", "eth0"), &usual);
    outcomes.insert(
        "a port on which a program listens".to_owned(),
        added.status.success().to_string(),
    );
    outcomes.insert(
        "who listens there".to_owned(),
        fetch_at(host.namespace(), host.vtep(), 8080),
    );
    outcomes
}

/// What we have more of, or refuse rather than leave out or cut off.
const ASKED: [&str; 7] = [
    "a port on which a program listens: false; reference: true",
    "a range as text: true; reference: false",
    "a version of IP that the container lacks: false; reference: true",
    "a chain for marks that is not there: true; reference: false",
    "hostPort 0: true; reference: false",
    "the second port of a range: beside 192.168.1.12; reference: ConnectionRefused",
    "who listens there: program 192.168.1.11; reference: ConnectionRefused",
];
const IPTABLES_WORDS: [&str; 2] = [
    "conditions of iptables: false; reference: true",
    "conditions of nftables: true; reference: false",
];
const MORE_WORDS: [&str; 1] = ["other conditions of nftables: false; reference: true"];

#[test]
fn what_is_asked_for_is_given_or_refused_as_is_written_down() {
    let iptables: [&[&str]; 2] = [&ASKED, &IPTABLES_WORDS];
    differ_in(asked_for, [&iptables, &iptables, &[&ASKED, &MORE_WORDS]]);
}

/// Two containers that want one port, a container of two networks, and the verbs of 1.1.0.
fn neighbours(plugin: Plugin) -> Outcomes {
    let lab = plugin.lab("bridge", [&json!({}), &json!({})]);
    let host = lab.host(1);
    let mut outcomes = Outcomes::new();
    let mut note = |what: &str, came: String| outcomes.insert(what.to_owned(), came);
    let outside = |port| fetch_at(lab.host(2).namespace(), host.vtep(), port);
    let web = Published::new(host, "web", "one", &json!([port(8080, 80)]));
    let late = host.container("late");
    let _servers = [web.serves(80), serve(late.net(), "late", 80)];
    let added = host.cnitool_asking("add", "one", ("late", "eth0"), &web.asked);
    note("a second container", added.status.success().to_string());
    note("has the port then", outside(8080));
    web.again("del").ok();
    note("has it after DEL of the first", outside(8080));
    host.cnitool_asking("del", "one", ("late", "eth0"), &web.asked)
        .ok();

    let one = Published::new(host, "beside", "one", &json!([port(8081, 80)]));
    let _server = one.serves(80);
    let again = host.existing("beside");
    let two = Published::of(again, "two", "eth1", &json!([port(8082, 80)]));
    let left = host.cnitool_asking("del", "two", ("beside", "eth1"), &two.asked);
    left.ok();
    note("after DEL of its other network", outside(8081));
    note("after DEL of it", outside(8082));
    one.again("del").ok();

    let apart = Published::new(host, "apart", "one", &json!([port(8083, 80)]));
    let _server = apart.serves(80);
    let conf = json!({ "cniVersion": "1.1.0", "name": "one", "cni.dev/valid-attachments": [] });
    for verb in ["STATUS", "GC"] {
        let called = plugin.call(host, verb, &conf).run();
        note(verb, called.status.success().to_string());
    }
    note("after GC", outside(8083));
    outcomes
}

/// Of two containers that want a port all references let the first one have it, and the second wait.
const SECOND: [&str; 2] = [
    "a second container: false; reference: true",
    "has it after DEL of the first: ConnectionRefused; reference: late 192.168.1.12",
];
/// Upstream answers the verbs of 1.1.0 and does nothing; Debian's version does not know them.
const GC: [&str; 1] = ["after GC: ConnectionRefused; reference: apart 192.168.1.12"];
const VERBS: [&str; 2] = [
    "GC: true; reference: false",
    "STATUS: true; reference: false",
];
/// Upstream's rules of nftables bear the container's name and not the network's.
const NETWORKS: [&str; 1] =
    ["after DEL of its other network: beside 192.168.1.12; reference: ConnectionRefused"];

#[test]
fn who_comes_later_and_who_goes_do_what_is_written_down() {
    let debian: [&[&str]; 3] = [&VERBS, &SECOND, &GC];
    let iptables: [&[&str]; 2] = [&SECOND, &GC];
    differ_in(neighbours, [&debian, &iptables, &[&SECOND, &GC, &NETWORKS]]);
}

/// A network without conditions beside one whose conditions no client meets.
fn conditions(plugin: Plugin) -> Outcomes {
    let words = match plugin {
        Plugin::Ours | Plugin::Upstream("nftables") => json!(["ip", "saddr", "192.0.2.1"]),
        _ => json!(["-s", "192.0.2.1"]),
    };
    let lab = plugin.lab("bridge", [&json!({}), &json!({ "conditionsV4": words })]);
    let host = lab.host(1);
    let mut outcomes = Outcomes::new();
    let mut note = |what: &str, came: String| outcomes.insert(what.to_owned(), came);
    let outside = |port| fetch_at(lab.host(2).namespace(), host.vtep(), port);
    let free = Published::new(host, "free", "one", &json!([port(8080, 80)]));
    let bound = Published::new(host, "bound", "two", &json!([port(8081, 80)]));
    let _servers = [&free, &bound].map(|it| it.serves(80));
    note("with conditions", outside(8081));
    note("without, that came before", outside(8080));
    let later = Published::new(host, "later", "one", &json!([port(8082, 80)]));
    let _server = later.serves(80);
    note("without, that came later", outside(8082));
    note("with conditions, then", outside(8081));
    outcomes
}

/// Upstream's are those of the whole host on nftables, and the next ADD of any container replaces them.
const LAST_WORDS: [&str; 2] = [
    "with conditions, then: ConnectionRefused; reference: bound 192.168.1.12",
    "without, that came before: free 192.168.1.12; reference: ConnectionRefused",
];

#[test]
fn conditions_are_those_of_a_network() {
    differ_in(conditions, [&[], &[], &[&LAST_WORDS]]);
}
