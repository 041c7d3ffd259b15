//! At which addresses of a host its segments are heard.

use std::net::{SocketAddr, UdpSocket};

use crate::{Nft, Permitted};

use super::CONFIG;
use super::kit::Namespace;
use super::tunnels::{cable, hosts, listener, send, sockets, vxlan};

/// The socket of a tunnel hears on all addresses of its host.
#[test]
fn a_segment_is_heard_at_the_address_of_its_tunnel_only() {
    let (a, b) = (Namespace::new(), Namespace::new());
    cable(&a, &b);
    b.sh("ip addr add 10.0.0.3/24 dev v; ip addr add fd00::3/64 dev v nodad; ip link set lo up
          for n in $(seq 50); do ip -6 address show dev v tentative | grep -q . || break; sleep 0.1; done");
    a.sh("for n in $(seq 50); do ip -6 address show dev v tentative | grep -q . || break; sleep 0.1; done
          ping -6qnc1 -W3 fd00::3");
    let permitted = Permitted {
        tunnels: sockets(&["10.0.0.2:4789", "[fd00::2]:4789"]),
        hosts: hosts(&["10.0.0.1", "fd00::1"]),
        segments: [(4789, 0x00ab_cdef)].into(),
        ..Permitted::default()
    };
    let index = a.sh("ip -o link show v | cut -d: -f1");
    let here = b.sh("ip -o link show v | cut -d: -f1");
    let local = b.sh("ip -6 -br address show dev v scope link");
    let local = local.split_whitespace().nth(2).unwrap_or_default();
    let local = local.split('/').next().unwrap_or_default();
    let scoped = |to: &str, scope: &str| {
        let scope = scope.trim().parse().unwrap();
        std::net::SocketAddrV6::new(to.parse().unwrap(), 4789, 0, scope).into()
    };
    let of = |to: &str| SocketAddr::new(to.parse().unwrap(), 4789);
    let cases = [
        (&a, of("10.0.0.2"), true),
        (&a, of("fd00::2"), true),
        (&a, of("10.0.0.3"), false),
        (&a, of("10.0.0.255"), false),
        (&a, of("255.255.255.255"), false),
        (&a, of("fd00::3"), false),
        (&a, scoped(local, &index), false),
        (&a, scoped("ff02::1", &index), false),
        (&b, of("127.0.0.1"), false),
        (&b, of("10.0.0.3"), false),
        (&b, of("::1"), false),
        (&b, scoped("ff02::1", &here), false),
    ];
    let heard = |from: &Namespace, to: SocketAddr, vni| {
        // As the kernel binds the socket of a tunnel.
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let listener = listener(&b, of(any));
        if to.is_ipv4() {
            from.run(|| {
                let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
                socket.set_broadcast(true).unwrap();
                let _ = socket.send_to(&vxlan(vni), to);
            });
        } else {
            send(from, to, &vxlan(vni));
        }
        listener.recv(&mut [0; 32]).is_ok()
    };
    a.sh("ip route add 255.255.255.255 dev v");
    for (from, to, _) in cases {
        assert!(heard(from, to, 0x00ab_cdef), "{to}: without a table");
    }
    b.run(|| {
        let mut nft = Nft::open().unwrap();
        nft.ensure_permitting(&CONFIG, &permitted).unwrap();
    });
    for (from, to, is_tunnel) in cases {
        assert_eq!(heard(from, to, 0x00ab_cdef), is_tunnel, "{to}");
        assert!(heard(from, to, 0x00ab_cdee), "{to}: another program's VNI");
    }
}
