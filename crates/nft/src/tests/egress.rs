//! The masqueraded subnets, in a real kernel: how they are added, listed and removed, that only the owner of one removes it, and that
//! nobody can add one between the comparison of owners and the removal.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::{Error, Nft};
use ipnetwork::IpNetwork;

use super::CONFIG;
use super::kit::{Finish, Namespace};

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn opened() -> Nft {
    let mut nft = Nft::open().unwrap();
    nft.ensure(&CONFIG).unwrap();
    nft
}

#[test]
fn what_is_added_is_listed_in_order() {
    let expected = [
        ("10.0.0.0/24", "a"),
        ("10.0.1.0/24", "b"), // neighbours: one's end is the other's start
        ("10.0.2.0/32", "c"),
        ("224.0.0.0/3", "top of the space"),
        ("fd00::/64", "d"),
        ("fd00:0:0:1::/64", "e"),
        ("ffff::/16", "top of the space"),
    ];
    Namespace::new().run(|| {
        let mut nft = opened();
        for (text, owner) in expected.iter().rev() {
            nft.add_egress(network(text), owner).unwrap();
        }
        let listed = nft.egress().unwrap();
        let texts: Vec<_> = listed
            .iter()
            .map(|(network, owner)| (network.to_string(), owner.as_str()))
            .collect();
        let expected = expected.map(|(text, owner)| (text.to_owned(), owner));
        assert_eq!(texts, expected);
    });
}

#[test]
fn the_whole_space_is_one_element() {
    Namespace::new().run(|| {
        let mut nft = opened();
        for text in ["0.0.0.0/0", "::/0"] {
            nft.add_egress(network(text), "all").unwrap();
        }
        let all = ["0.0.0.0/0", "::/0"].map(|text| (network(text), "all".to_owned()));
        assert_eq!(nft.egress().unwrap(), all);
        assert!(nft.remove_egress(network("0.0.0.0/0")).unwrap());
        assert!(nft.remove_egress(network("::/0")).unwrap());
        assert_eq!(nft.egress().unwrap(), []);
    });
}

#[test]
fn adding_and_removing_can_be_repeated() {
    Namespace::new().run(|| {
        let mut nft = opened();
        let network = network("172.18.7.7/16"); // host bits do not matter
        nft.add_egress(network, "first").unwrap();
        nft.add_egress(network, "second").unwrap();
        let listed = nft.egress().unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].1, "first", "the first owner stays");
        assert!(nft.remove_egress(network).unwrap());
        assert!(!nft.remove_egress(network).unwrap());
        assert_eq!(nft.egress().unwrap(), []);
    });
}

#[test]
fn only_the_owner_removes() {
    Namespace::new().run(|| {
        let mut nft = opened();
        let network = network("fd00:5::/64");
        nft.add_egress(network, "ours").unwrap();
        assert!(!nft.remove_egress_of(network, "theirs").unwrap());
        assert!(!nft.remove_egress_of(network, "").unwrap());
        assert_eq!(nft.egress().unwrap().len(), 1);
        assert!(nft.remove_egress_of(network, "ours").unwrap());
        assert!(!nft.remove_egress_of(network, "ours").unwrap());
    });
}

#[test]
fn another_length_is_another_network() {
    Namespace::new().run(|| {
        let mut nft = opened();
        nft.add_egress(network("10.1.0.0/16"), "wide").unwrap();
        for other in ["10.1.0.0/17", "10.1.0.0/15", "10.1.5.0/24", "10.0.0.0/8"] {
            assert!(!nft.remove_egress(network(other)).unwrap(), "{other}");
            let error = nft.add_egress(network(other), "other").unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("overlaps with 10.1.0.0/16 of \"wide\""),
                "{other}: {text}"
            );
            assert!(text.contains("set egress4 of table crosshost"), "{text}");
        }
        nft.add_egress(network("10.0.0.0/16"), "next").unwrap();
        assert!(
            !nft.remove_egress(network("10.0.0.0/15")).unwrap(),
            "the two are not one"
        );
        assert_eq!(nft.egress().unwrap().len(), 2);
    });
}

#[test]
fn no_table_is_an_error_for_adding_only() {
    Namespace::new().run(|| {
        let mut nft = Nft::open().unwrap();
        let network = network("10.1.0.0/16");
        let error = nft.add_egress(network, "x").unwrap_err();
        let text = error.to_string();
        assert_eq!(error.errno(), Some(2), "{text}");
        assert!(
            text.starts_with("add 10.1.0.0/16 in set egress4 of table crosshost: "),
            "{text}"
        );
        assert!(!nft.remove_egress(network).unwrap());
        assert_eq!(nft.egress().unwrap(), []);
    });
}

#[test]
fn a_range_by_hand_is_not_taken_for_a_network() {
    let namespace = Namespace::new();
    namespace.run(opened);
    namespace.sh("nft add element inet crosshost egress4 '{ 10.0.0.5-10.0.0.9, 10.2.0.0/16 }'");
    let listed = namespace.run(|| Nft::open().unwrap().egress().unwrap());
    assert_eq!(listed, [(network("10.2.0.0/16"), String::new())]);
}

#[test]
fn an_owner_that_nft_could_not_print_is_refused() {
    Namespace::new().run(|| {
        let mut nft = opened();
        let longest = "x".repeat(127);
        for owner in ["a\"b", "a\nb", &"x".repeat(128)] {
            let error = nft.add_egress(network("10.0.0.0/24"), owner).unwrap_err();
            assert!(matches!(error, Error::Unfit { .. }), "{error}");
        }
        nft.add_egress(network("10.0.0.0/24"), &longest).unwrap();
        assert_eq!(nft.egress().unwrap()[0].1, longest);
    });
}

/// "a" and "b" hold the network in turn. Two threads remove it as "b" all the time; what "a" holds must be safe from them,
/// also when they looked while it was b's.
#[test]
fn compare_and_delete_has_no_gap() {
    let namespace = Namespace::new();
    namespace.run(opened);
    let contested = network("10.7.0.0/24");
    let finished = AtomicBool::new(false);
    let removals = AtomicU32::new(0);
    let lost = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                namespace.run(|| {
                    let mut nft = Nft::open().unwrap();
                    while !finished.load(Ordering::Relaxed) {
                        let removed = nft.remove_egress_of(contested, "b").unwrap();
                        removals.fetch_add(removed.into(), Ordering::Relaxed);
                    }
                });
            });
        }
        let _finish = Finish(&finished);
        namespace.run(|| {
            let mut nft = Nft::open().unwrap();
            (0..2000).find(|_| {
                nft.add_egress(contested, "b").unwrap();
                thread::yield_now(); // the racers may look now
                nft.remove_egress_of(contested, "b").unwrap();
                nft.add_egress(contested, "a").unwrap();
                thread::yield_now(); // and delete now
                !nft.remove_egress_of(contested, "a").unwrap()
            })
        })
    });
    assert_eq!(
        lost, None,
        "the round in which a's network was removed by another"
    );
    assert!(removals.into_inner() > 0, "the racers never met");
}
