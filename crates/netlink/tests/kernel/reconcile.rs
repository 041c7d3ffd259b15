//! Random damage to real entries: one pass of changes reaches the desired set, and a second has no steps.
//!
//! The pure part, with random records, is in `crates/overlay/tests/reconcile.rs`.

use std::net::{IpAddr, Ipv4Addr};

use netlink::{Change, Forward, Forwarding, Mac, Rtnl};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::kit::{Lab, Site, run, wire};

/// One of few entries, so that what is desired and what is there meet in each way there is: the same, the same MAC or
/// address with another value, one without the other.
fn entry() -> impl Strategy<Value = Forward> {
    (0u8..4, 0u8..12, 0u8..12, any::<bool>()).prop_map(|(kind, one, other, v4)| {
        // Not the container's own: with each frame from it, the bridge takes that entry to the container's port.
        let mac = Mac([2, 0x42, 10, 0, 1, one]);
        let vtep = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2 + other % 4));
        let addr = if v4 {
            [10, 0, 0, 10 + other].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, 10 + u16::from(other)].into()
        };
        match kind {
            0 => Forward::Flood { vtep },
            1 => Forward::Fdb { mac, vtep },
            2 => Forward::Port { mac },
            _ => Forward::Neigh { addr, mac },
        }
    })
}

/// A set in which a MAC has one VTEP and an address one MAC, as every desired one is.
fn settled(entries: Vec<Forward>) -> Forwarding {
    let mut set = Forwarding::new();
    for entry in entries {
        set.retain(|old| match (old, &entry) {
            (Forward::Fdb { mac: one, .. }, Forward::Fdb { mac: other, .. }) => one != other,
            (Forward::Neigh { addr: one, .. }, Forward::Neigh { addr: other, .. }) => one != other,
            _ => true,
        });
        set.insert(entry);
    }
    set
}

/// The steps between two sets, of both kinds in a random order.
fn steps(desired: &Forwarding, present: &Forwarding, adds_first: bool) -> Vec<Change> {
    let gone = present.difference(desired).copied().map(Change::Remove);
    let new = desired.difference(present).copied().map(Change::Add);
    if adds_first {
        new.chain(gone).collect()
    } else {
        gone.chain(new).collect()
    }
}

#[test]
fn random_damage_is_mended_in_one_pass() {
    let lab = Lab::new();
    let host = run(async {
        wire(&lab, ("a", "192.0.2.1/24"), ("b", "192.0.2.2/24")).await;
        let inside = ["10.0.0.2/16", "fd00::2/64"];
        Site::new(&lab, "a", "192.0.2.1", 4097, &inside, "02:42:0a:00:00:02").await
    });
    let (bridge, vxlan) = (host.bridge.index, host.vxlan.index);
    let sets = || proptest::collection::vec(entry(), 0..60).prop_map(settled);
    let config = Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    };
    let found = TestRunner::new(config).run(
        &(sets(), sets(), any::<bool>()),
        |(desired, damaged, adds_first)| {
            // A socket belongs to the runtime on which it was opened.
            let again = run(async {
                let nl = Rtnl::open(&host.sandbox).unwrap();
                // The damage starts from what the last case left.
                for wanted in [&damaged, &desired] {
                    let present = nl.forwarding(bridge, vxlan).await.unwrap();
                    let steps = steps(wanted, &present, adds_first);
                    nl.change(bridge, vxlan, &steps).await.unwrap();
                }
                let reached = nl.forwarding(bridge, vxlan).await.unwrap();
                steps(&desired, &reached, adds_first)
            });
            prop_assert_eq!(again, vec![]);
            Ok(())
        },
    );
    if let Err(failure) = found {
        panic!("{failure}");
    }
}
