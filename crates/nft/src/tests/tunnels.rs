//! Who may send to a tunnel, what is not tracked, and what is forwarded to containers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::{Nft, Nonmember, Permitted};

use super::CONFIG;
use super::kit::Namespace;

pub(super) fn sockets(texts: &[&str]) -> BTreeSet<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(super) fn hosts(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn nonmember(host: &str, end: &str, vni: u32) -> Nonmember {
    let (host, end) = (host.parse().unwrap(), end.parse().unwrap());
    Nonmember { host, end, vni }
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
    let permit = |permitted: &Permitted| {
        namespace.run(|| {
            let mut nft = Nft::open().unwrap();
            nft.permit(permitted).unwrap();
            let generation = nft.generation().unwrap();
            nft.permit(permitted).unwrap();
            assert_eq!(nft.generation().unwrap(), generation, "nothing to change");
            assert!(nft.permits(permitted).unwrap());
            assert!(!nft.permits(&Permitted::default()).unwrap());
        });
    };
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let mut permitted = Permitted {
        tunnels: sockets(&["10.0.0.1:4789", "10.0.0.1:8472", "[fd00::1]:4789"]),
        remotes: sockets(&["10.0.0.2:4789", "[fd00::2]:4789"]),
        hosts: hosts(&["10.0.0.2", "10.0.0.3", "fd00::2"]),
        any_source_port: [8472].into(),
        nonmembers: [
            nonmember("10.0.0.3", "10.0.0.1:4789", 77),
            nonmember("fd00::2", "[fd00::1]:4789", 4097),
        ]
        .into(),
        segments: [(4789, 4097)].into(),
        together: [pair("chga", "chha"), pair("chha", "chga")].into(),
    };
    permit(&permitted);
    let ends = listed(&namespace, "tunnels4");
    assert_eq!(ends, ["10.0.0.1 4789", "10.0.0.1 8472"]);
    assert_eq!(listed(&namespace, "tunnels6"), ["fd00::1 4789"]);
    let all = ["10.0.0.1 4789", "10.0.0.1 8472", "10.0.0.2 4789"];
    assert_eq!(listed(&namespace, "all-tunnels4"), all);
    let all = ["fd00::1 4789", "fd00::2 4789"];
    assert_eq!(listed(&namespace, "all-tunnels6"), all);
    let peers = [
        "10.0.0.2 10.0.0.1 4789",
        "10.0.0.2 10.0.0.1 8472",
        "10.0.0.3 10.0.0.1 4789",
        "10.0.0.3 10.0.0.1 8472",
    ];
    assert_eq!(listed(&namespace, "peers4"), peers);
    assert_eq!(listed(&namespace, "peers6"), ["fd00::2 fd00::1 4789"]);
    let refused = namespace.sh("nft list set inet crosshost nonmembers4");
    let element = "elements = { 10.0.0.3 . 10.0.0.1 . 4789 . 0x4d }";
    assert!(refused.contains(element), "{refused}");
    let refused = namespace.sh("nft list set inet crosshost nonmembers6");
    let element = "elements = { fd00::2 . fd00::1 . 4789 . 0x1001 }";
    assert!(refused.contains(element), "{refused}");
    let ports = namespace.sh("nft list set inet crosshost any-source-port");
    assert!(ports.contains("elements = { 8472 }"), "{ports}");
    let segments = namespace.sh("nft list set inet crosshost segments");
    let element = "elements = { 4789 . 0x1001 }";
    assert!(segments.contains(element), "{segments}");
    assert_eq!(listed(&namespace, "together"), ["chga chha", "chha chga"]);

    // What nft prints it can read again.
    let saved = namespace.sh("nft list ruleset");
    let other = Namespace::new();
    other.sh(&format!("nft -f - <<'END'\n{saved}\nEND"));
    assert_eq!(other.sh("nft list ruleset"), saved);

    permitted.tunnels = sockets(&["10.0.0.1:8472"]);
    permitted.hosts = hosts(&["10.0.0.4"]);
    permit(&permitted);
    assert_eq!(listed(&namespace, "tunnels4"), ["10.0.0.1 8472"]);
    assert_eq!(listed(&namespace, "tunnels6"), [""; 0]);
    assert_eq!(listed(&namespace, "peers4"), ["10.0.0.4 10.0.0.1 8472"]);
    assert_eq!(listed(&namespace, "peers6"), [""; 0]);
}

#[test]
fn three_thousand_hosts_fit() {
    let namespace = Namespace::new();
    let address = |n: u32| IpAddr::from((0xfd00_u128 << 112 | u128::from(n)).to_be_bytes());
    let many = Permitted {
        tunnels: sockets(&["[fd01::1]:4789"]),
        hosts: (0..3000).map(address).collect(),
        ..Permitted::default()
    };
    namespace.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure(&CONFIG).unwrap();
        nft.permit(&many).unwrap();
    });
    assert_eq!(listed(&namespace, "peers6").len(), 3000);
    namespace.run(|| Nft::open().unwrap().permit(&Permitted::default()).unwrap());
    assert_eq!(listed(&namespace, "peers6").len(), 0);
}

#[test]
fn without_a_table_there_is_nothing_to_take_away() {
    Namespace::new().run(|| {
        let mut nft = Nft::open().unwrap();
        nft.permit(&Permitted::default()).unwrap();
        let permitted = Permitted {
            tunnels: sockets(&["10.0.0.1:4789"]),
            ..Permitted::default()
        };
        let error = nft.permit(&permitted).unwrap_err();
        assert!(error.to_string().contains("set tunnels4"), "{error}");
    });
}

/// VXLAN's header with a VNI, and some content.
pub(super) fn vxlan(vni: u32) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    [&[8, 0, 0, 0, a, b, c, 0], &b"mark"[..]].concat()
}

/// A datagram from here to there.
pub(super) fn send(from: &Namespace, to: SocketAddr, content: &[u8]) {
    from.run(|| {
        let any: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        // Where the sender's own rules refuse it, that is the outcome, not an error of the test.
        let _ = socket.send_to(content, to);
    });
}

pub(super) fn listener(at: &Namespace, to: SocketAddr) -> UdpSocket {
    let socket = at.run(|| UdpSocket::bind(to).unwrap());
    let patience = Some(Duration::from_millis(300));
    socket.set_read_timeout(patience).unwrap();
    socket
}

/// Two ends of a cable `v`, host 1 and host 2, with addresses of both families.
pub(super) fn cable(a: &Namespace, b: &Namespace) {
    a.sh(&format!("ip link add v type veth peer v netns {}", b.pid()));
    for (space, n) in [(a, 1), (b, 2)] {
        space.sh(&format!(
            "ip addr add 10.0.0.{n}/24 dev v; ip addr add fd00::{n}/64 dev v nodad; ip link set v up"
        ));
    }
    a.sh("ping -qnc1 -W3 10.0.0.2; for n in 1 2 3 4 5; do ping -6qnc1 -W1 fd00::2 && break; done");
}

#[test]
fn only_known_hosts_are_heard_and_nothing_of_them_is_tracked() {
    let (a, b) = (Namespace::new(), Namespace::new());
    cable(&a, &b);
    b.run(|| Nft::open().unwrap().ensure(&CONFIG).unwrap());
    // So that the kernel tracks connections at all.
    b.sh("nft add table inet other; nft add chain inet other in '{ type filter hook input priority 0; }'; nft add rule inet other in ct state new accept");
    let heard = |to: &str, port: u16| {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let listener = listener(&b, to);
        send(&a, to, &vxlan(7));
        listener.recv(&mut [0; 32]).is_ok()
    };
    let permit = |their: &[&str]| {
        let permitted = Permitted {
            tunnels: sockets(&["10.0.0.2:4789", "[fd00::2]:4789"]),
            hosts: hosts(their),
            ..Permitted::default()
        };
        b.run(|| Nft::open().unwrap().permit(&permitted).unwrap());
    };
    assert!(heard("10.0.0.2", 4789), "before there is a guard");
    permit(&["10.0.0.9", "fd00::9"]);
    for to in ["10.0.0.2", "fd00::2"] {
        assert!(!heard(to, 4789), "{to}: a stranger");
        assert!(
            heard(to, 4790),
            "{to}: what is no tunnel is not our business"
        );
    }
    permit(&["10.0.0.1", "fd00::1"]);
    b.sh("nft add rule inet other in udp dport 4789 ct state untracked counter comment untracked");
    for to in ["10.0.0.2", "fd00::2"] {
        assert!(heard(to, 4789), "{to}: a known host");
    }
    let counted = b.sh("nft list chain inet other in");
    assert!(counted.contains("counter packets 2"), "{counted}");
}

#[test]
fn a_host_is_heard_on_the_networks_in_which_it_has_a_part() {
    let (a, b) = (Namespace::new(), Namespace::new());
    cable(&a, &b);
    let permitted = Permitted {
        tunnels: sockets(&["10.0.0.2:4789", "[fd00::2]:4789"]),
        hosts: hosts(&["10.0.0.1", "fd00::1"]),
        nonmembers: [
            nonmember("10.0.0.1", "10.0.0.2:4789", 0x00ab_cdef),
            nonmember("fd00::1", "[fd00::2]:4789", 0x00ab_cdef),
        ]
        .into(),
        ..Permitted::default()
    };
    b.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure_permitting(&CONFIG, &permitted).unwrap();
    });
    for to in ["10.0.0.2", "fd00::2"] {
        let to = SocketAddr::new(to.parse().unwrap(), 4789);
        let heard = |content: &[u8]| {
            let listener = listener(&b, to);
            send(&a, to, content);
            listener.recv(&mut [0; 32]).is_ok()
        };
        assert!(!heard(&vxlan(0x00ab_cdef)), "{to}");
        assert!(heard(&vxlan(0x00ab_cdee)), "{to}: another network");
        assert!(heard(b"short"), "{to}: what has no VNI brings no frame");
    }
}

/// A host between a container and another host, whose tunnel hears everybody: what the first host lets out.
#[test]
fn nothing_but_the_kernels_tunnels_sends_to_tunnels() {
    let (container, host, other) = (Namespace::new(), Namespace::new(), Namespace::new());
    cable(&host, &other);
    host.sh(&format!(
        "ip link add c type veth peer c netns {}
         ip addr add 10.9.0.1/24 dev c; ip addr add fd09::1/64 dev c nodad; ip link set c up
         echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/c/rp_filter
         ip link add vx type vxlan id 7 srcport 512 1024 dstport 4789 local 10.0.0.1 remote 10.0.0.2 dev v
         ip addr add 10.7.0.1/24 dev vx; ip link set vx up; ip neigh add 10.7.0.2 lladdr 02:00:00:00:00:02 dev vx
         ip link add vx6 type vxlan id 8 srcport 512 1024 dstport 4789 local fd00::1 remote fd00::2 dev v
         ip addr add 10.8.0.1/24 dev vx6; ip link set vx6 up; ip neigh add 10.8.0.2 lladdr 02:00:00:00:00:02 dev vx6",
        container.pid()
    ));
    container.sh(
        "ip addr add 10.9.0.2/24 dev c; ip addr add fd09::2/64 dev c nodad; ip link set c up
         ip route add default via 10.9.0.1; ip route add default via fd09::1",
    );
    host.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure(&CONFIG).unwrap();
        nft.add_egress("10.9.0.0/24".parse().unwrap(), "c").unwrap();
        nft.add_egress("fd09::/64".parse().unwrap(), "c").unwrap();
    });
    let heard = |to: &str, port: u16, send: &dyn Fn(SocketAddr)| {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let listener = listener(&other, to);
        send(to);
        // A tunnel also carries what its host says on its own.
        let mut datagram = [0; 256];
        std::iter::from_fn(|| {
            listener
                .recv(&mut datagram)
                .ok()
                .map(|bytes| datagram[..bytes].ends_with(b"mark"))
        })
        .any(|it| it)
    };
    let from = |space: &Namespace| {
        let by = |port| {
            ["10.0.0.2", "fd00::2"].map(|to| heard(to, port, &|to| send(space, to, &vxlan(7))))
        };
        [by(4789), by(4790)]
    };
    let tunnels = || {
        let by = |to, inner: &str| {
            let inner = SocketAddr::new(inner.parse().unwrap(), 9);
            heard(to, 4789, &|_| send(&host, inner, b"mark"))
        };
        [by("10.0.0.2", "10.7.0.2"), by("fd00::2", "10.8.0.2")]
    };
    let all = [[true; 2]; 2];
    assert_eq!([from(&container), from(&host)], [all; 2], "without a guard");
    assert_eq!(tunnels(), [true; 2]);
    let permitted = Permitted {
        tunnels: sockets(&["10.0.0.1:4789", "[fd00::1]:4789"]),
        remotes: sockets(&["10.0.0.2:4789", "[fd00::2]:4789"]),
        ..Permitted::default()
    };
    host.run(|| Nft::open().unwrap().permit(&permitted).unwrap());
    let others = [[false; 2], [true; 2]];
    assert_eq!(from(&container), others, "a container, by NAT");
    assert_eq!(from(&host), others, "a program of the host");
    assert_eq!(tunnels(), [true; 2], "the kernel's own tunnel");

    // Where an earlier version made a tunnel that sends from any port, programs are not told from it.
    let open = Permitted {
        any_source_port: [4789].into(),
        ..permitted.clone()
    };
    host.run(|| Nft::open().unwrap().permit(&open).unwrap());
    assert_eq!(
        from(&host),
        all,
        "a program of the host, through old tunnels"
    );
    assert_eq!(from(&container), others, "a container, all the same");
    host.run(|| Nft::open().unwrap().permit(&permitted).unwrap());
    assert_eq!(from(&host), others, "again");

    // The same port of another address of the other host is not a tunnel.
    other.sh("ip addr add 10.0.0.3/24 dev v");
    assert!(heard("10.0.0.3", 4789, &|to| send(
        &container,
        to,
        &vxlan(7)
    )));
    // A host behind this one, as a virtual machine may be, may send to others. By which link it comes is not looked at.
    let behind = |address: &str| {
        container.sh(&format!("ip addr replace {address}/32 dev c"));
        let bind = SocketAddr::new(address.parse().unwrap(), 0);
        heard("10.0.0.2", 4789, &|to| {
            container.run(|| drop(UdpSocket::bind(bind).unwrap().send_to(&vxlan(7), to)));
        })
    };
    host.run(|| {
        let permitted = Permitted {
            remotes: sockets(&["10.0.0.2:4789", "10.0.0.4:4789", "10.9.0.3:4789"]),
            ..permitted
        };
        Nft::open().unwrap().permit(&permitted).unwrap();
    });
    assert!(behind("10.9.0.3"), "where the way back is the same");
    assert!(behind("10.0.0.4"), "where the way back is another");
    assert!(!behind("10.9.0.4"), "no host");
}

/// A container whose link to its host is one of ours, and that has a second one by another name, on which no rule looks; both hosts
/// route to its addresses.
fn attach(link: &str, container: &Namespace, host: &Namespace, other: &Namespace) {
    cable(host, other);
    other.sh("ip route add 10.9.0.0/16 via 10.0.0.1; ip route add fd09::/32 via fd00::1");
    host.sh(&format!(
        "ip link add {link} type veth peer ours netns {container}
         ip link add theirs type veth peer theirs netns {container}
         echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
         for link in {link} theirs; do echo 0 > /proc/sys/net/ipv4/conf/$link/rp_filter; done
         ip addr add 10.9.0.1/24 dev {link}; ip addr add fd09::1/64 dev {link} nodad
         ip addr add 10.9.1.1/24 dev theirs; ip addr add fd09:0:0:1::1/64 dev theirs nodad
         ip link set {link} up; ip link set theirs up
         echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        container = container.pid()
    ));
    container.sh(
        "ip addr add 10.9.0.2/24 dev ours; ip addr add fd09::2/64 dev ours nodad
         ip addr add 10.9.1.2/24 dev theirs; ip addr add fd09:0:0:1::2/64 dev theirs nodad
         ip link set lo up; ip link set ours up; ip link set theirs up
         ip addr add 10.0.0.3/32 dev lo; ip addr add fd00::3/128 dev lo
         ip addr add 10.9.2.2/32 dev lo; ip addr add fd09:0:0:2::2/128 dev lo
         for hop in fd09::1 fd09:0:0:1::1; do
             for n in 1 2 3 4 5 6; do ping -6qnc1 -W1 $hop && break; done
         done",
    );
    let permitted = Permitted {
        tunnels: sockets(&["10.0.0.1:4789", "[fd00::1]:4789"]),
        remotes: sockets(&["10.0.0.2:4789", "[fd00::2]:4789"]),
        hosts: hosts(&["10.0.0.3", "fd00::3"]),
        ..Permitted::default()
    };
    host.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure(&CONFIG).unwrap();
        nft.permit(&permitted).unwrap();
    });
}

#[test]
fn what_comes_by_our_links_goes_to_no_tunnel_and_from_addresses_that_lead_back() {
    const OWN: [&str; 2] = ["10.0.0.1", "fd00::1"];
    const THERE: [&str; 2] = ["10.0.0.2", "fd00::2"];
    const ADDRESS: [&str; 2] = ["10.9.0.2", "fd09::2"];
    const MEMBER: [&str; 2] = ["10.0.0.3", "fd00::3"];
    const FOREIGN: [&str; 2] = ["10.9.2.2", "fd09:0:0:2::2"];
    for link in ["ch-egress", "chg0", "chh0"] {
        let (container, host, other) = (Namespace::new(), Namespace::new(), Namespace::new());
        attach(link, &container, &host, &other);
        // By the link `dev` of the container, of either version of IP.
        let sent = |dev: &str, from: [&str; 2], to: [&str; 2], port: u16| {
            for hop in match dev {
                "ours" => ["10.9.0.1", "fd09::1"],
                _ => ["10.9.1.1", "fd09:0:0:1::1"],
            } {
                container.sh(&format!("ip route replace default via {hop} dev {dev}"));
            }
            let receiver = if to == OWN { &host } else { &other };
            [0, 1].map(|family| {
                let to = SocketAddr::new(to[family].parse().unwrap(), port);
                let from = SocketAddr::new(from[family].parse().unwrap(), 0);
                let listener = listener(receiver, to);
                let send = || UdpSocket::bind(from).unwrap().send_to(&vxlan(7), to);
                // Where it has no route, that is the outcome.
                let _ = container.run(send);
                listener.recv(&mut [0; 32]).is_ok()
            })
        };
        for (what, from, to, port, passes) in [
            ("to the tunnel of this host", MEMBER, OWN, 4789, false),
            ("to that of another", ADDRESS, THERE, 4789, false),
            ("what is no tunnel", ADDRESS, THERE, 4790, true),
            ("to this host", ADDRESS, OWN, 4790, true),
            ("from elsewhere", FOREIGN, THERE, 4790, false),
        ] {
            assert_eq!(sent("ours", from, to, port), [passes; 2], "{link}: {what}");
        }
        for (from, to, port) in [(MEMBER, OWN, 4789), (FOREIGN, THERE, 4790)] {
            let by_another = sent("theirs", from, to, port);
            assert_eq!(by_another, [true; 2], "by another link: {from:?}");
        }
        // A route by another link to a segment is enough for a link to a segment.
        host.sh(
            "ip link add chg9 type veth peer chp9; ip link set chg9 up; ip link set chp9 up
             ip route add 10.9.2.0/24 dev chg9; ip route add fd09:0:0:2::/64 dev chg9",
        );
        let beside = [link != "ch-egress"; 2];
        let found = sent("ours", FOREIGN, THERE, 4790);
        assert_eq!(found, beside, "{link}: routed beside");
    }
}
