//! Nothing that a container, a program of a host, or a host that has no part in a network sends reaches its tunnel: VXLAN made by hand
//! brings no frame into a network. Each attack has a control: the same datagram to a port that is no tunnel, or to a network in which the
//! sender has a part, arrives.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use integration::{Attachment, Backend, Host, Lab, Net, conflist, end_all};

/// Where the victim listens, and where a host does.
const PORT: u16 = 9999;
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
        let address = self.victim.address;
        let listener = listener(&self.victim.container.net(), (address, PORT).into());
        let content = forged(self.vni, address);
        net.run(|| {
            let any: IpAddr = if host.is_ipv4() {
                [0; 4].into()
            } else {
                [0; 16].into()
            };
            let socket = UdpSocket::bind((from.unwrap_or(any), 0)).expect("a socket");
            socket.set_broadcast(true).expect("an option");
            for _ in 0..TRIES {
                // What the sender's own host refuses is not sent.
                let _ = socket.send_to(&content, (host, 4789));
            }
        });
        let heard = std::iter::from_fn(|| listener.recv(&mut [0; 64]).ok());
        heard.count()
    }
}

/// Whether a datagram from there to a port of the host that is no tunnel arrives, sooner or later.
fn is_heard(net: &Net, host: &Host, at: IpAddr) -> bool {
    (0..25).any(|_| is_heard_now(net, host, at))
}

fn is_heard_now(net: &Net, host: &Host, at: IpAddr) -> bool {
    let listener = listener(&host.namespace().net(), (at, PORT).into());
    net.run(|| {
        let any: IpAddr = if at.is_ipv4() {
            [0; 4].into()
        } else {
            [0; 16].into()
        };
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        socket.send_to(b"honest", (at, PORT)).expect("sent");
    });
    listener.recv(&mut [0; 16]).is_ok()
}

fn address(host: &Host) -> IpAddr {
    host.vtep().parse().expect("an address")
}

fn target<'lab>(host: &'lab Host, network: &str) -> Target<'lab> {
    let victim = Attachment::new(host, &format!("victim-{network}"), network);
    let inspected = host.listed(&format!("network inspect {network}"));
    let vni = inspected["vni"].as_u64().expect("a VNI");
    let vni = u32::try_from(vni).expect("24 bits");
    Target { victim, vni }
}

/// By NAT of the egress NIC, by the gateway, and to the tunnel of its own host; the victim is on a network of its own.
#[test]
fn a_container_reaches_no_tunnel() {
    let lab = Lab::registered(2, Backend::Dir);
    let (one, two) = (lab.host(1), lab.host(2));
    let mut gateway = conflist("gw", "10.0.7.0/24");
    gateway["plugins"][0]["egress"] = "gateway".into();
    gateway["plugins"][0]["ipam"]["gateway"] = "10.0.7.1".into();
    for host in lab.hosts() {
        for conflist in [
            &conflist("nat", "10.0.6.0/24"),
            &gateway,
            &conflist("secret", "10.0.5.0/24"),
        ] {
            host.install(conflist);
        }
    }
    let target = target(two, "secret");
    let by_nat = Attachment::new(one, "nat", "nat");
    let by_gateway = Attachment::new(one, "gw", "gw");
    // A member of the network, whose address is that of the host from which the attack comes.
    let member = Attachment::new(one, "member", "secret");
    assert!(member.container.pings(target.victim.address, &[]));
    let there = address(two);
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
    for filter in ["0", "2"] {
        one.script(&format!(
            "for key in all ch-egress; do echo {filter} > /proc/sys/net/ipv4/conf/$key/rp_filter; done"
        ));
        by_nat
            .container
            .run(&format!("ip address replace {there}/32 dev lo"))
            .ok();
        let net = by_nat.container.net();
        let frames = target.frames(&net, Some(there), address(one));
        assert_eq!(frames, 0, "rp_filter {filter}");
    }
    assert!(member.container.pings(target.victim.address, &[]));
    end_all([by_nat, by_gateway, member, target.victim]);
}

#[test]
fn a_program_of_a_host_reaches_no_tunnel() {
    let lab = Lab::with_network(2, Backend::Dir, &conflist("net1", "10.0.0.0/24"));
    let (one, two) = (lab.host(1), lab.host(2));
    let target = target(two, "net1");
    let member = Attachment::new(one, "member", "net1");
    let net = one.namespace().net();
    assert!(is_heard(&net, two, address(two)), "another port");
    assert_eq!(target.frames(&net, None, address(two)), 0);
    assert!(member.container.pings(target.victim.address, &[]));
    // It is the guard of the sender's host: without it the frames arrive.
    one.script("nft flush chain inet crosshost to-tunnels");
    assert_eq!(target.frames(&net, None, address(two)), TRIES);
    one.sync();
    assert_eq!(target.frames(&net, None, address(two)), 0);
    // To the tunnel of its own host, from the address that this has.
    let own = Target {
        victim: member,
        vni: target.vni,
    };
    let here = address(one);
    assert_eq!(own.frames(&net, Some(here), here), 0);
    one.script("nft flush chain inet crosshost to-tunnels");
    assert_eq!(own.frames(&net, Some(here), here), 0);
    one.script("nft flush chain inet crosshost arriving");
    assert_eq!(own.frames(&net, Some(here), here), TRIES);
    end_all([own.victim, target.victim]);
}

/// The socket of a tunnel hears on all addresses of its host.
#[test]
fn no_other_address_of_a_host_leads_to_its_tunnels() {
    let lab = Lab::registered(2, Backend::Dir);
    let (one, two) = (lab.host(1), lab.host(2));
    let mut gateway = conflist("gw", "10.0.7.0/24");
    gateway["plugins"][0]["egress"] = "gateway".into();
    for (host, n) in lab.hosts().iter().zip(11..) {
        for conflist in [
            &conflist("nat", "10.0.6.0/24"),
            &gateway,
            &conflist("secret", "10.0.5.0/24"),
        ] {
            host.install(conflist);
        }
        host.script(&format!("ip address add 10.77.0.{n}/24 dev ens3"));
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
    let own = one.run("ip -json -4 address show").ok().json();
    let own = own.as_array().expect("links").iter();
    let own = own.flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default());
    let mut own: Vec<IpAddr> = own
        .flat_map(|it| [it["local"].clone(), it["broadcast"].clone()])
        .filter_map(|it| it.as_str()?.parse().ok())
        .collect();
    own.extend(["127.3.2.1", "255.255.255.255"].map(|it| it.parse::<IpAddr>().expect("one")));
    assert!(own.len() > 6, "{own:?}");
    let beside: IpAddr = "10.77.0.12".parse().expect("one");
    let all = "192.168.1.255".parse().expect("one");
    for (name, net) in &senders {
        assert!(is_heard(net, two, beside), "{name}: another port");
        assert_eq!(far.frames(net, None, beside), 0, "{name} to {beside}");
        assert_eq!(far.frames(net, None, all), 0, "{name} to all hosts");
        for at in &own {
            assert_eq!(near.frames(net, None, *at), 0, "{name} to {at} of its host");
        }
    }
    // It is the guard of the receiver: without it the frames arrive.
    for (host, target, at) in [(two, &far, beside), (one, &near, own[0])] {
        host.script("nft flush chain inet crosshost input");
        let (_, program) = &senders[2];
        assert_eq!(target.frames(program, None, at), TRIES, "{at}");
    }
    end_all([by_nat, by_gateway, near.victim, far.victim]);
}

/// A host of the cluster that has no address of a network, and whose own rules stop nothing, as its operator may see to.
#[test]
fn a_host_that_has_no_part_in_a_network_sends_nothing_to_it() {
    let lab = Lab::new(3, Backend::Dir);
    let (one, third) = (lab.host(1), lab.host(3));
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
    assert_eq!(secret.frames(&net, None, address(one)), 0);
    assert_eq!(shared.frames(&net, None, address(one)), TRIES);
    for (member, target) in members.iter().zip(&targets) {
        assert!(member.container.pings(target.victim.address, &[]));
    }
    // With an address of it, it has a part in it.
    let late = Attachment::new(third, "late", "secret");
    one.sync();
    assert!(late.container.pings(secret.victim.address, &[]));
    open();
    assert_eq!(secret.frames(&net, None, address(one)), TRIES);
    end_all(members.into_iter().chain([other, late]));
    end_all(targets.map(|target| target.victim));
}
