//! What the host's table of connections knows gives nobody what is for another container: not a container that sends from a published
//! port, not a container that has the address of one that is gone, and not a machine that sends with the address of a container. Each
//! attack has a control: it succeeds where one rule is taken away, or honest packets of the same kind arrive.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use integration::{
    Attachment, Backend, Container, Lab, Namespace, Net, OUTSIDE, conflist, end_all,
};
use serde_json::{Value, json};

use crate::portmap::published::{Published, network};

/// Where the victim listens, and the port of its host that leads there.
const PORT: u16 = 7000;
const HOST_PORT: u16 = 8053;
/// Where a service of the host listens.
const SERVICE: u16 = 5353;
/// From where the client sends to both.
const CLIENT: u16 = 5000;

/// A socket of UDP, which waits for a datagram for less than half a second.
fn socket(net: &Net, at: SocketAddr) -> UdpSocket {
    let socket = net.run(|| UdpSocket::bind(at).expect("a socket"));
    let patience = Some(Duration::from_millis(400));
    socket.set_read_timeout(patience).expect("a time-out");
    socket
}

/// All addresses of the version of IP that this one has.
fn any(of: IpAddr) -> IpAddr {
    if of.is_ipv4() {
        [0; 4].into()
    } else {
        [0; 16].into()
    }
}

/// What comes there next, and from where.
fn heard(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut bytes = [0; 64];
    let (length, from) = socket.recv_from(&mut bytes).ok()?;
    Some((String::from_utf8_lossy(&bytes[..length]).into_owned(), from))
}

/// Whether the receiver hears what the sender sends: once, or, of what should arrive, sooner or later.
fn hears(receiver: &UdpSocket, sender: &UdpSocket, to: SocketAddr, tries: usize) -> bool {
    (0..tries).any(|_| {
        // A host may refuse it at once.
        let _ = sender.send_to(b"for one", to);
        heard(receiver).is_some()
    })
}

fn ports() -> Value {
    json!([{ "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "udp" }])
}

/// An address of a machine of the laboratory by version of IP.
fn parsed(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// The attacker sends from the number of the published port to the client, who then asks at that port, from the port that it has in
/// the attacker's connection: if that had the published port at the host's address, the question would be taken for an answer to it.
#[test]
fn a_container_that_sends_from_a_published_port_gets_nothing_that_is_for_it() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let mut other = network("overlay", "other", 2);
    other["plugins"][0]["egress"] = "gateway".into();
    host.install(&network("overlay", "own", 1));
    host.install(&other);
    let victim = Published::new(host, "victim", "own", &ports());
    let beside = Published::new(host, "beside", "own", &json!([]));
    let gateway = Published::new(host, "gateway", "other", &json!([]));
    let outside = lab.outside().net();
    let clients = [parsed("203.0.113.9"), parsed("2001:db8:203:0:113::9")];
    let hosts = [parsed(host.vtep()), parsed(&host.address6())];
    for (client, at_host) in clients.into_iter().zip(hosts) {
        let service = socket(&host.namespace().net(), (any(client), SERVICE).into());
        let server = socket(&victim.container.net(), (any(client), PORT).into());
        for (attacker, client_port) in [(&beside, CLIENT), (&gateway, CLIENT + 1)] {
            let name = attacker.container.name();
            let client = SocketAddr::new(client, client_port);
            let asks = socket(&outside, client);
            for (port, listener) in [(HOST_PORT, &server), (SERVICE, &service)] {
                let at = SocketAddr::new(at_host, port);
                let attack = socket(&attacker.container.net(), (any(at_host), port).into());
                attack.send_to(b"mine", client).expect("sent");
                let (_, from) = heard(&asks).expect("NAT lets it out");
                assert_eq!(from.ip(), at_host, "{name}: hidden");
                assert!(from.port() >= 32768, "{name}: sends from {from}");
                // It gets the answers to what it sent.
                assert!(hears(&attack, &asks, from, 25), "{name}: {from}");
                assert!(
                    !hears(&attack, &asks, at, 1),
                    "{name} hears what is for {at}"
                );
                assert!(heard(listener).is_some(), "{name}: {at}");
            }
        }
    }
    // It is the choice of the port: without it the attack succeeds, of a container whose port has not been translated yet.
    let late = Published::new(host, "late", "own", &json!([]));
    host.script("nft flush chain inet crosshost client-ports");
    let client = SocketAddr::new(clients[0], CLIENT + 2);
    let at = SocketAddr::new(hosts[0], HOST_PORT);
    let asks = socket(&outside, client);
    let attack = socket(&late.container.net(), (any(hosts[0]), HOST_PORT).into());
    attack.send_to(b"mine", client).expect("sent");
    assert_eq!(heard(&asks).expect("NAT lets it out").1, at);
    assert!(hears(&attack, &asks, at, 25), "without the rule");
    host.sync();
    host.crosshost("doctor").ok();
    for it in [victim, beside, gateway, late] {
        it.again("del").ok();
        it.container.remove();
    }
}

/// The attacker sends what the victim would answer to a client that has just asked: with the victim's address and port, which the host
/// would translate to its own.
#[test]
fn a_container_does_not_answer_for_a_published_port_of_another() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    let mut other = network("overlay", "other", 2);
    other["plugins"][0]["egress"] = "gateway".into();
    host.install(&network("overlay", "own", 1));
    host.install(&other);
    let victim = Published::new(host, "victim", "own", &ports());
    let beside = Published::new(host, "beside", "own", &json!([]));
    let gateway = Published::new(host, "gateway", "other", &json!([]));
    let at = SocketAddr::new(parsed(host.vtep()), HOST_PORT);
    let client = SocketAddr::new(parsed("203.0.113.9"), CLIENT);
    let asks = socket(&lab.outside().net(), client);
    let server = socket(&victim.container.net(), ([0; 4], PORT).into());
    assert!(hears(&server, &asks, at, 25), "the victim");
    server.send_to(b"answer", client).expect("sent");
    let honest = Some(("answer".to_owned(), at));
    assert_eq!(heard(&asks), honest, "the victim answers");
    let own = victim.container.address("gw0").expect("a way out");
    for attacker in [&beside, &gateway] {
        // It knows its gateway's MAC, for which it would ask with the victim's address.
        attacker.container.tcp_get(OUTSIDE).expect("a way out");
    }
    let answers = |attacker: &Published<'_>| {
        let container = &attacker.container;
        container
            .run(&format!("ip address replace {own}/32 dev lo"))
            .ok();
        container.run("ip link set lo up").ok();
        let socket = socket(&container.net(), (own, PORT).into());
        socket.send_to(b"forged", client).expect("sent");
        heard(&asks)
    };
    for attacker in [&beside, &gateway] {
        let name = attacker.container.name();
        assert_eq!(answers(attacker), None, "{name}");
    }
    // It is the guard of the port, or, from another network, the table.
    host.script(
        "for ns in /run/crosshost/netns/* /run/crosshost/egress-netns/*; do
             nsenter --net=$ns nft flush chain bridge crosshost-guard prerouting || true
         done",
    );
    assert_eq!(answers(&gateway), None, "by the table alone");
    host.script("nft flush chain inet crosshost from-containers");
    let forged = Some(("forged".to_owned(), at));
    for attacker in [&beside, &gateway] {
        let name = attacker.container.name();
        let soon = (0..25).map(|_| answers(attacker)).find(Option::is_some);
        assert_eq!(soon, Some(forged.clone()), "{name}, without a guard");
    }
    for it in [victim, beside, gateway] {
        it.again("del").ok();
        it.container.remove();
    }
}

/// A container's UDP connection to the outside, from [`PORT`] of its address.
struct Connection {
    inside: UdpSocket,
    outside: UdpSocket,
    /// The container's end as the outside sees it.
    seen: SocketAddr,
}

impl Connection {
    fn open(lab: &Lab, container: &Container<'_>, number: u16) -> Self {
        let inside = socket(&container.net(), (any([0; 4].into()), PORT).into());
        let outside = SocketAddr::new(parsed("203.0.113.9"), CLIENT + number);
        let outer = socket(&lab.outside().net(), outside);
        inside.send_to(b"mine", outside).expect("sent");
        let (_, seen) = heard(&outer).expect("NAT lets it out");
        assert!(hears(&inside, &outer, seen, 25), "while it is there");
        Self {
            inside,
            outside: outer,
            seen,
        }
    }
}

/// An address that is given again soon: the way out has five in all, and of a network one is asked for.
#[test]
fn a_container_gets_nothing_of_connections_of_one_that_had_its_address_before() {
    let lab = Lab::registered(1, Backend::Dir);
    let host = lab.host(1);
    let mut gateway = conflist("gateway", "10.0.7.0/24");
    gateway["plugins"][0]["egress"] = "gateway".into();
    gateway["plugins"][0]["capabilities"] = json!({ "ips": true });
    host.install(&gateway);
    for (name, subnet) in [("first", "10.0.5.0/24"), ("second", "10.0.6.0/24")] {
        let mut small = conflist(name, subnet);
        small["plugins"][0]["egress"] = json!({ "mode": "gwbridge", "subnet": "172.31.0.0/29" });
        host.install(&small);
    }
    // Of a network that stays, and of one that goes with its last container.
    for (number, stays) in [(0, true), (1, false)] {
        let staying = stays.then(|| Attachment::new(host, "staying", "first"));
        let before = Attachment::new(host, "before", "first");
        let address = before.container.address("gw0");
        let connection = Connection::open(&lab, &before.container, number);
        drop(connection.inside);
        before.end();
        let mut others = Vec::new();
        let after = loop {
            let next = Attachment::new(host, &format!("after{}", others.len()), "second");
            if next.container.address("gw0") == address {
                break next;
            }
            others.push(next);
        };
        // Another one comes first only where the bridge, which forgets, stays.
        assert_eq!(others.is_empty(), !stays, "{number}");
        let inside = socket(&after.container.net(), (any([0; 4].into()), PORT).into());
        let found = hears(&inside, &connection.outside, connection.seen, 2);
        assert!(!found, "by the egress bridge, {number}");
        after.end();
        end_all(others);
        end_all(staying);

        let asked = json!({ "ips": ["10.0.7.50/24"] });
        let staying = stays.then(|| Attachment::new(host, "staying", "gateway"));
        let attach = |name: &str| {
            let container = host.container(name);
            let added = host.cnitool_asking("add", "gateway", (name, "eth0"), &asked);
            added.ok();
            container
        };
        let end = |container: Container<'_>| {
            let (name, verb) = (container.name(), "del");
            host.cnitool_asking(verb, "gateway", (name, "eth0"), &asked)
                .ok();
            container.remove();
        };
        let before = attach("before");
        let connection = Connection::open(&lab, &before, number + 2);
        drop(connection.inside);
        end(before);
        let after = attach("after");
        let inside = socket(&after.net(), (any([0; 4].into()), PORT).into());
        let found = hears(&inside, &connection.outside, connection.seen, 2);
        assert!(!found, "by the gateway, {number}");
        end(after);
        end_all(staying);
    }
}

/// A machine on the underlay with addresses of its own, and of others.
fn neighbour(lab: &Lab) -> Namespace {
    let machine = Namespace::new("neighbour", Some(lab.router()));
    lab.router().script(&format!(
        "ip link add neighbour master underlay up type veth peer name ens3 netns {}",
        machine.pid()
    ));
    machine.script(
        "ip address add 192.168.1.66/24 dev ens3
         ip address add 2001:db8:192:168:1::66/80 dev ens3 nodad
         ip link set ens3 up",
    );
    machine
}

/// To a published port, and to a service of the host: who trusts containers by their addresses would take it for one.
#[test]
fn a_machine_of_the_underlay_does_not_pass_for_a_container() {
    let lab = Lab::new(1, Backend::Dir);
    let host = lab.host(1);
    for (name, number, mode) in [("nat", 1, "gwbridge"), ("gateway", 2, "gateway")] {
        let mut conflist = network("overlay", name, number);
        conflist["plugins"][0]["egress"] = mode.into();
        conflist["plugins"][0]["hostAccess"] = true.into();
        host.install(&conflist);
    }
    let victim = Published::new(host, "victim", "nat", &ports());
    let other = Published::new(host, "other", "gateway", &json!([]));
    let machine = neighbour(&lab);
    host.script(
        "for key in all default ens3; do echo 0 > /proc/sys/net/ipv4/conf/$key/rp_filter; done",
    );
    let hosts = [parsed(host.vtep()), parsed(&host.address6())];
    let own = [parsed("192.168.1.66"), parsed("2001:db8:192:168:1::66")];
    let foreign = |container: &Container<'_>, ifname: &str| -> Vec<IpAddr> {
        let listed = container.ip(&format!("address show dev {ifname} scope global"));
        let found = listed[0]["addr_info"].as_array().into_iter().flatten();
        let found = found.filter_map(|it| it["local"].as_str().map(parsed));
        found.collect()
    };
    let others = foreign(&other.container, "eth0");
    let mut forged = others.clone();
    forged.extend(foreign(&victim.container, "gw0"));
    forged.extend(foreign(&victim.container, "eth0"));
    assert_eq!(forged.len(), 6, "{forged:?}");
    for address in &forged {
        let add = format!("ip address add {address} dev lo");
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        machine.script(&format!("{add}{nodad}; ip link set lo up"));
    }
    let arrive = |from: IpAddr, tries| {
        let at_host = hosts[usize::from(from.is_ipv6())];
        let server = socket(&victim.container.net(), (any(from), PORT).into());
        let service = socket(&host.namespace().net(), (any(from), SERVICE).into());
        let sender = socket(&machine.net(), (from, 0).into());
        [(HOST_PORT, server), (SERVICE, service)]
            .map(|(port, listener)| hears(&listener, &sender, (at_host, port).into(), tries))
    };
    for from in own {
        assert_eq!(arrive(from, 25), [true; 2], "{from}");
    }
    for from in &forged {
        assert_eq!(arrive(*from, 1), [false; 2], "{from}");
    }
    host.script("nft flush chain inet crosshost forged");
    for from in &forged {
        // By IPv4 the victim takes nothing that has an address of its own.
        let is_taken = others.contains(from) || from.is_ipv6();
        let found = arrive(*from, if is_taken { 25 } else { 2 });
        assert_eq!(found, [is_taken, true], "{from}, without the rule");
    }
    host.sync();
    assert!(!arrive(forged[0], 1)[1], "after a sync");
    for it in [victim, other] {
        it.again("del").ok();
        it.container.remove();
    }
}
