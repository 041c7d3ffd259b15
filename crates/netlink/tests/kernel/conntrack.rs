//! Removes entries of real flows from conntrack: those that are asked for, and no others.

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;

use netlink::{End, Flows, Netns, forget};

use crate::kit::{Lab, addr, sh};

const UDP: u8 = 17;

/// A host that tracks the packets that it sends to itself. A rule puts packets to ports 70 and 71 into zone 7: for port 70 in
/// both directions, for port 71 only in the original one.
fn host(lab: &Lab) -> Netns {
    let ns = lab.netns("host");
    sh(
        &ns,
        "ip link set lo up
         ip address add 10.0.0.1/32 dev lo; ip address add 10.0.0.2/32 dev lo; ip address add fd00::1/128 dev lo nodad
         nft -f - <<END
         table inet watch {
             chain zones {
                 type filter hook output priority raw;
                 udp dport 70 ct zone set 7
                 udp dport 71 ct original zone set 7
             }
             chain in { type filter hook input priority 0; ct state new counter; }
         }
END",
    );
    ns
}

/// One packet to each, each from a socket of its own.
fn send(ns: &Netns, to: &[&str]) {
    ns.run(|| {
        for to in to {
            let from = if to.starts_with('[') {
                "[::]:0"
            } else {
                "0.0.0.0:0"
            };
            UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
        }
    })
    .unwrap();
}

/// What is tracked, one line for each: protocol, first destination and its port, and its zone unless that is the default one.
fn tracked(ns: &Netns) -> Vec<String> {
    let text = sh(ns, "cat /proc/thread-self/net/nf_conntrack");
    let mut lines: Vec<_> = (text.lines())
        .map(|line| {
            let first = |key: &str| {
                let mut words = line.split_whitespace();
                words.find_map(|word| word.strip_prefix(key).map(str::to_owned))
            };
            let protocol = line.split_whitespace().nth(2).unwrap();
            let address: IpAddr = first("dst=").unwrap().parse().unwrap();
            let zone = first("zone=").or_else(|| first("zone-orig="));
            let zone = zone.filter(|zone| zone != "0");
            let zone = zone.map_or(String::new(), |zone| format!(" zone {zone}"));
            format!("{protocol} {address} {}{zone}", first("dport=").unwrap())
        })
        .collect();
    lines.sort();
    lines
}

/// To one of the addresses of [`host`], or to any of them.
fn flows(v6: bool, address: Option<&str>, ports: RangeInclusive<u16>) -> Flows {
    let all = ["10.0.0.1", "10.0.0.2", "fd00::1"];
    let to = address.map_or_else(|| all.to_vec(), |one| vec![one]);
    Flows {
        v6,
        protocol: UDP,
        ports,
        end: End::To(to.into_iter().map(addr).collect()),
    }
}

#[test]
fn only_flows_to_the_port_and_address_are_forgotten() {
    let lab = Lab::new();
    let ns = host(&lab);
    let forget = |flows: &[Flows]| ns.run(|| forget(flows)).unwrap().unwrap();
    assert_eq!(forget(&[flows(false, None, 1..=65535)]), 0, "nothing yet");

    let sent = [
        "10.0.0.1:53",
        "10.0.0.2:53",
        "10.0.0.1:54",
        "[fd00::1]:53",
        "[fd00::1]:54",
    ];
    // A connection of TCP to the same port is tracked as well; no program listens on UDP.
    let _tcp = ns
        .run(|| {
            let listener = TcpListener::bind("10.0.0.1:53").unwrap();
            (TcpStream::connect("10.0.0.1:53").unwrap(), listener)
        })
        .unwrap();
    send(&ns, &sent);
    assert_eq!(
        tracked(&ns),
        [
            "tcp 10.0.0.1 53",
            "udp 10.0.0.1 53",
            "udp 10.0.0.1 54",
            "udp 10.0.0.2 53",
            "udp fd00::1 53",
            "udp fd00::1 54",
        ]
    );

    assert_eq!(forget(&[flows(false, Some("10.0.0.1"), 53..=53)]), 1);
    let answered = |by: &str| Flows {
        end: End::AnsweredBy(addr(by)),
        ..flows(true, None, 54..=60)
    };
    assert_eq!(forget(&[answered("fd00::2")]), 0);
    assert_eq!(forget(&[answered("fd00::1")]), 1);
    assert_eq!(
        tracked(&ns),
        [
            "tcp 10.0.0.1 53",
            "udp 10.0.0.1 54",
            "udp 10.0.0.2 53",
            "udp fd00::1 53",
        ]
    );

    // Any address, of that family alone.
    assert_eq!(forget(&[flows(false, None, 53..=53)]), 1);
    assert_eq!(
        tracked(&ns),
        ["tcp 10.0.0.1 53", "udp 10.0.0.1 54", "udp fd00::1 53"]
    );
    assert_eq!(
        forget(&[flows(false, None, 1..=65535), flows(true, None, 1..=65535)]),
        2
    );
    assert_eq!(tracked(&ns), ["tcp 10.0.0.1 53"]);
}

#[test]
fn flows_of_another_zone_stay() {
    let lab = Lab::new();
    let ns = host(&lab);
    send(&ns, &["10.0.0.1:69", "10.0.0.1:70", "10.0.0.1:71"]);
    let all = [
        "udp 10.0.0.1 69",
        "udp 10.0.0.1 70 zone 7",
        "udp 10.0.0.1 71 zone 7",
    ];
    assert_eq!(tracked(&ns), all);
    let forgotten = ns.run(|| forget(&[flows(false, None, 69..=71)])).unwrap();
    assert_eq!(tracked(&ns), all[1..]);
    assert_eq!(forgotten.unwrap(), 1);
}

#[test]
fn of_thousands_all_are_forgotten_that_should_be() {
    let lab = Lab::new();
    let ns = host(&lab);
    // Many clients of two ports: the list comes in many pieces.
    ns.run(|| {
        for _ in 0..3000 {
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in [53, 54] {
                client.send_to(b"x", ("10.0.0.1", port)).unwrap();
            }
        }
    })
    .unwrap();
    let before = tracked(&ns);
    let to = |port: &str| before.iter().filter(|line| line.ends_with(port)).count();
    let (gone, stay) = (to(" 53"), to(" 54"));
    assert!(gone > 2000 && stay > 2000, "{gone} and {stay}");
    let forgotten = ns.run(|| forget(&[flows(false, None, 53..=53)])).unwrap();
    assert_eq!(forgotten.unwrap(), gone);
    let after = tracked(&ns);
    assert_eq!(after.len(), stay);
    assert!(after.iter().all(|line| line.ends_with(" 54")));
}
