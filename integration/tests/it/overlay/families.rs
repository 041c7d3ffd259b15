//! Every family inside over every family outside: what a user of IPv6 expects of a segment.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream},
    time::Duration,
};

use integration::{
    Attachment, Backend, Container, Host, Lab, Server, addresses_in, conflist, detach_all, end_all,
    until,
};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

const NETWORK: &str = "ov_net1";
/// Bytes of a transfer: many segments, so that the kernel hands over large ones and leaves sums to others.
const BULK: usize = 1 << 20;

/// Two hosts that know each other, over an underlay of IPv6 if so wanted.
fn lab(subnets: &str, over_ipv6: bool) -> Lab {
    let lab = Lab::new(2, Backend::Dir);
    for host in lab.hosts() {
        if over_ipv6 {
            host.tunnel_from(&host.address6());
        }
        host.install(&conflist(NETWORK, subnets));
        host.sync();
    }
    lab
}

fn addresses(attached: &Attachment<'_>) -> Vec<IpAddr> {
    let all = addresses_in(&attached.result).into_iter();
    all.filter_map(|address| address.split('/').next().map(str::to_owned))
        .map(|address| address.parse().expect("an address"))
        .filter(|address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[0] == 10,
            IpAddr::V6(v6) => v6.segments()[0] == 0xfd00,
        })
        .collect()
}

/// Sends [`BULK`] bytes from one container to another's address at once; how many arrived.
fn transfers(from: &Container<'_>, to: &Container<'_>, address: IpAddr) -> usize {
    let server = Server::start(
        to.net(),
        SocketAddr::new(address, 7000),
        |mut connection| {
            let mut heard = Vec::new();
            if connection.read_to_end(&mut heard).is_ok() {
                let _ = write!(connection, "{}", heard.len());
            }
        },
    );
    let to = server.address();
    let said = from.net().run(move || {
        let patience = Duration::from_secs(5);
        let mut connection = TcpStream::connect_timeout(&to, patience).expect("a connection");
        connection
            .set_read_timeout(Some(patience))
            .expect("a time-out");
        connection.write_all(&vec![7; BULK]).expect("sent");
        connection
            .shutdown(std::net::Shutdown::Write)
            .expect("an end");
        let mut said = String::new();
        connection.read_to_string(&mut said).expect("an answer");
        said
    });
    said.parse().expect("a number")
}

/// The link-local addresses of the interface that can be used now.
fn link_locals(container: &Container<'_>, ifname: &str) -> Vec<String> {
    let words = format!("address show dev {ifname} scope link -tentative");
    let listing = container.ip(&words);
    let found = listing[0]["addr_info"].as_array().into_iter().flatten();
    let found = found.filter_map(|one| one["local"].as_str().map(str::to_owned));
    found.collect()
}

#[test]
fn link_local_addresses_can_be_used_as_soon_as_add_returns() {
    let lab = lab("10.0.0.0/24 fd00:1::/64", false);
    let [t1, t2] = Attachment::on_each(&lab, NETWORK);
    let ping = |from: &Attachment<'_>, to: &str, ifname: &str| {
        let address = format!("{to}%{ifname}");
        let words = ["ping", "-n", "-c1", "-W2", &address];
        from.container.run(&words).ok();
    };
    let [own, others] = [&t1, &t2].map(|it| link_locals(&it.container, "eth0"));
    assert_eq!((own.len(), others.len()), (1, 1), "{own:?}, {others:?}");
    assert_eq!(link_locals(&t1.container, "gw0").len(), 1);
    ping(&t1, &others[0], "eth0");
    ping(&t2, &own[0], "eth0");
    ping(&t1, "fe80::1", "gw0");
    let mac = t1.container.link("eth0")["address"].clone();
    assert_eq!(mac, "02:42:0a:00:00:02");
    assert_eq!(own, ["fe80::42:aff:fe00:2"], "as the kernel makes it");
}

/// Frames that left through the network's tunnel device on a host.
fn tunnelled(host: &Host) -> u64 {
    let links = host.in_sandbox(NETWORK, "ip -s -j link show vxlan0");
    let links: serde_json::Value = links.parse().expect("JSON");
    links[0]["stats64"]["tx"]["packets"]
        .as_u64()
        .expect("a count")
}

#[test]
fn every_family_works_over_every_underlay_as_soon_as_add_returns() {
    let families = [
        "10.0.0.0/24",
        "10.0.0.0/24 10.0.1.0/24",
        "fd00:1::/64 10.0.0.0/24",
        "fd00:1::/64",
        "fd00:1::/64 fd00:2::/64",
    ];
    for (subnets, over_ipv6) in families.into_iter().flat_map(|f| [(f, false), (f, true)]) {
        let case = format!("{subnets}, over IPv6: {over_ipv6}");
        let lab = lab(subnets, over_ipv6);
        let before = lab.footprints();
        let [t1, t2] = Attachment::on_each(&lab, NETWORK);
        let targets = addresses(&t2);
        assert_eq!(
            targets.len(),
            subnets.split(' ').count(),
            "{case}: {targets:?}"
        );
        for address in targets {
            // At once: nothing waits for the end of duplicate address detection.
            assert_eq!(
                transfers(&t1.container, &t2.container, address),
                BULK,
                "{case}: {address}"
            );
        }
        let mtu = if over_ipv6 { 1430 } else { 1450 };
        assert_eq!(t1.container.link("eth0")["mtu"], mtu, "{case}");
        end_all([t1, t2]);
        lab.assert_same_as(&before, &case);
    }
}

#[test]
fn neighbours_on_other_hosts_are_not_asked_for_over_the_tunnel() {
    for subnet in ["10.0.0.0/24", "fd00:1::/64"] {
        let lab = lab(subnet, false);
        let [t1, t2] = Attachment::on_each(&lab, NETWORK);
        assert!(t1.container.pings(t2.address, &[]));
        // Beside it a new interface's own multicasts may leave: the least of some tries tells.
        let frames = (0..5).map(|_| {
            t1.container.run("ip neighbour flush all").ok();
            let before = tunnelled(lab.host(1));
            assert!(t1.container.pings(t2.address, &[]));
            tunnelled(lab.host(1)) - before
        });
        assert_eq!(frames.min(), Some(1), "{subnet}: the echo, and no question");
        detach_all([t1, t2]);
    }
}

/// A router advertisement to all of the segment: a default route and a prefix to make addresses of (RFC 4861).
fn advertise(container: &Container<'_>) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08];
    message.extend([0; 8]);
    message.extend([
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0,
    ]);
    let prefix: Ipv6Addr = "2001:db8:bad::".parse().expect("a prefix");
    message.extend(prefix.octets());
    let index = u32::try_from(
        container.link("eth0")["ifindex"]
            .as_u64()
            .expect("an index"),
    );
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let to = SocketAddrV6::new(all, 0, 0, index.expect("an index"));
    container.net().run(|| {
        let protocol = Some(ipproto::ICMPV6);
        let raw = socket(AddressFamily::INET6, SocketType::RAW, protocol).expect("a raw socket");
        sockopt::set_ipv6_multicast_hops(&raw, 255).expect("a hop limit");
        for _ in 0..3 {
            sendto(&raw, &message, SendFlags::empty(), &to).expect("sent");
        }
    });
}

/// Addresses of IPv6 beyond the link, and routes.
fn configured(container: &Container<'_>) -> [String; 2] {
    let addresses = ["ip", "-6", "-o", "address", "show", "scope", "global"];
    [&addresses[..], &["ip", "-6", "route"]].map(|words| container.run(words).ok().stdout)
}

#[test]
fn no_container_passes_for_a_router() {
    let subnets = "10.0.0.0/24 fd00:1::/64";
    let lab = lab(subnets, false);
    // The guard of their ports is open: nobody listens all the same.
    let mut open = conflist(NETWORK, subnets);
    open["plugins"][0]["spoofchk"] = false.into();
    lab.install(&open);
    let liar = Attachment::new(lab.host(1), "liar", NETWORK);
    let near = Attachment::new(lab.host(1), "near", NETWORK);
    let far = Attachment::new(lab.host(2), "far", NETWORK);
    let before = [&near, &far].map(|attached| configured(&attached.container));
    // One that listens shows that the advertisement arrives.
    let gullible = Attachment::new(lab.host(2), "gullible", NETWORK);
    gullible
        .container
        .sysctl("net/ipv6/conf/eth0/accept_ra", "2");
    gullible
        .container
        .sysctl("net/ipv6/conf/eth0/autoconf", "1");
    let fooled = || configured(&gullible.container)[0].contains("2001:db8:bad:");
    until(Duration::from_secs(10), "fooled", || {
        advertise(&liar.container);
        fooled()
    });
    assert_eq!(
        before,
        [&near, &far].map(|attached| configured(&attached.container))
    );
    for host in lab.hosts() {
        let own = host.run("ip -6 address").ok().stdout;
        for said in [own, host.in_sandbox(NETWORK, "ip -6 address")] {
            assert!(!said.contains("2001:db8:bad:"), "{said}");
        }
    }
    detach_all([liar, near, far, gullible]);
}

#[test]
fn a_host_whose_tunnel_address_changes_is_found_again() {
    let lab = Lab::new(2, Backend::Dir);
    let two = lab.host(2);
    lab.install(&conflist(NETWORK, "10.0.0.0/24"));
    two.underlay("ens3");
    lab.sync();
    let t1 = Attachment::new(lab.host(1), "t1", NETWORK);
    let t2 = Attachment::new(two, "t2", NETWORK);
    assert!(t1.container.pings(t2.address, &[]));

    // As a DHCP server would have it.
    two.script(
        "ip address add 192.168.1.77/24 dev ens3; ip address del 192.168.1.12/24 dev ens3
         ip address add 192.168.1.77/24 dev ens3 2>/dev/null || true; ip route replace default via 192.168.1.1",
    );
    assert!(
        !t1.container.pings(t2.address, &[]),
        "no host has the old address"
    );
    two.sync();
    lab.host(1).sync();
    assert!(t1.container.pings(t2.address, &[]));
    assert!(t2.container.pings(t1.address, &[]));
    let third = Attachment::new(two, "t3", NETWORK);
    assert!(third.container.pings(t1.address, &[]));
    detach_all([t1, t2, third]);
}
