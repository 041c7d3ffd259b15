//! Which container has a port, which one may have it beside others, and what is left when one goes.

use super::*;
use crate::{mapping::Protocol, record::Run};

fn record(network: &str, container: &str, since: u64, port: u16, to: &str) -> Record {
    Record {
        attachment: Attachment {
            network: network.to_owned(),
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
        },
        since,
        leaving: false,
        runs: vec![Run {
            protocol: Protocol::Tcp,
            address: None,
            port,
            to: to.parse().unwrap(),
            count: 2,
            via: "br0".to_owned(),
        }],
        hairpin: true,
        hidden: false,
        conditions: [vec!["ip saddr 10.0.0.1".to_owned()], vec![]],
        life: None,
    }
}

/// Of a table that is made and has nothing in it.
fn nothing() -> Published {
    Published {
        is_complete: true,
        ..Published::default()
    }
}

fn claimed(found: &Published, record: &Record, known: &[&Record]) -> Result<Published, Conflict> {
    let others = |owner: &str| {
        let found = known.iter().find(|it| it.attachment.hash() == owner);
        found.map(|it| (*it).clone())
    };
    add(found, record, &["10.9.9.9".parse().unwrap()], &others)
}

fn leads(all: &Published, record: &Record) -> bool {
    let run = &record.runs[0];
    run.pairs().all(|(at, to)| {
        let held = all.elements.get(&at.key());
        held.is_some_and(|held| held.leads_to(to))
    })
}

#[test]
fn a_port_has_one_container_which_is_named() {
    let none = nothing();
    let first = record("n", "c", 1, 80, "10.0.0.2:8000");
    let all = claimed(&none, &first, &[]).unwrap();
    assert_eq!(all.elements.len(), 4, "two ports, two hairpins");
    assert!(leads(&all, &first));
    assert_eq!(claimed(&all, &first, &[]), Ok(all.clone()), "again");
    let rival = record("m", "d", 2, 81, "10.0.0.3:8000");
    for known in [&[&first][..], &[]] {
        let taken = claimed(&all, &rival, known).unwrap_err();
        assert_eq!(taken.wanted.port, 81);
        assert_eq!(
            taken.owner,
            (first.attachment.hash(), "n/eth0/c".to_owned())
        );
    }
    assert!(claimed(&all, &record("m", "d", 2, 82, "10.0.0.3:8000"), &[]).is_ok());
}

#[test]
fn a_port_of_one_address_is_a_rival_of_the_same_of_all() {
    let (first, mut rival) = (
        record("n", "c", 1, 80, "10.0.0.2:8000"),
        record("n", "d", 2, 80, "10.0.0.3:8000"),
    );
    let all = claimed(&nothing(), &first, &[]).unwrap();
    rival.runs[0].address = Some("10.9.9.9".parse().unwrap());
    assert_eq!(claimed(&all, &rival, &[]).unwrap_err().wanted.port, 80);
    let all = claimed(&nothing(), &rival, &[]).unwrap();
    assert_eq!(claimed(&all, &first, &[]).unwrap_err().wanted.port, 80);
    let mut elsewhere = record("n", "e", 2, 80, "10.0.0.4:8000");
    elsewhere.runs[0].address = Some("10.9.9.8".parse().unwrap());
    assert!(claimed(&all, &elsewhere, &[]).is_ok());
    // Neither is that of another protocol, or of the other version of IP.
    for (protocol, to) in [
        (Protocol::Udp, "10.0.0.5:8000"),
        (Protocol::Tcp, "[fd00::5]:8000"),
    ] {
        let mut other = record("n", "f", 2, 80, to);
        other.runs[0].protocol = protocol;
        other.conditions = [vec![], vec![]];
        let bound = claimed(&nothing(), &rival, &[]).unwrap();
        assert!(claimed(&bound, &other, &[]).is_ok(), "{to}");
    }
}

#[test]
fn the_networks_of_a_container_share_a_port_and_inherit_it() {
    let (one, two) = (
        record("n", "c", 1, 80, "10.0.0.2:8000"),
        record("m", "c", 2, 80, "10.1.0.2:8000"),
    );
    let known = [&one, &two];
    let alone = claimed(&nothing(), &one, &known).unwrap();
    let both = claimed(&alone, &two, &known).unwrap();
    assert!(leads(&both, &one) && !leads(&both, &two));
    let others = |owner: &str| {
        let found = known.iter().find(|it| it.attachment.hash() == owner);
        found.map(|it| (*it).clone())
    };
    // The second goes: all is as before. The first goes: the second inherits.
    assert_eq!(remove(&both, &two, &others), alone);
    let rest = remove(&both, &one, &others);
    assert!(leads(&rest, &two));
    assert_eq!(
        remove(&rest, &one, &others),
        rest,
        "it has nothing any more"
    );
    let gone = remove(&rest, &two, &others);
    assert_eq!(gone, nothing());
    // The records alone say the same, in any order, whatever became of the table.
    for found in [&nothing(), &both, &rest] {
        assert_eq!(all_records(found, &[two.clone(), one.clone()]), both);
    }
}

#[test]
fn all_of_thousands_are_put_together_within_seconds() {
    let one = |number: u16| {
        let to = format!("10.0.{}.{}:80", number >> 8, number & 255);
        record("n", &format!("c{number}"), 1, 2 * number + 1, &to)
    };
    let many: Vec<_> = (0..4000).map(one).collect();
    let began = std::time::Instant::now();
    let all = all_records(&nothing(), &many);
    let took = began.elapsed();
    assert_eq!(all.elements.len(), 16_000, "two ports, two hairpins");
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_long_range_costs_no_more_on_a_host_with_many_addresses() {
    let local: Vec<_> = (0..=255).map(|it| IpAddr::from([10, 9, 9, it])).collect();
    let mut range = record("n", "c", 1, 10_000, "10.0.0.2:10000");
    assert!(matches!(
        keys_and_rivals(&range, &local[..9]),
        Scope::Keys(_)
    ));
    range.runs[0].count = 20_000;
    let began = std::time::Instant::now();
    assert!(matches!(
        keys_and_rivals(&range, &local),
        Scope::KeysAndBound(_)
    ));
    let mut one = record("n", "d", 2, 29_998, "10.0.0.3:80");
    one.runs[0].address = local.last().copied();
    let all = claimed(&nothing(), &one, &[]).unwrap();
    let taken = add(&all, &range, &local, &|_| None).unwrap_err();
    assert_eq!((taken.wanted.port, taken.wanted.address), (29_998, None));
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_mark_on_a_target_stays_as_long_as_an_element_needs_it() {
    let (old, new) = (
        record("n", "c", 1, 80, "10.0.0.2:8000"),
        record("n", "d", 2, 90, "10.0.0.2:8000"),
    );
    let none = |_: &str| None;
    let all = claimed(&nothing(), &old, &[]).unwrap();
    let both = claimed(&all, &new, &[]).unwrap();
    assert_eq!(both.elements.len(), 6, "four ports, two hairpins");
    let late = remove(&both, &old, &none);
    assert_eq!(late.elements.len(), 4);
    assert!(leads(&late, &new));
    assert_eq!(remove(&late, &new, &none), nothing());
}

#[test]
fn what_leaves_is_not_made_again_and_what_has_no_record_stays() {
    let (mut one, lost) = (
        record("n", "c", 1, 80, "10.0.0.2:8000"),
        record("n", "d", 2, 90, "10.0.0.3:8000"),
    );
    let only_lost = claimed(&nothing(), &lost, &[]).unwrap();
    let both = claimed(&only_lost, &one, &[]).unwrap();
    one.leaving = true;
    assert_eq!(all_records(&both, std::slice::from_ref(&one)), only_lost);
    let mine = |key: &&Key| !only_lost.elements.contains_key(*key);
    let mine: BTreeSet<_> = both.elements.keys().filter(mine).cloned().collect();
    assert_eq!(keys(&one), mine);
    assert_eq!(remove(&both, &one, &|_| None), only_lost);
    let unknown: BTreeSet<_> = without_record(&both.elements, |_| false).collect();
    let lost = lost.attachment.hash();
    assert_eq!(unknown.len(), 2);
    assert!(unknown.contains(&(lost.as_str(), "n/eth0/d")));
}
