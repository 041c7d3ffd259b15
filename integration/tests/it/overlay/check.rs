//! CHECK: whatever was done to an attachment, or to what carries it on its host, is noticed and named; what sync mends is right
//! again afterwards, and what later plugins of a chain added is ignored. What is missing on the host as a whole is put back, and is no
//! deviation.

use integration::{
    Attachment, Backend, Container, Finished, Lab, OUTSIDE, conflist, netconf, position_of,
};
use serde_json::{Value, json};

use crate::doctor_report::ask;

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";

/// Something that happens to an attachment.
struct Damage {
    /// Done in the host's namespace. `$C` enters the container, `$S` the sandbox and `$E` the egress bridge's namespace; `$CHP` and `$CHE` are its ports.
    does: &'static str,
    /// What CHECK says of it.
    words: &'static [&'static str],
    /// What repairs it; empty: `crosshost sync`.
    undo: &'static str,
}

const fn mended(does: &'static str, words: &'static [&'static str]) -> Damage {
    Damage {
        does,
        words,
        undo: "",
    }
}

const fn undone(does: &'static str, words: &'static [&'static str], undo: &'static str) -> Damage {
    Damage { does, words, undo }
}

/// In the container, which sync leaves to its runtime: what the result alone tells. The rest is in `container_state.rs`.
const INSIDE: [Damage; 7] = [
    undone(
        "$C ip link set eth0 mtu 1400",
        &["eth0: has MTU 1400, not 1450"],
        "$C ip link set eth0 mtu 1450",
    ),
    undone(
        "$C ip address delete $ADDRESS/24 dev eth0",
        &["eth0: lacks address 10.0.0."],
        "$C ip address add $ADDRESS/24 dev eth0; $C ip route add 10.9.0.0/24 via 10.0.0.1 mtu 1300 metric 7; $C ip route add 10.8.0.0/24 dev eth0 table 100 scope link || true",
    ),
    undone(
        "$C ip route delete 10.9.0.0/24",
        &["route to 10.9.0.0/24: is gone"],
        "$C ip route add 10.9.0.0/24 via 10.0.0.1 mtu 1300 metric 7",
    ),
    undone(
        "$C ip route replace 10.9.0.0/24 via 10.0.0.77 mtu 1300 metric 7",
        &["route to 10.9.0.0/24", "via 10.0.0.77"],
        "$C ip route replace 10.9.0.0/24 via 10.0.0.1 mtu 1300 metric 7",
    ),
    undone(
        "$C ip route replace 10.9.0.0/24 via 10.0.0.1 metric 7",
        &["route to 10.9.0.0/24"],
        "$C ip route replace 10.9.0.0/24 via 10.0.0.1 mtu 1300 metric 7",
    ),
    undone(
        "$C ip route delete 10.8.0.0/24 table 100; $C ip route add 10.8.0.0/24 dev eth0 scope link",
        &["route to 10.8.0.0/24"],
        "$C ip route delete 10.8.0.0/24; $C ip route add 10.8.0.0/24 dev eth0 table 100 scope link",
    ),
    undone(
        "$C ip route replace default via 10.0.0.1 dev eth0",
        &["route to 0.0.0.0/0", "via 10.0.0.1 dev eth0"],
        "$C ip route replace default via 172.18.0.1 dev gw0",
    ),
];

/// On the host as a whole: its way out, and the guard of its tunnels.
const HOST: [&str; 21] = [
    "ip link set ch-egress down",
    "ip link delete ch-egress",
    "ip link set ch-egress mtu 1280",
    "ip address delete 172.18.0.1/16 dev ch-egress",
    "$E ip link set br0 down",
    "$E ip link delete br0",
    // With the one end goes the other.
    "$E ip link delete uplink",
    "ip link set ch-egress down; ip link set ch-egress name other",
    "$E ip link set uplink nomaster",
    "$E ip link set uplink down",
    "$E bridge link set dev uplink isolated on",
    "$E ip link set $CHE nomaster",
    "$E ip link set $CHE down",
    "$E ip link set $CHE mtu 1280",
    "$E bridge link set dev $CHE isolated off",
    "echo 0 > /proc/sys/net/ipv4/ip_forward",
    "nft delete table inet crosshost",
    "nft flush chain inet crosshost postrouting",
    "nft flush set inet crosshost egress4",
    "nft flush set inet crosshost peers4",
    "nft flush set inet crosshost tunnels4",
];

/// In the sandbox and at the tunnel.
const SEGMENT: [Damage; 17] = [
    mended("$S ip link set br0 down", &["br0 in the sandbox: is down"]),
    mended("$S ip link delete br0", &["br0 in the sandbox: is gone"]),
    mended(
        "$S ip link set vxlan0 down",
        &["vxlan0 in the sandbox: is down"],
    ),
    mended(
        "$S ip link delete vxlan0",
        &["vxlan0 in the sandbox: is gone"],
    ),
    mended(
        "$S ip link set vxlan0 nomaster",
        &["vxlan0 in the sandbox: was taken off the bridge"],
    ),
    mended(
        "$S ip link set vxlan0 mtu 1300",
        &["vxlan0 in the sandbox: has MTU 1300, not 1450"],
    ),
    mended("$S ip link set $CHP down", &["chp", "is down"]),
    mended(
        "$S ip link set $CHP mtu 1300",
        &["chp", "has MTU 1300, not 1450"],
    ),
    mended(
        "$S ip link set $CHP nomaster",
        &["chp", "was taken off the bridge"],
    ),
    mended(
        "$S ip link delete vxlan0; ip link add vxlan0 netns $PID mtu 1450 type vxlan id 77 dstport 4789 local 192.168.1.11 dev ens3 nolearning; $S ip link set vxlan0 master br0 up",
        &["vxlan0 in the sandbox: has VNI 77"],
    ),
    mended(
        "$S ip link delete vxlan0; ip link add vxlan0 netns $PID mtu 1450 type vxlan id $VNI dstport 4790 local 192.168.1.11 dev ens3 nolearning; $S ip link set vxlan0 master br0 up",
        &["vxlan0 in the sandbox: has UDP port 4790, not 4789"],
    ),
    mended(
        "$S ip link delete vxlan0; ip link add vxlan0 netns $PID mtu 1450 type vxlan id $VNI dstport 4789 dev ens3 nolearning; $S ip link set vxlan0 master br0 up",
        &["vxlan0 in the sandbox: has local address none"],
    ),
    mended(
        "$S ip link set vxlan0 type vxlan learning",
        &["vxlan0 in the sandbox: has learning true"],
    ),
    mended(
        "$S bridge link set dev vxlan0 learning on",
        &["vxlan0 in the sandbox", "has learning on"],
    ),
    mended(
        "$S bridge link set dev vxlan0 neigh_suppress off",
        &["vxlan0 in the sandbox", "has neigh_suppress off"],
    ),
    mended(
        "$S bridge fdb delete 00:00:00:00:00:00 dev vxlan0 dst 192.168.1.12",
        &["forwarding", "192.168.1.12", "crosshost sync"],
    ),
    mended(
        "$S ip neighbour flush dev br0 nud permanent",
        &["forwarding", "crosshost sync"],
    ),
];

struct Bench<'h> {
    container: Container<'h>,
    conf: Value,
    settings: String,
}

impl<'h> Bench<'h> {
    fn new(lab: &'h Lab) -> Self {
        let host = lab.host(1);
        let mut conf = netconf(NETWORK, SUBNET, "1.1.0");
        conf["ipam"]["routes"] = json!([
            { "dst": "10.9.0.0/24", "gw": "10.0.0.1", "mtu": 1300, "priority": 7 },
            { "dst": "10.8.0.0/24", "table": 100, "scope": 253 },
        ]);
        let container = host.container("t1");
        let call = host
            .call("overlay", "ADD")
            .id("t1")
            .netns(&container.netns());
        let result = call.conf(&conf).run().ok().json();
        let vni = host.listed(&["network", "inspect", NETWORK])["vni"].to_string();
        let interfaces = result["interfaces"].as_array().expect("interfaces");
        let che = interfaces
            .iter()
            .find_map(|i| i["name"].as_str().filter(|n| n.starts_with("che")));
        let settings = format!(
            "NS=/run/crosshost/netns/{NETWORK}
             C='nsenter --net={}'; S=\"nsenter --net=$NS\"
             E='nsenter --net=/run/crosshost/egress-netns/ch-egress'
             CHP=$($S ip -o link | grep -o 'chp[0-9a-f]*' | head -1); CHE={}
             ADDRESS={}; VNI={vni}
             $S sleep 9 > /dev/null 2>&1 & PID=$!; trap 'kill $PID' EXIT; sleep 0.05",
            container.netns(),
            che.expect("a port"),
            container.address("eth0").expect("an address"),
        );
        conf["prevResult"] = result;
        Self {
            container,
            conf,
            settings,
        }
    }

    fn does(&self, what: &str) {
        let script = format!("{}\n{what}", self.settings);
        self.container.host().script(&script);
    }

    fn check_of(&self, conf: &Value) -> Finished {
        let host = self.container.host();
        let call = host.call("overlay", "CHECK").id("t1");
        call.netns(&self.container.netns()).conf(conf).run()
    }

    fn check(&self) -> Finished {
        self.check_of(&self.conf)
    }

    #[track_caller]
    fn check_said_on_standard_error(&self) -> String {
        self.check().ok().stderr
    }

    /// Each damage is noticed by its name, and gone when it was repaired.
    fn suffers(&self, damages: &[Damage]) {
        self.check().ok();
        for Damage { does, words, undo } in damages {
            self.does(does);
            let found = self.check();
            let text = format!("{does}: {} {}", found.stdout, found.stderr);
            assert!(!found.status.success(), "not noticed: {does}");
            assert!(text.contains("\"code\":110"), "{text}");
            assert!(
                words.iter().all(|word| text.contains(word)),
                "want {words:?}: {text}"
            );
            if undo.is_empty() {
                self.container.host().sync();
            } else {
                self.does(undo);
            }
            let after = self.check();
            let text = format!("{does}, repaired: {} {}", after.stdout, after.stderr);
            assert!(after.status.success(), "{text}");
        }
    }
}

fn lab() -> Lab {
    Lab::with_network(2, Backend::Dir, &conflist(NETWORK, SUBNET))
}

#[test]
fn whatever_happens_in_the_container_is_noticed_and_named() {
    let lab = lab();
    Bench::new(&lab).suffers(&INSIDE);
}

#[test]
fn what_the_host_as_a_whole_lacks_of_ours_is_put_back_and_no_deviation() {
    let lab = lab();
    let bench = Bench::new(&lab);
    let leaves = || {
        let heard = bench.container.tcp_get(OUTSIDE);
        heard.is_ok_and(|heard| heard == lab.host(1).vtep())
    };
    let well = || bench.check_said_on_standard_error().is_empty();
    assert!(leaves() && well());
    for damage in HOST {
        bench.does(damage);
        let said = bench.check().ok();
        assert!(leaves(), "{damage}: {said}");
        assert!(well(), "{damage}: not all of it");
        bench.does("ip link delete other 2>/dev/null || true");
    }
    // A firewall of others is none of its business, even if nothing gets out.
    bench.does(
        "nft add table inet mine
         nft 'add chain inet mine forward { type filter hook forward priority 0; policy drop; }'",
    );
    assert!(!leaves() && well());
}

#[test]
fn whatever_happens_to_the_segment_is_noticed_named_and_mended() {
    let lab = lab();
    let bench = Bench::new(&lab);
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    lab.host(1).sync();
    bench.suffers(&SEGMENT);
    assert!(bench.container.pings(far.address, &[]), "as before");
}

#[test]
fn what_later_plugins_added_is_none_of_its_business() {
    let lab = lab();
    let bench = Bench::new(&lab);
    bench.does(
        "$C ip address add 10.0.0.200/24 dev eth0
         $C ip address add 192.0.2.1/24 dev gw0
         $C ip route add 192.0.3.0/24 via 192.0.2.9
         $C ip link add other0 type veth peer name other1
         $C ip link set other1 up
         $C ip link set other0 up
         $C tc qdisc add dev eth0 root tbf rate 1mbit burst 32kbit latency 400ms
         $C ip link set eth0 mtu 1400
         nft add table inet other",
    );
    // `tuning` says what it changed in the result, and a plugin may list an interface, an address and a route of its own.
    let mut conf = bench.conf.clone();
    let result = &mut conf["prevResult"];
    let [eth0, gw0] = ["eth0", "gw0"].map(|name| position_of(result, name));
    result["interfaces"][eth0]["mtu"] = 1400.into();
    let list = |value: &mut Value, more: Value| value.as_array_mut().expect("a list").push(more);
    list(
        &mut result["interfaces"],
        json!({ "name": "other0", "sandbox": bench.container.netns() }),
    );
    list(
        &mut result["ips"],
        json!({ "address": "192.0.2.1/24", "interface": gw0 }),
    );
    list(
        &mut result["routes"],
        json!({ "dst": "192.0.3.0/24", "gw": "192.0.2.9" }),
    );
    bench.check_of(&conf).ok();
    // Without their words it is a deviation; an older result has none about the MTU.
    bench.check().refused(110, &["eth0: has MTU"]);
    conf["cniVersion"] = "1.0.0".into();
    conf["prevResult"]["cniVersion"] = "1.0.0".into();
    bench.check_of(&conf).ok();
    bench.does("$C ip link set eth0 mtu 1500");
    bench
        .check_of(&conf)
        .refused(110, &["carries 1450 bytes, the container sends 1500"]);
}

/// `tuning` with `mac`, whose result says so. Nothing that the container sends gets past the guard of its port.
#[test]
fn a_mac_that_a_later_plugin_set_makes_the_container_mute() {
    const OTHER: &str = "02:11:22:33:44:55";
    let lab = lab();
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    let bench = Bench::new(&lab);
    let of_result = |mac: &str| {
        let mut conf = bench.conf.clone();
        let eth0 = position_of(&conf["prevResult"], "eth0");
        let own = conf["prevResult"]["interfaces"][eth0]["mac"]
            .as_str()
            .expect("a MAC")
            .to_owned();
        conf["prevResult"]["interfaces"][eth0]["mac"] = mac.into();
        (conf, own)
    };
    let (conf, own) = of_result(OTHER);
    assert!(bench.container.pings(far.address, &[]), "before");
    bench.does(&format!("$C ip link set eth0 address {OTHER}"));
    let words = [OTHER, own.as_str(), "tuning: mac"];
    bench.check_of(&conf).refused(110, &words);
    assert!(!bench.container.pings(far.address, &[]), "mute");
    // The doctor knows no result, and says it as well.
    ask(bench.container.host()).wrong(&["eth0", OTHER]);
    bench.does(&format!("$C ip link set eth0 address {own}"));
    bench.check().ok();
    assert!(bench.container.pings(far.address, &[]), "again");
    far.end();
}

#[test]
fn another_namespace_than_the_one_it_was_made_in_is_named() {
    let lab = lab();
    let bench = Bench::new(&lab);
    let host = bench.container.host();
    let other = host.container("t2");
    let call = host.call("overlay", "CHECK").id("t1");
    let check = call.netns(&other.netns()).conf(&bench.conf).run();
    check.refused(110, &["CNI_NETNS is another namespace"]);
}
