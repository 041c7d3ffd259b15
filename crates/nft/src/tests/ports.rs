//! Published ports: nft is the oracle of what they are in the table, real packets of what they do.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::kit::Namespace;
use super::skeleton::{bytecode, json};
use crate::ports::{
    Conditional, Element, Entry, HostPort, Key, Ports, Published, Scope, conditions,
};
use crate::{Error, Nft, Status};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ports.nft");

fn at(port: u16) -> HostPort {
    HostPort {
        v6: false,
        address: None,
        protocol: 6,
        port,
    }
}

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn held(entry: &Entry, owner: &str) -> (Key, Element) {
    let owners = vec![owner.to_owned()];
    (entry.key(), entry.element(owners, format!("{owner}'s")))
}

/// Adds these to what there is.
fn add(ports: &mut Ports, entries: &[Entry], owner: &str) -> bool {
    let scope = Scope::Keys(entries.iter().map(Entry::key).collect());
    let added = ports.update(&scope, |found| {
        let mut wanted = found.clone();
        let new = entries.iter().map(|entry| held(entry, owner));
        wanted.elements.extend(new);
        Ok::<_, ()>(wanted)
    });
    added.unwrap().unwrap()
}

fn entries() -> Vec<Entry> {
    let (four, six) = (to("172.18.0.2:80"), to("[fd00::2]:80"));
    let port = |v6, address: Option<&str>, protocol, port, to| Entry::Port {
        at: HostPort {
            v6,
            address: address.map(|it| it.parse().unwrap()),
            protocol,
            port,
        },
        to,
    };
    let hairpin = |to| Entry::Hairpin {
        via: "ch-egress".to_owned(),
        protocol: 17,
        to,
    };
    let hidden = |to| Entry::Hidden { protocol: 6, to };
    vec![
        port(false, None, 6, 8080, four),
        port(true, None, 6, 8080, six),
        port(false, Some("192.0.2.1"), 17, 53, four),
        port(true, Some("2001:db8::1"), 132, 53, six),
        hairpin(four),
        hairpin(six),
        hidden(four),
        hidden(six),
    ]
}

#[test]
fn equals_what_nft_makes_of_the_file_and_stands_beside_the_rest_of_the_table() {
    let (theirs, ours) = (Namespace::new(), Namespace::new());
    theirs.sh(&format!("nft -f {FILE}"));
    ours.run(|| assert!(Ports::open().unwrap().ensure().unwrap()));
    assert_eq!(json(&ours), json(&theirs));
    assert_eq!(bytecode(&ours), bytecode(&theirs));
    let file = std::fs::read_to_string(FILE).unwrap();
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let without_comments = lines.collect::<Vec<_>>().join("\n") + "\n";
    let text = ours.sh("nft list table inet crosshost");
    assert_eq!(text, without_comments, "nft prints ours as the file");

    theirs.run(|| {
        let (mut nft, mut ports) = (Nft::open().unwrap(), Ports::open().unwrap());
        assert_eq!(ports.status().unwrap(), Status::Complete);
        assert!(!ports.ensure().unwrap(), "nft's own is ours");
        assert_eq!(nft.status(&super::CONFIG).unwrap(), Status::Damaged);
        nft.ensure(&super::CONFIG).unwrap();
        assert_eq!(nft.status(&super::CONFIG).unwrap(), Status::Complete);
        assert_eq!(ports.status().unwrap(), Status::Complete);
        assert!(nft.remove_table(&super::CONFIG).unwrap());
        assert_eq!(ports.status().unwrap(), Status::Complete, "one part goes");
        assert!(!nft.remove_table(&super::CONFIG).unwrap());
        assert!(ports.remove().unwrap());
        assert!(!ports.remove().unwrap());
    });
    assert_eq!(
        theirs.sh("nft list ruleset"),
        "",
        "the table goes with the last"
    );
}

#[test]
fn elements_equal_those_of_nft() {
    for entry in entries() {
        let port = match entry {
            Entry::Port { at, .. } => Some(at),
            _ => None,
        };
        assert_eq!(entry.key().port(), port);
    }
    let (theirs, ours) = (Namespace::new(), Namespace::new());
    theirs.sh(&format!("nft -f {FILE}"));
    let add_by_nft = |set: &str, element: &str| {
        let (key, data) = element.split_once(" : ").unwrap_or((element, ""));
        let data = if data.is_empty() {
            String::new()
        } else {
            format!(" : {data}")
        };
        theirs.sh(&format!(
            "nft 'add element inet crosshost {set} {{ {key} comment \"me me'\"'\"'s\"{data} }}'"
        ));
    };
    add_by_nft("ports4", "tcp . 8080 : 172.18.0.2 . 80");
    add_by_nft("ports6", "tcp . 8080 : fd00::2 . 80");
    add_by_nft("bound4", "192.0.2.1 . udp . 53 : 172.18.0.2 . 80");
    add_by_nft("bound6", "2001:db8::1 . sctp . 53 : fd00::2 . 80");
    add_by_nft("hairpin4", "\"ch-egress\" . 172.18.0.2 . udp . 80");
    add_by_nft("hairpin6", "\"ch-egress\" . fd00::2 . udp . 80");
    add_by_nft("hidden4", "172.18.0.2 . tcp . 80");
    add_by_nft("hidden6", "fd00::2 . tcp . 80");
    ours.run(|| {
        let mut ports = Ports::open().unwrap();
        ports.ensure().unwrap();
        assert!(add(&mut ports, &entries(), "me"));
        assert!(!add(&mut ports, &entries(), "me"), "they are there");
    });
    assert_eq!(json(&ours), json(&theirs));
}

#[test]
fn thousands_are_made_in_one_step_and_read_within_seconds() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut ports = Ports::open().unwrap();
        ports.ensure().unwrap();
        let many: Vec<_> = (1..=16_000)
            .map(|port| Entry::Port {
                at: at(port),
                to: to("172.18.0.2:80"),
            })
            .collect();
        assert!(add(&mut ports, &many, "me"));
        let began = std::time::Instant::now();
        let found = ports.read(&Scope::All).unwrap();
        assert_eq!(found.elements.len(), many.len());
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn a_long_owner_is_cut_and_still_found() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut ports = Ports::open().unwrap();
        ports.ensure().unwrap();
        for entry in entries() {
            let held = entry.element(vec!["me".to_owned()], "n".repeat(300));
            let scope = Scope::Keys(BTreeSet::from([entry.key()]));
            let put = |found: &Published| {
                let mut wanted = found.clone();
                wanted.elements.insert(entry.key(), held.clone());
                Ok::<_, ()>(wanted)
            };
            assert_eq!(ports.update(&scope, put).unwrap(), Ok(true));
            let found = ports.read(&scope).unwrap();
            let found = &found.elements[&entry.key()];
            assert_eq!(found.owners, held.owners);
            assert!(found.is_like(&held) && found.text.len() == 248, "{found:?}");
        }
    });
}

#[test]
fn owners_are_kept_whole_or_refused() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut ports = Ports::open().unwrap();
        ports.ensure().unwrap();
        let entry = &entries()[0];
        let scope = Scope::Keys(BTreeSet::from([entry.key()]));
        let mut put = |count: usize| {
            let owners: Vec<_> = (0..count).map(|number| format!("{number:016x}")).collect();
            let held = entry.element(owners.clone(), "n".repeat(300));
            let updated = ports.update(&scope, |found| {
                let mut wanted = found.clone();
                wanted.elements.insert(entry.key(), held.clone());
                Ok::<_, ()>(wanted)
            });
            let found = ports.read(&scope).unwrap();
            let kept = found.elements.get(&entry.key());
            (
                updated,
                kept.map(|held| held.owners.clone()) == Some(owners),
            )
        };
        assert!(matches!(put(14), (Ok(Ok(true)), true)));
        let (updated, _) = put(15);
        assert!(matches!(updated, Err(Error::Unfit { .. })), "{updated:?}");
    });
}

#[test]
fn what_is_wanted_is_made_at_the_places_that_were_looked_at_and_nowhere_else() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut ports = Ports::open().unwrap();
        ports.ensure().unwrap();
        let mine: Vec<_> = (1000..1700)
            .map(|port| Entry::Port {
                at: at(port),
                to: to("10.0.0.2:80"),
            })
            .collect();
        assert!(add(&mut ports, &entries(), "other") && add(&mut ports, &mine, "me"));
        let all = ports.read(&Scope::All).unwrap();
        assert_eq!(all.elements.len(), 708);
        let found = &all.elements[&mine[0].key()];
        assert_eq!(
            (found.owners[0].as_str(), found.text.as_str()),
            ("me", "me's")
        );
        assert!(found.leads_to(to("10.0.0.2:80")) && !found.leads_to(to("10.0.0.2:81")));

        // A refusal changes nothing.
        let refused = ports.update(&Scope::All, |_| Err::<Published, _>("no"));
        assert_eq!(refused.unwrap(), Err("no"));
        // Another target at the same place, and all others of the set gone, in one step.
        let moved = Entry::Port {
            at: at(1000),
            to: to("10.0.0.3:80"),
        };
        let scope = Scope::Keys(mine.iter().map(Entry::key).collect());
        let changed = ports.update(&scope, |found| {
            assert_eq!(found.elements.len(), 700);
            let mut wanted = Published::default();
            wanted.elements.extend([held(&moved, "me")]);
            Ok::<_, ()>(wanted)
        });
        assert_eq!(changed.unwrap(), Ok(true));
        let all = ports.read(&Scope::All).unwrap();
        assert_eq!(all.elements.len(), 9);
        assert!(all.elements[&at(1000).key()].leads_to(to("10.0.0.3:80")));
    });
}

#[test]
fn a_change_that_was_decided_on_rules_of_yesterday_is_decided_again() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let (mut one, mut other) = (Ports::open().unwrap(), Ports::open().unwrap());
        one.ensure().unwrap();
        let entry = Entry::Port {
            at: at(80),
            to: to("10.0.0.2:80"),
        };
        let scope = Scope::Keys(BTreeSet::from([entry.key()]));
        let mut asked = 0;
        let taken = one.update(&scope, |found| {
            asked += 1;
            if asked == 1 {
                assert!(add(&mut other, std::slice::from_ref(&entry), "other"));
            }
            match found.elements.get(&entry.key()) {
                Some(held) => Err(held.text.clone()),
                None => Ok(Published::default()),
            }
        });
        assert_eq!(taken.unwrap(), Err("other's".to_owned()));
        assert_eq!(asked, 2);
    });
}

#[test]
fn without_the_maps_nothing_is_there_and_nothing_can_be_added() {
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut ports = Ports::open().unwrap();
        assert_eq!(ports.status().unwrap(), Status::Missing);
        assert_eq!(ports.read(&Scope::All).unwrap(), Published::default());
        let scope = Scope::Keys(entries().iter().map(Entry::key).collect());
        let added = ports.update(&scope, |_| {
            let mut wanted = Published::default();
            wanted.elements.extend([held(&entries()[0], "me")]);
            Ok::<_, ()>(wanted)
        });
        let refused = added.unwrap_err();
        assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    });
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn conditions_are_rules_that_keep_packets_from_the_maps() {
    let namespace = Namespace::new();
    let conditional = |text: &str| Conditional {
        at: at(8000),
        last: 8010,
        conditions: conditions(&words(text), false).unwrap(),
    };
    let set = |owner: &str, conditionals: &[Conditional]| {
        namespace.run(|| {
            let mut ports = Ports::open().unwrap();
            ports.ensure().unwrap();
            let scope = Scope::Keys(BTreeSet::new());
            let set = ports.update(&scope, |found| {
                let mut wanted = found.clone();
                wanted.conditions.set(owner, conditionals);
                Ok::<_, ()>(wanted)
            });
            set.unwrap().unwrap()
        })
    };
    let all = "ip saddr 10.0.0.0/12 iifname != eth0 tcp sport 1024-65535 meta mark 0x10";
    assert!(set("me", &[conditional(all)]) && !set("me", &[conditional(all)]));
    assert!(set(
        "you",
        &[conditional(
            "ip daddr != 10.0.0.1 th sport != 20-30 iifname \"wg*\""
        )]
    ));
    // As with nft, what is said of another protocol never holds, negated or not.
    assert!(set("he", &[conditional("udp sport 53 sctp sport != 53")]));
    let list = namespace.sh("nft list chain inet crosshost ports-conditions");
    let never = " tcp dport 8000-8010 accept comment \"he\"";
    assert_eq!(list.matches(never).count(), 2, "{list}");
    assert!(set("he", &[]));
    let list = namespace.sh("nft list chain inet crosshost ports-conditions");
    for (rule, owner) in [
        ("ip saddr != 10.0.0.0/12 accept", "me"),
        ("iifname \"eth0\" accept", "me"),
        ("tcp sport != 1024-65535 accept", "me"),
        ("meta mark != 0x00000010 accept", "me"),
        ("ip daddr 10.0.0.1 accept", "you"),
        ("tcp sport 20-30 accept", "you"),
        ("iifname != \"wg*\" accept", "you"),
    ] {
        let line = format!(" {rule} comment \"{owner}\"");
        assert!(list.contains(&line), "{line} in {list}");
    }
    assert_eq!(list.matches("tcp dport 8000-8010").count(), 7, "{list}");
    assert!(set("me", &[]));
    let list = namespace.sh("nft list chain inet crosshost ports-conditions");
    assert!(!list.contains("\"me\"") && list.matches("\"you\"").count() == 3);
    // Whatever else is made anew, they stay.
    namespace.sh("nft flush chain inet crosshost ports-publish");
    namespace.run(|| assert!(Ports::open().unwrap().ensure().unwrap()));
    assert_eq!(
        namespace.sh("nft list chain inet crosshost ports-conditions"),
        list
    );
}

#[test]
fn words_that_are_not_understood_are_named() {
    for (text, v6, why) in [
        ("-s 10.0.0.0/8", false, "a word of iptables"),
        ("! -s 10.0.0.0/8", false, "a word of iptables"),
        ("ip saddr", false, "has no value"),
        ("ip saddr !=", false, "has no value"),
        ("ip saddr 10.0.0.300", false, "10.0.0.300: not an address"),
        (
            "ip saddr fd00::1",
            false,
            "not an address or network of IPv4",
        ),
        ("ip saddr 10.0.0.1", true, "\"ip saddr\" is not understood"),
        ("tcp dport 80", false, "\"tcp dport\" is not understood"),
        ("th sport 9-8", false, "not a port"),
        ("mark red", false, "not a mark"),
        ("iifname *", false, "not an interface's name"),
        (
            "iifname a-name-much-too-long",
            false,
            "not an interface's name",
        ),
    ] {
        let said = conditions(&words(text), v6).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
    assert_eq!(conditions(&[], false), Ok(vec![]));
}
