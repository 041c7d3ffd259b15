//! Path MTUs, on paths of this kernel that carry less than their first link.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use netlink::{Netns, probe};

use crate::kit::{Lab, run, sh};

/// Two hosts and a router between them. Its link to the second host carries `mtu` bytes; with `silent` it sends no ICMP errors.
fn behind_a_router(lab: &Lab, mtu: u32, silent: bool) -> (Netns, Netns, Netns) {
    let (a, router, b) = (lab.netns("a"), lab.netns("router"), lab.netns("b"));
    for host in [&a, &router, &b] {
        // Else the first packets wait for the end of duplicate address detection.
        sh(
            host,
            "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad",
        );
    }
    for (host, net) in [(&a, 1), (&b, 2)] {
        sh(
            &router,
            &format!(
                "ip link add to{net} type veth peer name eth0
                 ip address add 10.0.{net}.1/24 dev to{net}; ip address add fd00:{net}::1/64 dev to{net} nodad
                 ip link set to{net} up; ip link set eth0 netns {}",
                host.path().display()
            ),
        );
        sh(
            host,
            &format!(
                "ip address add 10.0.{net}.2/24 dev eth0; ip address add fd00:{net}::2/64 dev eth0 nodad
                 ip link set eth0 up
                 ip route add default via 10.0.{net}.1; ip -6 route add default via fd00:{net}::1"
            ),
        );
    }
    sh(
        &router,
        &format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip link set to2 mtu {mtu}"
        ),
    );
    if silent {
        sh(
            &router,
            "nft 'add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }
                  add rule inet quiet out icmp type destination-unreachable drop
                  add rule inet quiet out icmpv6 type packet-too-big drop'",
        );
    }
    (a, router, b)
}

fn asked(from: &Netns, own: &str, targets: &[&str], patience: u64) -> Vec<Option<u32>> {
    let own: IpAddr = own.parse().unwrap();
    let targets: Vec<IpAddr> = targets
        .iter()
        .map(|target| target.parse().unwrap())
        .collect();
    from.run(move || {
        let patience = Duration::from_millis(patience);
        run(async { probe(own, &targets, 1500, patience).await.unwrap() })
    })
    .unwrap()
}

#[test]
fn a_path_that_carries_all_is_known_as_soon_as_it_answers() {
    let lab = Lab::new();
    let (a, _router, _b) = behind_a_router(&lab, 1500, false);
    let begun = Instant::now();
    assert_eq!(asked(&a, "10.0.1.2", &["10.0.2.2"], 5000), [Some(1500)]);
    assert_eq!(asked(&a, "fd00:1::2", &["fd00:2::2"], 5000), [Some(1500)]);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_smaller_path_is_measured_whether_or_not_somebody_says_so() {
    for silent in [false, true] {
        let lab = Lab::new();
        let (a, _router, _b) = behind_a_router(&lab, 1411, silent);
        let v4 = asked(&a, "10.0.1.2", &["10.0.2.2", "10.0.1.1"], 300);
        assert_eq!(v4, [Some(1411), Some(1500)], "silent: {silent}");
        assert_eq!(
            asked(&a, "fd00:1::2", &["fd00:2::2"], 300),
            [Some(1411)],
            "silent: {silent}"
        );
    }
}

#[test]
fn who_answers_nothing_tells_nothing() {
    let lab = Lab::new();
    let (a, _router, b) = behind_a_router(&lab, 1500, false);
    sh(&b, "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all");
    let targets = ["10.0.2.2", "10.0.9.9", "10.0.1.77", "fd00:2::2", "10.0.1.1"];
    let found = asked(&a, "10.0.1.2", &targets, 200);
    assert_eq!(found, [None, None, None, None, Some(1500)]);
}
