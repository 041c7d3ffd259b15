//! What the rules do to packets: which client address the server sees. A TCP connection tells, for both versions of IP.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::Nft;

use super::CONFIG;
use super::kit::Namespace;

/// Two containers on the router's egress bridge, and a server on the other side of the router. The containers have no route
/// to each other but through the router, so that their traffic passes its postrouting hook (as port publishing makes it do).
struct Lab {
    container: Namespace,
    neighbour: Namespace,
    router: Namespace,
    server: Namespace,
}

/// Addresses in one version of IP.
struct Plan {
    egress: &'static str,
    container: &'static str,
    neighbour: &'static str,
    /// The router's one towards the server.
    outside: &'static str,
    server: &'static str,
}

const PLANS: [Plan; 2] = [
    Plan {
        egress: "10.1.0.0/24",
        container: "10.1.0.2",
        neighbour: "10.1.0.3",
        outside: "10.2.0.1",
        server: "10.2.0.2",
    },
    Plan {
        egress: "fd01::/64",
        container: "fd01::2",
        neighbour: "fd01::3",
        outside: "fd02::1",
        server: "fd02::2",
    },
];

impl Lab {
    fn new() -> Self {
        let [container, neighbour, router, server] = [(); 4].map(|()| Namespace::new());
        router.sh(&format!(
            "ip link add ch-egress type bridge
             ip link add c0 type veth peer eth0 netns {}
             ip link add c1 type veth peer eth0 netns {}
             ip link add out type veth peer eth0 netns {}
             ip link set c0 master ch-egress
             ip link set c1 master ch-egress
             for link in ch-egress c0 c1 out; do ip link set $link up; done
             ip addr add 10.1.0.1/24 dev ch-egress
             ip addr add fd01::1/64 dev ch-egress nodad
             ip addr add 10.2.0.1/24 dev out
             ip addr add fd02::1/64 dev out nodad
             echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            container.pid(),
            neighbour.pid(),
            server.pid()
        ));
        for (namespace, host) in [(&container, 2), (&neighbour, 3)] {
            namespace.sh(&format!(
                "ip link set eth0 up
                 ip addr add 10.1.0.{host}/32 dev eth0
                 ip addr add fd01::{host}/128 dev eth0 nodad
                 ip route add 10.1.0.1 dev eth0
                 ip route add fd01::1 dev eth0
                 ip route add default via 10.1.0.1
                 ip route add default via fd01::1"
            ));
        }
        // No route back to the containers: only a masqueraded connection is answered.
        server.sh("ip link set eth0 up
             ip addr add 10.2.0.2/24 dev eth0
             ip addr add fd02::2/64 dev eth0 nodad");
        Self {
            container,
            neighbour,
            router,
            server,
        }
    }
}

/// The address under which `to`, listening at `at`, sees `from`, which connects to that port of `by`; None if it cannot.
fn seen(from: &Namespace, to: &Namespace, at: &str, by: &str) -> Option<IpAddr> {
    let [at, by]: [IpAddr; 2] = [at, by].map(|text| text.parse().unwrap());
    let listener = to.run(|| TcpListener::bind((at, 0)).unwrap());
    let address = SocketAddr::new(by, listener.local_addr().unwrap().port());
    let mut client = from
        .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)))
        .ok()?;
    let (mut accepted, peer) = listener.accept().unwrap();
    accepted.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    Some(peer.ip())
}

#[test]
fn a_container_leaves_as_its_host_but_meets_its_neighbours_as_itself() {
    let lab = Lab::new();
    for plan in PLANS {
        let outwards = seen(&lab.container, &lab.server, plan.server, plan.server);
        assert_eq!(outwards, None, "without us the server cannot answer");
    }
    for plan in PLANS {
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let egress = plan.egress.parse().unwrap();
        let outwards = || seen(&lab.container, &lab.server, plan.server, plan.server);

        lab.router.run(|| {
            let mut nft = Nft::open().unwrap();
            nft.ensure(&CONFIG).unwrap();
        });
        // A connection with ports is hidden by the bridge by which it comes; other packets are by the set.
        assert_eq!(outwards(), address(plan.outside), "by chain client-ports");
        lab.router
            .run(|| Nft::open().unwrap().add_egress(egress, "gw").unwrap());
        assert_eq!(outwards(), address(plan.outside));
        let neighbour = |by| seen(&lab.container, &lab.neighbour, plan.neighbour, by);
        assert_eq!(neighbour(plan.neighbour), None, "nobody led it there");
        let family = if plan.outside.contains(':') {
            "ip6"
        } else {
            "ip"
        };
        lab.router.sh(&format!(
            "nft add table {family} led
             nft add chain {family} led to '{{ type nat hook prerouting priority -100; }}'
             nft add rule {family} led to {family} daddr {} dnat to {}",
            plan.outside, plan.neighbour
        ));
        assert_eq!(
            neighbour(plan.outside),
            address(plan.container),
            "what stays on the bridge keeps its source"
        );
        lab.router
            .run(|| assert!(Nft::open().unwrap().remove_egress(egress).unwrap()));
        assert_eq!(outwards(), address(plan.outside), "still by the chain");
    }
}
