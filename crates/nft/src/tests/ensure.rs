//! Making, repairing and removing the table, beside programs that do the same and programs that have tables of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use netlink_packet_netfilter::nftables::NfTablesMessage;

use crate::skeleton::chain;
use crate::{Config, Error, Nft, Status};

use super::CONFIG;
use super::kit::{Finish, Namespace};

const TEXT: &str = include_str!("../skeleton.nft");

fn status(namespace: &Namespace) -> Status {
    namespace.run(|| Nft::open().unwrap().status(&CONFIG).unwrap())
}

fn ensure(namespace: &Namespace) {
    namespace.run(|| Nft::open().unwrap().ensure(&CONFIG).unwrap());
}

fn assert_whole(namespace: &Namespace) {
    let ours = namespace.sh("nft -s list table inet crosshost");
    // A set that was made anew is listed last.
    let objects = |text: &str| {
        let (_, inside) = text.split_once("table inet crosshost {\n").unwrap();
        let mut objects: Vec<_> = inside
            .split("\n\n")
            .map(|object| object.trim_end_matches(['}', '\n', '\t']).trim().to_owned())
            .collect();
        objects.sort();
        objects
    };
    assert_eq!(objects(&ours), objects(TEXT));
}

#[test]
fn a_complete_table_is_left_alone() {
    let namespace = Namespace::new();
    ensure(&namespace);
    let handles = namespace.sh("nft -a list ruleset");
    ensure(&namespace);
    assert_eq!(namespace.sh("nft -a list ruleset"), handles);
}

/// Rules that two verbs made would be repaired by a third, so it is counted how many commits there were: one.
#[test]
fn twenty_at_once_make_one_set_of_rules() {
    let namespace = Namespace::new();
    let barrier = Barrier::new(20);
    let failures = Mutex::new(vec![]); // a panic would leave the others at the barrier for ever
    let verb = |leads: bool| {
        let mut nft = Nft::open().unwrap();
        let mut generation = nft.channel.generation().unwrap().0;
        for _ in 0..100 {
            barrier.wait();
            let made = nft.ensure(&CONFIG);
            barrier.wait();
            let mut outcome = vec![format!("{made:?}")];
            if leads {
                let status = nft.status(&CONFIG);
                let commits = nft.channel.generation().unwrap().0 - generation;
                let removed = nft.remove_table(&CONFIG);
                generation = nft.channel.generation().unwrap().0;
                outcome.push(format!("{status:?} {commits} {removed:?}"));
            }
            let wanted = ["Ok(())", "Ok(Complete) 1 Ok(true)"];
            if outcome != wanted[..outcome.len()] {
                failures.lock().unwrap().push(outcome);
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..20 {
            let (namespace, verb) = (&namespace, &verb);
            scope.spawn(move || namespace.run(|| verb(number == 0)));
        }
    });
    assert_eq!(failures.into_inner().unwrap(), Vec::<Vec<String>>::new());
}

#[test]
fn twenty_at_once_beside_a_busy_stranger() {
    let namespace = Namespace::new();
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::Relaxed) {
                namespace.sh("nft add table inet other; nft delete table inet other");
            }
        });
        let _finish = Finish(&finished);
        let verbs: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| ensure(&namespace)))
            .collect();
        for verb in verbs {
            verb.join().unwrap();
        }
    });
    assert_whole(&namespace);
}

#[test]
fn a_flushed_ruleset_is_seen_and_repaired() {
    let namespace = Namespace::new();
    assert_eq!(status(&namespace), Status::Missing);
    ensure(&namespace);
    assert_eq!(status(&namespace), Status::Complete);
    namespace.sh("nft flush ruleset");
    assert_eq!(status(&namespace), Status::Missing);
    ensure(&namespace);
    assert_eq!(status(&namespace), Status::Complete);
    assert_whole(&namespace);
}

#[test]
fn every_damage_is_seen_and_repaired() {
    let t = "inet crosshost";
    let empty = format!("nft flush chain {t} postrouting");
    let damages = [
        empty.clone(),
        format!("nft add rule {t} postrouting counter"),
        format!("nft insert rule {t} postrouting ip saddr 10.0.0.0/8 accept"),
        format!("{empty}; nft add rule {t} postrouting ip saddr @egress4 masquerade"),
        format!("{empty}; nft delete chain {t} postrouting"),
        format!(
            "{empty}; nft delete chain {t} postrouting
             nft add chain {t} postrouting '{{ type nat hook postrouting priority 0; }}'"
        ),
        format!(
            "{empty}; nft delete chain {t} postrouting
             nft add chain {t} postrouting '{{ type filter hook postrouting priority 100; policy drop; }}'"
        ),
        format!("{empty}; nft delete set {t} egress6"),
        format!(
            "{empty}; nft delete set {t} egress6
             nft add set {t} egress6 '{{ type ipv6_addr; }}'"
        ),
        format!(
            "{empty}; nft delete set {t} egress6
             nft add set {t} egress6 '{{ type mark; }}'
             nft add rule {t} postrouting meta mark @egress6 drop"
        ),
        format!("nft add table {t} '{{ flags dormant; }}'"),
        format!(
            "nft flush chain {t} output; nft delete chain {t} output
             nft add table {t} '{{ flags dormant; }}'"
        ),
        format!("nft delete table {t}; nft add table {t} '{{ flags dormant; }}'"),
        format!("nft flush chain {t} prerouting"),
        format!("nft flush chain {t} output"),
        format!("nft flush chain {t} output; nft delete chain {t} output"),
        format!(
            "nft flush chain {t} prerouting; nft delete set {t} peers4
             nft add set {t} peers4 '{{ type mark; }}'"
        ),
        format!("nft flush chain {t} forward"),
        format!("nft flush chain {t} to-tunnels"),
        format!(
            "nft flush chain {t} forward; nft delete set {t} together
             nft add set {t} together '{{ type ifname; }}'"
        ),
        format!(
            "nft flush chain {t} prerouting; nft flush chain {t} output
             nft delete set {t} tunnels6"
        ),
    ];
    for damage in damages {
        let namespace = Namespace::new();
        ensure(&namespace);
        namespace.sh(&damage);
        assert_eq!(status(&namespace), Status::Damaged, "{damage}");
        ensure(&namespace);
        assert_eq!(status(&namespace), Status::Complete, "{damage}");
        assert_whole(&namespace);
    }
}

#[test]
fn a_repair_keeps_the_elements() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let network = "172.18.0.0/16".parse().unwrap();
        let mut nft = Nft::open().unwrap();
        nft.ensure(&CONFIG).unwrap();
        nft.add_egress(network, "gw").unwrap();
        let other = Config {
            egress_bridge: "other-bridge-15",
            ..CONFIG
        };
        assert_eq!(nft.status(&other).unwrap(), Status::Damaged);
        nft.ensure(&other).unwrap();
        assert_eq!(nft.status(&other).unwrap(), Status::Complete);
        assert_eq!(nft.egress().unwrap(), [(network, "gw".to_owned())]);
    });
    let rules = namespace.sh("nft list chain inet crosshost postrouting");
    assert_eq!(rules.matches("masquerade").count(), 2);
    assert_eq!(rules.matches("\"other-bridge-15\"").count(), 2);
}

#[test]
fn other_tables_are_never_touched() {
    let namespace = Namespace::new();
    // One has our names in it, one has our name in another family.
    namespace.sh("nft -f - <<'END'
table inet other {
    set egress4 { type ipv4_addr; flags interval; elements = { 172.18.0.0/16 } }
    chain postrouting { type nat hook postrouting priority srcnat; ip saddr @egress4 masquerade; }
}
table ip crosshost {
    chain postrouting { type nat hook postrouting priority srcnat; counter; }
}
END");
    let before = namespace.sh("nft -a list ruleset");
    namespace.run(|| {
        let mut nft = Nft::open().unwrap();
        assert_eq!(nft.status(&CONFIG).unwrap(), Status::Missing);
        assert_eq!(nft.egress().unwrap(), []);
        nft.ensure(&CONFIG).unwrap();
        let network = "172.18.0.0/16".parse().unwrap();
        nft.add_egress(network, "gw").unwrap();
        assert!(nft.remove_egress(network).unwrap());
        assert!(nft.remove_table(&CONFIG).unwrap());
        assert!(!nft.remove_egress(network).unwrap());
        assert!(!nft.remove_table(&CONFIG).unwrap(), "idempotent");
    });
    assert_eq!(namespace.sh("nft -a list ruleset"), before);
}

#[test]
fn a_bridge_name_that_linux_cannot_have_is_refused() {
    let mut nft = Nft::open().unwrap(); // asks the kernel nothing before the name is right
    for egress_bridge in ["", "sixteen-bytes-xx"] {
        let error = nft
            .ensure(&Config {
                egress_bridge,
                ..CONFIG
            })
            .unwrap_err();
        assert!(matches!(error, Error::Unfit { .. }), "{error}");
        assert!(error.to_string().contains(egress_bridge), "{error}");
    }
}

#[test]
fn errors_name_the_object_and_the_kernels_answer() {
    let namespace = Namespace::new();
    namespace.sh("nft add table inet crosshost; nft add chain inet crosshost guest");
    namespace.sh("nft add set inet crosshost egress4 '{ type ipv4_addr; }'");
    namespace.sh("nft add rule inet crosshost guest ip saddr @egress4 drop");
    let error = namespace.run(|| Nft::open().unwrap().ensure(&CONFIG).unwrap_err());
    let text = error.to_string();
    let expected = "remove set egress4 of table crosshost: ";
    assert!(
        text.starts_with(expected) && text.contains("busy"),
        "{text}"
    );
    assert_eq!(error.errno(), Some(16), "{text}");
}

/// `nf_tables` itself has few sentences; the check of attributes in front of it has some.
#[test]
fn the_kernels_own_sentence_is_shown() {
    Namespace::new().run(|| {
        let mut nft = Nft::open().unwrap();
        let question = NfTablesMessage::GetChain(chain(crate::TABLE, &"x".repeat(300)));
        let error = nft.channel.get("read a chain", question).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("read a chain: Attribute failed policy"),
            "{text}"
        );
    });
}
