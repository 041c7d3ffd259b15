//! Which machines may send to a tunnel: the nodes of the cluster and no others.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use integration::{Attachment, Backend, Container, Lab, Namespace, conflist, detach_all};

const PORT: u16 = 9999;

/// Three hosts, of which the third is not known yet.
fn lab() -> Lab {
    let lab = Lab::new(3, Backend::Dir);
    lab.install(&conflist("ov_net1", "10.0.0.0/24"));
    for host in &lab.hosts()[..2] {
        host.sync();
    }
    lab
}

/// A machine on the underlay that speaks VXLAN of the same VNI to docker01, and knows the MAC of its container.
fn stranger(lab: &Lab, vni: u64, target: IpAddr) -> Namespace {
    let stranger = Namespace::new("stranger", Some(lab.router()));
    lab.router().script(&format!(
        "ip link add stranger master underlay up type veth peer name ens3 netns {}",
        stranger.pid()
    ));
    let IpAddr::V4(v4) = target else {
        panic!("{target}: of IPv4")
    };
    let [a, b, c, d] = v4.octets();
    stranger.script(&format!(
        "ip address add 192.168.1.66/24 dev ens3
         ip link set ens3 up
         ip link add vx type vxlan id {vni} dstport 4789 remote 192.168.1.11 local 192.168.1.66 dev ens3
         ip address add 10.0.0.250/24 dev vx
         ip link set vx up
         ip neighbour add {target} lladdr 02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x} dev vx"
    ));
    stranger
}

/// Whether a datagram from `from` reaches the container.
fn reaches(from: &Namespace, container: &Container<'_>, address: IpAddr) -> bool {
    let listener = container
        .net()
        .run(|| UdpSocket::bind((address, PORT)).expect("a socket"));
    let patience = Some(Duration::from_millis(500));
    listener.set_read_timeout(patience).expect("a time-out");
    from.net().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(b"forged", (address, PORT)).expect("sent");
    });
    listener.recv(&mut [0; 16]).is_ok()
}

fn peers(lab: &Lab) -> String {
    let list = "nft list set inet crosshost peers4";
    lab.host(1).run(list).ok().stdout
}

#[test]
fn forged_packets_are_dropped() {
    let lab = lab();
    let host = lab.host(1);
    let (t1, t2) = (
        Attachment::new(host, "t1", "ov_net1"),
        Attachment::new(lab.host(2), "t2", "ov_net1"),
    );
    let network = host.listed("network inspect ov_net1");
    let vni = network["vni"].as_u64().expect("a VNI");
    let stranger = stranger(&lab, vni, t1.address);
    assert!(!reaches(&stranger, &t1.container, t1.address));
    assert!(t2.container.pings(t1.address, &[]), "a node is heard");

    // It is the guard that stops them, and a sync brings it back.
    host.script("nft flush ruleset");
    assert!(reaches(&stranger, &t1.container, t1.address));
    host.sync();
    assert!(!reaches(&stranger, &t1.container, t1.address));
    assert!(t2.container.pings(t1.address, &[]), "a node is heard");

    detach_all([t1, t2]);
}

#[test]
fn a_node_that_comes_is_let_in_and_one_that_goes_is_not() {
    let lab = lab();
    let t1 = Attachment::new(lab.host(1), "t1", "ov_net1");
    assert!(!peers(&lab).contains("192.168.1.13"));
    let third = lab.host(3);
    let t3 = Attachment::new(third, "t3", "ov_net1");
    lab.host(1).sync();
    assert!(peers(&lab).contains("192.168.1.13"), "{}", peers(&lab));
    assert!(t3.container.pings(t1.address, &[]));

    t3.detach().ok();
    let remove = "node rm docker03 --force";
    lab.host(1).crosshost(remove).ok();
    lab.host(1).sync();
    assert!(!peers(&lab).contains("192.168.1.13"), "{}", peers(&lab));
    t1.detach().ok();
}

#[test]
fn the_guard_goes_with_the_last_network_that_needs_it() {
    let lab = lab();
    let host = lab.host(1);
    let mut internal = conflist("inside", "10.0.5.0/24");
    internal["plugins"][0]["egress"] = "none".into();
    internal["plugins"][0]["vxlanPort"] = 8472.into();
    host.install(&internal);
    let untouched = host.footprint();
    let tunnels = || {
        let list = "nft list set inet crosshost tunnels4";
        host.run(list).ok().stdout
    };
    let t1 = Attachment::new(host, "t1", "ov_net1");
    let inside = Attachment::new(host, "t2", "inside");
    assert!(tunnels().contains("192.168.1.11 . 4789") && tunnels().contains("192.168.1.11 . 8472"));
    t1.end();
    assert!(
        !tunnels().contains("4789") && tunnels().contains("8472"),
        "{}",
        tunnels()
    );
    inside.end();
    host.assert_same_as(&untouched, "after the last DEL");
}
