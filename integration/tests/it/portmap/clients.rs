//! Which clients reach a published port, and by which way: programs of this host by 127.0.0.1, machines by each of its interfaces, as
//! far as the kernel forwards what comes by it. A rule that stops no possible client is not reported.

use crate::doctor_report::ask;
use crate::portmap::published::{Published, UNDONE, chain, fetch_at, lab, port};
use serde_json::json;

/// What only programs of this host use is not forwarded; it leaves and its answers come in.
#[test]
fn a_port_of_127_0_0_1_goes_its_own_way() {
    let lab = lab();
    let host = lab.host(1);
    let asked = json!([{ "hostIP": "127.0.0.1", "hostPort": 8080, "containerPort": 80 }]);
    let web = Published::new(host, "web", "br", &asked);
    let _server = web.serves(80);
    let fetch = || fetch_at(host.namespace(), "127.0.0.1", 8080);
    for made in [
        "iptables-nft -P FORWARD DROP",
        "nft add table inet f
         nft 'add chain inet f c { type filter hook prerouting priority -300; }'
         nft add rule inet f c ip daddr 127.0.0.0/8 drop",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
    ] {
        host.script(made);
        assert!(fetch().starts_with("web "), "{made}: {}", fetch());
        web.again("check").ok();
        ask(host).assert_well();
        host.script(UNDONE);
    }
    for made in [
        chain("input priority 0; policy drop", "iifname lo accept"),
        chain("output priority -300", "oifname lo tcp dport 8080 drop"),
        chain(
            "output priority 0",
            "ip daddr 10.1.0.0/16 tcp dport 80 drop",
        ),
    ] {
        host.script(&made);
        assert_eq!(fetch(), "TimedOut", "{made}");
        web.again("check").ok();
        let cure = ask(host).wrong(&["chain c of nftables table inet f stops what comes to"]);
        host.script(&cure);
        assert!(fetch().starts_with("web "), "{made}: {cure}");
        web.again("check").ok();
        ask(host).assert_well();
        host.script(UNDONE);
    }
}

/// Each interface has its own; the global one turns all of them.
#[test]
fn settings_of_the_kernel_are_told_with_the_command_that_turns_them() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
    let key = |name: &str, value: u8| {
        let script = format!("echo {value} > /proc/sys/net/ipv4/{name}");
        host.script(&script);
    };
    for off in ["ip_forward", "conf/br1/forwarding"] {
        key(off, 0);
        assert_eq!(fetch(), "TimedOut", "{off}");
        let says = format!("net.ipv4.{} is 0", off.replace('/', "."));
        web.again("check").ok();
        let cure = ask(host).wrong(&[&says]);
        host.script(&cure);
        assert!(fetch().starts_with("web "), "{off}: {cure}");
        ask(host).assert_well();
    }
    key("ip_forward", 0);
    key("conf/br1/forwarding", 1);
    key("conf/ens3/forwarding", 1);
    assert!(fetch().starts_with("web "));
    web.again("check").ok();

    key("conf/br1/route_localnet", 0);
    let here = || fetch_at(host.namespace(), "127.0.0.1", 8080);
    assert!(!here().starts_with("web "));
    ask(host).wrong(&["not reachable at 127.0.0.1 by br1"]);
    web.again("check").ok();
    assert!(here().starts_with("web "), "ours, and put back by CHECK");
    key("conf/br1/route_localnet", 0);
    key("conf/all/route_localnet", 1);
    assert!(here().starts_with("web "));
    web.again("check").ok();
    key("conf/all/route_localnet", 0);
    host.sync();
    assert!(here().starts_with("web "));
    web.again("check").ok();
}

/// Clients of a LAN may be all that are to come in; over a version of IP that no machine outside speaks nothing can be stopped.
#[test]
fn whoever_may_be_a_client_is_one() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    host.script(
        "ip link add br-lan up type bridge
         ip link add nic up master br-lan type vxlan id 7 dstport 4790
         ip address add 10.77.0.1/24 dev br-lan",
    );
    let only = |rule: &str| {
        let rules = format!("ct state established accept; add rule inet f c iifname {rule} accept");
        chain("forward priority 0; policy drop", &rules)
    };
    host.script(&only("br-lan"));
    web.again("check").ok();
    // By IPv4 from the LAN, by IPv6 from nowhere.
    ask(host).wrong(&["stops what comes to", "over IPv6"]);
    host.script(UNDONE);
    host.script(&only("ens3"));
    web.again("check").ok();
    host.script(UNDONE);
    host.script(
        "ip -6 address flush dev ens3 scope global
         ip -6 route flush default",
    );
    host.script(&only("br-lan"));
    web.again("check").ok();
    let notes = ask(host).lines("note").join("\n");
    assert!(
        notes.contains("over IPv4, by br1") && !notes.contains("over IPv6"),
        "{notes}"
    );
    ask(host).assert_well();
    host.script("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
    web.again("check").ok();
}
