//! The source guard: nft is the oracle of its rules, and real frames are that of what they do.

use std::collections::BTreeSet;

use netlink_packet_netfilter::NetfilterProtoFamily;

use crate::guard::{Elements, Guard, Port, Sources, probe};

use super::kit::Namespace;

const FILE: &str = include_str!("../guard/guard.nft");
const LIST_RULESET: &str = "nft list ruleset";
const LIST: &str = "list table bridge crosshost-guard";

fn port(name: &str, last: u8) -> Port {
    Port {
        name: name.to_owned(),
        only: Some(Sources {
            mac: [2, 0x42, 10, 0, 0, last],
            addresses: [
                [10, 0, 0, last].into(),
                std::net::Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(last)).into(),
            ]
            .into(),
        }),
        group_rate: 1000,
    }
}

fn elements(ports: &[Port]) -> Elements {
    let all = ports.iter();
    all.map(|port| (port.name.clone(), port.elements()))
        .collect()
}

fn set(namespace: &Namespace, ports: &[Port]) {
    namespace.run(|| {
        let mut guard = Guard::open("vxlan0").unwrap();
        guard.set(&elements(ports), &BTreeSet::new()).unwrap();
        let seen = guard.look().unwrap();
        assert!(seen.is_complete);
        assert_eq!(seen.elements, elements(ports));
    });
}

/// The expressions as the kernel has them.
fn bytecode(namespace: &Namespace) -> Vec<String> {
    let text = namespace.sh(&format!("nft --debug=netlink {LIST} 2>&1"));
    let lines = text.lines().filter(|line| line.contains("[ "));
    lines.map(str::to_owned).collect()
}

#[test]
fn equals_what_nft_makes_of_the_file() {
    let (theirs, ours) = (Namespace::new(), Namespace::new());
    // nft has no words for the target, and for a MAC with the frame's type; the file is loaded with other fields in their places.
    let file = FILE
        .replace("TARGET", "ip6 daddr")
        .replace("SENDER", "ether saddr");
    theirs.sh(&format!("nft -f - <<'END'\n{file}\nEND"));
    set(&ours, &[]);
    let field = "payload load 16b @ network header + 24 => reg 14";
    let target = "payload load 16b @ transport header + 8 => reg 14";
    let mut wanted: Vec<_> = bytecode(&theirs)
        .into_iter()
        .map(|line| line.replace(field, target))
        .collect();
    for at in 2..wanted.len() {
        if wanted[at].contains("set packets") {
            wanted[at - 2] = wanted[at - 2].replace("load 6b", "load 8b");
        }
    }
    assert_eq!(bytecode(&ours), wanted);
    assert!(wanted.len() > 100 && wanted.concat().contains(target));
    // What nft says of sets and chains is the same, too.
    let heads = |namespace: &Namespace| {
        let text = namespace.sh(&format!("nft {LIST}"));
        let lines = text.lines().map(str::trim);
        let heads = lines.filter(|line| {
            ["table", "set", "chain", "type"]
                .iter()
                .any(|word| line.starts_with(word))
        });
        heads.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(heads(&ours), heads(&theirs));
}

#[test]
fn ports_come_and_go_in_one_step_and_others_stay() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut guard = Guard::open("vxlan0").unwrap();
        let [one, two] = [port("chp1", 2), port("chp2", 3)];
        assert!(!guard.admit(&one).unwrap(), "there is no table yet");
        guard.set(&Elements::new(), &BTreeSet::new()).unwrap();
        assert!(guard.admit(&one).unwrap() && guard.admit(&two).unwrap());
        assert!(!guard.admit(&one).unwrap(), "it is there already");
        let both = [one.clone(), two.clone()];
        assert_eq!(guard.look().unwrap().elements, elements(&both));
        guard.release("chp1", Some(&one)).unwrap();
        guard.release("chp1", Some(&one)).unwrap();
        // Its record was lost, or says something else.
        guard.admit(&one).unwrap();
        guard.release("chp1", None).unwrap();
        guard.admit(&one).unwrap();
        guard.release("chp1", Some(&port("chp1", 9))).unwrap();
        assert_eq!(guard.look().unwrap().elements, elements(&[two]));
        let open = Port {
            only: None,
            ..one.clone()
        };
        guard.admit(&open).unwrap();
        assert_eq!(guard.look().unwrap().elements["chp1"].len(), 1);
    });
    let text = namespace.sh(&format!("nft {LIST}"));
    assert!(
        text.contains("\"chp1\" limit rate over 1000/second burst 500 packets"),
        "{text}"
    );
}

#[test]
fn what_is_damaged_is_mended_and_what_is_spared_stays() {
    let namespace = Namespace::new();
    let both = [port("chp1", 2), port("chp2", 3)];
    set(&namespace, &both);
    for damage in [
        "delete table bridge crosshost-guard",
        "flush chain bridge crosshost-guard own4",
        "flush set bridge crosshost-guard guarded",
        "add element bridge crosshost-guard sources4 '{ \"chp1\" . 02:42:0a:00:00:09 . 10.0.0.9 }'",
        "add element bridge crosshost-guard guarded '{ \"chp9\" }'",
        "delete element bridge crosshost-guard budgets '{ \"chp2\" }'",
    ] {
        namespace.sh(&format!("nft {damage}"));
        let is_whole = namespace.run(|| {
            let seen = Guard::open("vxlan0").unwrap().look().unwrap();
            seen.is_complete && seen.elements == elements(&both)
        });
        assert!(!is_whole, "{damage}");
        set(&namespace, &both);
    }
    namespace.run(|| {
        let mut guard = Guard::open("vxlan0").unwrap();
        let spared = ["chp2".to_owned()].into();
        guard.set(&elements(&both[..1]), &spared).unwrap();
        assert_eq!(guard.look().unwrap().elements, elements(&both));
    });
}

/// This kernel has the family, so one that no kernel has any more stands for it.
#[test]
fn a_kernel_without_the_family_is_told_and_a_probe_changes_nothing() {
    let namespace = Namespace::new();
    let (has, lacks) = namespace.run(|| {
        let generation = || crate::Nft::open().unwrap().generation().unwrap();
        let before = generation();
        let probed = (Guard::probe(), probe(NetfilterProtoFamily::DECNet));
        assert_eq!(generation(), before);
        probed
    });
    has.unwrap();
    assert_eq!(
        lacks.unwrap_err().to_string(),
        "make table crosshost-guard: this host's kernel has no nftables of family bridge (CONFIG_NF_TABLES_BRIDGE)"
    );
    assert_eq!(namespace.sh("nft list tables"), "");
    // Nor where the table is.
    set(&namespace, &[port("chp1", 2)]);
    let before = namespace.sh(LIST_RULESET);
    namespace.run(|| Guard::probe().unwrap());
    assert_eq!(namespace.sh(LIST_RULESET), before);
}
