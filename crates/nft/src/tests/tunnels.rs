//! The guard of the tunnels: which addresses may send, and what is not tracked.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::Nft;

use super::CONFIG;
use super::kit::Namespace;

fn ends(texts: &[&str]) -> BTreeSet<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn hosts(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn listed(namespace: &Namespace, set: &str) -> Vec<String> {
    let text = namespace.sh(&format!("nft -j list set inet crosshost {set}"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let set = json["nftables"].as_array().unwrap().last().unwrap()["set"].clone();
    let elements = set["elem"].as_array().cloned().unwrap_or_default();
    let mut texts: Vec<_> = elements
        .iter()
        .map(|element| match element["concat"].as_array() {
            Some(parts) => {
                let part = |part: &serde_json::Value| part.to_string().replace('"', "");
                parts.iter().map(part).collect::<Vec<_>>().join(" ")
            }
            None => element.as_str().unwrap().to_owned(),
        })
        .collect();
    texts.sort();
    texts
}

#[test]
fn the_sets_become_what_is_said() {
    let namespace = Namespace::new();
    namespace.run(|| Nft::open().unwrap().ensure(&CONFIG).unwrap());
    let guard = |our: &[&str], their: &[&str]| {
        namespace.run(|| {
            let mut nft = Nft::open().unwrap();
            nft.guard(&ends(our), &hosts(their)).unwrap();
            let generation = nft.generation().unwrap();
            nft.guard(&ends(our), &hosts(their)).unwrap();
            assert_eq!(nft.generation().unwrap(), generation, "nothing to change");
        });
    };
    guard(
        &["10.0.0.1:4789", "10.0.0.1:8472", "[fd00::1]:4789"],
        &["10.0.0.2", "10.0.0.3", "fd00::2"],
    );
    assert_eq!(
        listed(&namespace, "tunnels4"),
        ["10.0.0.1 4789", "10.0.0.1 8472"]
    );
    assert_eq!(listed(&namespace, "tunnels6"), ["fd00::1 4789"]);
    assert_eq!(
        listed(&namespace, "peers4"),
        [
            "10.0.0.2 10.0.0.1 4789",
            "10.0.0.2 10.0.0.1 8472",
            "10.0.0.3 10.0.0.1 4789",
            "10.0.0.3 10.0.0.1 8472"
        ]
    );
    assert_eq!(listed(&namespace, "peers6"), ["fd00::2 fd00::1 4789"]);

    guard(&["10.0.0.1:8472"], &["10.0.0.3", "10.0.0.4"]);
    assert_eq!(listed(&namespace, "tunnels4"), ["10.0.0.1 8472"]);
    assert_eq!(listed(&namespace, "tunnels6"), Vec::<String>::new());
    assert_eq!(
        listed(&namespace, "peers4"),
        ["10.0.0.3 10.0.0.1 8472", "10.0.0.4 10.0.0.1 8472"]
    );
}

#[test]
fn three_thousand_hosts_fit() {
    let namespace = Namespace::new();
    let many: BTreeSet<IpAddr> = (0..3000_u32)
        .map(|n| IpAddr::from((0xfd00_u128 << 112 | u128::from(n)).to_be_bytes()))
        .collect();
    namespace.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure(&CONFIG).unwrap();
        nft.guard(&ends(&["[fd01::1]:4789"]), &many).unwrap();
    });
    assert_eq!(listed(&namespace, "peers6").len(), 3000);
    namespace.run(|| {
        Nft::open().unwrap().guard(&ends(&[]), &hosts(&[])).unwrap();
    });
    assert_eq!(listed(&namespace, "peers6").len(), 0);
}

#[test]
fn without_a_table_there_is_nothing_to_take_away() {
    Namespace::new().run(|| {
        let mut nft = Nft::open().unwrap();
        nft.guard(&ends(&[]), &hosts(&[])).unwrap();
        let error = nft
            .guard(&ends(&["10.0.0.1:4789"]), &hosts(&[]))
            .unwrap_err();
        assert!(error.to_string().contains("set tunnels4"), "{error}");
    });
}

/// Two ends of a veth pair, `a` and `b`, with addresses of both families; `a` may send to `b`'s port 4789 or not.
#[test]
fn only_known_hosts_are_heard_and_nothing_of_them_is_tracked() {
    let (a, b) = (Namespace::new(), Namespace::new());
    a.sh(&format!("ip link add v type veth peer v netns {}", b.pid()));
    for (space, n) in [(&a, 1), (&b, 2)] {
        space.sh(&format!(
            "ip addr add 10.0.0.{n}/24 dev v; ip addr add fd00::{n}/64 dev v nodad; ip link set v up"
        ));
    }
    b.run(|| Nft::open().unwrap().ensure(&CONFIG).unwrap());
    a.sh("ping -qnc1 -W3 10.0.0.2; for n in 1 2 3 4 5; do ping -6qnc1 -W1 fd00::2 && break; done");
    // So that the kernel tracks connections at all.
    b.sh("nft add table inet other; nft add chain inet other in '{ type filter hook input priority 0; }'; nft add rule inet other in ct state new accept");
    let heard = |to: &str, port: u16| {
        let (from, family) = if to.contains(':') {
            ("[::]:0", "[fd00::2]")
        } else {
            ("0.0.0.0:0", "10.0.0.2")
        };
        let listener = b.run(|| std::net::UdpSocket::bind(format!("{family}:{port}")).unwrap());
        listener
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        a.run(|| {
            let socket = std::net::UdpSocket::bind(from).unwrap();
            socket.send_to(b"x", format!("{family}:{port}")).unwrap();
        });
        listener.recv(&mut [0; 8]).is_ok()
    };
    let guard = |their: &[&str]| {
        b.run(|| {
            let our = ends(&["10.0.0.2:4789", "[fd00::2]:4789"]);
            Nft::open().unwrap().guard(&our, &hosts(their)).unwrap();
        });
    };
    assert!(heard("10.0.0.2", 4789), "before there is a guard");
    guard(&["10.0.0.9", "fd00::9"]);
    for to in ["10.0.0.2", "fd00::2"] {
        assert!(!heard(to, 4789), "{to}: a stranger");
        assert!(
            heard(to, 4790),
            "{to}: what is no tunnel is not our business"
        );
    }
    guard(&["10.0.0.1", "fd00::1"]);
    b.sh("nft add rule inet other in udp dport 4789 ct state untracked counter comment untracked");
    for to in ["10.0.0.2", "fd00::2"] {
        assert!(heard(to, 4789), "{to}: a known host");
    }
    let counted = b.sh("nft list chain inet other in");
    assert!(counted.contains("counter packets 2"), "{counted}");
}
