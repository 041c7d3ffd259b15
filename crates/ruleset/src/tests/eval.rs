//! What the tables of others do to our packets, as nft and iptables write them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nft::Nft;

use crate::packet::{Endpoint, Hook, Packet, State};
use crate::tables::{BlockingChain, blocking_chains};

use super::kit::Namespace;

fn out() -> Packet<'static> {
    Packet {
        iif: Some(("ch-egress", 7)),
        oif: Some(("ens3", 2)),
        ..Packet::at(Hook::Forward, false)
    }
}

fn back() -> Packet<'static> {
    Packet {
        iif: out().oif,
        oif: out().iif,
        state: State::Reply,
        ..out()
    }
}

fn tunnel() -> Packet<'static> {
    Packet {
        iif: Some(("ens3", 2)),
        state: State::Untracked,
        protocol: Some(17),
        to: Endpoint {
            address: None,
            port: Some(4789),
        },
        ..Packet::at(Hook::Input, false)
    }
}

/// For each packet what is said of it: nothing, `may` or the rule that stops it.
fn said<const N: usize>(script: &str, packets: &[Packet<'_>; N]) -> [String; N] {
    let namespace = Namespace::new();
    namespace.sh(script);
    let found = namespace.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.read(|channel| blocking_chains(channel, packets))
            .unwrap()
    });
    let one = |obstacles: &Vec<BlockingChain>| {
        let words = obstacles.iter().map(|it| {
            if it.certain {
                format!("{} {}: {}", it.table, it.chain, it.rule)
            } else {
                "may".to_owned()
            }
        });
        words.collect::<Vec<_>>().join("; ")
    };
    let said: Vec<_> = found.iter().map(one).collect();
    said.try_into().unwrap()
}

/// A forward chain with these rules.
fn forward(policy: &str, rules: &str) -> String {
    format!(
        "nft -f - <<'END'
table ip filter {{
  chain USER {{ }}
  chain FORWARD {{ type filter hook forward priority 0; policy {policy};
    {rules}
  }}
}}
END"
    )
}

const STOPPED: &str = "ip filter FORWARD: policy drop";

#[test]
fn a_policy_stops_what_no_rule_lets_pass() {
    let both = [out(), back()];
    for (policy, rules, expected) in [
        ("accept", "", ["", ""]),
        ("drop", "", [STOPPED, STOPPED]),
        ("drop", "counter log jump USER", [STOPPED, STOPPED]),
        ("drop", "iifname docker0 accept", [STOPPED, STOPPED]),
        ("drop", "iifname ch-egress counter accept", ["", STOPPED]),
        ("drop", "iifname \"ch-*\" accept", ["", STOPPED]),
        ("drop", "oifname != ens3 accept", [STOPPED, ""]),
        ("drop", "ct state established,related accept", [STOPPED, ""]),
        (
            "drop",
            "ct state vmap { established : accept }",
            [STOPPED, ""],
        ),
        (
            "drop",
            "ct state vmap { established : accept, new : jump USER }",
            [STOPPED, ""],
        ),
        (
            "drop",
            "ct state vmap { invalid : drop, * : accept }",
            ["", ""],
        ),
        (
            "drop",
            "ct state { established, related } accept",
            [STOPPED, ""],
        ),
        (
            "drop",
            "ct state != { established, related } accept",
            ["", STOPPED],
        ),
        (
            "drop",
            "iifname { docker0, ch-egress } accept",
            ["", STOPPED],
        ),
        (
            "drop",
            "iifname { \"ch-*\", docker0 } accept",
            ["", STOPPED],
        ),
        (
            "drop",
            "iifname . oifname { ch-egress . ens3 } accept",
            ["may", "may"],
        ),
        ("drop", "ip saddr 172.18.0.0/16 accept", ["may", "may"]),
        ("drop", "limit rate 1/second accept", ["may", "may"]),
        (
            "accept",
            "iifname ch-egress return; drop",
            ["", "ip filter FORWARD: drop in chain FORWARD"],
        ),
        (
            "accept",
            "reject",
            ["ip filter FORWARD: reject in chain FORWARD"; 2],
        ),
        ("accept", "tcp dport 25 drop", ["may", "may"]),
    ] {
        assert_eq!(said(&forward(policy, rules), &both), expected, "{rules}");
    }
}

#[test]
fn chains_are_followed_and_come_back() {
    let rules = "iifname ens3 goto USER; jump USER; accept";
    let said_of = |user: &str| {
        let script = forward("drop", rules);
        said(
            &format!("{script}\nnft add rule ip filter USER {user}"),
            &[out(), back()],
        )
    };
    assert_eq!(said_of("counter"), ["", STOPPED]);
    assert_eq!(
        said_of("drop"),
        ["ip filter FORWARD: drop in chain USER"; 2]
    );
    assert_eq!(said_of("oifname ch-egress accept"), ["", ""]);
}

#[test]
fn what_iptables_writes_is_understood() {
    let docker = "iptables-nft -P FORWARD DROP
        iptables-nft -N DOCKER-USER
        iptables-nft -A FORWARD -j DOCKER-USER
        iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT";
    assert_eq!(said(docker, &[out(), back()]), [STOPPED, STOPPED]);
    let allowed = format!(
        "{docker}
        iptables-nft -I DOCKER-USER -i ch-egress -j ACCEPT
        iptables-nft -I DOCKER-USER -o ch-egress -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    );
    assert_eq!(said(&allowed, &[out(), back()]), ["", ""]);
    // Targets without a verdict, and the old `-m state` spelling.
    let noted = "iptables-nft -P FORWARD DROP
        iptables-nft -A FORWARD -j LOG
        iptables-nft -A FORWARD -j MARK --set-mark 1
        iptables-nft -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
        iptables-nft -A FORWARD -m state --state RELATED,ESTABLISHED -m comment --comment x -j ACCEPT";
    assert_eq!(said(noted, &[out(), back()]), [STOPPED, ""]);
    let dnat = "iptables-nft -P FORWARD DROP
        iptables-nft -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT";
    let led = |state| Packet { state, ..out() };
    let translated = [State::Translated, State::ReplyOfTranslated].map(led);
    assert_eq!(said(dnat, &translated), ["", ""]);
    assert_eq!(said(dnat, &[out(), back()]), [STOPPED, STOPPED]);
    let marked = format!("{docker}\niptables-nft -A DOCKER-USER -m mark --mark 1 -j ACCEPT");
    assert_eq!(said(&marked, &[out(), back()]), ["may", "may"]);
}

#[test]
fn a_tunnel_is_judged_by_its_port_and_as_untracked() {
    let input = |rules: &str| {
        format!(
            "nft add table inet host
             nft 'add chain inet host in {{ type filter hook input priority 0; policy drop; }}'
             nft add rule inet host in ct state established,related accept
             nft add rule inet host in tcp dport 22 accept
             {rules}"
        )
    };
    let stopped = "inet host in: policy drop";
    assert_eq!(said(&input(""), &[tunnel()]), [stopped]);
    let other = "nft add rule inet host in udp dport 8472 accept";
    assert_eq!(said(&input(other), &[tunnel()]), [stopped]);
    let iptables = "iptables-nft -P INPUT DROP
        iptables-nft -A INPUT -m conntrack --ctstate";
    for (states, expected) in [("UNTRACKED", ""), ("SNAT", "ip filter INPUT: policy drop")] {
        let script = format!("{iptables} {states} -j ACCEPT");
        assert_eq!(said(&script, &[tunnel()]), [expected], "{states}");
    }
    let allowed = "nft insert rule inet host in udp dport 4789 accept";
    assert_eq!(said(&input(allowed), &[tunnel()]), [""]);
    let other_family = Packet {
        v6: true,
        ..tunnel()
    };
    assert_eq!(
        said(&forward("drop", ""), &[other_family, tunnel()]),
        ["", ""]
    );
}

/// What is known of a packet's ends is known to the rules, in each form that nft has for it.
#[test]
fn a_packet_is_judged_by_its_ends() {
    let to = |v6: bool, address: &str| Packet {
        protocol: Some(6),
        from: Endpoint::default(),
        to: Endpoint {
            address: Some(address.parse().unwrap()),
            port: Some(80),
        },
        ..Packet::at(Hook::Forward, v6)
    };
    let packets = [to(false, "10.1.0.2"), to(true, "fd00::2")];
    let dropped = "inet f forward: drop in chain forward";
    for (rule, expected) in [
        ("tcp dport 80 drop", [dropped; 2]),
        ("tcp dport 81 drop", [""; 2]),
        ("udp dport 80 drop", [""; 2]),
        ("th dport 80 drop", [dropped; 2]),
        ("tcp dport 70-90 drop", [dropped; 2]),
        ("tcp dport > 80 drop", [""; 2]),
        ("tcp dport >= 80 drop", [dropped; 2]),
        ("tcp dport < 81 drop", [dropped; 2]),
        ("tcp dport <= 79 drop", [""; 2]),
        ("tcp dport { 80, 443 } drop", [dropped; 2]),
        ("tcp dport { 81, 443 } drop", [""; 2]),
        ("tcp dport { 70-79, 80-90 } drop", [dropped; 2]),
        ("tcp dport { 70-79, 81-90 } drop", [""; 2]),
        ("tcp dport { 1-80 } drop", [dropped; 2]),
        ("tcp dport { 80-65535 } drop", [dropped; 2]),
        ("tcp dport { 70-90, 443 } drop", [dropped; 2]),
        ("tcp dport != { 70-90, 443 } drop", [""; 2]),
        ("tcp dport vmap { 80 : drop, 81 : accept }", [dropped; 2]),
        ("tcp dport vmap { 70-75 : drop, 76-90 : accept }", [""; 2]),
        (
            "ip daddr { 10.0.0.0/8, 192.168.0.0/16 } drop",
            [dropped, ""],
        ),
        ("ip6 daddr { fd00::1, fd00::2 } drop", ["", dropped]),
        ("meta l4proto { tcp, udp } drop", [dropped; 2]),
        ("tcp dport @named drop", ["may"; 2]),
        ("meta mark set tcp dport map { 80 : 1 }", [""; 2]),
        ("ip daddr 10.1.0.2 drop", [dropped, ""]),
        ("ip daddr 10.1.0.0/24 drop", [dropped, ""]),
        ("ip daddr 10.1.0.0/20 drop", [dropped, ""]),
        ("ip daddr 10.2.0.0/16 drop", [""; 2]),
        ("ip6 daddr fd00::/16 drop", ["", dropped]),
        ("ip6 daddr fd00::2 drop", ["", dropped]),
        ("ip6 daddr fd00::3 drop", [""; 2]),
        ("ip protocol udp drop", [""; 2]),
        ("ip saddr 10.1.0.2 drop", ["may", ""]),
        ("tcp sport 80 drop", ["may"; 2]),
    ] {
        let script = format!(
            "nft add table inet f
             nft 'add chain inet f forward {{ type filter hook forward priority 0; }}'
             nft 'add set inet f named {{ type inet_service; elements = {{ 80 }}; }}'
             nft 'add rule inet f forward {rule}'"
        );
        assert_eq!(said(&script, &packets), expected, "{rule}");
    }
    let translated = Packet {
        state: State::Translated,
        ..packets[0].clone()
    };
    // Of a reply only this is known: its connection has DNAT.
    let reply = Packet {
        state: State::ReplyOfTranslated,
        ..translated.clone()
    };
    for (rule, expected) in [
        ("ct status dnat accept", ["", ""]),
        ("ct status snat accept", ["may", "may"]),
        ("ct status dnat,snat accept", ["may", "may"]),
        ("ct status and dnat == 0 accept", [STOPPED, STOPPED]),
    ] {
        let script = forward("drop", rule);
        assert_eq!(
            said(&script, &[translated.clone(), reply.clone()]),
            expected,
            "{rule}"
        );
    }
    let new = forward("accept", "ct state vmap { new : drop }");
    assert_eq!(
        said(&new, &[translated]),
        ["ip filter FORWARD: drop in chain FORWARD"]
    );
    let iptables = "iptables-nft -A FORWARD -d 10.1.0.2 -p tcp --dport 80 -j DROP
        ip6tables-nft -A FORWARD -p tcp --dport 8080 -j DROP";
    let dropped = "ip filter FORWARD: drop in chain FORWARD";
    assert_eq!(said(iptables, &packets), [dropped, ""]);
}

/// Each chain is given the packet in the state it has at that chain's priority. A NAT chain sees only a connection's first packet.
#[test]
fn a_packet_is_met_where_it_is_like_that() {
    let early = Packet {
        state: State::Unseen,
        priorities: i32::MIN..=-201,
        ..Packet::at(Hook::Prerouting, false)
    };
    let late = Packet {
        state: State::Reply,
        priorities: -200..=i32::MAX,
        ..early.clone()
    };
    let met = |kind: &str, priority: i32, rule: &str| {
        let script = format!(
            "nft add table ip f
             nft 'add chain ip f p {{ type {kind} hook prerouting priority {priority}; }}'
             nft 'add rule ip f p {rule}'"
        );
        said(&script, &[early.clone(), late.clone()]).map(|it| !it.is_empty())
    };
    assert_eq!(met("filter", -300, "drop"), [true, false]);
    assert_eq!(met("filter", -150, "drop"), [false, true]);
    assert_eq!(met("nat", -100, "drop"), [false, false]);
    let led = Packet {
        state: State::Translated,
        ..Packet::at(Hook::Prerouting, false)
    };
    let new = Packet::at(Hook::Prerouting, false);
    let leaves = Packet {
        hook: Hook::Postrouting,
        ..led.clone()
    };
    let nat = |hook: &str| {
        format!(
            "nft add table ip f
             nft 'add chain ip f p {{ type nat hook {hook} priority 10; }}'
             nft 'add rule ip f p drop'"
        )
    };
    let told = |script: &str| {
        said(script, &[led.clone(), new.clone(), leaves.clone()]).map(|it| !it.is_empty())
    };
    assert_eq!(told(&nat("prerouting")), [false, true, false]);
    assert_eq!(told(&nat("postrouting")), [false, false, true]);
    // What translates ends the chain.
    let hides = format!("{}\nnft insert rule ip f p masquerade", nat("postrouting"));
    assert_eq!(told(&hides), [false; 3]);
    // An untracked packet is not translated, so `notrack` stops it.
    assert_eq!(met("filter", -300, "notrack"), [true, false]);
    let iptables = "iptables-nft -t raw -A PREROUTING -p tcp --dport 8080 -j CT --notrack";
    let mut sent = early.clone();
    sent.protocol = Some(6);
    sent.to.port = Some(8080);
    let said = said(iptables, &[sent, late.clone()]);
    assert_eq!(said, ["ip raw PREROUTING: notrack in chain PREROUTING", ""]);
    assert_eq!(met("filter", -300, "ct state established drop"), [false; 2]);
    assert_eq!(
        met("filter", -150, "ct state established drop"),
        [false, true]
    );
}

#[test]
fn dormant_tables_and_our_own_stop_nothing() {
    let asleep = format!(
        "{}\nnft 'add table ip filter {{ flags dormant; }}'",
        forward("drop", "")
    );
    assert_eq!(said(&asleep, &[out()]), [""]);
    let ours = forward("drop", "").replace("ip filter", "inet crosshost");
    assert_eq!(said(&ours, &[out()]), [""]);
}

#[test]
fn programs_that_change_their_rules_all_the_time_hide_nothing() {
    const CONFIG: nft::Config<'_> = nft::Config {
        egress_bridge: "ch-egress",
        segment_links: ["chg", "chh"],
    };
    let namespace = Namespace::new();
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        let _finish = Finish(&finished);
        scope.spawn(|| {
            namespace.run(|| {
                let mut other = Nft::open().unwrap();
                while !finished.load(Ordering::Relaxed) {
                    other.ensure(&CONFIG).unwrap();
                    other.remove_table(&CONFIG).unwrap();
                }
            });
        });
        namespace.run(|| {
            let packets = [Packet::at(Hook::Forward, false)];
            for _ in 0..300 {
                let mut nft = Nft::open().unwrap();
                let found = nft.read(|channel| blocking_chains(channel, &packets));
                assert_eq!(found.unwrap(), [[]]);
            }
        });
    });
}

/// Ends the racing thread also when the test panics, which else would wait for it for ever.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
