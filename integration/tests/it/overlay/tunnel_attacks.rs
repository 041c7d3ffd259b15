//! Nothing that a container, a program of a host, or a host that has no part in a network sends reaches its tunnel: VXLAN made by hand
//! brings no frame into a network, over an underlay of IPv4 or IPv6. Each attack has a control: the same datagram to a port that is no
//! tunnel, or to a network in which the sender has a part, arrives.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    time::Duration,
};

use integration::{Attachment, Backend, Host, Lab, Net, conflist, end_all};
use serde_json::Value;

/// Where the victim listens, and where a host does.
const PORT: u16 = 9999;
/// Where tunnels end.
const TUNNEL: u16 = 4789;
/// How often each attack is tried.
const TRIES: usize = 5;

/// VXLAN around a UDP datagram to the victim.
fn forged(vni: u32, victim: IpAddr) -> Vec<u8> {
    let IpAddr::V4(victim) = victim else {
        panic!("{victim}: of IPv4")
    };
    let to = victim.octets();
    let from = [to[0], to[1], to[2], 250];
    let udp = [
        &9_u16.to_be_bytes()[..],
        &PORT.to_be_bytes(),
        &[0, 14, 0, 0],
        b"forged",
    ]
    .concat();
    let mut ip = vec![0x45, 0, 0, 34, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend([from, to].concat());
    let sum: u32 = ip
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("a sum");
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [&[2, 0x42][..], &to, &[2, 0, 0, 0, 0, 9, 8, 0]].concat();
    let vni = (vni << 8).to_be_bytes();
    [&[8, 0, 0, 0][..], &vni, &ethernet, &ip, &udp].concat()
}

/// All addresses of the version of IP that this one has.
fn any(of: IpAddr) -> IpAddr {
    if of.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    }
}

/// How many datagrams come.
fn count(listener: &UdpSocket) -> usize {
    std::iter::from_fn(|| listener.recv(&mut [0; 64]).ok()).count()
}

/// Datagrams of a user of the host who has no rights.
fn sends_as_nobody(host: &Host, content: &[u8], to: SocketAddr) {
    // In one piece, which a shell's own words are not.
    host.namespace().write("/run/datagram", content);
    let (address, port) = (to.ip(), to.port());
    let send = format!(
        "test $(id -u) = 65534
         for _ in $(seq {TRIES}); do cat /run/datagram >/dev/udp/{address}/{port} || true; done"
    );
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let bash = ["bash", "-euc", &send];
    host.run(&[&nobody[..], &bash].concat()).ok();
}

fn listener(net: &Net, at: SocketAddr) -> UdpSocket {
    let socket = net.run(|| UdpSocket::bind(at).expect("a socket"));
    let patience = Some(Duration::from_millis(400));
    socket.set_read_timeout(patience).expect("a time-out");
    socket
}

/// The lab of one attack: a victim on another host, and what is sent to its network.
struct Target<'lab> {
    victim: Attachment<'lab>,
    vni: u32,
}

impl Target<'_> {
    /// How many of the frames arrive that are sent from `net` to the tunnel of `host`, with the source address `from`.
    fn frames(&self, net: &Net, from: Option<IpAddr>, host: IpAddr) -> usize {
        self.frames_at(net, from, (host, TUNNEL).into())
    }

    fn frames_at(&self, net: &Net, from: Option<IpAddr>, at: SocketAddr) -> usize {
        let address = self.victim.address;
        let listener = listener(&self.victim.container.net(), (address, PORT).into());
        let content = forged(self.vni, address);
        net.run(|| {
            let from = from.unwrap_or(any(at.ip()));
            let socket = UdpSocket::bind((from, 0)).expect("a socket");
            socket.set_broadcast(true).expect("an option");
            for _ in 0..TRIES {
                // What the sender's own host refuses is not sent.
                let _ = socket.send_to(&content, at);
            }
        });
        count(&listener)
    }

    /// The same of a user of the host who has no rights.
    fn frames_of_nobody(&self, host: &Host, to: IpAddr) -> usize {
        let address = self.victim.address;
        let listener = listener(&self.victim.container.net(), (address, PORT).into());
        sends_as_nobody(host, &forged(self.vni, address), (to, TUNNEL).into());
        count(&listener)
    }
}

/// Whether a datagram from there to a port of the host that is no tunnel arrives, sooner or later.
fn is_heard(net: &Net, host: &Host, at: IpAddr) -> bool {
    (0..25).any(|_| is_heard_now(net, host, at))
}

fn is_heard_now(net: &Net, host: &Host, at: IpAddr) -> bool {
    let listener = listener(&host.namespace().net(), (at, PORT).into());
    net.run(|| {
        let socket = UdpSocket::bind((any(at), 0)).expect("a socket");
        socket.send_to(b"honest", (at, PORT)).expect("sent");
    });
    listener.recv(&mut [0; 16]).is_ok()
}

/// The tunnel address of a host.
fn address(host: &Host, over6: bool) -> IpAddr {
    let address6 = host.address6();
    let address = if over6 { &address6 } else { host.vtep() };
    address.parse().expect("an address")
}

/// Hosts whose tunnels go over IPv4 or IPv6.
fn lab(hosts: u8, over6: bool) -> Lab {
    let lab = Lab::new(hosts, Backend::Dir);
    for host in lab.hosts().iter().filter(|_| over6) {
        host.tunnel_from(&host.address6());
    }
    lab
}

/// Networks of both versions of IP: one whose way out is NAT, one with a gateway, and the one that is attacked.
fn networks() -> [Value; 3] {
    let mut gateway = conflist("gw", "10.0.7.0/24 fd00:7::/64");
    gateway["plugins"][0]["egress"] = "gateway".into();
    [
        conflist("nat", "10.0.6.0/24 fd00:6::/64"),
        gateway,
        conflist("secret", "10.0.5.0/24 fd00:5::/64"),
    ]
}

fn target<'lab>(host: &'lab Host, network: &str) -> Target<'lab> {
    let victim = Attachment::new(host, &format!("victim-{network}"), network);
    let inspected = host.listed(&format!("network inspect {network}"));
    let vni = inspected["vni"].as_u64().expect("a VNI");
    let vni = u32::try_from(vni).expect("24 bits");
    Target { victim, vni }
}

/// By NAT of the egress NIC, by the gateway, and to the tunnel of its own host; the victim is on a network of its own.
fn by_a_container(over6: bool) {
    let lab = lab(2, over6);
    lab.sync();
    let (one, two) = (lab.host(1), lab.host(2));
    for conflist in &networks() {
        lab.install(conflist);
    }
    let target = target(two, "secret");
    let by_nat = Attachment::new(one, "nat", "nat");
    let by_gateway = Attachment::new(one, "gw", "gw");
    // A member of the network, whose address is that of the host from which the attack comes.
    let member = Attachment::new(one, "member", "secret");
    assert!(member.container.pings(target.victim.address, &[]));
    let there = address(two, over6);
    for attacker in [&by_nat, &by_gateway] {
        let (name, net) = (attacker.container.name(), attacker.container.net());
        assert!(is_heard(&net, two, there), "{name}: another port");
        assert_eq!(target.frames(&net, None, there), 0, "{name}");
    }
    // To the own host, with the address of a member.
    let own = Attachment::new(one, "own", "secret");
    let target = Target {
        victim: own,
        vni: target.vni,
    };
    let add = if over6 {
        format!("ip address replace {there}/128 dev lo nodad")
    } else {
        format!("ip address replace {there}/32 dev lo")
    };
    // IPv6 has no such filter.
    let filters: &[_] = if over6 { &["0"] } else { &["0", "2"] };
    for filter in filters {
        one.script(&format!(
            "for key in all ch-egress; do echo {filter} > /proc/sys/net/ipv4/conf/$key/rp_filter; done"
        ));
        by_nat.container.run(&add).ok();
        let net = by_nat.container.net();
        let frames = target.frames(&net, Some(there), address(one, over6));
        assert_eq!(frames, 0, "rp_filter {filter}");
    }
    assert!(member.container.pings(target.victim.address, &[]));
    end_all([by_nat, by_gateway, member, target.victim]);
}

#[test]
fn a_container_reaches_no_tunnel() {
    by_a_container(false);
}

#[test]
fn a_container_reaches_no_tunnel_over_ipv6() {
    by_a_container(true);
}

fn by_a_program(over6: bool) {
    let lab = lab(2, over6);
    lab.sync();
    lab.install(&conflist("net1", "10.0.0.0/24"));
    let (one, two) = (lab.host(1), lab.host(2));
    let [here, there] = [one, two].map(|host| address(host, over6));
    let target = target(two, "net1");
    let member = Attachment::new(one, "member", "net1");
    let net = one.namespace().net();
    assert!(is_heard(&net, two, there), "another port");
    assert_eq!(target.frames(&net, None, there), 0);
    // Without rights as well, whose datagrams arrive at another port.
    assert_eq!(target.frames_of_nobody(one, there), 0, "of nobody");
    let other = listener(&two.namespace().net(), (there, PORT).into());
    sends_as_nobody(one, b"honest", (there, PORT).into());
    assert!(count(&other) > 0, "of nobody, to another port");
    assert!(member.container.pings(target.victim.address, &[]));
    // It is the guard of the sender's host: without it the frames arrive.
    one.script("nft flush chain inet crosshost to-tunnels");
    assert_eq!(target.frames(&net, None, there), TRIES);
    assert_eq!(target.frames_of_nobody(one, there), TRIES);
    one.sync();
    assert_eq!(target.frames(&net, None, there), 0);
    // To the tunnel of its own host, from the address that this has.
    let own = Target {
        victim: member,
        vni: target.vni,
    };
    assert_eq!(own.frames(&net, Some(here), here), 0);
    assert_eq!(own.frames_of_nobody(one, here), 0);
    one.script("nft flush chain inet crosshost to-tunnels");
    assert_eq!(own.frames(&net, Some(here), here), 0);
    one.script("nft flush chain inet crosshost arriving");
    assert_eq!(own.frames(&net, Some(here), here), TRIES);
    end_all([own.victim, target.victim]);
}

#[test]
fn a_program_of_a_host_reaches_no_tunnel() {
    by_a_program(false);
}

#[test]
fn a_program_of_a_host_reaches_no_tunnel_over_ipv6() {
    by_a_program(true);
}

/// All that a host has as its own by one version of IP, and the groups that it hears.
fn own_addresses(host: &Host, over6: bool) -> Vec<SocketAddr> {
    let words = if over6 {
        "ip -json -6 address show"
    } else {
        "ip -json -4 address show"
    };
    let links = host.run(words).ok().json();
    let at = |address: IpAddr, link: &Value| match address {
        IpAddr::V4(_) => SocketAddr::new(address, TUNNEL),
        IpAddr::V6(address) => {
            let index = link["ifindex"]
                .as_u64()
                .and_then(|it| u32::try_from(it).ok());
            let is_near = address.is_unicast_link_local() || address.is_multicast();
            let scope = index.filter(|_| is_near).unwrap_or_default();
            SocketAddrV6::new(address, TUNNEL, 0, scope).into()
        }
    };
    let mut found = vec![];
    for link in links.as_array().expect("links") {
        let its = link["addr_info"].as_array().into_iter().flatten();
        let its = its.flat_map(|it| [it["local"].as_str(), it["broadcast"].as_str()]);
        let its = its.flatten().filter_map(|it| it.parse().ok());
        found.extend(its.map(|address| at(address, link)));
        if over6 {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            found.push(at(all_nodes.into(), link));
        }
    }
    if !over6 {
        let more = ["127.3.2.1", "255.255.255.255"].map(|it| it.parse().expect("one"));
        found.extend(more.map(|it: IpAddr| SocketAddr::new(it, TUNNEL)));
    }
    found
}

/// The socket of a tunnel hears on all addresses of its host.
fn by_another_address(over6: bool) {
    let lab = lab(2, over6);
    lab.sync();
    let (one, two) = (lab.host(1), lab.host(2));
    for conflist in &networks() {
        lab.install(conflist);
    }
    for (host, n) in lab.hosts().iter().zip(11..) {
        host.script(&format!(
            "ip address add 10.77.0.{n}/24 dev ens3
             ip address add fd77::{n}/64 dev ens3 nodad"
        ));
    }
    let by_nat = Attachment::new(one, "nat", "nat");
    let by_gateway = Attachment::new(one, "gw", "gw");
    let far = target(two, "secret");
    let near = Target {
        victim: Attachment::new(one, "near", "secret"),
        vni: far.vni,
    };
    let host = one.namespace().net();
    let senders = [
        ("a container", by_nat.container.net()),
        ("one with a gateway", by_gateway.container.net()),
        ("a program", host),
    ];
    let own = own_addresses(one, over6);
    assert!(own.len() > 6, "{own:?}");
    let beside: IpAddr = if over6 { "fd77::12" } else { "10.77.0.12" }
        .parse()
        .expect("one");
    for (name, net) in &senders {
        assert!(is_heard(net, two, beside), "{name}: another port");
        assert_eq!(far.frames(net, None, beside), 0, "{name} to {beside}");
        if !over6 {
            let all = "192.168.1.255".parse().expect("one");
            assert_eq!(far.frames(net, None, all), 0, "{name} to all hosts");
        }
        for at in &own {
            let frames = near.frames_at(net, None, *at);
            assert_eq!(frames, 0, "{name} to {at} of its host");
        }
    }
    // It is the guard of the receiver: without it the frames arrive.
    let first = own.iter().find(|at| at.ip().is_loopback()).expect("one");
    for (host, target, at) in [(two, &far, beside), (one, &near, first.ip())] {
        host.script("nft flush chain inet crosshost input");
        let (_, program) = &senders[2];
        assert_eq!(target.frames(program, None, at), TRIES, "{at}");
    }
    end_all([by_nat, by_gateway, near.victim, far.victim]);
}

#[test]
fn no_other_address_of_a_host_leads_to_its_tunnels() {
    by_another_address(false);
}

#[test]
fn no_other_address_of_a_host_leads_to_its_tunnels_over_ipv6() {
    by_another_address(true);
}

/// A host of the cluster that has no address of a network, and whose own rules stop nothing, as its operator may see to.
fn by_a_host_without_part(over6: bool) {
    let lab = lab(3, over6);
    let (one, third) = (lab.host(1), lab.host(3));
    let here = address(one, over6);
    let networks = [("secret", "10.0.5.0/24"), ("shared", "10.0.6.0/24")];
    lab.install(&conflist("secret", "10.0.5.0/24"));
    lab.install(&conflist("shared", "10.0.6.0/24"));
    for host in &lab.hosts()[..2] {
        host.sync();
    }
    let targets = networks.map(|(name, _)| target(one, name));
    let members = networks.map(|(name, _)| Attachment::new(lab.host(2), name, name));
    // It comes when both networks are there, and takes part in one of them.
    let other = Attachment::new(third, "other", "shared");
    one.sync();
    let open = || third.script("nft flush chain inet crosshost to-tunnels");
    open();
    let net = third.namespace().net();
    let [secret, shared] = &targets;
    assert_eq!(secret.frames(&net, None, here), 0);
    assert_eq!(shared.frames(&net, None, here), TRIES);
    for (member, target) in members.iter().zip(&targets) {
        assert!(member.container.pings(target.victim.address, &[]));
    }
    // With an address of it, it has a part in it.
    let late = Attachment::new(third, "late", "secret");
    one.sync();
    assert!(late.container.pings(secret.victim.address, &[]));
    open();
    assert_eq!(secret.frames(&net, None, here), TRIES);
    end_all(members.into_iter().chain([other, late]));
    end_all(targets.map(|target| target.victim));
}

#[test]
fn a_host_that_has_no_part_in_a_network_sends_nothing_to_it() {
    by_a_host_without_part(false);
}

#[test]
fn a_host_that_has_no_part_in_a_network_sends_nothing_to_it_over_ipv6() {
    by_a_host_without_part(true);
}
