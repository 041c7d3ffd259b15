//! Published ports beside the rules of others: what lets no client in is reported by `crosshost doctor` with the command that
//! lets clients in, and what stops no client is not reported. CHECK judges what is ours, and passes all the while: a runtime that it
//! tells of a deviation destroys the container.

use crate::doctor_report::ask;
use crate::portmap::published::{Published, UNDONE, chain, fetch_at, lab, network, port};
use integration::{LIMIT, Running, until};
use serde_json::json;
use std::time::Duration;

/// Firewalls as people have them.
#[test]
fn what_lets_no_client_in_is_told_with_a_cure_that_works() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
    let drop = |rules: &str| chain("forward priority 0; policy drop", rules);
    let docker = "ip link add docker0 up type bridge; ip address add 172.17.0.1/16 dev docker0
        ip link add cali0 up type veth; ip address add 169.254.1.1/32 dev cali0
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
            "iptables-nft -t security -A FORWARD -j DROP".to_owned(),
            "iptables-nft -t security -I FORWARD ",
        ),
        (
            "iptables-nft -t mangle -P POSTROUTING DROP".to_owned(),
            "iptables-nft -t mangle -I POSTROUTING ",
        ),
    ] {
        host.script(&made);
        assert_eq!(fetch(), "TimedOut", "{made}");
        web.again("check").ok();
        let cure = ask(host).wrong(&["stops what comes to published ports over IPv4, by br1"]);
        assert!(cure.starts_with(into), "{made}: {cure}");
        host.script(&cure);
        assert!(fetch().starts_with("web "), "{made}: {cure}");
        web.again("check").ok();
        ask(host).assert_well();
        host.script(UNDONE);
    }
    // A rule may name the bridge by its number.
    host.script(&drop("oif br1 accept; add rule inet f c iif br1 accept"));
    assert!(fetch().starts_with("web "));
    web.again("check").ok();
    ask(host).assert_well();
}

/// Of some it cannot be read for certain what they do: the doctor tells.
#[test]
fn what_may_let_no_client_in_is_noted_with_a_cure_that_works() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let _server = web.serves(80);
    let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
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
        host.script(&made);
        assert_eq!(fetch(), "TimedOut", "{made}");
        web.again("check").ok();
        let cure = ask(host).noted(&["may stop what comes to published ports over IPv4, by br1"]);
        host.script(&cure);
        assert!(fetch().starts_with("web "), "{made}: {cure}");
        // What only another program can read stays what it is.
        let left = usize::from(made.contains("legacy"));
        let notes = ask(host).lines("note");
        let notes = notes.iter().filter(|it| it.contains("may stop"));
        assert_eq!(notes.count(), left, "{made}: {cure}");
        host.script(undone);
    }
}

/// A rule that is about one port, wherever it meets what comes to it or goes back: what is named lets clients in.
#[test]
fn a_rule_against_one_port_is_told_with_a_cure_that_works() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let other = Published::new(host, "other", "br", &json!(["8081-8082:81-82"]));
    let _servers = [web.serves(80), other.serves(81), other.serves(82)];
    let fetch = |port| fetch_at(lab.host(2).namespace(), host.vtep(), port);
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
        host.script(&made);
        assert!(!fetch(8080).starts_with("web "), "{made}");
        web.again("check").ok();
        let cure = ask(host).wrong(&["stops what comes to port 8080/tcp over IPv4, by br1"]);
        assert!(fetch(8081).starts_with("other "), "{made}");
        host.script(&cure);
        assert!(fetch(8080).starts_with("web "), "{made}: {cure}");
        web.again("check").ok();
        ask(host).assert_well();
        host.script(UNDONE);
    }
}

/// An interface may have a name that is a word of nft's, or means something to a shell.
#[test]
fn a_cure_works_whatever_the_bridge_is_called() {
    let lab = lab();
    let host = lab.host(1);
    for (number, name) in [(5, "meta"), (6, "br&x")] {
        let mut odd = network("bridge", &format!("odd{number}"), number);
        odd["plugins"][0]["bridge"] = name.into();
        host.install(&odd);
        let container = format!("web{number}");
        let web = Published::new(
            host,
            &container,
            &format!("odd{number}"),
            &json!([port(8080, 80)]),
        );
        let _server = web.serves(80);
        let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 8080);
        for made in [
            chain("forward priority 0; policy drop", "counter"),
            "iptables-nft -P FORWARD DROP".to_owned(),
        ] {
            host.script(&made);
            assert_eq!(fetch(), "TimedOut");
            let cure = ask(host).wrong(&[&format!("published ports over IPv4, by {name}")]);
            host.script(&cure);
            assert!(fetch().starts_with("web"), "{cure}");
            host.script(UNDONE);
        }
        web.again("del").ok();
    }
}

/// More than are looked at one by one, of one protocol; and a few, for which one command does.
#[test]
fn many_ports_are_told_of_once() {
    let lab = lab();
    let host = lab.host(1);
    let few: Vec<_> = (0..3).map(|n| port(8000 + 10 * n, 80 + n)).collect();
    let few = Published::new(host, "few", "br", &json!(few));
    host.script(&chain(
        "forward priority 0; policy drop",
        "meta l4proto icmp accept",
    ));
    few.again("check").ok();
    let wrong = ask(host).lines("wrong");
    assert_eq!(wrong.len(), 2, "for each version of IP: {wrong:?}");
    assert!(
        wrong[0].contains("port 8000/tcp") && wrong[0].contains("2 more"),
        "{wrong:?}"
    );
    host.script(UNDONE);

    let many: Vec<_> = (0..70).map(|n| port(9000 + 10 * n, 80)).collect();
    let many = Published::new(host, "many", "br", &json!(many));
    let _server = many.serves(80);
    let fetch = || fetch_at(lab.host(2).namespace(), host.vtep(), 9000);
    for (hook, rules) in [
        (
            "forward priority 0; policy drop",
            "meta l4proto icmp accept",
        ),
        (
            "prerouting priority -150; policy drop",
            "tcp dport 9005 accept",
        ),
    ] {
        host.script(&chain(hook, rules));
        assert_eq!(fetch(), "TimedOut", "{hook}");
        let told = ask(host);
        let wrong = told.lines("wrong").join("\n");
        assert!(!wrong.contains("9000-9690"), "{wrong}");
        if hook.starts_with("forward") {
            many.again("check").ok();
            let cure = told.wrong(&["published ports over IPv4, by br1"]);
            host.script(&cure);
            assert!(fetch().starts_with("many "), "{cure}");
        }
        host.script(UNDONE);
    }
}

/// As firewalld's has, from its version 2.1 on.
#[test]
fn a_table_that_has_an_owner_is_told_without_a_command_that_fails() {
    let lab = lab();
    let host = lab.host(1);
    let _web = Published::new(host, "web", "br", &json!([port(8080, 80)]));
    let mut owner = host.namespace().command("sh");
    owner.args([
        "-c",
        "(echo 'add table inet o { flags owner; }'
          echo 'add chain inet o c { type filter hook forward priority 0; policy drop; }'
          sleep 5) | nft -i",
    ]);
    let owner = Running::start(owner, b"");
    let mut said = String::new();
    until(LIMIT, "told", || {
        said = ask(host).lines("wrong").join("\n");
        !said.is_empty()
    });
    assert!(
        said.contains("only the program that owns the table may change it"),
        "{said}"
    );
    assert!(!said.contains("insert"), "{said}");
    owner.wait(Duration::from_secs(20));
}
