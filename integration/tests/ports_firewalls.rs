//! Published ports beside the rules of others and the settings of the kernel: what lets nobody in is told by CHECK and by
//! `crosshost doctor` with the command that lets clients in, and what hinders nobody is not told.

mod doctor;
mod ports;

use doctor::ask;
use ports::{Published, heard_at, lab, network, port};
use serde_json::json;

/// A chain of nft's own with these rules.
fn chain(hook: &str, rules: &str) -> String {
    format!(
        "nft add table inet f
         nft 'add chain inet f c {{ type filter hook {hook}; }}'
         nft 'add rule inet f c {rules}'"
    )
}

/// Nothing of others in the tables, as a rule of these tests leaves it.
const UNDONE: &str = "nft delete table inet f 2>/dev/null || true
    for table in filter raw mangle; do nft delete table ip $table 2>/dev/null || true; done
    for link in docker0 cali0; do ip link delete $link 2>/dev/null || true; done";

/// Firewalls as people have them.
#[test]
fn what_lets_nobody_in_is_told_with_a_cure_that_works() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let heard = || heard_at(lab.host(2).space(), host.vtep(), 8080);
    let drop = |rules: &str| chain("forward priority 0; policy drop", rules);
    let docker = "ip link add docker0 up type bridge; ip address add 172.17.0.1/16 dev docker0
        ip link add cali0 up type veth; ip address add 172.18.0.1/16 dev cali0
        iptables-nft -P FORWARD DROP
        iptables-nft -N DOCKER-USER
        iptables-nft -A FORWARD -j DOCKER-USER
        iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
        iptables-nft -A FORWARD -i docker0 -o docker0 -j ACCEPT
        iptables-nft -A FORWARD -i cali0 -j ACCEPT";
    for (made, into) in [
        (drop("ct state { established, related } accept"), "nft insert rule inet f c "),
        (
            drop("ct state established,related accept; add rule inet f c iifname { lo, wg0 } accept"),
            "nft insert rule inet f c ",
        ),
        (docker.to_owned(), "iptables-nft -I DOCKER-USER "),
        (
            format!("{docker}\niptables-nft -A DOCKER-USER ! -i br1 -j DROP"),
            "iptables-nft -I DOCKER-USER ",
        ),
        (
            format!("{docker}\niptables-nft -I FORWARD -o br1 -j DROP"),
            "iptables-nft -I FORWARD ",
        ),
        (
            "iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER".to_owned(),
            "iptables-nft -I FORWARD ",
        ),
        // As ufw does.
        (
            "iptables-nft -P FORWARD DROP
             iptables-nft -A FORWARD -m state --state RELATED,ESTABLISHED -m comment --comment x -j ACCEPT
             iptables-nft -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
             iptables-nft -A FORWARD -j LOG"
                .to_owned(),
            "iptables-nft -I FORWARD ",
        ),
        // Iptables would not have it.
        (
            "nft add table ip filter
             nft 'add chain ip filter FORWARD { type filter hook forward priority 10; policy drop; }'"
                .to_owned(),
            "nft insert rule ip filter FORWARD ",
        ),
        (
            "iptables-nft -t mangle -P POSTROUTING DROP".to_owned(),
            "iptables-nft -t mangle -I POSTROUTING ",
        ),
    ] {
        host.space().script(&made);
        assert_eq!(heard(), "TimedOut", "{made}");
        let said = web.again("check").failed().stderr;
        let cure = ask(host).wrong(&["stops what comes to published ports over IPv4, by br1"]);
        assert!(said.contains(&cure) && cure.starts_with(into), "{made}: {said}: {cure}");
        host.space().script(&cure);
        assert!(heard().starts_with("web "), "{made}: {cure}");
        web.again("check").ok();
        ask(host).assert_well();
        host.space().script(UNDONE);
    }
    // A rule may name the bridge by its number.
    host.space()
        .script(&drop("oif br1 accept; add rule inet f c iif br1 accept"));
    assert!(heard().starts_with("web "));
    web.again("check").ok();
    ask(host).assert_well();
}

/// Of some it cannot be read for certain what they do: CHECK believes the best of them, and the doctor tells.
#[test]
fn what_may_let_nobody_in_is_noted_with_a_cure_that_works() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let heard = || heard_at(lab.host(2).space(), host.vtep(), 8080);
    for (made, undone) in [
        (
            chain("forward priority 0; policy drop", "meta mark 1 accept"),
            UNDONE,
        ),
        (
            "iptables-legacy -P FORWARD DROP".to_owned(),
            "iptables-legacy -F; iptables-legacy -P FORWARD ACCEPT",
        ),
    ] {
        host.space().script(&made);
        assert_eq!(heard(), "TimedOut", "{made}");
        web.again("check").ok();
        let cure = ask(host).noted(&["may stop what comes to published ports over IPv4, by br1"]);
        host.space().script(&cure);
        assert!(heard().starts_with("web "), "{made}: {cure}");
        // What only another program can read stays what it is.
        let left = usize::from(made.contains("legacy"));
        let notes = ask(host).lines("note");
        let notes = notes.iter().filter(|it| it.contains("may stop"));
        assert_eq!(notes.count(), left, "{made}: {cure}");
        host.space().script(undone);
    }
}

/// A rule that is about one port, wherever it meets what comes to it or goes back: its container's CHECK fails and no other's, and
/// what is named lets clients in.
#[test]
fn a_rule_against_one_port_is_told_with_a_cure_that_works() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let other = Published::new(host, "other", "br", &json!(["8081-8082:81-82"]));
    let _servers = [web.serves(80), other.serves(81), other.serves(82)];
    let heard = |port| heard_at(lab.host(2).space(), host.vtep(), port);
    for made in [
        chain(
            "forward priority 0; policy drop",
            "tcp dport 81-82 accept; add rule inet f c ct state established accept",
        ),
        chain("forward priority 0", "tcp dport 80 drop"),
        chain(
            "forward priority 0",
            "ip daddr 10.1.0.2 tcp dport 80 reject",
        ),
        chain("forward priority 0", "tcp sport 80 drop"),
        chain("prerouting priority -300", "tcp dport 8080 drop"),
        chain("prerouting priority -150", "tcp dport 8080 drop"),
        chain("prerouting priority -300", "tcp dport 8080 notrack"),
        chain("prerouting priority 0", "tcp dport 80 drop"),
        chain("prerouting priority 0", "tcp sport 80 drop"),
        chain(
            "prerouting priority -300",
            "ip saddr 10.1.0.2 tcp sport 80 drop",
        ),
        chain("postrouting priority 0", "tcp dport 80 drop"),
        "iptables-nft -t raw -A PREROUTING -p tcp --dport 8080 -j DROP".to_owned(),
        "iptables-nft -t raw -A PREROUTING -p tcp --dport 8080 -j CT --notrack".to_owned(),
        "iptables-nft -t mangle -A POSTROUTING -p tcp --dport 80 -j DROP".to_owned(),
        "iptables-nft -A FORWARD -d 10.1.0.2 -p tcp --dport 80 -j DROP".to_owned(),
    ] {
        host.space().script(&made);
        assert!(!heard(8080).starts_with("web "), "{made}");
        let said = web.again("check").failed().stderr;
        assert!(
            said.contains("what comes to port 8080/tcp over IPv4, by br1"),
            "{made}: {said}"
        );
        other.again("check").ok();
        let cure = ask(host).wrong(&["stops what comes to port 8080/tcp over IPv4, by br1"]);
        assert!(said.contains(&cure), "{said}: {cure}");
        assert!(heard(8081).starts_with("other "), "{made}");
        host.space().script(&cure);
        assert!(heard(8080).starts_with("web "), "{made}: {cure}");
        web.again("check").ok();
        ask(host).assert_well();
        host.space().script(UNDONE);
    }
}

/// What only programs of this host use is not forwarded; it leaves and its answers come in.
#[test]
fn a_port_of_127_0_0_1_goes_its_own_way() {
    let lab = lab();
    let host = lab.host(1);
    let asked = json!([{ "hostIP": "127.0.0.1", "hostPort": 8080, "containerPort": 80 }]);
    let web = Published::new(host, "web", "br", &asked);
    let _server = web.serves(80);
    let heard = || heard_at(host.space(), "127.0.0.1", 8080);
    for made in [
        "iptables-nft -P FORWARD DROP",
        "nft add table inet f
         nft 'add chain inet f c { type filter hook prerouting priority -300; }'
         nft add rule inet f c ip daddr 127.0.0.0/8 drop",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
    ] {
        host.space().script(made);
        assert!(heard().starts_with("web "), "{made}: {}", heard());
        web.again("check").ok();
        ask(host).assert_well();
        host.space().script(UNDONE);
    }
    for made in [
        chain("input priority 0; policy drop", "iifname lo accept"),
        chain("output priority -300", "oifname lo tcp dport 8080 drop"),
        chain(
            "output priority 0",
            "ip daddr 10.1.0.0/16 tcp dport 80 drop",
        ),
    ] {
        host.space().script(&made);
        assert_eq!(heard(), "TimedOut", "{made}");
        web.again("check").failed();
        let cure = ask(host).wrong(&["chain c of nftables table inet f stops what comes to"]);
        host.space().script(&cure);
        assert!(heard().starts_with("web "), "{made}: {cure}");
        web.again("check").ok();
        ask(host).assert_well();
        host.space().script(UNDONE);
    }
}

/// Each interface has its own; the global one turns all of them.
#[test]
fn settings_of_the_kernel_are_told_with_the_command_that_turns_them() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let heard = || heard_at(lab.host(2).space(), host.vtep(), 8080);
    let key = |name: &str, value: u8| {
        let script = format!("echo {value} > /proc/sys/net/ipv4/{name}");
        host.space().script(&script);
    };
    for off in ["ip_forward", "conf/br1/forwarding"] {
        key(off, 0);
        assert_eq!(heard(), "TimedOut", "{off}");
        let says = format!("net.ipv4.{} is 0", off.replace('/', "."));
        let said = web.again("check").failed().stderr;
        let cure = ask(host).wrong(&[&says]);
        assert!(
            said.contains(&says) && said.contains(&cure),
            "{said}: {cure}"
        );
        host.space().script(&cure);
        assert!(heard().starts_with("web "), "{off}: {cure}");
        ask(host).assert_well();
    }
    key("ip_forward", 0);
    key("conf/br1/forwarding", 1);
    key("conf/ens3/forwarding", 1);
    assert!(heard().starts_with("web "));
    web.again("check").ok();

    key("conf/br1/route_localnet", 0);
    let here = || heard_at(host.space(), "127.0.0.1", 8080);
    assert!(!here().starts_with("web "));
    web.again("check").failed();
    ask(host).wrong(&["published ports: 2, not all of them"]);
    key("conf/all/route_localnet", 1);
    assert!(here().starts_with("web "));
    web.again("check").ok();
    key("conf/all/route_localnet", 0);
    host.crosshost(&["sync"]).ok();
    assert!(here().starts_with("web "));
    web.again("check").ok();
}

/// An interface may have a name that is a word of nft's.
#[test]
fn a_cure_works_whatever_the_bridge_is_called() {
    let lab = lab();
    let host = lab.host(1);
    let mut odd = network("bridge", "odd", 5);
    odd["plugins"][0]["bridge"] = "meta".into();
    host.install(&odd);
    let web = Published::new(host, "web", "odd", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let heard = || heard_at(lab.host(2).space(), host.vtep(), 8080);
    host.space()
        .script(&chain("forward priority 0; policy drop", "counter"));
    assert_eq!(heard(), "TimedOut");
    let cure = ask(host).wrong(&["published ports over IPv4, by meta"]);
    host.space().script(&cure);
    assert!(heard().starts_with("web "), "{cure}");
}
