//! What the tables of others do to our packets, as nft and iptables write them.

use crate::{Hook, Nft, Packet};

use super::kit::Namespace;

const OUT: Packet<'_> = Packet {
    hook: Hook::Forward,
    v6: false,
    iif: Some(("ch-egress", 7)),
    oif: Some(("ens3", 2)),
    state: Packet::NEW,
    udp: None,
};
const BACK: Packet<'_> = Packet {
    iif: OUT.oif,
    oif: OUT.iif,
    state: Packet::ESTABLISHED,
    ..OUT
};
const TUNNEL: Packet<'_> = Packet {
    hook: Hook::Input,
    oif: None,
    iif: Some(("ens3", 2)),
    state: Packet::UNTRACKED,
    udp: Some(4789),
    ..OUT
};

/// For each packet what is said of it: nothing, `may` or the rule that stops it.
fn said(script: &str, packets: &[Packet<'_>]) -> Vec<String> {
    let namespace = Namespace::new();
    namespace.sh(script);
    let found = namespace.run(|| Nft::open().unwrap().obstacles(packets).unwrap());
    let one = |obstacles: &Vec<crate::Obstacle>| {
        let words = obstacles.iter().map(|it| {
            if it.certain {
                format!("{} {}: {}", it.table, it.chain, it.rule)
            } else {
                "may".to_owned()
            }
        });
        words.collect::<Vec<_>>().join("; ")
    };
    found.iter().map(one).collect()
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
    let both = [OUT, BACK];
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
            &[OUT, BACK],
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
    assert_eq!(said(docker, &[OUT, BACK]), [STOPPED, STOPPED]);
    let allowed = format!(
        "{docker}
        iptables-nft -I DOCKER-USER -i ch-egress -j ACCEPT
        iptables-nft -I DOCKER-USER -o ch-egress -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    );
    assert_eq!(said(&allowed, &[OUT, BACK]), ["", ""]);
    let marked = format!("{docker}\niptables-nft -A DOCKER-USER -m mark --mark 1 -j ACCEPT");
    assert_eq!(said(&marked, &[OUT, BACK]), ["may", "may"]);
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
    assert_eq!(said(&input(""), &[TUNNEL]), [stopped]);
    let other = "nft add rule inet host in udp dport 8472 accept";
    assert_eq!(said(&input(other), &[TUNNEL]), [stopped]);
    let allowed = "nft insert rule inet host in udp dport 4789 accept";
    assert_eq!(said(&input(allowed), &[TUNNEL]), [""]);
    let other_family = Packet { v6: true, ..TUNNEL };
    assert_eq!(
        said(&forward("drop", ""), &[other_family, TUNNEL]),
        ["", ""]
    );
}

#[test]
fn tables_that_sleep_and_our_own_stop_nobody() {
    let asleep = format!(
        "{}\nnft 'add table ip filter {{ flags dormant; }}'",
        forward("drop", "")
    );
    assert_eq!(said(&asleep, &[OUT]), [""]);
    let ours = forward("drop", "").replace("ip filter", "inet crosshost");
    assert_eq!(said(&ours, &[OUT]), [""]);
}
